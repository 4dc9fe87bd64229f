import Dispatch
import Synchronization
import TensorCore

// What the operations share: threads, pointers, and checks that also speak in a release build.

/// Elements per block of an elementwise loop: 64 KiB, where waking a thread (some 10 µs) is already cheap.
let elementGrain = 16_384

/// Stops the program unless the condition holds, with the operation's name; `precondition` is mute in a
/// release build.
@inline(__always)
func require(_ condition: Bool, _ operation: StaticString, _ message: @autoclosure () -> String) {
    if !condition { fatalError("\(operation): \(message())") }
}

extension CPUBackend {
    /// Runs `body` over 0..<count in blocks of `grain`, on up to `threadCount` threads that take the next
    /// block when they are free. What `body` computes for an index may not depend on the block that it lies
    /// in.
    func parallel(_ count: Int, grain: Int, _ body: (Range<Int>) -> Void) {
        guard count > 0 else { return }
        let blocks = (count - 1) / grain + 1
        let workers = min(blocks, threadCount)
        guard workers > 1 else { return body(0..<count) }
        let taken = Atomic<Int>(0)
        withoutActuallyEscaping(body) { body in
            // The operations' bodies capture pointers and write to disjoint parts behind them.
            nonisolated(unsafe) let body = body
            DispatchQueue.concurrentPerform(iterations: workers) { _ in
                while true {
                    let block = taken.add(1, ordering: .relaxed).oldValue
                    guard block < blocks else { return }
                    body(block * grain..<min(count, (block + 1) * grain))
                }
            }
        }
    }

    /// Rows per block so that a block has about `elementGrain` elements.
    func rowGrain(_ columns: Int) -> Int { max(1, elementGrain / max(1, columns)) }

    /// Adds Σᵣ term(r, j) to out [outputs, columns], or overwrites it. `addRow(r, columns, block)` adds
    /// row r's terms to `block` [outputs, columns.count].
    ///
    /// A thread owns 128 columns (512 bytes a row) and walks down them. Blocks of 64 rows are summed apart,
    /// which keeps the rounding error of 10,000 rows near that of 200.
    @inline(__always)
    func columnSums(
        _ out: UnsafeMutablePointer<Float>, outputs: Int, rows: Int, columns: Int, accumulate: Bool,
        addRow: (Int, Range<Int>, UnsafeMutablePointer<Float>) -> Void
    ) {
        let width = 128
        parallel((columns + width - 1) / width, grain: 1) { tiles in
            for tile in tiles {
                let range = tile * width..<min(columns, (tile + 1) * width)
                let size = outputs * range.count
                withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * size) { scratch in
                    let total = scratch.baseAddress!  // [outputs, range.count]
                    let block = total + size  // [outputs, range.count]
                    total.update(repeating: 0, count: size)
                    for first in stride(from: 0, to: rows, by: 64) {
                        block.update(repeating: 0, count: size)
                        for row in first..<min(rows, first + 64) { addRow(row, range, block) }
                        for i in 0..<size { total[i] += block[i] }
                    }
                    for output in 0..<outputs {
                        let to = out + output * columns + range.lowerBound
                        let from = total + output * range.count
                        if accumulate {
                            for i in 0..<range.count { to[i] += from[i] }
                        } else {
                            for i in 0..<range.count { to[i] = from[i] }
                        }
                    }
                }
            }
        }
    }

    /// The tensor's memory. Stops when it isn't ours.
    func buffer(_ tensor: Tensor, _ operation: StaticString) -> CPUBuffer {
        guard let buffer = tensor.buffer as? CPUBuffer else {
            fatalError(
                "\(operation): a tensor of shape \(tensor.shape) belongs to \(type(of: tensor.buffer)), not to \(name)"
            )
        }
        return buffer
    }

    /// A float32 tensor's elements.
    func floats(_ tensor: Tensor, _ operation: StaticString) -> UnsafeMutablePointer<Float> {
        require(tensor.elementType == .float32, operation, "a tensor of shape \(tensor.shape) is not float32")
        return buffer(tensor, operation).base.assumingMemoryBound(to: Float.self)
    }

    /// An int32 tensor's elements.
    func integers(_ tensor: Tensor, _ operation: StaticString) -> UnsafeMutablePointer<Int32> {
        require(tensor.elementType == .int32, operation, "a tensor of shape \(tensor.shape) is not int32")
        return buffer(tensor, operation).base.assumingMemoryBound(to: Int32.self)
    }
}
