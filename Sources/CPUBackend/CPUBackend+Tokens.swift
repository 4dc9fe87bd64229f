import CLoops
import TensorCore

// Images to patches, patches to tokens, tokens to a pooled vector. All of it is copying and short sums.

extension CPUBackend {
    /// patches [B, (H/p)·(W/p), C·p·p] ← images [B, C, H, W].
    public func extractPatches(_ patches: Tensor, _ images: Tensor, patchSize p: Int) {
        let shape = images.shape
        require(
            shape.count == 4 && p > 0 && shape[2] % p == 0 && shape[3] % p == 0
                && patches.count == images.count,
            "extractPatches", "patches \(patches.shape) of size \(p) from images \(shape)")
        let (channels, height, width) = (shape[1], shape[2], shape[3])
        let (down, across) = (height / p, width / p)
        let source = floats(images, "extractPatches")  // [B, C, H, W]
        let target = floats(patches, "extractPatches")  // [B, down · across, C, p, p]
        // An index is one row of patches in one image.
        parallel(shape[0] * down, grain: rowGrain(channels * p * width)) { range in
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

    /// tokens [B, T, D] ← positions [T, D] + [class token; projected [B, N, D]].
    public func embedTokens(_ tokens: Tensor, _ projected: Tensor, _ classToken: Tensor?, _ positions: Tensor)
    {
        let s = TokenShape(tokens, projected, classToken, "embedTokens")
        require(
            positions.count == s.tokens * s.width, "embedTokens",
            "positions \(positions.shape) for \(tokens.shape)")
        let out = floats(tokens, "embedTokens")  // [B, T, D]
        let projected = floats(projected, "embedTokens")  // [B, N, D]
        let classToken = classToken.map { floats($0, "embedTokens") }  // [D]
        let positions = floats(positions, "embedTokens")  // [T, D]
        parallel(s.images * s.tokens, grain: rowGrain(s.width)) { range in
            for index in range {
                let (image, token) = (index / s.tokens, index % s.tokens)
                let y = out + index * s.width
                let position = positions + token * s.width
                let x =
                    if let classToken, token == 0 {
                        classToken
                    } else {
                        projected + (image * s.patches + token - s.offset) * s.width
                    }
                for i in 0..<s.width { y[i] = x[i] + position[i] }
            }
        }
    }

    /// dProjected is overwritten; dClassToken and dPositions accumulate the sums over the batch.
    public func embedTokensBackward(
        _ dProjected: Tensor, _ dClassToken: Tensor?, _ dPositions: Tensor, _ dTokens: Tensor
    ) {
        let s = TokenShape(dTokens, dProjected, dClassToken, "embedTokensBackward")
        let size = s.tokens * s.width
        require(
            dPositions.count == size, "embedTokensBackward",
            "dPositions \(dPositions.shape) for \(dTokens.shape)")
        let dTokens = floats(dTokens, "embedTokensBackward")  // [B, T, D]
        let dProjected = floats(dProjected, "embedTokensBackward")  // [B, N, D]
        parallel(s.images, grain: rowGrain(size)) { range in
            for image in range {
                (dProjected + image * s.patches * s.width).update(
                    from: dTokens + image * size + s.offset * s.width, count: s.patches * s.width)
            }
        }
        // The batch is short and its rows are long, so threads share the columns.
        func addBatch(_ out: Tensor, columns: Int) {
            let out = floats(out, "embedTokensBackward")
            parallel(columns, grain: elementGrain, scratch: columns) { range, sums in
                sum_rows(sums, dTokens + range.lowerBound, s.images, range.count, size)
                add_to(out + range.lowerBound, sums, range.count)
            }
        }
        addBatch(dPositions, columns: size)
        if let dClassToken { addBatch(dClassToken, columns: s.width) }
    }

    /// out [B, D] ← the mean of tokens [B, T, D] over T in `range`.
    public func poolTokens(_ out: Tensor, _ tokens: Tensor, range: Range<Int>) {
        let (images, t, d) = poolShape(tokens, out, range, "poolTokens")
        let out = floats(out, "poolTokens")  // [B, D]
        let tokens = floats(tokens, "poolTokens")  // [B, T, D]
        let factor = 1 / Float(range.count)
        parallel(images, grain: rowGrain(range.count * d)) { block in
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
    public func poolTokensBackward(_ dTokens: Tensor, _ dOut: Tensor, range: Range<Int>) {
        let (images, t, d) = poolShape(dTokens, dOut, range, "poolTokensBackward")
        let dTokens = floats(dTokens, "poolTokensBackward")  // [B, T, D]
        let dOut = floats(dOut, "poolTokensBackward")  // [B, D]
        let factor = 1 / Float(range.count)
        parallel(images * t, grain: rowGrain(d)) { block in
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

    private func poolShape(
        _ tokens: Tensor, _ pooled: Tensor, _ range: Range<Int>, _ operation: StaticString
    ) -> (images: Int, tokens: Int, width: Int) {
        require(
            tokens.shape.count == 3 && !range.isEmpty && range.lowerBound >= 0
                && range.upperBound <= tokens.shape[1]
                && pooled.count == tokens.shape[0] * tokens.shape[2], operation,
            "tokens \(tokens.shape), range \(range) and pooled \(pooled.shape) don't fit")
        return (tokens.shape[0], tokens.shape[1], tokens.shape[2])
    }
}

/// The sizes of tokens [B, T, D] over patches [B, N, D].
private struct TokenShape {
    let images: Int  // B
    let tokens: Int  // T
    let patches: Int  // N
    let width: Int  // D
    /// The patches' first token: 1 after a class token.
    let offset: Int

    init(_ tokens: Tensor, _ projected: Tensor, _ classToken: Tensor?, _ operation: StaticString) {
        require(
            tokens.shape.count == 3 && projected.shape.count == 3
                && (classToken?.count ?? tokens.columns) == tokens.columns
                && projected.shape[0] == tokens.shape[0] && projected.columns == tokens.columns
                && tokens.shape[1] == projected.shape[1] + (classToken == nil ? 0 : 1), operation,
            "tokens \(tokens.shape), patches \(projected.shape) and class token \(classToken?.shape ?? []) don't fit"
        )
        images = tokens.shape[0]
        self.tokens = tokens.shape[1]
        patches = projected.shape[1]
        width = tokens.columns
        offset = classToken == nil ? 0 : 1
    }
}
