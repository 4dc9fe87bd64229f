import ArgumentParser
import ModelConfiguration
import OpenCLBackend
import TensorCore

struct Tune: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Find the fastest products on an OpenCL device and remember them.",
        discussion: """
            Times each candidate for the products of a model's Linears and of their gradients, and lets only those win that
            agree with a product in double precision. The winners are kept in a file for the device and its driver, which every
            later command reads.

            In 16 bits the candidates are the device's matrix engines and its own kernel. Each precision has winners of its own.

            Examples:
              glora tune --device opencl:0 --batch 64
              glora tune --device opencl:0 --precision bfloat16
            """)

    @OptionGroup var flags: BenchFlags
    @Option(help: "Seconds to spend at most.")
    var budget = 120.0

    struct Result: Codable {
        let file: String
        let tuning: ProductTuning
    }

    func validate() throws {
        guard (0...86_400).contains(budget) else {
            throw ValidationError("--budget must be from 0 to 86400 seconds, not \(budget)")
        }
    }

    func run() throws {
        let console = flags.common.console
        let model = try flags.configuration()
        guard let backend = try flags.device.backend(console).openCL else {
            throw ValidationError(
                "the CPU backend has nothing to tune; give --device opencl:INDEX (see glora devices)")
        }
        let tuning = try tuneProducts(backend, model, batch: flags.batch, budget: budget, console)
        try console.result(
            Result(file: ProductTuning.path(backend.device, in: ProgramCache()), tuning: tuning),
            schema: "glora.tune/1")
    }
}

/// Tunes the products of a model's Linears and their gradients, stores the winners, and lets the backend use them. Throws
/// `BackendError.outOfMemory`.
@discardableResult
func tuneProducts(
    _ backend: OpenCLBackend, _ model: ViTConfiguration, batch: Int, budget: Double, _ console: Console
) throws -> ProductTuning {
    let shapes = BenchGEMM.shapes(model, rows: batch * model.tokenCount).map {
        ProductTuner.Shape(
            m: $0.m, n: $0.n, k: $0.k, transposeA: $0.kind == .weight, transposeB: $0.kind == .forward)
    }
    var tuning = backend.tuning ?? ProductTuning(backend.device)
    try ProductTuner(backend, budget: budget).tune(shapes, into: &tuning) { trial in
        console.say(
            "\(trial.product)".padded(to: 26) + trial.kernel.rawValue.padded(to: 13)
                + (trial.gflops.map { "\($0.fixed(1)) GFLOP/s" } ?? trial.note ?? ""))
    }
    backend.use(tuning)
    let cache = ProgramCache()
    if tuning.store(for: backend.device, in: cache) {
        console.say("kept in \(ProductTuning.path(backend.device, in: cache))")
    } else {
        console.note(
            "\(cache.folder.url.path) can't be written to, so the next start tunes again; set GLORA_CACHE")
    }
    return tuning
}
