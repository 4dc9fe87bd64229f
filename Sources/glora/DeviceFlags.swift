import ArgumentParser
import ModelConfiguration
import OpenCLBackend
import SwiftGLoRA
import TensorCore
import Training

extension Precision: ExpressibleByArgument {}

/// `--device` and `--precision`: which backend a command runs on.
struct DeviceFlags: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "cpu, auto, opencl:INDEX or opencl:NAME-PART (see glora devices). auto takes a GPU if there is one, else the CPU.",
            valueName: "device"))
    var device = "auto"
    @Option(
        help: TrainingOptions().$precision.flagHelp(default: "float32; a run that goes on keeps its own"))
    var precision: Precision?
    @Flag(
        inversion: .prefixedNo,
        help:
            "Tune the products of a GPU that glora tune hasn't seen in the precision, once, for at most 20 s."
    )
    var tune = true

    /// For what only reads a model.
    static var cpu: DeviceFlags {
        var flags = DeviceFlags()
        flags.device = "cpu"
        flags.precision = .float32
        return flags
    }

    /// The backend that the flags name, with a run's precision or the flags'; said on the console, if there is one. With the
    /// `productParts` of a run it goes on with that run's bits. Throws `BackendError` when there is no such device, `ValidationError`
    /// for another word.
    func backend(
        _ console: Console?, _ given: Precision? = nil, productParts: Int? = nil
    ) throws -> any Backend {
        guard let named = Device(device) else {
            throw ValidationError("--device \(device): use cpu, auto, opencl:INDEX or opencl:NAME-PART")
        }
        let backend: any Backend
        do {
            backend = try named.open(
                precision: given ?? precision ?? .float32, productParts: productParts,
                prober: Prober(ProbeRunner()) { Console(isJSON: true).note($0) })
        } catch BackendError.unsupported(let precision, let name) {
            throw ValidationError(
                "--precision \(precision.rawValue) needs an OpenCL device (glora devices lists them); \(name) "
                    + "computes with float32 alone")
        }
        console?.say(
            "device: \(backend.name)"
                + (backend.precision == .float32 ? "" : ", \(backend.precision.rawValue)")
                + (backend.openCL?.engine.map { " by \($0)" } ?? ""))
        return backend
    }

    /// Throws `ValidationError` for another precision than float32, for commands whose result must not be rounded or that have
    /// no use for it.
    func requireFloat32() throws {
        guard let precision, precision != .float32 else { return }
        throw ValidationError(
            "--precision \(precision.rawValue): this command computes in float32; leave it out")
    }

    /// Tunes a GPU's products for steps of this model with `rows` tokens in a batch, unless it was done before in this precision.
    /// On a CPU device there is little to choose: CLBlast untuned is ten times slower than our own, and engines are faster.
    func tuneIfNew(_ backend: any Backend, _ model: ViTConfiguration, batch: Int, _ console: Console) throws {
        guard tune, let backend = backend.openCL, backend.device.kind != .cpu,
            backend.tuning?.choices.contains(where: { $0.product.precision == backend.precision }) != true
        else { return }
        console.say("tuning products for \(backend.name), once (--no-tune leaves it out)")
        try tuneProducts(backend, model, batch: batch, budget: 20, console)
    }

    /// Whether the backend's memory is the host's.
    func isOnHost(_ backend: any Backend) -> Bool { backend.openCL == nil || isHostOpenCL(backend) }

    /// Whether the backend is an OpenCL driver for the host's processor.
    func isHostOpenCL(_ backend: any Backend) -> Bool { backend.openCL?.device.kind == .cpu }
}

extension Backend {
    /// Itself where it is an OpenCL device's: what can be tuned, and has engines and a driver.
    var openCL: OpenCLBackend? { self as? OpenCLBackend }

    /// The bytes of device memory that tensors hold, where the backend counts them.
    var heldByteCount: Int { openCL?.allocatedByteCount ?? 0 }

    /// A closure that builds W in the layout of the backend's products, where that isn't its rows.
    func packs(_ weight: LinearWeight) -> (() -> Void)? { openCL?.packing(weight) }
}
