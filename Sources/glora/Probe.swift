import ArgumentParser
import OpenCLBackend
import TensorCore

/// What `MatrixEngine` starts as a process of its own. Exit code 0: the engine's products are right on the device.
struct Probe: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Try a matrix engine on a device.", shouldDisplay: false)

    @Option(help: "opencl:INDEX or opencl:NAME-PART.")
    var device: String
    @Option(help: "Its number: 1 for AVX512-BF16, 2 for AMX, and so on.")
    var engine: Int
    @Option(help: "\(Precision.allCases.map(\.rawValue).joined(separator: ", ")).")
    var precision = Precision.bfloat16

    func run() throws {
        guard let engine = MatrixEngine(rawValue: engine), device.hasPrefix("opencl:") else {
            throw ValidationError(
                "--engine is a number up to \(MatrixEngine.allCases.count), --device an OpenCL device")
        }
        let device = try OpenCLDevice.select(String(device.dropFirst(7)))
        let backend = try OpenCLBackend(device: device, precision: precision, trying: engine)
        guard backend.engine == engine else { throw ExitCode(1) }
    }
}
