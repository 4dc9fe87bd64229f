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
        (self.memory, self.byteCount, self.root, self.origin) = (memory, byteCount, root, origin)
        self.ledger = ledger
    }

    deinit {
        clReleaseMemObject(memory)
        if root == nil { ledger.give(byteCount) }
    }
}

extension OpenCLBackend {
    /// The bytes of device memory that this backend's tensors hold.
    public var allocatedByteCount: Int { ledger.taken }

    /// Takes memory, uninitialised. Throws `BackendError.outOfMemory`, and `.failed` when the backend has.
    public func makeBuffer(byteCount: Int) throws -> any Buffer {
        try checkForFailure()
        let size = max(byteCount, 4)  // OpenCL has no empty buffers
        let available = min(largestBufferByteCount, ledger.available)
        func outOfMemory() -> BackendError {
            .outOfMemory(device: name, requested: byteCount, available: available)
        }
        guard size <= available else { throw outOfMemory() }
        var status: cl_int = 0
        let memory = clCreateBuffer(
            shared.context, cl_mem_flags(CL_MEM_READ_WRITE), size, nil, &status)
        if [-4, -5, -6, -61].contains(status) { throw outOfMemory() }
        try check(
            status, "clCreateBuffer", on: name, advice: "check the driver, or use another `device`.")
        _ = ledger.take(size)
        return OpenCLBuffer(memory: memory!, byteCount: size, root: nil, origin: 0, ledger: ledger)
    }

    /// A part of a tensor's memory, a sub-buffer. Throws `BackendError.driver`.
    public func makeBuffer(partOf tensor: Tensor, byteOffset: Int, byteCount: Int) throws -> any Buffer {
        let buffer = tensor.onDevice
        let root = buffer.root ?? buffer
        let origin = buffer.origin + byteOffset
        let bytes = max(byteCount, 1)
        var region = cl_buffer_region(origin: origin, size: bytes)
        var status: cl_int = 0
        let memory = clCreateSubBuffer(
            root.memory, cl_mem_flags(CL_MEM_READ_WRITE), cl_buffer_create_type(CL_BUFFER_CREATE_TYPE_REGION),
            &region, &status)
        try check(
            status, "clCreateSubBuffer", on: name, advice: "check the driver, or use another `device`.")
        return OpenCLBuffer(memory: memory!, byteCount: bytes, root: root, origin: origin, ledger: ledger)
    }

    /// Copies `tensor.byteCount` bytes from the host and waits until they are read.
    public func upload(_ tensor: Tensor, from source: UnsafeRawPointer) {
        let memory = tensor.onDevice.memory
        perform("upload") {
            clEnqueueWriteBuffer(queue, memory, cl_bool(CL_TRUE), 0, tensor.byteCount, source, 0, nil, nil)
        }
    }

    /// Waits for the operations before it, then copies `tensor.byteCount` bytes to the host.
    public func download(_ destination: UnsafeMutableRawPointer, from tensor: Tensor) {
        let memory = tensor.onDevice.memory
        perform("download") {
            clEnqueueReadBuffer(
                queue, memory, cl_bool(CL_TRUE), 0, tensor.byteCount, destination, 0, nil, nil)
        }
        // NaN in every type of floats.
        if failure != nil { memset(destination, 0xff, tensor.byteCount) }
    }

    /// Waits until every operation so far is done.
    public func synchronize() { perform("synchronize") { clFinish(queue) } }
}
