import ArgumentParser
import Datasets
import Foundation
import Training

struct Preview: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write a sheet of training images as an augmentation changes them.",
        discussion: """
            Each row is an image: first as evaluation reads it, then as epochs of training do.
            The images of a column are a batch, in which mixup and cutmix pair them.

            Example:
              glora preview --data vtab-1k/pets --augment fewshot --output pets.png
              glora preview --data photos --augment rand-m9-mstd0.5-inc1,reprob=0.25 --output rand.png
            """)

    @Option(help: "A task's folder; its training images are shown.")
    var data: String
    @Option(
        help:
            "none, light, fewshot or timm's rand-…, and what differs: light,scale=0.35:1,mixup=0.2 and the like."
    )
    var augment: String
    @Option(help: "The side of a model's input in pixels.")
    var imageSize = 224
    @Option(help: "How many images, taken evenly from all.")
    var count = 8
    @Option(help: "How many epochs of each.")
    var views = 7
    @Option(help: "What the augmentation is drawn by.")
    var seed = 0
    @Option(help: "The sheet, a new .png file.")
    var output: String
    @OptionGroup var common: CommonFlags

    struct Result: Encodable {
        let output: String
        let augmentation: String
        let images: Int
        let views: Int
    }

    mutating func validate() throws {
        guard (1...64).contains(count) else { throw ValidationError("--count must be 1 to 64, not \(count)") }
        guard (1...64).contains(views) else { throw ValidationError("--views must be 1 to 64, not \(views)") }
        guard (16...1024).contains(imageSize) else {
            throw ValidationError("--image-size must be 16 to 1024, not \(imageSize)")
        }
        if URL(fileURLWithPath: output).pathExtension != "png" {
            throw ValidationError("--output \(output): end its name with .png")
        }
    }

    func run() throws {
        let console = common.console
        guard !FileManager.default.fileExists(atPath: output) else {
            throw TrainingError.run("\(output) exists already; give another --output, or remove it")
        }
        let augmentation: Augmentation
        do { augmentation = try Augmentation(augment) } catch { throw ValidationError("--augment: \(error)") }
        let task = try TaskFolder.open(URL(fileURLWithPath: data), for: nil)
        let images = try task.split(.train)
        console.say(try task.summary([DataSummary.Part(.training, images)]))
        let shown = min(count, images.count)
        let indices = (0..<shown).map { $0 * images.count / shown }
        let prepared = PreparedImages(
            images, try Preprocessor(Preprocessing(), imageSize: imageSize), augmentation: augmentation)
        try prepared.sheet(of: indices, views: views, seed: seed).writePNG(to: output)
        console.say("\(output): \(shown) images, \(views) views of each by \(augmentation)")
        try console.result(
            Result(output: output, augmentation: "\(augmentation)", images: shown, views: views),
            schema: "glora.preview/1")
    }
}
