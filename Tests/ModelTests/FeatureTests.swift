import Adapters
import TensorCore
import TestSupport
import Testing
import VisionModels

/// What of a model can be read before its logits.
@Suite("The features and the tokens of a model against its definition in double precision")
struct FeatureTests {
    @Test(
        "Features and tokens are the reference's, and logits don't depend on who reads them",
        arguments: VisionTransformerTests.Variant.allCases.filter {
            ![.dropPath, .scaledDropPath].contains($0)
        })
    func features(variant: VisionTransformerTests.Variant) throws {
        let tiny = try variant.make()
        let images = TinyModel.images(3)
        let expected = tiny.reference.outputs(doubles(images), batch: 3)
        let isClassToken = tiny.checkpoint.configuration.pooling == .classToken
        for device in TestDevice.all {
            try device.withBackend { backend in
                let model = try tiny.model(Backbone.frozen, on: backend)
                for keepsTokens in [false, true, false] {
                    model.keepsTokens = keepsTokens
                    let plan = try model.plan(batch: 3, isForTraining: false)
                    for tensor in [plan.features, plan.tokens].compactMap(\.self) {
                        backend.fill(tensor, .nan)
                    }
                    model.step(plan, images, [0, 1, 2])
                    expectClose(backend.values(plan.logits), expected.logits, "logits on \(device)")
                    expectClose(backend.values(plan.features), expected.features, "features on \(device)")
                    // A class token that goes on alone has no others beside it.
                    #expect((plan.tokens == nil) == (isClassToken && !keepsTokens))
                    guard let tokens = plan.tokens else { continue }
                    let configuration = tiny.checkpoint.configuration
                    #expect(tokens.shape == [3, configuration.tokenCount, configuration.width])
                    expectClose(backend.values(tokens), expected.tokens, "tokens on \(device)")
                }
            }
        }
    }

    @Test("A model that keeps its tokens is trained by the same gradients")
    func gradients() throws {
        let tiny = try TinyModel()
        let (images, labels) = (TinyModel.images(2), TinyModel.labels(2))
        let expected = tiny.reference.gradients(doubles(images), labels: labels, scales: nil)
        for device in TestDevice.all {
            try device.withBackend { backend in
                let model = try tiny.model(Backbone.everything, on: backend)
                model.keepsTokens = true
                let plan = try model.plan(batch: 2, isForTraining: true)
                model.store.clearGradients()
                model.step(plan, images, labels, paths: model.layers.uniformPath(.none))
                for (name, gradient) in model.store.unpack(model.store.gradients) {
                    expectClose(gradient.values, expected[name]!, "gradient of \(name) on \(device)")
                }
            }
        }
    }
}
