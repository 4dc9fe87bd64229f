import TensorCore

/// What computes a product of whole tensors.
package enum ProductKernel: Hashable, Codable, Sendable, RawRepresentable {
    /// CLBlast, whose tiles for GPUs are good without tuning.
    case clblast
    /// `multiply_tiled` of Matrices.cl, for GPUs.
    case tiled
    /// Panels.cl, for CPU devices. On 2 cores of a Cascade Lake with PoCL 3.1 it is as fast as MKL (147 GFLOP/s against
    /// 141, the geometric mean over a ViT-B block's products and their gradients at batch 8) where CLBlast untuned
    /// reaches 1–3.
    case panels
    /// A device's matrix engine, for other precisions than float32.
    case engine(MatrixEngine)

    private static let byName: [String: ProductKernel] = Dictionary(
        uniqueKeysWithValues: ([.clblast, .tiled, .panels] + MatrixEngine.allCases.map { .engine($0) })
            .map { ($0.rawValue, $0) })

    package init?(rawValue: String) {
        guard let kernel = ProductKernel.byName[rawValue] else { return nil }
        self = kernel
    }

    /// As it is called in a tuning's file.
    package var rawValue: String {
        switch self {
        case .clblast: "clblast"
        case .tiled: "tiled"
        case .panels: "panels"
        case .engine(let engine): "\(engine)"
        }
    }

    /// Its engine, if it has one.
    var engine: MatrixEngine? { if case .engine(let engine) = self { engine } else { nil } }

    /// Whether it reads operands from packed panels.
    var readsPanels: Bool { self == .panels || engine?.isOfCPU == true }
}

/// Which kernel computes which product on a device: what was tuned, else what suits the device.
struct ProductChoice {
    /// What stored tensors may be besides float32.
    let precision: Precision
    /// Those that the device may have.
    let engines: [MatrixEngine]
    let programs: Programs
    /// What multiplies in another precision than float32 unless something else was tuned, where the device has it.
    var engine: MatrixEngine?
    /// Forced kernel for tests and tuning; nil otherwise. In 16 bits it has to be admitted first.
    var forced: ProductKernel?
    /// What `glora tune` found; nil on a device that it hasn't seen.
    var tuning: ProductTuning?
    /// By `OpenCLBackend.admit`.
    var refused: Set<ProductKernel> = []
    /// Whether the driver couldn't start one of CLBlast's products; ours take their place then.
    var clblastFails = false

    init(_ precision: Precision, _ engines: [MatrixEngine], _ programs: Programs) {
        (self.precision, self.engines, self.programs) = (precision, engines, programs)
    }

    private var layout: KernelLayout { programs.layout }

    /// What may compute products of the backend's precision, the likely fastest first.
    var candidates: [ProductKernel] { kernels(for: precision) }

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

    /// What computes op(a) [m, k] · op(b) [k, n].
    func kernel(
        m: Int, n: Int, k: Int, transposeA: Bool, transposeB: Bool, stored: ElementType
    ) -> ProductKernel {
        let precision = stored == precision.stored ? precision : .float32
        let forced = forced.flatMap { kernels(for: precision).contains($0) ? $0 : nil }
        let tuned = tuning?.kernel(
            ProductClass(
                m: m, n: n, k: k, transposeA: transposeA, transposeB: transposeB, precision: precision))
        let chosen = forced ?? tuned ?? usual(stored)
        return chosen == .clblast && clblastFails ? own : chosen
    }

    /// What computes float32 products on every driver.
    var own: ProductKernel { layout.local == 1 ? .panels : .tiled }

    /// What computes products that nobody tuned; its program is the one of all other kernels of the type.
    func usual(_ stored: ElementType) -> ProductKernel {
        if let engine, stored == precision.stored { return .engine(engine) }
        if layout.local == 1 { return .panels }
        // CLBlast's own groups are of 64 work-items and more.
        return stored == .float32 && layout.local >= 64 ? .clblast : .tiled
    }

    /// Where a product's kernels are. Those that read panels have the same names with every engine; `multiply_tiled` is in every
    /// program of a GPU.
    func program(_ stored: ElementType, _ product: ProductKernel? = nil) -> Programs.Key {
        let product = product == nil || product == .tiled ? usual(stored) : product!
        return Programs.Key(stored: stored, engine: product.engine)
    }
}
