import COpenBLAS
import CProcessor
import Foundation
import TensorCore

/// Every operation of `Backend` on the host's processors: matrix products by OpenBLAS, everything else in
/// plain loops over pointers, the inner ones in C (`CLoops`). It is the readable definition that the other backends are compared
/// with.
///
/// - An operation is done when it returns, so `synchronize` has nothing to wait for.
/// - Loops are cut into blocks that threads take in turn (`parallel`). No sum depends on which thread takes a block, nor
/// on how many threads there are. Products are cut into tiles, and OpenBLAS rounds an element by its place in the tile (its kernels for
/// AVX2 do so at every cut): two runs with one `productParts` give the same bits on one machine. Another generation of processors may
/// round otherwise.
/// - OpenBLAS works on one thread per call, and we call it from several: its own pool spins for 27 ms after
///   each product, on the processors that our loops need next.
public final class CPUBackend: Backend {
    /// How many threads an operation uses at most.
    public var threadCount: Int { threads.count }
    /// Into how many tiles a product is cut at most.
    public var productParts: Int? { parts }
    let parts: Int
    let threads: ThreadPool
    private let ledger: MemoryLedger

    /// A backend over the processors that the process may use, or over `GLORA_THREADS` of them when the environment
    /// holds that as a positive number, or over `threads`; over fewer where the system allows fewer threads, or an address space
    /// without room for more products at a time. Products are cut into as many parts, or into `parts`: with those of an earlier run its
    /// bits come again, however many threads there are now.
    ///
    /// Throws `BackendError.driver` when OpenBLAS can't be loaded.
    public init(threads: Int? = nil, parts: Int? = nil) throws {
        if let problem = openblas_load() {
            throw BackendError.driver(
                "OpenBLAS, which multiplies on the CPU, can't be loaded: \(String(cString: problem)); "
                    + (openblas_has_room() ? "install libopenblas0" : "raise the limit (ulimit -v, -d)")
                    + ", or use another `device`.")
        }
        let asked = threads ?? ProcessInfo.processInfo.environment["GLORA_THREADS"].flatMap { Int($0) } ?? 0
        var count = asked > 0 ? min(asked, 1024) : ProcessLimits.processorCount
        if let space = ProcessLimits.addressSpaceLeft {
            share_heap()
            // Half of it for products and stacks, the rest for what is multiplied; of what is left then, the ledger knows.
            count = Int(openblas_reserve(Int32(max(1, min(count, space / 2 / (140 << 20))))))
            guard count > 0 else {
                throw BackendError.driver(
                    "the CPU needs 132 MiB of address space for a product, and the limit (ulimit -v, -d) leaves \(space >> 20) MiB; "
                        + "raise it, or use another `device`.")
            }
        }
        self.threads = ThreadPool(count)
        self.parts = parts ?? self.threads.count
        ledger = MemoryLedger(capacity: ProcessLimits.memoryByteCount)
    }

    /// `cpu (2 threads, OpenBLAS)`.
    public var name: String { "cpu (\(threadCount) thread\(threadCount == 1 ? "" : "s"), OpenBLAS)" }
    /// What the process may take, in bytes: the machine's memory, or less under a control group's limit or `ulimit -v`.
    public var memoryByteCount: Int { ledger.capacity }

    // MARK: Memory

    /// Takes memory, uninitialised and aligned to 64 bytes. Throws `BackendError.outOfMemory` when what is
    /// held and what is asked for exceed that together: the kernel would grant it and end
    /// the process later.
    public func makeBuffer(byteCount: Int) throws -> any Buffer {
        guard ledger.take(byteCount) else { throw outOfMemory(byteCount) }
        guard let buffer = CPUBuffer(byteCount: byteCount, ledger: ledger) else {
            ledger.give(byteCount)
            throw outOfMemory(byteCount)
        }
        return buffer
    }

    private func outOfMemory(_ byteCount: Int) -> BackendError {
        .outOfMemory(device: name, requested: byteCount, available: ledger.available)
    }

    /// A part of a tensor's memory, which keeps the whole buffer alive.
    public func makeBuffer(partOf tensor: Tensor, byteOffset: Int, byteCount: Int) -> any Buffer {
        CPUBuffer(of: buffer(tensor), byteOffset: byteOffset, byteCount: byteCount)
    }

    /// Copies `tensor.byteCount` bytes from the host.
    public func upload(_ tensor: Tensor, from source: UnsafeRawPointer) {
        buffer(tensor).base.copyMemory(from: source, byteCount: tensor.byteCount)
    }

    /// Copies `tensor.byteCount` bytes to the host.
    public func download(_ destination: UnsafeMutableRawPointer, from tensor: Tensor) {
        destination.copyMemory(from: buffer(tensor).base, byteCount: tensor.byteCount)
    }

    /// Returns at once: an operation is done when it returns.
    public func synchronize() {}

    /// out ← value, float32.
    public func fill(_ out: Tensor, _ value: Float, count: Int) {
        let y = floats(out)
        parallel(count, grain: elementGrain) { range in
            (y + range.lowerBound).update(repeating: value, count: range.count)
        }
    }

    /// out ← x, of the same count.
    public func copy(_ out: Tensor, _ x: Tensor, count: Int) {
        let destination = buffer(out).base
        let source = buffer(x).base
        parallel(out.byteCount, grain: 4 * elementGrain) { range in
            (destination + range.lowerBound).copyMemory(
                from: source + range.lowerBound, byteCount: range.count)
        }
    }
}

// MARK: Buffers

/// Host memory: an allocation of its own, or a part of another buffer, which it then keeps alive.
final class CPUBuffer: Buffer {
    let base: UnsafeMutableRawPointer
    let byteCount: Int
    private let parent: CPUBuffer?
    private let ledger: MemoryLedger?

    /// Memory of its own, aligned to a cache line; nil when the system has none. The ledger has it booked
    /// already.
    init?(byteCount: Int, ledger: MemoryLedger) {
        var memory: UnsafeMutableRawPointer?
        guard posix_memalign(&memory, 64, max(byteCount, 64)) == 0, let memory else { return nil }
        base = memory
        self.byteCount = byteCount
        parent = nil
        self.ledger = ledger
    }

    init(of parent: CPUBuffer, byteOffset: Int, byteCount: Int) {
        base = parent.base + byteOffset
        (self.byteCount, self.parent) = (byteCount, parent)
        ledger = nil
    }

    deinit {
        guard parent == nil else { return }
        free(base)
        ledger?.give(byteCount)
    }
}
