import Checkpoints
import Datasets
import Foundation
import ModelConfiguration
import TensorCore
import TestSupport
import Training

/// A run small enough to train in a test: 16-pixel images in two patches a side, width 16, two blocks.
enum TinyTask {
    static func checkpoint(seed: Int = 1) throws -> ViTCheckpoint {
        var tensors = try ViTCheckpoint.random(
            ViTConfiguration(
                imageSize: 16, patchSize: 8, width: 16, depth: 2, heads: 2, hiddenWidth: 32, classCount: 0),
            seed: seed)
        // A trained model's weights are larger than a fresh one's 0.02; so are these, or nothing could be learned in a test.
        for (name, tensor) in tensors.tensors where name.hasSuffix("weight") && !name.contains("norm") {
            tensors.tensors[name] = HostTensor(shape: tensor.shape, values: tensor.values.map { $0 * 12 })
        }
        return tensors
    }

    /// Images of one colour plus noise; the class is the colour.
    static func images(_ count: Int, seed: Int, classes: Int = 3) -> InMemoryImages {
        let labels = (0..<count).map { $0 % classes }
        let images = labels.enumerated().map { index, label in
            var random = Random(seed, "tiny images", index)
            let pixels = (0..<16 * 16 * 3).map { position -> UInt8 in
                let base = position % 3 == label % 3 ? 180 : 70
                return UInt8(base + random.index(below: 60))
            }
            return RGBImage(width: 16, height: 16, pixels: pixels)
        }
        return InMemoryImages(name: "tiny", images: images, labels: labels, classCount: classes)
    }

    static func options(epochs: Int = 3) -> TrainingOptions {
        var options = TrainingOptions()
        options.model = "tiny"
        options.data = "tiny"
        options.epochs = epochs
        options.warmupEpochs = 1
        options.batchSize = 8
        options.learningRate = 1e-2
        options.ranks = [4, 2]
        options.validateEvery = 1
        return options
    }

    /// A folder that is gone when the closure ends.
    static func withFolder<Result>(_ body: (URL) throws -> Result) throws -> Result {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("glora-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        return try body(folder)
    }

    /// A device's backend and a folder that is gone when the closure ends.
    static func withRun(on device: TestDevice, _ body: (any Backend, URL) throws -> Void) throws {
        try device.withBackend { backend in try withFolder { try body(backend, $0) } }
    }
}

extension TestDevice {
    /// For what doesn't depend on the device.
    static let cpu = TestDevice(description: "cpu")
}
