import Foundation
import TensorCore
import TestSupport
import Testing

@testable import OpenCLBackend

/// Which engines a device has, how they are tried, and GPUs' engines with their instructions emulated.
@Suite("Matrix engines of devices") struct MatrixEngineTests {
    /// A GPU's engine in one of its precisions.
    struct GPUCase: Sendable, CustomStringConvertible {
        let engine: MatrixEngine
        let precision: Precision
        /// RDNA 4, whose registers hold other elements than RDNA 3's.
        var isGfx12 = false
        var description: String { "\(engine)\(isGfx12 ? " of gfx12" : "") in \(precision)" }

        /// Each instruction's layout once: a driver takes a while to compile the emulation.
        static let all = [
            GPUCase(engine: .tensorCores, precision: .tf32),
            GPUCase(engine: .tensorCores, precision: .bfloat16),
            GPUCase(engine: .xmx8, precision: .bfloat16), GPUCase(engine: .xmx16, precision: .float16),
            GPUCase(engine: .wmma, precision: .bfloat16),
            GPUCase(engine: .wmma, precision: .float16, isGfx12: true),
            GPUCase(engine: .mfma, precision: .bfloat16),
        ]

        /// The kernels that are needed, with what the vendor's tables say of the instruction in its place.
        var source: String {
            (isGfx12 ? "#define __gfx1200__\n" : "") + engineEmulation + "\n"
                + KernelSource.files.filter {
                    ["Prelude.cl", "Elementwise.cl", "GPUEngines.cl"].contains($0.name)
                }
                .map(\.text).joined(separator: "\n")
        }
    }

    /// A GPU's kernel, packing, tails and where its sums lie, on a CPU device that computes what the instruction would.
    @Test(
        "A GPU's engine, its instruction emulated, multiplies right in every size, and leaves alone what lies behind c",
        arguments: GPUCase.all)
    func enginesOfGPUs(choice: GPUCase) throws {
        let precision = choice.precision
        let sizes = [(1, 1, 1), (130, 65, 33), (128, 64, 64), (257, 130, 40), (16, 136, 95)]
        try OpenCLTests.withDevice { device in
            let backend = try OpenCLBackend(
                device: device, layout: KernelLayout(width: 4, local: 64), precision: precision,
                engines: [choice.engine], source: choice.source)
            // Its products were tried, with each way to store the operands.
            try #require(backend.engine == choice.engine)
            for (m, n, k) in sizes {
                for transposed in [false, true] {
                    let (a, b, initial) = (
                        randomValues(m * k, seed: 1).map(precision.rounded),
                        randomValues(k * n, seed: 2).map(precision.rounded),
                        randomValues(m * n, seed: 3).map(precision.rounded)
                    )
                    // With something behind c that has to stay.
                    let whole = try backend.allocate([m * n + 256], precision.stored)
                    backend.upload(whole, initial + Array(repeating: 1.5, count: 256))
                    let c = whole.leading([m, n])
                    func tensor(_ values: [Float], _ shape: [Int]) throws -> Tensor {
                        let tensor = try backend.allocate(shape, precision.stored)
                        backend.upload(tensor, values)
                        return tensor
                    }
                    backend.matmul(
                        c, try tensor(a, transposed ? [k, m] : [m, k]),
                        try tensor(b, transposed ? [n, k] : [k, n]), transposeA: transposed,
                        transposeB: transposed, accumulate: true)
                    let left = transposed ? Matrix(k, m, a).transposed : Matrix(m, k, a)
                    let right = transposed ? Matrix(n, k, b).transposed : Matrix(k, n, b)
                    let expected = (left * right).combined(Matrix(m, n, initial), +)
                    // The result is rounded once; tf32 rounds both operands instead.
                    let roundings = precision == .tf32 ? 2.0 : 1
                    expectClose(
                        backend.values(c), expected.values, "\(choice) \((m, n, k)) \(transposed)",
                        limit: 1e-10 + roundings * precision.roundoff * precision.roundoff)
                    #expect(backend.values(whole)[(m * n)...].allSatisfy { $0 == 1.5 })
                }
            }
        }
    }

    @Test("A GPU has the engines that its driver's features tell of") func enginesByFeatures() {
        func engines(_ features: OpenCLDevice.Features) -> [MatrixEngine] { MatrixEngine.ofGPU(features) }
        #expect(engines(.init(name: "NVIDIA H100", computeCapability: 9)) == [.tensorCores])
        #expect(engines(.init(name: "Tesla V100", computeCapability: 7)).isEmpty)
        let xmx = "cl_intel_subgroup_matrix_multiply_accumulate"
        #expect(
            engines(.init(name: "Intel(R) Arc(TM) A770", extensions: [xmx], smallestSubgroup: 8)) == [.xmx8])
        #expect(engines(.init(name: "Max 1550", extensions: [xmx], smallestSubgroup: 16)) == [.xmx16])
        #expect(engines(.init(name: "Intel(R) Iris(R) Xe", extensions: [], smallestSubgroup: 8)).isEmpty)
        #expect(engines(.init(name: "gfx1100")) == [.wmma] && engines(.init(name: "gfx1201")) == [.wmma])
        #expect(engines(.init(name: "gfx90a:sramecc+:xnack-")) == [.mfma])
        #expect(engines(.init(name: "gfx1030")).isEmpty && engines(.init(name: "gfx906")).isEmpty)
    }

    @Test("tf32 is for tensor cores, and float32 for nobody's engine") func precisionsOfEngines() throws {
        let (cpu, gpu) = (KernelLayout(width: 16, local: 1), KernelLayout(width: 4, local: 64))
        for engine in MatrixEngine.allCases {
            #expect(engine.takes(.bfloat16, engine.isOfCPU ? cpu : gpu))
            #expect(!engine.takes(.bfloat16, engine.isOfCPU ? gpu : cpu))
            #expect(engine.takes(.float16, gpu) == !engine.isOfCPU && !engine.takes(.float16, cpu))
            #expect(engine.takes(.tf32, gpu) == (engine == .tensorCores) && !engine.takes(.tf32, cpu))
            #expect(!engine.takes(.float32, gpu) && !engine.takes(.float32, cpu))
            #expect(ProductKernel(rawValue: "\(engine)") == .engine(engine))
        }
        // Where there is no engine for it.
        let error = try #require(throws: BackendError.self) {
            try OpenCLTests.withDevice {
                _ = try OpenCLBackend(device: $0, layout: cpu, precision: .tf32, engines: [])
            }
        }
        #expect("\(error)".contains("`precision tf32` needs"))
    }

    @Test("Panels of 16 bits hold pairs, in whole steps of their engine") func panelsHoldPairs() {
        #expect(MatrixEngine.avx512.words(5) == 3 && MatrixEngine.avx512.words(64) == 32)
        #expect(MatrixEngine.amx.words(5) == 16 && MatrixEngine.amx.words(65) == 48)
    }
}
