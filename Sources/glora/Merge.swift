import ArgumentParser
import Checkpoints
import Datasets
import Foundation
import Training
import VisionModels

struct Merge: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Fold a run into a plain checkpoint of the original's shape and speed.",
        discussion: """
            The merged model is run beside the unmerged one on the validation images,
            and the largest difference of a logit is printed; above 1e-3 nothing is
            written.

            Example:
              glora merge --run runs/a --output merged.safetensors
              glora merge --run runs/a --output merged-hf --format hf
            """)

    enum Format: String, CaseIterable, ExpressibleByArgument {
        /// A safetensors file in timm's names, or a folder with config.json when the name has no extension.
        case timm
        /// A Hugging Face folder: ViTForImageClassification, or the class that computes the same.
        case hf
    }

    @OptionGroup var source: ModelFlags
    @Option(help: "The file (timm) or folder (hf) to write.")
    var output: String
    @Option(help: "timm or hf (default: the base model's; a .safetensors file is timm's).")
    var format: Format?
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
        let url = URL(fileURLWithPath: output)
        // A single file is one merge's or the other's, whole.
        let isFile = format != .hf && url.pathExtension == "safetensors"
        let lock = isFile ? nil : try FolderLock.output(url, console)
        defer { lock?.release() }
        try device.requireFloat32()
        let ready = try source.open(device, console)
        try refuseBase(url, ready.options.model)
        let merged = try ready.merged()
        let difference = try mergeDifference(ready, merged, on: try comparedImages(ready, data, console))
        console.say(
            "merged against unmerged: logits differ by at most "
                + "\(String(format: "%.2e", difference.largest)) over \(difference.imageCount) images")
        try difference.check()
        let notes =
            switch format ?? (merged.isHuggingFace && !isFile ? .hf : .timm) {
            case .timm: try merged.saveTimm(to: url)
            case .hf: try merged.saveHuggingFace(to: url)
            }
        for note in notes { console.note(note) }
        console.say("wrote \(output)")
        try console.result(
            Result(
                output: output, maxLogitDifference: difference.largest,
                comparedImages: difference.imageCount),
            schema: "glora.merge/1")
    }

    /// Throws when `output` is the checkpoint that the run was trained on: without it the run couldn't be read again.
    private func refuseBase(_ output: URL, _ model: String) throws {
        let place = RunDirectory(output.resolvingSymlinksInPath().deletingLastPathComponent())
        if place.holdsRun,
            [place.last, place.best].map(\.lastPathComponent).contains(output.lastPathComponent)
        {
            throw ValidationError(
                "--output \(output.path) is a state of the run in \(place.url.path), which couldn't go on without it; choose "
                    + "another name")
        }
        func file(_ url: URL) -> String {
            let isFile = ["safetensors", "npz"].contains(url.pathExtension)
            return (isFile ? url : url.appendingPathComponent("model.safetensors")).resolvingSymlinksInPath()
                .path
        }
        guard file(output) != file(URL(fileURLWithPath: model)) else {
            throw ValidationError("--output \(self.output) is the run's own base model; give another name")
        }
    }

}

/// The images on which two forms of a model are compared: the validation images of `data` or of the run's own data, or the test
/// images of a task without. What their classes are doesn't matter.
func comparedImages(_ ready: ReadyModel<VisionTransformer>, _ data: String?, _ console: Console) throws
    -> ImageList
{
    let folder = data ?? ready.options.data
    guard !folder.isEmpty else {
        throw ValidationError("--data is missing: the images to compare the two forms of the model on")
    }
    let task = try TaskFolder.open(URL(fileURLWithPath: folder), for: ready.task)
    let validation = try task.validationSplit()
    let images = try validation ?? task.split(.test)
    console.say(try task.summary([DataSummary.Part(validation == nil ? .test : .validation, images)]))
    return try images.matched(to: nil, classCount: ready.model.configuration.classCount, by: .number)
}

extension TaskFolder {
    /// The validation split, or nil for a task without one. Throws `DatasetError` when it is there and broken.
    func validationSplit() throws -> ImageList? {
        splitNames.contains { Split($0) == .validation } ? try split(.validation) : nil
    }
}
