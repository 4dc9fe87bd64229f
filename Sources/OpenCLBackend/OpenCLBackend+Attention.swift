import COpenCL
import TensorCore

// S = q kᵀ / √h, P = softmax(S), out = P v per sample and head, without a [T, T] matrix (Attention.cl).

extension OpenCLBackend {
    /// out [B, Q, D] and logSumExp [B, heads, Q].
    public func attention(
        _ out: Tensor, _ logSumExp: Tensor, queries: TokenBlock, keys: TokenBlock, values: TokenBlock,
        _ size: AttentionSizes
    ) {
        let stored = out.elementType
        let inputs = Arguments(queries.tensor, keys.tensor, values.tensor)
        let places = Arguments(queries.place, keys.place, values.place)
        guard layout.local == 1 else {
            size.requireRows("attention")
            return launch(
                "attention_forward", stored: stored, (groups(size.queries), size.batch * size.heads, 1),
                to: out, logSumExp, from: inputs, with: places, size.constants)
        }
        let stretch = size.forwardStretch(PanelTiles(layout, choice.usual(stored)))
        launch(
            "attention_forward", stored: stored, (stretches(size, stretch, "attention"), 1, 1),
            to: out, logSumExp, leftPanels, from: inputs, with: places, size.batch, size.constants, stretch)
    }

    /// dQueries, dKeys and dValues are overwritten.
    public func attentionBackward(
        _ dQueries: TokenBlock, _ dKeys: TokenBlock, _ dValues: TokenBlock,
        _ dOut: Tensor, _ out: Tensor, _ logSumExp: Tensor, queries: TokenBlock, keys: TokenBlock,
        values: TokenBlock, _ size: AttentionSizes
    ) {
        let stored = out.elementType
        let inputs = Arguments(queries.tensor, keys.tensor, values.tensor)
        let places = Arguments(queries.place, keys.place, values.place)
        guard layout.local == 1 else {
            size.requireRows("attentionBackward")
            require(
                logSumExp.count <= OpenCLBackend.scratchCount, "attentionBackward",
                "\(logSumExp.count) softmax rows are more than the scratch holds: use a smaller batch")
            let heads = size.batch * size.heads
            launch(
                "attention_backward_queries", stored: stored, (groups(size.gradientRows), heads, 1),
                to: dQueries.tensor, scratch, from: dOut, out, logSumExp, inputs,
                with: dQueries.place, places, size.gradientRows, size.constants)
            return launch(
                "attention_backward_keys", stored: stored, (groups(size.tokens), heads, 1),
                to: dKeys.tensor, dValues.tensor, from: dOut, scratch, logSumExp, inputs,
                with: dKeys.place, dValues.place, places, size.constants)
        }
        let stretch = size.backwardStretch(PanelTiles(layout, choice.usual(stored)))
        launch(
            "attention_backward", stored: stored, (stretches(size, stretch, "attentionBackward"), 1, 1),
            to: dQueries.tensor, dKeys.tensor, dValues.tensor, leftPanels,
            from: dOut, out, logSumExp, inputs,
            with: dQueries.place, dKeys.place, dValues.place, places, size.gradientRows, size.batch,
            size.constants, stretch)
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

extension TokenBlock {
    /// As kernels take it.
    fileprivate var place: TokenPlace { TokenPlace(block: self) }
}

/// `int4` in a kernel: offset, stride, sampleStride, and nothing.
private struct TokenPlace: KernelArgument {
    let block: TokenBlock

    func add(to call: inout KernelCall) {
        let numbers = [block.offset, block.stride, block.sampleStride].map { number -> cl_int in
            guard let value = cl_int(exactly: number) else {
                fatalError("\(call.name): a size of \(number) is more than a kernel's int holds")
            }
            return value
        }
        call.add(bytesOf: SIMD4<cl_int>(numbers[0], numbers[1], numbers[2], 0))
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
