extension ViTConfiguration {
    /// The architecture that timm calls by this name: `vit_base_patch16_224`, `vit_small_patch32_384`, … Nil for others.
    /// Source: timm 0.6.5, `vision_transformer.py`.
    public init?(named name: String, classCount: Int) {
        let sizes: [Substring: (width: Int, depth: Int, heads: Int)] = [
            "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16),
        ]
        let parts = name.split(separator: "_")
        guard parts.count == 4, parts[0] == "vit", let size = sizes[parts[1]], parts[2].hasPrefix("patch"),
            let patchSize = Int(parts[2].dropFirst(5)), let imageSize = Int(parts[3]), patchSize > 0,
            imageSize >= patchSize, imageSize % patchSize == 0
        else { return nil }
        self.init(
            imageSize: imageSize, patchSize: patchSize, width: size.width, depth: size.depth,
            heads: size.heads,
            hiddenWidth: 4 * size.width, classCount: classCount)
    }
}
