import Adapters
import Checkpoints
import TensorCore

/// The memory of one step for a batch of B images: taken once, reused by every step of that batch size.
///
/// B images, T tokens, D width, F hidden width of the MLP, H heads, K classes.
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
        let normed1: Tensor  // [B, T, D] LN1
        let qkv: Tensor  // [B, T, 3·D]
        let probabilities: Tensor  // [B, H, T, T] softmax
        let attended: Tensor  // [B, T, D] what proj reads
        let middle: Tensor  // [B, T, D] the stream between attention and MLP
        let mean2, rstd2: Tensor  // [B·T]
        let normed2: Tensor  // [B, T, D] LN2
        let hidden: Tensor  // [B, T, F] before GELU
        let activated: Tensor  // [B, T, F] after GELU
    }

    /// What the backward alone works in.
    struct Gradients {
        let logits: Tensor  // [B, K]
        let pooled: Tensor  // [B, D]
        let normedPooled: Tensor  // [B, D]
        let stream: Tensor  // [B, T, D] of the residual stream
        let branch: Tensor  // [B, T, D] of a branch's output, scaled
        let normed: Tensor  // [B, T, D] of a LayerNorm's output; of attention's output
        let hidden: Tensor  // [B, T, F]
        let qkv: Tensor  // [B, T, 3·D]
        let probabilities: Tensor  // [B, H, T, T]
        let projected: Tensor  // [B, N, D]
    }

    let patches: Tensor  // [B, N, 3·p·p]
    let projected: Tensor  // [B, N, D]
    let blocks: [Block]
    let output: Tensor  // [B, T, D] the stream as it leaves the last block
    let branch: Tensor  // [B, T, D] a branch's output before the residual
    let normed: Tensor  // [B, T, D] the final LayerNorm before pooling
    let mean, rstd: Tensor  // [B·T], or [B] where pooling comes first
    let pooled: Tensor  // [B, D] what pooling gives
    let features: Tensor  // [B, D] what the head reads
    let gradients: Gradients?

    /// Lays the plan out in `arena`. Throws `BackendError.outOfMemory`.
    init(_ model: ViTConfiguration, classCount: Int, batch: Int, isForTraining: Bool, _ arena: Arena) throws {
        let (b, t, d, f) = (batch, model.tokenCount, model.width, model.hiddenWidth)
        let patchLength = model.channels * model.patchSize * model.patchSize
        func take(_ shape: Int...) throws -> Tensor { try arena.take(shape) }
        self.isForTraining = isForTraining
        self.batch = batch
        images = try take(b, model.channels, model.imageSize, model.imageSize)
        labels = try arena.take([b], .int32)
        logits = try take(b, classCount)
        losses = try take(b)
        branchScales = isForTraining ? try (0..<2 * model.depth).map { _ in try take(b) } : []
        patches = try take(b, model.patchCount, patchLength)
        projected = try take(b, model.patchCount, d)
        let input = try take(b, t, d)
        func block(input: Tensor) throws -> Block {
            Block(
                input: input, mean1: try take(b * t), rstd1: try take(b * t), normed1: try take(b, t, d),
                qkv: try take(b, t, 3 * d), probabilities: try take(b, model.heads, t, t),
                attended: try take(b, t, d), middle: try take(b, t, d),
                mean2: try take(b * t), rstd2: try take(b * t), normed2: try take(b, t, d),
                hidden: try take(b, t, f), activated: try take(b, t, f))
        }
        if isForTraining {
            blocks = try (0..<model.depth).map { try block(input: $0 == 0 ? input : take(b, t, d)) }
            output = try take(b, t, d)
        } else {
            // The stream may be overwritten in place: block and output share it.
            blocks = Array(repeating: try block(input: input), count: model.depth)
            output = input
        }
        branch = try take(b, t, d)
        normed = try take(b, t, d)
        let normedRows = model.pooling == .meanBeforeNorm ? b : b * t
        mean = try take(normedRows)
        rstd = try take(normedRows)
        pooled = try take(b, d)
        features = try take(b, d)
        gradients =
            isForTraining
            ? Gradients(
                logits: try take(b, classCount), pooled: try take(b, d), normedPooled: try take(b, d),
                stream: try take(b, t, d), branch: try take(b, t, d), normed: try take(b, t, d),
                hidden: try take(b, t, f), qkv: try take(b, t, 3 * d),
                probabilities: try take(b, model.heads, t, t), projected: try take(b, model.patchCount, d))
            : nil
    }

    /// The bytes that a plan takes, without taking them.
    public static func byteCount(
        _ model: ViTConfiguration, classCount: Int, batch: Int, isForTraining: Bool
    ) -> Int {
        let stream = Arena.footprint([batch, model.tokenCount, model.width])
        let hidden = Arena.footprint([batch, model.tokenCount, model.hiddenWidth])
        let probabilities = Arena.footprint([batch, model.heads, model.tokenCount, model.tokenCount])
        let statistics = Arena.footprint([batch * model.tokenCount])
        let block = 8 * stream + 2 * hidden + probabilities + 4 * statistics
        let input =
            Arena.footprint([batch, model.channels, model.imageSize, model.imageSize]) * 2
            + Arena.footprint([batch, model.patchCount, model.width])
        let tail = 3 * stream + 2 * statistics + 2 * Arena.footprint([batch, model.width])
        let gradients = 7 * stream + hidden + probabilities
        return 4 * (input + tail + (isForTraining ? model.depth * block + gradients : block))
    }
}
