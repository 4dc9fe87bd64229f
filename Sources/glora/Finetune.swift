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

    @Option(name: .customLong("run"), help: "The supernet's run.")
    var runFolder: String
    @Option(help: "The paths (default: the run's search/architecture.json).")
    var architecture: String?
    @Option(help: "The new run's folder.")
    var output: String
    @Option(help: "supernet or scratch: the tensors to start from.")
    var from = Source.supernet
    @Option(help: "Passes over the training split (default: the supernet's).")
    var epochs: Int?
    @Option(help: "Epochs of linear warm-up (default: the supernet's).")
    var warmupEpochs: Int?
    @Option(name: .customLong("lr"), help: "Learning rate after the warm-up (default: the supernet's).")
    var learningRate: Double?
    @Option(help: "Decoupled weight decay (default: the supernet's).")
    var weightDecay: Double?
    @Option(help: "The seed of every draw (default: the supernet's).")
    var seed: Int?
    @OptionGroup var checks: ImageCheckFlags
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    func run() throws {
        let console = common.console
        let target = RunDirectory(URL(fileURLWithPath: output))
        let lock = try target.lock(orGive: "--output", console)
        defer { lock.release() }
        let directory = RunDirectory(URL(fileURLWithPath: runFolder))
        let file = architecture.map { URL(fileURLWithPath: $0) } ?? SearchDirectory(directory).architecture
        let found = try SearchDirectory.architecture(at: file)
        var options = try directory.configuration().options
        options.path = file.path
        options.precision = device.precision ?? options.precision
        options.epochs = epochs ?? options.epochs
        options.warmupEpochs = warmupEpochs ?? options.warmupEpochs
        options.learningRate = learningRate ?? options.learningRate
        options.weightDecay = weightDecay ?? options.weightDecay
        options.seed = seed ?? options.seed
        let inherited =
            from == .supernet
            ? try TrainingSnapshot(contentsOf: found.checkpoint == .best ? directory.best : directory.last)
                .values
            : nil
        let tuning = try TrainingStart(options, of: directory, device, checks, console)
            .fineTuning(in: target, inheriting: inherited)
        console.say(
            "\(found.parameters.grouped) parameters, \((100 * found.accuracy).fixed(2)) % on \(found.fitnessSplit) "
                + "as the search found them; training from \(from.rawValue)")
        let result = try RunReporter(tuning, target, console).train()
        try console.result(result)
        if !result.finished { throw ExitCode(130) }
    }
}
