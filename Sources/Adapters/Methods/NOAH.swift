import TensorCore

/// A subnet of NOAH: block k has p_k prompts, a LoRA of rank r_k on qkv and an adapter of width a_k, each 0 for none, all slices
/// of tensors as wide as the widest:
///
///     tokens    p_k > 0: the last p_{k−1} tokens go, prompts[:p_k] come in behind; p_k = 0: the sequence stays
///     qkv       y += LoRA_b[:, :r] (LoRA_a[:r] x), one down-projection for q, k and v, without a scale
///     MLP       m + ln2(QuickGELU(ln1 m)), QuickGELU(v) = v · σ(1.702 v), with biases
///
/// Every weight begins as N(0, 0.02²) and every bias at zero, LoRA_b's too: not the identity. Prompts are Xavier. What the
/// authors' model has for the sequence before block 0 never reaches the output (block 0 takes it out again), so it isn't here.
/// Nothing merges. Source: NOAH, model/supernet_vision_transformer_timm.py; arXiv 2206.04673.
public struct NOAH: TuningMethod {
    /// The sizes of one block.
    public struct Dimensions: Equatable, Sendable {
        /// p, r and a.
        public var prompts, rank, width: Int

        public init(prompts: Int, rank: Int, width: Int) {
            (self.prompts, self.rank, self.width) = (prompts, rank, width)
        }
    }

    private let dimensions: [Dimensions]  // one for all blocks, or one for each
    private let storage: Dimensions

    /// `dimensions` is one for all blocks alike, or one for each; `storage` the sizes of the tensors, by default the largest that
    /// are used.
    public init(_ dimensions: [Dimensions], storage: Dimensions? = nil) {
        self.dimensions = dimensions
        self.storage =
            storage
            ?? Dimensions(
                prompts: dimensions.map(\.prompts).max() ?? 0, rank: dimensions.map(\.rank).max() ?? 0,
                width: dimensions.map(\.width).max() ?? 0)
    }

    init(_ settings: MethodSettings, depth: Int) throws {
        try settings.allow("noah", [settings.$dims])
        let text = settings.dims ?? "5:8:8"
        let parsed = text.split(separator: ",").map { $0.split(separator: ":").map { Int($0) ?? -1 } }
        guard
            parsed.allSatisfy({
                $0.count == 3 && $0.allSatisfy { (0...MethodSettings.largestSize).contains($0) }
            }),
            parsed.count == 1 || parsed.count == depth
        else {
            throw MethodError(
                "`dims` \(text.prefix(80)) must be prompts:rank:width, such as 5:8:8, each at most "
                    + "\(MethodSettings.largestSize), once or once for each of the \(depth) blocks")
        }
        self.init(parsed.map { Dimensions(prompts: $0[0], rank: $0[1], width: $0[2]) })
    }

    public var unmergeable: String? {
        "NOAH's prompts are tokens and its adapters have an activation between their matrices; no weight can stand for them"
    }

    private func of(_ block: Int) -> Dimensions { dimensions[dimensions.count == 1 ? 0 : block] }

    public func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] {
        var random = Initialization(seed, "noah")
        let (d, s) = (shape.width, storage)
        return (0..<shape.depth).flatMap { block -> [ParameterStore.Declaration] in
            let name = "blocks.\(block)"
            var declared: [ParameterStore.Declaration] = []
            if s.prompts > 0 {
                declared.append(
                    random.xavier(
                        "\(name).visual_prompt_token", [1, s.prompts, d], inputs: s.prompts * d, outputs: d))
            }
            if s.rank > 0 {
                declared += [
                    random.normal("\(name).attn.LoRA_a.weight", [s.rank, d], 0.02),
                    random.normal("\(name).attn.LoRA_b.weight", [3 * d, s.rank], 0.02),
                ]
            }
            if s.width > 0 {
                declared += [
                    random.normal("\(name).adapter.ln1.weight", [s.width, d], 0.02),
                    zeros("\(name).adapter.ln1.bias", [s.width]),
                    random.normal("\(name).adapter.ln2.weight", [d, s.width], 0.02),
                    zeros("\(name).adapter.ln2.bias", [d]),
                ]
            }
            return declared
        }
    }

    public func isUsed(_ name: String) -> Bool {
        let parts = name.split(separator: ".")
        guard parts.count > 2, let block = Int(parts[1]) else { return true }
        if name.contains("visual_prompt") { return of(block).prompts > 0 }
        if name.contains("LoRA") { return of(block).rank > 0 }
        return of(block).width > 0
    }

    /// The slices that are used. The authors' count has p₀ + P more rows of D that don't reach the output (P: the storage).
    public func parameterCount(_ shape: TransformerShape, _ layers: [any LinearLayer] = []) -> Int {
        (0..<shape.depth).reduce(0) { sum, block in
            let (d, size) = (shape.width, of(block))
            return sum + size.prompts * d + size.rank * 4 * d
                + (size.width > 0 ? 2 * d * size.width + size.width + d : 0)
        }
    }

    /// What the authors' counter says (`get_sampled_params_numel`): with the prompts before block 0 and the position tensor of
    /// all P prompts, neither of which reaches the output.
    public func officialParameterCount(_ shape: TransformerShape) -> Int {
        parameterCount(shape) + (of(0).prompts + storage.largest) * shape.width
    }

    public func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws {
        let shape = model.shape
        let d = shape.width
        var earlier = 0  // the prompts at the end of the sequence that the next ones would replace
        for block in 0..<shape.depth {
            let (name, size) = ("blocks.\(block)", of(block))
            if size.prompts > 0 {
                model.blocks[block].tokens = TokenEdit(
                    prompts: store["\(name).visual_prompt_token"]!, offset: 0, count: size.prompts,
                    removed: earlier, front: nil, dropout: 0)
            }
            // As the authors: the last block's number, also when that is 0 and earlier prompts are still there.
            earlier = size.prompts
            if size.rank > 0 {
                let term = try Bottleneck(
                    inputs: d, outputs: 3 * d, hidden: size.rank, down: store["\(name).attn.LoRA_a.weight"]!,
                    up: store["\(name).attn.LoRA_b.weight"]!,
                    upBlocks: [columns(size.rank, of: storage.rank, rows: 3 * d)], place: 2 * block, arena,
                    backend)
                let base = model.blocks[block][.fusedQKV].base
                model.blocks[block][.fusedQKV] = AdaptedLinear(base, beside: term)
            }
            if size.width > 0 {
                model.blocks[block].behindMLP = try Bottleneck(
                    inputs: d, outputs: d, hidden: size.width, down: store["\(name).adapter.ln1.weight"]!,
                    downBias: store["\(name).adapter.ln1.bias"]!,
                    up: store["\(name).adapter.ln2.weight"]!,
                    upBlocks: [columns(size.width, of: storage.width, rows: d)],
                    upBias: store["\(name).adapter.ln2.bias"]!, activation: .quickGELU, place: 2 * block + 1,
                    arena, backend)
            }
        }
    }

    private func columns(_ count: Int, of stride: Int, rows: Int) -> Bottleneck.Up.Block {
        Bottleneck.Up.Block(offset: 0, stride: stride, row: 0, column: 0, rows: rows, columns: count)
    }
}

extension NOAH.Dimensions {
    fileprivate var largest: Int { max(prompts, rank, width) }
}
