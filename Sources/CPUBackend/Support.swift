import CLoops
import Synchronization
import TensorCore

// What the operations share: threads and pointers.

/// Elements per block of an elementwise loop: 64 KiB, where waking a thread (some 10 µs) is already cheap.
let elementGrain = 16_384

/// A pointer to float32 elements.
typealias Floats = UnsafeMutablePointer<Float>

extension CPUBackend {
    /// Runs `body` over 0..<count in blocks of `grain`, on up to `threadCount` threads that take the next
    /// block when they are free. What `body` computes for an index may not depend on the block that it lies
    /// in.
    public func parallel(_ count: Int, grain: Int, _ body: (Range<Int>) -> Void) {
        parallel(count, grain: grain, scratch: 0) { range, _ in body(range) }
    }

    /// The same with `scratch` elements of memory for each thread.
    func parallel(_ count: Int, grain: Int, scratch: Int, _ body: (Range<Int>, Floats) -> Void) {
        guard count > 0 else { return }
        let blocks = (count - 1) / grain + 1
        let workers = min(blocks, threadCount)
        guard workers > 1 else {
            return withScratch(scratch) { body(0..<count, $0) }
        }
        let taken = Atomic<Int>(0)
        threads.run(on: workers) {
            withScratch(scratch) { scratch in
                while true {
                    let block = taken.add(1, ordering: .relaxed).oldValue
                    guard block < blocks else { return }
                    body(block * grain..<min(count, (block + 1) * grain), scratch)
                }
            }
        }
    }

    /// Rows per block so that a block has about `elementGrain` elements.
    func rowGrain(_ columns: Int) -> Int { max(1, elementGrain / max(1, columns)) }

    /// Sums over rows that no count of threads can change: `body` leaves the sums of a block of rows in
    /// [size], the blocks' sums are added two by two, and `use` receives the total [size].
    ///
    /// Blocks have 64 rows, or more when the rows are short: the partial sums are then a few percent of
    /// what is read. The blocks' own rounding errors average out, and those of their sum are of log₂ additions: 10,000 rows
    /// of one sign are off by 0.6 · 2⁻²⁴ of it in the mean square; blocks added one after another make that 1.7 to 2.7.
    func sumOfBlocks(
        _ rows: Int, columns: Int, size: Int, _ body: (Range<Int>, Floats) -> Void, use: (Floats) -> Void
    ) {
        let blockRows = max(64, rowGrain(columns))
        let blocks = (rows + blockRows - 1) / blockRows
        withScratch(max(1, blocks) * size) { partials in  // [blocks, size]
            if blocks == 0 { partials.update(repeating: 0, count: size) }
            parallel(blocks, grain: 1) { range in
                for block in range {
                    body(
                        block * blockRows..<min(rows, (block + 1) * blockRows), partials + block * size)
                }
            }
            parallel(size, grain: elementGrain) { range in
                var step = 1
                while step < blocks {
                    for block in stride(from: 0, to: blocks - step, by: 2 * step) {
                        let target = partials + block * size + range.lowerBound
                        add_to(target, target + step * size, range.count)
                    }
                    step *= 2
                }
            }
            use(partials)
        }
    }

    /// The tensor's memory. Stops when it isn't ours.
    func buffer(_ tensor: Tensor) -> CPUBuffer {
        guard let buffer = tensor.buffer as? CPUBuffer else {
            fatalError(
                "a tensor of shape \(tensor.shape) belongs to \(type(of: tensor.buffer)), not to \(name)")
        }
        return buffer
    }

    /// A float32 tensor's elements, for operations of one's own. Stops when the tensor isn't ours.
    public func floats(_ tensor: Tensor) -> UnsafeMutablePointer<Float> {
        buffer(tensor).base.assumingMemoryBound(to: Float.self)
    }

    /// An int32 tensor's elements.
    func integers(_ tensor: Tensor) -> UnsafeMutablePointer<Int32> {
        buffer(tensor).base.assumingMemoryBound(to: Int32.self)
    }
}

/// Memory of `count` elements for the body, uninitialised, aligned to a cache line: a vector that straddles two lines takes
/// twice as long.
@inline(__always)
func withScratch(_ count: Int, _ body: (Floats) -> Void) {
    let byteCount = max(1, count) * MemoryLayout<Float>.stride
    withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 64) {
        body($0.baseAddress!.bindMemory(to: Float.self, capacity: max(1, count)))
    }
}
