import COpenCL
import TensorCore

/// The operations as OpenCL 1.2 kernels (the folder Kernels) and matrix products, on one device.
///
/// One in-order queue: every operation sees what those before it wrote. Kernels, the program and all memory
/// are made before a step; in a step there are only launches. Sums are taken in a fixed order, without
/// atomics, so the same input gives the same bits on the same device.
public final class OpenCLBackend: Backend {
    /// `opencl:0 (NVIDIA H200)`.
    public let name: String
    /// What it runs on.
    public let device: OpenCLDevice
    /// The device's memory in bytes.
    public var memoryByteCount: Int { device.globalMemoryByteCount }
    /// The largest single buffer in bytes.
    public var largestBufferByteCount: Int { device.maxAllocationByteCount }

    let shared: OpenCLContext
    private(set) var layout: KernelLayout
    /// What stored tensors may be besides float32: there is a program for each of the two, and for each engine in use.
    public let precision: Precision
    /// What multiplies in another precision than float32 unless something else was tuned, where the device has it.
    public private(set) var engine: MatrixEngine?
    /// What computes every product that it can; nil, as ever but in tests and while tuning, for what suits the device and was
    /// tuned. In 16 bits it has to be admitted first.
    package var product: ProductKernel?
    /// What `glora tune` found; nil on a device that it hasn't seen.
    package private(set) var tuning: ProductTuning?
    private var refused: Set<ProductKernel> = []  // by `admit`
    /// Whether the driver couldn't start one of CLBlast's products; ours take their place then.
    var clblastFails = false
    /// What the device failed at. From then on nothing is started, and what is read is NaN.
    private(set) var failure: BackendError?
    private let source: String
    private let engines: [MatrixEngine]  // that the device may have
    private let provesEngines: Bool  // and 16-bit kernels, in a process of their own
    private let groupLimit: ((String) -> Int)?
    let cache: ProgramCache
    let queue: cl_command_queue
    let ledger = MemoryLedger()
    private var kernels: [Program: [String: Kernel]] = [:]
    /// Partial sums between the two halves of a reduction.
    private(set) var scratch: Tensor!  // [scratchCount]
    /// An epilogue's terms, row by row (Epilogue.cl).
    private(set) var table: Tensor!  // [tableCount]
    /// A product's packed operands (Panels.cl); on GPUs there are none. Attention keeps one head at a time in the left.
    private(set) var leftPanels: Tensor!  // [panelCount]
    private(set) var rightPanels: Tensor!  // [panelCount]

    /// Partial sums that fit into the scratch: 32 parts of 8 rows of 4,096, 4 MiB.
    static let scratchCount = 1 << 20
    /// Floats of an epilogue's table: 16 rows of 16,384, 1 MiB.
    static let tableCount = 1 << 18

    /// A backend on the device. Builds the kernels, or reads them from the cache on disk.
    ///
    /// Throws `BackendError.build` with the driver's log, `.driver` when the driver refuses, `.outOfMemory`.
    public convenience init(device: OpenCLDevice, precision: Precision = .float32) throws {
        let layout =
            try Prober.shared?.layout(for: device, KernelSource.whole, ProgramCache())
            ?? KernelLayout(for: device)
        try self.init(device: device, layout: layout, precision: precision)
    }

    /// A backend that tries an engine here and now: what a probe does. `engine` says whether it is right.
    public convenience init(device: OpenCLDevice, precision: Precision, trying engine: MatrixEngine) throws {
        try self.init(
            device: device, layout: KernelLayout(for: device), precision: precision, engines: [engine])
    }

    /// A backend with another layout, other kernels or another cache, for tests; `engines` are tried without a process of their
    /// own, and `groupLimit` answers for the driver how many work-items a group of a kernel may have.
    package init(
        device: OpenCLDevice, layout: KernelLayout, precision: Precision = .float32,
        engines: [MatrixEngine]? = nil, source: String = KernelSource.whole,
        cache: ProgramCache = ProgramCache(), groupLimit: ((String) -> Int)? = nil
    ) throws {
        self.device = device
        self.layout = layout
        self.precision = precision
        self.cache = cache
        name = "\(device)"
        let shared = try OpenCLContext.shared(device)
        var status: cl_int = 0
        let queue = clCreateCommandQueue(shared.context, device.id, 0, &status)
        try check(
            status, "clCreateCommandQueue", on: name,
            advice: "check the driver with clinfo, or use another --device.")
        (self.shared, self.queue) = (shared, queue!)
        self.source = source
        self.engines = engines ?? MatrixEngine.of(device)
        provesEngines = engines == nil
        self.groupLimit = groupLimit
        try build(Program(stored: .float32))
        scratch = try allocate([OpenCLBackend.scratchCount], .float32)
        table = try allocate([OpenCLBackend.tableCount], .float32)
        let panelCount = layout.local == 1 ? OpenCLBackend.panelCount : 1
        leftPanels = try allocate([panelCount], .float32)
        rightPanels = try allocate([panelCount], .float32)
        if precision != .float32 {
            engine = candidates.first { $0.engine != nil && admit($0) }?.engine
            if engine == nil { try useOwnKernels() }
        }
        if let found = ProductTuning.load(device, in: cache) { use(found) }
    }

    deinit {
        clFinish(queue)
        for program in kernels.values { release(program) }
        clReleaseCommandQueue(queue)
    }

    /// Kernels that were compiled together: for what is stored as a type, and with an engine for their products.
    private struct Program: Hashable {
        let stored: ElementType
        var engine: MatrixEngine?
    }

    /// Where a product's kernels are. Those that read panels have the same names with every engine; `multiply_tiled` is in every
    /// program of a GPU.
    private func program(_ stored: ElementType, _ product: ProductKernel) -> Program {
        let product = product == .tiled ? usualKernel(stored) : product
        return Program(stored: stored, engine: product.engine)
    }

    private struct Kernel {
        let object: cl_kernel
        /// Work-items of a group.
        let local: Int
        /// The most that a group may have, as the driver says.
        let largest: Int
    }

    private func release(_ kernels: [String: Kernel]) {
        for kernel in kernels.values { clReleaseKernel(kernel.object) }
    }

    /// Builds a program's kernels; where the driver can't run one of them in the layout's groups, all programs in smaller groups.
    private func build(_ program: Program) throws {
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
                "\(self.name) runs the kernel \(name) with at most \(worst.largest) work-items in a group, but "
                    + "\(worst.local) are needed: use another --device.")
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
        guard status == CL_SUCCESS, var memory else { return false }
        defer { clReleaseMemObject(memory) }
        var size = fill.local
        return clSetKernelArg(fill.object, 0, MemoryLayout<cl_mem>.size, &memory) == CL_SUCCESS
            && Float(1).set(fill.object, 1, self, "fill") == CL_SUCCESS
            && values.count.set(fill.object, 2, self, "fill") == CL_SUCCESS
            && clEnqueueNDRangeKernel(queue, fill.object, 1, nil, &size, &size, 0, nil, nil) == CL_SUCCESS
            && clEnqueueReadBuffer(queue, memory, cl_bool(CL_TRUE), 0, byteCount, &values, 0, nil, nil)
                == CL_SUCCESS
            && values.allSatisfy { $0 == 1 }
    }

    /// What may compute products of the backend's precision, the likely fastest first.
    package var candidates: [ProductKernel] { kernels(for: precision) }

    /// What may compute products of a precision. CLBlast has no bfloat16, and sums float16 in float16.
    private func kernels(for precision: Precision) -> [ProductKernel] {
        let own: [ProductKernel] =
            switch (layout.local == 1, precision.stored == .float32) {
            case (true, false): [.panels]
            case (true, true): [.panels, .clblast]
            case (false, false): [.tiled]
            case (false, true): layout.local < 64 ? [.tiled] : [.clblast, .tiled]
            }
        return engines.filter { $0.takes(precision, layout) }.map { .engine($0) } + own
    }

    /// Builds what a kernel needs for products of the backend's precision, and tries them where it is an engine, in a process of
    /// its own first. Returns whether it may be used.
    package func admit(_ kernel: ProductKernel) -> Bool {
        let program = program(precision.stored, kernel)
        guard kernels[program] == nil else { return true }
        guard candidates.contains(kernel), !refused.contains(kernel) else { return false }
        refused.insert(kernel)  // until the end
        if let engine = kernel.engine {
            guard verdict(on: .engine(engine, precision)) == .right else { return false }
        }
        guard (try? build(program)) != nil else { return false }
        guard kernel.engine == nil || (try? attempt { try productsAreRight(kernel) }) == true else {
            release(kernels.removeValue(forKey: program)!)
            return false
        }
        refused.remove(kernel)
        return true
    }

    /// Goes without an engine. Throws `BackendError.driver` where that can't be.
    private func useOwnKernels() throws {
        guard precision != .tf32 else {
            if !provesEngines, !engines.isEmpty { return }  // a trial asks for `engine`
            throw BackendError.driver(
                "--precision tf32 needs an NVIDIA GPU with tensor cores (compute capability 8.0 or above) whose "
                    + "products are right; use float32, bfloat16 or float16 on \(name).")
        }
        guard verdict(on: .kernels(layout, precision)) != .wrong else {
            throw BackendError.driver(
                "the kernels for --precision \(precision.rawValue) can't be compiled on \(name), driver "
                    + "\(device.driverVersion), or give wrong results (the verdict is in \(cache.folder.url.path)): use "
                    + "float32, or update the driver.")
        }
        try build(Program(stored: precision.stored))
    }

    /// What has come of something in a process of its own, where it has to be tried in one; nil when it couldn't be.
    private func verdict(on trial: Prober.Trial) -> Prober.Verdict? {
        guard provesEngines, let prober = Prober.shared else { return .right }
        return prober.verdict(on: trial, device, source, cache)
    }

    /// A kernel object holds its arguments, so each backend has its own.
    private func makeKernels(_ program: cl_program) throws -> [String: Kernel] {
        var kernels: [String: Kernel] = [:]
        var count: cl_uint = 0
        let advice =
            "update the driver, or use another --device (what it compiled is in \(cache.folder.url.path))."
        try check(
            clCreateKernelsInProgram(program, 0, nil, &count), "clCreateKernelsInProgram", on: name,
            advice: advice)
        var found = [cl_kernel?](repeating: nil, count: Int(count))
        try check(
            clCreateKernelsInProgram(program, count, &found, nil), "clCreateKernelsInProgram", on: name,
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

    /// Takes the kernels of a tuning, but for those that this backend's precision can't use any more.
    package func use(_ tuning: ProductTuning) {
        var usable = tuning
        if precision != .float32 {
            usable.choices.removeAll { $0.product.precision == precision && !admit($0.kernel) }
        }
        self.tuning = usable
        if let parameters = tuning.clblast { _ = overrideCLBlast(parameters) }
    }

    /// What computes op(a) [m, k] · op(b) [k, n].
    func kernel(
        m: Int, n: Int, k: Int, transposeA: Bool, transposeB: Bool, stored: ElementType
    ) -> ProductKernel {
        let precision = stored == precision.stored ? precision : .float32
        let forced = product.flatMap { kernels(for: precision).contains($0) ? $0 : nil }
        let tuned = tuning?.kernel(
            ProductClass(
                m: m, n: n, k: k, transposeA: transposeA, transposeB: transposeB, precision: precision))
        let chosen = forced ?? tuned ?? usualKernel(stored)
        return chosen == .clblast && clblastFails ? ownKernel : chosen
    }

    /// What computes float32 products on every driver.
    var ownKernel: ProductKernel { layout.local == 1 ? .panels : .tiled }

    /// What computes products that nobody tuned; its program is the one of all other kernels of the type.
    func usualKernel(_ stored: ElementType) -> ProductKernel {
        if let engine, stored == precision.stored { return .engine(engine) }
        if layout.local == 1 { return .panels }
        // CLBlast's own groups are of 64 work-items and more.
        return stored == .float32 && layout.local >= 64 ? .clblast : .tiled
    }

    /// The tensor's memory; stops the program when it belongs to another backend.
    func buffer(_ tensor: Tensor, _ operation: String) -> OpenCLBuffer {
        guard let buffer = tensor.buffer as? OpenCLBuffer else {
            fatalError("\(operation): a tensor of shape \(tensor.shape) does not belong to \(name)")
        }
        return buffer
    }

    /// The type that the tensors which an operation calls stored have together, some of which may be none. Stops the program
    /// when they differ, or when one of `floats` isn't float32.
    func stored(_ tensors: Tensor?..., floats: Tensor?..., operation: String) -> ElementType {
        let types = Set(tensors.compactMap { $0?.elementType })
        require(types.count == 1, operation, "tensors of one operation are stored as \(types)")
        requireFloats(operation, floats)
        return types.first!
    }

    /// Stops the program when one of the tensors, some of which may be none, isn't float32.
    func requireFloats(_ operation: String, _ tensors: [Tensor?]) {
        for case let tensor? in tensors {
            require(
                tensor.elementType == .float32, operation,
                "a tensor of shape \(tensor.shape) is \(tensor.elementType), not float32")
        }
    }

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

    /// Starts `groups` work-groups (of `layout.local` work-items in the first dimension, but for GPUs' engines) of a kernel, with
    /// the arguments in the kernel's order. `stored` is the type of the tensors that the kernel calls so; `product` chooses
    /// among kernels of one name.
    func launch<each Argument: KernelArgument>(
        _ kernelName: String, stored: ElementType = .float32, by product: ProductKernel? = nil,
        _ groups: (Int, Int, Int), _ arguments: repeat each Argument
    ) {
        guard groups.0 > 0, groups.1 > 0, groups.2 > 0 else { return }
        let product = product ?? usualKernel(stored)
        guard let kernel = kernels[program(stored, product)]?[kernelName] else {
            fatalError(
                "\(name) has no kernel \(kernelName) for \(stored) by \(product.rawValue): give the backend that precision"
            )
        }
        var index: cl_uint = 0
        for argument in repeat each arguments {
            perform(kernelName) { argument.set(kernel.object, index, self, kernelName) }
            index += 1
        }
        perform(kernelName) {
            withUnsafeTemporaryAllocation(of: Int.self, capacity: 6) { sizes in
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
}
