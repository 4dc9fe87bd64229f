import TensorCore

/// What a branch gives, scaled channel by channel before it is added to the stream, of rows [n, D]:
///
///     x ← γ ⊙ x
///
/// It isn't folded into the Linear before it: B would mean another change of the function then.
/// Source: arXiv 2103.17239; timm 1.0.31, `LayerScale`.
public struct LayerScale {
    /// γ [D].
    public let scale: Parameter
    private let backend: any Backend

    /// A layer scale over a parameter that exists.
    public init(_ scale: Parameter, _ backend: any Backend) { (self.scale, self.backend) = (scale, backend) }

    /// Whether a step gives a gradient to γ.
    public var isTrained: Bool { scale.gradient != nil }

    /// [n, D] for what the forward scales: nil unless γ is trained. Throws what the workspace throws.
    func memory(rows: Int, _ workspace: Workspace) throws -> Tensor? {
        guard isTrained, workspace.isForTraining else { return nil }
        return try workspace.own([rows, scale.value.count], workspace.stored)
    }

    /// x ← γ ⊙ x; `unscaled` receives x where it is wanted.
    func forward(_ x: Tensor, keeping unscaled: Tensor?) {
        if let unscaled { backend.copy(unscaled, x) }
        backend.scaleShift(x, x, scale.value, nil)
    }

    /// dy ← γ ⊙ dy, and γ's gradient where it is trained.
    func backward(_ dy: Tensor, _ unscaled: Tensor?) {
        // Without a gradient of γ nothing reads x.
        backend.scaleShiftBackward(dy, scale.gradient, nil, dy, unscaled ?? dy, scale.value)
    }
}
