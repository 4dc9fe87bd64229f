import Foundation
import TensorCore

/// One batch on its way to the device.
public struct Batch: Sendable {
    /// [count] where the images are in their source.
    public let indices: [Int]
    /// [count] classes.
    public let labels: [Int32]
    /// [count, 3, S, S].
    public let shape: [Int]
    /// What the images were mixed with; nil where they weren't.
    public let mix: LabelMix?
    let memory: BatchMemory

    /// The number of images.
    public var count: Int { indices.count }

    /// The pixels [count, 3, S, S], normalised float32, for `Backend.upload`.
    public func withUnsafeBytes<Result>(
        _ body: (UnsafeRawBufferPointer) throws -> Result
    ) rethrows -> Result {
        try body(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory.values)[..<byteCount]))
    }

    private var byteCount: Int { shape.reduce(MemoryLayout<Float>.size, *) }

    /// A copy of the pixels [count, 3, S, S].
    public var images: [Float] { withUnsafeBytes { Array($0.bindMemory(to: Float.self)) } }
}

/// Memory of one batch, which goes back to the pool when nobody holds the batch any more.
final class BatchMemory: @unchecked Sendable {
    let values: UnsafeMutableBufferPointer<Float>
    private let pool: MemoryPool

    init(_ pool: MemoryPool, count: Int) {
        self.pool = pool
        values = pool.take(count)
    }

    deinit { pool.give(values) }
}

/// Batches' memory, kept for the next one: fresh memory costs a page fault per 4 KiB, 9,400 for 64 images at 224×224.
final class MemoryPool: @unchecked Sendable {
    private let lock = NSLock()
    private var free: [UnsafeMutableBufferPointer<Float>] = []

    func take(_ count: Int) -> UnsafeMutableBufferPointer<Float> {
        lock.withLock {
            if let index = free.firstIndex(where: { $0.count >= count }) { return free.remove(at: index) }
            return .allocate(capacity: count)
        }
    }

    func give(_ values: UnsafeMutableBufferPointer<Float>) { lock.withLock { free.append(values) } }

    deinit { for values in free { values.deallocate() } }
}
