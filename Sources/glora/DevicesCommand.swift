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
        /// What computes products of 16 bits: engines whose products were right in a process of their own.
        let matrixEngines: [String]
        /// Those that the device may have, and that no command has tried yet: the first that needs one does.
        let untriedEngines: [String]
    }

    struct Result: Encodable {
        let devices: [Row]
    }

    func run() throws {
        let console = common.console
        var cpu: CPUBackend?
        do { cpu = try CPUBackend() } catch { console.note("\(error)") }
        if let cpu { console.say("cpu        \(cpu.name)") }
        let found: [OpenCLDevice]
        do { found = try OpenCLDevice.all() } catch let error as BackendError {
            console.note("\(error)")
            found = []
        }
        for device in found {
            console.say(
                "opencl:\(device.index)   \(device.name) (\(device.kind), \(device.computeUnits) compute units, "
                    + "\(device.globalMemoryByteCount >> 20) MiB)")
            console.say(
                "           \(device.platformName), driver \(device.driverVersion)"
                    + MatrixEngine.known(device).map {
                        $0.isProven ? ", \($0.engine)" : ", \($0.engine) not tried yet"
                    }
                    .joined())
        }
        let rows = found.map {
            let engines = MatrixEngine.known($0)
            return Row(
                device: "opencl:\($0.index)", name: $0.name, platform: $0.platformName,
                driver: $0.driverVersion, kind: "\($0.kind)", memoryBytes: $0.globalMemoryByteCount,
                computeUnits: $0.computeUnits,
                matrixEngines: engines.filter(\.isProven).map { "\($0.engine)" },
                untriedEngines: engines.filter { !$0.isProven }.map { "\($0.engine)" })
        }
        let host = cpu.map {
            Row(
                device: "cpu", name: $0.name, platform: "host", driver: "", kind: "cpu",
                memoryBytes: $0.memoryByteCount, computeUnits: $0.threadCount, matrixEngines: [],
                untriedEngines: [])
        }
        try console.result(
            Result(devices: (host.map { [$0] } ?? []) + rows), schema: "glora.devices/1")
    }
}
