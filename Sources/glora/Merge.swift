import ArgumentParser
import Checkpoints
import Datasets
import Foundation
import TensorCore
import Training
import VisionModels

struct Merge: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Fold a run into a plain checkpoint of the original's shape and speed.",
        discussion: """
            The merged model is run beside the unmerged one on the validation images, and the largest difference of a
            logit is printed; above 1e-3 nothing is written.

            Example:
              glora merge --run runs/a --output merged.safetensors
              glora merge --run runs/a --output merged-hf --format hf
            """)

    enum Format: String, CaseIterable, ExpressibleByArgument {
        /// A safetensors file in timm's names, or a folder with config.json when the name has no extension.
        case timm
        /// A Hugging Face folder: ViTForImageClassification.
        case hf
    }

    @OptionGroup var source: ModelFlags
    @Option(help: "The file (timm) or folder (hf) to write.")
    var output: String
    @Option(help: "timm or hf.")
    var format = Format.timm
    @Option(help: "The data set whose validation images are compared (default: the run's own).")
    var data: String?
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    struct Result: Encodable {
        let output: String
        let maxLogitDifference: Double
        let comparedImages: Int
    }

    func run() throws {
        let console = common.console
        let ready = try source.open(device, console)
        let merged = try ready.model.merged(paths: ready.paths)
        let difference = try largestDifference(ready, merged)
        console.say(
            "merged against unmerged: logits differ by at most "
                + "\(String(format: "%.2e", difference.value)) over \(difference.count) images")
        guard difference.value <= 1e-3 else {
            throw TrainingError.run(
                "the merged model's logits differ by \(difference.value), more than 1e-3; nothing was written. "
                    + "The adapter's weights are too large for float32 at this model.")
        }
        let url = URL(fileURLWithPath: output)
        switch format {
        case .timm: try merged.saveTimm(to: url)
        case .hf: try merged.saveHuggingFace(to: url)
        }
        console.say("wrote \(output)")
        try console.result(
            Result(output: output, maxLogitDifference: difference.value, comparedImages: difference.count))
    }

    /// The largest |merged − unmerged| of a logit over the validation images, or over the test images of a task without.
    /// NaN counts as infinite.
    private func largestDifference(_ ready: ReadyModel, _ merged: ViTCheckpoint) throws -> (value: Double, count: Int) {
        let folder = data ?? ready.options.data
        guard !folder.isEmpty else {
            throw ValidationError("--data is missing: the images to compare merged and unmerged on")
        }
        let task = try TaskFolder.open(URL(fileURLWithPath: folder))
        let images = try task.validationSplit() ?? task.split(.test)
        let plain = try VisionTransformer(
            merged, classCount: merged.configuration.classCount, trained: .adapters(rank: 1, sites: []),
            seed: 0, head: merged.head, on: ready.model.backend)
        let prepared = try ready.prepare(images)
        let batchSize = min(64, images.count)
        var unmerged: [Float] = []
        _ = try evaluate(ready.model, paths: ready.paths, on: prepared, batchSize: batchSize) { logits, _ in
            unmerged += logits
        }
        var all: [Float] = []
        _ = try evaluate(plain, paths: plain.uniformPath(.none), on: prepared, batchSize: batchSize) { logits, _ in
            all += logits
        }
        let largest = zip(unmerged, all).reduce(0.0) { largest, pair in
            let difference = abs(Double(pair.0) - Double(pair.1))
            return difference.isFinite ? max(largest, difference) : .infinity
        }
        return (largest, images.count)
    }
}

extension TaskFolder {
    /// The validation split, or nil for a task without one. Throws `DatasetError` when it is there and broken.
    func validationSplit() throws -> ImageList? {
        splitNames.contains { Split($0) == .validation } ? try split(.validation) : nil
    }
}
