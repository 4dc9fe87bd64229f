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
    /// What stored tensors may be besides float32: there is a program for each of the two, and for each engine in use.
    public let precision: Precision
    /// What multiplies in another precision than float32 unless something else was tuned, where the device has it.
    public var engine: MatrixEngine? { choice.engine }
    /// What `glora tune` found; nil on a device that it hasn't seen.
    package var tuning: ProductTuning? { choice.tuning }

    let shared: OpenCLContext
    let queue: cl_command_queue
    let programs: Programs
    var choice: ProductChoice
    /// Tries engines and 16-bit kernels before they are used; without it they are taken for proven.
    let prober: Prober?
    /// Whether this backend is itself a trial of its engines.
    let isTrial: Bool
    let ledger: MemoryLedger
    /// What the device failed at. From then on nothing is started, and what is read is NaN.
    var failure: BackendError?
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

    var layout: KernelLayout { programs.layout }

    /// A backend on the device. Builds the kernels, or reads them from the cache on disk; `prober` tries first what a driver may crash at.
    ///
    /// Throws `BackendError.build` with the driver's log, `.driver` when the driver refuses, `.outOfMemory`.
    public convenience init(device: OpenCLDevice, precision: Precision = .float32, prober: Prober? = nil)
        throws
    {
        let layout =
            try prober?.layout(for: device, KernelSource.whole, ProgramCache()) ?? KernelLayout(for: device)
        try self.init(device: device, layout: layout, precision: precision, prober: prober)
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
        engines: [MatrixEngine]? = nil, prober: Prober? = nil, source: String = KernelSource.whole,
        cache: ProgramCache = ProgramCache(), groupLimit: ((String) -> Int)? = nil
    ) throws {
        (self.device, self.precision) = (device, precision)
        name = "\(device)"
        let shared = try OpenCLContext.shared(device)
        var status: cl_int = 0
        let queue = clCreateCommandQueue(shared.context, device.id, 0, &status)
        try check(
            status, "clCreateCommandQueue", on: name,
            advice: "check the driver with clinfo, or use another `device`.")
        (self.shared, self.queue) = (shared, queue!)
        programs = Programs(shared, queue!, layout, source: source, cache: cache, groupLimit: groupLimit)
        choice = ProductChoice(precision, engines ?? MatrixEngine.of(device), programs)
        (self.prober, isTrial) = (engines == nil ? prober : nil, engines != nil)
        ledger = MemoryLedger(capacity: device.globalMemoryByteCount)
        try programs.build(Programs.Key(stored: .float32))
        scratch = try allocate([OpenCLBackend.scratchCount], .float32)
        table = try allocate([OpenCLBackend.tableCount], .float32)
        let panelCount = layout.local == 1 ? OpenCLBackend.panelCount : 1
        leftPanels = try allocate([panelCount], .float32)
        rightPanels = try allocate([panelCount], .float32)
        if precision != .float32 {
            choice.engine = choice.candidates.first { $0.engine != nil && admit($0) }?.engine
            if engine == nil { try useOwnKernels() }
        }
        if let found = ProductTuning.load(device, in: cache) { use(found) }
    }

    deinit {
        clFinish(queue)
        clReleaseCommandQueue(queue)
    }
}
