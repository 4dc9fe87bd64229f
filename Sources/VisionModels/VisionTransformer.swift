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
/// The parts below the first layer that a step's path changes are not differentiated. Where the class token is pooled, it
/// alone goes on behind the last block's attention (7 % of a ViT-B's step).
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
    /// Bytes of device memory that the frozen and the trained tensors occupy, without plans.
    public let parameterByteCount: Int

    /// What a step keeps and what it computes again.
    public let memoryPolicy: MemoryPolicy
    /// R, the support tensors' rank; 0 without any.
    public let supportRank: Int

    // The checkpoint's tensors: those on the device by their shapes, and what this model has no use for. W₀ is never
    // written, so what a merge needs can be read back; a second copy on the host would be 340 MB for ViT-B.
    private var onDevice: [String: (tensor: Tensor, shape: [Int])] = [:]
    private let unused: [String: HostTensor]
    private let patchProjection: GLoRALinear
    private let classToken: Parameter?
    private let positions: Parameter
    private let norms: [(first: Norm, second: Norm)]
    private let finalNorm: Norm
    private let head: GLoRALinear
    private let scratch: GLoRALinear.Scratch
    private let planArena: Arena
    private var plans: [PlanKey: ViTPlan] = [:]
    private var prepared: (paths: [GLoRAPath], linears: [GLoRALinear.Prepared])?

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
        head: [String: HostTensor]? = nil, memory: MemoryPolicy = .balanced, on backend: any Backend
    ) throws {
        var configuration = checkpoint.configuration
        configuration.classCount = classCount
        self.configuration = configuration
        self.backend = backend
        memoryPolicy = memory
        if case .adapters(let rank, _) = trained { supportRank = rank } else { supportRank = 0 }
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
        var onDevice: [String: (tensor: Tensor, shape: [Int])] = [:]
        func parameter(_ name: String) throws -> Parameter? {
            if let trained = store[name] {
                if let shape = checkpoint.tensors[name]?.shape { onDevice[name] = (trained.value, shape) }
                return trained
            }
            guard let host = checkpoint.tensors[name] else { return nil }
            let tensor = try frozen.take(host.shape)
            backend.upload(tensor, host.values)
            onDevice[name] = (tensor, host.shape)
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
            configuration, rank: supportRank, policy: memoryPolicy, batch: batch,
            isForTraining: isForTraining,
            take: planArena.take)
        plans[key] = plan
        return plan
    }

    /// The bytes that training with this batch takes on the device: the tensors and the plan of a step, without the backend's
    /// own working memory.
    public func plannedByteCount(batch: Int) -> Int {
        parameterByteCount
            + ViTPlan.byteCount(
                configuration, rank: supportRank, policy: memoryPolicy, batch: batch, isForTraining: true)
    }

    /// Builds the weights and biases of `paths` once, for evaluations to come on the same paths; `forward` uses them until
    /// `unprepare`. What was prepared for the same path of a layer before stays. Costs the memory of the model's Linears once more. Throws `BackendError.outOfMemory`.
    public func prepare(paths: [GLoRAPath]) throws {
        let earlier = prepared
        prepared = nil
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

    // MARK: Forward

    /// `plan.logits` from `plan.images` on the given paths, one for each Linear. With `dropsBranches`, every residual branch
    /// is scaled by `plan.branchScales`.
    public func forward(_ plan: ViTPlan, paths: [GLoRAPath], dropsBranches: Bool = false) {
        embed(plan)
        forward(plan, fromBlock: 0, paths: paths, dropsBranches: dropsBranches)
    }

    /// `plan.stream(into: 0)` from `plan.images`: the same whatever the paths.
    public func embed(_ plan: ViTPlan) {
        backend.extractPatches(plan.patches, plan.images, patchSize: configuration.patchSize)
        patchProjection.forward(plan.projected, plan.patches, path: .none, plan.plain, backend, scratch)
        backend.embedTokens(plan.stream(into: 0), plan.projected, classToken?.value, positions.value)
    }

    /// `plan.logits` from `plan.stream(into: first)`. `onBlock` is called before each further block with its number, while its
    /// stream can be read.
    public func forward(
        _ plan: ViTPlan, fromBlock first: Int, paths: [GLoRAPath], dropsBranches: Bool = false,
        onBlock: (Int) -> Void = { _ in }
    ) {
        for (index, keep) in plan.blocks.enumerated().dropFirst(first) {
            if index > first { onBlock(index) }
            let output = index + 1 == configuration.depth ? plan.output : plan.blocks[index + 1].input
            let branch = Tensor(buffer: plan.branch.buffer, shape: keep.middle.shape)
            layerNorm(keep.normed1, keep.mean1, keep.rstd1, keep.input, norms[index].first)
            let qkv = keepsProduct(4 * index, plan, paths) ? plan.qkv : keep.qkv
            apply(4 * index, qkv, keep.normed1, plan, paths)
            backend.attention(keep.attended, keep.logSumExp, qkv, heads: configuration.heads)
            apply(4 * index + 1, branch, keep.attended, plan, paths)
            backend.residualAdd(
                keep.middle, askingTokens(keep, plan), branch,
                sampleScale: dropsBranches ? plan.branchScales[2 * index] : nil)

            layerNorm(keep.normed2, keep.mean2, keep.rstd2, keep.middle, norms[index].second)
            let fc1 = 4 * index + 2
            // In evaluation nobody reads the MLP before GELU, and where z is kept the backward rebuilds it.
            let hidden = !plan.isForTraining || keepsProduct(fc1, plan, paths) ? nil : keep.hidden
            apply(fc1, hidden, keep.normed2, activated: keep.activated, plan, paths)
            apply(4 * index + 3, branch, keep.activated, plan, paths)
            backend.residualAdd(
                output, keep.middle, branch,
                sampleScale: dropsBranches ? plan.branchScales[2 * index + 1] : nil)
        }
        switch configuration.pooling {
        case .classToken:
            layerNorm(plan.features, plan.mean, plan.rstd, plan.output, finalNorm)
        case .meanBeforeNorm:
            backend.poolTokens(plan.pooled, plan.output, range: poolRange)
            layerNorm(plan.features, plan.mean, plan.rstd, plan.pooled, finalNorm)
        case .meanAfterNorm:
            layerNorm(plan.normed, plan.mean, plan.rstd, plan.output, finalNorm)
            backend.poolTokens(plan.features, plan.normed, range: poolRange)
        }
        head.forward(plan.logits, plan.features, path: .none, plan.plain, backend, scratch)
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
            gradients.logits, plan.features, path: .none, plan.plain, backend, scratch)
        guard reachesBlocks else { return }
        switch configuration.pooling {
        case .classToken:
            layerNormBackward(
                gradients.asked, gradients.normedPooled, plan.output, plan.mean, plan.rstd, finalNorm,
                accumulate: false)
        case .meanBeforeNorm:
            layerNormBackward(
                gradients.pooled, gradients.normedPooled, plan.pooled, plan.mean, plan.rstd, finalNorm,
                accumulate: false)
            backend.poolTokensBackward(gradients.stream, gradients.pooled, range: poolRange)
        case .meanAfterNorm:
            backend.poolTokensBackward(gradients.normed, gradients.normedPooled, range: poolRange)
            layerNormBackward(
                gradients.stream, gradients.normed, plan.output, plan.mean, plan.rstd, finalNorm,
                accumulate: false)
        }

        for (index, keep) in plan.blocks.enumerated().reversed() {
            let (qkv, proj, fc1, fc2) = (4 * index, 4 * index + 1, 4 * index + 2, 4 * index + 3)
            if fc2 < lowest { return }
            let asksAll = keep.middle.count == keep.input.count
            let stream = asksAll ? gradients.stream : gradients.asked  // [B, Q, D]
            let hidden = Tensor(buffer: gradients.hidden.buffer, shape: keep.hidden.shape)
            let normed = Tensor(buffer: gradients.normed.buffer, shape: keep.middle.shape)
            func branchGradient(_ branch: Int) -> Tensor {
                guard dropsBranches else { return stream }
                let scaled = Tensor(buffer: gradients.branch.buffer, shape: keep.middle.shape)
                backend.scaleSamples(scaled, stream, sampleScale: plan.branchScales[branch])
                return scaled
            }

            let rebuildsHidden = keepsProduct(fc1, plan, paths)
            if plan.sharesActivated {
                if rebuildsHidden {
                    rebuild(fc1, nil, activated: keep.activated, plan, paths)
                } else {
                    backend.gelu(keep.activated, keep.hidden)
                }
            }
            applyBackward(fc2, hidden, branchGradient(2 * index + 1), keep.activated, plan, paths, lowest)
            if fc2 == lowest { return }
            if rebuildsHidden {
                // GELU's output is done with: its input takes its place.
                rebuild(fc1, keep.activated, activated: nil, plan, paths)
            }
            backend.geluBackward(hidden, hidden, rebuildsHidden ? keep.activated : keep.hidden)
            if plan.sharesNormed {
                layerNorm(keep.normed2, keep.mean2, keep.rstd2, keep.middle, norms[index].second)
            }
            applyBackward(fc1, normed, hidden, keep.normed2, plan, paths, lowest)
            if fc1 == lowest { return }
            layerNormBackward(
                stream, normed, keep.middle, keep.mean2, keep.rstd2, norms[index].second, accumulate: true)

            applyBackward(proj, normed, branchGradient(2 * index), keep.attended, plan, paths, lowest)
            if proj == lowest { return }
            let rebuildsQKV = keepsProduct(qkv, plan, paths)
            if rebuildsQKV { rebuild(qkv, plan.qkv, activated: nil, plan, paths) }
            backend.attentionBackward(
                gradients.qkv, normed, keep.attended, keep.logSumExp, rebuildsQKV ? plan.qkv : keep.qkv,
                heads: configuration.heads)
            if plan.sharesNormed {
                layerNorm(keep.normed1, keep.mean1, keep.rstd1, keep.input, norms[index].first)
            }
            applyBackward(qkv, gradients.normed, gradients.qkv, keep.normed1, plan, paths, lowest)
            if qkv == lowest { return }
            if !asksAll {
                backend.poolTokensBackward(
                    gradients.stream, gradients.asked.reshaped([plan.batch, configuration.width]),
                    range: 0..<1)
            }
            layerNormBackward(
                gradients.stream, gradients.normed, keep.input, keep.mean1, keep.rstd1,
                norms[index].first, accumulate: true)
        }
        guard let dPositions = positions.gradient else { return }
        backend.embedTokensBackward(gradients.projected, classToken?.gradient, dPositions, gradients.stream)
        patchProjection.backward(
            nil, gradients.projected, plan.patches, path: .none, plan.plain, backend, scratch)
    }

    // MARK: Merging

    /// The checkpoint of the same shape that computes what this model computes on `paths`, in timm's names: W and b folded,
    /// the head the task's. Throws `CheckpointError` when the tensors don't make a checkpoint.
    public func merged(paths: [GLoRAPath]) throws -> ViTCheckpoint {
        var tensors = unused
        for (name, stored) in onDevice where !name.hasPrefix("head.") {
            tensors[name] = HostTensor(shape: stored.shape, values: backend.values(stored.tensor))
        }
        for parameter in [head.weight, head.bias].compactMap({ $0 }) {
            tensors[parameter.name] = backend.host(parameter.value)
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

    /// The tokens of a block's input that go on behind its attention: all of them, or the class tokens.
    private func askingTokens(_ keep: ViTPlan.Block, _ plan: ViTPlan) -> Tensor {
        guard let asked = plan.askedInput, keep.middle.count < keep.input.count else { return keep.input }
        backend.poolTokens(asked.reshaped([plan.batch, configuration.width]), keep.input, range: 0..<1)
        return asked
    }

    private func kept(_ index: Int, _ plan: ViTPlan) -> GLoRALinear.Kept {
        plan.blocks[index / 4].linears[index % 4]
    }

    /// Whether a Linear keeps its product z for the backward instead of its output.
    private func keepsProduct(_ index: Int, _ plan: ViTPlan, _ paths: [GLoRAPath]) -> Bool {
        guard let product = kept(index, plan).product else { return false }
        return linears[index].keepsProduct(paths[index], rows: product.rows)
    }

    private func apply(
        _ index: Int, _ y: Tensor?, _ x: Tensor, activated: Tensor? = nil, _ plan: ViTPlan,
        _ paths: [GLoRAPath]
    ) {
        if !plan.isForTraining, let prepared, prepared.paths == paths {
            return linears[index].forward(y, x, activated: activated, prepared.linears[index], backend)
        }
        linears[index].forward(
            y, x, activated: activated, path: paths[index], kept(index, plan), backend, scratch)
    }

    private func rebuild(
        _ index: Int, _ y: Tensor?, activated: Tensor?, _ plan: ViTPlan, _ paths: [GLoRAPath]
    ) {
        linears[index].rebuild(y, activated: activated, path: paths[index], kept(index, plan), backend)
    }

    private func applyBackward(
        _ index: Int, _ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ plan: ViTPlan, _ paths: [GLoRAPath],
        _ lowest: Int
    ) {
        linears[index].backward(
            index == lowest ? nil : dx, dy, x, path: paths[index], kept(index, plan), backend, scratch)
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
