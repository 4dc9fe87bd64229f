import TensorCore

// P = softmax(q kᵀ / √h), out = P v, per sample and head; and backward, with dS = P ⊙ (dP − Σ dP ⊙ P):
//
//     dv = Pᵀ dOut,  dP = dOut vᵀ,  dq = dS k / √h,  dk = dSᵀ q / √h
//
// The products are `matmul` of Matrices.cl over all samples and heads at once, the rows between them
// Attention.cl.

extension OpenCLBackend {
    /// out [B, T, D] and probabilities [B, heads, T, T] from qkv [B, T, 3·D].
    public func attention(_ out: Tensor, _ probabilities: Tensor, _ qkv: Tensor, heads: Int) {
        let size = AttentionSize(out, probabilities, qkv, heads, "attention")
        size.product(
            self, (probabilities, size.square), (qkv, size.part(0)), (qkv, size.part(1).transposed),
            n: size.tokens, k: size.head, alpha: size.scale)
        let rows = size.batch * heads * size.tokens
        launch("softmax_forward", (rowGroups(rows), 1, 1), probabilities, rows, size.tokens)
        size.product(
            self, (out, size.merged), (probabilities, size.square), (qkv, size.part(2)), n: size.head,
            k: size.tokens)
    }

    /// dqkv [B, T, 3·D] is overwritten; `dProbabilities` [B, heads, T, T] is scratch.
    public func attentionBackward(
        _ dqkv: Tensor, _ dProbabilities: Tensor, _ dOut: Tensor, _ qkv: Tensor, _ probabilities: Tensor,
        heads: Int
    ) {
        let size = AttentionSize(dOut, probabilities, qkv, heads, "attentionBackward")
        require(
            dqkv.count == qkv.count && dProbabilities.count == probabilities.count, "attentionBackward",
            "dqkv \(dqkv.shape) and dProbabilities \(dProbabilities.shape) don't fit")
        let (tokens, head) = (size.tokens, size.head)
        size.product(
            self, (dqkv, size.part(2)), (probabilities, size.square.transposed), (dOut, size.merged),
            n: head, k: tokens)
        size.product(
            self, (dProbabilities, size.square), (dOut, size.merged), (qkv, size.part(2).transposed),
            n: tokens, k: head)
        let rows = size.batch * heads * tokens
        launch("softmax_backward", (rowGroups(rows), 1, 1), dProbabilities, probabilities, rows, tokens)
        size.product(
            self, (dqkv, size.part(0)), (dProbabilities, size.square), (qkv, size.part(1)), n: head,
            k: tokens, alpha: size.scale)
        size.product(
            self, (dqkv, size.part(1)), (dProbabilities, size.square.transposed), (qkv, size.part(0)),
            n: head, k: tokens, alpha: size.scale)
    }
}

/// The sizes of an attention and where its matrices lie.
private struct AttentionSize {
    let batch: Int
    let tokens: Int
    let heads: Int
    /// A head's width.
    let head: Int
    var width: Int { heads * head }
    var scale: Float { 1 / Float(head).squareRoot() }

    init(_ out: Tensor, _ probabilities: Tensor, _ qkv: Tensor, _ heads: Int, _ operation: String) {
        require(
            out.shape.count == 3 && qkv.count == 3 * out.count && heads > 0 && out.columns % heads == 0
                && probabilities.count == out.shape[0] * heads * out.shape[1] * out.shape[1], operation,
            "out \(out.shape), probabilities \(probabilities.shape), qkv \(qkv.shape) and \(heads) heads don't fit"
        )
        (batch, tokens, self.heads, head) = (out.shape[0], out.shape[1], heads, out.columns / heads)
    }

    /// q, k or v: [T, head] per sample and head inside qkv.
    func part(_ index: Int) -> MatrixLayout {
        MatrixLayout(offset: index * width, row: 3 * width, batch: tokens * 3 * width, head: head)
    }
    /// [T, head] per sample and head inside [B, T, D].
    var merged: MatrixLayout { MatrixLayout(row: width, batch: tokens * width, head: head) }
    /// [T, T] per sample and head inside [B, heads, T, T].
    var square: MatrixLayout {
        MatrixLayout(row: tokens, batch: heads * tokens * tokens, head: tokens * tokens)
    }

    /// A product whose result has T rows.
    func product(
        _ backend: OpenCLBackend, _ c: (Tensor, MatrixLayout), _ a: (Tensor, MatrixLayout),
        _ b: (Tensor, MatrixLayout), n: Int, k: Int, alpha: Float = 1
    ) {
        backend.batchedMatmul(c, a, b, m: tokens, n: n, k: k, batch: batch, heads: heads, alpha: alpha)
    }
}
