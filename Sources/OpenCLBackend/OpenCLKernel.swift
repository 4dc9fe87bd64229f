import COpenCL
import TensorCore

/// A kernel of one's own beside a backend's operations, in the same queue: it sees what they wrote before, and they what it wrote.
///
///     let silu = try OpenCLKernel("silu", source: source, on: backend)
///     silu.run(x.count, y, x, x.count)         // kernel void silu(global float *y, global const float *x, int n)
///
/// Like a backend's operations it takes no memory, waits for nothing and doesn't throw: when the device fails at it, the backend's
/// `checkForFailure` says so.
public final class OpenCLKernel {
    /// The kernel function's name.
    public let name: String
    private let kernel: cl_kernel
    private let local: Int
    private let backend: OpenCLBackend

    /// Compiles OpenCL C, once for each device and machine: the result lies in the cache folder of the backend's kernels. `options`
    /// are the compiler's; a file that the source includes isn't watched for changes. Throws `BackendError.build` with the driver's log, `.driver` where the source has no such kernel.
    public init(_ name: String, source: String, options: String = "-cl-std=CL1.2", on backend: OpenCLBackend)
        throws
    {
        let program = try backend.shared.program(
            source: source, options: options, cache: backend.programs.cache)
        var status: cl_int = 0
        let kernel = clCreateKernel(program, name, &status)
        try check(
            status, "clCreateKernel of \(name)", on: backend.name, advice: "check the name in the source.")
        (self.name, self.kernel, self.backend) = (name, kernel!, backend)
        // What the source asks for, else 64, or fewer where the device can't.
        var asked = [0, 0, 0]
        var largest = 0
        clGetKernelWorkGroupInfo(
            kernel, backend.device.id, cl_kernel_work_group_info(CL_KERNEL_COMPILE_WORK_GROUP_SIZE),
            3 * MemoryLayout<Int>.size, &asked, nil)
        clGetKernelWorkGroupInfo(
            kernel, backend.device.id, cl_kernel_work_group_info(CL_KERNEL_WORK_GROUP_SIZE),
            MemoryLayout<Int>.size, &largest, nil)
        local = asked[0] > 0 ? asked[0] : max(1, min(64, largest))
    }

    deinit { clReleaseKernel(kernel) }

    /// Starts `items` work-items of one dimension, and some more where groups are whole, so the kernel compares its number with `n`.
    /// Arguments are the kernel's, in order: tensors, `Int` for int, `Bool` for int, `UInt32` for uint, `Float` for float.
    public func run<each Argument: KernelArgument>(_ items: Int, _ arguments: repeat each Argument) {
        guard items > 0 else { return }
        backend.perform(name) {
            var call = KernelCall(kernel, name)
            repeat (each arguments).add(to: &call)
            guard call.status == CL_SUCCESS else { return call.status }
            var local = local
            var global = (items + local - 1) / local * local
            return clEnqueueNDRangeKernel(
                backend.queue, kernel, 1, nil, &global, &local, 0, nil, nil)
        }
    }
}
