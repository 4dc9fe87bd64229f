import COpenCL
import TensorCore

/// The kernels of one backend, compiled in programs: one for each type that tensors are stored as, and for each engine in use, all in
/// one layout.
final class Programs {
    /// Kernels that were compiled together: for what is stored as a type, and with an engine for their products.
    struct Key: Hashable {
        let stored: ElementType
        var engine: MatrixEngine?
    }

    struct Kernel {
        let object: cl_kernel
        /// Work-items of a group.
        let local: Int
        /// The most that a group may have, as the driver says.
        let largest: Int
    }

    /// How the kernels' work is laid out. A program whose groups the driver can't run makes them smaller, for all.
    private(set) var layout: KernelLayout
    let cache: ProgramCache
    let source: String
    private let shared: OpenCLContext
    private let queue: cl_command_queue
    private let groupLimit: ((String) -> Int)?
    private var kernels: [Key: [String: Kernel]] = [:]

    /// No kernels yet; `groupLimit` answers for the driver how many work-items a group of a kernel may have.
    init(
        _ shared: OpenCLContext, _ queue: cl_command_queue, _ layout: KernelLayout, source: String,
        cache: ProgramCache, groupLimit: ((String) -> Int)?
    ) {
        (self.shared, self.queue, self.layout) = (shared, queue, layout)
        (self.source, self.cache, self.groupLimit) = (source, cache, groupLimit)
    }

    deinit { for program in kernels.values { release(program) } }

    /// A kernel of a program that was built; nil when there is none.
    func kernel(_ name: String, _ program: Key) -> Kernel? { kernels[program]?[name] }

    /// Whether a program is built.
    func has(_ program: Key) -> Bool { kernels[program] != nil }

    /// Lets a program go.
    func remove(_ program: Key) { release(kernels.removeValue(forKey: program)!) }

    private func release(_ kernels: [String: Kernel]) {
        for kernel in kernels.values { clReleaseKernel(kernel.object) }
    }

    /// Builds a program's kernels; where the driver can't run one of them in the layout's groups, all programs in smaller groups.
    /// Throws `BackendError.build` with the driver's log, and `.driver`.
    func build(_ program: Key) throws {
        let options = layout.options(stored: program.stored, engine: program.engine)
        let built = try makeKernels(shared.program(source: source, options: options, cache: cache))
        let refused = built.filter { $0.value.largest < $0.value.local }
        // Mesa 22.3's rusticl says 32 of every kernel and runs all of them with 64. An answer that is wrong for the least of
        // the kernels says nothing of the others.
        guard let (name, worst) = refused.min(by: { $0.value.largest < $1.value.largest }),
            refused["fill"].map(runs) != true
        else {
            kernels[program] = built
            return
        }
        release(built)
        // An engine's groups are of its own size.
        guard refused["multiply_engine"] == nil, let smaller = layout.smaller(atMost: worst.largest) else {
            throw BackendError.driver(
                "\(shared.device) runs the kernel \(name) with at most \(worst.largest) work-items in a group, but "
                    + "\(worst.local) are needed: use another `device`.")
        }
        layout = smaller
        let programs = Array(kernels.keys) + [program]
        for program in kernels.values { release(program) }
        kernels = [:]
        for program in programs { try build(program) }
    }

    /// Whether `fill` does what it should in groups of its size, whatever the driver says.
    private func runs(_ fill: Kernel) -> Bool {
        var values = [Float](repeating: .nan, count: 1024)
        let byteCount = values.count * MemoryLayout<Float>.stride
        var status: cl_int = 0
        let memory = clCreateBuffer(
            shared.context, cl_mem_flags(CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR), byteCount, &values,
            &status)
        guard status == CL_SUCCESS, let memory else { return false }
        defer { clReleaseMemObject(memory) }
        var size = fill.local
        var call = KernelCall(fill.object, "fill")
        call.add(bytesOf: memory)
        Arguments(Float(1), values.count).add(to: &call)
        return call.status == CL_SUCCESS
            && clEnqueueNDRangeKernel(queue, fill.object, 1, nil, &size, &size, 0, nil, nil) == CL_SUCCESS
            && clEnqueueReadBuffer(queue, memory, cl_bool(CL_TRUE), 0, byteCount, &values, 0, nil, nil)
                == CL_SUCCESS
            && values.allSatisfy { $0 == 1 }
    }

    /// A kernel object holds its arguments, so each backend has its own.
    private func makeKernels(_ program: cl_program) throws -> [String: Kernel] {
        let (device, advice) = (
            shared.device,
            "update the driver, or use another `device` (what it compiled is in \(cache.folder.url.path))."
        )
        var kernels: [String: Kernel] = [:]
        var count: cl_uint = 0
        try check(
            clCreateKernelsInProgram(program, 0, nil, &count), "clCreateKernelsInProgram", on: "\(device)",
            advice: advice)
        var found = [cl_kernel?](repeating: nil, count: Int(count))
        try check(
            clCreateKernelsInProgram(program, count, &found, nil), "clCreateKernelsInProgram",
            on: "\(device)",
            advice: advice)
        for case let kernel? in found {
            let name = kernelName(kernel)
            // The engines of GPUs have work-groups of their own size; the others those of the layout.
            var own = [0, 0, 0]
            if name == "multiply_engine" {
                clGetKernelWorkGroupInfo(
                    kernel, device.id, cl_kernel_work_group_info(CL_KERNEL_COMPILE_WORK_GROUP_SIZE),
                    3 * MemoryLayout<Int>.size, &own, nil)
            }
            var largest = 0
            clGetKernelWorkGroupInfo(
                kernel, device.id, cl_kernel_work_group_info(CL_KERNEL_WORK_GROUP_SIZE),
                MemoryLayout<Int>.size, &largest, nil)
            kernels[name] = Kernel(
                object: kernel, local: own[0] > 0 ? own[0] : layout.local,
                largest: groupLimit?(name) ?? largest)
        }
        return kernels
    }
}
