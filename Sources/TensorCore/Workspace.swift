/// The memory of a pass over a batch, laid out before it runs so that a step allocates nothing.
///
/// A layout is described twice by the same closure: the first time only sizes are counted, the second time memory is taken, where
/// what several ask for under one name is one tensor, as large as the largest of them.
public final class Workspace {
    /// Whether a backward can follow.
    public let isForTraining: Bool
    /// The type of what goes from one operation to the next inside a block (`Precision`).
    public let stored: ElementType

    /// Whether what a backward reads is computed once more before it, so that all blocks share the memory of one.
    public var isRecomputed = false

    private let take: (([Int], ElementType) throws -> Tensor)?  // nil while sizes are counted
    private var words: [String: Int] = [:]  // what is asked for by name, in units of 4 bytes
    private var byName: [String: Tensor] = [:]
    private var ownWords = 0

    private init(
        isForTraining: Bool, stored: ElementType, words: [String: Int] = [:],
        take: (([Int], ElementType) throws -> Tensor)?
    ) {
        (self.isForTraining, self.stored, self.words, self.take) = (isForTraining, stored, words, take)
    }

    /// What `body` lays out, in an arena's memory. Throws `BackendError.outOfMemory`, and what `body` throws.
    public static func layOut<Layout>(
        in arena: Arena, isForTraining: Bool, stored: ElementType, _ body: (Workspace) throws -> Layout
    ) throws -> Layout {
        let counted = Workspace(isForTraining: isForTraining, stored: stored, take: nil)
        _ = try body(counted)
        return try body(
            Workspace(isForTraining: isForTraining, stored: stored, words: counted.words, take: arena.take))
    }

    /// The bytes that `body` lays out, without taking them.
    public static func byteCount(
        isForTraining: Bool, stored: ElementType, _ body: (Workspace) throws -> Void
    ) rethrows -> Int {
        let counted = Workspace(isForTraining: isForTraining, stored: stored, take: nil)
        try body(counted)
        return 4 * (counted.ownWords + counted.words.values.reduce(0) { $0 + Arena.footprint([$1]) })
    }

    /// A tensor that nothing else shares.
    public func own(_ shape: [Int], _ type: ElementType = .float32) throws -> Tensor {
        if let take { return try take(shape, type) }
        ownWords += Arena.footprint(shape, type)
        return .withoutMemory(shape, type)
    }

    /// The memory called `name`, which all who ask for it overwrite in turn.
    public func shared(_ name: String, _ shape: [Int], _ type: ElementType = .float32) throws -> Tensor {
        guard let take else {
            words[name] = max(words[name] ?? 0, (shape.reduce(type.byteCount, *) + 3) / 4)
            return .withoutMemory(shape, type)
        }
        let memory = try byName[name] ?? take([words[name]!], .float32)
        byName[name] = memory
        return memory.leading(shape, type)
    }

    /// What a backward reads: a tensor of its own in a training; in an evaluation, and where it is recomputed, the blocks share one by
    /// its name.
    public func kept(_ name: String, _ shape: [Int], _ type: ElementType = .float32) throws -> Tensor {
        isForTraining && !isRecomputed ? try own(shape, type) : try shared(name, shape, type)
    }
}

extension Tensor {
    /// A tensor of this shape that holds no numbers: where sizes are counted, or where a device keeps another layout of them.
    package static func withoutMemory(_ shape: [Int], _ type: ElementType) -> Tensor {
        Tensor(buffer: NoMemory(), shape: shape, elementType: type)
    }
}

private final class NoMemory: Buffer {
    let byteCount = Int.max
}
