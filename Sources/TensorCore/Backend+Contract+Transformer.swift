// What a transformer's blocks and its ends do besides products: see `Backend+Contract.swift`.

/// The sizes of attention: Q queries, T keys and values, and out [B, Q, D], D = heads · head.
public struct AttentionSizes: Sendable {
    /// B, T, Q, the heads and the width of each.
    public let batch, tokens, queries, heads, head: Int
    /// The rows of dq, of which those behind the Q are zeros: T where q, k and v are thirds of one tensor, else Q.
    public let gradientRows: Int
    /// D.
    public var width: Int { heads * head }
    /// 1/√head.
    public var scale: Float { 1 / Float(head).squareRoot() }
}

/// The sizes of tokens [B, T, D] over projected patches [B, N, D].
public struct TokenSizes: Sendable {
    /// B, T, N and D.
    public let batch, tokens, patches, width: Int
    /// The first token that a row of positions is added to: 0 where they are [T, D], `first` where they are [N, D].
    public let positioned: Int
    /// T − N = P, the first patch's token: behind the class token and registers, or 0.
    public var first: Int { tokens - patches }
}

extension Backend {
    /// patches [B, (H/p)·(W/p), C·p·p] ← images [B, C, H, W], each patch flattened channel, row, column (the order of a
    /// convolution's weight [D, C, p, p]); patches in raster order.
    public func extractPatches(_ patches: Tensor, _ images: Tensor, patchSize: Int) {
        let shape = images.shape
        require(
            "extractPatches",
            shape.count == 4 && patchSize > 0 && shape[2] % patchSize == 0 && shape[3] % patchSize == 0,
            stored: ["patches": (patches, images.count)], floats: ["images": (images, images.count)],
            " in patches of \(patchSize) pixels")
        extractPatches(
            patches, images, patchSize: patchSize, batch: shape[0], channels: shape[1], height: shape[2],
            width: shape[3])
    }

    /// tokens [B, T, D] ← [prefix [P, D]; projected patches [B, N, D]] + positions, with T = P + N.
    ///
    /// The prefix is the class token and registers, nil where P is 0. Positions are [T, D]; or [N, D], of the patches alone: then
    /// the prefix goes in as it is; or nil: then nothing is added.
    public func embedTokens(
        _ tokens: Tensor, _ projected: Tensor, _ prefix: Tensor?, _ positions: Tensor?
    ) {
        let sizes = requireFit(projected, prefix, positions, tokens, "embedTokens")
        TensorCore.require(
            (prefix != nil) == (sizes.first > 0), "embedTokens",
            "tokens \(tokens.shape) and projected \(projected.shape) leave \(sizes.first) tokens to a prefix")
        embedTokens(tokens, projected, prefix, positions, sizes)
    }

    /// dProjected [B, N, D] is overwritten; dPrefix [P, D] and dPositions, [T, D] or [N, D], accumulate sums over the batch, each nil
    /// where there is none or it is frozen.
    public func embedTokensBackward(
        _ dProjected: Tensor, _ dPrefix: Tensor?, _ dPositions: Tensor?, _ dTokens: Tensor
    ) {
        let sizes = requireFit(dProjected, dPrefix, dPositions, dTokens, "embedTokensBackward")
        embedTokensBackward(dProjected, dPrefix, dPositions, dTokens, sizes)
    }

    private func requireFit(
        _ projected: Tensor, _ prefix: Tensor?, _ positions: Tensor?, _ tokens: Tensor, _ operation: String
    ) -> TokenSizes {
        let all = tokens.shape.count == 3 ? tokens.shape : [0, 0, 0]
        let part = projected.shape.count == 3 ? projected.shape : [0, 0, 0]
        let prefixCount = all[1] - part[1]
        let isOfPatches = positions?.count == part[1] * part[2]
        let sizes = TokenSizes(
            batch: all[0], tokens: all[1], patches: part[1], width: all[2],
            positioned: isOfPatches ? prefixCount : 0)
        require(
            operation,
            part[2] == all[2] && prefixCount >= (prefix == nil ? 0 : 1),
            stored: ["projected": (projected, sizes.batch * sizes.patches * sizes.width)],
            floats: [
                "tokens": (tokens, tokens.count), "prefix": (prefix, prefixCount * sizes.width),
                "positions": (positions, (sizes.tokens - sizes.positioned) * sizes.width),
            ])
        return sizes
    }

    /// y = (x − mean) · rstd ⊙ weight + bias over the last dimension, rstd = 1 / √(var + ε) with the biased variance.
    /// x, y [n, d], x in float32 or stored as y is; mean, rstd [n] are kept for the backward.
    public func layerNorm(
        _ y: Tensor, _ mean: Tensor, _ rstd: Tensor,
        _ x: Tensor, _ weight: Tensor, _ bias: Tensor, epsilon: Float
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            "layerNorm", stored: ["y": (y, n * d)],
            floats: ["mean": (mean, n), "rstd": (rstd, n), "weight": (weight, d), "bias": (bias, d)])
        requireStream(x, nil, as: y, "layerNorm")
        layerNorm(y, mean, rstd, x, weight, bias, epsilon: epsilon, rows: n, columns: d)
    }

    /// dx [n, d], of x's type, and with `accumulate` dx + …: the residual stream's gradient is added to in place.
    /// dWeight and dBias [d] accumulate; nil when frozen.
    public func layerNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dBias: Tensor?,
        _ dy: Tensor, _ x: Tensor, _ mean: Tensor, _ rstd: Tensor, _ weight: Tensor, accumulate: Bool
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            "layerNormBackward", stored: ["dy": (dy, n * d)],
            floats: [
                "dWeight": (dWeight, d), "dBias": (dBias, d), "mean": (mean, n), "rstd": (rstd, n),
                "weight": (weight, d),
            ])
        requireStream(x, dx, as: dy, "layerNormBackward")
        layerNormBackward(
            dx, dWeight, dBias, dy, x, mean, rstd, weight, accumulate: accumulate, rows: n, columns: d)
    }

    /// y = x · rstd ⊙ weight over the last dimension, rstd = 1 / √(mean(x²) + ε) (Zhang and Sennrich, arXiv 1910.07467).
    /// x, y [n, d], x in float32 or stored as y is; rstd [n] is kept for the backward.
    public func rmsNorm(_ y: Tensor, _ rstd: Tensor, _ x: Tensor, _ weight: Tensor, epsilon: Float) {
        let (n, d) = (x.rows, x.columns)
        require("rmsNorm", stored: ["y": (y, n * d)], floats: ["rstd": (rstd, n), "weight": (weight, d)])
        requireStream(x, nil, as: y, "rmsNorm")
        rmsNorm(y, rstd, x, weight, epsilon: epsilon, rows: n, columns: d)
    }

    /// With g = dy ⊙ weight and x̂ = x · rstd: dx [n, d] ← rstd · (g − x̂ · mean(g ⊙ x̂)), of x's type, and with `accumulate` dx + …;
    /// dWeight [d] += Σₙ dy ⊙ x̂; nil when frozen.
    public func rmsNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dy: Tensor, _ x: Tensor, _ rstd: Tensor, _ weight: Tensor,
        accumulate: Bool
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            "rmsNormBackward", stored: ["dy": (dy, n * d)],
            floats: ["dWeight": (dWeight, d), "rstd": (rstd, n), "weight": (weight, d)])
        requireStream(x, dx, as: dy, "rmsNormBackward")
        rmsNormBackward(dx, dWeight, dy, x, rstd, weight, accumulate: accumulate, rows: n, columns: d)
    }

    /// Stops the program unless what a norm reads, and its gradient, are float32 or stored as what the norm writes is.
    private func requireStream(_ x: Tensor, _ dx: Tensor?, as y: Tensor, _ operation: String) {
        let count = x.count
        if x.elementType == .float32 {
            require(operation, floats: ["x": (x, count), "dx": (dx, count)])
        } else {
            require(operation, stored: ["x": (x, count), "dx": (dx, count), "y or dy": (y, count)])
        }
    }

    /// Rotary position embedding (Su et al., arXiv 2104.09864) in place: each pair (a, b) of a head becomes
    ///
    ///     (a c − b s, b c + a s),   c and s from row positions[r] of cosines and sines [P, d/2]
    ///
    /// and with `inverse` (a c + b s, b c − a s), which is the backward. Row r of the n begins at x's offset + r · stride and holds
    /// heads · headWidth numbers, stored; `layout` says which of a head's first d are a pair, the others stay as they are.
    /// positions [n] int32 are in 0..<P. Rows don't overlap; q and k of qkv [B, T, 3·D] are at the offsets 0 and D, 3·D apart.
    public func rotate(
        _ x: MatrixBlock, positions: Tensor, cosines: Tensor, sines: Tensor, heads: Int, headWidth: Int,
        layout: RotaryLayout, inverse: Bool
    ) {
        let (n, width) = (positions.count, heads * headWidth)
        let sizes = RotarySizes(rows: n, heads: heads, head: headWidth, pairs: cosines.columns)
        require(
            "rotate",
            heads > 0 && 2 * sizes.pairs <= headWidth && sines.columns == sizes.pairs
                && x.holds(rows: n, columns: width) && (n <= 1 || x.stride >= width),
            stored: ["x": (x.tensor, x.tensor.count)],
            floats: ["cosines": (cosines, cosines.count), "sines": (sines, cosines.count)],
            integers: ["positions": (positions, n)],
            ": \(n) rows of \(heads) heads of \(headWidth) from \(x.offset) on every \(x.stride)")
        if n > 0, sizes.pairs > 0 {
            rotate(
                x, positions: positions, cosines: cosines, sines: sines, layout: layout, inverse: inverse,
                sizes)
        }
    }

    /// y [n, F] ← f(a) ⊙ b, with a and b [n, F]; all stored. SwiGLU by SiLU, GeGLU by GELU (Shazeer, arXiv 2002.05202). a and b
    /// may be halves of one tensor [n, 2·F].
    public func gate(_ y: Tensor, _ a: MatrixBlock, _ b: MatrixBlock, _ activation: Activation) {
        let (n, d) = (y.rows, y.columns)
        require(
            "gate", a.holds(rows: n, columns: d) && b.holds(rows: n, columns: d),
            stored: [
                "y": (y, n * d), "a": (a.tensor, a.tensor.count), "b": (b.tensor, b.tensor.count),
            ], ": a from \(a.offset) on every \(a.stride), b from \(b.offset) on every \(b.stride)")
        if n > 0, d > 0 { gate(y, a, b, activation, rows: n, columns: d) }
    }

    /// dA ← dy ⊙ b ⊙ f′(a), dB ← dy ⊙ f(a), with dy [n, F]; all stored. dA may be a and dB b; else nothing overlaps.
    public func gateBackward(
        _ dA: MatrixBlock, _ dB: MatrixBlock, _ dy: Tensor, _ a: MatrixBlock, _ b: MatrixBlock,
        _ activation: Activation
    ) {
        let (n, d) = (dy.rows, dy.columns)
        require(
            "gateBackward",
            [dA, dB, a, b].allSatisfy { $0.holds(rows: n, columns: d) }
                && (n <= 1 || min(dA.stride, dB.stride) >= d),
            stored: [
                "dy": (dy, n * d), "dA": (dA.tensor, dA.tensor.count), "dB": (dB.tensor, dB.tensor.count),
                "a": (a.tensor, a.tensor.count), "b": (b.tensor, b.tensor.count),
            ], ": from \([dA, dB, a, b].map(\.offset)) on every \([dA, dB, a, b].map(\.stride))")
        if n > 0, d > 0 { gateBackward(dA, dB, dy, a, b, activation, rows: n, columns: d) }
    }

    /// y = x/2 · (1 + erf(x/√2)), the exact GELU; both of one count, each stored. y may be x.
    public func gelu(_ y: Tensor, _ x: Tensor) { activate(y, x, .gelu) }

    /// dx = dy ⊙ (Φ(x) + x φ(x)); all of one count, each stored. dx may be dy.
    public func geluBackward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor) { activateBackward(dx, dy, x, .gelu) }

    /// Multi-head self-attention. qkv [B, T, 3·D] holds q, k, v in thirds, heads first inside each third; per head of
    /// width h = D/heads: S = q kᵀ / √h, P = softmax(S), out = P v. Only the first Q ≤ T tokens are queries: out is [B, Q, D],
    /// and `logSumExp` [B, heads, Q] = ln Σⱼ exp(Sⱼ) is what the backward rebuilds P from. No [T, T] matrix is kept.
    public func attention(_ out: Tensor, _ logSumExp: Tensor, _ qkv: Tensor, heads: Int) {
        let sizes = requireFit(nil, out, logSumExp, nil, qkv, heads, "attention")
        let (q, k, v) = thirds(qkv)
        attention(out, logSumExp, queries: q, keys: k, values: v, sizes)
    }

    /// dqkv [B, T, 3·D] is overwritten (dq of the tokens that are no queries is zero), given what `attention` made: out and dOut
    /// [B, Q, D], logSumExp [B, heads, Q].
    public func attentionBackward(
        _ dqkv: Tensor, _ dOut: Tensor, _ out: Tensor, _ logSumExp: Tensor, _ qkv: Tensor, heads: Int
    ) {
        let sizes = requireFit(dOut, out, logSumExp, dqkv, qkv, heads, "attentionBackward")
        let ((q, k, v), (dq, dk, dv)) = (thirds(qkv), thirds(dqkv))
        attentionBackward(dq, dk, dv, dOut, out, logSumExp, queries: q, keys: k, values: v, sizes)
    }

    /// q, k and v of [B, T, 3·D].
    private func thirds(_ qkv: Tensor) -> (TokenBlock, TokenBlock, TokenBlock) {
        func third(_ index: Int) -> TokenBlock {
            var block = TokenBlock(qkv)
            block.offset = index * qkv.columns / 3
            return block
        }
        return (third(0), third(1), third(2))
    }

    private func requireFit(
        _ dOut: Tensor?, _ out: Tensor, _ logSumExp: Tensor, _ dqkv: Tensor?, _ qkv: Tensor, _ heads: Int,
        _ operation: String
    ) -> AttentionSizes {
        let all = qkv.shape.count == 3 ? qkv.shape : [0, 0, 0]
        let part = out.shape.count == 3 ? out.shape : [0, 0, 0]
        let sizes = AttentionSizes(
            batch: all[0], tokens: all[1], queries: part[1], heads: heads, head: part[2] / max(1, heads),
            gradientRows: all[1])
        require(
            operation,
            heads > 0 && all[0] == part[0] && all[2] == 3 * sizes.width && sizes.width == part[2]
                && (1...max(1, all[1])).contains(part[1]),
            stored: [
                "out": (out, out.count), "dOut": (dOut, out.count), "qkv": (qkv, qkv.count),
                "dqkv": (dqkv, qkv.count),
            ], floats: ["logSumExp": (logSumExp, sizes.batch * heads * sizes.queries)], " and \(heads) heads")
        return sizes
    }

    /// Multi-head attention of Q queries to T = `tokens` keys and values, each apart: out [B, Q, D] and `logSumExp` [B, heads, Q] as
    /// above, any Q and T. A row of a block holds a token's D = heads · h numbers, heads first, stored; samples may share their
    /// queries, as those of attention pooling do, and keys and values, by a sampleStride of 0.
    public func attention(
        _ out: Tensor, _ logSumExp: Tensor, queries: TokenBlock, keys: TokenBlock, values: TokenBlock,
        tokens: Int, heads: Int
    ) {
        let sizes = requireFit(
            nil, out, logSumExp, [], [queries, keys, values], tokens, heads, "attention")
        attention(out, logSumExp, queries: queries, keys: keys, values: values, sizes)
    }

    /// The gradients of that, overwritten: dQueries [B, Q, D], of each sample also where samples share their queries, dKeys and dValues
    /// [B, T, D], in blocks whose rows don't overlap; given what `attention` made, out and dOut [B, Q, D], logSumExp [B, heads, Q].
    public func attentionBackward(
        _ dQueries: TokenBlock, _ dKeys: TokenBlock, _ dValues: TokenBlock,
        _ dOut: Tensor, _ out: Tensor, _ logSumExp: Tensor, queries: TokenBlock, keys: TokenBlock,
        values: TokenBlock, tokens: Int, heads: Int
    ) {
        let sizes = requireFit(
            dOut, out, logSumExp, [dQueries, dKeys, dValues], [queries, keys, values], tokens, heads,
            "attentionBackward")
        attentionBackward(
            dQueries, dKeys, dValues, dOut, out, logSumExp, queries: queries, keys: keys, values: values,
            sizes)
    }

    private func requireFit(
        _ dOut: Tensor?, _ out: Tensor, _ logSumExp: Tensor, _ gradients: [TokenBlock],
        _ blocks: [TokenBlock], _ tokens: Int, _ heads: Int, _ operation: String
    ) -> AttentionSizes {
        let shape = out.shape.count == 3 ? out.shape : [0, 0, 0]
        let sizes = AttentionSizes(
            batch: shape[0], tokens: tokens, queries: shape[1], heads: heads, head: shape[2] / max(1, heads),
            gradientRows: shape[1])
        func all(_ blocks: [TokenBlock], _ fits: (TokenBlock, Int) -> Bool) -> Bool {
            zip(blocks, [shape[1], tokens, tokens]).allSatisfy(fits)
        }
        func tensor(_ blocks: [TokenBlock], _ index: Int) -> (Tensor?, count: Int) {
            blocks.isEmpty ? (nil, 0) : (blocks[index].tensor, blocks[index].tensor.count)
        }
        require(
            operation,
            heads > 0 && sizes.width == shape[2]
                && all(blocks) { $0.holds(samples: shape[0], tokens: $1, columns: shape[2]) }
                && all(gradients) {
                    $0.holds(samples: shape[0], tokens: $1, columns: shape[2])
                        && $0.isApart(samples: shape[0], tokens: $1, columns: shape[2])
                },
            stored: [
                "out": (out, out.count), "dOut": (dOut, out.count), "queries": tensor(blocks, 0),
                "keys": tensor(blocks, 1), "values": tensor(blocks, 2), "dQueries": tensor(gradients, 0),
                "dKeys": tensor(gradients, 1), "dValues": tensor(gradients, 2),
            ], floats: ["logSumExp": (logSumExp, sizes.batch * heads * sizes.queries)],
            ", \(tokens) tokens and \(heads) heads, samples \((blocks + gradients).map(\.sampleStride)) and tokens "
                + "\((blocks + gradients).map(\.stride)) apart from \((blocks + gradients).map(\.offset)),")
        return sizes
    }

    /// out = x + scale[b] · branch, all [B, …]; without `sampleScale` [B], x + branch. out may be x.
    public func residualAdd(_ out: Tensor, _ x: Tensor, _ branch: Tensor, sampleScale: Tensor?) {
        let count = x.count
        require(
            "residualAdd", stored: ["branch": (branch, count)],
            floats: ["out": (out, count), "x": (x, count), "scale": (sampleScale, x.shape.first ?? 1)])
        residualAdd(out, x, branch, sampleScale: sampleScale, count: count)
    }

    /// out = scale[b] · x, both [B, …], sampleScale [B]; without it a copy, which may be stored in the precision. out may be x.
    public func scaleSamples(_ out: Tensor, _ x: Tensor, sampleScale: Tensor?) {
        require(
            "scaleSamples", stored: ["out": (out, x.count)],
            floats: ["x": (x, x.count), "scale": (sampleScale, x.shape.first ?? 1)])
        if let sampleScale {
            scaleSamples(out, x, sampleScale: sampleScale, count: x.count)
        } else if out.buffer !== x.buffer {
            copy(out, x, count: x.count)
        }
    }

    /// out [B, D] ← the mean of tokens [B, T, D] over T in `range`; the class token is 0..<1.
    public func poolTokens(_ out: Tensor, _ tokens: Tensor, range: Range<Int>) {
        let sizes = requireFit(out, tokens, range, "poolTokens")
        poolTokens(out, tokens, range: range, sizes)
    }

    /// dTokens [B, T, D] ← dOut / range.count inside `range`, zero outside.
    public func poolTokensBackward(_ dTokens: Tensor, _ dOut: Tensor, range: Range<Int>) {
        let sizes = requireFit(dOut, dTokens, range, "poolTokensBackward")
        poolTokensBackward(dTokens, dOut, range: range, sizes)
    }

    private func requireFit(
        _ out: Tensor, _ tokens: Tensor, _ range: Range<Int>, _ operation: String
    ) -> TokenSizes {
        let all = tokens.shape.count == 3 ? tokens.shape : [0, 0, 0]
        require(
            operation, !range.isEmpty && range.lowerBound >= 0 && range.upperBound <= all[1],
            stored: ["tokens": (tokens, tokens.count)], floats: ["out": (out, all[0] * all[2])],
            " with \(range)")
        return TokenSizes(batch: all[0], tokens: all[1], patches: all[1], width: all[2], positioned: 0)
    }
}
