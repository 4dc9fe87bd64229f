import Adapters
import Checkpoints
import ModelConfiguration
import TensorCore
import TestSupport
import Testing
import Transformers
import VisionModels

/// The model's forward and hand-written backward against the definition in double precision, and against itself where two
/// ways must give the same.
@Suite("The model against its definition in double precision")
struct VisionTransformerTests {
    /// What the head reads, with and without a class token and a bias of q, k and v.
    enum Variant: CaseIterable, Sendable {
        case classToken, meanAfterNorm, meanBeforeNorm, noClassToken, noQKVBias, dropPath
        /// DINOv2 with registers and DeiT's distillation token; CLIP; SigLIP with a mean; Hugging Face's heads; drop-path with layer scale.
        case layerScale, registers, distillation, clip, tanh, classTokenAndMean, mean, scaledDropPath
        /// DINOv3; EVA-02 with one class token read, small with a packed gate; SigLIP's pooling, with a register that it leaves out; RMSNorm.
        case dinov3, eva02, packedGate, attentionPooling, rms
        /// Norms of queries and keys: of what is fused, the class token alone going on; of rotated ones; of Linears apart, RMS.
        case queryKeyNorm, rotatedQueryKeyNorm, separateQueryKeyNorm

        func make() throws -> TinyModel {
            switch self {
            case .classToken, .dropPath: try TinyModel()
            case .meanAfterNorm: try TinyModel(pooling: .meanAfterNorm)
            case .meanBeforeNorm: try TinyModel(pooling: .meanBeforeNorm)
            case .noClassToken: try TinyModel(pooling: .meanBeforeNorm, hasClassToken: false)
            case .noQKVBias: try TinyModel(qkvBias: false)
            case .layerScale, .scaledDropPath: try TinyModel { $0.layerScale = true }
            case .registers:
                try TinyModel(pooling: .meanAfterNorm) {
                    ($0.layerScale, $0.registers, $0.positions) = (true, 3, .patches)
                }
            case .distillation: try TinyModel(pooling: .classTokenAndSecond) { $0.registers = 1 }
            case .clip:
                try TinyModel {
                    ($0.normBeforeBlocks, $0.patchBias, $0.feedForward) = (true, false, .plain(.quickGELU))
                }
            case .tanh:
                try TinyModel(pooling: .meanAfterNorm, hasClassToken: false) {
                    $0.feedForward = .plain(.geluTanh)
                }
            case .classTokenAndMean: try TinyModel(pooling: .classTokenAndMean) { $0.layerScale = true }
            case .mean: try TinyModel(pooling: .mean) { $0.feedForward = .plain(.silu) }
            case .dinov3:
                try TinyModel(pooling: .meanAfterNorm, width: 16) {
                    ($0.layerScale, $0.registers, $0.positions, $0.queryBias) = (true, 2, .none, .none)
                    $0.rotary = RotaryGrid(temperature: 100, layout: .halves, coordinates: .centered)
                }
            case .eva02:
                try TinyModel(width: 16) {
                    ($0.queries, $0.queryBias, $0.attentionNorm) = (.separate, .withoutKeys, true)
                    $0.feedForward = .gated(.silu, isPacked: false, hasNorm: true)
                    $0.rotary = RotaryGrid(
                        temperature: 10000, layout: .interleaved,
                        coordinates: .index(offset: 1, reference: 3), startsWithColumn: true)
                }
            case .packedGate:
                try TinyModel(pooling: .meanBeforeNorm) {
                    $0.feedForward = .gated(.silu, isPacked: true, hasNorm: false)
                }
            case .attentionPooling:
                try TinyModel(pooling: .attention, hasClassToken: false) {
                    ($0.registers, $0.feedForward, $0.poolingHeads) = (1, .plain(.geluTanh), 3)
                }
            case .rms: try TinyModel(pooling: .classTokenBeforeNorm) { $0.norm = .rms }
            case .queryKeyNorm: try TinyModel { $0.queryKeyNorm = true }
            case .rotatedQueryKeyNorm:
                try TinyModel(pooling: .meanAfterNorm, width: 16) {
                    ($0.queryKeyNorm, $0.registers, $0.positions) = (true, 1, .none)
                    $0.rotary = RotaryGrid(temperature: 100, layout: .halves, coordinates: .centered)
                }
            case .separateQueryKeyNorm:
                try TinyModel(width: 16) {
                    ($0.queryKeyNorm, $0.queries, $0.queryBias, $0.norm) = (true, .separate, .none, .rms)
                    $0.rotary = RotaryGrid(temperature: 100, layout: .halves, coordinates: .centered)
                }
            }
        }

        /// Drop-path with p = 0.25: each image keeps a branch scaled by 1 / (1 − p), or loses it. [B = 2] for each of 4.
        var scales: [[Float]]? {
            let kept: Float = 4 / 3
            return self == .dropPath || self == .scaledDropPath
                ? [[kept, 0], [0, kept], [kept, kept], [0, kept]] : nil
        }
    }

    /// Loss and every element of every gradient in pretraining, where everything is trained.
    @Test("The loss and every gradient are the reference's in pretraining", arguments: Variant.allCases)
    func everyGradient(variant: Variant) throws {
        let tiny = try variant.make()
        let (images, labels) = (TinyModel.images(2), TinyModel.labels(2))
        let scales = variant.scales?.map { doubles($0) }
        let reference = tiny.reference
        let expected = reference.gradients(doubles(images), labels: labels, scales: scales)
        let logits = reference.logits(doubles(images), batch: 2, scales: scales)
        let loss = reference.loss(doubles(images), labels: labels, scales: scales)
        for device in TestDevice.all {
            try device.withBackend { backend in
                let model = try tiny.model(Backbone.everything, on: backend)
                let paths = model.layers.uniformPath(.none)
                let plan = try model.plan(batch: 2, isForTraining: true)
                model.store.clearGradients()
                model.step(plan, images, labels, paths: paths, scales: variant.scales)
                expectClose(backend.values(plan.logits), logits, "logits on \(device)")
                let losses = backend.values(plan.losses)
                expectClose([losses.reduce(0, +) / 2], [loss], "loss on \(device)")
                let gradients = model.store.unpack(model.store.gradients)
                #expect(Set(gradients.keys) == Set(expected.keys))
                #expect(model.trainedNames == Set(expected.keys))
                for (name, gradient) in gradients {
                    expectGradient(gradient.values, expected[name]!, "gradient of \(name) on \(device)")
                }
                // So are they to the bit where each block is computed again.
                let again = try tiny.model(Backbone.everything, memory: .lowest, on: backend)
                let plan2 = try again.plan(batch: 2, isForTraining: true)
                again.store.clearGradients()
                again.step(plan2, images, labels, paths: paths, scales: variant.scales)
                #expect(again.store.unpack(again.store.gradients) == gradients, "\(device)")
                // A second backward adds the same once more.
                model.backward(plan, PassMode(dropsBranches: variant.scales != nil))
                for (name, gradient) in model.store.unpack(model.store.gradients) {
                    expectGradient(
                        gradient.values, expected[name]!.map { 2 * $0 }, "\(name) twice on \(device)")
                }
            }
        }
    }

    /// What is added to all keys moves all scores of a query alike: where keys aren't rotated, the gradient of their norm's bias is 0,
    /// of which nothing can be a small part.
    private func expectGradient(_ found: [Float], _ expected: [Double], _ what: String) {
        guard expected.allSatisfy({ abs($0) < 1e-9 }) else { return expectClose(found, expected, what) }
        #expect(found.allSatisfy { abs($0) < 1e-6 }, "\(what): \(found)")
    }

    /// A plan for evaluation shares one block's memory among all blocks and gives the same logits.
    @Test("Evaluation gives the logits of training", arguments: TestDevice.all)
    func evaluationGivesTheLogitsOfTraining(device: TestDevice) throws {
        try device.withBackend { backend in
            let model = try TinyModel().adapted(on: backend)
            let (images, labels) = (TinyModel.images(3), TinyModel.labels(3))
            let training = try model.plan(batch: 3, isForTraining: true)
            model.step(training, images, labels, paths: TinyModel.mixedPaths)
            let (logits, losses) = (backend.values(training.logits), backend.values(training.losses))
            let evaluation = try model.plan(batch: 3, isForTraining: false)
            model.step(evaluation, images, labels, paths: TinyModel.mixedPaths)
            expectClose(backend.values(evaluation.logits), doubles(logits), "logits", limit: 1e-12)
            expectClose(backend.values(evaluation.losses), doubles(losses), "losses", limit: 1e-12)
        }
    }

    /// An image's logits don't depend on the batch around it, though the smaller plan lies over the larger one's memory. A rotation's
    /// places are in that memory, too.
    @Test(
        "A smaller batch gives a slice of the larger one's logits, and then the larger one the same again",
        arguments: TestDevice.all, [Variant.classToken, .dinov3])
    func aSmallerBatchGivesASliceOfTheLarger(device: TestDevice, variant: Variant) throws {
        try device.withBackend { backend in
            let model = try variant.make().adapted(on: backend)
            // So many that their places don't fit into what the smaller one's are padded to.
            let count = 40
            let (images, labels) = (TinyModel.images(count), TinyModel.labels(count))
            let large = try model.plan(batch: count, isForTraining: false)
            model.step(large, images, labels, paths: TinyModel.mixedPaths)
            let all = doubles(backend.values(large.logits))
            let small = try model.plan(batch: 2, isForTraining: false)
            model.step(
                small, Array(images[(count - 2) * 48..<count * 48]), Array(labels[(count - 2)..<count]),
                paths: TinyModel.mixedPaths)
            let part = Array(all[(count - 2) * TinyModel.classCount..<count * TinyModel.classCount])
            expectClose(backend.values(small.logits), part, "logits of the last two", limit: 1e-12)
            let again = try model.plan(batch: count, isForTraining: false)
            model.step(again, images, labels, paths: TinyModel.mixedPaths)
            expectClose(backend.values(again.logits), all, "logits of all again", limit: 1e-12)
        }
    }

    /// The merged checkpoint computes the same as the adapted model, in the reference and in a model without support tensors.
    @Test("The merged checkpoint computes the same as the adapted model", arguments: TestDevice.all)
    func mergedEqualsUnmerged(device: TestDevice) throws {
        try device.withBackend { backend in
            let model = try TinyModel(pooling: .meanBeforeNorm).adapted(on: backend)
            let (images, labels) = (TinyModel.images(3), TinyModel.labels(3))
            let plan = try model.plan(batch: 3, isForTraining: false)
            for paths in [
                TinyModel.mixedPaths, model.layers.uniformPath(.full(rank: 2)),
                model.layers.uniformPath(.none),
            ] {
                model.step(plan, images, labels, paths: paths)
                let logits = backend.values(plan.logits)
                let merged = try model.merged()
                #expect(merged.tensors.mapValues(\.shape) == merged.configuration.tensorShapes)
                let reference = ReferenceViT(
                    configuration: merged.configuration,
                    tensors: merged.tensors.mapValues { doubles($0.values) })
                expectClose(
                    logits, reference.logits(doubles(images), batch: 3, scales: nil), "merged in double")
                let plain = try VisionTransformer(
                    merged, classCount: TinyModel.classCount, method: Backbone.frozen, seed: 1,
                    head: merged.tensors, on: backend)
                let plainPlan = try plain.plan(batch: 3, isForTraining: false)
                plain.step(plainPlan, images, labels, paths: plain.layers.uniformPath(.none))
                expectClose(backend.values(plainPlan.logits), doubles(logits), "merged")
            }
        }
    }

    /// Every Linear of every kind of block on its richest path, folded; LoRA, too.
    @Test(
        "Newer backbones are merged into what they compute",
        arguments: [Variant.registers, .clip, .dinov3, .eva02, .packedGate, .attentionPooling, .rms])
    func newerBackbonesAreMerged(variant: Variant) throws {
        let tiny = try variant.make()
        let (images, labels) = (TinyModel.images(3), TinyModel.labels(3))
        for device in TestDevice.all {
            try device.withBackend { backend in
                let glora = try tiny.adapted(on: backend)
                glora.layers.take(glora.layers.uniformPath(.full(rank: 2)))
                var settings = MethodSettings()
                settings.targets = "qv"
                let lora = try tiny.model(
                    MethodName.lora.method(settings, for: tiny.checkpoint.configuration.shape), on: backend)
                var values = lora.store.unpack(lora.store.values)
                for (seed, name) in values.keys.sorted().enumerated() where name.contains("lora") {
                    values[name]!.values = randomValues(values[name]!.values.count, seed: seed, scale: 0.5)
                }
                lora.store.pack(lora.store.values, values)
                let frozen = tiny.reference.logits(doubles(images), batch: 3)
                for model in [glora, lora] {
                    let plan = try model.plan(batch: 3, isForTraining: false)
                    model.step(plan, images, labels)
                    let logits = backend.values(plan.logits)
                    let merged = try model.merged()
                    let reference = ReferenceViT(
                        configuration: merged.configuration,
                        tensors: merged.tensors.mapValues { doubles($0.values) })
                    expectClose(
                        logits, reference.logits(doubles(images), batch: 3), "\(variant) on \(device)")
                    let moved = zip(logits, frozen).map { abs(Double($0) - $1) }.max()!
                    #expect(moved > 1e-2, "\(variant): the method changes nothing")
                }
            }
        }
    }

    /// What a run leaves behind and what is loaded later is the same model, whatever its Linears are called.
    @Test(
        "An adapter is applied to newer backbones",
        arguments: [Variant.registers, .dinov3, .eva02, .packedGate, .rms])
    func adaptersAreApplied(variant: Variant) throws {
        let tiny = try variant.make()
        let (images, labels) = (TinyModel.images(3), TinyModel.labels(3))
        for device in TestDevice.all {
            try device.withBackend { backend in
                let glora = try tiny.adapted(on: backend)
                glora.layers.take(glora.layers.uniformPath(.full(rank: 2)))
                let plan = try glora.plan(batch: 3, isForTraining: false)
                glora.step(plan, images, labels)
                let adapter = try glora.adapter()
                #expect(adapter.layers.count == tiny.checkpoint.configuration.shape.linears.count)
                let applied = try VisionTransformer.applying(adapter, to: tiny.checkpoint, on: backend)
                let own = try applied.plan(batch: 3, isForTraining: false)
                applied.step(own, images, labels)
                #expect(backend.values(own.logits) == backend.values(plan.logits), "\(device)")
                // Features need no head.
                var headless = adapter
                headless.head = [:]
                let base = tiny.checkpoint.withoutHead()
                #expect(throws: CheckpointError.self) {
                    try VisionTransformer.applying(headless, to: base, on: backend)
                }
                let featured = try VisionTransformer.applying(
                    headless, to: base, needsHead: false, on: backend)
                #expect(featured.paths == applied.paths)
            }
        }
    }

    @Test("Methods that say nothing of a block's Linears are refused")
    func methodsThatSayNothingAreRefused() throws {
        let apart = try Variant.eva02.make().checkpoint.configuration.shape
        let packed = try Variant.packedGate.make().checkpoint.configuration.shape
        for name in [MethodName.ssf, .repadapter, .factTT, .factTK, .noah] {
            #expect(throws: MethodError.self, "\(name)") { try name.method(MethodSettings(), for: apart) }
        }
        for name in [MethodName.factTT, .factTK, .noah] {
            #expect(throws: MethodError.self, "\(name)") { try name.method(MethodSettings(), for: packed) }
        }
        for name in [MethodName.glora, .lora, .adaptformer, .adapter, .vptDeep] {
            _ = try name.method(MethodSettings(), for: apart)
        }
    }

    /// Places follow the grid, learned positions are interpolated where there are any.
    @Test("A rotated model takes images of another size", arguments: [Variant.dinov3, .eva02])
    func rotatedModelsTakeOtherSizes(variant: Variant) throws {
        var tiny = try variant.make()
        tiny.checkpoint = try tiny.checkpoint.interpolated(toImageSize: 6)
        let images = randomValues(2 * 3 * 36, seed: 5)
        for device in TestDevice.all {
            try device.withBackend { backend in
                let model = try tiny.model(Backbone.frozen, on: backend)
                let plan = try model.plan(batch: 2, isForTraining: false)
                model.step(plan, images, [0, 1])
                expectClose(
                    backend.values(plan.logits), tiny.reference.logits(doubles(images), batch: 2),
                    "\(variant) on \(device)")
            }
        }
    }

    /// A layer whose support tensors are zero computes the same off its path and on the full one; so must everything above.
    /// The backward stops at the lowest layer that is on a path: at each of the 8 Linears, and at the head.
    @Test("The backward stops where nothing is trained below", arguments: TestDevice.all)
    func theBackwardStopsWhereNothingIsTrainedBelow(device: TestDevice)
        throws
    {
        let kept: Float = 4 / 3
        let scales: [[Float]] = [[kept, 0], [0, kept], [kept, kept], [kept, 0]]
        let mark: Float = 9
        try device.withBackend { backend in
            let model = try TinyModel().adapted(on: backend)
            let random = model.store.unpack(model.store.values)
            let (images, labels) = (TinyModel.images(2), TinyModel.labels(2))
            let plan = try model.plan(batch: 2, isForTraining: true)
            for lowest in 0...model.layers.count {
                var values = random
                let frozen = model.layers[..<lowest].map { "\($0.base.name)." }
                func isFrozen(_ name: String) -> Bool { frozen.contains { name.hasPrefix($0) } }
                for name in values.keys where isFrozen(name) {
                    values[name] = HostTensor(shape: values[name]!.shape, repeating: 0)
                }
                model.store.pack(model.store.values, values)
                let full = model.layers.uniformPath(.full(rank: 2))
                model.store.clearGradients()
                model.step(plan, images, labels, paths: full, scales: scales)
                let everywhere = model.store.unpack(model.store.gradients)
                let upper = Array(repeating: GLoRAPath.none, count: lowest) + full[lowest...]
                model.layers.take(upper)
                let trained = model.trainedNames
                model.store.clearGradients()
                for segment in model.store.segments where !trained.contains(segment.name) {
                    backend.fill(model.store[segment.name]!.gradient!, mark)
                }
                model.step(plan, images, labels, paths: upper, scales: scales)
                for (name, gradient) in model.store.unpack(model.store.gradients) {
                    #expect(trained.contains(name) == !isFrozen(name))
                    if isFrozen(name) {
                        #expect(gradient.values.allSatisfy { $0 == mark }, "\(name) was written")
                    } else {
                        expectClose(
                            gradient.values, doubles(everywhere[name]!.values), "\(name) from \(lowest) on")
                    }
                }
            }
        }
    }

    /// Layers that the search space leaves out, or that have no bias, take the part of a path that they can.
    @Test("A layer takes the part of a path that it can")
    func pathsAreMadeAdmissible() throws {
        try TestDevice.all[0].withBackend { backend in
            let full = GLoRAPath.full(rank: 2)
            let some = try TinyModel().model(GLoRA(rank: 2, roles: [.fusedQKV, .up]), on: backend)
            #expect(some.layers.uniformPath(full) == [full, .none, full, .none, full, .none, full, .none])
            #expect(some.store["blocks.0.attn.proj.Ad"] == nil)
            let counts = [(6, 18), (6, 5)].map { full.parameterCount(inputs: $0.0, outputs: $0.1) }
            some.layers.take(some.layers.uniformPath(full))
            #expect(some.parameterCount == 2 * counts.reduce(0, +))
            #expect(some.headParameterCount == 21)
            let unbiased = try TinyModel(qkvBias: false).adapted(on: backend)
            let paths = unbiased.layers.uniformPath(full)
            #expect(paths[0] == GLoRAPath(a: .lowRank(2), b: .lowRank(2)) && paths[1] == full)
            unbiased.layers.take(paths)
            let merged = try unbiased.merged()
            #expect(merged.tensors["blocks.0.attn.qkv.bias"] == nil)
        }
    }

    /// Paths are drawn for each layer by itself, and again the same from the same stream.
    @Test("Paths are drawn for each layer by itself")
    func pathsAreDrawnPerLayer() throws {
        try TestDevice.all[0].withBackend { backend in
            let model = try TinyModel().adapted(on: backend)
            let space = try SearchSpace(ranks: [2])
            var (first, again) = (Random(1, "path", 7), Random(1, "path", 7))
            let paths = model.layers.drawPaths(from: space, using: &first)
            #expect(paths.count == 8)
            #expect(Set(paths).count > 4)
            #expect(model.layers.drawPaths(from: space, using: &again) == paths)
            #expect(model.layers.drawPaths(from: space, using: &again) != paths)
        }
    }

    /// A fresh head and fresh support tensors follow the seed, and the fresh model computes what the frozen one computes.
    @Test("A fresh model follows its seed and computes what the frozen one computes")
    func aFreshModelIsTheFrozenOne() throws {
        try TestDevice.all[0].withBackend { backend in
            let tiny = try TinyModel()
            func fresh(_ seed: Int) throws -> VisionTransformer {
                try VisionTransformer(
                    tiny.checkpoint, classCount: 4,
                    method: GLoRA(rank: 2),
                    seed: seed, on: backend)
            }
            let model = try fresh(3)
            #expect(model.configuration.classCount == 4)
            let values = model.store.unpack(model.store.values)
            let (twin, other) = (try fresh(3), try fresh(4))
            #expect(twin.store.unpack(twin.store.values) == values)
            let others = other.store.unpack(other.store.values)
            for name in ["head.weight", "blocks.0.attn.qkv.Au"] { #expect(others[name] != values[name]) }
            // U(±1/√6).
            #expect(values["head.weight"]!.values.allSatisfy { abs($0) <= 0.40825 })
            let plan = try model.plan(batch: 2, isForTraining: false)
            model.step(plan, TinyModel.images(2), [0, 1], paths: model.layers.uniformPath(.full(rank: 2)))
            var reference = ReferenceViT(
                configuration: model.configuration,
                tensors: tiny.checkpoint.tensors.mapValues { doubles($0.values) })
            for name in ["head.weight", "head.bias"] {
                reference.tensors[name] = doubles(values[name]!.values)
            }
            let logits = reference.logits(doubles(TinyModel.images(2)), batch: 2, scales: nil)
            expectClose(backend.values(plan.logits), logits, "logits")
        }
    }
}
