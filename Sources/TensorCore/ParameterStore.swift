/// The trained tensors of a model in one flat buffer, with their gradients and AdamW's moments beside it: an optimizer step
/// is one launch, clearing the gradients one fill, saving one read.
///
/// Each tensor is a *segment* of whole blocks of `viewAlignment` elements. The padding between segments has zero gradients
/// and zero values, and stays so.
public final class ParameterStore {
    /// A tensor to be: its name, shape and first values, which are made when they are asked for: what a file or a setting
    /// wants can be larger than any memory.
    public struct Declaration {
        /// The name in the model.
        public let name: String
        /// Sizes, outermost first.
        public let shape: [Int]
        /// The values before the first step, as many as `shape` holds; the same ones whenever it is called.
        private let values: (_ count: Int) -> [Float]

        /// A declaration of a tensor whose first values `values` makes, as many as it is told, the same ones at every call.
        public init(_ name: String, _ shape: [Int], values: @escaping (_ count: Int) -> [Float]) {
            (self.name, self.shape, self.values) = (name, shape, values)
        }

        /// A declaration of a tensor that begins as `initial`.
        public init(_ name: String, _ initial: HostTensor) {
            self.init(name, initial.shape) { _ in initial.values }
        }

        /// A declaration of a tensor that begins as `initial` everywhere.
        public init(_ name: String, _ shape: [Int], repeating initial: Float) {
            self.init(name, shape) { Array(repeating: initial, count: $0) }
        }

        /// The first values.
        public var initial: HostTensor {
            HostTensor(shape: shape, values: values(shape.reduce(1, *)))
        }
    }

    /// One tensor's place in the flat buffers.
    public struct Segment: Sendable {
        /// The name in the model.
        public let name: String
        /// The tensor's shape.
        public let shape: [Int]
        /// The first element, a multiple of `viewAlignment`.
        public let offset: Int
        /// The tensor's elements, without padding.
        public var count: Int { shape.reduce(1, *) }
    }

    /// The segments in the order of declaration.
    public let segments: [Segment]
    /// [n] current values.
    public let values: Tensor
    /// [n] gradients of the step under way.
    public let gradients: Tensor
    /// [n] AdamW's first moments.
    public let firstMoments: Tensor
    /// [n] AdamW's second moments.
    public let secondMoments: Tensor
    /// [n / viewAlignment] int32: the segment that a block belongs to.
    public let segmentOfBlock: Tensor
    /// [segments, 4]: what `Backend.adamW` reads of each segment in a step.
    public let segmentTable: Tensor

    private let backend: any Backend
    private let parameters: [String: Parameter]

    /// Takes the memory and writes the first values. Throws `BackendError.outOfMemory`, before anything is made where the
    /// tensors alone exceed the memory. Traps when two tensors have one name.
    public init(_ backend: any Backend, _ declarations: [Declaration]) throws {
        try ParameterStore.checkMemory(of: backend, for: declarations)
        var segments: [Segment] = []
        var blocks: [Int32] = []
        for (index, declaration) in declarations.enumerated() {
            segments.append(
                Segment(
                    name: declaration.name, shape: declaration.shape,
                    offset: blocks.count * viewAlignment))
            let blockCount = Arena.footprint(declaration.shape) / viewAlignment
            blocks += Array(repeating: Int32(index), count: blockCount)
        }
        let count = max(blocks.count, 1) * viewAlignment
        (self.backend, self.segments) = (backend, segments)
        values = try backend.allocate([count], .float32)
        gradients = try backend.allocate([count], .float32)
        firstMoments = try backend.allocate([count], .float32)
        secondMoments = try backend.allocate([count], .float32)
        segmentOfBlock = try backend.allocate([max(blocks.count, 1)], .int32)
        segmentTable = try backend.allocate([max(segments.count, 1), 4], .float32)
        backend.upload(segmentOfBlock, blocks.isEmpty ? [0] : blocks)
        for tensor in [values, gradients, firstMoments, secondMoments] { backend.fill(tensor, 0) }
        var parameters: [String: Parameter] = [:]
        for (segment, declaration) in zip(segments, declarations) {
            let parameter = Parameter(
                name: segment.name,
                value: try backend.view(values, at: segment.offset, segment.shape),
                gradient: try backend.view(gradients, at: segment.offset, segment.shape))
            backend.upload(parameter.value, declaration.initial.values)
            require(
                parameters.updateValue(parameter, forKey: segment.name) == nil, "ParameterStore",
                "\(segment.name) is declared twice")
        }
        self.parameters = parameters
    }

    /// Throws when the values, gradients and both moments can't fit.
    private static func checkMemory(of backend: any Backend, for declarations: [Declaration]) throws {
        let needed = declarations.reduce(0) { sum, declaration in
            let (total, overflow) = sum.addingReportingOverflow(product(declaration.shape + [4, 4]) ?? .max)
            return overflow ? .max : total
        }
        guard needed <= backend.memoryByteCount else {
            throw BackendError.outOfMemory(
                device: backend.name, requested: needed, available: backend.memoryByteCount)
        }
    }

    /// The trained tensor of that name, or nil.
    public subscript(_ name: String) -> Parameter? { parameters[name] }

    /// Sets every gradient to zero.
    public func clearGradients() { backend.fill(gradients, 0) }

    /// The tensors out of a flat buffer of this store, by name.
    public func unpack(_ flat: Tensor) -> [String: HostTensor] {
        let all = backend.values(flat)
        return Dictionary(
            uniqueKeysWithValues: segments.map {
                ($0.name, HostTensor(shape: $0.shape, values: Array(all[$0.offset..<$0.offset + $0.count])))
            })
    }

    /// Writes tensors by name into a flat buffer of this store. Traps when one is missing or of another shape: files
    /// are checked where they are read.
    public func pack(_ flat: Tensor, _ tensors: [String: HostTensor]) {
        var all = [Float](repeating: 0, count: flat.count)
        for segment in segments {
            guard let tensor = tensors[segment.name], tensor.shape == segment.shape else {
                preconditionFailure("\(segment.name) of shape \(segment.shape) is not among the tensors")
            }
            all.replaceSubrange(segment.offset..<segment.offset + segment.count, with: tensor.values)
        }
        backend.upload(flat, all)
    }
}
