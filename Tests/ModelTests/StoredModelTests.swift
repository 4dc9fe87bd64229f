import Adapters
import Checkpoints
import ModelConfiguration
import TensorCore
import TestSupport
import Testing
import Transformers

@testable import VisionModels

/// A model whose weights and activations are stored in 16 bits, beside the same in float32.
@Suite("Models stored in 16 bits")
struct StoredModelTests {
    /// A step's losses, and its gradients as one vector. Each of some twenty operations between the pixels and the loss
    /// rounds by u = 2⁻⁸ (bfloat16) or 2⁻¹¹ (float16) at most, at random: √20 · u / √3 is 1.0 % and 0.13 % of their norm.
    /// Three times that is allowed.
    @Test(
        "A step in 16 bits is as close to float32's as rounding allows",
        arguments: [(Precision.bfloat16, 0.03), (.float16, 0.004)],
        [ViTConfiguration.Pooling.classToken, .meanAfterNorm])
    func aStepIsClose(
        to: (precision: Precision, error: Double), pooling: ViTConfiguration.Pooling
    ) throws {
        let tiny = try TinyModel(pooling: pooling, width: 64) {
            $0.queryKeyNorm = pooling == .meanAfterNorm
        }
        // What 16 bits lose below 6e-8, the scale brings back.
        let scale: Float = to.precision == .float16 ? 1024 : 1
        let steps = try [Precision.float32, to.precision].map { precision in
            try TestDevice.withOpenCL(precision) { backend in
                let model = try tiny.adapted(on: backend)
                let plan = try model.plan(batch: 4, isForTraining: true)
                backend.upload(plan.images, TinyModel.images(4))
                backend.upload(plan.labels, TinyModel.labels(4).map { Int32($0) })
                model.store.clearGradients()
                model.layers.take(PlanTests.keepingPaths)
                model.forward(plan)
                model.loss(plan)
                let losses = backend.values(plan.losses)
                model.backward(plan, lossScale: scale)
                var gradients = model.store.unpack(model.store.gradients)
                for name in gradients.keys {
                    gradients[name]!.values = gradients[name]!.values.map { $0 / scale }
                }
                return (losses: losses, gradients: gradients)
            }
        }
        expectClose(
            steps[1].losses, doubles(steps[0].losses), "losses", limit: to.error * to.error)
        let names = steps[0].gradients.keys.sorted()
        let gradients = steps.map { step in names.flatMap { step.gradients[$0]!.values } }
        #expect(gradients[0].contains { $0 != 0 })
        expectClose(gradients[1], doubles(gradients[0]), "gradients", limit: to.error * to.error)
        // Not by float32 in another dress.
        #expect(steps[1].losses != steps[0].losses)
    }

    /// Of a step's memory, all but the residual stream is halved.
    @Test(
        "Storing in 16 bits halves all of a step's memory but the residual stream",
        arguments: MemoryPolicy.allCases.filter { $0 != .lowest }) func memoryIsSaved(policy: MemoryPolicy)
        throws
    {
        let model = try PlanTests.zeros("vit_tiny_patch16_224", memory: policy)
        let counts = [ElementType.float32, .bfloat16].map {
            model.planByteCount(batch: 8, isForTraining: true, stored: $0)
        }
        #expect(Double(counts[1]) < 0.65 * Double(counts[0]), "\(counts)")
    }
}
