import Adapters
import Checkpoints
import ModelConfiguration
import TensorCore
import TestSupport
import Transformers
import VisionModels

/// A model small enough for central differences in every element: 2 blocks, width 6, 2 heads, 4 patches, 3 classes.
struct TinyModel {
    var checkpoint: ViTCheckpoint
    /// head.weight [3, 6], head.bias [3].
    let head: [String: HostTensor]
    static let classCount = 3

    /// At a width of 64 and a few images GLoRA is cheaper in activation space; at 6 mostly in weight space.
    init(
        pooling: ViTConfiguration.Pooling = .classToken, hasClassToken: Bool = true, qkvBias: Bool = true,
        width: Int = 6, hiddenWidth: Int? = nil, change: (inout ViTConfiguration) -> Void = { _ in }
    ) throws {
        var configuration = ViTConfiguration(
            imageSize: 4, patchSize: 2, width: width, depth: 2, heads: 2,
            hiddenWidth: hiddenWidth ?? width - 1,
            classCount: TinyModel.classCount)
        configuration.pooling = pooling
        configuration.hasClassToken = hasClassToken
        configuration.qkvBias = qkvBias
        configuration.layerNormEpsilon = 1e-5
        change(&configuration)
        var tensors: [String: HostTensor] = [:]
        for (seed, (name, shape)) in configuration.tensorShapes.sorted(by: { $0.key < $1.key }).enumerated() {
            let isScale = name.contains("norm") && name.hasSuffix("weight") || name.hasSuffix("gamma")
            let scale = 0.4 * (6 / Double(width)).squareRoot()
            let values = randomValues(shape.reduce(1, *), seed: seed, scale: scale, mean: isScale ? 1 : 0)
            tensors[name] = HostTensor(shape: shape, values: values)
        }
        checkpoint = try ViTCheckpoint(configuration: configuration, tensors: tensors)
        head = tensors.filter { $0.key.hasPrefix("head.") }
    }

    /// The model under another treatment, with this head.
    func model(
        _ method: any TuningMethod, headKind: HeadKind = .linear, memory: MemoryPolicy = .balanced,
        on backend: any Backend
    ) throws -> VisionTransformer {
        try VisionTransformer(
            checkpoint, classCount: TinyModel.classCount, method: method, seed: 5, head: head,
            headKind: headKind, memory: memory, on: backend)
    }

    /// The model with support tensors of rank 2, all of them random: no path is the frozen model by chance.
    func adapted(memory: MemoryPolicy = .balanced, on backend: any Backend) throws -> VisionTransformer {
        let roles = checkpoint.configuration.shape.sites.map(\.role)
        let model = try model(GLoRA(rank: 2, roles: roles), memory: memory, on: backend)
        var values = model.store.unpack(model.store.values)
        for (seed, name) in values.keys.sorted().enumerated() where !name.hasPrefix("head.") {
            values[name]!.values = randomValues(values[name]!.values.count, seed: 50 + seed, scale: 0.3)
        }
        model.store.pack(model.store.values, values)
        return model
    }

    var reference: ReferenceViT {
        ReferenceViT(
            configuration: checkpoint.configuration,
            tensors: checkpoint.tensors.mapValues { doubles($0.values) })
    }

    /// [B, 3, 4, 4].
    static func images(_ batch: Int, seed: Int = 900) -> [Float] { randomValues(batch * 48, seed: seed) }

    /// [B].
    static func labels(_ batch: Int) -> [Int] { (0..<batch).map { ($0 * 2 + 1) % classCount } }

    /// A path for each of the eight Linears, all forms among them.
    static let mixedPaths: [GLoRAPath] = [
        GLoRAPath(a: .lowRank(2), b: .vector, d: .vector, e: .constant),
        GLoRAPath(a: .vector, b: .constant, c: .lowRank(2), d: .constant),
        GLoRAPath(b: .lowRank(1), c: .vector, e: .vector),
        GLoRAPath(a: .constant, c: .lowRank(1), d: .vector),
        .none,
        .full(rank: 2),
        GLoRAPath(e: .vector),
        GLoRAPath(a: .lowRank(1)),
    ]
}

extension VisionTransformer {
    /// Uploads a batch and computes logits and losses; with a plan for training the gradients too.
    func step(
        _ plan: VisionTransformer.Plan, _ images: [Float], _ labels: [Int], paths: [GLoRAPath]? = nil,
        scales: [[Float]]? = nil,
        noise: UInt64? = nil
    ) {
        if let paths { layers.take(paths) }
        backend.upload(plan.images, images)
        backend.upload(plan.labels, labels.map { Int32($0) })
        for (tensor, values) in zip(plan.branchScales, scales ?? []) { backend.upload(tensor, values) }
        backend.fill(plan.logits, .nan)
        let mode = PassMode(dropoutSeed: noise, dropsBranches: scales != nil)
        forward(plan, mode)
        loss(plan)
        if plan.isForTraining { backward(plan, mode) }
    }
}
