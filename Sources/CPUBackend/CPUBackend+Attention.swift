import TensorCore

// Multi-head self-attention. Per image and head, with q, k, v [T, h] read in place from the fused qkv (row
// length 3·D):
//
//     P = softmax(s · q kᵀ),  out = P v,  s = 1/√h
//     dv = Pᵀ dout,  dP = dout vᵀ,  dS = P ⊙ (dP − Σ P ⊙ dP over the row),  dq = s · dS k,  dk = s · dSᵀ q
//
// Heads are independent: threads take them in turn, each with small products of its own.

extension CPUBackend {
    /// out [B, T, D] and the probabilities [B, heads, T, T] from qkv [B, T, 3·D].
    public func attention(_ out: Tensor, _ probabilities: Tensor, _ qkv: Tensor, heads: Int) {
        let s = AttentionShape(qkv, heads: heads, "attention")
        require(
            out.count == s.images * s.tokens * s.width && probabilities.count == s.probabilityCount,
            "attention",
            "out \(out.shape), P \(probabilities.shape) and qkv \(qkv.shape) don't fit with \(heads) heads")
        let qkv = floats(qkv, "attention")  // [B, T, 3·D]
        let out = floats(out, "attention")  // [B, T, D]
        let probabilities = floats(probabilities, "attention")  // [B, heads, T, T]
        parallel(s.images * heads, grain: s.grain) { range in
            for index in range {
                let q = qkv + s.offset(index)  // [T, h], as are k and v
                let (k, v) = (q + s.width, q + 2 * s.width)
                let p = probabilities + index * s.tokens * s.tokens  // [T, T]
                gemm(
                    p, ldc: s.tokens, q, lda: s.stride, k, ldb: s.stride, m: s.tokens, n: s.tokens,
                    k: s.headWidth,
                    transposeB: true, alpha: s.scale)
                for row in 0..<s.tokens { softmax(p + row * s.tokens, p + row * s.tokens, s.tokens) }
                gemm(
                    out + s.outOffset(index), ldc: s.width, p, lda: s.tokens, v, ldb: s.stride,
                    m: s.tokens, n: s.headWidth, k: s.tokens)
            }
        }
    }

    /// dqkv [B, T, 3·D] is overwritten; `dProbabilities` [B, heads, T, T] is scratch.
    public func attentionBackward(
        _ dqkv: Tensor, _ dProbabilities: Tensor,
        _ dOut: Tensor, _ qkv: Tensor, _ probabilities: Tensor, heads: Int
    ) {
        let s = AttentionShape(qkv, heads: heads, "attentionBackward")
        require(
            dqkv.count == qkv.count && dOut.count == s.images * s.tokens * s.width
                && probabilities.count == s.probabilityCount && dProbabilities.count == s.probabilityCount,
            "attentionBackward",
            "dqkv \(dqkv.shape), dout \(dOut.shape), P \(probabilities.shape) and qkv \(qkv.shape) don't fit")
        let dqkv = floats(dqkv, "attentionBackward")  // [B, T, 3·D]
        let dProbabilities = floats(dProbabilities, "attentionBackward")  // [B, heads, T, T]
        let dOut = floats(dOut, "attentionBackward")  // [B, T, D]
        let qkv = floats(qkv, "attentionBackward")  // [B, T, 3·D]
        let probabilities = floats(probabilities, "attentionBackward")  // [B, heads, T, T]
        let (t, h) = (s.tokens, s.headWidth)
        parallel(s.images * heads, grain: s.grain) { range in
            for index in range {
                let q = qkv + s.offset(index)  // [T, h], as are k and v and their gradients
                let (k, v) = (q + s.width, q + 2 * s.width)
                let dq = dqkv + s.offset(index)
                let (dk, dv) = (dq + s.width, dq + 2 * s.width)
                let dy = dOut + s.outOffset(index)  // [T, h]
                let p = probabilities + index * t * t  // [T, T]
                let dp = dProbabilities + index * t * t  // [T, T]: dP, then dS
                gemm(dv, ldc: s.stride, p, lda: t, dy, ldb: s.width, m: t, n: h, k: t, transposeA: true)
                gemm(dp, ldc: t, dy, lda: s.width, v, ldb: s.stride, m: t, n: t, k: h, transposeB: true)
                for row in 0..<t {
                    let (p, dp) = (p + row * t, dp + row * t)
                    let mean = dot(p, dp, t)
                    for i in 0..<t { dp[i] = p[i] * (dp[i] - mean) }
                }
                gemm(dq, ldc: s.stride, dp, lda: t, k, ldb: s.stride, m: t, n: h, k: t, alpha: s.scale)
                gemm(
                    dk, ldc: s.stride, dp, lda: t, q, ldb: s.stride, m: t, n: h, k: t, transposeA: true,
                    alpha: s.scale)
            }
        }
    }
}

/// The sizes that qkv [B, T, 3·D] and the number of heads imply.
private struct AttentionShape {
    let images: Int  // B
    let tokens: Int  // T
    let width: Int  // D
    let heads: Int
    let headWidth: Int  // h

    init(_ qkv: Tensor, heads: Int, _ operation: StaticString) {
        require(
            qkv.shape.count == 3 && heads > 0 && qkv.columns % (3 * heads) == 0, operation,
            "qkv \(qkv.shape) is not [B, T, 3·D] with a D that \(heads) heads divide")
        images = qkv.shape[0]
        tokens = qkv.shape[1]
        width = qkv.columns / 3
        self.heads = heads
        headWidth = width / heads
    }

    var stride: Int { 3 * width }
    var scale: Float { 1 / Float(headWidth).squareRoot() }
    var probabilityCount: Int { images * heads * tokens * tokens }
    /// Heads per block: at least 2¹⁸ multiplications.
    var grain: Int { max(1, 262_144 / (2 * tokens * tokens * headWidth)) }
    /// Where q of an image's head begins in qkv.
    func offset(_ index: Int) -> Int { index / heads * tokens * stride + index % heads * headWidth }
    /// Where the head begins in out.
    func outOffset(_ index: Int) -> Int { index / heads * tokens * width + index % heads * headWidth }
}
