import ArgumentParser
import Checkpoints
import Datasets
import Foundation
import TensorCore
import Training
import VisionModels

struct Predict: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write a model's classes of images, or its features, to a file.",
        discussion: """
            The images need no classes: --data takes folders, single images and lists. A
            line or a row is an image, in the order of --data and within a folder of the
            paths. Of labels each one's probability is written, of values the values.
            --features writes what the classifier reads, [images, width] float32,
            for retrieval and probes, and needs no head.

            Example:
              glora predict --run runs/a --data photos --output photos.csv
              glora predict --model vit --data photos --features photos.safetensors
            """)

    @OptionGroup var source: ModelFlags
    @Option(
        parsing: .upToNextOption,
        help:
            "The images: folders (with all below them), files, and .txt lists of a path a line, relative to the list."
    )
    var data: [String]
    @Option(help: "The predictions, a new .csv or .jsonl file.")
    var output: String?
    @Option(help: "How many of the likeliest classes to write of each image (default: 5).")
    var top: Int?
    @Flag(help: "Write all logits, too.")
    var logits = false
    @Option(help: "The features, a new .safetensors file.")
    var features: String?
    @Flag(help: "Write all tokens of the last layer into --features, too.")
    var tokens = false
    @Option(help: "Images at a time.")
    var batchSize = 64
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    struct Result: Encodable {
        let output: String?
        let features: String?
        let count: Int
        let classCount: Int?
        let classNames: [String]?
        let width: Int?
        let tokens: Int?
        let seconds: Double
        let imagesPerSecond: Double
    }

    mutating func validate() throws {
        try checkBatchSize(batchSize)
        guard output != nil || features != nil else {
            throw ValidationError("--output is missing: the file of predictions; or --features")
        }
        if let top, top < 1 { throw ValidationError("--top must be at least 1, not \(top)") }
        if output == nil, logits { throw ValidationError("--logits are written into --output; give it") }
        if features == nil, tokens { throw ValidationError("--tokens are written into --features; give it") }
        if let output, PredictionForm(output) == nil {
            throw ValidationError("--output \(output): end its name with .csv or .jsonl")
        }
        if let features, URL(fileURLWithPath: features).pathExtension != "safetensors" {
            throw ValidationError("--features \(features): end its name with .safetensors")
        }
        if data.isEmpty { throw ValidationError("--data is missing: folders, images or lists") }
    }

    func run() throws {
        let console = common.console
        for (flag, file) in [("--output", output), ("--features", features)] {
            if let file, FileManager.default.fileExists(atPath: file) {
                throw TrainingError.run("\(file) exists already; give another \(flag), or remove it")
            }
        }
        let images = try ImageFiles(data)
        for note in images.notes { console.note(note) }
        console.say("\(images.name): \(images.count) \(images.count == 1 ? "image" : "images")")
        let ready = try source.open(device, console, needsHead: output != nil)
        let model = ready.model
        if ready.task != .classes, top != nil {
            throw ValidationError(
                "--top is for classes, and the model says \(ready.task.rawValue), which are all written")
        }
        if ready.task == .values, logits {
            throw ValidationError(
                "--logits are of classes and labels, and the model says values; leave it out")
        }
        model.keepsTokens = tokens
        Interrupt.install()
        let size = min(batchSize, images.count)
        let plan = try model.plan(batch: size, isForTraining: false)
        let table = output.map {
            PredictionTable(
                PredictionForm($0)!, ready.task, classCount: model.configuration.classCount,
                names: ready.classNames, top: top ?? 5, logits: logits)
        }
        // A single pass: what is kept of an image would never be read again.
        let prepared = PreparedImages(images, try model.configuration.preprocessor, cacheByteLimit: 0)
        let began = ContinuousClock.now
        do {
            try writingRows(table) { writeRows in
                try writingFeatures(model, of: images, plan) { writeFeatures in
                    var done = 0
                    try forEachBatch(model, on: prepared, batchSize: size) { outputs, batch, plan in
                        if Interrupt.wasRequested { throw ExitCode.stopped }
                        try writeRows(outputs, batch.indices.map { images.paths[$0].text })
                        try writeFeatures(plan)
                        done += batch.count
                        console.progress(done, of: images.count, since: began)
                    }
                }
            }
        } catch let stop as ExitCode {
            console.endProgress()
            console.say("stopped; nothing was written")
            throw stop
        }
        console.endProgress()
        for note in prepared.notes { console.note(note) }
        let seconds = began.secondsPassed
        let rate = Double(images.count) / seconds
        let written = [output, features].compactMap(\.self).joined(separator: " and ")
        console.say(
            "wrote \(written): \(images.count) \(images.count == 1 ? "image" : "images") in \(seconds.duration), "
                + "\(rate.fixed(1)) images a second")
        try console.result(
            Result(
                output: output, features: features, count: images.count,
                classCount: ready.hasHead ? model.configuration.classCount : nil,
                classNames: ready.classNames,
                width: features.map { _ in model.configuration.width },
                tokens: tokens ? plan.tokens?.shape[1] : nil, seconds: seconds, imagesPerSecond: rate),
            schema: "glora.predict/1")
    }

    private typealias Rows = (_ outputs: [Float], _ paths: [String]) throws -> Void

    /// `body` with what writes a batch's rows into --output, which is there when it returns; does nothing without one.
    private func writingRows(_ table: PredictionTable?, _ body: (Rows) throws -> Void) throws {
        guard let output, let table else { return try body { _, _ in } }
        try AtomicFile.write(to: URL(fileURLWithPath: output).resolvingSymlinksInPath()) { writer in
            func write(_ text: String) throws {
                try Array(text.utf8).withUnsafeBytes { try writer.write($0) }
            }
            try write(table.head)
            try body { outputs, paths in try write(table.rows(outputs, paths)) }
        }
    }

    /// `body` with what writes a batch's features into --features, which is there when it returns; does nothing without one.
    private func writingFeatures(
        _ model: VisionTransformer, of images: ImageFiles, _ plan: VisionTransformer.Plan,
        _ body: ((VisionTransformer.Plan) throws -> Void) throws -> Void
    ) throws {
        guard let features else { return try body { _ in } }
        let tokens = tokens ? plan.tokens : nil
        // Tokens go out as they come, since all may be more than memory; the features wait for their turn behind them.
        var shapes = [(name: "features", shape: [images.count, plan.features.shape[1]])]
        if let tokens { shapes.insert(("tokens", [images.count] + tokens.shape.dropFirst()), at: 0) }
        let paths = JSONValue.array(images.paths.map { .string($0.text) }).text()
        try writeSafetensors(
            shapes, to: URL(fileURLWithPath: features).resolvingSymlinksInPath(),
            metadata: ["format": "pt", "paths": paths]
        ) { write in
            var waiting: [Float] = []  // [images so far, D]
            func finite(_ tensor: Tensor, _ plan: VisionTransformer.Plan, _ what: String) throws -> [Float] {
                let values = model.backend.values(tensor)
                try model.backend.checkForFailure()
                guard values.allSatisfy(\.isFinite) else { throw model.overflow(plan, what) }
                return values
            }
            try body { plan in
                if tokens != nil, let all = plan.tokens { try write(try finite(all, plan, "the tokens")) }
                let pooled = try finite(plan.features, plan, "the features")
                if tokens == nil { try write(pooled) } else { waiting += pooled }
            }
            if tokens != nil { try write(waiting) }
        }
    }
}

extension Console {
    /// A bar of what is done, with the speed since `began` and the time that is left.
    func progress(_ done: Int, of count: Int, since began: ContinuousClock.Instant) {
        let seconds = began.secondsPassed
        let filled = 20 * done / max(count, 1)
        let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: 20 - filled)
        progress(
            "[\(bar)] \(done)/\(count)  \((Double(done) / seconds).fixed(1)) img/s  "
                + "\((seconds / Double(done) * Double(count - done)).duration) left")
    }
}
