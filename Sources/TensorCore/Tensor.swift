/// The type of a tensor's elements in a backend's memory. Arithmetic is always float32.
public enum ElementType: Sendable, Hashable {
    case float32
    case bfloat16
    case float16
    case int32

    /// Bytes per element.
    public var byteCount: Int {
        switch self {
        case .float32, .int32: 4
        case .bfloat16, .float16: 2
        }
    }
}

/// Memory of one backend. Only that backend looks inside: it casts to its own class, and an operation that meets
/// another backend's buffer stops with the tensor's shape and both names.
public protocol Buffer: AnyObject {
    /// The size in bytes.
    var byteCount: Int { get }
}

/// A buffer and a shape: dense, row-major, without strides and without a graph behind it.
///
/// A tensor is a reference. Two tensors of one buffer see the same numbers, and a part of a buffer
/// (`Backend.view`) is a tensor like any other.
public struct Tensor {
    /// Where the elements lie.
    public let buffer: any Buffer
    /// Sizes, outermost first; empty for a scalar.
    public let shape: [Int]
    /// What the elements are.
    public let elementType: ElementType

    /// Wraps a backend's buffer. Traps when the shape doesn't fit into it.
    public init(buffer: any Buffer, shape: [Int], elementType: ElementType = .float32) {
        let bytes = shape.reduce(1, *) * elementType.byteCount
        precondition(
            bytes <= buffer.byteCount,
            "a tensor of shape \(shape) needs \(bytes) bytes; its buffer has \(buffer.byteCount)")
        (self.buffer, self.shape, self.elementType) = (buffer, shape, elementType)
    }

    /// The number of elements.
    public var count: Int { shape.reduce(1, *) }
    /// The last dimension: the row length of the tensor read as a matrix (1 for a scalar).
    public var columns: Int { shape.last ?? 1 }
    /// The product of all dimensions but the last: the rows of the tensor read as a matrix.
    public var rows: Int { shape.dropLast().reduce(1, *) }
    /// The size in bytes.
    public var byteCount: Int { count * elementType.byteCount }

    /// The same elements under another shape of the same count.
    public func reshaped(_ shape: [Int]) -> Tensor {
        precondition(
            shape.reduce(1, *) == count, "shape \(self.shape) can't be read as \(shape)")
        return leading(shape)
    }

    /// The first elements of this tensor's memory in another shape, of its type or of the one given: how memory that is sized for the
    /// largest use serves smaller ones. Traps when the memory holds fewer.
    public func leading(_ shape: [Int], _ type: ElementType? = nil) -> Tensor {
        Tensor(buffer: buffer, shape: shape, elementType: type ?? elementType)
    }
}

/// A tensor in the host's memory: what files hold and what tests compare.
public struct HostTensor: Equatable, Sendable {
    /// Sizes, outermost first; empty for a scalar.
    public var shape: [Int]
    /// The elements, row-major.
    public var values: [Float]

    /// Traps when the count of values isn't the product of the shape.
    public init(shape: [Int], values: [Float]) {
        precondition(
            values.count == shape.reduce(1, *),
            "shape \(shape) does not hold \(values.count) values")
        (self.shape, self.values) = (shape, values)
    }

    /// A tensor of equal values.
    public init(shape: [Int], repeating value: Float) {
        self.init(shape: shape, values: Array(repeating: value, count: shape.reduce(1, *)))
    }
}

/// A named tensor of a model with, if it is being trained, the tensor that its gradient accumulates in.
public struct Parameter {
    /// The name in the model, timm's naming: `blocks.0.attn.qkv.weight`, `blocks.0.attn.qkv.Ad`.
    public let name: String
    /// The current value.
    public let value: Tensor
    /// The gradient, of the value's shape; nil when the tensor is frozen.
    public let gradient: Tensor?

    /// A frozen parameter, or a trained one when a gradient is given.
    public init(name: String, value: Tensor, gradient: Tensor? = nil) {
        precondition(gradient == nil || gradient!.shape == value.shape)
        (self.name, self.value, self.gradient) = (name, value, gradient)
    }

    /// The same numbers under another shape of the same count.
    public func reshaped(_ shape: [Int]) -> Parameter {
        Parameter(name: name, value: value.reshaped(shape), gradient: gradient?.reshaped(shape))
    }
}
