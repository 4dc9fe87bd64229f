import Adapters
import ArgumentParser
import Foundation
import TensorCore
import Training
import VisionModels

struct Train: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Fine-tune a pretrained ViT on a folder of labelled images.",
        discussion: """
            Without further flags this trains GLoRA's richest path on its own, for as many
            epochs as suit the number of images. --path none is the linear probe, --path
            supernet what `search` searches, --recipe original what the paper's authors do.
            A YAML file of these flags is read by --config FILE; flags override it.

            Example:
              glora train --model vit --data task --run runs/a
              glora train --run runs/a --resume
            """)

    @OptionGroup var training: TrainingFlags
    @Option(name: .customLong("run"), help: "The run's folder: settings, metrics, checkpoints and adapter.")
    var runFolder: String
    @Flag(help: "Go on exactly where the run in --run stopped, with its own settings.")
    var resume = false
    @Option(help: "A YAML file of these flags.")
    var config: String?
    @OptionGroup var checks: ImageCheckFlags
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    func run() throws {
        let console = common.console
        let directory = RunDirectory(URL(fileURLWithPath: runFolder))
        let lock = try directory.lock(orGive: "run", console)
        defer { lock.release() }
        let options = try resume ? savedOptions(directory) : TrainingOptions(given: given, recipe: .standard)
        if options.model.isEmpty {
            throw ValidationError("--model is missing: the pretrained ViT to start from")
        }
        if options.data.isEmpty { throw ValidationError("--data is missing: the folder of labelled images") }
        let tuning = try TrainingStart(
            options, resuming: resume ? directory : nil, device, checks, console
        )
        .fineTuning(in: directory, resumes: resume)
        let result = try RunReporter(tuning, directory, console).train()
        try console.result(result, schema: "glora.train/1")
        if result.end == .stopped { throw ExitCode.stopped }
    }

    private var given: [String: any SettingValue] {
        var given = training.given
        given["precision"] = device.precision
        return given
    }

    /// The settings of the run that is to go on. A flag that says otherwise is an error: the result would be neither run. Only
    /// the model and the data may have moved; their hashes decide.
    private func savedOptions(_ directory: RunDirectory) throws -> TrainingOptions {
        let saved = try directory.configuration().options
        var options = saved
        options.take(given)
        guard let difference = options.differences(from: saved).first else { return options }
        throw ValidationError(
            "\(String(difference.prefix { $0 != " " }).spelledAsFlags) differs from the run's own setting in "
                + "\(directory.url.path)/config.yaml; leave it out, or start another --run")
    }
}

/// Runs a fine-tuning while telling the console how it goes.
struct RunReporter {
    /// What `--json` prints of `train` and `finetune`.
    struct Result: Encodable {
        let run: String
        let finished: Bool
        let end: TrainingEnd
        let epochs: Int
        let steps: Int
        let lastLoss: Double?
        // The two of the task.
        var valAccuracy: Double?
        var bestValAccuracy: Double?
        var valMeanAveragePrecision: Double?
        var bestValMeanAveragePrecision: Double?
        var valR2: Double?
        var bestValR2: Double?
        let adapterParameters: Int
        let headParameters: Int
        let seconds: Double
        let imagesPerSecond: Double?
    }

    private let tuning: FineTuning<VisionTransformer>
    private let directory: RunDirectory
    private let console: Console

    init(_ tuning: FineTuning<VisionTransformer>, _ directory: RunDirectory, _ console: Console) {
        (self.tuning, self.directory, self.console) = (tuning, directory, console)
    }

    func train() throws -> Result {
        let model = tuning.model
        let trainedCount = model.parameterCount
        console.say(
            "trainable parameters: \(trainedCount.grouped) in the adapter, "
                + "\(model.headParameterCount.grouped) in the head")
        console.say(
            "memory planned: \(model.plannedByteCount(batch: tuning.options.batchSize) >> 20) MiB "
                + "(--memory \(tuning.options.memory.rawValue))")
        if tuning.trainer.state.step > 0 { console.say("resuming after step \(tuning.trainer.state.step)") }
        Interrupt.install()
        let start = ContinuousClock.now
        var lastStep: TrainingProgress?
        let metric = tuning.options.metric
        var lastScore = tuning.trainer.state.lastAccuracy
        var lastMilestone = ContinuousClock.now
        let end = try tuning.run(
            onEvent: { event in
                switch event {
                case .step(let progress):
                    lastStep = progress
                    console.progress(line(progress, lastScore))
                case .epoch(let epoch, let loss, let rate):
                    // Every epoch on short runs; at most a line every ten seconds on long ones.
                    let isDue = lastMilestone.secondsPassed > 10 || tuning.options.epochs <= 20
                    guard isDue, let lastStep else { return }
                    lastMilestone = ContinuousClock.now
                    console.endProgress()
                    console.say(
                        "epoch \(epoch + 1)/\(tuning.options.epochs)  loss \(loss.fixed(4))  "
                            + "lr \(String(format: "%.2e", rate))  "
                            + "\(lastStep.imagesPerSecond.fixed(1)) img/s  \(lastStep.secondsLeft.duration) left"
                    )
                case .validation(let epoch, let validation):
                    let result = validation.result
                    console.endProgress()
                    lastScore = result.score
                    console.say(
                        "epoch \(epoch + 1)/\(tuning.options.epochs)  validation \(metric.name) "
                            + "\(metric.text(result.score))  loss \(result.loss.fixed(4))"
                            + (validation.unaveraged.map {
                                "  of the average; \(metric.text($0.score)) without"
                            } ?? "") + (validation.isBest ? "  (best so far)" : ""))
                }
            }, shouldStop: { Interrupt.wasRequested })
        console.endProgress()
        let path = directory.url.path
        let state = tuning.trainer.state
        let goOn = "go on with: \(directory.resumeCommand)"
        switch end {
        case .epochs, .patience:
            if end == .patience, let best = state.bestEpoch {
                console.say(
                    "ended after epoch \(state.epoch): no validation was better than that of epoch \(best + 1)"
                )
            }
            console.say(
                "done: \(path)/ holds the last and the best checkpoint, the adapter and metrics.jsonl")
        case .timeLimit: console.say("time is up after step \(state.step); \(goOn)")
        case .stopped: console.say("stopped after step \(state.step); \(goOn)")
        }
        var result = Result(
            run: path, finished: end.isFinished, end: end, epochs: state.epoch, steps: state.step,
            lastLoss: lastStep?.loss,
            adapterParameters: trainedCount, headParameters: model.headParameterCount,
            seconds: start.secondsPassed, imagesPerSecond: lastStep?.imagesPerSecond)
        let (last, best) = (state.lastAccuracy, state.bestAccuracy)
        switch metric {
        case .accuracy: (result.valAccuracy, result.bestValAccuracy) = (last, best)
        case .meanAveragePrecision:
            (result.valMeanAveragePrecision, result.bestValMeanAveragePrecision) = (last, best)
        case .r2: (result.valR2, result.bestValR2) = (last, best)
        }
        return result
    }

    private func line(_ progress: TrainingProgress, _ score: Double?) -> String {
        let place =
            "epoch \(progress.epoch + 1)/\(tuning.options.epochs)  step \(progress.step)/\(progress.stepCount)  "
        let validation = score.map { "val \(tuning.options.metric.text($0, decimals: 1))  " } ?? ""
        let speed = "\(progress.imagesPerSecond.fixed(1)) img/s  \(ResidentMemory.current >> 20) MiB  "
        return place + "loss \(progress.loss.fixed(4))  " + validation + speed
            + "\(progress.secondsLeft.duration) left"
    }

}
