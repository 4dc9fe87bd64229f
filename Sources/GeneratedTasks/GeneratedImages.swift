import Datasets
import Foundation
import TensorCore

/// The disjoint parts of a generated task: each draws from random streams of its own.
public enum GeneratedSplit: String, CaseIterable, Sendable {
    case train, validation, test

    /// The number of images that VTAB-1K's layout gives to the split: 800, 200 and 1,000.
    public var vtabCount: Int {
        switch self {
        case .train: 800
        case .validation: 200
        case .test: 1000
        }
    }
}

/// Images that are drawn when they are asked for, more than 10,000 a second on one core. Labels take turns:
/// 0, 1, …, K − 1, 0, ….
public struct GeneratedImages: ImageSource {
    /// What is drawn.
    public let task: GeneratedTask
    /// From which streams.
    public let split: GeneratedSplit
    /// The number of images; those of a smaller count are the first of a larger one.
    public let count: Int
    /// Another seed gives other images.
    public let seed: Int

    /// The task and the split.
    public var name: String { "\(task.name), \(split.rawValue) (generated)" }
    /// The number of classes K of the task.
    public var classCount: Int { task.classNames.count }
    private var stream: String { "generated/\(task.rawValue)/\(split.rawValue)" }

    /// The images follow from task, split, seed and count, so these are what is hashed, with the drawing's version.
    public var contentHash: UInt64 {
        var random = Random(seed, "\(stream)/v\(GeneratedTask.version)", count)
        return random.next()
    }

    /// The class of an image, in 0..<K.
    public func label(at index: Int) -> Int { index % classCount }

    /// The picture, drawn anew. Traps outside 0..<count.
    public func image(at index: Int) -> RGBImage {
        precondition((0..<count).contains(index), "image \(index) of \(name), which has \(count)")
        let pixels = task.render(label: label(at: index), Random(seed, stream, index))
        return RGBImage(width: Scene.size, height: Scene.size, pixels: pixels)
    }
}

extension GeneratedTask {
    /// Raised when the same arguments give other pixels than before.
    static let version = 1

    /// `count` 32 × 32 images of a split; by default as many as VTAB-1K's layout has.
    public func source(split: GeneratedSplit, count: Int? = nil, seed: Int = 0) -> GeneratedImages {
        GeneratedImages(task: self, split: split, count: count ?? split.vtabCount, seed: seed)
    }

    /// Writes the task as a folder in VTAB-1K's layout: `images/<split>/000000.png`, the lists `train800.txt`,
    /// `val200.txt`, `train800val200.txt` and `test.txt` of lines `path label`, and `classes.txt`, a name a line.
    ///
    /// Files that are there already are replaced. Throws `DatasetError` with the path of what can't be written.
    public func writeVTABFolder(to folder: URL, seed: Int = 0) throws {
        var lists: [GeneratedSplit: String] = [:]
        for split in GeneratedSplit.allCases {
            let images = source(split: split, seed: seed)
            let directory = "images/\(split.rawValue)"
            try GeneratedTask.write(folder.appendingPathComponent(directory)) {
                try FileManager.default.createDirectory(at: $0, withIntermediateDirectories: true)
            }
            for index in 0..<images.count {
                let digits = String(index)
                let path = "\(directory)/\(String(repeating: "0", count: 6 - digits.count))\(digits).png"
                try images.image(at: index).writePNG(to: folder.appendingPathComponent(path).path)
                lists[split, default: ""] += "\(path) \(images.label(at: index))\n"
            }
        }
        // The lists come last: a folder with lists is complete.
        let train = lists[.train, default: ""]
        let validation = lists[.validation, default: ""]
        for (name, text) in [
            ("classes.txt", classNames.map { $0 + "\n" }.joined()), ("train800.txt", train),
            ("val200.txt", validation), ("train800val200.txt", train + validation),
            ("test.txt", lists[.test, default: ""]),
        ] {
            try GeneratedTask.write(folder.appendingPathComponent(name)) {
                try Data(text.utf8).write(to: $0, options: .atomic)
            }
        }
    }

    private static func write(_ url: URL, _ body: (URL) throws -> Void) throws {
        do {
            try body(url)
        } catch {
            throw DatasetError(
                "\(url.path) can't be written; check that the folder may be written to and has space.")
        }
    }
}
