import TensorCore

// S = q kᵀ / √h, P = softmax(S), out = P v per sample and head, without a [T, T] matrix (Attention.cl).

extension OpenCLBackend {
    /// out [B, Q, D] and logSumExp [B, heads, Q] from qkv [B, T, 3·D].
    public func attention(_ out: Tensor, _ logSumExp: Tensor, _ qkv: Tensor, heads: Int) {
        let size = AttentionSize(out, logSumExp, qkv, heads, "attention")
        let stored = stored(out, qkv, floats: logSumExp, operation: "attention")
        guard layout.local == 1 else {
            size.requireRows("attention")
            return launch(
                "attention_forward", stored: stored, (groups(size.asking), size.batch * heads, 1), out,
                logSumExp, qkv,
                size.tokens,
                size.asking, heads, size.head, size.scale)
        }
        let stretch = size.forwardStretch(PanelTiles(layout, usualKernel(stored)))
        launch(
            "attention_forward", stored: stored, (stretches(size, stretch, "attention"), 1, 1), out,
            logSumExp, leftPanels,
            qkv,
            size.batch, size.tokens, size.asking, heads, size.head, size.scale, stretch)
    }

    /// dqkv [B, T, 3·D] is overwritten.
    public func attentionBackward(
        _ dqkv: Tensor, _ dOut: Tensor, _ out: Tensor, _ logSumExp: Tensor, _ qkv: Tensor, heads: Int
    ) {
        let size = AttentionSize(out, logSumExp, qkv, heads, "attentionBackward")
        let stored = stored(dqkv, dOut, out, qkv, floats: logSumExp, operation: "attentionBackward")
        require(
            dqkv.count == qkv.count && dOut.count == out.count, "attentionBackward",
            "dqkv \(dqkv.shape) and dOut \(dOut.shape) don't fit")
        guard layout.local == 1 else {
            size.requireRows("attentionBackward")
            require(
                logSumExp.count <= OpenCLBackend.scratchCount, "attentionBackward",
                "\(logSumExp.count) softmax rows are more than the scratch holds: use a smaller batch")
            let groups = (groups(size.tokens), size.batch * heads, 1)
            launch(
                "attention_backward_queries", stored: stored, groups, dqkv, scratch, dOut, out, logSumExp,
                qkv, size.tokens,
                size.asking, heads, size.head, size.scale)
            return launch(
                "attention_backward_keys", stored: stored, groups, dqkv, dOut, scratch, logSumExp, qkv,
                size.tokens,
                size.asking,
                heads, size.head, size.scale)
        }
        let stretch = size.backwardStretch(PanelTiles(layout, usualKernel(stored)))
        launch(
            "attention_backward", stored: stored, (stretches(size, stretch, "attentionBackward"), 1, 1), dqkv,
            leftPanels,
            dOut, out,
            logSumExp, qkv, size.batch, size.tokens, size.asking, heads, size.head, size.scale, stretch)
    }

    /// Groups whose work-items are `count` queries or keys.
    private func groups(_ count: Int) -> Int { (count + layout.local - 1) / layout.local }

    /// Groups of a CPU device, each with a stretch of the packing memory: a few for each core.
    private func stretches(_ size: AttentionSize, _ stretch: Int, _ operation: String) -> Int {
        require(
            stretch <= OpenCLBackend.panelCount, operation,
            "\(size.tokens) tokens with heads of \(size.head) are too many")
        return min(rowGroups(size.batch * size.heads), OpenCLBackend.panelCount / stretch)
    }
}

/// The sizes of an attention.
private struct AttentionSize {
    let batch: Int
    let tokens: Int
    /// The first tokens, which ask.
    let asking: Int
    let heads: Int
    /// A head's width.
    let head: Int
    var scale: Float { 1 / Float(head).squareRoot() }

    init(_ out: Tensor, _ logSumExp: Tensor, _ qkv: Tensor, _ heads: Int, _ operation: String) {
        require(
            out.shape.count == 3 && qkv.shape.count == 3 && qkv.shape[0] == out.shape[0]
                && qkv.columns == 3 * out.columns && heads > 0 && out.columns % heads == 0
                && out.shape[1] <= qkv.shape[1] && logSumExp.count == out.shape[0] * heads * out.shape[1],
            operation,
            "out \(out.shape), logSumExp \(logSumExp.shape), qkv \(qkv.shape) and \(heads) heads don't fit")
        (batch, tokens, asking) = (out.shape[0], qkv.shape[1], out.shape[1])
        (self.heads, head) = (heads, out.columns / heads)
    }

    /// A GPU's work-item keeps a whole row of a head: MAX_HEAD_VECTORS of Attention.cl.
    func requireRows(_ operation: String) {
        require(head <= 128, operation, "heads of \(head) are wider than the 128 that a work-item keeps")
    }

    // What one head occupies in the scratch of attention_forward and attention_backward: in Attention.cl floats, in
    // EngineAttention.cl words, and whole cache lines of them.

    func forwardStretch(_ tiles: PanelTiles) -> Int {
        guard tiles.kernel.engine != nil else {
            return tiles.paddedRows(tokens) * head + tokens * tiles.paddedColumns(head)
                + (head + tokens) * tiles.columns
        }
        let (keys, tall) = (tiles.paddedRows(tokens), tiles.paddedRows(head))
        let (pairs, keyPairs) = (tiles.words(head), tiles.words(tokens))
        return wholeLines(
            keys * pairs + tall * keyPairs
                + tiles.columns * (pairs + keyPairs + max(keys, tall, (head + 15) / 16 * 16)))
    }

    func backwardStretch(_ tiles: PanelTiles) -> Int {
        let (keys, wide) = (tiles.paddedRows(tokens), tiles.paddedColumns(head))
        guard tiles.kernel.engine != nil else {
            return 2 * keys * head + tokens * wide + 2 * keys * wide
                + 2 * tiles.columns * (keys + head + wide)
        }
        let tall = tiles.paddedRows(head)
        let (pairs, keyPairs) = (tiles.words(head), tiles.words(tokens))
        return wholeLines(
            2 * keys * pairs + tall * keyPairs + 2 * tiles.words(tiles.columns) * (wide + tiles.rows)
                + 2 * keys * wide
                + tiles.columns * (2 * pairs + keys / 2 + max(tall, (head + 15) / 16 * 16)))
    }

    private func wholeLines(_ words: Int) -> Int { (words + 15) / 16 * 16 }
}
