import COpenCL
import Foundation
import TensorCore

/// Device memory, or a part of some (a sub-buffer, which keeps its root alive).
final class OpenCLBuffer: Buffer {
    let memory: cl_mem
    let byteCount: Int
    /// The buffer that this one is a part of; OpenCL allows no part of a part.
    let root: OpenCLBuffer?
    /// Where the part starts in its root, in bytes.
    let origin: Int
    private let ledger: MemoryLedger

    /// Takes over `memory`; a root's bytes have been entered in the ledger.
    init(memory: cl_mem, byteCount: Int, root: OpenCLBuffer?, origin: Int, ledger: MemoryLedger) {
        self.memory = memory
        self.byteCount = byteCount
        self.root = root
        self.origin = origin
        self.ledger = ledger
    }

    deinit {
        clReleaseMemObject(memory)
        if root == nil { ledger.taken -= byteCount }
    }
}

/// How much of a device's memory a backend holds. Drivers promise more than they have and fail in the middle
/// of a step; this count fails where allocation may throw.
final class MemoryLedger {
    var taken = 0
}

extension OpenCLBackend {
    /// The bytes of device memory that this backend's tensors hold.
    public var allocatedByteCount: Int { ledger.taken }

    /// Takes memory, uninitialised. Throws `BackendError.outOfMemory`, and `.failed` when the backend has.
    public func allocate(_ shape: [Int], _ elementType: ElementType) throws -> Tensor {
        try checkForFailure()
        var (bytes, overflow) = (elementType.byteCount, false)
        for size in shape {
            let (product, overflows) = bytes.multipliedReportingOverflow(by: size)
            (bytes, overflow) = (product, overflow || overflows)
        }
        let requested = overflow ? Int.max : bytes
        let size = max(requested, elementType.byteCount)  // OpenCL has no empty buffers
        let available = min(largestBufferByteCount, memoryByteCount - ledger.taken)
        func outOfMemory() -> BackendError {
            .outOfMemory(device: name, requested: requested, available: available)
        }
        guard size <= available else { throw outOfMemory() }
        var status: cl_int = 0
        let memory = clCreateBuffer(
            shared.context, cl_mem_flags(CL_MEM_READ_WRITE), size, nil, &status)
        if [-4, -5, -6, -61].contains(status) { throw outOfMemory() }
        try check(
            status, "clCreateBuffer", on: name, advice: "check the driver, or use another --device.")
        ledger.taken += size
        let buffer = OpenCLBuffer(memory: memory!, byteCount: size, root: nil, origin: 0, ledger: ledger)
        return Tensor(buffer: buffer, shape: shape, elementType: elementType)
    }

    /// A part of `tensor` from element `offset` on, a sub-buffer. Throws `BackendError.driver`.
    public func view(_ tensor: Tensor, at offset: Int, _ shape: [Int]) throws -> Tensor {
        let buffer = buffer(tensor, "view")
        let count = shape.reduce(1, *)
        let size = tensor.elementType.byteCount
        require(
            offset * size % (4 * viewAlignment) == 0, "view",
            "offset \(offset) of \(tensor.elementType) is not a multiple of \(4 * viewAlignment) bytes")
        require(
            offset >= 0 && offset + count <= tensor.count, "view",
            "\(shape) at \(offset) is not inside a tensor of shape \(tensor.shape)")
        let root = buffer.root ?? buffer
        let origin = buffer.origin + offset * size
        let bytes = max(count, 1) * size
        var region = cl_buffer_region(origin: origin, size: bytes)
        var status: cl_int = 0
        let memory = clCreateSubBuffer(
            root.memory, cl_mem_flags(CL_MEM_READ_WRITE), cl_buffer_create_type(CL_BUFFER_CREATE_TYPE_REGION),
            &region, &status)
        try check(
            status, "clCreateSubBuffer", on: name, advice: "check the driver, or use another --device.")
        let part = OpenCLBuffer(
            memory: memory!, byteCount: bytes, root: root, origin: origin, ledger: ledger)
        return Tensor(buffer: part, shape: shape, elementType: tensor.elementType)
    }

    /// Copies `tensor.byteCount` bytes from the host and waits until they are read.
    public func upload(_ tensor: Tensor, _ source: UnsafeRawBufferPointer) {
        require(source.count == tensor.byteCount, "upload", "\(source.count) bytes for shape \(tensor.shape)")
        guard tensor.byteCount > 0 else { return }
        let memory = buffer(tensor, "upload").memory
        perform("upload") {
            clEnqueueWriteBuffer(
                queue, memory, cl_bool(CL_TRUE), 0, tensor.byteCount, source.baseAddress, 0, nil, nil)
        }
    }

    /// Waits for the operations before it, then copies `tensor.byteCount` bytes to the host.
    public func download(_ destination: UnsafeMutableRawBufferPointer, _ tensor: Tensor) {
        require(
            destination.count >= tensor.byteCount, "download",
            "\(destination.count) bytes for shape \(tensor.shape)")
        guard tensor.byteCount > 0 else { return }
        let memory = buffer(tensor, "download").memory
        perform("download") {
            clEnqueueReadBuffer(
                queue, memory, cl_bool(CL_TRUE), 0, tensor.byteCount, destination.baseAddress, 0, nil, nil)
        }
        // NaN in every type of floats.
        if failure != nil { memset(destination.baseAddress!, 0xff, tensor.byteCount) }
    }

    /// Waits until every operation so far is done.
    public func synchronize() { perform("synchronize") { clFinish(queue) } }

    /// out ← x, of the same count; between float32 and a stored type widened or rounded.
    public func copy(_ out: Tensor, _ x: Tensor) {
        require(out.count == x.count, "copy", "\(out.shape) from \(x.shape)")
        // Not clEnqueueCopyBuffer: PoCL copies with one thread.
        let groups = (elementGroups(x.count), 1, 1)
        switch (out.elementType, x.elementType) {
        case let (to, from) where to == from: launch("copy", stored: to, groups, out, x, x.count)
        case (.float32, let from): launch("copy_widened", stored: from, groups, out, x, x.count)
        case (let to, .float32): launch("copy_rounded", stored: to, groups, out, x, x.count)
        case (let to, let from): require(false, "copy", "\(out.shape) is \(to), \(x.shape) is \(from)")
        }
    }
}
