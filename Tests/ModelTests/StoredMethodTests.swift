import Adapters
import Checkpoints
import TensorCore
import TestSupport
import Testing
import Transformers
import VisionModels

/// The methods that GLoRA is compared with, in a model whose weights and activations are stored in 16 bits, beside the same in
/// float32.
@Suite("The other methods in models stored in 16 bits")
struct StoredMethodTests {
    private static let batch = 4

    /// A step's losses and gradients, the latter divided by the loss's factor.
    private struct Step {
        let losses: [Float]
        let gradients: [String: [Float]]
    }

    private func step(
        _ variant: MethodTests.Variant, _ tiny: TinyModel, _ precision: Precision
    ) throws -> Step {
        // What 16 bits lose below 6e-8, the scale brings back.
        let scale: Float = precision == .float16 ? 256 : 1
        return try TestDevice.withOpenCL(precision) { backend in
            let model = try variant.model(tiny, on: backend)
            let plan = try model.plan(batch: StoredMethodTests.batch, isForTraining: true)
            backend.upload(plan.images, TinyModel.images(StoredMethodTests.batch))
            backend.upload(plan.labels, TinyModel.labels(StoredMethodTests.batch).map { Int32($0) })
            for (index, scales) in plan.branchScales.enumerated() {
                backend.upload(scales, (0..<StoredMethodTests.batch).map { $0 == index ? 0 : Float(4) / 3 })
            }
            model.store.clearGradients()
            model.forward(plan, PassMode(dropoutSeed: 77, dropsBranches: variant.dropsBranches))
            model.loss(plan)
            let losses = backend.values(plan.losses)
            model.backward(
                plan, PassMode(dropoutSeed: 77, dropsBranches: variant.dropsBranches),
                lossScale: scale)
            let gradients = model.store.unpack(model.store.gradients)
            let trained = model.trainedNames
            return Step(
                losses: losses,
                gradients: gradients.filter { trained.contains($0.key) }
                    .mapValues { $0.values.map { $0 / scale } })
        }
    }

    /// The bounds are `StoredModelTests.aStepIsClose`'s, for the losses and for the gradients as one vector. A single tensor,
    /// of those that are a hundredth of it or more, has fewer values to average over, and one value of ReLU's may
    /// change sides: three times as much.
    @Test(
        "A step in 16 bits is as close to float32's as rounding allows", arguments: MethodTests.Variant.all,
        [(Precision.bfloat16, 0.03), (.float16, 0.004)])
    func aStepIsClose(
        of variant: MethodTests.Variant, to: (precision: Precision, error: Double)
    ) throws {
        let tiny = try StoredMethodTests.tiny(variant)
        let (plain, found) = (try step(variant, tiny, .float32), try step(variant, tiny, to.precision))
        let limit = to.error * to.error
        expectClose(found.losses, doubles(plain.losses), "losses", limit: limit)
        let names = plain.gradients.keys.sorted()
        #expect(found.gradients.keys.sorted() == names)
        let whole = names.flatMap { plain.gradients[$0]! }
        expectClose(names.flatMap { found.gradients[$0]! }, doubles(whole), "gradients", limit: limit)
        for name in names {
            let gradient = plain.gradients[name]!
            guard length(gradient) >= 0.01 * length(whole) else { continue }
            expectClose(found.gradients[name]!, doubles(gradient), name, limit: 9 * limit)
        }
        // Not by float32 in another dress.
        #expect(found.losses != plain.losses)
    }

    private func length(_ values: [Float]) -> Double {
        values.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
    }

    /// In evaluation all blocks share memory, that of the widened tensors too.
    @Test("Evaluation gives the logits of training without noise", arguments: MethodTests.Variant.all)
    func evaluationIsTrainingWithoutNoise(
        _ variant: MethodTests.Variant
    ) throws {
        let tiny = try StoredMethodTests.tiny(variant)
        let (images, labels) = (TinyModel.images(5), TinyModel.labels(5))
        try TestDevice.withOpenCL(.bfloat16) { backend in
            let model = try variant.model(tiny, on: backend)
            let logits = try [true, false].map { isForTraining in
                let plan = try model.plan(batch: 5, isForTraining: isForTraining)
                model.step(plan, images, labels)
                return backend.values(plan.logits)
            }
            expectClose(logits[1], doubles(logits[0]), "logits", limit: 1e-12)
        }
    }

    /// Weights that a step has changed are rounded anew, whether they are prepared or not.
    @Test("A forward pass reads the weights that a step has changed")
    func aForwardReadsWhatWasTrained() throws {
        let variant = try #require(MethodTests.Variant.all.first { $0.method == .full })
        let tiny = try StoredMethodTests.tiny(variant)
        try TestDevice.withOpenCL(.bfloat16) { backend in
            let model = try variant.model(tiny, on: backend)
            let plan = try model.plan(batch: 5, isForTraining: false)
            func logits(isPrepared: Bool) throws -> [Float] {
                if isPrepared { try model.prepare() }
                defer { model.unprepare() }
                model.step(plan, TinyModel.images(5), TinyModel.labels(5))
                return backend.values(plan.logits)
            }
            let before = try logits(isPrepared: true)
            var values = model.store.unpack(model.store.values)
            for name in values.keys where name.hasSuffix("fc1.weight") || name.hasSuffix("qkv.weight") {
                values[name]!.values = values[name]!.values.map { -$0 }
            }
            model.store.pack(model.store.values, values)
            let after = [try logits(isPrepared: true), try logits(isPrepared: false)]
            expectClose(after[0], doubles(after[1]), "prepared", limit: 1e-12)
            #expect(normalisedSquaredError(after[1], doubles(before)) > 0.1)
        }
    }

    /// What SSF scales is kept for the backward as it is stored: the bytes that an image adds to a linear probe's are halved.
    @Test("What SSF scales is kept in the bytes of its precision")
    func whatIsScaledIsKeptStored() throws {
        let tiny = try TinyModel(width: 64, hiddenWidth: 128)
        let shape = tiny.checkpoint.configuration.shape
        let bytes = try [Precision.float32, .bfloat16].map { precision in
            try TestDevice.withOpenCL(precision) { backend in
                let each = try [MethodName.ssf, .linear].map { name in
                    let method = try name.method(MethodSettings(), for: shape)
                    let model = try tiny.model(method, on: backend)
                    return model.plannedByteCount(batch: 512) - model.plannedByteCount(batch: 256)
                }
                return each[0] - each[1]
            }
        }
        // The patch embedding, two LayerNorms, qkv and, of the last block the class tokens alone, proj, fc1 and fc2; but the
        // features behind the final LayerNorm are float32.
        #expect(bytes[1] > 0 && Double(bytes[1]) < 0.52 * Double(bytes[0]), "\(bytes)")
    }

    private static func tiny(_ variant: MethodTests.Variant) throws -> TinyModel {
        try TinyModel(
            pooling: variant.pooling, hasClassToken: variant.hasClassToken, width: 64, hiddenWidth: 128)
    }
}
