import Adapters
import Datasets

extension ViTConfiguration {
    /// Every tensor of the model by timm's name, with its shape; a Linear's weight is [out, in].
    public var tensorShapes: [String: [Int]] {
        let D = width
        var shapes: [String: [Int]] = [
            "patch_embed.proj.weight": [D, channels, patchSize, patchSize]
        ]
        if positions != .none { shapes["pos_embed"] = [1, positionCount, D] }
        if patchBias { shapes["patch_embed.proj.bias"] = [D] }
        if hasClassToken { shapes["cls_token"] = [1, 1, D] }
        if registers > 0 { shapes["reg_token"] = [1, registers, D] }
        for index in 0..<depth {
            let block = "blocks.\(index)."
            for site in shape.sites {
                shapes[block + site.name + ".weight"] = [site.outputs, site.inputs]
                if site.hasBias { shapes[block + site.name + ".bias"] = [site.outputs] }
            }
            guard layerScale else { continue }
            for name in ["ls1", "ls2"] { shapes[block + name + ".gamma"] = [D] }
        }
        for (name, width) in norms {
            shapes[name + ".weight"] = [width]
            if norm == .layer { shapes[name + ".bias"] = [width] }
        }
        if pooling == .attention {
            shapes["attn_pool.latent"] = [1, 1, D]
            for (name, outputs, inputs) in [
                ("q", D, D), ("kv", 2 * D, D), ("proj", D, D), ("mlp.fc1", hiddenWidth, D),
                ("mlp.fc2", D, hiddenWidth),
            ] {
                shapes["attn_pool.\(name).weight"] = [outputs, inputs]
                shapes["attn_pool.\(name).bias"] = [outputs]
            }
        }
        if classCount > 0 {
            shapes["head.weight"] = [classCount, featureWidth]
            shapes["head.bias"] = [classCount]
        }
        return shapes
    }

    /// Every norm's name and width.
    private var norms: [(String, Int)] {
        let blocks = (0..<depth).flatMap { index -> [(String, Int)] in
            let names = ["norm1", "norm2"] + (attentionNorm ? ["attn.norm"] : [])
            let ofHeads = queryKeyNorm ? ["attn.q_norm", "attn.k_norm"] : []
            return names.map { ("blocks.\(index).\($0)", width) }
                + ofHeads.map { ("blocks.\(index).\($0)", width / max(heads, 1)) }
                + (hasHiddenNorm ? [("blocks.\(index).mlp.norm", hiddenWidth)] : [])
        }
        let outside =
            (normBeforeBlocks ? ["norm_pre"] : []) + (pooling == .attention ? ["attn_pool.norm"] : [])
        let last = hasFinalNorm ? [finalNorm] : []
        return blocks + (outside + last).map { ($0, width) }
    }

    /// Whether a norm comes between the gate's product and the last Linear.
    public var hasHiddenNorm: Bool {
        if case .gated(_, _, hasNorm: true) = feedForward { true } else { false }
    }

    /// The final norm's name: `norm`, or `fc_norm` when it comes after the mean. See `hasFinalNorm`.
    public var finalNorm: String { pooling == .meanBeforeNorm ? "fc_norm" : "norm" }

    /// The sizes that methods ask for, with the one list of a block's Linears.
    public var shape: TransformerShape {
        TransformerShape(
            width: width, hiddenWidth: hiddenWidth, depth: depth, patchSize: patchSize,
            hasClassToken: hasClassToken, queries: queries, queryBias: queryBias, feedForward: feedForward)
    }

    /// The most that sizes may be, so that no product of them overflows and no loop over them takes long: four times and more of
    /// what the largest published ViT has (22 billion parameters: width 6,144, hidden 24,576, 48 blocks) and of the 21,841 classes
    /// of ImageNet; 256 × 256 patches, beyond which attention to all of them takes minutes an image.
    private static var limits: [(name: String, size: KeyPath<ViTConfiguration, Int>, most: Int)] {
        [
            ("image size", \.imageSize, Preprocessor.largestSide),
            ("patch size", \.patchSize, Preprocessor.largestSide),
            ("width", \.width, 1 << 16), ("depth", \.depth, 4096), ("heads", \.heads, 1 << 16),
            ("hidden width", \.hiddenWidth, 1 << 18),
            ("number of classes", \.classCount, ImageList.largestClassCount),
            ("number of patches", \.patchCount, 1 << 16), ("number of registers", \.registers, 1 << 16),
        ]
    }

    /// Throws `ConfigurationError` when the sizes contradict each other or are larger than any model's.
    public func check() throws {
        func require(_ condition: Bool, _ what: String) throws {
            if !condition { throw ConfigurationError(description: what) }
        }
        try require(
            [imageSize, patchSize, width, depth, heads, hiddenWidth].allSatisfy { $0 > 0 }
                && classCount >= 0 && registers >= 0,
            "a size is not positive (image \(imageSize), patch \(patchSize), width \(width), depth \(depth), "
                + "heads \(heads), hidden width \(hiddenWidth), classes \(classCount), registers \(registers)); correct the configuration"
        )
        for (name, size, most) in ViTConfiguration.limits {
            try require(
                self[keyPath: size] <= most,
                "the \(name) \(self[keyPath: size]) is more than the \(most) that any model has; correct the configuration"
            )
        }
        try require(
            width % heads == 0,
            "the width \(width) can't be divided among \(heads) heads; give the right number of heads")
        try require(
            poolingHeads > 0 && width % poolingHeads == 0,
            "the width \(width) can't be divided among the pooling's \(poolingHeads) heads; give the right number of heads"
        )
        try require(
            rotary == nil || width / heads % 4 == 0,
            "heads of \(width / max(heads, 1)) numbers can't be rotated in two dimensions; give the right number of heads"
        )
        try require(
            imageSize % patchSize == 0,
            "patches of \(patchSize) don't fill an image of \(imageSize) pixels; choose a multiple of \(patchSize)"
        )
        try require(
            channels == 3, "the model reads images of \(channels) channels; only 3 (RGB) are supported")
        try require(
            preprocessing.mean.count == channels && preprocessing.std.count == channels
                && preprocessing.std.allSatisfy { $0 > 0 && $0.isFinite }
                && preprocessing.mean.allSatisfy(\.isFinite) && preprocessing.rescale.isFinite
                && preprocessing.rescale > 0,
            "mean \(preprocessing.mean) and std \(preprocessing.std) are not \(channels) numbers with a positive std; correct them"
        )
        try require(
            (preprocessing.side ?? 1) >= 1 && (preprocessing.side ?? 1) <= Double(Preprocessor.largestResize),
            "images resized to \(preprocessing.side ?? 0) pixels can't be meant (1 to \(Preprocessor.largestResize)); correct the "
                + "configuration")
        try require(
            layerNormEpsilon > 0 && layerNormEpsilon < 1,
            "LayerNorm's eps \(layerNormEpsilon) is not between 0 and 1; correct the configuration")
        try require(
            hasClassToken
                || ![.classToken, .classTokenBeforeNorm, .classTokenAndMean, .classTokenAndSecond]
                    .contains(pooling),
            "the head reads the class token, which the model doesn't have")
    }
}

/// Numbers that no model has.
public struct ConfigurationError: Error, CustomStringConvertible {
    /// What is wrong and what to do, without the file that says so.
    public let description: String
}
