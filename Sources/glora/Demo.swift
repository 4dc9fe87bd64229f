import ArgumentParser
import CEmbedded
import Checkpoints
import Datasets
import Foundation
import GeneratedTasks
import TensorCore
import Training
import VisionModels

struct Demo: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The whole job on a built-in model and three generated tasks, in a few minutes.",
        discussion: """
            Draws three tasks of 800 training, 200 validation and 1,000 test images,
            fine-tunes the built-in ViT on each with a linear probe (the best of three
            learning rates by validation) and with GLoRA's full path, tests both once,
            and merges. Everything is kept in the output folder.

            Example:
              glora demo --output glora-demo
              glora demo --output glora-demo-2 --epochs 2
            """)

    @Option(help: "The folder to write.")
    var output = "glora-demo"
    @Option(help: "Passes over each task's training images; with fewer than 20 less is learned.")
    var epochs = 20
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    struct Row: Encodable {
        let task: String
        let probe: Double
        let glora: Double
        let probeLearningRate: Double
        let adapterParameters: Int
        let maxLogitDifference: Double
        let seconds: Double
    }

    struct Result: Encodable {
        let output: String
        let rows: [Row]
        let seconds: Double
    }

    func validate() throws {
        guard (1...TrainingOptions.largestEpochCount).contains(epochs) else {
            throw ValidationError(
                "--epochs must be from 1 to \(TrainingOptions.largestEpochCount), not \(epochs)")
        }
    }

    private static let probeLearningRates = [3e-2, 1e-1, 3e-1]
    private static let gloraLearningRate = 5e-3

    func run() throws {
        let console = common.console
        let folder = URL(fileURLWithPath: output)
        if FileManager.default.fileExists(atPath: folder.path) {
            throw TrainingError.run("\(output) exists already; give another --output, or remove it")
        }
        let lock = try FolderLock.output(folder, console)
        defer { lock.release() }
        try device.requireFloat32()
        let backend = try device.backend(console)
        Interrupt.install()
        let began = ContinuousClock.now
        let modelURL = folder.appendingPathComponent("model.safetensors")
        try AtomicFile.write(try Demo.builtInModel(), to: modelURL)
        console.say("wrote \(output)/model.safetensors: the built-in ViT, pretrained on generated shapes")
        var rows: [Row] = []
        for task in [GeneratedTask.counting, .orientation, .shiftedStyle] {
            rows.append(try run(task, modelURL, folder, backend, console))
        }
        console.say("")
        console.say("test accuracy    linear probe    GLoRA   (1,000 images each)")
        for row in rows {
            console.say(
                row.task.padded(to: 17) + "\((100 * row.probe).fixed(1)) %".padded(to: 16)
                    + "\((100 * row.glora).fixed(1)) %")
        }
        console.say("")
        console.say(
            "\(output)/ holds the model, the tasks as images and lists, each run's checkpoints and adapter, and "
                + "each task's merged model; \(began.secondsPassed.duration) in all")
        try console.result(
            Result(output: output, rows: rows, seconds: began.secondsPassed), schema: "glora.demo/1")
    }

    /// Probe, GLoRA, test, merge: one task.
    private func run(
        _ task: GeneratedTask, _ modelURL: URL, _ folder: URL, _ backend: any Backend, _ console: Console
    ) throws -> Row {
        let began = ContinuousClock.now
        let taskURL = folder.appendingPathComponent(task.name)
        try task.writeVTABFolder(to: taskURL)
        let data = try TaskFolder.open(taskURL)
        let splits = (train: try data.split(.train), validation: try data.split(.validation))
        console.say("")
        console.say("\(task.name): \(data.classCount) classes, images in \(output)/\(task.name)/")

        func train(_ name: String, _ path: String, _ rate: Double) throws -> (
            RunDirectory, FineTuning<VisionTransformer>
        ) {
            var options = TrainingOptions()
            options.model = modelURL.path
            options.data = taskURL.path
            options.path = path
            options.learningRate = rate
            options.epochs = epochs
            options.warmupEpochs = epochs / 10
            options.dropPath = 0
            options.validateEvery = 5
            let directory = RunDirectory(folder.appendingPathComponent("runs/\(task.name)-\(name)"))
            options.keepVTABProtocol()
            let tuning = try FineTuning(
                options, checkpoint: try options.loadCheckpoint(), training: splits.train,
                validation: splits.validation, in: directory, on: backend,
                continuation: directory.continuation)
            let end = try tuning.run(
                onEvent: { event in
                    if case .step(let progress) = event {
                        console.progress(
                            "  \(name): epoch \(progress.epoch + 1)/\(options.epochs)  loss "
                                + "\(progress.loss.fixed(3))  \(progress.imagesPerSecond.fixed(0)) img/s")
                    }
                }, shouldStop: { Interrupt.wasRequested })
            console.endProgress()
            guard end.isFinished else {
                throw TrainingError.run("the demo was stopped; \(output) is incomplete")
            }
            console.say(
                "  \(name), lr \(rate): validation \((100 * (tuning.trainer.state.bestAccuracy ?? 0)).fixed(1)) %"
            )
            return (directory, tuning)
        }

        let probes = try Demo.probeLearningRates.map { rate in
            (rate, try train("probe-lr\(rate)", "none", rate))
        }
        let probe = probes.max {
            ($0.1.1.trainer.state.bestAccuracy ?? 0) < ($1.1.1.trainer.state.bestAccuracy ?? 0)
        }!
        let (directory, glora) = try train("glora", "full", Demo.gloraLearningRate)

        // The test split is read here for the first time, once for each of the two that validation chose.
        func test(_ directory: RunDirectory) throws -> (ReadyModel<VisionTransformer>, EvaluationResult) {
            let ready = try ReadyModel(run: directory, state: .best, on: backend)
            let prepared = try ready.prepare(try data.split(.test))
            return (ready, try evaluate(ready.model, on: prepared, batchSize: 64))
        }
        let (_, probeScore) = try test(probe.1.0)
        let (ready, gloraScore) = try test(directory)
        let merged = try ready.merged()
        let difference = try mergeDifference(ready, merged, on: splits.validation)
        try difference.check()
        let mergedURL = folder.appendingPathComponent("\(task.name)-merged.safetensors")
        try merged.saveTimm(to: mergedURL)
        console.say(
            "  test: probe \((100 * probeScore.accuracy).fixed(1)) %, GLoRA \((100 * gloraScore.accuracy).fixed(1)) %; "
                + "merged into \(output)/\(mergedURL.lastPathComponent) (logits within "
                + "\(String(format: "%.1e", difference.largest)))")
        return Row(
            task: task.name, probe: probeScore.accuracy, glora: gloraScore.accuracy,
            probeLearningRate: probe.0,
            adapterParameters: glora.model.parameterCount,
            maxLogitDifference: difference.largest, seconds: began.secondsPassed)
    }

    /// The bytes of the built-in model, float16 safetensors made by `glora pretrain`.
    static func builtInModel() throws -> Data {
        for index in 0..<embeddedFileCount() {
            let file = embeddedFile(index)
            if String(cString: file.name) == "Model/vit-shapes.safetensors" {
                return Data(bytes: file.bytes, count: file.byteCount)
            }
        }
        throw TrainingError.run("this build of glora has no built-in model")
    }
}
