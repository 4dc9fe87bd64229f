import ArgumentParser
import CPUBackend
import OpenCLBackend
import TensorCore

struct Devices: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "List the devices that --device can name.",
        discussion: """
            Example:
              glora devices
            """)

    @OptionGroup var common: CommonFlags

    struct Row: Encodable {
        let device: String
        let name: String
        let platform: String
        let driver: String
        let kind: String
        let memoryBytes: Int
        let computeUnits: Int
        /// What the device says that it has for products of 16 bits; used where its products are right.
        let matrixEngines: [String]
    }

    struct Result: Encodable {
        let devices: [Row]
    }

    private func engines(_ device: OpenCLDevice) -> [String] { MatrixEngine.of(device).map { "\($0)" } }

    func run() throws {
        let console = common.console
        let cpu = CPUBackend()
        console.say("cpu        \(cpu.name)")
        let found: [OpenCLDevice]
        do { found = try OpenCLDevice.all() } catch let error as BackendError {
            console.note("\(error)")
            found = []
        }
        for device in found {
            console.say(
                "opencl:\(device.index)   \(device.name) (\(device.kind), \(device.computeUnits) compute units, "
                    + "\(device.globalMemoryByteCount >> 20) MiB)\n           "
                    + "\(device.platformName), driver \(device.driverVersion)"
                    + engines(device).map { ", \($0)" }.joined())
        }
        let rows = found.map {
            Row(
                device: "opencl:\($0.index)", name: $0.name, platform: $0.platformName,
                driver: $0.driverVersion, kind: "\($0.kind)", memoryBytes: $0.globalMemoryByteCount,
                computeUnits: $0.computeUnits, matrixEngines: engines($0))
        }
        let host = Row(
            device: "cpu", name: cpu.name, platform: "host", driver: "", kind: "cpu",
            memoryBytes: cpu.memoryByteCount, computeUnits: cpu.threadCount, matrixEngines: [])
        try console.result(Result(devices: [host] + rows))
    }
}
