import SwiftGLoRA
import Testing

/// Runs trials in this process, where a driver's crash would be ours: what a process of one's own does with its one trial.
struct TrialInPlace: TrialRunner {
    func run(_ trial: Prober.Trial, on device: OpenCLDevice, onLong: () -> Void) -> Prober.Ending {
        (try? trial.verdict(on: device)).map { Prober.Ending.exit($0.status) } ?? .cutShort
    }
}

@Test("A runner of trials of somebody else's finds a device's kernels right")
func trial() throws {
    let device = try OpenCLDevice.select("0")
    let layout = KernelLayout(for: device)
    #expect(TrialInPlace().run(.kernels(layout, .float32), on: device) {} == .exit(0))
}
