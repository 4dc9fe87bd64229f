import Adapters
import TensorCore
import Transformers

/// The attention of one learned query to the tokens:
///
///     k, v = kv(x);   a = softmax(q(latent) kᵀ/√h) v;   p = proj(a);   y = p + fc2(f(fc1(LN p)))
///
/// x [B, T, D] of which the tokens `attended` are attended to, y [B, D]. Source: timm 1.0.31, `AttentionPoolLatent`.
struct AttentionPooling {
    let latent: Parameter  // [1, D]
    let query, keyValue, output, up, down: PlainLinear  // [D, D], [2·D, D], [D, D], [F, D], [D, F]
    let norm: Norm
    let heads: Int
    let activation: Activation
    let attended: Range<Int>
    let backend: any Backend

    struct Memory {
        let latent, query: Tensor  // [1, 1, D] as it is stored, and behind its Linear
        let keyValue: Tensor  // [B, T, 2·D]
        let logSumExp: Tensor  // [B, H, 1]
        let attended: Tensor  // [B, 1, D]
        let branch: Tensor  // [B, D] out of proj, then out of fc2
        let pooled: Tensor  // [B, D] p
        let norm: Norm.Memory
        let normed: Tensor  // [B, D]
        let hidden, activated: Tensor  // [B, F]
        let passes: (query: any LinearPass, keyValue: any LinearPass, output: any LinearPass)
        let mlp: (up: any LinearPass, down: any LinearPass)
        let gradients: Gradients?  // nil in evaluation

        struct Gradients {
            let branch, normed: Tensor  // [B, D]
            let hidden: Tensor  // [B, F]
            let attended, query: Tensor  // [B, 1, D]
            let keyValue: Tensor  // [B, T, 2·D]
            let sum: Tensor  // [1, D] of the queries' over the samples
            let latent, wide: Tensor  // [1, D] as it is stored, and in float32
        }
    }

    private var isQueryTrained: Bool { latent.gradient != nil || query.isTrained }

    func memory(batch b: Int, tokens t: Int, _ workspace: Workspace) throws -> Memory {
        let (d, f, stored) = (output.base.outputs, up.base.outputs, workspace.stored)
        func own(_ shape: Int...) throws -> Tensor { try workspace.own(shape, stored) }
        return Memory(
            latent: try own(1, 1, d), query: try own(1, 1, d), keyValue: try own(b, t, 2 * d),
            logSumExp: try workspace.own([b, heads, 1]), attended: try own(b, 1, d), branch: try own(b, d),
            pooled: try workspace.own([b, d]),
            norm: try norm.memory(rows: b, stored, "pooling's norm", workspace), normed: try own(b, d),
            hidden: try own(b, f), activated: try own(b, f),
            passes: (
                query.pass(rows: 1, product: nil, in: workspace),
                keyValue.pass(rows: b * t, product: nil, in: workspace),
                output.pass(rows: b, product: nil, in: workspace)
            ),
            mlp: (
                up.pass(rows: b, product: nil, in: workspace), down.pass(rows: b, product: nil, in: workspace)
            ),
            gradients: workspace.isForTraining
                ? Memory.Gradients(
                    branch: try own(b, d), normed: try own(b, d), hidden: try own(b, f),
                    attended: try own(b, 1, d), query: try own(b, 1, d), keyValue: try own(b, t, 2 * d),
                    sum: try workspace.own([1, d]), latent: try own(1, d), wide: try workspace.own([1, d]))
                : nil)
    }

    func forward(_ m: Memory, into y: Tensor, _ x: Tensor) {
        backend.copy(m.latent, latent.value)
        m.passes.query.forward(m.query, m.latent, activated: nil, dropoutSeed: nil)
        m.passes.keyValue.forward(m.keyValue, x, activated: nil, dropoutSeed: nil)
        backend.attention(
            m.attended, m.logSumExp, queries: queries(m), keys: half(m.keyValue, 0),
            values: half(m.keyValue, 1), tokens: attended.count, heads: heads)
        m.passes.output.forward(m.branch, m.attended, activated: nil, dropoutSeed: nil)
        backend.copy(m.pooled, m.branch)
        norm.forward(m.normed, m.pooled, m.norm)
        m.mlp.up.forward(m.hidden, m.normed, activated: nil, dropoutSeed: nil)
        backend.activate(m.activated, m.hidden, activation)
        m.mlp.down.forward(m.branch, m.activated, activated: nil, dropoutSeed: nil)
        backend.residualAdd(y, m.pooled, m.branch, sampleScale: nil)
    }

    /// dx [B, T, D] from dy [B, D], which is overwritten; parameters' gradients accumulate.
    func backward(_ m: Memory, _ dx: Tensor, _ dy: Tensor, _ x: Tensor) {
        guard let g = m.gradients else { preconditionFailure("backward: a plan for evaluation") }
        backend.copy(g.branch, dy)
        m.mlp.down.backward(g.hidden, g.branch, m.activated, dropoutSeed: nil)
        backend.activateBackward(g.hidden, g.hidden, m.hidden, activation)
        m.mlp.up.backward(g.normed, g.hidden, m.normed, dropoutSeed: nil)
        norm.backward(dy, g.normed, m.pooled, m.norm, accumulate: true)
        backend.copy(g.branch, dy)
        m.passes.output.backward(g.attended, g.branch, m.attended, dropoutSeed: nil)
        // Tokens that aren't attended to get nothing.
        if attended.count < m.keyValue.shape[1] { backend.clear(g.keyValue) }
        backend.attentionBackward(
            TokenBlock(g.query), half(g.keyValue, 0), half(g.keyValue, 1), g.attended, m.attended,
            m.logSumExp, queries: queries(m), keys: half(m.keyValue, 0), values: half(m.keyValue, 1),
            tokens: attended.count, heads: heads)
        m.passes.keyValue.backward(dx, g.keyValue, x, dropoutSeed: nil)
        guard isQueryTrained else { return }
        backend.sumRows(g.sum, g.query, accumulate: false)
        let sum = g.latent.elementType == .float32 ? g.sum : g.query.leading([1, g.sum.count])
        if sum.elementType != .float32 { backend.copy(sum, g.sum) }
        m.passes.query.backward(g.latent, sum, m.latent, dropoutSeed: nil)
        guard let gradient = latent.gradient else { return }
        backend.copy(g.wide, g.latent)
        backend.addScaled(gradient, g.wide, 1)
    }

    /// The one query, the same for all samples.
    private func queries(_ m: Memory) -> TokenBlock {
        TokenBlock(m.query, stride: m.query.columns, sampleStride: 0)
    }

    /// Keys (0) or values (1) of those attended to, [B, N, D] of [B, T, 2·D].
    private func half(_ keyValue: Tensor, _ index: Int) -> TokenBlock {
        let columns = keyValue.columns
        return TokenBlock(
            keyValue, offset: attended.lowerBound * columns + index * columns / 2, stride: columns,
            sampleStride: keyValue.shape[1] * columns)
    }
}
