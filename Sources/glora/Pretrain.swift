import Adapters
import ArgumentParser
import Checkpoints
import Datasets
import Foundation
import GeneratedTasks
import ModelConfiguration
import Training
import VisionModels

struct Pretrain: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Train a small ViT from scratch on images that the program draws itself.",
        discussion: """
            The defaults make the model that glora demo fine-tunes. The result is
            float16 safetensors in timm's names.

            Example:
              glora pretrain --device cpu --output vit-shapes.safetensors
            """)

    @Option(help: "The safetensors file to write.")
    var output: String
    @Option(help: "Width of a token.")
    var width = 96
    @Option(help: "Blocks.")
    var depth = 5
    @Option(help: "Attention heads.")
    var heads = 4
    @Option(help: "Hidden width of the MLP.")
    var hiddenWidth = 384
    @Option(help: "Patch size in pixels.")
    var patchSize = 8
    @Option(help: "Generated training images; each is drawn once per epoch.")
    var images = 40_000
    @OptionGroup var training: Flags
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    struct Flags: SettingFlags {
        static var defaults: TrainingOptions {
            var options = TrainingOptions()
            (options.path, options.dropPath, options.validateEvery) = ("none", 0, 1)
            (options.epochs, options.batchSize, options.seed) = (13, 128, 1)
            (options.learningRate, options.weightDecay) = (2e-3, 0.05)
            return options
        }

        static var settings: [any AnySetting] {
            let own = defaults
            return [own.$epochs, own.$batchSize, own.$learningRate, own.$weightDecay, own.$seed]
        }

        static func origin(of setting: any AnySetting) -> String? { setting.text }

        var given: [String: any SettingValue] = [:]
    }

    /// Of everything that is counted, more than anybody would wait for.
    private static let largestSize = 1_000_000

    struct Result: Encodable {
        let output: String
        let bytes: Int
        let valAccuracy: Double
        let seconds: Double
    }

    func run() throws {
        let console = common.console
        for (flag, number) in [
            ("--heads", heads), ("--patch-size", patchSize), ("--images", images), ("--width", width),
            ("--depth", depth), ("--hidden-width", hiddenWidth),
        ] where !(1...Pretrain.largestSize).contains(number) {
            throw ValidationError("\(flag) must be from 1 to \(Pretrain.largestSize), not \(number)")
        }
        var options = Flags.defaults
        options.take(training.given)
        // The scheduler's first two epochs run at the warm-up rate; the original's 1e-6 would waste them.
        (options.warmupEpochs, options.warmupLearningRate) = (1, options.learningRate / 4)
        do { try options.validate() } catch { throw ValidationError(error) }
        guard width % heads == 0, 32 % patchSize == 0 else {
            throw ValidationError("--heads must divide --width, and --patch-size 32")
        }
        let url = URL(fileURLWithPath: output)
        // Better said now than when the training is done.
        guard FileManager.default.isWritableFile(atPath: url.deletingLastPathComponent().path) else {
            throw ValidationError(
                "--output \(output) can't be written; make its folder or check the permissions")
        }
        try device.requireFloat32()
        let backend = try device.backend(console)
        var architecture = ViTConfiguration(
            imageSize: 32, patchSize: patchSize, width: width, depth: depth, heads: heads,
            hiddenWidth: hiddenWidth, classCount: 0)
        (architecture.preprocessing.mean, architecture.preprocessing.std) = Preprocessing.inception
        try architecture.check(source: "--width, --depth and the like")
        // Of a weight its gradient and both moments on the device, and its first value here.
        let needed = architecture.tensorShapes.values.reduce(0) { $0 + 5 * 4 * $1.reduce(1, *) }
        guard needed <= backend.memoryByteCount else {
            throw TrainingError.settings(
                "training a model of these sizes takes at least \(needed >> 20) MiB, \(backend.name) has "
                    + "\(backend.memoryByteCount >> 20) MiB; give a smaller --width, --hidden-width or --depth"
            )
        }
        let training = GeneratedTask.source.source(split: .train, count: images)
        let validation = GeneratedTask.source.source(split: .validation, count: 2_000)
        let start = try ViTCheckpoint.random(architecture, seed: options.seed)
        let model = try VisionTransformer(
            start, classCount: training.classCount, method: Backbone.everything, seed: options.seed,
            on: backend)
        let preprocessing = try architecture.preprocessor
        let trainer = try Trainer(
            model, options,
            training: PreparedImages(training, preprocessing),
            validation: PreparedImages(validation, preprocessing))
        console.say("parameters: \(model.store.segments.reduce(0) { $0 + $1.count }.grouped)")
        let began = ContinuousClock.now
        var accuracy = 0.0
        Interrupt.install()
        let end = try trainer.run(
            onEvent: { event in
                switch event {
                case .step(let progress):
                    console.progress(
                        "step \(progress.step)/\(progress.stepCount)  loss \(progress.loss.fixed(4))  "
                            + "\(progress.imagesPerSecond.fixed(0)) img/s  \(progress.secondsLeft.duration) left"
                    )
                case .epoch(let epoch, let loss, _):
                    console.endProgress()
                    console.say("epoch \(epoch + 1)/\(options.epochs)  loss \(loss.fixed(4))")
                case .validation(_, let validation):
                    accuracy = validation.result.accuracy
                    console.say("  validation accuracy \((100 * accuracy).fixed(2)) %")
                }
            }, save: { _ in }, shouldStop: { Interrupt.wasRequested })
        guard end.isFinished else {
            throw TrainingError.run("stopped before the end; nothing was written")
        }
        try model.merged().saveTimm(to: url, float16: true)
        let bytes = (try? FileManager.default.attributesOfItem(atPath: url.path)[.size] as? Int) ?? 0
        console.say("wrote \(output), \(bytes.grouped) bytes, in \(began.secondsPassed.duration)")
        try console.result(
            Result(
                output: output, bytes: bytes, valAccuracy: accuracy, seconds: began.secondsPassed),
            schema: "glora.pretrain/1")
    }
}
