import Adapters
import ArgumentParser
import Foundation
import SupernetSearch
import Training

struct Finetune: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Train on what a search has found: one path for each layer, the supernet's weights or fresh ones.",
        discussion: """
            The new run is an ordinary one: eval, merge and train --resume read it. Its
            settings are the supernet's where no flag says otherwise.

            Example:
              glora finetune --run runs/a --output runs/b --epochs 50
              glora finetune --run runs/a --output runs/c --from scratch
            """)

    enum Source: String, CaseIterable, ExpressibleByArgument {
        /// The supernet's tensors in the state that was searched.
        case supernet
        /// Fresh ones.
        case scratch
    }

    /// What may be another than the supernet's.
    struct Flags: SettingFlags {
        static var settings: [any AnySetting] {
            let all = TrainingOptions()
            return [all.$epochs, all.$warmupEpochs, all.$learningRate, all.$weightDecay, all.$seed]
        }

        static func origin(of setting: any AnySetting) -> String? { "the supernet's" }

        var given: [String: any SettingValue] = [:]
    }

    @Option(name: .customLong("run"), help: "The supernet's run.")
    var runFolder: String
    @Option(help: "The paths (default: the run's search/architecture.json).")
    var architecture: String?
    @Option(help: "The new run's folder.")
    var output: String
    @Option(help: "supernet or scratch: the tensors to start from.")
    var from = Source.supernet
    @OptionGroup var training: Flags
    @OptionGroup var checks: ImageCheckFlags
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    func run() throws {
        let console = common.console
        let target = RunDirectory(URL(fileURLWithPath: output))
        let lock = try target.lock(orGive: "output", console)
        defer { lock.release() }
        let directory = RunDirectory(URL(fileURLWithPath: runFolder))
        let file = architecture.map { URL(fileURLWithPath: $0) } ?? SearchDirectory(directory).architecture
        let found = try SearchDirectory.architecture(at: file)
        var options = try directory.configuration().options
        options.path = file.path
        options.precision = device.precision ?? options.precision
        options.take(training.given)
        let inherited =
            from == .supernet
            ? try TrainingSnapshot(contentsOf: found.checkpoint == .best ? directory.best : directory.last)
                .result
            : nil
        let tuning = try TrainingStart(options, of: directory, device, checks, console)
            .fineTuning(in: target, inheriting: inherited)
        console.say(
            "\(found.parameters.grouped) parameters, \((100 * found.accuracy).fixed(2)) % on \(found.fitnessSplit) "
                + "as the search found them; training from \(from.rawValue)")
        let result = try RunReporter(tuning, target, console).train()
        try console.result(result, schema: "glora.finetune/1")
        if result.end == .stopped { throw ExitCode.stopped }
    }
}
