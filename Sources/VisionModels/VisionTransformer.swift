import Adapters
import Checkpoints
import ModelConfiguration
import TensorCore

/// A pre-norm vision transformer whose every Linear is a site for GLoRA, with its backward written by hand.
///
///     x ← [class; patches · Wᵖ] + positions
///     x ← x + s · proj(attention(qkv(LN₁ x)))         s: drop-path's scale of the sample, 1 in evaluation
///     x ← x + s · fc2(GELU(fc1(LN₂ x)))
///     logits = head(pool(LN x))
///
/// Other methods attach at places of this: see `Attachments`. The parts below the first layer that a step's path changes are not differentiated. Where the class token is pooled, it
/// alone goes on behind the last block's attention (7 % of a ViT-B's step).
/// Source: timm 0.6.5, `vision_transformer.py`.
public final class VisionTransformer {
    /// What is trained.
    public enum Trained {
        /// Support tensors of rank `rank` on the Linears at `sites`, and the head: fine-tuning.
        case adapters(rank: Int, sites: [SearchSpace.Site])
        /// What another method adds or chooses, and the head.
        case method(any TuningMethod)
        /// Every tensor of the backbone and the head, without support tensors: pretraining.
        case everything
    }

    /// The architecture, with the task's class count.
    public let configuration: ViTConfiguration
    /// Where the model lives.
    public let backend: any Backend
    /// The trained tensors.
    public let store: ParameterStore
    /// Four for each block, in module order: qkv, proj, fc1, fc2.
    public let linears: [GLoRALinear]
    /// Bytes of device memory that the frozen and the trained tensors occupy, without plans.
    public let parameterByteCount: Int

    /// What a step keeps and what it computes again.
    public let memoryPolicy: MemoryPolicy
    /// R, the support tensors' rank; 0 without any.
    public let supportRank: Int

    // The checkpoint's tensors: those on the device by their shapes, and what this model has no use for. W₀ is never
    // written, so what a merge needs can be read back; a second copy on the host would be 340 MB for ViT-B.
    var onDevice: [String: (tensor: Tensor, shape: [Int])] = [:]
    let unused: [String: HostTensor]
    let patchProjection: GLoRALinear
    let classToken: Parameter?
    let positions: Parameter
    let norms: [(first: Norm, second: Norm)]
    let finalNorm: Norm
    let head: GLoRALinear
    let scratch: GLoRALinear.Scratch
    /// What is trained when it isn't GLoRA.
    public let method: (any TuningMethod)?
    let attachments: Attachments?  // nil where a method has none
    /// What is before the logits.
    public let headKind: HeadKind
    let runningMean, runningVariance: Parameter?  // [D] of the head's batch norm
    private let planArena: Arena
    private var plans: [PlanKey: ViTPlan] = [:]
    // What products read of the Linears' weights that are trained whole, where that isn't float32; see `loadWeights`.
    private let roundedWeights: [(copy: Tensor, trained: Tensor)]
    var prepared: (paths: [GLoRAPath], linears: [GLoRALinear.Prepared])?

    private struct PlanKey: Hashable {
        let batch: Int
        let isForTraining: Bool
    }

    struct Norm {
        let weight, bias: Parameter  // [D]
    }

    /// Builds the model of `checkpoint` on `backend` with a fresh head of `classCount` classes. First values of the head and
    /// of what is added are drawn from `seed`.
    ///
    /// `head` overrides the fresh head with given tensors `head.weight` [K, D] and `head.bias` [K].
    /// Throws `BackendError.outOfMemory`.
    public init(
        _ checkpoint: ViTCheckpoint, classCount: Int, trained: Trained, seed: Int,
        head: [String: HostTensor]? = nil, headKind: HeadKind = .linear, memory: MemoryPolicy = .balanced,
        on backend: any Backend
    ) throws {
        var configuration = checkpoint.configuration
        configuration.classCount = classCount
        self.configuration = configuration
        self.backend = backend
        memoryPolicy = memory
        if case .adapters(let rank, _) = trained { supportRank = rank } else { supportRank = 0 }
        if case .method(let given) = trained { method = given } else { method = nil }
        self.headKind = headKind
        var declarations: [ParameterStore.Declaration] = []
        let names = VisionTransformer.linearNames(depth: configuration.depth)
        switch trained {
        case .adapters(let rank, let sites):
            for (index, name) in names.enumerated() where sites.contains(SearchSpace.Site.allCases[index % 4])
            {
                let shape = checkpoint.tensors["\(name).weight"]!.shape
                var random = Random(seed, "init", index)
                declarations += GLoRALinear.declarations(
                    name, inputs: shape[1], outputs: shape[0], rank: rank, random: &random)
            }
        case .everything:
            declarations += checkpoint.backboneDeclarations { _ in true }
        case .method(let method):
            declarations += checkpoint.backboneDeclarations(method.trains)
            declarations += method.declarations(configuration.shape, seed: seed)
        }
        for declaration in headKind.declarations(classCount, configuration.width, seed: seed) {
            declarations.append(head?[declaration.name].map { .init(declaration.name, $0) } ?? declaration)
        }
        let store = try ParameterStore(backend, declarations)
        self.store = store

        let frozen = Arena(backend)
        var onDevice: [String: (tensor: Tensor, shape: [Int])] = [:]
        let stored = backend.precision.stored
        var rounded: [(copy: Tensor, trained: Tensor)] = []
        /// A tensor as operations of `type` read it; one that is trained stays float32 beside that.
        func parameter(_ name: String, _ type: ElementType = .float32) throws -> Parameter? {
            if let trained = store[name] {
                if let shape = checkpoint.tensors[name]?.shape { onDevice[name] = (trained.value, shape) }
                guard type != .float32 else { return trained }
                let copy = try frozen.take(trained.value.shape, type)
                rounded.append((copy, trained.value))
                return Parameter(name: name, value: copy, gradient: trained.gradient)
            }
            guard let host = checkpoint.tensors[name] else { return nil }
            let tensor = try frozen.take(host.shape, type)
            backend.upload(tensor, host.values)
            onDevice[name] = (tensor, host.shape)
            return Parameter(name: name, value: tensor)
        }
        func required(_ name: String, _ type: ElementType = .float32) throws -> Parameter {
            guard let found = try parameter(name, type) else {
                preconditionFailure("\(name) is not in the checkpoint")
            }
            return found
        }
        func norm(_ name: String) throws -> Norm {
            Norm(weight: try required("\(name).weight"), bias: try required("\(name).bias"))
        }
        func linear(_ name: String, _ type: ElementType) throws -> GLoRALinear {
            GLoRALinear(
                name: name, weight: try required("\(name).weight", type),
                bias: try parameter("\(name).bias"),
                support: GLoRALinear.Support(name, in: store))
        }
        /// A parameter under another shape of the same count: the convolution's weight as a matrix.
        func reshaped(_ parameter: Parameter, _ shape: [Int]) -> Parameter {
            Parameter(
                name: parameter.name, value: parameter.value.reshaped(shape),
                gradient: parameter.gradient?.reshaped(shape))
        }
        // A method that adds nothing has no attachments.
        let added = try method.flatMap { method in
            method.declarations(configuration.shape, seed: 0).isEmpty
                ? nil : try method.attachments(configuration.shape, store, frozen, backend)
        }
        attachments = added
        (runningMean, runningVariance) = (store["head.running_mean"], store["head.running_var"])
        let (d, t) = (configuration.width, configuration.tokenCount)
        let patchWeight = try required("patch_embed.proj.weight", stored)
        patchProjection = GLoRALinear(
            name: "patch_embed.proj", weight: reshaped(patchWeight, [d, patchWeight.value.count / d]),
            bias: try parameter("patch_embed.proj.bias"), support: nil)
        classToken = try parameter("cls_token").map { reshaped($0, [d]) }
        positions = reshaped(try required("pos_embed"), [t, d])
        norms = try (0..<configuration.depth).map {
            (try norm("blocks.\($0).norm1"), try norm("blocks.\($0).norm2"))
        }
        finalNorm = try norm(configuration.pooling == .meanBeforeNorm ? "fc_norm" : "norm")
        linears = try names.map { try linear($0, stored) }
        self.head = try linear("head", .float32)
        roundedWeights = rounded
        let largest = linears + [self.head, patchProjection]
        scratch = try GLoRALinear.Scratch(
            frozen, weightCount: largest.map { $0.outputs * $0.inputs }.max()!,
            outputs: largest.map(\.outputs).max()!, inputs: largest.map(\.inputs).max()!)
        parameterByteCount = frozen.byteCount + store.values.byteCount * 4
        planArena = Arena(backend)
        unused = checkpoint.tensors.filter { onDevice[$0.key] == nil && !$0.key.hasPrefix("head.") }
        self.onDevice = onDevice
    }

    /// The names of a model's Linears in module order: `blocks.0.attn.qkv`, …
    public static func linearNames(depth: Int) -> [String] {
        (0..<depth).flatMap { block in
            ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"].map { "blocks.\(block).\($0)" }
        }
    }

    /// `path` in every layer, as far as the layer allows: none without support tensors, C = D = E = none without a bias, so
    /// that a merged checkpoint keeps its shape.
    public func uniformPath(_ path: GLoRAPath) -> [GLoRAPath] {
        linears.map { admissible(path, for: $0) }
    }

    /// A path for each layer, drawn independently from `space`, as far as the layers allow.
    public func drawPaths(from space: SearchSpace, using random: inout Random) -> [GLoRAPath] {
        linears.map { admissible(space.draw(using: &random), for: $0) }
    }

    private func admissible(_ path: GLoRAPath, for linear: GLoRALinear) -> GLoRAPath {
        guard linear.support != nil else { return .none }
        return linear.bias != nil ? path : GLoRAPath(a: path.a, b: path.b)
    }

    /// The trained parameters without the head: those on the given paths, one for each Linear, or a method's.
    public func parameterCount(_ paths: [GLoRAPath]) -> Int {
        if let method {
            return method.parameterCount(configuration.shape)
                + store.segments.filter { !$0.name.hasPrefix("head.") && method.trains($0.name) }
                .reduce(0) { $0 + $1.count }
        }
        return zip(linears, paths).reduce(0) { sum, layer in
            sum + layer.1.parameterCount(inputs: layer.0.inputs, outputs: layer.0.outputs)
        }
    }

    /// The head's parameters, D·K + K.
    public var headParameterCount: Int { head.outputs * (head.inputs + 1) }

    /// The tensors that get a gradient in a step on these paths: the head, what the paths read, and in pretraining all.
    public func trainedNames(_ paths: [GLoRAPath]) -> Set<String> {
        if let method {
            return Set(
                store.segments.map(\.name).filter { method.isUsed($0) && !$0.hasPrefix("head.running_") })
        }
        var names =
            positions.gradient == nil ? ["head.weight", "head.bias"] : Set(store.segments.map(\.name))
        for (linear, path) in zip(linears, paths) where linear.support != nil {
            for name in linear.tensorsOnPath(path) { names.insert("\(linear.name).\(name)") }
        }
        return names
    }

    /// The memory for steps of `batch` images, made at the first call and kept: plans share one arena, so a larger one should
    /// be asked for first. Throws `BackendError.outOfMemory`.
    public func plan(batch: Int, isForTraining: Bool) throws -> ViTPlan {
        let key = PlanKey(batch: batch, isForTraining: isForTraining)
        if let plan = plans[key] { return plan }
        planArena.reset()
        let plan = try ViTPlan(
            configuration, rank: supportRank, policy: memoryPolicy, batch: batch,
            isForTraining: isForTraining, attachments: attachments, head: headKind,
            stored: backend.precision.stored, take: planArena.take)
        plans[key] = plan
        return plan
    }

    /// The bytes that training with this batch takes on the device: the tensors and the plan of a step, without the backend's
    /// own working memory.
    public func plannedByteCount(batch: Int) -> Int {
        let plan = ViTPlan.byteCount(
            configuration, rank: supportRank, policy: memoryPolicy, batch: batch, isForTraining: true,
            attachments: attachments, head: headKind, stored: backend.precision.stored)
        return plan > .max - parameterByteCount ? .max : parameterByteCount + plan
    }

    /// Rounds the weights that are trained in float32 to what products read: before every forward, since a step changes them.
    func loadWeights() {
        for (copy, trained) in roundedWeights { backend.copy(copy, trained) }
    }

    /// Builds the weights and biases of `paths` once, for evaluations to come on the same paths; `forward` uses them until
    /// `unprepare`. What was prepared for the same path of a layer before stays. Costs the memory of the model's Linears once more. Throws `BackendError.outOfMemory`.
    public func prepare(paths: [GLoRAPath]) throws {
        let earlier = prepared
        prepared = nil
        loadWeights()
        prepared = (
            paths,
            try linears.indices.map {
                if let earlier, earlier.paths[$0] == paths[$0] { return earlier.linears[$0] }
                return try linears[$0].prepared(path: paths[$0], backend, scratch)
            }
        )
    }

    /// Gives the memory of `prepare` back; needed before the parameters change.
    public func unprepare() { prepared = nil }
}
