import Adapters
import Checkpoints
import Datasets
import ModelConfiguration
import TensorCore
import Transformers

/// A pre-norm vision transformer with its backward written by hand.
///
///     x ← [class; registers; patches · Wᵖ] + positions        PatchEmbedding
///     x ← block(x), each of them                               TransformerBlock
///     logits = head(pool(LN x))                                ClassifierHead
///
/// A method puts its layers and terms into it: see `Attachments`. The parts below the first place that a step trains are not
/// differentiated. Where the class token is pooled, it alone goes on behind the last block's attention.
/// Source: timm 0.6.5, `vision_transformer.py`.
public final class VisionTransformer: TrainableModel {
    public typealias Examples = PreparedImages

    /// The architecture, with the task's class count.
    public let configuration: ViTConfiguration
    public let backend: any Backend
    public let store: ParameterStore
    public var method: any TuningMethod
    public let blocks: [TransformerBlock]
    public var shape: TransformerShape { configuration.shape }
    /// Bytes of device memory that the frozen and the trained tensors occupy, without plans.
    public let parameterByteCount: Int
    /// What a step keeps and what it computes again.
    public let memoryPolicy: MemoryPolicy
    /// What is before the logits.
    public let headKind: HeadKind
    /// Whether all tokens leave the last block, for `Plan.tokens`, where the class token alone would go on. Plans that were made
    /// before are dropped.
    public var keepsTokens = false { didSet { plans = [:] } }

    // The checkpoint's tensors: those on the device by their shapes, and what this model has no use for. W₀ is never
    // written, so what a merge needs can be read back; a second copy on the host would be 340 MB for ViT-B.
    let onDevice: [String: (tensor: Tensor, shape: [Int])]
    let unused: [String: HostTensor]
    // What the checkpoint said that a merged one is to say again.
    let timmName: String?
    let resizing: PositionResizing
    let isHuggingFace: Bool
    let isForInference: Bool
    let embedding: PatchEmbedding
    let head: ClassifierHead
    let attachments: Attachments
    private let planArena: Arena
    private var plans: [PlanKey: Plan] = [:]
    /// Whose numbers the plans' memory holds.
    private var lastPlan: PlanKey?
    // What products read of the Linears' weights that are trained whole, where that isn't float32; see `beginPass`.
    private let roundedWeights: [(copy: Tensor, trained: Tensor)]

    private struct PlanKey: Hashable {
        let batch: Int
        let isForTraining: Bool
    }

    /// Builds the model of `checkpoint` on `backend` with a fresh head of `classCount` classes, and what `method` adds to it. First
    /// values of the head and of what is added are drawn from `seed`.
    ///
    /// `head` overrides the fresh head with given tensors `head.weight` [K, D] and `head.bias` [K]. A model `forInference` alone, of
    /// the frozen method, keeps its Linears in the layout that the device reads and in no other, and takes the checkpoint's tensors
    /// one by one where nobody else holds them; it can't be merged.
    /// Throws `BackendError.outOfMemory`, and `MethodError` for a tensor of the method's that the model has already.
    public init(
        _ checkpoint: consuming ViTCheckpoint, classCount: Int, method: any TuningMethod, seed: Int,
        head: [String: HostTensor]? = nil, headKind: HeadKind = .linear, memory: MemoryPolicy = .balanced,
        forInference: Bool = false, on backend: any Backend
    ) throws {
        precondition(
            !forInference || method as? Backbone == .frozen, "what only infers has nothing that is trained")
        var configuration = checkpoint.configuration
        configuration.classCount = classCount
        (timmName, resizing) = (checkpoint.timmName, checkpoint.resizing)
        isHuggingFace = checkpoint.isHuggingFace
        let shape = configuration.shape
        (self.configuration, self.backend, self.method) = (configuration, backend, method)
        (memoryPolicy, self.headKind, isForInference) = (memory, headKind, forInference)
        let added = method.declarations(shape, seed: seed)
        if let taken = added.first(where: {
            checkpoint.tensors[$0.name] != nil || $0.name.hasPrefix("head.")
        }) {
            throw MethodError(
                "the method adds a tensor \(taken.name), which the model has; give it another name")
        }
        var declarations = checkpoint.backboneDeclarations(method.trains) + added
        for declaration in headKind.declarations(classCount, configuration.featureWidth, seed: seed) {
            declarations.append(head?[declaration.name].map { .init(declaration.name, $0) } ?? declaration)
        }
        var tensors = checkpoint.tensors
        checkpoint.tensors = [:]
        let store = try ParameterStore(backend, declarations)
        self.store = store

        let frozen = Arena(backend)
        // Only where a device reads another layout there is memory to give back, which an arena can't do.
        let repacks =
            try forInference
            && backend.prepared(LinearWeight(backend.allocate([8, 8], backend.precision.stored))).ready != nil
        var onDevice: [String: (tensor: Tensor, shape: [Int])] = [:]
        let stored = backend.precision.stored
        var rounded: [(copy: Tensor, trained: Tensor)] = []
        /// A tensor as operations of `type` read it; one that is trained stays float32 beside that.
        func parameter(_ name: String, _ type: ElementType = .float32) throws -> Parameter? {
            if let trained = store[name] {
                if let shape = tensors[name]?.shape { onDevice[name] = (trained.value, shape) }
                guard type != .float32 else { return trained }
                let copy = try frozen.take(trained.value.shape, type)
                rounded.append((copy, trained.value))
                return Parameter(name: name, value: copy, gradient: trained.gradient)
            }
            guard let host = forInference ? tensors.removeValue(forKey: name) : tensors[name] else {
                return nil
            }
            let tensor =
                try repacks ? backend.allocate(host.shape, type) : frozen.take(host.shape, type)
            backend.upload(tensor, host.values)
            if !forInference { onDevice[name] = (tensor, host.shape) }
            return Parameter(name: name, value: tensor)
        }
        func required(_ name: String, _ type: ElementType = .float32) throws -> Parameter {
            guard let found = try parameter(name, type) else {
                preconditionFailure("\(name) is not in the checkpoint")
            }
            return found
        }
        func norm(_ name: String, _ behind: ScaleShift?) throws -> Norm {
            Norm(
                weight: try required("\(name).weight"), bias: try parameter("\(name).bias"),
                epsilon: configuration.layerNormEpsilon, behind: behind, backend)
        }
        let (d, patch) = (configuration.width, configuration.patchSize)
        let patchLength = configuration.channels * patch * patch
        let pooling = configuration.pooling == .attention ? configuration.hiddenWidth : 0
        let largest =
            shape.sites.map { ($0.outputs, $0.inputs) } + [
                (classCount, configuration.featureWidth), (d, patchLength), (2 * pooling, d), (d, pooling),
            ]
        let scratch = try LinearScratch(
            frozen, weightCount: forInference ? 0 : largest.map { $0.0 * $0.1 }.max()!,
            outputs: largest.map(\.0).max()!,
            inputs: largest.map(\.1).max()!)
        func linear(_ name: String, _ type: ElementType, weightShape: [Int]? = nil) throws -> BaseLinear {
            let weight = try required("\(name).weight", type)
            return BaseLinear(
                name, weight: weightShape.map(weight.reshaped) ?? weight, bias: try parameter("\(name).bias"),
                scratch, backend)
        }
        var places = Attachments(
            shape,
            try (0..<configuration.depth).map { block in
                try shape.sites.map {
                    let linear = try linear("blocks.\(block).\($0.name)", stored)
                    if forInference { try linear.keepOnlyPacked() }
                    return linear
                }
            })
        try method.attach(to: &places, store, frozen, backend)
        attachments = places
        func layerScale(_ name: String) throws -> LayerScale? {
            configuration.layerScale ? LayerScale(try required("\(name).gamma"), backend) : nil
        }
        let prefix = [
            try parameter("cls_token")?.reshaped([1, d]),
            try parameter("reg_token")?.reshaped([configuration.registers, d]),
        ]
        embedding = PatchEmbedding(
            // The convolution's weight as a matrix.
            projection: PlainLinear(try linear("patch_embed.proj", stored, weightShape: [d, patchLength])),
            prefix: try .init(prefix.compactMap(\.self), width: d, frozen, backend),
            positions: try parameter("pos_embed")?.reshaped([configuration.positionCount, d]),
            behind: places.patches, norm: configuration.normBeforeBlocks ? try norm("norm_pre", nil) : nil,
            patchSize: patch)
        let rotation = try configuration.rotary.map { grid in
            let (side, headWidth) = (configuration.gridSize, d / configuration.heads)
            // Place 0 is that of the tokens which aren't turned.
            return try Rotation(
                angles: Array(repeating: 0, count: headWidth / 2)
                    + grid.angles(rows: side, columns: side, headWidth: headWidth),
                heads: configuration.heads, headWidth: headWidth, layout: grid.layout, frozen, backend)
        }
        blocks = try places.blocks.enumerated().map { index, block in
            let name = "blocks.\(index)"
            var extras = TransformerBlock.Extras()
            (extras.scale1, extras.scale2) = (try layerScale("\(name).ls1"), try layerScale("\(name).ls2"))
            extras.rotation = rotation
            if configuration.queryKeyNorm {
                extras.queryNorm = try norm("\(name).attn.q_norm", nil)
                extras.keyNorm = try norm("\(name).attn.k_norm", nil)
            }
            if configuration.attentionNorm { extras.attentionNorm = try norm("\(name).attn.norm", nil) }
            if configuration.hasHiddenNorm { extras.hiddenNorm = try norm("\(name).mlp.norm", nil) }
            return TransformerBlock(
                index, shape, heads: configuration.heads, block,
                norm1: try norm("blocks.\(index).norm1", block.norms[0]),
                norm2: try norm("blocks.\(index).norm2", block.norms[1]), extras: extras, backend)
        }
        var featureNorm: FeatureNorm?
        if let mean = store["head.running_mean"], let variance = store["head.running_var"] {
            featureNorm = FeatureNorm(runningMean: mean, runningVariance: variance, backend: backend)
        }
        // Prompts in front of the patches have moved them.
        let inFront = places.blocks.compactMap(\.tokens).filter { $0.front != nil }
            .reduce(configuration.prefixCount) { $0 + $1.count - $1.removed }
        let patches = inFront..<inFront + configuration.patchCount
        var attention: AttentionPooling?
        if configuration.pooling == .attention {
            func pool(_ name: String) throws -> PlainLinear {
                PlainLinear(try linear("attn_pool.\(name)", stored))
            }
            attention = AttentionPooling(
                latent: try required("attn_pool.latent").reshaped([1, d]), query: try pool("q"),
                keyValue: try pool("kv"), output: try pool("proj"), up: try pool("mlp.fc1"),
                down: try pool("mlp.fc2"), norm: try norm("attn_pool.norm", nil),
                heads: configuration.poolingHeads, activation: configuration.feedForward.activation,
                attended: configuration.poolsPrefix ? 0..<patches.upperBound : patches, backend: backend)
        }
        self.head = ClassifierHead(
            pooling: configuration.pooling,
            norm: configuration.hasFinalNorm ? try norm(configuration.finalNorm, places.norm) : nil,
            width: d, attention: attention, featureNorm: featureNorm,
            head: PlainLinear(try linear("head", .float32)),
            range: [.classToken, .classTokenBeforeNorm].contains(configuration.pooling) ? 0..<1 : patches,
            backend: backend)
        roundedWeights = rounded
        parameterByteCount = frozen.byteCount + store.values.byteCount * 4
        planArena = Arena(backend)
        unused = forInference ? [:] : tensors.filter { onDevice[$0.key] == nil && !$0.key.hasPrefix("head.") }
        self.onDevice = onDevice
        method.beginReading(layers)
    }

    /// The head's parameters, D·K + K, or 2·D·K + K where it reads two features.
    public var headParameterCount: Int { (configuration.featureWidth + 1) * configuration.classCount }

    // MARK: Memory

    /// The memory of one step for a batch of B images; letters as in `TransformerBlock`, and K classes.
    public struct Plan: StepPlan {
        public let isForTraining: Bool
        public let batch: Int
        public let blocks: [TransformerBlock.Memory]
        public let labels: Tensor
        public let losses: Tensor
        /// [B, K] what the outputs should be, where they aren't plain classes; nil in evaluation.
        public let targets: Tensor?
        let embedding: PatchEmbedding.Memory
        let head: ClassifierHead.Memory
        let places: [TokenPlaces]

        /// [B, 3, S, S] normalised pixels.
        public var images: Tensor { embedding.images }
        /// [B, K] what the head says.
        public var logits: Tensor { head.logits }
        /// [B, D] what the classifier reads: logits = features · Wᵀ + b.
        public var features: Tensor { head.featureNorm?.output ?? head.features }
        /// [B, T, D] the last block's tokens behind the LayerNorm, or before it in a model that norms their mean: the class token,
        /// prompts, patches. nil where the class token alone goes on; see `keepsTokens`.
        public var tokens: Tensor? {
            head.normed ?? (head.pooled == nil && head.normMemory != nil ? nil : head.output)
        }
        /// [B] per residual branch, two for a block: 0 or 1 / (1 − p), drawn by the trainer when drop-path is on.
        public var branchScales: [Tensor] { blocks.flatMap(\.branchScales) }
        public func stream(into block: Int) -> Tensor {
            block < blocks.count ? blocks[block].entry : head.output
        }
    }

    func layOut(batch: Int, memory policy: MemoryPolicy? = nil, _ workspace: Workspace) throws -> Plan {
        let classTokenAlone = configuration.pooling == .classToken && !keepsTokens
        var (memory, tokens): ([TransformerBlock.Memory], Int) = ([], configuration.tokenCount)
        var (places, first) = ([TokenPlaces](), configuration.prefixCount)
        for (block, edit) in zip(blocks, attachments.blocks.map(\.tokens)) {
            let incoming = tokens
            tokens += edit.map { $0.count - $0.replaced(of: incoming).count } ?? 0
            first += edit.flatMap { $0.front == nil ? nil : $0.count - $0.removed } ?? 0
            if configuration.rotary != nil, places.last?.hasPatches(from: first, of: tokens) != true {
                places.append(
                    TokenPlaces(
                        tensor: try workspace.own([batch * tokens], .int32), tokens: tokens, first: first,
                        patches: configuration.patchCount))
            }
            let isLast = block.index + 1 == configuration.depth
            memory.append(
                try block.memory(
                    batch: batch, incoming: incoming, tokens: tokens,
                    goingOn: isLast && classTokenAlone ? 1 : tokens, places: places.last?.tensor,
                    policy: policy ?? memoryPolicy, workspace))
        }
        let goingOn = classTokenAlone ? 1 : tokens
        let outputShape = [batch, goingOn, configuration.width]
        // In an evaluation the stream is overwritten in place.
        let output =
            goingOn == tokens ? try workspace.kept("input", outputShape) : try workspace.own(outputShape)
        return Plan(
            isForTraining: workspace.isForTraining, batch: batch, blocks: memory,
            labels: try workspace.own([batch], .int32), losses: try workspace.own([batch]),
            targets: workspace.isForTraining
                ? try workspace.own([batch, configuration.classCount]) : nil,
            embedding: try embedding.memory(
                batch: batch, imageSize: configuration.imageSize, channels: configuration.channels,
                tokens: configuration.tokenCount, workspace),
            head: try head.memory(batch: batch, output: output, workspace), places: places)
    }

    public func plan(batch: Int, isForTraining: Bool) throws -> Plan {
        let key = PlanKey(batch: batch, isForTraining: isForTraining)
        if key == lastPlan, let plan = plans[key] { return plan }
        var plan = plans[key]
        if plan == nil {
            planArena.reset()
            plan = try Workspace.layOut(
                in: planArena, isForTraining: isForTraining, stored: backend.precision.stored
            ) { try layOut(batch: batch, $0) }
            plans[key] = plan
        }
        // Another plan lies over the same memory.
        for places in plan!.places { backend.upload(places.tensor, places.values(batch: batch)) }
        lastPlan = key
        return plan!
    }

    /// The bytes of a plan, without taking them; the largest number where they are more than any memory has.
    func planByteCount(
        batch: Int, isForTraining: Bool, memory policy: MemoryPolicy? = nil, stored: ElementType? = nil
    ) -> Int {
        func bytes(_ batch: Int) -> Int {
            (try? Workspace.byteCount(
                isForTraining: isForTraining, stored: stored ?? backend.precision.stored
            ) {
                _ = try layOut(batch: batch, memory: policy, $0)
            }) ?? .max
        }
        // Sizes within `ViTConfiguration.check`'s bounds make numbers for one image, and may not for many.
        return product([bytes(1), batch]) == nil ? .max : bytes(batch)
    }

    public func plannedByteCount(batch: Int, memory: MemoryPolicy? = nil) -> Int {
        let plan = planByteCount(batch: batch, isForTraining: true, memory: memory)
        return plan > .max - parameterByteCount ? .max : parameterByteCount + plan
    }

    // MARK: Passes

    public func load(_ batch: Batch, into plan: Plan) {
        batch.withUnsafeBytes { backend.upload(plan.images, $0) }
        backend.upload(plan.labels, batch.labels)
    }

    public func beginPass() {
        for (copy, trained) in roundedWeights { backend.copy(copy, trained) }
        if embedding.isTrained { embedding.prefix?.collect(backend) }
        attachments.begin?()
    }

    public func embed(_ plan: Plan) {
        embedding.forward(plan.embedding, into: plan.stream(into: 0), backend)
    }

    public func forward(
        _ plan: Plan, fromBlock first: Int, _ mode: PassMode, onBlock: (Int) -> Void
    ) {
        for block in blocks.dropFirst(first) {
            if block.index > first { onBlock(block.index) }
            block.forward(plan.blocks[block.index], into: plan.stream(into: block.index + 1), mode)
        }
        head.forward(plan.head, mode)
    }

    public func loss(_ plan: Plan) {
        backend.softmaxCrossEntropy(plan.losses, plan.head.gradients?.logits, plan.logits, plan.labels)
    }

    public func loss(_ plan: Plan, _ kind: TargetLoss, _ targets: [Float]) {
        guard let tensor = plan.targets else { preconditionFailure("loss: a plan for evaluation") }
        backend.upload(tensor, targets)
        backend.targetLoss(plan.losses, plan.head.gradients?.logits, plan.logits, tensor, kind)
    }

    public func backward(_ plan: Plan, _ mode: PassMode = .evaluation, lossScale: Float = 1) {
        guard let dLogits = plan.head.gradients?.logits else {
            preconditionFailure("backward: a plan for evaluation")
        }
        if lossScale != 1 {
            backend.fill(plan.losses, lossScale)
            backend.scaleSamples(dLogits, dLogits, sampleScale: plan.losses)
        }
        // Below the first block that the step trains nothing is differentiated.
        let lowest = embedding.isTrained ? -1 : blocks.firstIndex { $0.lowestTrained != nil } ?? blocks.count
        let reaches = lowest < blocks.count || head.norm?.isTrained == true
        head.backward(plan.head, reaches ? plan.blocks.last?.outputGradient : nil, mode)
        for block in blocks.dropFirst(max(lowest, 0)).reversed() {
            block.backward(
                plan.blocks[block.index], mode, lowest: block.index == lowest ? block.lowestTrained : nil)
        }
        attachments.end?()
        if embedding.isTrained, let dStream = plan.blocks.first?.entryGradient {
            embedding.backward(plan.embedding, dStream, backend)
        }
    }

    public func isRight(_ outputs: [Float], labels: [Int32]) -> [Bool] {
        let classes = configuration.classCount
        return labels.enumerated().map { row, label in
            let scores = outputs[row * classes..<(row + 1) * classes]
            return scores.indexOfLargest - scores.startIndex == Int(label)
        }
    }
}

/// Where in the grid the tokens of a block are, for a rotation: patch i at place i + 1, all others at place 0.
struct TokenPlaces {
    let tensor: Tensor  // [B · T] int32
    let tokens, first, patches: Int

    func hasPatches(from first: Int, of tokens: Int) -> Bool { self.first == first && self.tokens == tokens }

    func values(batch: Int) -> [Int32] {
        let sample = (0..<tokens).map { Int32((first..<first + patches).contains($0) ? $0 - first + 1 : 0) }
        return (0..<batch).flatMap { _ in sample }
    }
}

extension ArraySlice<Float> {
    /// Where the largest element is, the first of equals as in `torch.argmax`; nowhere (the end) when none is a number.
    package var indexOfLargest: Int {
        var best = endIndex
        for index in indices where best == endIndex ? !self[index].isNaN : self[index] > self[best] {
            best = index
        }
        return best
    }
}

extension ViTCheckpoint {
    /// The backbone's tensors that `isTrained` picks by their names, in their order.
    func backboneDeclarations(_ isTrained: (String) -> Bool) -> [ParameterStore.Declaration] {
        tensors.filter { !$0.key.hasPrefix("head.") && isTrained($0.key) }
            .sorted { $0.key < $1.key }.map { .init($0.key, $0.value) }
    }
}
