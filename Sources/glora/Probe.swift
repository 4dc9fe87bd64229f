import ArgumentParser
import OpenCLBackend

/// What `MatrixEngine` starts as a process of its own. Exit code 0: the engine's products are right on the device.
struct Probe: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Try an engine of bfloat16 products on a device.", shouldDisplay: false)

    @Option(help: "opencl:INDEX or opencl:NAME-PART.")
    var device: String
    @Option(help: "1 for AVX512-BF16, 2 for AMX.")
    var engine: Int

    func run() throws {
        guard let engine = MatrixEngine(rawValue: engine), device.hasPrefix("opencl:") else {
            throw ValidationError("--engine is 1 or 2, --device an OpenCL device")
        }
        let device = try OpenCLDevice.select(String(device.dropFirst(7)))
        let backend = try OpenCLBackend(device: device, trying: engine)
        guard backend.engine == engine else { throw ExitCode(1) }
    }
}
