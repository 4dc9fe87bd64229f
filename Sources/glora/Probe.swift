import ArgumentParser
import Foundation
import OpenCLBackend
import TensorCore

/// Tries what drivers may crash at in a process of this program, by `Probe`.
struct ProbeRunner: TrialRunner {
    func run(_ trial: Prober.Trial, on device: OpenCLDevice, onLong: () -> Void) -> Prober.Ending {
        let options: KeyValuePairs<String, String> =
            switch trial {
            case .engine(let engine, let precision):
                ["engine": "\(engine.rawValue)", "precision": precision.rawValue]
            case .kernels(let layout, let precision):
                ["width": "\(layout.width)", "local": "\(layout.local)", "precision": precision.rawValue]
            }
        return Prober.run(
            URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath(),
            ["probe", "--device", "opencl:\(device.index)"] + options.flatMap { ["--\($0)", $1] },
            within: trial.limit, onLong: onLong)
    }
}

/// What `ProbeRunner` starts as a process of its own; its exit code is a `Prober.Verdict`'s, or another when it couldn't try.
struct Probe: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Try kernels or a matrix engine on a device.", shouldDisplay: false)

    @Option(help: "opencl:INDEX or opencl:NAME-PART.")
    var device: String
    @Option(help: "An engine's number: 1 for AVX512-BF16, 2 for AMX, and so on.")
    var engine: Int?
    @Option(help: "Without an engine: the floats that a work-item handles at once.")
    var width = 4
    @Option(help: "Without an engine: the work-items of a group.")
    var local = 1
    @Option(help: "\(Precision.allCases.map(\.rawValue).joined(separator: ", ")).")
    var precision = Precision.bfloat16

    func run() throws {
        guard device.hasPrefix("opencl:"), engine.map({ MatrixEngine(rawValue: $0) != nil }) ?? true else {
            throw ValidationError(
                "--engine is a number up to \(MatrixEngine.allCases.count), --device an OpenCL device")
        }
        // Nor may a driver that can't start its threads.
        guard canStartThreads(ProcessLimits.processorCount + 8) else { throw ExitCode.failure }
        let device = try OpenCLDevice.select(String(device.dropFirst(7)))
        let trial =
            engine.flatMap { MatrixEngine(rawValue: $0) }.map { Prober.Trial.engine($0, precision) }
            ?? .kernels(KernelLayout(width: width, local: local), precision)
        throw ExitCode(try trial.verdict(on: device).status)
    }
}
