import TensorCore

// S = q kᵀ / √h, P = softmax(S), out = P v per sample and head, without a [T, T] matrix (Attention.cl).

extension OpenCLBackend {
    /// out [B, Q, D] and logSumExp [B, heads, Q] from qkv [B, T, 3·D].
    public func attention(_ out: Tensor, _ logSumExp: Tensor, _ qkv: Tensor, _ size: AttentionSizes) {
        let stored = qkv.elementType
        guard layout.local == 1 else {
            size.requireRows("attention")
            return launch(
                "attention_forward", stored: stored, (groups(size.queries), size.batch * size.heads, 1),
                to: out, logSumExp, from: qkv, with: size.constants)
        }
        let stretch = size.forwardStretch(PanelTiles(layout, choice.usual(stored)))
        launch(
            "attention_forward", stored: stored, (stretches(size, stretch, "attention"), 1, 1),
            to: out, logSumExp, leftPanels, from: qkv, with: size.batch, size.constants, stretch)
    }

    /// dqkv [B, T, 3·D] is overwritten.
    public func attentionBackward(
        _ dqkv: Tensor, _ dOut: Tensor, _ out: Tensor, _ logSumExp: Tensor, _ qkv: Tensor,
        _ size: AttentionSizes
    ) {
        let stored = qkv.elementType
        guard layout.local == 1 else {
            size.requireRows("attentionBackward")
            require(
                logSumExp.count <= OpenCLBackend.scratchCount, "attentionBackward",
                "\(logSumExp.count) softmax rows are more than the scratch holds: use a smaller batch")
            let groups = (groups(size.tokens), size.batch * size.heads, 1)
            launch(
                "attention_backward_queries", stored: stored, groups, to: dqkv, scratch,
                from: dOut, out, logSumExp, qkv, with: size.constants)
            return launch(
                "attention_backward_keys", stored: stored, groups, to: dqkv,
                from: dOut, scratch, logSumExp, qkv, with: size.constants)
        }
        let stretch = size.backwardStretch(PanelTiles(layout, choice.usual(stored)))
        launch(
            "attention_backward", stored: stored, (stretches(size, stretch, "attentionBackward"), 1, 1),
            to: dqkv, leftPanels, from: dOut, out, logSumExp, qkv, with: size.batch, size.constants, stretch)
    }

    /// Groups whose work-items are `count` queries or keys.
    private func groups(_ count: Int) -> Int { (count + layout.local - 1) / layout.local }

    /// Groups of a CPU device, each with a stretch of the packing memory: a few for each core.
    private func stretches(_ size: AttentionSizes, _ stretch: Int, _ operation: String) -> Int {
        require(
            stretch <= OpenCLBackend.panelCount, operation,
            "\(size.tokens) tokens with heads of \(size.head) are too many")
        return min(rowGroups(size.batch * size.heads), OpenCLBackend.panelCount / stretch)
    }
}

extension AttentionSizes {
    /// As every kernel of attention takes them.
    fileprivate var constants: Arguments<Int, Int, Int, Int, Float> {
        Arguments(tokens, queries, heads, head, scale)
    }

    /// A GPU's work-item keeps a whole row of a head: MAX_HEAD_VECTORS of Attention.cl.
    fileprivate func requireRows(_ operation: String) {
        require(head <= 128, operation, "heads of \(head) are wider than the 128 that a work-item keeps")
    }

    // What one head occupies in the scratch of attention_forward and attention_backward: in Attention.cl floats, in
    // EngineAttention.cl words, and whole cache lines of them.

    fileprivate func forwardStretch(_ tiles: PanelTiles) -> Int {
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

    fileprivate func backwardStretch(_ tiles: PanelTiles) -> Int {
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
