import ArgumentParser
import Checkpoints
import Datasets
import Foundation
import TensorCore
import Training
import VisionModels

struct FindRate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "find-lr",
        abstract: "Find a learning rate: a short training whose rate grows at every step.",
        discussion: """
            Takes the flags of `train`, which decide what the rate is for. Nothing is kept
            but the curve: OUTPUT/lr.json and OUTPUT/index.html. The suggestion is a rate in
            the first half of the longest stretch of falling losses; the best one for long
            trainings is often somewhat lower.

            Example:
              glora find-lr --model vit --data task --output lr
            """)

    @OptionGroup var training: TrainingFlags
    @Option(help: "The first step's rate.")
    var from = 1e-6
    @Option(help: "The last step's rate.")
    var to = 1.0
    @Option(help: "Steps; the test ends earlier where the loss has grown fourfold.")
    var steps = 100
    @Option(help: "The folder that the curve is written into.")
    var output: String
    @OptionGroup var checks: ImageCheckFlags
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    struct Result: Encodable {
        let output: String
        let finished: Bool
        let diverged: Bool
        let suggestion: Double?
        let points: [RangeTest.Point]
        let seconds: Double
    }

    mutating func validate() throws {
        guard from > 0, to > from, to.isFinite else {
            throw ValidationError("--from must be above 0 and below --to, not \(from.short) and \(to.short)")
        }
        guard (10...100_000).contains(steps) else {
            throw ValidationError("--steps must be from 10 to 100000, not \(steps)")
        }
        let meaningless = ["lr", "schedule", "warmup-epochs", "warmup-steps", "epochs", "ema", "patience"]
        if let flag = meaningless.first(where: { training.given[$0] != nil }) {
            throw ValidationError(
                "--\(flag) means nothing here, where the rate grows at every step; leave it out")
        }
    }

    func run() throws {
        let console = common.console
        var given = training.given
        given["precision"] = device.precision
        let start = try TrainingStart(
            TrainingOptions(given: given, recipe: .standard), device, checks, console)
        let (options, checkpoint) = (start.options, start.base.checkpoint)
        let folder = URL(fileURLWithPath: output)
        Interrupt.install()
        let model = try VisionTransformer(
            checkpoint, classCount: start.training.classCount,
            method: try options.tuningMethod(checkpoint.configuration.shape), seed: options.seed,
            headKind: options.head, memory: options.memory, on: start.base.backend)
        try model.checkMemory(batch: min(options.batchSize, start.training.count))
        let preprocessing = try options.preprocessing(of: checkpoint.configuration)
        let images = PreparedImages(
            start.training,
            try Preprocessor(preprocessing, imageSize: checkpoint.configuration.imageSize),
            augmentation: try options.additions.augmentation)
        let trainer = try Trainer(model, options, training: images, validation: nil)
        try checks.check(trainer.splits, console)
        let begin = ContinuousClock.now
        let test = try trainer.rangeTest(
            from: from, to: to, steps: steps,
            onStep: { test in
                guard let last = test.points.last else { return }
                console.progress(
                    "step \(test.points.count)/\(steps)  lr \(String(format: "%.2e", last.rate))  loss "
                        + last.smoothed.fixed(4))
            }, shouldStop: { Interrupt.wasRequested })
        console.endProgress()
        let finished = test.diverged || test.points.count == steps
        let result = Result(
            output: output, finished: finished, diverged: test.diverged, suggestion: test.suggestion,
            points: test.points, seconds: begin.secondsPassed)
        try write(result, to: folder)
        if test.diverged, let last = test.points.last {
            console.say("the loss grew too large at a rate of \(String(format: "%.1e", last.rate))")
        }
        console.say(
            test.suggestion.map { "suggested: --lr \(String(format: "%.1e", $0))" }
                ?? "no suggestion: the loss never fell; try more --steps, or another --from and --to")
        console.say("the curve is in \(folder.path)/index.html")
        try console.result(result, schema: "glora.find-lr/1")
        if !finished { throw ExitCode.stopped }
    }

    private func write(_ result: Result, to folder: URL) throws {
        try AtomicFile.createFolder(folder)
        try AtomicFile.write(
            try AtomicFile.json(result, indented: true), to: folder.appendingPathComponent("lr.json"))
        func series(_ name: String, _ value: (RangeTest.Point) -> Double, isDots: Bool = false) -> Page.Series
        {
            Page.Series(
                name: name, points: result.points.map { (log10($0.rate), value($0)) }, isDots: isDots)
        }
        let chart = Page.chart(
            [series("smoothed", \.smoothed), series("each step", \.loss, isDots: true)],
            x: "log10 of the learning rate", y: "training loss")
        let words =
            result.suggestion.map { "Suggested: \(String(format: "%.1e", $0))." }
            ?? "The loss never fell: no suggestion."
        try AtomicFile.write(
            Page.html(
                title: "Learning-rate range test",
                [Page.section("Loss over rate", chart + "<p>\(Page.escape(words))</p>")]),
            to: folder.appendingPathComponent("index.html"))
    }
}
