import Adapters
import Datasets
import TensorCore

/// The architecture of a vision transformer and how its images are prepared: read from a checkpoint, never assumed.
///
/// | | what differs from the ViT of 2021 |
/// | --- | --- |
/// | DeiT III | layer scale; positions for the patches alone |
/// | DINOv2 | layer scale; with registers four of them behind the class token, and positions for the patches alone |
/// | CLIP | a norm before the blocks, patches without a bias, quick GELU (OpenAI's), ε 1e-5 |
/// | SigLIP | no class token, the tanh form of GELU, pooling by attention |
/// | DINOv3 | layer scale and registers; rotary positions in place of learned ones, keys without a bias |
/// | EVA-02 | rotary positions beside learned ones, a gated feed-forward layer with a norm inside, queries, keys and values apart |
///
/// Sources: timm 1.0.31, `vision_transformer.py`, `deit.py`, `eva.py`; transformers 5.24, `modeling_dinov2.py` and its neighbours.
public struct ViTConfiguration: Hashable, Sendable {
    /// Height and width of the input in pixels.
    public var imageSize: Int
    /// Height and width of a patch in pixels; divides `imageSize`.
    public var patchSize: Int
    /// Input channels: 3.
    public var channels: Int = 3
    /// D, the width of a token.
    public var width: Int
    /// The number of blocks.
    public var depth: Int
    /// Attention heads; divides `width`.
    public var heads: Int
    /// F, the hidden width of the feed-forward layer: what its last Linear reads.
    public var hiddenWidth: Int
    /// Classes of the head; 0 when the checkpoint has no head.
    public var classCount: Int
    /// ε of every norm.
    public var layerNormEpsilon: Float = 1e-6
    /// What every norm is.
    public var norm: Normalization = .layer
    /// Whether queries, keys and values are one Linear.
    public var queries: QueryProjection = .fused
    /// Which of queries, keys and values have biases.
    public var queryBias: QueryBias = .all
    /// Whether every head's query and every head's key is normed, by one norm of the queries and one of the keys, before they are
    /// rotated.
    public var queryKeyNorm: Bool = false
    /// Whether a norm of all heads together comes between the attention and its output's Linear.
    public var attentionNorm: Bool = false
    /// The feed-forward layer of a block.
    public var feedForward: FeedForward = .plain(.gelu)
    /// Whether what a branch adds to the stream is scaled, channel by channel: x + γ ⊙ f(x).
    public var layerScale: Bool = false
    /// Whether a class token is prepended.
    public var hasClassToken: Bool = true
    /// Learned tokens between the class token and the patches.
    public var registers: Int = 0
    /// Which tokens have a learned position of their own.
    public var positions: Positions = .allTokens
    /// How queries and keys are rotated by the place of their patch; nil where they aren't.
    public var rotary: RotaryGrid?
    /// Whether the patches' projection has a bias.
    public var patchBias: Bool = true
    /// Whether a LayerNorm comes before the first block.
    public var normBeforeBlocks: Bool = false
    /// What the head reads.
    public var pooling: Pooling = .classToken
    /// The heads of a pooling by attention.
    public var poolingHeads: Int = 1
    /// Whether a pooling by attention reads class token and registers, too.
    public var poolsPrefix: Bool = false
    /// How images become the input.
    public var preprocessing = Preprocessing()

    /// What a norm is.
    public enum Normalization: String, Codable, Hashable, Sendable {
        /// (x − mean) / √(variance + ε) ⊙ w + b.
        case layer
        /// x / √(mean x² + ε) ⊙ w.
        case rms
    }

    /// Which tokens have a learned position of their own.
    public enum Positions: String, Codable, Hashable, Sendable {
        /// Class token and registers, too.
        case allTokens = "all"
        /// The patches alone.
        case patches
        /// None.
        case none
    }

    /// What the classification head reads.
    public enum Pooling: String, Codable, Hashable, Sendable {
        /// The final LayerNorm (`norm`), then the class token.
        case classToken = "token"
        /// The final LayerNorm (`norm`), then the mean of the patch tokens.
        case meanAfterNorm = "avg"
        /// The mean of the patch tokens, then `fc_norm`, as in timm's models with `global_pool="avg"`.
        case meanBeforeNorm = "avg_fc_norm"
        /// The final LayerNorm, then the class token with the mean of the patch tokens behind it, [2·D]: Hugging Face's DINOv2.
        case classTokenAndMean = "token_avg"
        /// The final LayerNorm, then the class token with the distillation token behind it, [2·D]: the mean of what DeiT's two heads say.
        case classTokenAndSecond = "token_dist"
        /// The mean of the patch tokens with no norm behind the blocks: Hugging Face's classifier on CLIP, timm's spatial PE.
        case mean = "avg_no_norm"
        /// The class token with no norm behind the blocks: timm's RADIO.
        case classTokenBeforeNorm = "token_no_norm"
        /// The final LayerNorm, then an attention of one learned query to the patch tokens, and an MLP: x = proj(a), x + MLP(LN x).
        case attention = "map"
    }

    /// A configuration; what isn't given has timm's default.
    public init(
        imageSize: Int, patchSize: Int, width: Int, depth: Int, heads: Int, hiddenWidth: Int, classCount: Int
    ) {
        (self.imageSize, self.patchSize, self.width, self.depth) = (imageSize, patchSize, width, depth)
        (self.heads, self.hiddenWidth, self.classCount) = (heads, hiddenWidth, classCount)
    }

    /// Patches along each side.
    public var gridSize: Int { imageSize / patchSize }
    /// Patches of an image.
    public var patchCount: Int { gridSize * gridSize }
    /// The tokens in front of the patches: class token and registers.
    public var prefixCount: Int { (hasClassToken ? 1 : 0) + registers }
    /// T, the tokens of an image.
    public var tokenCount: Int { prefixCount + patchCount }
    /// The rows of the positions' table.
    public var positionCount: Int {
        switch positions {
        case .allTokens: tokenCount
        case .patches: patchCount
        case .none: 0
        }
    }
    /// Whether queries, keys and values have biases, any of them; setting it gives them to all or to none.
    public var qkvBias: Bool {
        get { queryBias != .none }
        set { queryBias = newValue ? .all : .none }
    }
    /// Whether there is a norm behind the blocks.
    public var hasFinalNorm: Bool { ![.mean, .classTokenBeforeNorm].contains(pooling) }
    /// What the head reads of an image.
    public var featureWidth: Int {
        [.classTokenAndMean, .classTokenAndSecond].contains(pooling) ? 2 * width : width
    }
}
