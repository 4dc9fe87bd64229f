import Foundation

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
