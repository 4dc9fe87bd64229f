import Foundation
import ModelConfiguration
import TensorCore

/// The class of transformers that computes what a configuration says, and how it is told.
struct HuggingFaceForm {
    let names: HuggingFaceNames
    let config: [String: JSONValue]
    /// Tensors of the class that no image's logits depend on.
    let unread: [String: HostTensor]

    /// Throws `CheckpointError` where no class does.
    init(_ c: ViTConfiguration, folder: URL) throws {
        let hasHead = c.classCount > 0
        func failure(_ what: String) -> CheckpointError {
            CheckpointError(
                "cannot write \(folder.path): \(what), which no class of Hugging Face's does; write timm's form"
            )
        }
        func fits(_ pooling: ViTConfiguration.Pooling) -> Bool { !hasHead || c.pooling == pooling }
        guard !c.queryKeyNorm else { throw failure("this model has norms of its queries and keys") }
        let family: HuggingFaceNames.Family
        let rotary = RotaryGrid(
            temperature: c.rotary?.temperature ?? 0, layout: .halves, coordinates: .centered)
        if c.layerScale, c.positions == .none, c.rotary == rotary {
            guard !hasHead else {
                throw CheckpointError(
                    "cannot write \(folder.path): Hugging Face has no class with a head on DINOv3; write timm's form (`format timm`)"
                )
            }
            guard c.hasClassToken, !c.normBeforeBlocks, c.patchBias, c.queries == .fused, !c.attentionNorm,
                !c.hasHiddenNorm, c.norm == .layer
            else { throw failure("this model has rotary positions and other parts than DINOv3's") }
            family = .dinov3
        } else if c.rotary != nil || c.positions == .none || c.queries != .fused || c.attentionNorm
            || c.hasHiddenNorm || c.norm != .layer || c.queryBias == .withoutKeys
        {
            throw failure("this model has parts of EVA's")
        } else if c.layerScale {
            guard c.hasClassToken, !c.normBeforeBlocks, c.patchBias,
                c.registers == 0 || c.positions == .patches,
                c.registers > 0 || c.positions == .allTokens
            else { throw failure("this model has a layer scale and other parts than DINOv2's") }
            guard fits(.classTokenAndMean) else {
                throw failure(
                    "this model's head reads \(c.pooling == .classToken ? "the class token alone" : "the mean alone") behind a layer scale"
                )
            }
            family = .dinov2
        } else if c.normBeforeBlocks {
            guard c.hasClassToken, c.registers == 0, !c.patchBias, c.qkvBias else {
                throw failure("this model has a LayerNorm before its blocks and other parts than CLIP's")
            }
            guard fits(.mean) else {
                throw failure("this model's head reads tokens behind CLIP's last LayerNorm")
            }
            family = .clip
        } else if !c.hasClassToken {
            guard c.registers == 0, c.patchBias, c.qkvBias else {
                throw failure("this model has no class token and other parts than SigLIP's")
            }
            guard fits(.meanAfterNorm) else {
                throw failure("this model's head reads a mean before its LayerNorm")
            }
            family = .siglip
        } else {
            guard c.registers <= 1, c.registers == 0 || c.positions == .allTokens, c.patchBias else {
                throw failure("this model has register tokens and no layer scale")
            }
            guard fits(.classToken) || c.registers == 1 && c.pooling == .classTokenAndSecond else {
                throw CheckpointError(
                    "cannot write \(folder.path): Hugging Face's ViT reads the class token, this model the mean; "
                        + "write timm's form")
            }
            family = c.registers == 1 ? .deit : .vit
        }
        if c.feedForward.isGated, family != .dinov2, family != .dinov3 {
            throw failure("this model has a gated feed-forward layer")
        }
        var names = HuggingFaceNames(family, hasPrefix: hasHead)
        names.isGated = family == .dinov2 && c.feedForward.isGated
        names.hasRegisters = c.registers > 0
        names.hasTwoHeads = family == .deit && hasHead && c.pooling == .classTokenAndSecond
        self.names = names
        let type =
            family == .dinov2 && c.registers > 0
            ? "dinov2_with_registers"
            : family.isBesideText && hasHead ? family == .clip ? "clip" : "siglip" : family.types[0]
        let activation = HuggingFaceFormat.activations.key(of: c.feedForward.activation)
        var vision: [String: JSONValue] = [
            "model_type": .string(family.isBesideText ? family.types[0] : type),
            "hidden_size": .integer(c.width), "num_hidden_layers": .integer(c.depth),
            "num_attention_heads": .integer(c.heads),
            "hidden_act": .string(activation), "layer_norm_eps": .number(shortest(c.layerNormEpsilon)),
            "image_size": .integer(c.imageSize), "patch_size": .integer(c.patchSize), "num_channels": 3,
        ]
        if family == .dinov2 {
            if c.feedForward.isGated {
                // Of transformers' Dinov2SwiGLUFFN; hidden_act, which it doesn't read, stays what it usually is.
                let ratio = (1...64).first { ($0 * c.width * 2 / 3 + 7) / 8 * 8 == c.hiddenWidth }
                guard let ratio else {
                    throw failure("this model's gated hidden width \(c.hiddenWidth) follows from no ratio")
                }
                vision["mlp_ratio"] = .integer(ratio)
                vision["use_swiglu_ffn"] = true
                vision["hidden_act"] = "gelu"
            } else if c.hiddenWidth % c.width == 0 {
                vision["mlp_ratio"] = .integer(c.hiddenWidth / c.width)
            } else {
                throw failure("this model's hidden width \(c.hiddenWidth) is no multiple of \(c.width)")
            }
            if c.registers > 0 {
                vision["num_register_tokens"] = .integer(c.registers)
            } else {
                // Without it the class wants a mask token, which only pretraining has.
                vision["use_mask_token"] = false
            }
        } else {
            vision["intermediate_size"] = .integer(c.hiddenWidth)
        }
        if family == .siglip { vision["vision_use_head"] = false }
        if family == .dinov3 {
            vision["num_register_tokens"] = .integer(c.registers)
            vision["rope_theta"] = .number(rotary.temperature)
            vision["use_gated_mlp"] = .boolean(c.feedForward.isGated)
            for key in ["query_bias", "value_bias"] { vision[key] = .boolean(c.qkvBias) }
            vision["key_bias"] = .boolean(c.queryBias == .all)
        } else if !family.isBesideText {
            vision["qkv_bias"] = .boolean(c.qkvBias)
            vision["hidden_dropout_prob"] = 0.0
            vision["attention_probs_dropout_prob"] = 0.0
        }
        let name =
            family == .dinov3
            ? family.classes[0]
            : names.hasTwoHeads
                ? "DeiTForImageClassificationWithTeacher"
                : family.classes[(family == .dinov2 && c.registers > 0 ? 2 : 0) + (hasHead ? 0 : 1)]
        let isInside = family.isBesideText && hasHead
        var config: [String: JSONValue] =
            isInside ? ["model_type": .string(type), "vision_config": .object(vision)] : vision
        config["architectures"] = [.string(name)]
        self.config = config
        // What the class declares and doesn't read here; transformers would warn of weights that it makes up.
        unread =
            switch family {
            case .dinov2 where c.registers > 0:
                ["\(names.prefix)embeddings.mask_token": HostTensor(shape: [1, c.width], repeating: 0)]
            case .dinov3:
                ["embeddings.mask_token": HostTensor(shape: [1, 1, c.width], repeating: 0)]
            case .clip where hasHead:
                [
                    "\(names.prefix)post_layernorm.weight": HostTensor(shape: [c.width], repeating: 1),
                    "\(names.prefix)post_layernorm.bias": HostTensor(shape: [c.width], repeating: 0),
                ]
            default: [:]
            }
    }
}
