import Adapters
import Checkpoints
import Datasets
import Foundation
import TensorCore
import TestSupport
import Testing
import VisionModels

@testable import Training

/// Logits that are no numbers are an error that says where the forward pass lost them, never a score.
@Suite("Logits that aren't numbers are an error, never a score", .serialized)
struct OverflowTests {
    /// A model of finite weights whose second block's MLP leaves the range of float16 (65504), or that of float32.
    private func checkpoint(scale: Float) throws -> ViTCheckpoint {
        var checkpoint = try TinyTask.checkpoint()
        for name in ["blocks.1.mlp.fc1.weight", "blocks.1.mlp.fc2.weight"] {
            checkpoint.tensors[name]!.values = checkpoint.tensors[name]!.values.map { $0 * scale }
        }
        return checkpoint
    }

    private func score(_ checkpoint: ViTCheckpoint, on backend: any Backend) throws -> EvaluationResult {
        let model = try VisionTransformer(
            checkpoint, classCount: 3, method: Backbone.frozen, seed: 1, head: checkpoint.head,
            on: backend)
        let images = PreparedImages(
            TinyTask.images(5, seed: 1), try checkpoint.configuration.preprocessor)
        return try evaluate(model, on: images, batchSize: 2)
    }

    private func train(
        _ checkpoint: ViTCheckpoint, _ precision: Precision, on backend: any Backend
    ) throws -> String {
        try TinyTask.withFolder { folder in
            var options = TinyTask.options()
            options.precision = precision
            let tuning = try FineTuning(
                options, checkpoint: checkpoint, training: TinyTask.images(16, seed: 1), validation: nil,
                in: RunDirectory(folder.appendingPathComponent("run")), on: backend)
            let error = try #require(throws: TrainingError.self) {
                try tuning.run(onEvent: { _ in }, shouldStop: { false })
            }
            return "\(error)"
        }
    }

    @Test("Weights that leave float32's range are said with image and block", arguments: TestDevice.all)
    func float32(_ device: TestDevice) throws {
        try device.withBackend { backend in
            #expect(try score(checkpoint(scale: 1), on: backend).loss.isFinite)
            let error = try #require(throws: TrainingError.self) {
                try score(checkpoint(scale: 1e25), on: backend)
            }
            for word in ["image 0 of tiny", "not finite", "block 1", "float32"] {
                #expect("\(error)".contains(word), "\(error)")
            }
            let training = try train(checkpoint(scale: 1e25), .float32, on: backend)
            #expect(training.contains("step 1") && training.contains("block 1"), "\(training)")
        }
    }

    @Test("Weights that leave float16's range are said, and that bfloat16 has float32's")
    func float16() throws {
        let checkpoint = try checkpoint(scale: 1000)
        try TestDevice.withOpenCL(.bfloat16) { backend in
            let loss = try score(checkpoint, on: backend).loss
            #expect(loss.isFinite)
        }
        try TestDevice.withOpenCL(.float16) { backend in
            let error = try #require(throws: TrainingError.self) { try score(checkpoint, on: backend) }
            for word in ["image 0 of tiny", "float16 in block 1", "bfloat16"] {
                #expect("\(error)".contains(word), "\(error)")
            }
            let training = try train(checkpoint, .float16, on: backend)
            #expect(training.contains("float16 in block 1") && !training.contains("`lr`"), "\(training)")
        }
    }

    @Test("Tokens whose LayerNorm overflows are not scored as its bias", arguments: TestDevice.all)
    func layerNorm(_ device: TestDevice) throws {
        var checkpoint = try checkpoint(scale: 1)
        checkpoint.tensors["pos_embed"]!.values = checkpoint.tensors["pos_embed"]!.values.map { $0 * 1e24 }
        try device.withBackend { backend in
            let error = try #require(throws: TrainingError.self) { try score(checkpoint, on: backend) }
            #expect("\(error)".contains("not finite numbers: the forward pass stops being finite in block 0"))
        }
    }

    @Test("A loss that is no number is said although the logits are numbers")
    func loss() throws {
        let checkpoint = try checkpoint(scale: 1).withHead(
            weight: HostTensor(shape: [3, 16], repeating: 0),
            bias: HostTensor(shape: [3], values: [3e38, -3e38, 0]))
        try TestDevice.cpu.withBackend { backend in
            let error = try #require(throws: TrainingError.self) { try score(checkpoint, on: backend) }
            #expect("\(error)".contains("the loss of image 1 of tiny is not a finite number"), "\(error)")
        }
    }

    @Test("The embedding and the head are named where they are the first")
    func places() throws {
        try TestDevice.cpu.withBackend { backend in
            for (name, place) in [("patch_embed.proj.weight", "embedding"), ("norm.weight", "head")] {
                var checkpoint = try checkpoint(scale: 1)
                checkpoint.tensors[name]!.values = checkpoint.tensors[name]!.values.map { $0 * 3e38 }
                let error = try #require(throws: TrainingError.self) { try score(checkpoint, on: backend) }
                #expect("\(error)".contains("in the \(place)"), "\(error)")
            }
        }
    }
}
