import ArgumentParser
import CPUBackend
import OpenCLBackend
import TensorCore

/// `--device`: which backend a command runs on.
struct DeviceFlags: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "cpu, auto, opencl:INDEX or opencl:NAME-PART (see glora devices). auto takes a GPU if there is one, else the CPU.",
            valueName: "device"))
    var device = "auto"

    /// The backend that the flag names. Throws `BackendError` when there is no such device, `ValidationError` for another word.
    func backend(_ console: Console) throws -> any Backend {
        let backend = try make()
        console.say("device: \(backend.name)")
        return backend
    }

    private func make() throws -> any Backend {
        if device == "cpu" { return CPUBackend() }
        if device == "auto" {
            // A machine without any OpenCL platform has no GPU for us; that is no error here.
            guard let gpu = (try? OpenCLDevice.all())?.first(where: { $0.kind == .gpu }) else {
                return CPUBackend()
            }
            return try OpenCLBackend(device: gpu)
        }
        guard device.hasPrefix("opencl:"), device.count > 7 else {
            throw ValidationError("--device \(device): use cpu, auto, opencl:INDEX or opencl:NAME-PART")
        }
        return try OpenCLBackend(device: try OpenCLDevice.select(String(device.dropFirst(7))))
    }
}
