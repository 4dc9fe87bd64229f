import Adapters
import ModelConfiguration
import TensorCore
import Transformers

/// From the last block's stream [B, Q, D] to the logits:
///
///     logits = head(pool(LN x))        or head(LN(pool x)), and a batch norm before the head where a method has one
///
/// pool takes the class token, the mean of the patches, both, one behind the other, or an attention to the patches. Some models have no
/// LN behind the blocks.
struct ClassifierHead {
    let pooling: ViTConfiguration.Pooling
    let norm: Norm?  // none where the mean of the stream as it is is read
    let width: Int
    let attention: AttentionPooling?  // where the pooling is that
    let featureNorm: FeatureNorm?
    let head: PlainLinear
    /// The tokens that are pooled.
    let range: Range<Int>
    let backend: any Backend

    struct Memory {
        let logits: Tensor  // [B, K] what the head says
        let output: Tensor  // [B, Q, D] the stream as it leaves the last block
        let normMemory: Norm.Memory?
        let normed: Tensor?  // [B, Q, D] the LayerNorm before a mean, or of all tokens
        let pooled: Tensor?  // [B, D] the mean before the LayerNorm
        let half: Tensor?  // [B, D] of one feature after the other, where two are read
        let features: Tensor  // [B, D] or [B, 2·D] what the head reads, or the batch norm before it
        let featureNorm: FeatureNorm.Memory?
        let attention: AttentionPooling.Memory?
        let pass: any LinearPass
        let gradients: Gradients?  // nil in evaluation

        struct Gradients {
            let logits: Tensor  // [B, K]
            let features: Tensor  // [B, D] or [B, 2·D]
            let pooled: Tensor  // [B, D]
            let normed: Tensor?  // [B, Q, D]
        }
    }

    /// Memory for B images of which Q tokens arrive. Throws what the workspace throws.
    func memory(batch b: Int, output: Tensor, _ workspace: Workspace) throws -> Memory {
        let (q, d, k) = (output.shape[1], output.shape[2], head.base.outputs)
        let readsBoth = head.base.inputs == 2 * d
        // A class token that comes with all others is taken from the normed ones.
        let isMeanOfNormed =
            pooling == .meanAfterNorm || readsBoth || attention != nil || pooling == .classToken && q > 1
        let logits = try workspace.own([b, k])
        let normed =
            isMeanOfNormed ? try workspace.shared("normed", [b, q, d], workspace.stored) : nil
        let pooled = pooling == .meanBeforeNorm ? try workspace.own([b, d]) : nil
        var gradients: Memory.Gradients?
        if workspace.isForTraining {
            gradients = Memory.Gradients(
                logits: try workspace.own([b, k]), features: try workspace.own([b, head.base.inputs]),
                pooled: try workspace.own([b, d]),
                normed: isMeanOfNormed
                    ? try workspace.shared("d normed", [b, q, d], workspace.stored) : nil)
        }
        return Memory(
            logits: logits, output: output,
            normMemory: try norm?.memory(
                rows: isMeanOfNormed ? b * q : b, isMeanOfNormed ? workspace.stored : .float32, "last norm",
                workspace),
            normed: normed, pooled: pooled,
            half: readsBoth ? try workspace.own([b, d]) : nil,
            features: try workspace.own([b, head.base.inputs]),
            featureNorm: try featureNorm?.memory(batch: b, workspace),
            attention: try attention?.memory(batch: b, tokens: q, workspace),
            pass: head.pass(rows: b, product: nil, in: workspace), gradients: gradients)
    }

    func forward(_ m: Memory, _ mode: PassMode) {
        pool(m)
        if let featureNorm, let memory = m.featureNorm {
            featureNorm.forward(memory, m.features, isTraining: mode.dropoutSeed != nil)
        }
        m.pass.forward(m.logits, m.featureNorm?.output ?? m.features, activated: nil, dropoutSeed: nil)
    }

    private func pool(_ m: Memory) {
        guard let norm, let memory = m.normMemory else {
            return backend.poolTokens(m.features, m.output, range: range)
        }
        guard let normed = m.normed else {
            if let pooled = m.pooled { backend.poolTokens(pooled, m.output, range: range) }
            return norm.forward(m.features, m.pooled ?? m.output, memory)
        }
        norm.forward(normed, m.output, memory)
        if let attention, let memory = m.attention {
            return attention.forward(memory, into: m.features, normed)
        }
        for (index, part) in parts.enumerated() {
            backend.poolTokens(m.half ?? m.features, normed, range: part)
            if let pooled = m.half { copy(half(m.features, index), half(pooled, 0)) }
        }
    }

    /// The ranges of the normed tokens whose means the head reads.
    private var parts: [Range<Int>] {
        switch pooling {
        case .classTokenAndMean: [0..<1, range]
        case .classTokenAndSecond: [0..<1, 1..<2]
        default: [range]
        }
    }

    /// The rows' numbers from index · D on, D of them each.
    private func half(_ features: Tensor, _ index: Int) -> MatrixBlock {
        MatrixBlock(features, offset: index * width, stride: features.columns)
    }

    private func copy(_ to: MatrixBlock, _ from: MatrixBlock) {
        backend.copyBlock(
            to, from, rows: to.tensor.rows, columns: width, accumulate: false)
    }

    /// The head's gradients, and where `dOutput` [B, Q, D] is wanted that of the last block's stream.
    func backward(_ m: Memory, _ dOutput: Tensor?, _ mode: PassMode) {
        guard let g = m.gradients else { preconditionFailure("backward: a plan for evaluation") }
        m.pass.backward(
            dOutput == nil ? nil : g.features, g.logits, m.featureNorm?.output ?? m.features, dropoutSeed: nil
        )
        guard let dOutput else { return }
        if let featureNorm, let memory = m.featureNorm {
            featureNorm.backward(g.features, memory, m.features, isTraining: mode.dropoutSeed != nil)
        }
        poolBackward(m, g, dOutput)
    }

    private func poolBackward(_ m: Memory, _ g: Memory.Gradients, _ dOutput: Tensor) {
        guard let norm, let memory = m.normMemory else {
            return backend.poolTokensBackward(dOutput, g.features, range: range)
        }
        guard let dNormed = g.normed, let normed = m.normed else {
            guard let pooled = m.pooled else {
                return norm.backward(dOutput, g.features, m.output, memory, accumulate: false)
            }
            norm.backward(g.pooled, g.features, pooled, memory, accumulate: false)
            return backend.poolTokensBackward(dOutput, g.pooled, range: range)
        }
        if let attention, let own = m.attention {
            attention.backward(own, dNormed, g.features, normed)
            return norm.backward(dOutput, dNormed, m.output, memory, accumulate: false)
        }
        for (index, part) in parts.enumerated() {
            if parts.count > 1 { copy(half(g.pooled, 0), half(g.features, index)) }
            backend.poolTokensBackward(dNormed, parts.count > 1 ? g.pooled : g.features, range: part)
            norm.backward(dOutput, dNormed, m.output, memory, accumulate: index > 0)
        }
    }
}
