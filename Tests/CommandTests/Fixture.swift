import Checkpoints
import Datasets
import Foundation
import ModelConfiguration
import TensorCore
import Testing

/// A model and a task small enough that training takes a moment, made once for all tests of this target:
///
///     model/      a timm folder: 16-pixel images, four patches, width 16, two blocks, two heads; no head
///     task/       VTAB-1K's layout: 32 training, 12 validation and 12 test images of three classes (the dominant colour)
///     folders/    the same images as an ImageFolder
///     run/        a finished run on them
enum Fixture {
    /// The folder that holds all of it; it is gone when the tests end.
    static let shared: Result<URL, any Error> = Result {
        atexit { try? FileManager.default.removeItem(at: folder) }
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try checkpoint(seed: 1).saveTimm(to: folder.appendingPathComponent("model"))
        try writeTasks()
        try Glora.succeed(train("run", "--path", "full"), in: folder)
        return folder
    }

    /// The flags of a run of three epochs of four steps on the fixture, and more.
    static func train(_ run: String, _ more: String...) -> [String] {
        [
            "train", "--model", "model", "--data", "task", "--run", run, "--device", "cpu", "--recipe",
            "original", "--batch-size", "8",
            "--epochs", "3", "--warmup-epochs", "1", "--lr", "1e-2", "--validate-every", "1", "--ranks",
            "4,2",
        ] + more
    }

    /// Runs `body` in a folder of its own that has links to the fixture's parts and a copy of its run, which one command at a time
    /// may have; it is gone afterwards.
    @discardableResult
    static func withFolder<Outcome>(_ body: (URL) throws -> Outcome) throws -> Outcome {
        let fixture = try shared.get()
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("glora-command-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        for name in ["model", "task", "folders"] {
            try FileManager.default.createSymbolicLink(
                at: folder.appendingPathComponent(name),
                withDestinationURL: fixture.appendingPathComponent(name))
        }
        try FileManager.default.copyItem(
            at: fixture.appendingPathComponent("run"), to: folder.appendingPathComponent("run"))
        return try body(folder)
    }

    /// Puts a copy of the fixture's `name` in place of the link to it, for a test that changes it.
    static func own(_ name: String, in folder: URL) throws {
        let link = folder.appendingPathComponent(name)
        try FileManager.default.removeItem(at: link)
        try FileManager.default.copyItem(at: try shared.get().appendingPathComponent(name), to: link)
    }

    /// A data set as NOAH lays it out, with the fixture's images: draws of one and two images of a class, seeds 0 to 2.
    static func writeAnnotated(
        _ name: String, images place: String, test: Bool = true, in folder: URL
    ) throws {
        func lines(_ split: String) throws -> [Substring] {
            let all = String(decoding: try folder.bytes("task/\(split).txt"), as: UTF8.self)
                .split(separator: "\n")
            for line in all {
                let path = line[..<line.lastIndex(of: " ")!]
                try folder.write("\(name)/\(place)\(path)", try folder.bytes("task/\(path)"))
            }
            return all
        }
        let training = try lines("train800")
        for shots in [1, 2] {
            for seed in 0..<3 {
                // Three classes in turn.
                let draw = training.dropFirst(6 * seed).prefix(3 * shots).joined(separator: "\n")
                try folder.write(
                    "\(name)/annotations/train_meta.list.num_shot_\(shots).seed_\(seed)", draw + "\n")
            }
        }
        try folder.write(
            "\(name)/annotations/val_meta.list", try lines("val200").joined(separator: "\n"))
        if test {
            try folder.write(
                "\(name)/annotations/test_meta.list", try lines("test").joined(separator: "\n"))
        }
    }

    /// Weights as large as a trained model's, without a head.
    static func checkpoint(seed: Int, width: Int = 16) throws -> ViTCheckpoint {
        var configuration = ViTConfiguration(
            imageSize: 16, patchSize: 8, width: width, depth: 2, heads: 2, hiddenWidth: 32, classCount: 0)
        configuration.preprocessing.mean = [0.5, 0.5, 0.5]
        configuration.preprocessing.std = [0.5, 0.5, 0.5]
        var random = Random(seed, "fixture weights")
        let tensors = configuration.tensorShapes.sorted { $0.key < $1.key }.map { name, shape in
            let isScale = name.contains("norm") && name.hasSuffix("weight")
            let values = (0..<shape.reduce(1, *)).map { _ -> Float in
                if name.hasSuffix("bias") { return 0 }
                return isScale ? 1 : Float(0.25 * random.normal())
            }
            return (name, HostTensor(shape: shape, values: values))
        }
        return try ViTCheckpoint(
            configuration: configuration, tensors: Dictionary(uniqueKeysWithValues: tensors))
    }

    private static let folder = FileManager.default.temporaryDirectory
        .appendingPathComponent("glora-fixture-\(getpid())")

    private static func writeTasks() throws {
        let manager = FileManager.default
        for (list, name, count) in [("train800", "train", 32), ("val200", "val", 12), ("test", "test", 12)] {
            var lines = ""
            for index in 0..<count {
                let label = index % 3
                var random = Random(3, list, index)
                let pixels = (0..<20 * 24 * 3).map { position -> UInt8 in
                    UInt8((position % 3 == label ? 180 : 70) + random.index(below: 60))
                }
                let image = RGBImage(width: 24, height: 20, pixels: pixels)
                // A space in a path, because lists are split at the last one.
                for path in ["task/\(list)/an image \(index).png", "folders/\(name)/c\(label)/\(index).png"] {
                    let url = folder.appendingPathComponent(path)
                    try manager.createDirectory(
                        at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
                    try image.writePNG(to: url.path)
                }
                lines += "\(list)/an image \(index).png \(label)\n"
            }
            try Data(lines.utf8).write(to: folder.appendingPathComponent("task/\(list).txt"))
        }
    }
}

extension URL {
    /// The bytes of a file below.
    func bytes(_ path: String) throws -> Data { try Data(contentsOf: appendingPathComponent(path)) }

    /// The objects of a file with one a line.
    func lines(_ path: String) throws -> [JSONValue] {
        try String(decoding: bytes(path), as: UTF8.self).split(separator: "\n").map {
            try JSONValue(parsing: $0.utf8)
        }
    }

    func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: appendingPathComponent(path).path)
    }

    /// Writes a file below, with the folders on its way.
    func write(_ path: String, _ bytes: Data) throws {
        let url = appendingPathComponent(path)
        try FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try bytes.write(to: url)
    }

    func write(_ path: String, _ text: String) throws { try write(path, Data(text.utf8)) }
}

extension JSONValue {
    /// The members of an object.
    func keys() throws -> Set<String> { Set(try #require(objectValue).keys) }

    /// A member that is a number.
    func number(_ key: String) throws -> Double { try #require(self[key]?.numberValue, "\(key)") }
}
