// Written by Scripts/timm_architectures.py from timm 1.0.31; change that.

/// What timm's names of architectures mean, where no tensor shows it.
enum TimmArchitectures {
    /// An architecture that is a plain ViT: exact GELU, LayerNorms before attention and MLP, eps 1e-6.
    struct Plain {
        var heads: Int
        /// `token` or `avg`.
        var pooling: String
    }

    /// The architectures that are plain ViTs. Names that timm gave up are among them.
    static let plain: [String: Plain] = {
        var table: [String: Plain] = [:]
        for (heads, pooling, names) in groups {
            for name in names.split(whereSeparator: \.isWhitespace) {
                table[String(name)] = Plain(heads: heads, pooling: pooling)
            }
        }
        return table
    }()

    /// What another architecture does that this program doesn't compute; nil for a name that timm doesn't have.
    static func difference(_ name: String) -> String? {
        plain[name] == nil ? differences.first { name.contains($0.word) }?.meaning : nil
    }

    private static let groups: [(heads: Int, pooling: String, names: String)] = [
        (
            2, "token",
            """
            test_vit
            """
        ),
        (
            3, "token",
            """
            deit_tiny_patch16_224 vit_tiny_patch16_224 vit_tiny_patch16_224_in21k vit_tiny_patch16_384
            """
        ),
        (
            6, "token",
            """
            deit_small_patch16_224 vit_small_patch16_224 vit_small_patch16_224_dino
            vit_small_patch16_224_in21k vit_small_patch16_384 vit_small_patch32_224
            vit_small_patch32_224_in21k vit_small_patch32_384 vit_small_patch8_224 vit_small_patch8_224_dino
            """
        ),
        (
            12, "avg",
            """
            vit_base_patch16_siglip_gap_224 vit_base_patch16_siglip_gap_256 vit_base_patch16_siglip_gap_384
            vit_base_patch16_siglip_gap_512
            """
        ),
        (
            12, "token",
            """
            deit_base_patch16_224 deit_base_patch16_384 vit_base_patch16_224 vit_base_patch16_224_dino
            vit_base_patch16_224_in21k vit_base_patch16_224_miil vit_base_patch16_224_miil_in21k
            vit_base_patch16_224_sam vit_base_patch16_384 vit_base_patch32_224 vit_base_patch32_224_in21k
            vit_base_patch32_224_sam vit_base_patch32_384 vit_base_patch8_224 vit_base_patch8_224_dino
            vit_base_patch8_224_in21k
            """
        ),
        (
            16, "avg",
            """
            eva_large_patch14_196 eva_large_patch14_336 vit_base_patch16_gap_224 vit_giant_patch16_gap_224
            vit_huge_patch14_gap_224 vit_huge_patch16_gap_448 vit_large_patch16_siglip_gap_256
            vit_large_patch16_siglip_gap_384 vit_so400m_patch14_siglip_gap_224
            vit_so400m_patch14_siglip_gap_378 vit_so400m_patch14_siglip_gap_384
            vit_so400m_patch14_siglip_gap_448 vit_so400m_patch14_siglip_gap_896
            """
        ),
        (
            16, "token",
            """
            vit_giant_patch14_224 vit_gigantic_patch14_224 vit_huge_patch14_224 vit_huge_patch14_224_in21k
            vit_large_patch14_224 vit_large_patch16_224 vit_large_patch16_224_in21k vit_large_patch16_384
            vit_large_patch32_224 vit_large_patch32_224_in21k vit_large_patch32_384
            """
        ),
    ]

    /// Words of the names of all others, the first that fits.
    private static let differences: [(word: String, meaning: String)] = [
        ("rpn", "puts each LayerNorm behind its attention or MLP"),
        ("quickgelu", "has QuickGELU"),
        ("siglip", "has the tanh form of GELU or pools by attention"),
        ("flexivit", "has positions for the patches only"),
        ("dinov2", "has LayerScale"),
        ("dinov3", "has rotary positions"),
        ("tipsv2", "has LayerScale and register tokens"),
        ("radio", "has register tokens"),
        ("_reg", "has register tokens"),
        ("aimv2", "has RMSNorm and a gated MLP"),
        ("beit", "has relative positions or LayerNorms within its layers"),
        ("eva02", "has rotary positions"),
        ("eva_giant", "has a qkv bias without keys"),
        ("clip", "has a LayerNorm before the blocks, and an eps of 1e-5"),
        ("deit3", "has LayerScale"),
        ("distilled", "has a distillation token"),
        ("_xp_", "runs attention and MLP in parallel"),
        ("18x2", "runs two blocks in parallel"),
        ("36x1", "has LayerScale"),
        ("_plus_", "has LayerScale"),
        ("vit_medium_", "has LayerScale"),
        ("vit_betwixt_", "has LayerScale"),
        ("intern300m", "has LayerScale"),
        ("test_vit2", "has LayerScale and register tokens"),
        ("test_vit3", "has LayerScale and register tokens"),
        ("test_vit4", "has RMSNorm"),
        ("rope", "has rotary positions"),
        ("vit_pe_", "has rotary positions"),
        ("lingbot", "has rotary positions"),
        ("sapiens2", "has rotary positions"),
        ("relpos", "has relative positions"),
        ("samvit", "attends within windows"),
        ("naflex", "takes images of any proportions"),
        ("resnet", "has a ResNet before its blocks"),
        ("_r26_", "has a ResNet before its blocks"),
        ("_r50_", "has a ResNet before its blocks"),
        ("_r_s16", "has a ResNet before its blocks"),
        ("_mci_", "has a stem of convolutions"),
    ]
}
