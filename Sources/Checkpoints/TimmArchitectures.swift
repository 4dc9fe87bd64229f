// Written by Scripts/timm_architectures.py from timm 1.0.31; change that.

import ModelConfiguration
import TensorCore

/// What timm's names of architectures mean, where no tensor shows it.
enum TimmArchitectures {
    /// What an architecture of this program's kind does.
    struct Settings {
        /// Whether the class is `Eva`, and not `VisionTransformer`.
        var isEva: Bool
        var heads: Int
        /// `token`, `avg` or `map`.
        var pooling: String
        /// ε of the norms.
        var epsilon: Float
        var activation: Activation
        var positions: ViTConfiguration.Positions
        var rotary: RotaryGrid?
        /// The heads of a pooling by attention, where they aren't as many as the blocks'.
        var poolHeads: Int?
        /// Whether a pooling by attention reads the tokens in front of the patches, too.
        var poolsPrefix: Bool
        var norm: ViTConfiguration.Normalization
        /// Whether there is a norm behind the blocks.
        var hasFinalNorm: Bool
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
                isEva: false, heads: 2, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            test_vit2
            """
        ),
        (
            Settings(
                isEva: false, heads: 2, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            test_vit
            """
        ),
        (
            Settings(
                isEva: false, heads: 3, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .rms, hasFinalNorm: true),
            """
            test_vit4
            """
        ),
        (
            Settings(
                isEva: false, heads: 3, pooling: "map", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: true,
                norm: .layer, hasFinalNorm: true),
            """
            test_vit3
            """
        ),
        (
            Settings(
                isEva: false, heads: 3, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            deit_tiny_distilled_patch16_224 deit_tiny_patch16_224 vit_tiny_patch16_224
            vit_tiny_patch16_224_in21k vit_tiny_patch16_384
            """
        ),
        (
            Settings(
                isEva: false, heads: 4, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_wee_patch16_reg1_gap_256
            """
        ),
        (
            Settings(
                isEva: false, heads: 4, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_xsmall_patch16_clip_224
            """
        ),
        (
            Settings(
                isEva: false, heads: 5, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_little_patch16_reg1_gap_256 vit_little_patch16_reg4_gap_256
            """
        ),
        (
            Settings(
                isEva: false, heads: 6, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            deit_small_distilled_patch16_224 deit_small_patch16_224 vit_small_patch14_dinov2
            vit_small_patch16_224 vit_small_patch16_224_dino vit_small_patch16_224_in21k
            vit_small_patch16_36x1_224 vit_small_patch16_384 vit_small_patch32_224
            vit_small_patch32_224_in21k vit_small_patch32_384 vit_small_patch8_224 vit_small_patch8_224_dino
            """
        ),
        (
            Settings(
                isEva: false, heads: 6, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            deit3_small_patch16_224 deit3_small_patch16_224_in21ft1k deit3_small_patch16_384
            deit3_small_patch16_384_in21ft1k flexivit_small vit_small_patch14_reg4_dinov2
            """
        ),
        (
            Settings(
                isEva: false, heads: 8, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_medium_patch16_gap_240 vit_medium_patch16_gap_256 vit_medium_patch16_gap_384
            """
        ),
        (
            Settings(
                isEva: false, heads: 8, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_medium_patch16_reg1_gap_256 vit_medium_patch16_reg4_gap_256 vit_mediumd_patch16_reg4_gap_256
            vit_mediumd_patch16_reg4_gap_384
            """
        ),
        (
            Settings(
                isEva: false, heads: 8, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            deit3_medium_patch16_224 deit3_medium_patch16_224_in21ft1k
            """
        ),
        (
            Settings(
                isEva: false, heads: 8, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_medium_patch16_clip_224 vit_medium_patch32_clip_224
            """
        ),
        (
            Settings(
                isEva: false, heads: 10, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_betwixt_patch16_gap_256
            """
        ),
        (
            Settings(
                isEva: false, heads: 10, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_betwixt_patch16_reg1_gap_256 vit_betwixt_patch16_reg4_gap_256
            vit_betwixt_patch16_reg4_gap_384
            """
        ),
        (
            Settings(
                isEva: false, heads: 10, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_betwixt_patch32_clip_224
            """
        ),
        (
            Settings(
                isEva: false, heads: 12, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch16_siglip_gap_224 vit_base_patch16_siglip_gap_256 vit_base_patch16_siglip_gap_384
            vit_base_patch16_siglip_gap_512
            """
        ),
        (
            Settings(
                isEva: false, heads: 12, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch16_reg4_gap_256
            """
        ),
        (
            Settings(
                isEva: false, heads: 12, pooling: "avg", epsilon: 1e-06, activation: .geluTanh,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch32_siglip_gap_256
            """
        ),
        (
            Settings(
                isEva: false, heads: 12, pooling: "map", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch16_siglip_224 vit_base_patch16_siglip_256 vit_base_patch16_siglip_384
            vit_base_patch16_siglip_512
            """
        ),
        (
            Settings(
                isEva: false, heads: 12, pooling: "map", epsilon: 1e-06, activation: .geluTanh,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch32_siglip_256
            """
        ),
        (
            Settings(
                isEva: false, heads: 12, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            deit_base_distilled_patch16_224 deit_base_distilled_patch16_384 deit_base_patch16_224
            deit_base_patch16_384 vit_base_patch14_dinov2 vit_base_patch16_224 vit_base_patch16_224_dino
            vit_base_patch16_224_in21k vit_base_patch16_224_miil vit_base_patch16_224_miil_in21k
            vit_base_patch16_224_sam vit_base_patch16_384 vit_base_patch32_224 vit_base_patch32_224_in21k
            vit_base_patch32_224_sam vit_base_patch32_384 vit_base_patch8_224 vit_base_patch8_224_dino
            vit_base_patch8_224_in21k
            """
        ),
        (
            Settings(
                isEva: false, heads: 12, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: false),
            """
            vit_base_patch16_radio_v3
            """
        ),
        (
            Settings(
                isEva: false, heads: 12, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            deit3_base_patch16_224 deit3_base_patch16_224_in21ft1k deit3_base_patch16_384
            deit3_base_patch16_384_in21ft1k flexivit_base vit_base_patch14_reg1_tipsv2
            vit_base_patch14_reg4_dinov2
            """
        ),
        (
            Settings(
                isEva: false, heads: 12, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch16_clip_224 vit_base_patch16_clip_384 vit_base_patch32_224_clip_laion2b
            vit_base_patch32_clip_224 vit_base_patch32_clip_256 vit_base_patch32_clip_384
            vit_base_patch32_clip_448
            """
        ),
        (
            Settings(
                isEva: false, heads: 12, pooling: "token", epsilon: 1e-05, activation: .quickGELU,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch16_clip_quickgelu_224 vit_base_patch32_clip_quickgelu_224
            """
        ),
        (
            Settings(
                isEva: false, heads: 13, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_so150m2_patch16_reg1_gap_256 vit_so150m2_patch16_reg1_gap_384
            vit_so150m2_patch16_reg1_gap_448
            """
        ),
        (
            Settings(
                isEva: false, heads: 14, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_so150m_patch16_reg4_gap_256 vit_so150m_patch16_reg4_gap_384
            """
        ),
        (
            Settings(
                isEva: false, heads: 14, pooling: "map", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_so150m_patch16_reg4_map_256
            """
        ),
        (
            Settings(
                isEva: false, heads: 14, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch16_plus_240 vit_base_patch32_plus_256
            """
        ),
        (
            Settings(
                isEva: false, heads: 14, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch16_plus_clip_240
            """
        ),
        (
            Settings(
                isEva: false, heads: 16, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
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
                isEva: false, heads: 16, pooling: "avg", epsilon: 1e-06, activation: .geluTanh,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_giantopt_patch16_siglip_gap_256 vit_giantopt_patch16_siglip_gap_384
            vit_large_patch16_siglip_gap_512 vit_so400m_patch16_siglip_gap_256
            vit_so400m_patch16_siglip_gap_384 vit_so400m_patch16_siglip_gap_512
            """
        ),
        (
            Settings(
                isEva: false, heads: 16, pooling: "map", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_large_patch16_siglip_256 vit_large_patch16_siglip_384 vit_so400m_patch14_siglip_224
            vit_so400m_patch14_siglip_378 vit_so400m_patch14_siglip_384
            """
        ),
        (
            Settings(
                isEva: false, heads: 16, pooling: "map", epsilon: 1e-06, activation: .geluTanh,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_giantopt_patch16_siglip_256 vit_giantopt_patch16_siglip_384 vit_large_patch16_siglip_512
            vit_so400m_patch16_siglip_256 vit_so400m_patch16_siglip_384 vit_so400m_patch16_siglip_512
            """
        ),
        (
            Settings(
                isEva: false, heads: 16, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: false),
            """
            vit_intern300m_patch14_448
            """
        ),
        (
            Settings(
                isEva: false, heads: 16, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_giant_patch14_224 vit_gigantic_patch14_224 vit_huge_patch14_224 vit_huge_patch14_224_in21k
            vit_large_patch14_224 vit_large_patch14_dinov2 vit_large_patch16_224 vit_large_patch16_224_in21k
            vit_large_patch16_384 vit_large_patch32_224 vit_large_patch32_224_in21k vit_large_patch32_384
            """
        ),
        (
            Settings(
                isEva: false, heads: 16, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: false),
            """
            vit_huge_patch16_radio_v3 vit_huge_patch16_radio_v4 vit_large_patch16_radio_v3
            vit_so400m_patch16_radio_v4
            """
        ),
        (
            Settings(
                isEva: false, heads: 16, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            deit3_huge_patch14_224 deit3_huge_patch14_224_in21ft1k deit3_large_patch16_224
            deit3_large_patch16_224_in21ft1k deit3_large_patch16_384 deit3_large_patch16_384_in21ft1k
            flexivit_large vit_large_patch14_reg1_tipsv2 vit_large_patch14_reg4_dinov2
            vit_so400m_patch14_reg1_tipsv2
            """
        ),
        (
            Settings(
                isEva: false, heads: 16, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_giant_patch14_224_clip_laion2b vit_giant_patch14_clip_224 vit_gigantic_patch14_clip_224
            vit_gigantic_patch14_clip_378 vit_huge_patch14_224_clip_laion2b vit_huge_patch14_clip_224
            vit_huge_patch14_clip_336 vit_huge_patch14_clip_378 vit_large_patch14_224_clip_laion2b
            vit_large_patch14_clip_224 vit_large_patch14_clip_336
            """
        ),
        (
            Settings(
                isEva: false, heads: 16, pooling: "token", epsilon: 1e-05, activation: .quickGELU,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_gigantic_patch14_clip_quickgelu_224 vit_huge_patch14_clip_quickgelu_224
            vit_huge_patch14_clip_quickgelu_378 vit_large_patch14_clip_quickgelu_224
            vit_large_patch14_clip_quickgelu_336
            """
        ),
        (
            Settings(
                isEva: false, heads: 24, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: false),
            """
            vit_giant_patch16_radio_v3
            """
        ),
        (
            Settings(
                isEva: false, heads: 24, pooling: "token", epsilon: 1e-06, activation: .silu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_giant_patch14_dinov2
            """
        ),
        (
            Settings(
                isEva: false, heads: 24, pooling: "token", epsilon: 1e-06, activation: .silu,
                positions: .patches, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_giant_patch14_reg1_tipsv2 vit_giant_patch14_reg4_dinov2
            """
        ),
        (
            Settings(
                isEva: true, heads: 3, pooling: "avg", epsilon: 1e-06, activation: .silu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            eva02_tiny_patch14_224 eva02_tiny_patch14_336
            """
        ),
        (
            Settings(
                isEva: true, heads: 3, pooling: "avg", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 32),
                    startsWithColumn: true), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: false),
            """
            vit_pe_spatial_tiny_patch16_512
            """
        ),
        (
            Settings(
                isEva: true, heads: 3, pooling: "avg", epsilon: 1e-05, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false),
                poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_tiny_patch16_dinov3_qkvb
            """
        ),
        (
            Settings(
                isEva: true, heads: 3, pooling: "map", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 24),
                    startsWithColumn: true), poolHeads: 8, poolsPrefix: true,
                norm: .layer, hasFinalNorm: true),
            """
            vit_pe_core_tiny_patch16_384
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "avg", epsilon: 1e-06, activation: .silu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            eva02_small_patch14_224 eva02_small_patch14_336
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "avg", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 32),
                    startsWithColumn: true), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: false),
            """
            vit_pe_spatial_small_patch16_512
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "avg", epsilon: 1e-05, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false),
                poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_small_patch16_dinov3 vit_small_patch16_dinov3_qkvb
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "avg", epsilon: 1e-05, activation: .silu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false),
                poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_small_plus_patch16_dinov3 vit_small_plus_patch16_dinov3_qkvb
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "map", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 24),
                    startsWithColumn: true), poolHeads: 8, poolsPrefix: true,
                norm: .layer, hasFinalNorm: true),
            """
            vit_pe_core_small_patch16_384
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .interleaved, coordinates: .index(offset: 0, reference: nil),
                    startsWithColumn: true), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_small_patch16_rope_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches,
                rotary: RotaryGrid(
                    temperature: 100, layout: .interleaved, coordinates: .index(offset: 0, reference: nil),
                    startsWithColumn: true), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_small_patch16_rope_ape_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false),
                poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_small_patch16_lingbot
            """
        ),
        (
            Settings(
                isEva: true, heads: 8, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_medium_patch16_rope_reg1_gap_256 vit_mediumd_patch16_rope_reg1_gap_256
            """
        ),
        (
            Settings(
                isEva: true, heads: 10, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_betwixt_patch16_rope_reg4_gap_256
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch16_rope_reg1_gap_256
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "avg", epsilon: 1e-06, activation: .silu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            eva02_base_patch14_224 eva02_base_patch14_448
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "avg", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 32),
                    startsWithColumn: true), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: false),
            """
            vit_pe_spatial_base_patch16_512
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "avg", epsilon: 1e-05, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false),
                poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch16_dinov3 vit_base_patch16_dinov3_qkvb
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "map", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 14),
                    startsWithColumn: true), poolHeads: 8, poolsPrefix: true,
                norm: .layer, hasFinalNorm: true),
            """
            vit_pe_core_base_patch16_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .interleaved, coordinates: .index(offset: 0, reference: nil),
                    startsWithColumn: true), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch16_rope_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches,
                rotary: RotaryGrid(
                    temperature: 100, layout: .interleaved, coordinates: .index(offset: 0, reference: nil),
                    startsWithColumn: true), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch16_rope_ape_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "token", epsilon: 1e-06, activation: .silu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            eva02_base_patch16_clip_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false),
                poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_base_patch16_lingbot
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "avg", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            eva_giant_patch14_224 eva_giant_patch14_336 eva_giant_patch14_560
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "avg", epsilon: 1e-06, activation: .silu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            eva02_large_patch14_224 eva02_large_patch14_448
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "avg", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 32),
                    startsWithColumn: true), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: false),
            """
            vit_pe_lang_gigantic_patch14_448 vit_pe_spatial_gigantic_patch14_448
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "avg", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 32),
                    startsWithColumn: true), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: false),
            """
            vit_pe_lang_large_patch14_448 vit_pe_spatial_large_patch14_448
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "avg", epsilon: 1e-05, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false),
                poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_large_patch16_dinov3 vit_large_patch16_dinov3_qkvb
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "map", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 32),
                    startsWithColumn: true), poolHeads: 8, poolsPrefix: true,
                norm: .layer, hasFinalNorm: true),
            """
            vit_pe_core_gigantic_patch14_448
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "map", epsilon: 1e-05, activation: .gelu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 24),
                    startsWithColumn: true), poolHeads: 8, poolsPrefix: true,
                norm: .layer, hasFinalNorm: true),
            """
            vit_pe_core_large_patch14_336
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .allTokens, rotary: nil, poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            eva_giant_patch14_clip_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .interleaved, coordinates: .index(offset: 0, reference: nil),
                    startsWithColumn: true), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_large_patch16_rope_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "token", epsilon: 1e-06, activation: .gelu,
                positions: .patches,
                rotary: RotaryGrid(
                    temperature: 100, layout: .interleaved, coordinates: .index(offset: 0, reference: nil),
                    startsWithColumn: true), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_large_patch16_rope_ape_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "token", epsilon: 1e-06, activation: .silu,
                positions: .allTokens,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false), poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            eva02_large_patch14_clip_224 eva02_large_patch14_clip_336
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "token", epsilon: 1e-05, activation: .gelu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false),
                poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_large_patch16_lingbot
            """
        ),
        (
            Settings(
                isEva: true, heads: 20, pooling: "avg", epsilon: 1e-05, activation: .silu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false),
                poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_huge_plus_patch16_dinov3 vit_huge_plus_patch16_dinov3_qkvb
            """
        ),
        (
            Settings(
                isEva: true, heads: 24, pooling: "token", epsilon: 1e-05, activation: .silu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false),
                poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_giant_patch16_lingbot
            """
        ),
        (
            Settings(
                isEva: true, heads: 32, pooling: "avg", epsilon: 1e-05, activation: .silu,
                positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false),
                poolHeads: nil, poolsPrefix: false,
                norm: .layer, hasFinalNorm: true),
            """
            vit_7b_patch16_dinov3
            """
        ),
    ]

    /// Words of the names of all others, the first that fits.
    private static let differences: [(word: String, meaning: String)] = [
        ("rpn", "puts each LayerNorm behind its attention or MLP"),
        ("aimv2", "has a norm of its patches"),
        ("beit3", "has a LayerNorm inside a feed-forward layer without a gate"),
        ("beit", "has relative positions"),
        ("eva02_enormous", "puts each LayerNorm behind its attention or MLP"),
        ("_xp_", "runs attention and MLP in parallel"),
        ("18x2", "runs two blocks in parallel"),
        ("dlittle", "has differential attention"),
        ("dwee", "has differential attention"),
        ("dpwee", "has differential attention"),
        ("wee", "runs attention and MLP in parallel"),
        ("rope_mixed", "has rotary positions that are learned"),
        ("sapiens2", "has norms of queries and keys"),
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
