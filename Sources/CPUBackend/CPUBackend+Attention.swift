import CLoops
import Foundation
import TensorCore

// Multi-head attention. Per image and head, with q [Q, h] and k, v [T, h] read in place, in self-attention from the fused qkv (row
// length 3·D):
//
//     S = s · q kᵀ,  P = softmax(S) = exp(S − L),  L = log Σ exp(S) over the row,  out = P v,  s = 1/√h
//     dv = Pᵀ dout,  dP = dout vᵀ,  dS = P ⊙ (dP − Σ dout ⊙ out over the row),  dq = s · dS k,  dk = s · dSᵀ q
//
// Heads are independent: threads take them in turn, each with small products of its own. A head's S exists for a block of
// query rows at a time, in the thread's own memory; dk and dv are summed over the blocks.

extension CPUBackend {
    /// out [B, Q, D] and logSumExp [B, heads, Q].
    public func attention(
        _ out: Tensor, _ logSumExp: Tensor, queries: TokenBlock, keys: TokenBlock, values: TokenBlock,
        _ s: AttentionSizes
    ) {
        let out = floats(out)  // [B, Q, D]
        let logSumExp = floats(logSumExp)  // [B, heads, Q]
        let (t, h, block) = (s.tokens, s.head, s.blockRows)
        parallel(s.batch * s.heads, grain: s.grain, scratch: block * (t + 2)) { range, scores in
            let sums = scores + block * t  // [block], after scores [block, T]
            let largest = sums + block  // [block]
            for index in range {
                let q = head(index, of: queries, s)  // [Q, h]
                let (k, v) = (head(index, of: keys, s), head(index, of: values, s))  // [T, h]
                for first in stride(from: 0, to: s.queries, by: block) {
                    let rows = min(block, s.queries - first)
                    let y = out + s.outOffset(index) + first * s.width
                    gemm(
                        scores, ldc: t, q + first * queries.stride, lda: queries.stride, k, ldb: keys.stride,
                        m: rows, n: t, k: h, transposeB: true, alpha: s.scale)
                    softmax_exponentials(scores, sums, largest, rows, t)
                    gemm(y, ldc: s.width, scores, lda: t, v, ldb: values.stride, m: rows, n: h, k: t)
                    divide_rows(y, sums, rows, h, s.width)
                    for i in 0..<rows {
                        logSumExp[index * s.queries + first + i] = largest[i] + log(sums[i])
                    }
                }
            }
        }
    }

    /// dQueries, dKeys and dValues are overwritten, from dOut and out [B, Q, D] and logSumExp [B, heads, Q].
    public func attentionBackward(
        _ dQueries: TokenBlock, _ dKeys: TokenBlock, _ dValues: TokenBlock,
        _ dOut: Tensor, _ out: Tensor, _ logSumExp: Tensor, queries: TokenBlock, keys: TokenBlock,
        values: TokenBlock, _ s: AttentionSizes
    ) {
        let (dOut, out) = (floats(dOut), floats(out))  // [B, Q, D]
        let logSumExp = floats(logSumExp)  // [B, heads, Q]
        let (t, h, block) = (s.tokens, s.head, s.blockRows)
        parallel(s.batch * s.heads, grain: s.grain, scratch: 2 * block * t) { range, p in
            let dp = p + block * t  // [block, T], as is p
            for index in range {
                let (k, v) = (head(index, of: keys, s), head(index, of: values, s))  // [T, h]
                let (dk, dv) = (head(index, of: dKeys, s), head(index, of: dValues, s))  // [T, h]
                let allDQ = head(index, of: dQueries, s)  // [gradientRows, h]
                for first in stride(from: 0, to: s.queries, by: block) {
                    let rows = min(block, s.queries - first)
                    let q = head(index, of: queries, s) + first * queries.stride  // [rows, h]
                    let dq = allDQ + first * dQueries.stride  // [rows, h]
                    let at = s.outOffset(index) + first * s.width
                    let (y, dy) = (out + at, dOut + at)  // [rows, h]
                    let beta: Float = first > 0 ? 1 : 0
                    gemm(
                        p, ldc: t, q, lda: queries.stride, k, ldb: keys.stride, m: rows, n: t, k: h,
                        transposeB: true, alpha: s.scale)
                    gemm(
                        dp, ldc: t, dy, lda: s.width, v, ldb: values.stride, m: rows, n: t, k: h,
                        transposeB: true)
                    attention_scores_backward(
                        p, dp, logSumExp + index * s.queries + first, dy, y, rows, t, h, s.width)
                    gemm(
                        dv, ldc: dValues.stride, p, lda: t, dy, ldb: s.width, m: t, n: h, k: rows,
                        transposeA: true, beta: beta)
                    gemm(
                        dq, ldc: dQueries.stride, dp, lda: t, k, ldb: keys.stride, m: rows, n: h, k: t,
                        alpha: s.scale)
                    gemm(
                        dk, ldc: dKeys.stride, dp, lda: t, q, ldb: queries.stride, m: t, n: h, k: rows,
                        transposeA: true, alpha: s.scale, beta: beta)
                }
                for row in s.queries..<s.gradientRows {
                    (allDQ + row * dQueries.stride).update(repeating: 0, count: h)
                }
            }
        }
    }

    /// Where an image's head begins in a block.
    private func head(_ index: Int, of block: TokenBlock, _ s: AttentionSizes) -> Floats {
        floats(block.tensor) + block.offset + index / s.heads * block.sampleStride + index % s.heads * s.head
    }
}

extension AttentionSizes {
    /// Query rows whose S is held: 256 KiB, half of what the backward keeps in the second cache. All of 197 tokens.
    fileprivate var blockRows: Int { min(queries, max(16, 65_536 / tokens)) }
    /// Heads per block: at least 2¹⁸ multiplications.
    fileprivate var grain: Int { max(1, 262_144 / (2 * queries * tokens * head)) }
    /// Where an image's head begins in out.
    fileprivate func outOffset(_ index: Int) -> Int { index / heads * queries * width + index % heads * head }
}
