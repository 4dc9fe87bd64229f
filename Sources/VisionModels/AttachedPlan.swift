import Adapters
import Checkpoints
import TensorCore

/// The memory that a method's attachments need in a plan, beside what every model needs. Letters as in `ViTPlan`.
struct AttachedPlan {
    /// Of one Linear.
    struct Site {
        let before: [Tensor]
        let beside: [Tensor]
        let input: Tensor?  // [n, in] behind `before`
        let unscaled: Tensor?  // [n, out] what γ scales; nil where no backward follows
    }

    let sites: [Site]  // four for each block
    let norms: [[Tensor?]]  // two for each block, [n, D]: what γ scales
    let besideMLP: [[Tensor]]
    let behindMLP: [[Tensor]]
    let mlpOutputs: [Tensor?]  // [B, Q, D] the MLP's output where something is behind it
    let patches: Tensor?  // [B, N, D]: what γ scales
    let norm: Tensor?  // the final LayerNorm's output before γ
    let incoming: Tensor?  // [B, T, D] the stream before a block's tokens are changed; its gradient later
    let prompts: Tensor?  // [B, p · D]
    let promptSums: Tensor?  // [p · D]
    let positions, classToken: Tensor?  // [T, D], [D]: gradients that nobody reads
    let head: HeadNorm?

    /// Of AdaptFormer's batch norm, which is a LayerNorm of the transposed features.
    struct HeadNorm {
        let transposed, normed: Tensor  // [D, B]
        let gradient: Tensor  // [D, B]
        let mean, rstd: Tensor  // [D]
        let ones, zeros: Tensor  // [B]
        let identity: Tensor  // [B, B]
        let scale, shift: Tensor  // [D], in evaluation
        let output: Tensor  // [B, D]
    }

    /// `take` gives memory of its own, `share` memory that the blocks of an evaluation share, by a key.
    init(
        _ attachments: Attachments, _ model: ViTConfiguration, head: HeadKind, batch b: Int, tokens: [Int],
        asking: [Int], isForTraining: Bool, take: ([Int]) throws -> Tensor,
        share: (String, [Int]) throws -> Tensor
    ) rethrows {
        let (d, f) = (model.width, model.hiddenWidth)
        var (sites, norms, besideMLP, behindMLP): ([Site], [[Tensor?]], [[Tensor]], [[Tensor]]) = (
            [], [], [], []
        )
        var outputs: [Tensor?] = []
        func kept(_ update: (any Update)?, _ rows: Int, _ key: String) throws -> [Tensor] {
            try update?.keptShapes(rows: rows).enumerated().map { try share("\(key).\($0)", $1) } ?? []
        }
        func unscaled(_ place: ScaleShift?, _ shape: [Int]) throws -> Tensor? {
            place == nil || !isForTraining ? nil : try take(shape)
        }
        for (index, block) in attachments.blocks.enumerated() {
            let rows = [b * tokens[index], b * asking[index]]
            let sizes = [(rows[0], d, 3 * d), (rows[1], d, d), (rows[1], d, f), (rows[1], f, d)]
            for (number, places) in block.linears.enumerated() {
                let (n, inputs, outputs) = sizes[number]
                sites.append(
                    Site(
                        before: try kept(places.before, n, "before\(number)"),
                        beside: try kept(places.beside, n, "beside\(number)"),
                        input: places.before == nil ? nil : try share("input\(number)", [n, inputs]),
                        unscaled: try unscaled(places.behind, [n, outputs])))
            }
            norms.append(try (0..<2).map { try unscaled(block.norms[$0], [rows[$0], d]) })
            besideMLP.append(try kept(block.besideMLP, rows[1], "besideMLP"))
            behindMLP.append(try kept(block.behindMLP, rows[1], "behindMLP"))
            outputs.append(
                block.behindMLP == nil ? nil : try share("mlp", [b, asking[index], d]))
        }
        (self.sites, self.norms, self.besideMLP, self.behindMLP) = (sites, norms, besideMLP, behindMLP)
        mlpOutputs = outputs
        patches = try unscaled(attachments.patches, [b, model.patchCount, d])
        let last = model.pooling == .meanAfterNorm ? b * tokens.last! : b
        norm = try unscaled(attachments.norm, [last, d])
        let edits = attachments.blocks.compactMap(\.tokens)
        let longest = max(tokens.max()!, model.tokenCount)
        incoming = edits.isEmpty ? nil : try take([b, longest, d])
        let promptCount = edits.map { $0.count * d }.max()
        prompts = try promptCount.map { try take([b, $0]) }
        promptSums = try promptCount.map { try take([$0]) }
        positions = attachments.patches == nil ? nil : try take([model.tokenCount, d])
        classToken = attachments.patches == nil || !model.hasClassToken ? nil : try take([d])
        self.head = head != .batchNorm ? nil : try HeadNorm(d, b, take)
    }
}

extension AttachedPlan.HeadNorm {
    init(_ d: Int, _ b: Int, _ take: ([Int]) throws -> Tensor) rethrows {
        transposed = try take([d, b])
        normed = try take([d, b])
        gradient = try take([d, b])
        mean = try take([d])
        rstd = try take([d])
        ones = try take([b])
        zeros = try take([b])
        identity = try take([b, b])
        scale = try take([d])
        shift = try take([d])
        output = try take([b, d])
    }
}
