/// A bump allocator over a few large buffers: a plan takes its activations here once, and a step allocates nothing.
///
/// `reset` starts the next plan (say, the smaller last batch of an evaluation) over the same memory: views made before stay
/// valid, but share it. Buffers are chunks rather than one block because a driver caps a single buffer, often at a
/// quarter of the memory.
public final class Arena {
    private let backend: any Backend
    private let chunkCount: Int
    private var chunks: [Tensor] = []
    private var chunk = 0
    private var offset = 0

    /// Bytes of device memory that this arena holds.
    public var byteCount: Int { chunks.reduce(0) { $0 + $1.byteCount } }

    /// An empty arena; `chunkByteCount` is what it takes from the device at a time.
    public init(_ backend: any Backend, chunkByteCount: Int = 64 << 20) {
        self.backend = backend
        chunkCount = min(chunkByteCount, backend.largestBufferByteCount) / 4 / viewAlignment * viewAlignment
    }

    /// What a tensor of this shape occupies, in units of 4 bytes.
    public static func footprint(_ shape: [Int], _ elementType: ElementType = .float32) -> Int {
        let words = (shape.reduce(1, *) * elementType.byteCount + 3) / 4
        return (max(words, 1) + viewAlignment - 1) / viewAlignment * viewAlignment
    }

    /// A tensor, uninitialised. Throws `BackendError.outOfMemory`.
    public func take(_ shape: [Int], _ elementType: ElementType = .float32) throws -> Tensor {
        let needed = Arena.footprint(shape, elementType)
        while chunk < chunks.count, offset + needed > chunks[chunk].count {
            chunk += 1
            offset = 0
        }
        if chunk == chunks.count {
            // Near the end of the memory, where a whole chunk has no room, the tensor alone may have.
            let whole = try? backend.allocate([max(chunkCount, needed)], .float32)
            chunks.append(try whole ?? backend.allocate([needed], .float32))
            offset = 0
        }
        let words = (shape.reduce(1, *) * elementType.byteCount + 3) / 4
        let view = try backend.view(chunks[chunk], at: offset, [words])
        offset += needed
        return view.leading(shape, elementType)
    }

    /// Starts over from the first chunk; what is held is kept for the next plan.
    public func reset() {
        chunk = 0
        offset = 0
    }
}
