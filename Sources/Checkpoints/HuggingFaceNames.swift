import ModelConfiguration
import TensorCore

/// What Hugging Face calls timm's tensors. The families differ in words; of the parts below the file's names are made.
///
/// | | ViT, DeiT, MAE | DINOv2 | DINOv3 | CLIP, SigLIP |
/// | --- | --- | --- | --- | --- |
/// | blocks | `encoder.layer.0.`, new `layers.0.` | `encoder.layer.0.` | `layer.0.`, new `model.layer.0.` | `encoder.layers.0.` |
/// | query | `attention.attention.query`, new `attention.q_proj` | the same | `attention.q_proj` | `self_attn.q_proj` |
/// | LayerNorms | `layernorm_before`, `layernorm_after` | `norm1`, `norm2` | `norm1`, `norm2` | `layer_norm1`, `layer_norm2` |
/// | gated | | `mlp.weights_in`, `mlp.weights_out`, new as DINOv3 | `mlp.gate_proj`, `mlp.up_proj`, `mlp.down_proj` | |
struct HuggingFaceNames {
    /// Models with the same names and parts.
    enum Family: CaseIterable {
        case vit, deit, dinov2, dinov3, clip, siglip

        /// The `model_type`s.
        var types: [String] {
            switch self {
            case .vit: ["vit", "vit_mae"]
            case .deit: ["deit"]
            case .dinov2: ["dinov2", "dinov2_with_registers"]
            case .dinov3: ["dinov3_vit"]
            case .clip: ["clip_vision_model", "clip"]
            case .siglip: ["siglip_vision_model", "siglip", "siglip2_vision_model", "siglip2"]
            }
        }

        /// The classes that are read; what pretraining adds to some is left out.
        var classes: [String] {
            switch self {
            case .vit:
                [
                    "ViTForImageClassification", "ViTModel", "ViTForMaskedImageModeling", "ViTMAEModel",
                    "ViTMAEForPreTraining",
                ]
            case .deit:
                [
                    "DeiTForImageClassification", "DeiTModel", "DeiTForMaskedImageModeling",
                    "DeiTForImageClassificationWithTeacher",
                ]
            case .dinov2:
                [
                    "Dinov2ForImageClassification", "Dinov2Model",
                    "Dinov2WithRegistersForImageClassification",
                    "Dinov2WithRegistersModel",
                ]
            case .dinov3: ["DINOv3ViTModel", "DINOv3ViTBackbone"]
            case .clip:
                [
                    "CLIPForImageClassification", "CLIPVisionModel", "CLIPModel",
                    "CLIPVisionModelWithProjection",
                ]
            case .siglip:
                [
                    "SiglipForImageClassification", "SiglipVisionModel", "SiglipModel",
                    "Siglip2ForImageClassification", "Siglip2VisionModel", "Siglip2Model",
                ]
            }
        }

        /// What the classifier's class puts before the names of the model's tensors.
        var prefix: String {
            switch self {
            case .vit: "vit."
            case .deit: "deit."
            case .dinov2: "dinov2."
            // No class of transformers' puts a head on it.
            case .dinov3: ""
            case .clip, .siglip: "vision_model."
            }
        }

        /// All that there are.
        var prefixes: [String] {
            [self == .dinov2 ? "dinov2_with_registers." : prefix, prefix].filter { !$0.isEmpty }
        }

        var hasClassToken: Bool { self != .siglip }
        /// Whether a file may hold a text model, too.
        var isBesideText: Bool { self == .clip || self == .siglip }
        /// The dimensions of the positions' table: [1, T, D] or [T, D].
        var positionRank: Int { isBesideText ? 2 : 3 }
        /// ε where `config.json` doesn't say it.
        var epsilon: Float {
            switch self {
            case .vit, .deit: 1e-12
            case .dinov2, .siglip: 1e-6
            case .clip, .dinov3: 1e-5
            }
        }
        /// f where `config.json` doesn't say it.
        var activation: Activation {
            switch self {
            case .vit, .deit, .dinov2, .dinov3: .gelu
            case .clip: .quickGELU
            case .siglip: .geluTanh
            }
        }
        /// What the classifier's class reads.
        var pooling: ViTConfiguration.Pooling {
            switch self {
            case .vit, .deit, .dinov3: .classToken
            case .dinov2: .classTokenAndMean
            case .clip: .mean
            case .siglip: .meanAfterNorm
            }
        }
        /// Words of names that other models are refused for.
        var parts: Set<String> {
            switch self {
            case .vit: []
            case .deit: ["distillation"]
            case .dinov2, .dinov3: ["lambda", "register"]
            case .clip, .siglip: ["pre_logits"]
            }
        }
    }

    let family: Family
    /// Whether the model's tensors have the prefix.
    var hasPrefix: Bool
    /// DINOv2's prefix says whether there are registers.
    var hasRegisters = false
    /// Whether DINOv2's feed-forward layers are gated.
    var isGated = false
    /// Whether DeiT's distillation token has a classifier, too, which is trained with a teacher.
    var hasTwoHeads = false
    /// Whether the blocks have the names of transformers 5: `layers.N.attention.q_proj`, …
    var isNew = false
    var blockCount = 0

    init(_ family: Family, hasPrefix: Bool) { (self.family, self.hasPrefix) = (family, hasPrefix) }

    init(_ source: any TensorSource, _ family: Family) {
        self.init(family, hasPrefix: false)
        let names = source.names
        hasRegisters = names.contains { $0.hasSuffix("embeddings.register_tokens") }
        isGated =
            family == .dinov2
            && names.contains {
                $0.hasSuffix("mlp.weights_in.weight") || $0.hasSuffix("mlp.gate_proj.weight")
            }
        hasTwoHeads = family == .deit && names.contains("cls_classifier.weight")
        hasPrefix = !prefixWhole.isEmpty && names.contains { $0.hasPrefix(prefixWhole) }
        isNew = names.contains {
            $0.hasPrefix(prefix + "layers.") || $0.hasPrefix("model.layer.")
                || $0.hasPrefix(prefix + "encoder.layer.0.attention.q_proj")
        }
        let start = blocks
        blockCount =
            Set(
                names.filter { $0.hasPrefix(start) }.map { $0.dropFirst(start.count).prefix { $0 != "." } }
            ).count
    }

    private var prefixWhole: String {
        family == .dinov2 && hasRegisters ? "dinov2_with_registers." : family.prefix
    }
    /// What the names of the model's tensors begin with.
    var prefix: String { hasPrefix ? prefixWhole : "" }
    private var blocks: String {
        switch family {
        case .vit, .deit: prefix + (isNew ? "layers." : "encoder.layer.")
        case .dinov2: prefix + "encoder.layer."
        case .dinov3: isNew ? "model.layer." : "layer."
        case .clip, .siglip: prefix + "encoder.layers."
        }
    }

    /// The modules of the head: one, or those of the class token and of the distillation token.
    var heads: [String] { hasTwoHeads ? ["cls_classifier", "distillation_classifier"] : ["classifier"] }

    /// The names here of timm's tensor, more than one for the fused query, key and value.
    func parts(of name: String) -> [String] {
        let words = name.split(separator: ".").map(String.init)
        if words[0] == "head" { return [heads[0] + "." + words[1]] }
        let kind = words.count > 1 ? "." + words.last! : ""
        guard words[0] == "blocks" else {
            return [prefix + outside(words.dropLast(words.count > 1 ? 1 : 0).joined(separator: ".")) + kind]
        }
        let block = blocks + words[1] + "."
        let module = words.dropFirst(2).dropLast().joined(separator: ".")
        if module == "ls1" || module == "ls2" { return [block + "layer_scale\(module.last!).lambda1"] }
        return inBlock(module).map { block + $0 + kind }
    }

    /// The module, or the tensor, outside the blocks.
    private func outside(_ name: String) -> String {
        let isText = family.isBesideText
        return switch name {
        case "cls_token": isText ? "embeddings.class_embedding" : "embeddings.cls_token"
        case "pos_embed": isText ? "embeddings.position_embedding.weight" : "embeddings.position_embeddings"
        case "reg_token":
            family == .deit ? "embeddings.distillation_token" : "embeddings.register_tokens"
        case "patch_embed.proj":
            isText
                ? "embeddings.patch_embedding"
                : "embeddings.patch_embeddings" + (family == .dinov3 ? "" : ".projection")
        case "norm_pre": "pre_layrnorm"  // as transformers spells it
        default: isText ? "post_layernorm" : family == .dinov3 ? "norm" : "layernorm"
        }
    }

    private func inBlock(_ module: String) -> [String] {
        switch (family, module) {
        case (.clip, "attn.qkv"), (.siglip, "attn.qkv"): ["q", "k", "v"].map { "self_attn.\($0)_proj" }
        case (_, "attn.qkv"):
            isNew || family == .dinov3
                ? ["q", "k", "v"].map { "attention.\($0)_proj" }
                : ["query", "key", "value"].map { "attention.attention.\($0)" }
        case (.clip, "attn.proj"), (.siglip, "attn.proj"): ["self_attn.out_proj"]
        case (_, "attn.proj"):
            [isNew || family == .dinov3 ? "attention.o_proj" : "attention.output.dense"]
        case (.dinov2, "mlp.fc1") where isGated:
            isNew ? ["mlp.gate_proj", "mlp.up_proj"] : ["mlp.weights_in"]
        case (.dinov2, "mlp.fc2") where isGated: [isNew ? "mlp.down_proj" : "mlp.weights_out"]
        case (.dinov3, "mlp.fc1"), (.dinov3, "mlp.fc1_x"): ["mlp.up_proj"]
        case (.dinov3, "mlp.fc1_g"): ["mlp.gate_proj"]
        case (.dinov3, "mlp.fc2"): ["mlp.down_proj"]
        case (.vit, "norm1"), (.deit, "norm1"): ["layernorm_before"]
        case (.vit, "norm2"), (.deit, "norm2"): ["layernorm_after"]
        case (.clip, "norm1"), (.siglip, "norm1"): ["layer_norm1"]
        case (.clip, "norm2"), (.siglip, "norm2"): ["layer_norm2"]
        case (.vit, "mlp.fc1"), (.deit, "mlp.fc1"): [isNew ? "mlp.fc1" : "intermediate.dense"]
        case (.vit, "mlp.fc2"), (.deit, "mlp.fc2"): [isNew ? "mlp.fc2" : "output.dense"]
        default: [module]
        }
    }

    // MARK: Tensors

    /// The file's tensors in timm's names and shapes.
    func read(
        _ source: any TensorSource, _ configuration: ViTConfiguration, ignored: (String) -> Bool
    ) throws -> [String: HostTensor] {
        let d = configuration.width
        var recipes: [String: TensorRecipe] = [:]
        for (name, shape) in configuration.tensorShapes {
            var shape = shape
            var parts = parts(of: name)
            if lacksKeyBias(configuration), name.hasSuffix("attn.qkv.bias") {
                parts.remove(at: 1)
                shape = [2 * d]
            }
            // Of the registers alone nobody has positions in the file, the class token's is there.
            if name == "pos_embed", configuration.positions == .patches { shape[1] += 1 }
            var partShape = shape
            partShape[0] /= parts.count
            if family.isBesideText, name == "pos_embed" { partShape = Array(shape.dropFirst()) }
            if family.isBesideText, name == "cls_token" { partShape = [d] }
            if hasTwoHeads, name.hasPrefix("head.") {
                let kind = name.dropFirst("head".count)
                if shape.count == 2 { shape[1] = d }
                partShape = shape
                recipes["second " + name] = TensorRecipe(shape: shape, parts: [(heads[1] + kind, shape)])
            }
            recipes[name] = TensorRecipe(shape: shape, parts: parts.map { ($0, partShape) })
        }
        var tensors = try source.read(recipes, ignored: ignored)
        if lacksKeyBias(configuration) {
            for name in tensors.keys where name.hasSuffix("attn.qkv.bias") {
                tensors[name]!.insertZeroKeys(width: d)
            }
        }
        if hasTwoHeads { try TimmNames.joinHeads(&tensors, width: d, path: source.path) }
        guard configuration.positions == .patches, let all = tensors["pos_embed"] else { return tensors }
        // A position that only the class token has is a part of it.
        tensors["cls_token"]!.values = zip(tensors["cls_token"]!.values, all.values).map { $0 + $1 }
        tensors["pos_embed"] = HostTensor(
            shape: [1, configuration.patchCount, d], values: Array(all.values.dropFirst(d)))
        return tensors
    }

    private func lacksKeyBias(_ configuration: ViTConfiguration) -> Bool {
        configuration.queryBias == .withoutKeys
    }

    /// A model's tensors in the file's names and shapes. Throws `CheckpointError` for a bias of the keys, which the file has no place for.
    func written(_ tensors: [String: HostTensor], _ configuration: ViTConfiguration) throws -> [String:
        HostTensor]
    {
        let d = configuration.width
        var result: [String: HostTensor] = [:]
        for (name, tensor) in tensors {
            if hasTwoHeads, name.hasPrefix("head.") {
                for (head, part) in zip(heads, TimmNames.separatedHeads(tensor, width: d)) {
                    result[head + name.dropFirst("head".count)] = part
                }
                continue
            }
            var (shape, values) = (tensor.shape, tensor.values)
            if name == "pos_embed", configuration.positions == .patches {
                (shape[1], values) = (shape[1] + 1, [Float](repeating: 0, count: d) + values)
            }
            if family.isBesideText, name == "pos_embed" { shape.removeFirst() }
            if family.isBesideText, name == "cls_token" { shape = [d] }
            var parts = parts(of: name)
            if lacksKeyBias(configuration), name.hasSuffix("attn.qkv.bias") {
                values = try tensor.withoutKeys(name, isRotated: configuration.rotary != nil)
                shape = [2 * d]
                parts.remove(at: 1)
            }
            let count = values.count / parts.count
            shape[0] /= parts.count
            for (index, part) in parts.enumerated() {
                result[part] = HostTensor(
                    shape: shape, values: Array(values[index * count..<(index + 1) * count]))
            }
        }
        return result
    }
}
