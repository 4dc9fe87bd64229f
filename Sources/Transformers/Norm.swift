import Adapters
import TensorCore

/// A norm of rows [n, D], and the scale and shift that a method puts behind it:
///
///     y = LN(x) ⊙ γ + β        LN an RMSNorm where there is no bias
public struct Norm {
    /// The norm's own, [D].
    public let weight: Parameter
    public let bias: Parameter?
    private let epsilon: Float
    private let behind: ScaleShift?
    private let backend: any Backend

    /// A LayerNorm over parameters that exist; without a bias an RMSNorm.
    public init(
        weight: Parameter, bias: Parameter?, epsilon: Float, behind: ScaleShift?, _ backend: any Backend
    ) {
        (self.weight, self.bias, self.epsilon) = (weight, bias, epsilon)
        (self.behind, self.backend) = (behind, backend)
    }

    /// Whether a step gives gradients to anything here.
    public var isTrained: Bool { weight.gradient != nil || bias?.gradient != nil || behind != nil }

    /// What a forward over n rows leaves for its backward.
    public struct Memory {
        let mean: Tensor?  // [n]; nil for an RMSNorm
        let rstd: Tensor  // [n]
        let unscaled: Tensor?  // [n, D] what γ scales; nil where no backward follows
    }

    /// Memory for n rows; y is stored as `type`. Throws what the workspace throws.
    public func memory(rows: Int, _ type: ElementType, _ name: String, _ workspace: Workspace) throws
        -> Memory
    {
        Memory(
            mean: bias == nil ? nil : try workspace.kept("mean of \(name)", [rows]),
            rstd: try workspace.kept("rstd of \(name)", [rows]),
            unscaled: behind == nil || !workspace.isForTraining
                ? nil : try workspace.kept("unscaled \(name)", [rows, weight.value.count], type))
    }

    /// y [n, D] from x [n, D].
    public func forward(_ y: Tensor, _ x: Tensor, _ memory: Memory) {
        run(y, x, memory, keeping: memory.unscaled)
    }

    /// y once more, where its memory was used for something else.
    public func again(_ y: Tensor, _ x: Tensor, _ memory: Memory) { run(y, x, memory, keeping: nil) }

    private func run(_ y: Tensor, _ x: Tensor, _ memory: Memory, keeping: Tensor?) {
        if let bias, let mean = memory.mean {
            backend.layerNorm(y, mean, memory.rstd, x, weight.value, bias.value, epsilon: epsilon)
        } else {
            backend.rmsNorm(y, memory.rstd, x, weight.value, epsilon: epsilon)
        }
        behind?.forward(y, y, keeping: keeping)
    }

    /// dx [n, D], or dx + … with `accumulate`; parameters' gradients accumulate. dy is overwritten where there is a scale behind.
    public func backward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ memory: Memory, accumulate: Bool) {
        if let behind, let unscaled = memory.unscaled { behind.backward(dy, unscaled) }
        if let bias, let mean = memory.mean {
            backend.layerNormBackward(
                dx, weight.gradient, bias.gradient, dy, x, mean, memory.rstd, weight.value,
                accumulate: accumulate)
        } else {
            backend.rmsNormBackward(
                dx, weight.gradient, dy, x, memory.rstd, weight.value, accumulate: accumulate)
        }
    }
}
