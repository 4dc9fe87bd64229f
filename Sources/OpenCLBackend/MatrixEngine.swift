import CProcessor
import TensorCore

/// What a device has for products of 16 bits (and tf32) besides vectors of float32: of CPUs in Engines.cl, of GPUs in
/// GPUEngines.cl. The number is their ENGINE.
public enum MatrixEngine: Int, CaseIterable, CustomStringConvertible, Sendable {
    /// `vdpbf16ps` of AVX512-BF16.
    case avx512 = 1
    /// `tdpbf16ps` of AMX.
    case amx = 2
    /// NVIDIA's tensor cores, from compute capability 8.0 on: `mma.sync`.
    case tensorCores = 3
    /// Intel's XMX with sub-groups of 8 work-items, as the Arc A series has them, and with sub-groups of 16.
    case xmx8 = 4
    case xmx16 = 5
    /// AMD's WMMA, of RDNA 3 and 4.
    case wmma = 6
    /// AMD's MFMA, from CDNA 2 on.
    case mfma = 7

    /// What users know it by.
    public var description: String {
        switch self {
        case .avx512: "AVX512-BF16"
        case .amx: "AMX"
        case .tensorCores: "tensor cores"
        case .xmx8: "XMX"
        case .xmx16: "XMX of 16"
        case .wmma: "WMMA"
        case .mfma: "MFMA"
        }
    }

    /// Whether it is a CPU's, and reads panels.
    var isOfCPU: Bool { self == .avx512 || self == .amx }

    /// Those that a device may have, the fastest first: the host's processor's, on a CPU device. Neither a simulator nor Mesa's
    /// drivers, which go through SPIR-V or an LLVM without the host's assembler, run assembly.
    public static func of(_ device: OpenCLDevice) -> [MatrixEngine] {
        guard !["Oclgrind", "rusticl", "Clover"].contains(where: device.platformName.contains) else {
            return []
        }
        return device.kind == .cpu ? ofHost : ofGPU(device.features)
    }

    /// What a GPU's driver says that it has.
    static func ofGPU(_ features: OpenCLDevice.Features) -> [MatrixEngine] {
        if features.computeCapability >= 8 { return [.tensorCores] }
        if features.extensions.contains("cl_intel_subgroup_matrix_multiply_accumulate") {
            // Its functions are for the smallest sub-groups that the device has.
            return features.smallestSubgroup == 8 ? [.xmx8] : features.smallestSubgroup == 16 ? [.xmx16] : []
        }
        // As in gfx1100, and gfx90a:sramecc+:xnack-.
        let name = features.name.prefix { $0 != ":" }
        if name.hasPrefix("gfx11") || name.hasPrefix("gfx12") { return [.wmma] }
        return ["gfx90a", "gfx940", "gfx941", "gfx942", "gfx950"].contains(name) ? [.mfma] : []
    }

    /// Those that the host's processor has, the fastest first.
    private static let ofHost: [MatrixEngine] =
        (processor_grants_amx_bf16() ? [.amx] : []) + (processor_has_avx512_bf16() ? [.avx512] : [])

    /// Whether it multiplies what a precision stores, in such kernels.
    func takes(_ precision: Precision, _ layout: KernelLayout) -> Bool {
        switch (self, precision) {
        case (_, .float32): false
        case (.avx512, _), (.amx, _): precision == .bfloat16 && layout == KernelLayout(width: 16, local: 1)
        case (.tensorCores, .tf32): layout.local > 1
        case (_, .tf32): false
        default: layout.local > 1
        }
    }

    /// Those that a device's driver can run, as far as the verdicts that are kept say: an engine that failed is left out. An
    /// engine is proven when its products were right in one of its precisions, and untried without any verdict.
    package static func known(
        _ device: OpenCLDevice, _ cache: ProgramCache = ProgramCache()
    ) -> [(engine: MatrixEngine, isProven: Bool)] {
        let source = KernelSource.whole
        let layout = KernelLayout(for: device).andNarrower.first {
            [nil, .right].contains(Prober.verdict(on: .kernels($0, .float32), device, source, cache))
        }
        guard let layout else { return [] }
        return of(device).compactMap { engine in
            let verdicts = Precision.allCases.filter { engine.takes($0, layout) }
                .map { Prober.verdict(on: .engine(engine, $0), device, source, cache) }
            if verdicts.contains(.right) { return (engine, true) }
            return verdicts.contains(nil) ? (engine, false) : nil
        }
    }

    /// GROUP_ROWS and GROUP_COLUMNS of GPUEngines.cl.
    static let groupTile = (rows: 128, columns: 64)

    /// ENGINE_ROWS of EnginePanels.cl, for CPUs' engines.
    var rows: Int { self == .amx ? 32 : 12 }

    /// PAIRS of EnginePanels.cl, for CPUs' engines: what a row of so many elements takes in a panel, in words of two.
    func words(_ depth: Int) -> Int {
        let step = self == .amx ? 16 : 1
        return ((depth + 1) / 2 + step - 1) / step * step
    }
}
