import Adapters
import Checkpoints
import ModelConfiguration
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
    /// What a term reads and adds to, as float32, where those are stored in 16 bits; one term at a time. See
    /// `VisionTransformer.add`.
    let wide: Wide?

    /// Memory for the widest term.
    struct Wide {
        let y: Tensor  // [n, out], its gradient in the backward
        let x: Tensor  // [n, in]
        let dx: Tensor  // [n, in]; x itself where no backward follows
    }

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

    /// `take` gives memory of its own, `share` memory that the blocks of an evaluation share, by a key. `stored` is the type of
    /// what goes from one operation to the next inside a block.
    init(
        _ attachments: Attachments, _ model: ViTConfiguration, head: HeadKind, batch b: Int, tokens: [Int],
        asking: [Int], isForTraining: Bool, stored: ElementType,
        take takeTyped: ([Int], ElementType) throws -> Tensor,
        share: (String, [Int], ElementType) throws -> Tensor
    ) rethrows {
        func take(_ shape: [Int]) throws -> Tensor { try takeTyped(shape, .float32) }
        let (d, f) = (model.width, model.hiddenWidth)
        var (sites, norms, besideMLP, behindMLP): ([Site], [[Tensor?]], [[Tensor]], [[Tensor]]) = (
            [], [], [], []
        )
        var outputs: [Tensor?] = []
        func kept(_ update: (any Update)?, _ rows: Int, _ key: String) throws -> [Tensor] {
            try update?.keptShapes(rows: rows).enumerated().map { try share("\(key).\($0)", $1, .float32) }
                ?? []
        }
        func unscaled(_ place: ScaleShift?, _ shape: [Int], _ type: ElementType) throws -> Tensor? {
            place == nil || !isForTraining ? nil : try takeTyped(shape, type)
        }
        // The numbers that the widest term adds to and reads.
        var (widestY, widestX) = (0, 0)
        func widen(_ update: (any Update)?, _ rows: Int, _ inputs: Int, _ outputs: Int) {
            guard update != nil, stored != .float32 else { return }
            (widestY, widestX) = (max(widestY, rows * outputs), max(widestX, rows * inputs))
        }
        for (index, block) in attachments.blocks.enumerated() {
            let rows = [b * tokens[index], b * asking[index]]
            let sizes = [(rows[0], d, 3 * d), (rows[1], d, d), (rows[1], d, f), (rows[1], f, d)]
            for (number, places) in block.linears.enumerated() {
                let (n, inputs, outputs) = sizes[number]
                widen(places.before, n, inputs, inputs)
                widen(places.beside, n, inputs, outputs)
                sites.append(
                    Site(
                        before: try kept(places.before, n, "before\(number)"),
                        beside: try kept(places.beside, n, "beside\(number)"),
                        input: places.before == nil ? nil : try share("input\(number)", [n, inputs], stored),
                        unscaled: try unscaled(places.behind, [n, outputs], stored)))
            }
            norms.append(try (0..<2).map { try unscaled(block.norms[$0], [rows[$0], d], stored) })
            besideMLP.append(try kept(block.besideMLP, rows[1], "besideMLP"))
            behindMLP.append(try kept(block.behindMLP, rows[1], "behindMLP"))
            widen(block.behindMLP, rows[1], d, d)
            outputs.append(
                block.behindMLP == nil ? nil : try share("mlp", [b, asking[index], d], stored))
        }
        (self.sites, self.norms, self.besideMLP, self.behindMLP) = (sites, norms, besideMLP, behindMLP)
        mlpOutputs = outputs
        patches = try unscaled(attachments.patches, [b, model.patchCount, d], stored)
        let poolsLast = model.pooling == .meanAfterNorm
        norm = try unscaled(
            attachments.norm, [poolsLast ? b * tokens.last! : b, d], poolsLast ? stored : .float32)
        let edits = attachments.blocks.compactMap(\.tokens)
        let longest = max(tokens.max()!, model.tokenCount)
        incoming = edits.isEmpty ? nil : try take([b, longest, d])
        let promptCount = edits.map { $0.count * d }.max()
        prompts = try promptCount.map { try take([b, $0]) }
        promptSums = try promptCount.map { try take([$0]) }
        positions = attachments.patches == nil ? nil : try take([model.tokenCount, d])
        classToken = attachments.patches == nil || !model.hasClassToken ? nil : try take([d])
        self.head = head != .batchNorm ? nil : try HeadNorm(d, b, take)
        if widestY == 0 {
            wide = nil
        } else {
            let (y, x) = (try take([widestY]), try take([widestX]))
            wide = Wide(y: y, x: x, dx: isForTraining ? try take([widestX]) : x)
        }
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
