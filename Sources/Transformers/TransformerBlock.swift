import Adapters
import TensorCore

/// A pre-norm block:
///
///     x ← x + s · γ₁ ⊙ output(attention(LN₁ x))        s: drop-path's scale of the sample, 1 in evaluation
///     x ← x + s · γ₂ ⊙ down(hidden(LN₂ x))              γ: the layer scales where a model has them
///
/// `SelfAttention` makes queries, keys and values and what comes of them, `HiddenLayer` what is wide in between.
/// B samples, T tokens, D width, F hidden width, H heads. Q tokens go on behind the attention: all T, or in the last block of a model
/// that pools the class token that one alone (7 % of a ViT-B's step). T is another number in each block of a method that changes
/// the sequence.
public final class TransformerBlock {
    /// The block's number, from 0.
    public let index: Int
    /// The layers at the block's sites, in the order of the forward pass.
    public let layers: [any LinearLayer]
    /// Before the attention and before the feed-forward layer.
    public let norm1, norm2: Norm
    /// Behind the attention's output and behind the feed-forward layer; nil where the model has none.
    public let scale1, scale2: LayerScale?

    private let width, hiddenWidth, depth: Int
    private let attention: SelfAttention
    private let hidden: HiddenLayer
    private let places: Attachments.Block
    private let backend: any Backend

    /// What a block has that a plain one hasn't: layer scales, norms of queries and keys, their rotation, norms behind attention and
    /// gate.
    public struct Extras {
        public var scale1, scale2: LayerScale?
        public var rotation: Rotation?
        public var queryNorm, keyNorm: Norm?
        public var attentionNorm, hiddenNorm: Norm?

        /// Nothing.
        public init() {}
    }

    /// Block `index` of a transformer of `shape` with what a method put there.
    public init(
        _ index: Int, _ shape: TransformerShape, heads: Int, _ places: Attachments.Block, norm1: Norm,
        norm2: Norm, extras: Extras = Extras(), _ backend: any Backend
    ) {
        (self.index, self.places, self.norm1, self.norm2) = (index, places, norm1, norm2)
        (layers, self.backend) = (places.linears, backend)
        (width, hiddenWidth, depth) = (shape.width, shape.hiddenWidth, shape.depth)
        (scale1, scale2) = (extras.scale1, extras.scale2)
        let roles = shape.sites.map(\.role)
        let inputs: [LinearRole] = [.fusedQKV, .query, .key, .value]
        attention = SelfAttention(
            layers: inputs.filter(roles.contains).map { ($0, places[$0]) },
            headNorms: extras.queryNorm.flatMap { query in extras.keyNorm.map { [query, $0] } } ?? [],
            rotation: extras.rotation, norm: extras.attentionNorm, width: shape.width, heads: heads,
            backend: backend)
        hidden = HiddenLayer(
            kind: shape.feedForward, up: places[.up], gate: roles.contains(.gate) ? places[.gate] : nil,
            norm: extras.hiddenNorm, backend: backend)
    }

    /// The places of a block in the order of the forward pass, as far as something can be trained there.
    public enum Part: Int, Comparable, Sendable {
        case tokens, norm1, qkv, output, norm2, up, down, besideMLP

        public static func < (a: Part, b: Part) -> Bool { a.rawValue < b.rawValue }
    }

    /// The first place at which this step trains something; nil for none.
    public var lowestTrained: Part? {
        if places.tokens != nil { return .tokens }
        if norm1.isTrained { return .norm1 }
        if attention.isTrained { return .qkv }
        if places[.output].isTrained || scale1?.isTrained == true { return .output }
        if norm2.isTrained { return .norm2 }
        if hidden.isTrained { return .up }
        if places[.down].isTrained { return .down }
        let isTrainedBehind = places.behindMLP != nil || scale2?.isTrained == true
        return isTrainedBehind || places.besideMLP != nil ? .besideMLP : nil
    }

    // MARK: Memory

    /// What one pass over B samples works in, and what its backward reads.
    public struct Memory {
        /// [B, T₀, D]: where the block before writes the stream.
        public let entry: Tensor
        /// [B] for either residual branch: 0 or 1 / (1 − p) where drop-path is on; none in evaluation.
        public let branchScales: [Tensor]

        let edit: PlacedEdit?
        let input: Tensor  // [B, T, D] the residual stream as it enters
        let norm1: Norm.Memory
        let normed1: Tensor  // [B, T, D]; shared by the blocks under low
        let attention: SelfAttention.Memory
        let output: any LinearPass
        let goingOn: Tensor?  // [B, Q, D] the tokens of the input that go on, when they are not all
        let branch: Tensor  // [B, Q, D] a branch's output before the residual
        let unscaled1, unscaled2: Tensor?  // [B, Q, D] what a γ that is trained scales
        let middle: Tensor  // [B, Q, D] the stream between attention and MLP
        let norm2: Norm.Memory
        let normed2: Tensor  // [B, Q, D]; shared under low
        let hidden: HiddenLayer.Memory
        let down: any LinearPass
        let mlpOutput: Tensor?  // [B, Q, D] where something is behind the MLP
        let behindMLP, besideMLP: PlacedTerm?
        let gradients: Gradients?  // nil in evaluation
        /// Whether the blocks share the outputs of their norms: a backward computes them again.
        let sharesNormed: Bool
        /// [B, Q, D]: where a backward that begins with the block's forward writes what that gives; nil where none does.
        let recomputed: Tensor?

        /// What the backward alone works in, one block at a time.
        struct Gradients {
            let stream: Tensor  // [B, T, D] of the residual stream
            let middle: Tensor  // [B, Q, D] of the stream behind the attention; `stream` when Q = T
            let branch: Tensor  // [B, Q, D] of a branch's output, where that isn't the stream's
            let normed1, normed2: Tensor  // [B, T, D], [B, Q, D] of a LayerNorm's output; of the attention's
            let hidden: Tensor  // [B, Q, F] of what down reads
        }

        /// [B, Q, D]: the gradient of what the block gives, which its backward begins from.
        public var outputGradient: Tensor? { gradients?.middle }
        /// [B, T₀, D]: the gradient of what the block got, which its backward ends with.
        public var entryGradient: Tensor? { gradients?.stream.leading(entry.shape) }
    }

    /// Memory for B samples of which T₀ tokens come in, T are worked on and Q go on; `places` [B · T] int32 says where each of the T
    /// is, for a rotation. Throws what the workspace throws.
    public func memory(
        batch b: Int, incoming: Int, tokens t: Int, goingOn q: Int, places: Tensor? = nil,
        policy: MemoryPolicy, _ workspace: Workspace
    ) throws -> Memory {
        let (d, f, stored) = (width, hiddenWidth, workspace.stored)
        let isForTraining = workspace.isForTraining
        let isRecomputed = isForTraining && policy == .lowest
        let sharesNormed = !isForTraining || policy == .low
        let sharesHidden = !isForTraining || policy == .low || policy == .balanced
        func kept(_ name: String, _ shape: [Int]) throws -> Tensor { try workspace.kept(name, shape, stored) }
        func normed(_ name: String, _ shape: [Int]) throws -> Tensor {
            sharesNormed ? try workspace.shared("normed", shape, stored) : try kept(name, shape)
        }
        /// A layer's pass, with memory for z where it may keep that.
        func pass(_ role: LinearRole) throws -> any LinearPass {
            let layer = self.places[role]
            let mayKeep = isForTraining && layer.mayKeepProduct
            let product = mayKeep ? try kept("product of \(role)", [b * q, layer.base.outputs]) : nil
            return try layer.pass(rows: b * q, product: product, in: workspace)
        }
        func term(_ term: (any Update)?, _ type: ElementType, _ name: String) throws -> PlacedTerm? {
            try term.map {
                try PlacedTerm(
                    $0, rows: b * q, inputs: d, outputs: d, type, name: name, workspace, backend)
            }
        }
        let edit = try self.places.tokens.map {
            try PlacedEdit($0, block: index, batch: b, tokens: incoming, width: d, workspace)
        }
        let input = try workspace.kept("input", [b, t, d])
        workspace.isRecomputed = isRecomputed
        defer { workspace.isRecomputed = false }
        var gradients: Memory.Gradients?
        if isForTraining {
            func shared(_ name: String, _ shape: [Int], _ type: ElementType) throws -> Tensor {
                try workspace.shared("d \(name)", shape, type)
            }
            _ = try shared("stream", [b, incoming, d], .float32)
            let stream = try shared("stream", [b, t, d], .float32)
            let normed = try shared("normed", [b, t, d], stored)
            gradients = Memory.Gradients(
                stream: stream, middle: q == t ? stream : try workspace.own([b, q, d]),
                branch: try shared("branch", [b, q, d], stored), normed1: normed,
                normed2: normed.leading([b, q, d]), hidden: try shared("hidden", [b, q, f], stored))
        }
        return Memory(
            entry: edit?.incoming ?? input,
            branchScales: isForTraining ? try (0..<2).map { _ in try workspace.own([b]) } : [],
            edit: edit, input: input,
            norm1: try norm1.memory(rows: b * t, stored, "norm1", workspace),
            normed1: try normed("normed1", [b, t, d]),
            attention: try attention.memory(batch: b, tokens: t, queries: q, places: places, workspace),
            output: try pass(.output), goingOn: q == t ? nil : try workspace.own([b, q, d]),
            branch: try workspace.shared("branch", [b, q, d], stored),
            unscaled1: try scale1?.memory(rows: b * q, workspace),
            unscaled2: try scale2?.memory(rows: b * q, workspace),
            middle: try workspace.kept("middle", [b, q, d]),
            norm2: try norm2.memory(rows: b * q, stored, "norm2", workspace),
            normed2: try normed("normed2", [b, q, d]),
            hidden: try hidden.memory(batch: b, tokens: q, width: f, isShared: sharesHidden, workspace),
            down: try pass(.down),
            mlpOutput: self.places.behindMLP == nil ? nil : try kept("MLP", [b, q, d]),
            behindMLP: try term(self.places.behindMLP, stored, "behind MLP"),
            besideMLP: try term(self.places.besideMLP, .float32, "beside MLP"), gradients: gradients,
            sharesNormed: sharesNormed,
            // The last block's is still there.
            recomputed: isRecomputed && index + 1 < depth
                ? try workspace.shared("recomputed", [b, q, d]) : nil)
    }

    // MARK: Forward

    /// `out` [B, Q, D] from `memory.entry`.
    public func forward(_ m: Memory, into out: Tensor, _ mode: PassMode) {
        m.edit?.forward(m.input, dropoutSeed: mode.dropoutSeed, backend)
        forwardFromInput(m, into: out, mode)
    }

    /// The same from `memory.input`, behind a change of the tokens.
    private func forwardFromInput(_ m: Memory, into out: Tensor, _ mode: PassMode) {
        let seed = mode.dropoutSeed
        func scale(_ branch: Int) -> Tensor? { mode.dropsBranches ? m.branchScales[branch] : nil }
        let inputs = m.attention.projections.map(\.pass)
        for pass in inputs + [m.output] + m.hidden.passes + [m.down] { pass.begin() }

        norm1.forward(m.normed1, m.input, m.norm1)
        attention.forward(m.attention, m.normed1, dropoutSeed: seed)
        m.output.forward(m.branch, m.attention.output, activated: nil, dropoutSeed: seed)
        scale1?.forward(m.branch, keeping: m.unscaled1)
        if let first = m.goingOn { backend.poolTokens(first.rowsOfFirstToken, m.input, range: 0..<1) }
        backend.residualAdd(m.middle, m.goingOn ?? m.input, m.branch, sampleScale: scale(0))

        norm2.forward(m.normed2, m.middle, m.norm2)
        hidden.forward(m.hidden, m.normed2, dropoutSeed: seed)
        m.down.forward(m.branch, m.hidden.output, activated: nil, dropoutSeed: seed)
        if let behind = m.behindMLP, let output = m.mlpOutput {
            backend.copy(output, m.branch)
            behind.add(to: m.branch, output, dropoutSeed: seed)
        }
        scale2?.forward(m.branch, keeping: m.unscaled2)
        backend.residualAdd(out, m.middle, m.branch, sampleScale: scale(1))
        // Beside the MLP, not part of it: stochastic depth doesn't drop it.
        m.besideMLP?.add(to: out, m.middle, dropoutSeed: seed)
    }

    // MARK: Backward

    /// `memory.entryGradient` from `memory.outputGradient`, after `forward` in the same mode; parameters' gradients accumulate.
    /// Below `lowest` nothing is trained and nothing computed: a gradient that nobody wants is nil, and so is what would follow
    /// from it.
    public func backward(_ m: Memory, _ mode: PassMode, lowest: Part?) {
        guard let g = m.gradients else { preconditionFailure("backward: memory for evaluation") }
        if let recomputed = m.recomputed { forwardFromInput(m, into: recomputed, mode) }
        let seed = mode.dropoutSeed
        /// dx through a Linear.
        func through(
            _ part: Part, _ role: LinearRole, _ pass: any LinearPass, _ dx: Tensor,
            _ dy: @autoclosure () -> Tensor?, _ x: Tensor
        ) -> Tensor? {
            guard lowest.map({ $0 <= part }) ?? true, let dy = dy() else { return nil }
            let isWanted = lowest.map { $0 < part } ?? true
            let isNeeded = isWanted || places[role].needsInputGradient
            pass.backward(isNeeded ? dx : nil, dy, x, dropoutSeed: seed)
            return isWanted ? dx : nil
        }
        /// The gradient of a branch's output before its γ, in memory that may be `overwritten`. A branch may be stored in fewer bits
        /// than the stream.
        func branch(_ number: Int, _ scale: LayerScale?, _ unscaled: Tensor?, overwritten: Bool) -> Tensor {
            guard
                overwritten || scale != nil || mode.dropsBranches
                    || g.branch.elementType != g.middle.elementType
            else { return g.middle }
            backend.scaleSamples(
                g.branch, g.middle, sampleScale: mode.dropsBranches ? m.branchScales[number] : nil)
            scale?.backward(g.branch, unscaled)
            return g.branch
        }

        let behind = m.behindMLP
        let dMLP = branch(
            1, scale2, m.unscaled2, overwritten: behind != nil || places[.down].overwritesGradient)
        behind?.backward(dMLP, dMLP, m.mlpOutput!, dropoutSeed: seed)
        hidden.restore(m.hidden)
        let dHidden = through(.down, .down, m.down, g.hidden, dMLP, m.hidden.output)
        // The MLP has read the stream's gradient; from here on it may grow.
        m.besideMLP?.backward(g.middle, g.middle, m.middle, dropoutSeed: seed)
        if let dHidden {
            let gradients = hidden.backward(m.hidden, dHidden)
            if m.sharesNormed { norm2.again(m.normed2, m.middle, m.norm2) }
            for (role, pass, dy) in gradients {
                let dNormed = through(.up, role, pass, g.normed2, dy, m.normed2)
                if let dNormed { norm2.backward(g.middle, dNormed, m.middle, m.norm2, accumulate: true) }
            }
        }

        let dAttended = through(
            .output, .output, m.output, g.normed2,
            branch(0, scale1, m.unscaled1, overwritten: places[.output].overwritesGradient),
            m.attention.output)
        guard let dAttended else { return }
        let gradients = attention.backward(m.attention, dAttended)
        if m.sharesNormed { norm1.again(m.normed1, m.input, m.norm1) }
        if m.goingOn != nil, lowest.map({ $0 < .qkv }) ?? true {
            backend.poolTokensBackward(g.stream, g.middle.rowsOfFirstToken, range: 0..<1)
        }
        var isReached = false
        for ((role, projection), dy) in zip(
            zip(attention.layers.map(\.role), m.attention.projections), gradients)
        {
            let dNormed = through(.qkv, role, projection.pass, g.normed1, dy, m.normed1)
            guard let dNormed else { continue }
            norm1.backward(g.stream, dNormed, m.input, m.norm1, accumulate: true)
            isReached = true
        }
        if isReached { m.edit?.backward(g.stream, g.stream, dropoutSeed: seed, backend) }
    }
}

extension Tensor {
    /// [B, 1, D] as [B, D].
    fileprivate var rowsOfFirstToken: Tensor { reshaped([shape[0], shape[2]]) }
}

/// How a pass runs.
public struct PassMode: Sendable {
    /// Seeds every dropout, and a batch norm uses the batch; nil in evaluation.
    public var dropoutSeed: UInt64?
    /// Whether every residual branch is scaled by its `branchScales`.
    public var dropsBranches: Bool

    /// A pass of a training, or without a seed one of an evaluation.
    public init(dropoutSeed: UInt64? = nil, dropsBranches: Bool = false) {
        (self.dropoutSeed, self.dropsBranches) = (dropoutSeed, dropsBranches)
    }

    /// Nothing is dropped.
    public static let evaluation = PassMode()
}

/// What a step keeps for its backward and what it computes once more, from the least memory to the most. Figures are for ViT-B/16,
/// batch 8.
public enum MemoryPolicy: String, CaseIterable, Sendable, Codable {
    /// Keeps each block's input alone and computes the block again (activation checkpointing; Chen et al., arXiv 1604.06174).
    case lowest
    /// Recomputes both LayerNorms' outputs and GELU's.
    case low
    /// Recomputes GELU's output: 1 % of a step against 230 MB.
    case balanced
    /// Keeps all that a backward reads.
    case fast
}
