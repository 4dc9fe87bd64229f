import Adapters
import Checkpoints
import TensorCore

/// A pre-norm vision transformer whose every Linear is a site for GLoRA, with its backward written by hand.
///
///     x ← [class; patches · Wᵖ] + positions
///     x ← x + s · proj(attention(qkv(LN₁ x)))         s: drop-path's scale of the sample, 1 in evaluation
///     x ← x + s · fc2(GELU(fc1(LN₂ x)))
///     logits = head(pool(LN x))
///
/// The parts below the first layer that a step's path changes are not differentiated.
/// Source: timm 0.6.5, `vision_transformer.py`.
public final class VisionTransformer {
    /// What is trained.
    public enum Trained {
        /// Support tensors of rank `rank` on the Linears at `sites`, and the head: fine-tuning.
        case adapters(rank: Int, sites: [SearchSpace.Site])
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
    /// The checkpoint's tensors, unchanged, in timm's names.
    public let base: [String: HostTensor]
    /// Bytes of device memory that the frozen and the trained tensors occupy, without plans.
    public let parameterByteCount: Int

    private let patchProjection: GLoRALinear
    private let classToken: Parameter?
    private let positions: Parameter
    private let norms: [(first: Norm, second: Norm)]
    private let finalNorm: Norm
    private let head: GLoRALinear
    private let scratch: GLoRALinear.Scratch
    private let planArena: Arena
    private var plans: [PlanKey: ViTPlan] = [:]

    private struct PlanKey: Hashable {
        let batch: Int
        let isForTraining: Bool
    }

    private struct Norm {
        let weight, bias: Parameter  // [D]
    }

    /// Builds the model of `checkpoint` on `backend` with a fresh head of `classCount` classes. First values of the head and
    /// of the support tensors are drawn from `seed`: the head U(±1/√D), as PyTorch's Linear.
    ///
    /// `head` overrides the fresh head with given tensors `head.weight` [K, D] and `head.bias` [K].
    /// Throws `BackendError.outOfMemory`.
    public init(
        _ checkpoint: ViTCheckpoint, classCount: Int, trained: Trained, seed: Int,
        head: [String: HostTensor]? = nil, on backend: any Backend
    ) throws {
        var configuration = checkpoint.configuration
        configuration.classCount = classCount
        self.configuration = configuration
        self.backend = backend
        base = checkpoint.tensors
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
            declarations += checkpoint.tensors.filter { !$0.key.hasPrefix("head.") }
                .sorted { $0.key < $1.key }.map { .init($0.key, $0.value) }
        }
        var random = Random(seed, "head")
        let bound = 1 / Double(configuration.width).squareRoot()
        func uniform(_ shape: [Int]) -> HostTensor {
            HostTensor(
                shape: shape,
                values: (0..<shape.reduce(1, *)).map { _ in Float(random.uniform(in: -bound...bound)) })
        }
        declarations.append(
            .init("head.weight", head?["head.weight"] ?? uniform([classCount, configuration.width])))
        declarations.append(.init("head.bias", head?["head.bias"] ?? uniform([classCount])))
        let store = try ParameterStore(backend, declarations)
        self.store = store

        let frozen = Arena(backend)
        func parameter(_ name: String) throws -> Parameter? {
            if let trained = store[name] { return trained }
            guard let host = checkpoint.tensors[name] else { return nil }
            let tensor = try frozen.take(host.shape)
            backend.upload(tensor, host.values)
            return Parameter(name: name, value: tensor)
        }
        func required(_ name: String) throws -> Parameter {
            guard let found = try parameter(name) else {
                preconditionFailure("\(name) is not in the checkpoint")
            }
            return found
        }
        func norm(_ name: String) throws -> Norm {
            Norm(weight: try required("\(name).weight"), bias: try required("\(name).bias"))
        }
        func linear(_ name: String) throws -> GLoRALinear {
            GLoRALinear(
                name: name, weight: try required("\(name).weight"), bias: try parameter("\(name).bias"),
                support: GLoRALinear.Support(name, in: store))
        }
        /// A parameter under another shape of the same count: the convolution's weight as a matrix.
        func reshaped(_ parameter: Parameter, _ shape: [Int]) -> Parameter {
            Parameter(
                name: parameter.name, value: parameter.value.reshaped(shape),
                gradient: parameter.gradient?.reshaped(shape))
        }
        let (d, t) = (configuration.width, configuration.tokenCount)
        let patchWeight = try required("patch_embed.proj.weight")
        patchProjection = GLoRALinear(
            name: "patch_embed.proj", weight: reshaped(patchWeight, [d, patchWeight.value.count / d]),
            bias: try parameter("patch_embed.proj.bias"), support: nil)
        classToken = try parameter("cls_token").map { reshaped($0, [d]) }
        positions = reshaped(try required("pos_embed"), [t, d])
        norms = try (0..<configuration.depth).map {
            (try norm("blocks.\($0).norm1"), try norm("blocks.\($0).norm2"))
        }
        finalNorm = try norm(configuration.pooling == .meanBeforeNorm ? "fc_norm" : "norm")
        linears = try names.map(linear)
        self.head = try linear("head")
        let largest = linears + [self.head, patchProjection]
        scratch = try GLoRALinear.Scratch(
            frozen, weightCount: largest.map { $0.outputs * $0.inputs }.max()!,
            outputs: largest.map(\.outputs).max()!, inputs: largest.map(\.inputs).max()!)
        parameterByteCount = frozen.byteCount + store.values.byteCount * 4
        planArena = Arena(backend)
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

    /// The parameters on the given paths, one for each Linear, without the head.
    public func parameterCount(_ paths: [GLoRAPath]) -> Int {
        zip(linears, paths).reduce(0) { sum, layer in
            sum + layer.1.parameterCount(inputs: layer.0.inputs, outputs: layer.0.outputs)
        }
    }

    /// The head's parameters, D·K + K.
    public var headParameterCount: Int { head.outputs * (head.inputs + 1) }

    /// The tensors that get a gradient in a step on these paths: the head, what the paths read, and in pretraining all.
    public func trainedNames(_ paths: [GLoRAPath]) -> Set<String> {
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
            configuration, classCount: configuration.classCount, batch: batch,
            isForTraining: isForTraining, planArena)
        plans[key] = plan
        return plan
    }

    // MARK: Forward

    /// `plan.logits` from `plan.images` on the given paths, one for each Linear. With `dropsBranches`, every residual branch
    /// is scaled by `plan.branchScales`.
    public func forward(_ plan: ViTPlan, paths: [GLoRAPath], dropsBranches: Bool = false) {
        backend.extractPatches(plan.patches, plan.images, patchSize: configuration.patchSize)
        patchProjection.forward(plan.projected, plan.patches, path: .none, backend, scratch)
        backend.embedTokens(
            plan.blocks.first?.input ?? plan.output, plan.projected, classToken?.value, positions.value)
        for index in 0..<configuration.depth {
            let keep = plan.blocks[index]
            let output =
                plan.isForTraining && index + 1 < configuration.depth
                ? plan.blocks[index + 1].input : plan.output
            layerNorm(keep.normed1, keep.mean1, keep.rstd1, keep.input, norms[index].first)
            apply(4 * index, keep.qkv, keep.normed1, paths)
            backend.attention(keep.attended, keep.probabilities, keep.qkv, heads: configuration.heads)
            apply(4 * index + 1, plan.branch, keep.attended, paths)
            backend.residualAdd(
                keep.middle, keep.input, plan.branch,
                sampleScale: dropsBranches ? plan.branchScales[2 * index] : nil)

            layerNorm(keep.normed2, keep.mean2, keep.rstd2, keep.middle, norms[index].second)
            apply(4 * index + 2, keep.hidden, keep.normed2, paths)
            backend.gelu(keep.activated, keep.hidden)
            apply(4 * index + 3, plan.branch, keep.activated, paths)
            backend.residualAdd(
                output, keep.middle, plan.branch,
                sampleScale: dropsBranches ? plan.branchScales[2 * index + 1] : nil)
        }
        let range = poolRange
        if configuration.pooling == .meanBeforeNorm {
            backend.poolTokens(plan.pooled, plan.output, range: range)
            layerNorm(plan.features, plan.mean, plan.rstd, plan.pooled, finalNorm)
        } else {
            layerNorm(plan.normed, plan.mean, plan.rstd, plan.output, finalNorm)
            backend.poolTokens(plan.features, plan.normed, range: range)
        }
        head.forward(plan.logits, plan.features, path: .none, backend, scratch)
    }

    /// `plan.losses` from the logits and `plan.labels`.
    public func loss(_ plan: ViTPlan) {
        backend.softmaxCrossEntropy(plan.losses, plan.gradients?.logits, plan.logits, plan.labels)
    }

    // MARK: Backward

    /// Accumulates the gradients of the mean loss after `forward` and `loss` with the same arguments.
    public func backward(_ plan: ViTPlan, paths: [GLoRAPath], dropsBranches: Bool = false) {
        guard let gradients = plan.gradients else { preconditionFailure("backward: a plan for evaluation") }
        // The first Linear that the step changes; below it nothing is differentiated. -1: the embeddings too.
        let lowest =
            positions.gradient != nil
            ? -1 : paths.firstIndex { $0 != .none } ?? linears.count

        let reachesBlocks = lowest < linears.count
        head.backward(
            reachesBlocks || finalNorm.weight.gradient != nil ? gradients.normedPooled : nil,
            gradients.logits, plan.features, path: .none, backend, scratch)
        guard reachesBlocks else { return }
        let range = poolRange
        if configuration.pooling == .meanBeforeNorm {
            layerNormBackward(
                gradients.pooled, gradients.normedPooled, plan.pooled, plan.mean, plan.rstd, finalNorm,
                accumulate: false)
            backend.poolTokensBackward(gradients.stream, gradients.pooled, range: range)
        } else {
            backend.poolTokensBackward(gradients.normed, gradients.normedPooled, range: range)
            layerNormBackward(
                gradients.stream, gradients.normed, plan.output, plan.mean, plan.rstd, finalNorm,
                accumulate: false)
        }

        for index in (0..<configuration.depth).reversed() {
            let keep = plan.blocks[index]
            let (qkv, proj, fc1, fc2) = (4 * index, 4 * index + 1, 4 * index + 2, 4 * index + 3)
            if fc2 < lowest { return }
            var dBranch = gradients.stream
            if dropsBranches {
                dBranch = gradients.branch
                backend.scaleSamples(
                    dBranch, gradients.stream, sampleScale: plan.branchScales[2 * index + 1])
            }
            applyBackward(fc2, gradients.hidden, dBranch, keep.activated, paths, lowest)
            if fc2 == lowest { return }
            backend.geluBackward(gradients.hidden, gradients.hidden, keep.hidden)
            applyBackward(fc1, gradients.normed, gradients.hidden, keep.normed2, paths, lowest)
            if fc1 == lowest { return }
            layerNormBackward(
                gradients.stream, gradients.normed, keep.middle, keep.mean2, keep.rstd2,
                norms[index].second, accumulate: true)

            dBranch = gradients.stream
            if dropsBranches {
                dBranch = gradients.branch
                backend.scaleSamples(
                    dBranch, gradients.stream, sampleScale: plan.branchScales[2 * index])
            }
            applyBackward(proj, gradients.normed, dBranch, keep.attended, paths, lowest)
            if proj == lowest { return }
            backend.attentionBackward(
                gradients.qkv, gradients.probabilities, gradients.normed, keep.qkv, keep.probabilities,
                heads: configuration.heads)
            applyBackward(qkv, gradients.normed, gradients.qkv, keep.normed1, paths, lowest)
            if qkv == lowest { return }
            layerNormBackward(
                gradients.stream, gradients.normed, keep.input, keep.mean1, keep.rstd1,
                norms[index].first, accumulate: true)
        }
        guard let dPositions = positions.gradient else { return }
        backend.embedTokensBackward(gradients.projected, classToken?.gradient, dPositions, gradients.stream)
        patchProjection.backward(nil, gradients.projected, plan.patches, path: .none, backend, scratch)
    }

    // MARK: Merging

    /// The checkpoint of the same shape that computes what this model computes on `paths`, in timm's names: W and b folded,
    /// the head the task's. Throws `CheckpointError` when the tensors don't make a checkpoint.
    public func merged(paths: [GLoRAPath]) throws -> ViTCheckpoint {
        var tensors = base
        for (name, tensor) in store.unpack(store.values) where base[name] != nil || name.hasPrefix("head.") {
            tensors[name] = tensor
        }
        for (linear, path) in zip(linears, paths) where path != .none {
            let (weight, bias) = linear.merged(path: path, backend, scratch)
            tensors["\(linear.name).weight"] = weight
            tensors["\(linear.name).bias"] = bias
        }
        return try ViTCheckpoint(configuration: configuration, tensors: tensors)
    }

    // MARK: Pieces

    private var poolRange: Range<Int> {
        configuration.pooling == .classToken
            ? 0..<1 : (configuration.hasClassToken ? 1 : 0)..<configuration.tokenCount
    }

    private func apply(_ index: Int, _ y: Tensor, _ x: Tensor, _ paths: [GLoRAPath]) {
        linears[index].forward(y, x, path: paths[index], backend, scratch)
    }

    private func applyBackward(
        _ index: Int, _ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ paths: [GLoRAPath], _ lowest: Int
    ) {
        linears[index].backward(
            index == lowest ? nil : dx, dy, x, path: paths[index], backend, scratch)
    }

    private func layerNorm(_ y: Tensor, _ mean: Tensor, _ rstd: Tensor, _ x: Tensor, _ norm: Norm) {
        backend.layerNorm(
            y, mean, rstd, x, norm.weight.value, norm.bias.value,
            epsilon: configuration.layerNormEpsilon)
    }

    private func layerNormBackward(
        _ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ mean: Tensor, _ rstd: Tensor, _ norm: Norm,
        accumulate: Bool
    ) {
        backend.layerNormBackward(
            dx, norm.weight.gradient, norm.bias.gradient, dy, x, mean, rstd, norm.weight.value,
            accumulate: accumulate)
    }
}
