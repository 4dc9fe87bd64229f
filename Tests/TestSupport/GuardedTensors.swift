import TensorCore
import Testing

/// Tensors for one operation under test, each a view inside a larger buffer whose other elements are NaNs
/// of a known bit pattern: an operation that reads outside poisons its result, and one that writes outside
/// is found by `expectIntact`.
///
///     [128 guards][elements][at least 128 guards]
public final class GuardedTensors {
    private struct Guarded {
        let whole: Tensor  // [128 + count + guards]
        let count: Int
        /// What an input held at first; nil for an output.
        let initial: [UInt32]?
        let name: String
    }

    private static let sentinel: UInt32 = 0x7fc1_2345  // a quiet NaN
    private let backend: any Backend
    private var tensors: [Guarded] = []

    /// No tensors yet.
    public init(_ backend: any Backend) { self.backend = backend }

    /// A float32 tensor that the operation must not change.
    public func input(_ values: [Float], _ shape: [Int], _ name: String = "input") throws -> Tensor {
        try place(values.map(\.bitPattern), shape, .float32, isInput: true, name)
    }

    /// An int32 tensor that the operation must not change.
    public func integers(_ values: [Int32], _ shape: [Int], _ name: String = "integers") throws -> Tensor {
        try place(values.map(UInt32.init(bitPattern:)), shape, .int32, isInput: true, name)
    }

    /// A float32 tensor full of NaNs, to be overwritten.
    public func output(_ shape: [Int], _ name: String = "output") throws -> Tensor {
        let count = shape.reduce(1, *)
        return try place(
            Array(repeating: Float.nan.bitPattern, count: count), shape, .float32, isInput: false, name)
    }

    /// A float32 tensor that the operation adds to or changes in place.
    public func inOut(_ values: [Float], _ shape: [Int], _ name: String = "in-out") throws -> Tensor {
        try place(values.map(\.bitPattern), shape, .float32, isInput: false, name)
    }

    private func place(
        _ bits: [UInt32], _ shape: [Int], _ type: ElementType, isInput: Bool, _ name: String
    ) throws -> Tensor {
        let margin = viewAlignment
        let padded = (bits.count + margin - 1) / margin * margin
        var content = Array(repeating: GuardedTensors.sentinel, count: margin + padded + margin)
        content.replaceSubrange(margin..<margin + bits.count, with: bits)
        let whole = try backend.allocate([content.count], type)
        content.withUnsafeBytes { backend.upload(whole, $0) }
        tensors.append(Guarded(whole: whole, count: bits.count, initial: isInput ? bits : nil, name: name))
        return try backend.view(whole, at: margin, shape)
    }

    /// Records an issue for each tensor whose surroundings have changed, and for each input that has.
    public func expectIntact(_ operation: String, sourceLocation: SourceLocation = #_sourceLocation) {
        for tensor in tensors {
            var content = [UInt32](repeating: 0, count: tensor.whole.count)
            content.withUnsafeMutableBytes { backend.download($0, tensor.whole) }
            let first = viewAlignment
            let guards = content[..<first] + content[(first + tensor.count)...]
            if guards.contains(where: { $0 != GuardedTensors.sentinel }) {
                Issue.record(
                    "\(operation) wrote outside \(tensor.name) of \(tensor.count) elements",
                    sourceLocation: sourceLocation)
            }
            if let initial = tensor.initial, initial[...] != content[first..<first + tensor.count] {
                Issue.record("\(operation) changed its input \(tensor.name)", sourceLocation: sourceLocation)
            }
        }
    }
}
