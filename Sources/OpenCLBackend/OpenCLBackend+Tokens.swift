import TensorCore

// Images to patches to tokens, and tokens to one vector a sample (Tokens.cl).

extension OpenCLBackend {
    /// patches [B, (H/p)·(W/p), C·p·p] ← images [B, C, H, W].
    public func extractPatches(_ patches: Tensor, _ images: Tensor, patchSize: Int) {
        let shape = images.shape
        require(
            shape.count == 4 && patchSize > 0 && shape[2] % patchSize == 0 && shape[3] % patchSize == 0
                && patches.count == images.count, "extractPatches",
            "patches \(patches.shape) of \(patchSize) pixels don't fit images \(shape)")
        let rows = shape[0] * (shape[2] / patchSize) * (shape[3] / patchSize)
        launch(
            "extract_patches", stored: stored(patches, floats: images, operation: "extractPatches"),
            (rowGroups(rows), 1, 1), patches, images, shape[0], shape[1], shape[2],
            shape[3], patchSize)
    }

    /// tokens [B, T, D] ← positions [T, D] + [class token; projected [B, N, D]].
    public func embedTokens(
        _ tokens: Tensor, _ projected: Tensor, _ classToken: Tensor?, _ positions: Tensor
    ) {
        let first = leadingTokens(tokens, projected, positions, "embedTokens")
        require(
            (classToken != nil) == (first == 1), "embedTokens",
            "tokens \(tokens.shape) and projected \(projected.shape) leave \(first) tokens to a class token")
        let (batch, count) = (tokens.shape[0], tokens.shape[1])
        launch(
            "embed_tokens_forward",
            stored: stored(projected, floats: tokens, classToken, positions, operation: "embedTokens"),
            (rowGroups(batch * count), 1, 1), tokens, projected, classToken,
            positions, batch, count, first, tokens.columns)
    }

    /// dProjected [B, N, D] is overwritten; dClassToken [D] and dPositions [T, D] accumulate.
    public func embedTokensBackward(
        _ dProjected: Tensor, _ dClassToken: Tensor?, _ dPositions: Tensor, _ dTokens: Tensor
    ) {
        let first = leadingTokens(dTokens, dProjected, dPositions, "embedTokensBackward")
        let (batch, count) = (dTokens.shape[0], dTokens.shape[1])
        launch(
            "embed_tokens_backward",
            stored: stored(
                dProjected, floats: dClassToken, dPositions, dTokens, operation: "embedTokensBackward"),
            (rowGroups(count), 1, 1), dProjected, dClassToken, dPositions,
            dTokens, batch, count, first, dTokens.columns)
    }

    /// T − N: 1 with a class token, else 0.
    private func leadingTokens(
        _ tokens: Tensor, _ projected: Tensor, _ positions: Tensor, _ operation: String
    ) -> Int {
        let fits =
            tokens.shape.count == 3 && projected.shape.count == 3 && tokens.shape[0] == projected.shape[0]
            && tokens.columns == projected.columns && positions.count == tokens.shape[1] * tokens.columns
        require(
            fits && (0...1).contains(tokens.shape[1] - projected.shape[1]), operation,
            "tokens \(tokens.shape), projected \(projected.shape), positions \(positions.shape) don't fit")
        return tokens.shape[1] - projected.shape[1]
    }

    /// out [B, D] ← the mean of tokens [B, T, D] over T in `range`.
    public func poolTokens(_ out: Tensor, _ tokens: Tensor, range: Range<Int>) {
        requirePool(out, tokens, range, "poolTokens")
        launch(
            "pool_tokens_forward", stored: stored(tokens, floats: out, operation: "poolTokens"),
            (rowGroups(tokens.shape[0]), 1, 1), out, tokens, tokens.shape[0],
            tokens.shape[1], tokens.columns, range.lowerBound, range.upperBound)
    }

    /// dTokens [B, T, D] ← dOut / range.count inside `range`, zero outside.
    public func poolTokensBackward(_ dTokens: Tensor, _ dOut: Tensor, range: Range<Int>) {
        requirePool(dOut, dTokens, range, "poolTokensBackward")
        launch(
            "pool_tokens_backward", stored: stored(dTokens, floats: dOut, operation: "poolTokensBackward"),
            (rowGroups(dTokens.rows), 1, 1), dTokens, dOut, dTokens.shape[0],
            dTokens.shape[1], dTokens.columns, range.lowerBound, range.upperBound)
    }

    private func requirePool(_ out: Tensor, _ tokens: Tensor, _ range: Range<Int>, _ operation: String) {
        require(
            tokens.shape.count == 3 && out.count == tokens.shape[0] * tokens.columns && !range.isEmpty
                && range.lowerBound >= 0 && range.upperBound <= tokens.shape[1], operation,
            "\(out.shape) is not the mean of tokens \(range) of \(tokens.shape)")
    }
}
