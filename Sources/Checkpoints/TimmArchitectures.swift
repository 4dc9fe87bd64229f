// Written by Scripts/timm_architectures.py from timm 1.0.31; change that.

import ModelConfiguration
import TensorCore

/// What timm's names of architectures mean, where no tensor shows it.
enum TimmArchitectures {
    /// What an architecture of this program's kind does; what isn't said is a plain ViT's.
    struct Settings {
        /// Whether the class is `Eva`, and not `VisionTransformer`.
        var isEva = false
        var heads: Int
        /// `token`, `avg` or `map`.
        var pooling: String
        /// ε of the norms.
        var epsilon: Float = 1e-6
        var activation = Activation.gelu
        var positions = ViTConfiguration.Positions.allTokens
        var rotary: RotaryGrid?
        /// The heads of a pooling by attention, where they aren't as many as the blocks'.
        var poolHeads: Int?
        /// Whether a pooling by attention reads the tokens in front of the patches, too.
        var poolsPrefix = false
        var norm = ViTConfiguration.Normalization.layer
        /// Whether there is a norm behind the blocks.
        var hasFinalNorm = true
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
            Settings(heads: 2, pooling: "avg"),
            """
            test_vit2
            """
        ),
        (
            Settings(heads: 2, pooling: "token"),
            """
            test_vit
            """
        ),
        (
            Settings(heads: 3, pooling: "avg", norm: .rms),
            """
            test_vit4
            """
        ),
        (
            Settings(heads: 3, pooling: "map", poolsPrefix: true),
            """
            test_vit3
            """
        ),
        (
            Settings(heads: 3, pooling: "token"),
            """
            deit_tiny_distilled_patch16_224 deit_tiny_patch16_224 vit_tiny_patch16_224
            vit_tiny_patch16_224_in21k vit_tiny_patch16_384
            """
        ),
        (
            Settings(heads: 4, pooling: "avg", positions: .patches),
            """
            vit_wee_patch16_reg1_gap_256
            """
        ),
        (
            Settings(heads: 4, pooling: "token", epsilon: 1e-05),
            """
            vit_xsmall_patch16_clip_224
            """
        ),
        (
            Settings(heads: 5, pooling: "avg", positions: .patches),
            """
            vit_little_patch16_reg1_gap_256 vit_little_patch16_reg4_gap_256
            """
        ),
        (
            Settings(heads: 6, pooling: "token"),
            """
            deit_small_distilled_patch16_224 deit_small_patch16_224 vit_small_patch14_dinov2
            vit_small_patch16_224 vit_small_patch16_224_dino vit_small_patch16_224_in21k
            vit_small_patch16_36x1_224 vit_small_patch16_384 vit_small_patch32_224
            vit_small_patch32_224_in21k vit_small_patch32_384 vit_small_patch8_224 vit_small_patch8_224_dino
            """
        ),
        (
            Settings(heads: 6, pooling: "token", positions: .patches),
            """
            deit3_small_patch16_224 deit3_small_patch16_224_in21ft1k deit3_small_patch16_384
            deit3_small_patch16_384_in21ft1k flexivit_small vit_small_patch14_reg4_dinov2
            """
        ),
        (
            Settings(heads: 8, pooling: "avg"),
            """
            vit_medium_patch16_gap_240 vit_medium_patch16_gap_256 vit_medium_patch16_gap_384
            """
        ),
        (
            Settings(heads: 8, pooling: "avg", positions: .patches),
            """
            vit_medium_patch16_reg1_gap_256 vit_medium_patch16_reg4_gap_256 vit_mediumd_patch16_reg4_gap_256
            vit_mediumd_patch16_reg4_gap_384
            """
        ),
        (
            Settings(heads: 8, pooling: "token", positions: .patches),
            """
            deit3_medium_patch16_224 deit3_medium_patch16_224_in21ft1k
            """
        ),
        (
            Settings(heads: 8, pooling: "token", epsilon: 1e-05),
            """
            vit_medium_patch16_clip_224 vit_medium_patch32_clip_224
            """
        ),
        (
            Settings(heads: 10, pooling: "avg"),
            """
            vit_betwixt_patch16_gap_256
            """
        ),
        (
            Settings(heads: 10, pooling: "avg", positions: .patches),
            """
            vit_betwixt_patch16_reg1_gap_256 vit_betwixt_patch16_reg4_gap_256
            vit_betwixt_patch16_reg4_gap_384
            """
        ),
        (
            Settings(heads: 10, pooling: "token", epsilon: 1e-05),
            """
            vit_betwixt_patch32_clip_224
            """
        ),
        (
            Settings(heads: 12, pooling: "avg"),
            """
            vit_base_patch16_siglip_gap_224 vit_base_patch16_siglip_gap_256 vit_base_patch16_siglip_gap_384
            vit_base_patch16_siglip_gap_512
            """
        ),
        (
            Settings(heads: 12, pooling: "avg", positions: .patches),
            """
            vit_base_patch16_reg4_gap_256
            """
        ),
        (
            Settings(heads: 12, pooling: "avg", activation: .geluTanh),
            """
            vit_base_patch32_siglip_gap_256
            """
        ),
        (
            Settings(heads: 12, pooling: "map"),
            """
            vit_base_patch16_siglip_224 vit_base_patch16_siglip_256 vit_base_patch16_siglip_384
            vit_base_patch16_siglip_512
            """
        ),
        (
            Settings(heads: 12, pooling: "map", activation: .geluTanh),
            """
            vit_base_patch32_siglip_256
            """
        ),
        (
            Settings(heads: 12, pooling: "token"),
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
            Settings(heads: 12, pooling: "token", positions: .patches, hasFinalNorm: false),
            """
            vit_base_patch16_radio_v3
            """
        ),
        (
            Settings(heads: 12, pooling: "token", positions: .patches),
            """
            deit3_base_patch16_224 deit3_base_patch16_224_in21ft1k deit3_base_patch16_384
            deit3_base_patch16_384_in21ft1k flexivit_base vit_base_patch14_reg1_tipsv2
            vit_base_patch14_reg4_dinov2
            """
        ),
        (
            Settings(heads: 12, pooling: "token", epsilon: 1e-05),
            """
            vit_base_patch16_clip_224 vit_base_patch16_clip_384 vit_base_patch32_224_clip_laion2b
            vit_base_patch32_clip_224 vit_base_patch32_clip_256 vit_base_patch32_clip_384
            vit_base_patch32_clip_448
            """
        ),
        (
            Settings(heads: 12, pooling: "token", epsilon: 1e-05, activation: .quickGELU),
            """
            vit_base_patch16_clip_quickgelu_224 vit_base_patch32_clip_quickgelu_224
            """
        ),
        (
            Settings(heads: 13, pooling: "avg"),
            """
            vit_so150m2_patch16_reg1_gap_256 vit_so150m2_patch16_reg1_gap_384
            vit_so150m2_patch16_reg1_gap_448
            """
        ),
        (
            Settings(heads: 14, pooling: "avg"),
            """
            vit_so150m_patch16_reg4_gap_256 vit_so150m_patch16_reg4_gap_384
            """
        ),
        (
            Settings(heads: 14, pooling: "map"),
            """
            vit_so150m_patch16_reg4_map_256
            """
        ),
        (
            Settings(heads: 14, pooling: "token"),
            """
            vit_base_patch16_plus_240 vit_base_patch32_plus_256
            """
        ),
        (
            Settings(heads: 14, pooling: "token", epsilon: 1e-05),
            """
            vit_base_patch16_plus_clip_240
            """
        ),
        (
            Settings(heads: 16, pooling: "avg"),
            """
            eva_large_patch14_196 eva_large_patch14_336 vit_base_patch16_gap_224 vit_giant_patch16_gap_224
            vit_huge_patch14_gap_224 vit_huge_patch16_gap_448 vit_large_patch16_siglip_gap_256
            vit_large_patch16_siglip_gap_384 vit_so400m_patch14_siglip_gap_224
            vit_so400m_patch14_siglip_gap_378 vit_so400m_patch14_siglip_gap_384
            vit_so400m_patch14_siglip_gap_448 vit_so400m_patch14_siglip_gap_896
            """
        ),
        (
            Settings(heads: 16, pooling: "avg", activation: .geluTanh),
            """
            vit_giantopt_patch16_siglip_gap_256 vit_giantopt_patch16_siglip_gap_384
            vit_large_patch16_siglip_gap_512 vit_so400m_patch16_siglip_gap_256
            vit_so400m_patch16_siglip_gap_384 vit_so400m_patch16_siglip_gap_512
            """
        ),
        (
            Settings(heads: 16, pooling: "map"),
            """
            vit_large_patch16_siglip_256 vit_large_patch16_siglip_384 vit_so400m_patch14_siglip_224
            vit_so400m_patch14_siglip_378 vit_so400m_patch14_siglip_384
            """
        ),
        (
            Settings(heads: 16, pooling: "map", activation: .geluTanh),
            """
            vit_giantopt_patch16_siglip_256 vit_giantopt_patch16_siglip_384 vit_large_patch16_siglip_512
            vit_so400m_patch16_siglip_256 vit_so400m_patch16_siglip_384 vit_so400m_patch16_siglip_512
            """
        ),
        (
            Settings(heads: 16, pooling: "token", hasFinalNorm: false),
            """
            vit_intern300m_patch14_448
            """
        ),
        (
            Settings(heads: 16, pooling: "token"),
            """
            vit_giant_patch14_224 vit_gigantic_patch14_224 vit_huge_patch14_224 vit_huge_patch14_224_in21k
            vit_large_patch14_224 vit_large_patch14_dinov2 vit_large_patch16_224 vit_large_patch16_224_in21k
            vit_large_patch16_384 vit_large_patch32_224 vit_large_patch32_224_in21k vit_large_patch32_384
            """
        ),
        (
            Settings(heads: 16, pooling: "token", positions: .patches, hasFinalNorm: false),
            """
            vit_huge_patch16_radio_v3 vit_huge_patch16_radio_v4 vit_large_patch16_radio_v3
            vit_so400m_patch16_radio_v4
            """
        ),
        (
            Settings(heads: 16, pooling: "token", positions: .patches),
            """
            deit3_huge_patch14_224 deit3_huge_patch14_224_in21ft1k deit3_large_patch16_224
            deit3_large_patch16_224_in21ft1k deit3_large_patch16_384 deit3_large_patch16_384_in21ft1k
            flexivit_large vit_large_patch14_reg1_tipsv2 vit_large_patch14_reg4_dinov2
            vit_so400m_patch14_reg1_tipsv2
            """
        ),
        (
            Settings(heads: 16, pooling: "token", epsilon: 1e-05),
            """
            vit_giant_patch14_224_clip_laion2b vit_giant_patch14_clip_224 vit_gigantic_patch14_clip_224
            vit_gigantic_patch14_clip_378 vit_huge_patch14_224_clip_laion2b vit_huge_patch14_clip_224
            vit_huge_patch14_clip_336 vit_huge_patch14_clip_378 vit_large_patch14_224_clip_laion2b
            vit_large_patch14_clip_224 vit_large_patch14_clip_336
            """
        ),
        (
            Settings(heads: 16, pooling: "token", epsilon: 1e-05, activation: .quickGELU),
            """
            vit_gigantic_patch14_clip_quickgelu_224 vit_huge_patch14_clip_quickgelu_224
            vit_huge_patch14_clip_quickgelu_378 vit_large_patch14_clip_quickgelu_224
            vit_large_patch14_clip_quickgelu_336
            """
        ),
        (
            Settings(heads: 24, pooling: "token", positions: .patches, hasFinalNorm: false),
            """
            vit_giant_patch16_radio_v3
            """
        ),
        (
            Settings(heads: 24, pooling: "token", activation: .silu),
            """
            vit_giant_patch14_dinov2
            """
        ),
        (
            Settings(heads: 24, pooling: "token", activation: .silu, positions: .patches),
            """
            vit_giant_patch14_reg1_tipsv2 vit_giant_patch14_reg4_dinov2
            """
        ),
        (
            Settings(
                isEva: true, heads: 3, pooling: "avg", activation: .silu,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false)),
            """
            eva02_tiny_patch14_224 eva02_tiny_patch14_336
            """
        ),
        (
            Settings(
                isEva: true, heads: 3, pooling: "avg", epsilon: 1e-05,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 32),
                    startsWithColumn: true), hasFinalNorm: false),
            """
            vit_pe_spatial_tiny_patch16_512
            """
        ),
        (
            Settings(
                isEva: true, heads: 3, pooling: "avg", epsilon: 1e-05, positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false)),
            """
            vit_tiny_patch16_dinov3_qkvb
            """
        ),
        (
            Settings(
                isEva: true, heads: 3, pooling: "map", epsilon: 1e-05,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 24),
                    startsWithColumn: true), poolHeads: 8, poolsPrefix: true),
            """
            vit_pe_core_tiny_patch16_384
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "avg", activation: .silu,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false)),
            """
            eva02_small_patch14_224 eva02_small_patch14_336
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "avg", epsilon: 1e-05,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 32),
                    startsWithColumn: true), hasFinalNorm: false),
            """
            vit_pe_spatial_small_patch16_512
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "avg", epsilon: 1e-05, positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false)),
            """
            vit_small_patch16_dinov3 vit_small_patch16_dinov3_qkvb
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "avg", epsilon: 1e-05, activation: .silu, positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false)),
            """
            vit_small_plus_patch16_dinov3 vit_small_plus_patch16_dinov3_qkvb
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "map", epsilon: 1e-05,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 24),
                    startsWithColumn: true), poolHeads: 8, poolsPrefix: true),
            """
            vit_pe_core_small_patch16_384
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "token", positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .interleaved, coordinates: .index(offset: 0, reference: nil),
                    startsWithColumn: true)),
            """
            vit_small_patch16_rope_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "token", positions: .patches,
                rotary: RotaryGrid(
                    temperature: 100, layout: .interleaved, coordinates: .index(offset: 0, reference: nil),
                    startsWithColumn: true)),
            """
            vit_small_patch16_rope_ape_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 6, pooling: "token", epsilon: 1e-05, positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false)),
            """
            vit_small_patch16_lingbot
            """
        ),
        (
            Settings(
                isEva: true, heads: 8, pooling: "avg", positions: .none,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false)),
            """
            vit_medium_patch16_rope_reg1_gap_256 vit_mediumd_patch16_rope_reg1_gap_256
            """
        ),
        (
            Settings(
                isEva: true, heads: 10, pooling: "avg", positions: .none,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false)),
            """
            vit_betwixt_patch16_rope_reg4_gap_256
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "avg", positions: .none,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false)),
            """
            vit_base_patch16_rope_reg1_gap_256
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "avg", activation: .silu,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false)),
            """
            eva02_base_patch14_224 eva02_base_patch14_448
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "avg", epsilon: 1e-05,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 32),
                    startsWithColumn: true), hasFinalNorm: false),
            """
            vit_pe_spatial_base_patch16_512
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "avg", epsilon: 1e-05, positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false)),
            """
            vit_base_patch16_dinov3 vit_base_patch16_dinov3_qkvb
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "map", epsilon: 1e-05,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 14),
                    startsWithColumn: true), poolHeads: 8, poolsPrefix: true),
            """
            vit_pe_core_base_patch16_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "token", positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .interleaved, coordinates: .index(offset: 0, reference: nil),
                    startsWithColumn: true)),
            """
            vit_base_patch16_rope_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "token", positions: .patches,
                rotary: RotaryGrid(
                    temperature: 100, layout: .interleaved, coordinates: .index(offset: 0, reference: nil),
                    startsWithColumn: true)),
            """
            vit_base_patch16_rope_ape_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "token", activation: .silu,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false)),
            """
            eva02_base_patch16_clip_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 12, pooling: "token", epsilon: 1e-05, positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false)),
            """
            vit_base_patch16_lingbot
            """
        ),
        (
            Settings(isEva: true, heads: 16, pooling: "avg"),
            """
            eva_giant_patch14_224 eva_giant_patch14_336 eva_giant_patch14_560
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "avg", activation: .silu,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false)),
            """
            eva02_large_patch14_224 eva02_large_patch14_448
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "avg", epsilon: 1e-05,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 32),
                    startsWithColumn: true), hasFinalNorm: false),
            """
            vit_pe_lang_gigantic_patch14_448 vit_pe_spatial_gigantic_patch14_448
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "avg", epsilon: 1e-05,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 32),
                    startsWithColumn: true), hasFinalNorm: false),
            """
            vit_pe_lang_large_patch14_448 vit_pe_spatial_large_patch14_448
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "avg", epsilon: 1e-05, positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false)),
            """
            vit_large_patch16_dinov3 vit_large_patch16_dinov3_qkvb
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "map", epsilon: 1e-05,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 32),
                    startsWithColumn: true), poolHeads: 8, poolsPrefix: true),
            """
            vit_pe_core_gigantic_patch14_448
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "map", epsilon: 1e-05,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 1, reference: 24),
                    startsWithColumn: true), poolHeads: 8, poolsPrefix: true),
            """
            vit_pe_core_large_patch14_336
            """
        ),
        (
            Settings(isEva: true, heads: 16, pooling: "token"),
            """
            eva_giant_patch14_clip_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "token", positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .interleaved, coordinates: .index(offset: 0, reference: nil),
                    startsWithColumn: true)),
            """
            vit_large_patch16_rope_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "token", positions: .patches,
                rotary: RotaryGrid(
                    temperature: 100, layout: .interleaved, coordinates: .index(offset: 0, reference: nil),
                    startsWithColumn: true)),
            """
            vit_large_patch16_rope_ape_224
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "token", activation: .silu,
                rotary: RotaryGrid(
                    temperature: 10000, layout: .interleaved, coordinates: .index(offset: 0, reference: 16),
                    startsWithColumn: false)),
            """
            eva02_large_patch14_clip_224 eva02_large_patch14_clip_336
            """
        ),
        (
            Settings(
                isEva: true, heads: 16, pooling: "token", epsilon: 1e-05, positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false)),
            """
            vit_large_patch16_lingbot
            """
        ),
        (
            Settings(
                isEva: true, heads: 20, pooling: "avg", epsilon: 1e-05, activation: .silu, positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false)),
            """
            vit_huge_plus_patch16_dinov3 vit_huge_plus_patch16_dinov3_qkvb
            """
        ),
        (
            Settings(
                isEva: true, heads: 24, pooling: "token", epsilon: 1e-05, activation: .silu, positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false)),
            """
            vit_giant_patch16_lingbot
            """
        ),
        (
            Settings(
                isEva: true, heads: 32, pooling: "avg", epsilon: 1e-05, activation: .silu, positions: .none,
                rotary: RotaryGrid(
                    temperature: 100, layout: .halves, coordinates: .centered, startsWithColumn: false)),
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
        ("sapiens2", "shares keys and values among heads"),
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
