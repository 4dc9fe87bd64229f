import Adapters
import CPUBackend
import Checkpoints
import ModelConfiguration
import TensorCore
import TestSupport
import Testing
import Transformers
import VisionModels

/// The methods that GLoRA is compared with, beyond what the golden vectors hold: every option, dropout and batch norm while
/// training, other pooling, drop-path, merging, and the GLoRA paths that compute the same.
@Suite("The methods that GLoRA is compared with")
struct MethodTests {
    /// A method with settings, and a model that it is put on.
    struct Variant: CustomStringConvertible, Sendable {
        let description: String
        let method: MethodName
        var settings = MethodSettings()
        var head = HeadKind.linear
        var pooling = ViTConfiguration.Pooling.classToken
        var hasClassToken = true
        var memory = MemoryPolicy.balanced
        var dropsBranches = false

        init(_ description: String, _ method: MethodName, _ change: (inout Variant) -> Void = { _ in }) {
            self.description = description
            self.method = method
            change(&self)
        }

        func tiny() throws -> TinyModel {
            try TinyModel(pooling: pooling, hasClassToken: hasClassToken, width: 8, hiddenWidth: 16)
        }

        func make(_ tiny: TinyModel) throws -> any TuningMethod {
            try method.method(settings, for: tiny.checkpoint.configuration.shape)
        }

        /// The model with every trained tensor random, so that nothing is zero or the identity by its first value.
        func model(_ tiny: TinyModel, on backend: any Backend) throws -> VisionTransformer {
            let model = try tiny.model(make(tiny), headKind: head, memory: memory, on: backend)
            var values = model.store.unpack(model.store.values)
            for (seed, name) in values.keys.sorted().enumerated() where !name.hasPrefix("head.") {
                let drawn = randomValues(values[name]!.values.count, seed: 70 + seed, scale: 0.3)
                // Around what the pretrained model has, or 1 for a scale.
                let centre = tiny.checkpoint.tensors[name]?.values
                values[name]!.values = drawn.enumerated().map {
                    $1 + (centre?[$0] ?? (name.contains("scale") ? 1 : 0))
                }
            }
            model.store.pack(model.store.values, values)
            return model
        }

        static let all: [Variant] = [
            Variant("lora qv", .lora) { $0.settings.rank = 2 },
            Variant("lora all, drop-path", .lora) {
                ($0.settings.rank, $0.settings.alpha, $0.settings.targets) = (3, 1.5, "all")
                $0.dropsBranches = true
            },
            Variant("ssf", .ssf),
            Variant("ssf, low memory, drop-path", .ssf) { ($0.memory, $0.dropsBranches) = (.low, true) },
            Variant("ssf, mean before the norm", .ssf) { $0.pooling = .meanBeforeNorm },
            Variant("ssf, mean behind the norm", .ssf) { $0.pooling = .meanAfterNorm },
            Variant("ssf linears", .ssf) { $0.settings.targets = "linears" },
            Variant("vpt shallow", .vptShallow) { ($0.settings.prompts, $0.settings.dropout) = (3, 0.3) },
            Variant("vpt deep, mean behind the norm", .vptDeep) {
                ($0.settings.prompts, $0.pooling) = (2, .meanAfterNorm)
            },
            Variant("vpt deep without a class token", .vptDeep) {
                ($0.settings.prompts, $0.pooling, $0.hasClassToken) = (2, .meanBeforeNorm, false)
                $0.settings.dropout = 0.3
            },
            Variant("adaptformer, batch norm", .adaptformer) {
                ($0.settings.width, $0.settings.scale, $0.head) = (4, 0.8, .batchNorm)
            },
            Variant("adaptformer, norm in, scale trained, drop-path", .adaptformer) {
                ($0.settings.width, $0.settings.adapterNorm, $0.settings.learnableScale) = (4, "in", true)
                $0.dropsBranches = true
            },
            Variant("adaptformer sequential, norm out", .adaptformer) {
                ($0.settings.width, $0.settings.adapterNorm, $0.settings.placement) = (4, "out", "sequential")
            },
            Variant("fact tt", .factTT) { ($0.settings.rank, $0.settings.scale) = (3, 0.7) },
            Variant("fact tk", .factTK) { ($0.settings.rank, $0.settings.scale) = (3, 0.7) },
            Variant("repadapter", .repadapter) { ($0.settings.width, $0.settings.scale) = (4, 0.6) },
            Variant("repadapter attention, four groups", .repadapter) {
                ($0.settings.width, $0.settings.groups, $0.settings.targets) = (4, 4, "attention")
            },
            Variant("adapter, drop-path", .adapter) {
                ($0.settings.width, $0.settings.dropout, $0.dropsBranches) = (3, 0.2, true)
            },
            Variant("noah", .noah) { ($0.settings.dims, $0.pooling) = ("2:1:2,1:2:0", .meanBeforeNorm) },
            Variant("noah, prompts that stay", .noah) { $0.settings.dims = "2:0:3,0:2:1" },
            Variant("bitfit", .bitfit) { $0.pooling = .meanBeforeNorm },
            Variant("full", .full),
            Variant("linear, batch norm", .linear) { $0.head = .batchNorm },
        ]
    }

    private static let batch = 4

    @Test(
        "A block that is computed again gives the same losses and gradients to the bit",
        arguments: Variant.all)
    func lowestMemory(_ variant: Variant) throws {
        let tiny = try variant.tiny()
        let (images, labels) = (TinyModel.images(MethodTests.batch), TinyModel.labels(MethodTests.batch))
        let scales: [[Float]]? =
            variant.dropsBranches ? (0..<4).map { [1, 0, 2, Float($0)] } : nil
        for device in TestDevice.all {
            try device.withBackend { backend in
                let steps = try [MemoryPolicy.fast, .lowest].map { policy in
                    var variant = variant
                    variant.memory = policy
                    let model = try variant.model(tiny, on: backend)
                    let plan = try model.plan(batch: MethodTests.batch, isForTraining: true)
                    model.store.clearGradients()
                    model.step(plan, images, labels, scales: scales, noise: 77)
                    return (backend.values(plan.losses), model.store.unpack(model.store.gradients))
                }
                #expect(steps[0].0 == steps[1].0 && steps[0].1 == steps[1].1, "\(device)")
                #expect(steps[0].1.values.contains { $0.values.contains { $0 != 0 } })
            }
        }
    }

    /// Every tensor's gradient, along itself and along a random direction, against the difference of two losses.
    @Test("Every gradient is the slope of the loss", arguments: Variant.all)
    func gradientsAreTheLossesSlopes(_ variant: Variant) throws {
        let tiny = try variant.tiny()
        let (images, labels) = (TinyModel.images(MethodTests.batch), TinyModel.labels(MethodTests.batch))
        let kept: Float = 4 / 3
        let scales: [[Float]]? =
            variant.dropsBranches
            ? [
                [kept, 0, kept, kept], [0, kept, kept, kept], [kept, kept, 0, kept], [kept, kept, kept, 0],
            ] : nil
        for device in TestDevice.all {
            try device.withBackend { backend in
                let model = try variant.model(tiny, on: backend)
                let plan = try model.plan(batch: MethodTests.batch, isForTraining: true)
                model.store.clearGradients()
                model.step(plan, images, labels, scales: scales, noise: 77)
                let gradients = model.store.unpack(model.store.gradients)
                let values = model.store.unpack(model.store.values)
                func loss(_ name: String, _ direction: [Double], _ step: Double) -> Double {
                    var moved = values
                    moved[name]!.values = zip(moved[name]!.values, direction).map {
                        Float(Double($0) + step * $1)
                    }
                    model.store.pack(model.store.values, moved)
                    model.forward(plan, PassMode(dropoutSeed: 77, dropsBranches: scales != nil))
                    model.loss(plan)
                    return backend.values(plan.losses).reduce(0) { $0 + Double($1) } / 4
                }
                let trained = model.trainedNames
                #expect(!trained.isEmpty)
                for name in trained.sorted() {
                    let gradient = doubles(try #require(gradients[name]).values)
                    let norm = gradient.reduce(0) { $0 + $1 * $1 }.squareRoot()
                    let random = doubles(randomValues(gradient.count, seed: 3, scale: 1))
                    let length = random.reduce(0) { $0 + $1 * $1 }.squareRoot()
                    // Where the slope is zero there is no direction of its own: k's bias, which softmax takes out, in part.
                    let own = norm > 1e-6 ? [gradient.map { $0 / norm }] : []
                    for direction in own + [random.map { $0 / length }] {
                        let step = 8e-4
                        let slope = (loss(name, direction, step) - loss(name, direction, -step)) / (2 * step)
                        let expected = zip(gradient, direction).reduce(0) { $0 + $1.0 * $1.1 }
                        #expect(
                            abs(slope - expected) <= 0.01 * norm + 1e-4,
                            "\(name) on \(device): \(expected), the losses say \(slope)")
                    }
                }
            }
        }
    }

    /// In evaluation all blocks share memory, and no noise is drawn; a smaller batch is a part of a larger one.
    @Test("Evaluation gives the logits of training without noise", arguments: Variant.all)
    func evaluationIsTrainingWithoutNoise(_ variant: Variant) throws {
        let tiny = try variant.tiny()
        let (images, labels) = (TinyModel.images(5), TinyModel.labels(5))
        for device in TestDevice.all {
            try device.withBackend { backend in
                let model = try variant.model(tiny, on: backend)
                let training = try model.plan(batch: 5, isForTraining: true)
                model.step(training, images, labels)
                let logits = doubles(backend.values(training.logits))
                let evaluation = try model.plan(batch: 5, isForTraining: false)
                model.step(evaluation, images, labels)
                expectClose(backend.values(evaluation.logits), logits, "logits on \(device)", limit: 1e-12)
                let small = try model.plan(batch: 2, isForTraining: false)
                model.step(small, Array(images[3 * 48..<5 * 48]), Array(labels[3..<5]))
                expectClose(
                    backend.values(small.logits), Array(logits[9..<15]), "two of them on \(device)",
                    limit: 1e-12)
            }
        }
    }

    @Test(
        "The merged model computes the same, or the method says why it can't be merged",
        arguments: Variant.all) func mergedComputesTheSame(_ variant: Variant) throws
    {
        let tiny = try variant.tiny()
        let (images, labels) = (TinyModel.images(3), TinyModel.labels(3))
        for device in TestDevice.all {
            try device.withBackend { backend in
                let model = try variant.model(tiny, on: backend)
                guard model.method.unmergeable == nil else {
                    #expect(throws: CheckpointError.self) { try model.merged() }
                    return
                }
                let plan = try model.plan(batch: 3, isForTraining: false)
                model.step(plan, images, labels)
                let merged = try model.merged()
                let reference = ReferenceViT(
                    configuration: merged.configuration,
                    tensors: merged.tensors.mapValues { doubles($0.values) })
                expectClose(
                    backend.values(plan.logits), reference.logits(doubles(images), batch: 3, scales: nil),
                    "merged on \(device)")
            }
        }
    }

    /// LoRA, FacT, RepAdapter, SSF on Linears and BitFit as paths; what no path can stand for is refused.
    @Test("The GLoRA path of a method computes the same, where there is one", arguments: Variant.all)
    func aGLoRAPathComputesTheSame(_ variant: Variant) throws {
        let tiny = try variant.tiny()
        let (images, labels) = (TinyModel.images(3), TinyModel.labels(3))
        let expressible: Set<MethodName> = [
            .lora, .factTT, .factTK, .repadapter, .bitfit, .linear,
        ]
        for device in TestDevice.all {
            try device.withBackend { backend in
                let model = try variant.model(tiny, on: backend)
                guard expressible.contains(variant.method) || variant.description == "ssf linears" else {
                    #expect(throws: CheckpointError.self) { try model.gloraAdapter(on: tiny.checkpoint) }
                    return
                }
                let plan = try model.plan(batch: 3, isForTraining: false)
                model.step(plan, images, labels)
                let adapter = try model.gloraAdapter(on: tiny.checkpoint)
                #expect(adapter.layers.values.contains { $0.path != .none } == (variant.method != .linear))
                let glora = try VisionTransformer.applying(
                    adapter, to: tiny.checkpoint, on: backend)
                let other = try glora.plan(batch: 3, isForTraining: false)
                glora.step(other, images, labels)
                expectClose(
                    backend.values(other.logits), doubles(backend.values(plan.logits)),
                    "as GLoRA on \(device)")
            }
        }
    }

    /// The first values of the methods that begin as the pretrained model.
    @Test(
        "LoRA, FacT, RepAdapter, AdaptFormer, Adapter and BitFit begin as the identity; SSF, VPT and NOAH don't",
        arguments: MethodName.allCases.filter { $0 != .glora })
    func begins(_ method: MethodName) throws {
        let tiny = try TinyModel(width: 8, hiddenWidth: 16)
        let (images, labels) = (TinyModel.images(3), TinyModel.labels(3))
        try TestDevice.all[0].withBackend { backend in
            func logits(_ method: any TuningMethod) throws -> [Float] {
                let model = try tiny.model(method, on: backend)
                let plan = try model.plan(batch: 3, isForTraining: false)
                model.step(plan, images, labels)
                return backend.values(plan.logits)
            }
            let plain = try logits(Backbone.frozen)
            let other = try method.method(MethodSettings(), for: tiny.checkpoint.configuration.shape)
            let begun = try logits(other)
            if [.ssf, .vptShallow, .vptDeep, .noah].contains(method) {
                let largest = zip(begun, plain).reduce(Float(0)) { max($0, abs($1.0 - $1.1)) }
                #expect(largest > 1e-3)
            } else {
                expectClose(begun, doubles(plain), "\(method)", limit: 1e-12)
            }
        }
    }

    @Test(
        "Parameters on ViT-B/16 are the published ones",
        arguments: [
            (MethodName.lora, [:], 294_912), (.ssf, [:], 205_824), (.vptShallow, ["prompts": 7], 768 * 7),
            (.vptDeep, ["prompts": 7], 9_216 * 7), (.adaptformer, [:], 1_189_632),
            (.adaptformer, ["width": 8], 156_768), (.adapter, [:], 156_768), (.factTT, [:], 61_440),
            (.factTK, [:], 86_528), (.repadapter, [:], 239_808), (.linear, [:], 0),
        ] as [(MethodName, [String: Int], Int)])
    func counts(_ method: MethodName, _ numbers: [String: Int], _ expected: Int) throws {
        var settings = MethodSettings()
        (settings.prompts, settings.width) = (numbers["prompts"], numbers["width"])
        let shape = TransformerShape(
            width: 768, hiddenWidth: 3072, depth: 12, patchSize: 16, hasClassToken: true)
        #expect(try method.method(settings, for: shape).parameterCount(shape, []) == expected)
    }

    @Test("RepAdapter before attention alone has half, and NOAH's count is its slices'")
    func otherCounts() throws {
        let shape = TransformerShape(
            width: 768, hiddenWidth: 3072, depth: 12, patchSize: 16, hasClassToken: true)
        var settings = MethodSettings()
        settings.targets = "attention"
        #expect(try MethodName.repadapter.method(settings, for: shape).parameterCount(shape, []) == 119_904)
        settings = MethodSettings()
        settings.dims = "5:0:0"
        #expect(try MethodName.noah.method(settings, for: shape).parameterCount(shape, []) == 12 * 5 * 768)
        settings.dims = "0:8:8"
        #expect(
            try MethodName.noah.method(settings, for: shape).parameterCount(shape, [])
                == 294_912 + 12 * (2 * 768 * 8 + 8 + 768))
    }

    @Test("The layers' own counts add up to that of a method that trains nothing else")
    func countsOfLayers() throws {
        let tiny = try TinyModel(width: 8, hiddenWidth: 16)
        let shape = tiny.checkpoint.configuration.shape
        for (method, targets) in [
            (MethodName.lora, "qv"), (.lora, "all"), (.repadapter, "block"), (.ssf, "linears"),
        ] {
            var settings = MethodSettings()
            settings.targets = targets
            let model = try tiny.model(try method.method(settings, for: shape), on: try CPUBackend())
            let sum = model.layers.reduce(0) { $0 + $1.parameterCount }
            #expect(sum > 0 && sum == model.parameterCount, "\(method) \(targets)")
        }
    }

    /// Mean and variance with momentum 0.1, the variance unbiased; in evaluation they take the batch's place.
    @Test("Batch norm keeps running statistics and evaluates with them", arguments: TestDevice.all)
    func batchNormKeepsRunningStatistics(_ device: TestDevice) throws {
        let tiny = try TinyModel(width: 8, hiddenWidth: 16)
        let (images, labels) = (TinyModel.images(4), TinyModel.labels(4))
        try device.withBackend { backend in
            let method = try MethodName.linear.method(
                MethodSettings(), for: tiny.checkpoint.configuration.shape)
            let model = try tiny.model(method, headKind: .batchNorm, on: backend)
            let plan = try model.plan(batch: 4, isForTraining: true)
            // A head of the identity on the first three features shows what it reads.
            var values = model.store.unpack(model.store.values)
            values["head.weight"]!.values = (0..<24).map { $0 / 8 == $0 % 8 ? 1 : 0 }
            values["head.bias"]!.values = [0, 0, 0]
            model.store.pack(model.store.values, values)
            model.step(plan, images, labels)
            // Running mean 0 and variance 1: the features themselves, but for the epsilon.
            let features = doubles(backend.values(plan.logits))
            model.step(plan, images, labels, noise: 1)
            let normed = doubles(backend.values(plan.logits))
            var (means, variances): ([Double], [Double]) = ([], [])
            for column in 0..<3 {
                let x = (0..<4).map { features[3 * $0 + column] }
                let mean = x.reduce(0, +) / 4
                let variance = x.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 4
                for row in 0..<4 {
                    let expected = (x[row] - mean) / (variance + 1e-6).squareRoot()
                    #expect(abs(normed[3 * row + column] - expected) < 1e-3)
                }
                means.append(0.1 * mean)
                variances.append(0.9 + 0.1 * variance * 4 / 3)
            }
            let kept = model.store.unpack(model.store.values)
            expectClose(Array(kept["head.running_mean"]!.values[..<3]), means, "mean", limit: 1e-8)
            expectClose(Array(kept["head.running_var"]!.values[..<3]), variances, "variance", limit: 1e-8)
            #expect(model.trainedNames == ["head.weight", "head.bias"])
        }
    }

    @Test("A setting that a method has no use for, or can't mean, is refused with its name")
    func refuses() {
        let shape = TransformerShape(width: 8, hiddenWidth: 12, depth: 2, patchSize: 2, hasClassToken: true)
        func message(_ method: MethodName, _ change: (inout MethodSettings) -> Void) -> String {
            var settings = MethodSettings()
            change(&settings)
            do {
                _ = try method.method(settings, for: shape)
                return ""
            } catch {
                return "\(error)"
            }
        }
        #expect(message(.ssf) { $0.rank = 3 } == "ssf doesn't use `rank`; leave it out")
        #expect(message(.glora) { $0.width = 3 }.contains("`width`"))
        #expect(message(.lora) { $0.rank = 0 }.contains("`rank` must be from 1"))
        #expect(message(.lora) { $0.targets = "k" } == "`targets` is qv or all, not k")
        #expect(message(.adapter) { $0.dropout = 1 }.contains("`dropout` must be"))
        #expect(message(.noah) { $0.dims = "1:2" }.contains("`dims` 1:2"))
        #expect(message(.noah) { $0.dims = "1:2:3,1:2:3,1:2:3" }.contains("2 blocks"))
        #expect(message(.factTT) { _ in }.contains("no multiple"))
        #expect(message(.repadapter) { $0.width = 3 }.contains("`groups 2` must divide"))
        #expect(message(.adaptformer) { ($0.learnableScale, $0.scale) = (true, 2) }.contains("`scale`"))
        #expect(message(.lora) { $0.alpha = .infinity }.contains("`alpha`"))
    }
}
