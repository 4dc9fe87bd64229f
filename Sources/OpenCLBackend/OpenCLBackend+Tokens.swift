import TensorCore

// Images to patches to tokens, and tokens to one vector a sample (Tokens.cl).

extension OpenCLBackend {
    /// patches [B, (H/p)·(W/p), C·p·p] ← images [B, C, H, W].
    public func extractPatches(
        _ patches: Tensor, _ images: Tensor, patchSize: Int, batch: Int, channels: Int, height: Int,
        width: Int
    ) {
        let rows = batch * (height / patchSize) * (width / patchSize)
        launch(
            "extract_patches", stored: patches.elementType, (rowGroups(rows), 1, 1), to: patches,
            from: images,
            with: batch, channels, height, width, patchSize)
    }

    /// tokens [B, T, D] ← [prefix [P, D]; projected [B, N, D]] + positions, which begin at token `positioned`.
    public func embedTokens(
        _ tokens: Tensor, _ projected: Tensor, _ prefix: Tensor?, _ positions: Tensor?, _ sizes: TokenSizes
    ) {
        launch(
            "embed_tokens_forward", stored: projected.elementType,
            (rowGroups(sizes.batch * sizes.tokens), 1, 1), to: tokens, from: projected, prefix, positions,
            with: sizes.batch, sizes.tokens, sizes.first, sizes.positioned, sizes.width)
    }

    /// dProjected [B, N, D] is overwritten; dPrefix [P, D] and dPositions accumulate.
    public func embedTokensBackward(
        _ dProjected: Tensor, _ dPrefix: Tensor?, _ dPositions: Tensor?, _ dTokens: Tensor,
        _ sizes: TokenSizes
    ) {
        launch(
            "embed_tokens_backward", stored: dProjected.elementType, (rowGroups(sizes.tokens), 1, 1),
            to: dProjected, dPrefix, dPositions, from: dTokens,
            with: sizes.batch, sizes.tokens, sizes.first, sizes.positioned, sizes.width)
    }

    /// out [B, D] ← the mean of tokens [B, T, D] over T in `range`.
    public func poolTokens(_ out: Tensor, _ tokens: Tensor, range: Range<Int>, _ sizes: TokenSizes) {
        launch(
            "pool_tokens_forward", stored: tokens.elementType, (rowGroups(sizes.batch), 1, 1), to: out,
            from: tokens,
            with: sizes.batch, sizes.tokens, sizes.width, range.lowerBound, range.upperBound)
    }

    /// dTokens [B, T, D] ← dOut / range.count inside `range`, zero outside.
    public func poolTokensBackward(_ dTokens: Tensor, _ dOut: Tensor, range: Range<Int>, _ sizes: TokenSizes)
    {
        launch(
            "pool_tokens_backward", stored: dTokens.elementType,
            (rowGroups(sizes.batch * sizes.tokens), 1, 1),
            to: dTokens, from: dOut, with: sizes.batch, sizes.tokens, sizes.width, range.lowerBound,
            range.upperBound)
    }
}
