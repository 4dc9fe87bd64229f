import ModelConfiguration
import TensorCore

// What config.json's model_args say: taken over where no tensor shows it, compared where one does, and refused where it isn't known.

extension TimmFormat {
    /// timm's names of the activations; what is written is the first of an activation's.
    static let activations: KeyValuePairs<String, Activation> = [
        "gelu": .gelu, "gelu_tanh": .geluTanh, "quick_gelu": .quickGELU, "silu": .silu, "swish": .silu,
        "relu": .relu,
    ]

    static func readActivation(
        _ arguments: JSONValue?, _ known: TimmArchitectures.Settings?,
        into configuration: inout ViTConfiguration, path: String
    ) throws {
        var activation = known?.activation ?? .gelu
        if let stated = arguments?["act_layer"], stated != .null {
            guard let named = stated.stringValue.flatMap({ activations.value(of: $0) }) else {
                throw CheckpointError(
                    "\(path): config.json says act_layer = \(stated.text()), which this program doesn't compute; use "
                        + "one of \(activations.map(\.key).joined(separator: ", "))")
            }
            // EVA's layers have their own whatever the argument says.
            guard known?.isEva != true || named == activation else {
                throw CheckpointError(
                    "\(path): config.json says act_layer = \(stated.text()), which timm's EVA doesn't obey; leave it out"
                )
            }
            activation = named
        }
        configuration.feedForward =
            switch configuration.feedForward {
            case .plain: .plain(activation)
            case .gated(_, let isPacked, let hasNorm):
                .gated(activation, isPacked: isPacked, hasNorm: hasNorm)
            }
    }

    /// Arguments that change nothing in a forward pass without dropout.
    private static let harmless: Set<String> = [
        "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate",
        "weight_init", "fix_init", "dynamic_img_size", "dynamic_img_pad", "strict_img_size", "global_pool",
        "num_heads", "act_layer", "ref_feat_shape",
    ]

    static func apply(
        _ arguments: JSONValue?, isEva: Bool, to configuration: inout ViTConfiguration, path: String
    ) throws {
        // In `VisionTransformer` the ratio is that of gate and values together.
        let isBoth = configuration.feedForward.isGated && !isEva
        let ratio = Double(configuration.hiddenWidth) / Double(configuration.width) * (isBoth ? 2 : 1)
        let usual: [String: [JSONValue]] = [
            "img_size": [.integer(configuration.imageSize)],
            "patch_size": [.integer(configuration.patchSize)],
            "in_chans": [.integer(configuration.channels)],
            "num_classes": [.integer(configuration.classCount)],
            "embed_dim": [.integer(configuration.width)], "depth": [.integer(configuration.depth)],
            "mlp_ratio": [.number(ratio)], "qkv_bias": [.boolean(configuration.qkvBias)],
            "class_token": [.boolean(configuration.hasClassToken)],
            "fc_norm": [.boolean(configuration.pooling == .meanBeforeNorm)],
            "pos_embed": ["learn"], "final_norm": [.boolean(configuration.hasFinalNorm)],
            "proj_bias": [true], "pool_include_prefix": [.boolean(configuration.poolsPrefix)],
            "norm_layer": [configuration.norm == .rms ? "rmsnorm" : "layernorm"],
            "reg_tokens": [.integer(configuration.registers)],
            "num_reg_tokens": [.integer(configuration.registers)],
            "no_embed_class": configuration.prefixCount == 0
                ? [true, false] : [.boolean(configuration.positions == .patches)],
            "pre_norm": [.boolean(configuration.normBeforeBlocks)],
            "qk_norm": [.boolean(configuration.queryKeyNorm)],
        ]
        guard !configuration.queryKeyNorm || arguments?["qk_norm"] == true else {
            throw CheckpointError(
                "\(path) holds 'blocks.0.attn.q_norm.weight', but config.json's model_args don't say qk_norm = true; the two "
                    + "don't belong together")
        }
        for (name, value) in arguments?.objectValue ?? [:] where !harmless.contains(name) && value != .null {
            if name == "norm_eps", let epsilon = value.numberValue {
                configuration.layerNormEpsilon = Float(epsilon)
                continue
            }
            let scalar = value.pair ?? value
            if name == "init_values" {
                guard configuration.layerScale || scalar == 0 || scalar == 0.0 || scalar == false else {
                    throw CheckpointError(
                        "\(path): config.json says init_values = \(value.text()), but the tensors have no layer scale; the "
                            + "two don't belong together")
                }
                continue
            }
            guard let expected = usual[name] else {
                // Switches of a ViT that are off ask for nothing; some of EVA's are on by themselves.
                if !isEva, scalar == false || scalar == 0 || scalar == 0.0 || scalar == "" { continue }
                throw CheckpointError(
                    "\(path): config.json asks for \(name) = \(value.text()), which is not supported")
            }
            // int(width × ratio) is what timm computes, so a rounded ratio is right too.
            let isRatio =
                name == "mlp_ratio"
                && scalar.numberValue.map { (Double(configuration.width) * $0).rounded(.down) }
                    == Double(configuration.hiddenWidth) * (isBoth ? 2 : 1)
            guard isRatio || expected.contains(scalar) else {
                throw CheckpointError(
                    "\(path): config.json says \(name) = \(value.text()), but the tensors say \(expected[0].text()); "
                        + "the two don't belong together")
            }
        }
    }

    static func setHeads(
        _ arguments: JSONValue?, _ known: TimmArchitectures.Settings?, _ name: String, _ given: Int?,
        in configuration: inout ViTConfiguration, path: String
    ) throws {
        if let value = arguments?["num_heads"] {
            guard let heads = value.integerValue else {
                throw CheckpointError(
                    "\(path): config.json says num_heads = \(value.text()), which is no number; correct it")
            }
            configuration.heads = heads
        } else if let known {
            configuration.heads = known.heads
        } else if let given {
            configuration.heads = given
        } else {
            throw CheckpointError(
                "\(path): config.json doesn't tell the number of heads of '\(name)'; give the number of heads"
            )
        }
        guard given == nil || given == configuration.heads else {
            throw CheckpointError(
                "\(path): \(given!) heads were asked for, but config.json says \(configuration.heads); leave it out"
            )
        }
    }
}
