import Datasets

/// The architecture of a vision transformer and how its images are prepared: read from a checkpoint, never assumed.
public struct ViTConfiguration: Codable, Hashable, Sendable {
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
    /// The hidden width of the MLP (MLP ratio × width).
    public var hiddenWidth: Int
    /// Classes of the head; 0 when the checkpoint has no head.
    public var classCount: Int
    /// ε of every LayerNorm.
    public var layerNormEpsilon: Float = 1e-6
    /// Whether the Linears of the blocks have biases: q, k and v.
    public var qkvBias: Bool = true
    /// Whether a class token is prepended.
    public var hasClassToken: Bool = true
    /// What the head reads.
    public var pooling: Pooling = .classToken
    /// How images become the input.
    public var preprocessing = Preprocessing()

    /// What the classification head reads.
    public enum Pooling: String, Codable, Hashable, Sendable {
        /// The final LayerNorm (`norm`), then the class token.
        case classToken = "token"
        /// The final LayerNorm (`norm`), then the mean of the patch tokens.
        case meanAfterNorm = "avg"
        /// The mean of the patch tokens, then `fc_norm`, as in timm's models with `global_pool="avg"`.
        case meanBeforeNorm = "avg_fc_norm"
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
    /// T, the tokens of an image, the class token included.
    public var tokenCount: Int { patchCount + (hasClassToken ? 1 : 0) }
}
