import CLoops
import TensorCore

// Images to patches, patches to tokens, tokens to a pooled vector. All of it is copying and short sums.

extension CPUBackend {
    /// patches [B, (H/p)·(W/p), C·p·p] ← images [B, C, H, W].
    public func extractPatches(
        _ patches: Tensor, _ images: Tensor, patchSize p: Int, batch: Int, channels: Int, height: Int,
        width: Int
    ) {
        let (down, across) = (height / p, width / p)
        let source = floats(images)  // [B, C, H, W]
        let target = floats(patches)  // [B, down · across, C, p, p]
        // An index is one row of patches in one image.
        parallel(batch * down, grain: rowGrain(channels * p * width)) { range in
            for index in range {
                let image = source + index / down * channels * height * width + index % down * p * width
                let row = target + index * across * channels * p * p
                for channel in 0..<channels {
                    for y in 0..<p {
                        let line = image + (channel * height + y) * width
                        for x in 0..<across {
                            let to = row + ((x * channels + channel) * p + y) * p
                            to.update(from: line + x * p, count: p)
                        }
                    }
                }
            }
        }
    }

    /// tokens [B, T, D] ← [prefix [P, D]; projected [B, N, D]] + positions, which begin at token `positioned`.
    public func embedTokens(
        _ tokens: Tensor, _ projected: Tensor, _ prefix: Tensor?, _ positions: Tensor?, _ s: TokenSizes
    ) {
        let out = floats(tokens)  // [B, T, D]
        let projected = floats(projected)  // [B, N, D]
        let prefix = prefix.map { floats($0) }  // [P, D]
        let positions = positions.map { floats($0) }  // [T − positioned, D]
        parallel(s.batch * s.tokens, grain: rowGrain(s.width)) { range in
            for index in range {
                let (image, token) = (index / s.tokens, index % s.tokens)
                let y = out + index * s.width
                let x =
                    if let prefix, token < s.first {
                        prefix + token * s.width
                    } else {
                        projected + (image * s.patches + token - s.first) * s.width
                    }
                guard let positions, token >= s.positioned else {
                    y.update(from: x, count: s.width)
                    continue
                }
                let position = positions + (token - s.positioned) * s.width
                for i in 0..<s.width { y[i] = x[i] + position[i] }
            }
        }
    }

    /// dProjected is overwritten; dPrefix and dPositions accumulate the sums over the batch.
    public func embedTokensBackward(
        _ dProjected: Tensor, _ dPrefix: Tensor?, _ dPositions: Tensor?, _ dTokens: Tensor,
        _ s: TokenSizes
    ) {
        let size = s.tokens * s.width
        let dTokens = floats(dTokens)  // [B, T, D]
        let dProjected = floats(dProjected)  // [B, N, D]
        parallel(s.batch, grain: rowGrain(size)) { range in
            for image in range {
                (dProjected + image * s.patches * s.width).update(
                    from: dTokens + image * size + s.first * s.width, count: s.patches * s.width)
            }
        }
        // The batch is short and its rows are long, so threads share the columns.
        func addBatch(_ out: Tensor, from token: Int) {
            let (count, out, dTokens) = (out.count, floats(out), dTokens + token * s.width)
            parallel(count, grain: elementGrain, scratch: count) { range, sums in
                sum_rows(sums, dTokens + range.lowerBound, s.batch, range.count, size)
                add_to(out + range.lowerBound, sums, range.count)
            }
        }
        if let dPositions { addBatch(dPositions, from: s.positioned) }
        if let dPrefix { addBatch(dPrefix, from: 0) }
    }

    /// out [B, D] ← the mean of tokens [B, T, D] over T in `range`.
    public func poolTokens(_ out: Tensor, _ tokens: Tensor, range: Range<Int>, _ s: TokenSizes) {
        let (t, d) = (s.tokens, s.width)
        let out = floats(out)  // [B, D]
        let tokens = floats(tokens)  // [B, T, D]
        let factor = 1 / Float(range.count)
        parallel(s.batch, grain: rowGrain(range.count * d)) { block in
            for image in block {
                let y = out + image * d
                y.update(from: tokens + (image * t + range.lowerBound) * d, count: d)
                for token in range.dropFirst() {
                    let x = tokens + (image * t + token) * d
                    for i in 0..<d { y[i] += x[i] }
                }
                for i in 0..<d { y[i] *= factor }
            }
        }
    }

    /// dTokens [B, T, D] ← dOut / range.count inside `range`, zero outside.
    public func poolTokensBackward(_ dTokens: Tensor, _ dOut: Tensor, range: Range<Int>, _ s: TokenSizes) {
        let (t, d) = (s.tokens, s.width)
        let dTokens = floats(dTokens)  // [B, T, D]
        let dOut = floats(dOut)  // [B, D]
        let factor = 1 / Float(range.count)
        parallel(s.batch * t, grain: rowGrain(d)) { block in
            for index in block {
                let dx = dTokens + index * d
                let dy = dOut + index / t * d
                if range.contains(index % t) {
                    for i in 0..<d { dx[i] = dy[i] * factor }
                } else {
                    dx.update(repeating: 0, count: d)
                }
            }
        }
    }
}
