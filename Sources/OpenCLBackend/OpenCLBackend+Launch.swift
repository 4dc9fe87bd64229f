import COpenCL
import TensorCore

// Work for the device's queue: what is started, in how many groups, and what comes of a driver's refusal.

extension OpenCLBackend {
    /// Starts `groups` work-groups (of `layout.local` work-items in the first dimension, but for GPUs' engines) of a kernel, whose
    /// arguments are outputs, inputs and constants, each in its own order. `stored` is the type of the tensors that the kernel calls
    /// so; `product` chooses among kernels of one name.
    func launch<each Output: KernelArgument, each Input: KernelArgument, each Constant: KernelArgument>(
        _ kernelName: String, stored: ElementType = .float32, by product: ProductKernel? = nil,
        _ groups: (Int, Int, Int), to outputs: repeat each Output, from inputs: repeat each Input,
        with constants: repeat each Constant
    ) {
        guard groups.0 > 0, groups.1 > 0, groups.2 > 0 else { return }
        guard let kernel = programs.kernel(kernelName, choice.program(stored, product)) else {
            fatalError("\(name) has no kernel \(kernelName) for \(stored): give the backend that precision")
        }
        perform(kernelName) {
            var call = KernelCall(kernel.object, kernelName)
            repeat (each outputs).add(to: &call)
            repeat (each inputs).add(to: &call)
            repeat (each constants).add(to: &call)
            guard call.status == CL_SUCCESS else { return call.status }
            return withUnsafeTemporaryAllocation(of: Int.self, capacity: 6) { sizes in
                (sizes[0], sizes[1], sizes[2]) = (groups.0 * kernel.local, groups.1, groups.2)
                (sizes[3], sizes[4], sizes[5]) = (kernel.local, 1, 1)
                return clEnqueueNDRangeKernel(
                    queue, kernel.object, 3, nil, sizes.baseAddress, sizes.baseAddress! + 3, 0, nil, nil)
            }
        }
    }

    /// How many groups share `count` rows of equal work (`first_row`, `last_row` in Prelude.cl).
    ///
    /// A CPU device gets a few long stretches for each core, since a group costs it more than a short row
    /// does; a GPU a group for each row.
    func rowGroups(_ count: Int) -> Int {
        min(count, layout.local == 1 ? 8 * device.computeUnits : 1 << 16)
    }

    /// Groups for a kernel in which each work-item handles one element.
    func itemGroups(_ count: Int) -> Int { rowGroups((count + layout.local - 1) / layout.local) }

    /// How many groups share `count` elements in blocks of BLOCK (Prelude.cl).
    func elementGroups(_ count: Int) -> Int { rowGroups((count + 1023) / 1024) }

    /// Throws `BackendError.failed` with the first operation that the device failed at.
    public func checkForFailure() throws { if let failure { throw failure } }

    /// Asks the driver for something unless the backend has failed; it fails here when the status isn't success.
    func perform(_ operation: String, _ body: () -> cl_int) {
        guard failure == nil else { return }
        let status = body()
        if status != CL_SUCCESS { failure = deviceFailure(status, operation, on: name) }
    }

    /// Tries what a driver may not be able to do. Returns nil when it fails at something, which is no failure of the backend's:
    /// a device that is gone fails again at what comes next.
    func attempt<Result>(_ body: () throws -> Result) throws -> Result? {
        synchronize()
        try checkForFailure()
        defer { failure = nil }
        let result = try body()
        synchronize()
        return failure == nil ? result : nil
    }
}
