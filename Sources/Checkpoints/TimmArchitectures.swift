// Written by Scripts/timm_architectures.py from timm 1.0.31; change that.

import ModelConfiguration
import TensorCore

/// What timm's names of architectures mean, where no tensor shows it.
enum TimmArchitectures {
    /// What an architecture of this program's kind does.
    struct Settings {
        var heads: Int
        /// `token` or `avg`.
        var pooling: String
        /// ε of the LayerNorms.
        var epsilon: Float
        var activation: Activation
        var positions: ViTConfiguration.Positions
    }

    /// The architectures that this program computes. Names that timm gave up are among them.
    static let known: [String: Settings] = {
        var table: [String: Settings] = [:]
        for (settings, names) in groups {
            for name in names.split(whereSeparator: \.isWhitespace) { table[String(name)] = settings }
        }
        return table
    }()

    /// What another architecture does that this program doesn't compute; nil for a name that timm doesn't have.
    static func difference(_ name: String) -> String? {
        known[name] == nil ? differences.first { name.contains($0.word) }?.meaning : nil
    }

    private static let groups: [(settings: Settings, names: String)] = [
        (
            Settings(
                heads: 2, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            test_vit2
            """
        ),
        (
            Settings(
                heads: 2, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            test_vit
            """
        ),
        (
            Settings(
                heads: 3, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            deit_tiny_patch16_224 vit_tiny_patch16_224 vit_tiny_patch16_224_in21k vit_tiny_patch16_384
            """
        ),
        (
            Settings(
                heads: 4, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .patches),
            """
            vit_wee_patch16_reg1_gap_256
            """
        ),
        (
            Settings(
                heads: 4, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens),
            """
            vit_xsmall_patch16_clip_224
            """
        ),
        (
            Settings(
                heads: 5, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .patches),
            """
            vit_little_patch16_reg1_gap_256 vit_little_patch16_reg4_gap_256
            """
        ),
        (
            Settings(
                heads: 6, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            deit_small_patch16_224 vit_small_patch14_dinov2 vit_small_patch16_224 vit_small_patch16_224_dino
            vit_small_patch16_224_in21k vit_small_patch16_36x1_224 vit_small_patch16_384
            vit_small_patch32_224 vit_small_patch32_224_in21k vit_small_patch32_384 vit_small_patch8_224
            vit_small_patch8_224_dino
            """
        ),
        (
            Settings(
                heads: 6, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches),
            """
            deit3_small_patch16_224 deit3_small_patch16_224_in21ft1k deit3_small_patch16_384
            deit3_small_patch16_384_in21ft1k flexivit_small vit_small_patch14_reg4_dinov2
            """
        ),
        (
            Settings(
                heads: 8, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            vit_medium_patch16_gap_240 vit_medium_patch16_gap_256 vit_medium_patch16_gap_384
            """
        ),
        (
            Settings(
                heads: 8, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .patches),
            """
            vit_medium_patch16_reg1_gap_256 vit_medium_patch16_reg4_gap_256 vit_mediumd_patch16_reg4_gap_256
            vit_mediumd_patch16_reg4_gap_384
            """
        ),
        (
            Settings(
                heads: 8, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches),
            """
            deit3_medium_patch16_224 deit3_medium_patch16_224_in21ft1k
            """
        ),
        (
            Settings(
                heads: 8, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens),
            """
            vit_medium_patch16_clip_224 vit_medium_patch32_clip_224
            """
        ),
        (
            Settings(
                heads: 10, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            vit_betwixt_patch16_gap_256
            """
        ),
        (
            Settings(
                heads: 10, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .patches),
            """
            vit_betwixt_patch16_reg1_gap_256 vit_betwixt_patch16_reg4_gap_256
            vit_betwixt_patch16_reg4_gap_384
            """
        ),
        (
            Settings(
                heads: 10, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens),
            """
            vit_betwixt_patch32_clip_224
            """
        ),
        (
            Settings(
                heads: 12, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            vit_base_patch16_siglip_gap_224 vit_base_patch16_siglip_gap_256 vit_base_patch16_siglip_gap_384
            vit_base_patch16_siglip_gap_512
            """
        ),
        (
            Settings(
                heads: 12, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .patches),
            """
            vit_base_patch16_reg4_gap_256
            """
        ),
        (
            Settings(
                heads: 12, pooling: "avg", epsilon: 1e-06, activation: .geluTanh,
                positions: .allTokens),
            """
            vit_base_patch32_siglip_gap_256
            """
        ),
        (
            Settings(
                heads: 12, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            deit_base_patch16_224 deit_base_patch16_384 vit_base_patch14_dinov2 vit_base_patch16_224
            vit_base_patch16_224_dino vit_base_patch16_224_in21k vit_base_patch16_224_miil
            vit_base_patch16_224_miil_in21k vit_base_patch16_224_sam vit_base_patch16_384
            vit_base_patch32_224 vit_base_patch32_224_in21k vit_base_patch32_224_sam vit_base_patch32_384
            vit_base_patch8_224 vit_base_patch8_224_dino vit_base_patch8_224_in21k
            """
        ),
        (
            Settings(
                heads: 12, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches),
            """
            deit3_base_patch16_224 deit3_base_patch16_224_in21ft1k deit3_base_patch16_384
            deit3_base_patch16_384_in21ft1k flexivit_base vit_base_patch14_reg1_tipsv2
            vit_base_patch14_reg4_dinov2 vit_base_patch16_radio_v3
            """
        ),
        (
            Settings(
                heads: 12, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens),
            """
            vit_base_patch16_clip_224 vit_base_patch16_clip_384 vit_base_patch32_224_clip_laion2b
            vit_base_patch32_clip_224 vit_base_patch32_clip_256 vit_base_patch32_clip_384
            vit_base_patch32_clip_448
            """
        ),
        (
            Settings(
                heads: 12, pooling: "token", epsilon: 1e-05, activation: .quickGELU,
                positions: .allTokens),
            """
            vit_base_patch16_clip_quickgelu_224 vit_base_patch32_clip_quickgelu_224
            """
        ),
        (
            Settings(
                heads: 13, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            vit_so150m2_patch16_reg1_gap_256 vit_so150m2_patch16_reg1_gap_384
            vit_so150m2_patch16_reg1_gap_448
            """
        ),
        (
            Settings(
                heads: 14, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            vit_so150m_patch16_reg4_gap_256 vit_so150m_patch16_reg4_gap_384
            """
        ),
        (
            Settings(
                heads: 14, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            vit_base_patch16_plus_240 vit_base_patch32_plus_256
            """
        ),
        (
            Settings(
                heads: 14, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens),
            """
            vit_base_patch16_plus_clip_240
            """
        ),
        (
            Settings(
                heads: 16, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            eva_large_patch14_196 eva_large_patch14_336 vit_base_patch16_gap_224 vit_giant_patch16_gap_224
            vit_huge_patch14_gap_224 vit_huge_patch16_gap_448 vit_large_patch16_siglip_gap_256
            vit_large_patch16_siglip_gap_384 vit_so400m_patch14_siglip_gap_224
            vit_so400m_patch14_siglip_gap_378 vit_so400m_patch14_siglip_gap_384
            vit_so400m_patch14_siglip_gap_448 vit_so400m_patch14_siglip_gap_896
            """
        ),
        (
            Settings(
                heads: 16, pooling: "avg", epsilon: 1e-06, activation: .geluTanh,
                positions: .allTokens),
            """
            vit_giantopt_patch16_siglip_gap_256 vit_giantopt_patch16_siglip_gap_384
            vit_large_patch16_siglip_gap_512 vit_so400m_patch16_siglip_gap_256
            vit_so400m_patch16_siglip_gap_384 vit_so400m_patch16_siglip_gap_512
            """
        ),
        (
            Settings(
                heads: 16, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens),
            """
            vit_giant_patch14_224 vit_gigantic_patch14_224 vit_huge_patch14_224 vit_huge_patch14_224_in21k
            vit_intern300m_patch14_448 vit_large_patch14_224 vit_large_patch14_dinov2 vit_large_patch16_224
            vit_large_patch16_224_in21k vit_large_patch16_384 vit_large_patch32_224
            vit_large_patch32_224_in21k vit_large_patch32_384
            """
        ),
        (
            Settings(
                heads: 16, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches),
            """
            deit3_huge_patch14_224 deit3_huge_patch14_224_in21ft1k deit3_large_patch16_224
            deit3_large_patch16_224_in21ft1k deit3_large_patch16_384 deit3_large_patch16_384_in21ft1k
            flexivit_large vit_huge_patch16_radio_v3 vit_huge_patch16_radio_v4 vit_large_patch14_reg1_tipsv2
            vit_large_patch14_reg4_dinov2 vit_large_patch16_radio_v3 vit_so400m_patch14_reg1_tipsv2
            vit_so400m_patch16_radio_v4
            """
        ),
        (
            Settings(
                heads: 16, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens),
            """
            vit_giant_patch14_224_clip_laion2b vit_giant_patch14_clip_224 vit_gigantic_patch14_clip_224
            vit_gigantic_patch14_clip_378 vit_huge_patch14_224_clip_laion2b vit_huge_patch14_clip_224
            vit_huge_patch14_clip_336 vit_huge_patch14_clip_378 vit_large_patch14_224_clip_laion2b
            vit_large_patch14_clip_224 vit_large_patch14_clip_336
            """
        ),
        (
            Settings(
                heads: 16, pooling: "token", epsilon: 1e-05, activation: .quickGELU,
                positions: .allTokens),
            """
            vit_gigantic_patch14_clip_quickgelu_224 vit_huge_patch14_clip_quickgelu_224
            vit_huge_patch14_clip_quickgelu_378 vit_large_patch14_clip_quickgelu_224
            vit_large_patch14_clip_quickgelu_336
            """
        ),
        (
            Settings(
                heads: 24, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches),
            """
            vit_giant_patch16_radio_v3
            """
        ),
    ]

    /// Words of the names of all others, the first that fits.
    private static let differences: [(word: String, meaning: String)] = [
        ("rpn", "puts each LayerNorm behind its attention or MLP"),
        ("siglip", "pools by attention"),
        ("_map_", "pools by attention"),
        ("giant_patch14_dinov2", "has a gated MLP"),
        ("giant_patch14_reg", "has a gated MLP"),
        ("dinov3", "has rotary positions"),
        ("aimv2", "has RMSNorm and a gated MLP"),
        ("beit3", "has LayerNorms within its layers"),
        ("beit", "has relative positions"),
        ("eva02", "has rotary positions"),
        ("eva_giant", "has a qkv bias without keys"),
        ("distilled", "has a distillation token"),
        ("_xp_", "runs attention and MLP in parallel"),
        ("18x2", "runs two blocks in parallel"),
        ("dlittle", "has differential attention"),
        ("dwee", "has differential attention"),
        ("dpwee", "has differential attention"),
        ("wee", "runs attention and MLP in parallel"),
        ("test_vit3", "pools by attention over all tokens"),
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
