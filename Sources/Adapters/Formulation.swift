import TensorCore

/// The two ways to compute a GLoRA layer and its gradients, which give the same numbers. With n rows, o outputs, i inputs
/// and rank r:
///
/// - weight space: W = W₀ ⊙ (1 + A) + B in one pass, y = x · Wᵀ; the backward contracts dW = dyᵀ · x with the factors.
///   Three products of n · o · i.
/// - activation space: z = x · W₀ᵀ, t = x · Buᵀ, y = (1 + a) ⊙ z + t · Bdᵀ + b; the backward sums dy ⊙ z and dyᵀ · t.
///   Two products, and passes over x, dy and z. Not for a lowRank A, whose factors don't leave the product.
public enum Formulation: String, CaseIterable, Sendable {
    case weight, activation

    /// What a step costs in bytes moved, in the same unit for both: a product's FLOPs count as the bytes that move in
    /// their time, at `flopsPerByte`. 8 is what a CPU (150 GFLOP/s beside 20 GB/s) and a GPU (60 TFLOP/s beside 5 TB/s)
    /// have in common.
    public func cost(_ path: GLoRAPath, rows: Int, inputs: Int, outputs: Int, flopsPerByte: Double = 8)
        -> Double
    {
        let (n, i, o) = (Double(rows), Double(inputs), Double(outputs))
        let product = 2 * n * i * o / flopsPerByte
        let float = 4.0
        switch self {
        case .weight:
            guard path.changesWeight else { return 2 * product }
            // W is read and written in either direction; in the contraction W₀ is read.
            return 3 * product + float * (5 * i * o)
        case .activation:
            var bytes = 0.0
            if path.b != .none { bytes += n * (i + o) }  // t from x; dy for its sums
            if case .lowRank = path.b { bytes += n * (i + o) }  // u from dy; dBu from x
            if path.a != .none { bytes += n * 2 * o }  // z written and read
            if path.a != .none && path.b == .none { bytes += n * o }  // dy
            return 2 * product + float * (bytes + 4 * i * o)
        }
    }

    /// Whether a path can be computed this way.
    public func allows(_ path: GLoRAPath) -> Bool {
        guard self == .activation, case .lowRank = path.a else { return true }
        return false
    }

    /// The cheaper one of those that the path allows.
    public static func cheaper(_ path: GLoRAPath, rows: Int, inputs: Int, outputs: Int) -> Formulation {
        guard activation.allows(path) else { return .weight }
        func cost(_ formulation: Formulation) -> Double {
            formulation.cost(path, rows: rows, inputs: inputs, outputs: outputs)
        }
        return cost(.activation) <= cost(.weight) ? .activation : .weight
    }
}
