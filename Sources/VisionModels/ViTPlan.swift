import Adapters
import Checkpoints
import ModelConfiguration
import TensorCore

/// What a step keeps for its backward and what it computes once more. Figures are for ViT-B/16, batch 8.
public enum MemoryPolicy: String, CaseIterable, Sendable, Codable {
    /// Recomputes both LayerNorms' outputs and GELU's.
    case low
    /// Recomputes GELU's output: 1 % of a step against 230 MB.
    case balanced
    /// Keeps all that a backward reads.
    case fast
}

/// The memory of one step for a batch of B images: taken once, reused by every step of that batch size.
///
/// B images, T tokens, D width, F hidden width of the MLP, H heads, K classes. Q tokens of a block go on behind its
/// attention: all T, but in the last block of a model that pools the class token that one alone. T is another number in each
/// block of a method that changes the sequence.
public struct ViTPlan {
    /// Whether a backward can follow: then every block keeps what its backward reads; else all blocks share one set.
    public let isForTraining: Bool
    /// B.
    public let batch: Int
    /// [B, 3, S, S] normalised pixels.
    public let images: Tensor
    /// [B] int32 classes.
    public let labels: Tensor
    /// [B, K] what the head says.
    public let logits: Tensor
    /// [B] cross-entropy of each image.
    public let losses: Tensor
    /// [B] per residual branch, two for a block: 0 or 1 / (1 − p), drawn by the trainer when drop-path is on.
    public let branchScales: [Tensor]

    /// What one block keeps for its backward.
    struct Block {
        let input: Tensor  // [B, T, D] the residual stream as it enters
        let mean1, rstd1: Tensor  // [B·T]
        let normed1: Tensor  // [B, T, D] LN1; shared by the blocks under low
        let qkv: Tensor  // [B, T, 3·D], or z where the path asks for it
        let logSumExp: Tensor  // [B, H, Q]
        let attended: Tensor  // [B, Q, D] what proj reads
        let middle: Tensor  // [B, Q, D] the stream between attention and MLP
        let mean2, rstd2: Tensor  // [B·Q]
        let normed2: Tensor  // [B, Q, D] LN2; shared under low
        let hidden: Tensor  // [B, Q, F] before GELU, or z where the path asks for it
        let activated: Tensor  // [B, Q, F] after GELU; shared under low and balanced
        let linears: [GLoRALinear.Kept]  // of qkv, proj, fc1, fc2
    }

    /// What the backward alone works in.
    struct Gradients {
        let logits: Tensor  // [B, K]
        let pooled: Tensor  // [B, D]
        let normedPooled: Tensor  // [B, D]
        let stream: Tensor  // [B, T, D] of the residual stream
        let asked: Tensor  // [B, Q, D] of the stream behind the last block's attention; `stream` when Q = T
        let branch: Tensor  // [B, T, D] of a branch's output, scaled
        let normed: Tensor  // [B, T, D] of a LayerNorm's output; of attention's output
        let hidden: Tensor  // [B, T, F]
        let qkv: Tensor  // [B, T, 3·D]
        let projected: Tensor  // [B, N, D]
    }

    /// Whether the blocks share the outputs of their LayerNorms, and of GELU: a backward computes them again.
    let sharesNormed, sharesActivated: Bool
    let patches: Tensor  // [B, N, 3·p·p]
    let projected: Tensor  // [B, N, D]
    let blocks: [Block]
    let output: Tensor  // [B, Q, D] the stream as it leaves the last block
    let askedInput: Tensor?  // [B, Q, D] the asking tokens of the last block's input, when they are not all
    let qkv: Tensor  // [B, T, 3·D] y where a block keeps z
    let branch: Tensor  // [B, T, D] a branch's output before the residual
    let normed: Tensor  // [B, T, D] the final LayerNorm before a mean
    let mean, rstd: Tensor  // [B·T], or [B] where pooling comes first
    let pooled: Tensor  // [B, D] what pooling gives
    let features: Tensor  // [B, D] what the head reads
    let plain: GLoRALinear.Kept  // of the patch projection and the head, which keep nothing
    let gradients: Gradients?
    let attached: AttachedPlan?  // what a method's attachments need

    /// Lays the plan out with `take`, which gives memory of a shape. `rank` is R of the support tensors, `attachments` and
    /// `head` a method's, `stored` the type of what goes from one operation to the next inside a block (`Precision`). Throws
    /// what `take` throws.
    init(
        _ model: ViTConfiguration, rank: Int, policy: MemoryPolicy, batch: Int, isForTraining: Bool,
        attachments: Attachments? = nil, head: HeadKind = .linear, stored: ElementType = .float32,
        take: ([Int], ElementType) throws -> Tensor
    ) rethrows {
        let (b, d, f) = (batch, model.width, model.hiddenWidth)
        let tokens =
            attachments?.tokenCounts(model.tokenCount)
            ?? Array(repeating: model.tokenCount, count: model.depth)
        let asking = tokens.enumerated().map {
            $0 + 1 == model.depth && model.pooling == .classToken ? 1 : $1
        }
        let t = max(tokens.max() ?? 0, model.tokenCount)  // the most that a block sees
        let patchLength = model.channels * model.patchSize * model.patchSize
        func floats(_ shape: Int...) throws -> Tensor { try take(shape, .float32) }
        func activations(_ shape: Int...) throws -> Tensor { try take(shape, stored) }
        self.isForTraining = isForTraining
        self.batch = batch
        let sharesNormed = !isForTraining || policy == .low
        let sharesActivated = !isForTraining || policy != .fast
        self.sharesNormed = sharesNormed
        self.sharesActivated = sharesActivated
        images = try floats(b, model.channels, model.imageSize, model.imageSize)
        labels = try take([b], .int32)
        logits = try floats(b, model.classCount)
        losses = try floats(b)
        branchScales = isForTraining ? try (0..<2 * model.depth).map { _ in try floats(b) } : []
        patches = try activations(b, model.patchCount, patchLength)
        projected = try activations(b, model.patchCount, d)
        qkv = try activations(b, t, 3 * d)
        branch = try activations(b, t, d)
        let sharedNormed = try activations(b, t, d)
        let sharedActivated = try activations(b, t, f)
        plain = GLoRALinear.Kept(bias: losses, t: losses, product: nil)

        func shaped(_ tensor: Tensor, _ shape: Int...) -> Tensor {
            Tensor(buffer: tensor.buffer, shape: shape, elementType: tensor.elementType)
        }
        // In evaluation all blocks share one set of memory, each in its own shapes; the stream is overwritten in place.
        var shared: [String: Tensor] = [:]
        // Swift 6.3 leaks what `own` captures when it is passed on: without this a plan's memory for good.
        defer { shared = [:] }
        func own(_ name: String, _ shape: [Int], _ type: ElementType = .float32) throws -> Tensor {
            guard !isForTraining else { return try take(shape, type) }
            if let tensor = shared[name], tensor.count >= shape.reduce(1, *) {
                return Tensor(buffer: tensor.buffer, shape: shape, elementType: type)
            }
            let tensor = try take(shape, type)
            shared[name] = tensor
            return tensor
        }
        func kept(_ name: String, _ rows: Int, _ outputs: Int, product: Tensor?) throws -> GLoRALinear.Kept {
            GLoRALinear.Kept(
                bias: try own("bias-\(name)", [outputs]), t: try own("t-\(name)", [rows * rank]),
                product: product)
        }
        func block(tokens t: Int, asking q: Int) throws -> Block {
            let qkv = try own("qkv", [b, t, 3 * d], stored)
            let hidden = try own("hidden", [b, q, f], stored)
            return Block(
                input: try own("input", [b, t, d]), mean1: try own("mean1", [b * t]),
                rstd1: try own("rstd1", [b * t]),
                normed1: sharesNormed ? shaped(sharedNormed, b, t, d) : try activations(b, t, d),
                qkv: qkv, logSumExp: try own("lse", [b, model.heads, q]),
                attended: try own("attended", [b, q, d], stored), middle: try own("middle", [b, q, d]),
                mean2: try own("mean2", [b * q]), rstd2: try own("rstd2", [b * q]),
                normed2: sharesNormed ? shaped(sharedNormed, b, q, d) : try activations(b, q, d),
                hidden: hidden,
                activated: sharesActivated ? shaped(sharedActivated, b, q, f) : try activations(b, q, f),
                linears: [
                    try kept("qkv", b * t, 3 * d, product: isForTraining ? qkv : nil),
                    try kept("proj", b * q, d, product: isForTraining ? try activations(b, q, d) : nil),
                    try kept("fc1", b * q, f, product: isForTraining ? hidden : nil),
                    try kept("fc2", b * q, d, product: isForTraining ? try activations(b, q, d) : nil),
                ])
        }
        if !isForTraining { _ = try block(tokens: t, asking: t) }
        blocks = try zip(tokens, asking).map { try block(tokens: $0, asking: $1) }
        let (lastTokens, last) = (tokens.last ?? t, asking.last ?? t)
        output =
            isForTraining || last != lastTokens
            ? try floats(b, last, d) : try own("input", [b, last, d])
        askedInput = last == lastTokens ? nil : try floats(b, last, d)
        normed = shaped(sharedNormed, b, lastTokens, d)
        let normedRows = model.pooling == .meanAfterNorm ? b * lastTokens : b
        mean = try floats(normedRows)
        rstd = try floats(normedRows)
        pooled = try floats(b, d)
        features = try floats(b, d)
        if isForTraining {
            let stream = try floats(b, t, d)
            gradients = Gradients(
                logits: try floats(b, model.classCount), pooled: try floats(b, d),
                normedPooled: try floats(b, d),
                stream: stream, asked: last == lastTokens ? stream : try floats(b, last, d),
                branch: try activations(b, t, d), normed: try activations(b, t, d),
                hidden: try activations(b, t, f), qkv: try activations(b, t, 3 * d),
                projected: try activations(b, model.patchCount, d))
        } else {
            gradients = nil
        }
        // A batch norm before the head needs its memory without any other attachment.
        attached =
            attachments == nil && head != .batchNorm
            ? nil
            : try AttachedPlan(
                attachments ?? Attachments(depth: model.depth), model, head: head, batch: b, tokens: tokens,
                asking: asking, isForTraining: isForTraining, stored: stored, take: take,
                share: { try own($0, $1, $2) })
    }

    /// [B, T, D]: the residual stream as it enters a block.
    public func stream(into block: Int) -> Tensor { block < blocks.count ? blocks[block].input : output }

    /// The bytes that a plan takes, without taking them; the largest number where they are more than any memory has.
    public static func byteCount(
        _ model: ViTConfiguration, rank: Int, policy: MemoryPolicy, batch: Int, isForTraining: Bool,
        attachments: Attachments? = nil, head: HeadKind = .linear, stored: ElementType = .float32
    ) -> Int {
        func words(batch: Int) -> Int {
            var count = 0
            _ = ViTPlan(
                model, rank: rank, policy: policy, batch: batch, isForTraining: isForTraining,
                attachments: attachments, head: head, stored: stored
            ) { shape, type in
                count += Arena.footprint(shape, type)
                return Tensor(buffer: NoMemory(), shape: shape, elementType: type)
            }
            return count
        }
        // Sizes within `ViTConfiguration.check`'s bounds make numbers for one image, and may not for many.
        guard product([4, words(batch: 1), batch]) != nil else { return .max }
        return 4 * words(batch: batch)
    }
}

/// Stands for memory where a plan is only measured.
private final class NoMemory: Buffer {
    let byteCount = Int.max
}
