/// What float16 multiplies the loss by, so that small gradients don't vanish below its 6e-8: halved when a gradient
/// overflows, whose step is then left out, and doubled after 2,000 steps without that.
///
/// Source: PyTorch, torch/amp/grad_scaler.py, whose numbers these are.
public struct LossScale: Codable, Equatable, Sendable {
    /// The factor of the next step, a power of two: it changes no digit.
    public private(set) var factor: Float = 65536
    /// Steps since the factor changed.
    private var goodSteps = 0

    /// At a run's beginning.
    public init() {}

    /// Whether updates can have led to it.
    var isPossible: Bool { factor > 0 && factor.isFinite && (0..<2000).contains(goodSteps) }

    /// Takes note of a step's gradients.
    public mutating func update(gradientsAreFinite: Bool) {
        goodSteps = gradientsAreFinite ? goodSteps + 1 : 0
        if !gradientsAreFinite {
            factor /= 2
        } else if goodSteps == 2000 {
            (factor, goodSteps) = (factor * 2, 0)
        }
    }
}
