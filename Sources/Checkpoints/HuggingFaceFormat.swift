import Datasets
import Foundation
import ModelConfiguration
import TensorCore

/// Hugging Face's vision transformers, without a prefix or with the one of their `ForImageClassification` class and its head
/// `classifier`, in the names of transformers up to 4 (which 5 still writes) or in 5's own: `HuggingFaceNames`.
///
/// What the head reads is what that class reads, whether there is a head yet or not, so that a model that was trained here is one of
/// that class again.
enum HuggingFaceFormat {
    static func load(
        _ source: any TensorSource, config: JSONValue, folder: URL, heads: Int?, notes: [String]
    ) throws -> ViTCheckpoint {
        let path = folder.appendingPathComponent("config.json").path
        let (family, vision) = try family(config, path: path)
        try refuseOthers(vision, family, path: path)
        try source.refuseUnknownParts(except: family.parts)
        let names = HuggingFaceNames(source, family)
        var notes = notes
        var configuration = try sizes(source, names, vision)
        configuration.heads = vision["num_attention_heads"]?.integerValue ?? 12
        guard heads == nil || heads == configuration.heads else {
            throw CheckpointError(
                "\(path) says \(configuration.heads) heads, not \(heads!); leave the number out")
        }
        configuration.layerNormEpsilon = Float(
            vision["layer_norm_eps"]?.numberValue ?? Double(family.epsilon))
        let (origin, preparedSize) = try readPreprocessing(
            folder, resizes: [.dinov2, .dinov3].contains(family), into: &configuration, notes: &notes)
        try configuration.check(source: path)
        if configuration.classCount == 0 && source.names.contains(where: { $0.contains("classifier") }) {
            throw CheckpointError(
                "\(source.path) has a classifier but no prefix '\(family.prefix)'; convert it again")
        }
        let tensors = try names.read(source, configuration) {
            // Zero registers are a tensor, too.
            isLeftOut($0, family) || source.shape(of: $0)?.contains(0) == true
        }
        TimmFormat.noteLeftOut(source.names.filter(isPretraining), in: &notes)
        if source.names.contains(where: { $0.hasPrefix("text_model.") }) {
            notes.append("left out: the text model beside the vision model")
        }
        let problem = configuration.classCount > 0 ? config["problem_type"]?.stringValue : nil
        let problems = ["single_label_classification", "multi_label_classification", "regression"]
        if let problem, !problems.contains(problem) {
            notes.append(
                "config.json's problem_type is \(problem), which transformers doesn't know: scoring takes the head for one that "
                    + "chooses one class")
        }
        var checkpoint = try ViTCheckpoint(configuration: configuration, tensors: tensors, notes: notes)
        (checkpoint.isHuggingFace, checkpoint.preparedSize) = (true, preparedSize)
        if problem != problems[0] { checkpoint.problemType = problem }
        // transformers' interpolate_pos_encoding has an antialias in this one alone.
        checkpoint.resizing = family == .dinov2 && configuration.registers > 0 ? .antialiased : .sampled
        if configuration.classCount > 0 {
            checkpoint.classNames = try ClassNames.huggingFace(
                config, count: configuration.classCount, path: path, notes: &checkpoint.notes)
        }
        checkpoint.preprocessingOrigin = origin
        return checkpoint
    }

    /// Whether a tensor is of no use to a classifier of images.
    private static func isLeftOut(_ name: String, _ family: HuggingFaceNames.Family) -> Bool {
        // The classifiers on CLIP and SigLIP read the tokens before these.
        let isUnread =
            family == .clip && name.contains("post_layernorm.")
            || family == .siglip && (name.hasPrefix("head.") || name.hasPrefix("vision_model.head."))
        return isPretraining(name) || name.contains("pooler.") || isUnread
            || family.isBesideText
                && (name.hasPrefix("text_model.") || name.hasSuffix("embeddings.position_ids")
                    || [
                        "logit_scale", "logit_bias", "visual_projection.weight", "text_projection.weight",
                    ].contains(name))
    }

    /// Whether a tensor is of pretraining by masked images (`ViTForMaskedImageModeling`, `ViTMAEForPreTraining`).
    private static func isPretraining(_ name: String) -> Bool {
        name.hasSuffix("embeddings.mask_token") || name.hasPrefix("decoder.")
    }

    // MARK: config.json

    /// Keys that `load` reads.
    private static let obeyed: Set<String> = [
        "model_type", "architectures", "hidden_act", "num_attention_heads", "layer_norm_eps", "image_size",
        "patch_size", "hidden_size", "num_hidden_layers", "intermediate_size", "num_channels", "qkv_bias",
        "id2label", "label2id", "problem_type", "num_labels", "mlp_ratio", "use_swiglu_ffn",
        "num_register_tokens", "apply_layernorm", "query_bias", "key_bias", "value_bias", "proj_bias",
        "mlp_bias",
        "use_gated_mlp", "rope_theta",
    ]
    /// Keys of a ViT and of every transformers configuration that change nothing in a forward pass: dropout, the
    /// pooler and the decoder (which a classifier doesn't have), what was trained how, and text generation.
    private static let harmless: Set<String> = [
        "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "drop_path_rate",
        "initializer_range", "encoder_stride", "pooler_act", "pooler_output_size", "add_pooling_layer",
        "_name_or_path", "_commit_hash", "_attn_implementation", "_attn_implementation_autoset",
        "_attn_implementation_internal", "attn_implementation", "_output_attentions", "_num_labels",
        "name_or_path", "layerscale_value", "use_mask_token", "out_features", "out_indices", "stage_names",
        "pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale", "reshape_hidden_states",
        "initializer_factor", "projection_dim", "attention_dropout", "dropout",
        "mask_ratio", "norm_pix_loss", "decoder_hidden_size", "decoder_intermediate_size",
        "decoder_num_attention_heads", "decoder_num_hidden_layers", "vision_use_head",
        "transformers_version", "dtype", "torch_dtype", "torchscript", "tf_legacy_loss", "use_bfloat16",
        "gradient_checkpointing", "use_cache", "return_dict", "use_return_dict", "output_hidden_states",
        "output_attentions", "output_scores", "return_dict_in_generate", "chunk_size_feed_forward",
        "tie_word_embeddings", "finetuning_task", "task_specific_params", "tokenizer_class", "prefix",
        "bos_token_id",
        "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "max_length", "min_length",
        "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature",
        "top_k",
        "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
        "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "forced_bos_token_id",
        "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
        "begin_suppress_tokens", "loss_type", "license", "tags", "image_processor_type",
    ]
    /// The kind of model, and the part of `config.json` that describes its vision half.
    private static func family(_ config: JSONValue, path: String) throws -> (
        HuggingFaceNames.Family, JSONValue
    ) {
        let type = config["model_type"]?.stringValue ?? ""
        guard let family = HuggingFaceNames.Family.allCases.first(where: { $0.types.contains(type) }) else {
            let known = HuggingFaceNames.Family.allCases.flatMap(\.types).joined(separator: ", ")
            throw CheckpointError(
                "\(path): models of type '\(type)' are not supported; use one of the types \(known)")
        }
        for name in (config["architectures"]?.arrayValue ?? []).compactMap(\.stringValue) {
            let plain =
                ["Flax", "TF"].first(where: name.hasPrefix).map { name.dropFirst($0.count) } ?? name[...]
            guard family.classes.contains(String(plain)) else {
                throw CheckpointError(
                    "\(path): the architecture \(name) is not supported; use a \(family.classes[0]) or a \(family.classes[1])"
                )
            }
        }
        guard family.isBesideText, let vision = config["vision_config"] else { return (family, config) }
        try refuseUnknown(
            config, besides: ["vision_config", "text_config", "logit_scale_init_value"], path: path)
        return (family, vision)
    }

    private static func refuseOthers(
        _ config: JSONValue, _ family: HuggingFaceNames.Family, path: String
    ) throws {
        let stated = config["hidden_act"]
        guard stated == nil || stated?.stringValue.flatMap({ activations.value(of: $0) }) != nil else {
            throw CheckpointError(
                "\(path): hidden_act \(stated!.text()) is not supported; only "
                    + "\(activations.map(\.key).joined(separator: ", ")) are")
        }
        guard config["apply_layernorm"] != false else {
            throw CheckpointError(
                "\(path): apply_layernorm is off, which this program doesn't compute; turn it on")
        }
        try refuseUnknown(config, path: path)
    }

    /// Throws at a key that may change what the model computes.
    private static func refuseUnknown(_ config: JSONValue, besides: Set<String> = [], path: String) throws {
        let known = obeyed.union(harmless).union(besides)
        let others = (config.objectValue ?? [:]).filter { !known.contains($0.key) && !$0.value.isOff }
        if let (key, value) = others.min(by: { $0.key < $1.key }) {
            throw CheckpointError(
                "\(path): \(key) = \(value.text()) is not known and may change what the model computes; remove it if it "
                    + "doesn't")
        }
    }

    /// transformers' names of the activations; what is written is the first of an activation's.
    static let activations: KeyValuePairs<String, Activation> = [
        "gelu": .gelu, "gelu_pytorch_tanh": .geluTanh, "gelu_new": .geluTanh, "quick_gelu": .quickGELU,
        "silu": .silu, "swish": .silu, "relu": .relu,
    ]

    private static func sizes(
        _ source: any TensorSource, _ names: HuggingFaceNames, _ config: JSONValue
    ) throws -> ViTConfiguration {
        func shape(_ name: String, rank: Int) throws -> [Int] {
            try source.shape(orThrow: names.parts(of: name)[0], rank: rank)
        }
        func has(_ name: String) -> Bool { source.shape(of: names.parts(of: name)[0]) != nil }
        let family = names.family
        let kernel = try shape("patch_embed.proj.weight", rank: 4)
        let last = try shape("blocks.0.mlp.fc2.weight", rank: 2)
        let hasHead = source.shape(of: names.heads[0] + ".weight") != nil && names.hasPrefix
        let registers = try source.count(ofTokens: names.parts(of: "reg_token")[0])
        // In the file DINOv2's registers have no positions, DeiT's distillation token has one.
        let prefix = (family.hasClassToken ? 1 : 0) + (family == .deit ? registers : 0)
        let imageSize: Int
        if family == .dinov3 {
            guard let size = (config["image_size"].map { $0.pair ?? $0 } ?? 224).integerValue,
                kernel[2] == kernel[3]
            else { throw CheckpointError("\(source.path): only square images and patches are supported") }
            imageSize = size
        } else {
            let positions = try source.shape(
                orThrow: names.parts(of: "pos_embed")[0], rank: family.positionRank)
            imageSize = try TimmFormat.imageSize(
                positions: positions[family.positionRank - 2], prefix: prefix, patch: Array(kernel[2...]),
                path: source.path)
        }
        var configuration = ViTConfiguration(
            imageSize: imageSize,
            patchSize: kernel[2], width: kernel[0], depth: names.blockCount, heads: 1, hiddenWidth: last[1],
            classCount: hasHead ? try shape("head.weight", rank: 2)[0] : 0)
        configuration.channels = kernel[1]
        configuration.hasClassToken = family.hasClassToken
        configuration.registers = registers
        if registers > 0, family == .dinov2 { configuration.positions = .patches }
        configuration.patchBias = has("patch_embed.proj.bias")
        configuration.normBeforeBlocks = family == .clip
        configuration.layerScale = family == .dinov2 || family == .dinov3
        let biases = names.parts(of: "blocks.0.attn.qkv.bias").map { source.shape(of: $0) != nil }
        configuration.queryBias = biases == [true, false, true] ? .withoutKeys : biases[0] ? .all : .none
        configuration.pooling = names.hasTwoHeads ? .classTokenAndSecond : family.pooling
        let activation =
            config["hidden_act"]?.stringValue.flatMap { activations.value(of: $0) } ?? family.activation
        configuration.feedForward = .plain(activation)
        if names.isGated {
            // SiLU whatever hidden_act says.
            configuration.feedForward = .gated(.silu, isPacked: true, hasNorm: false)
        } else if family == .dinov3, has("blocks.0.mlp.fc1_g.weight") {
            configuration.feedForward = .gated(activation, isPacked: false, hasNorm: false)
        }
        if family == .dinov3 {
            configuration.positions = .none
            configuration.rotary = RotaryGrid(
                temperature: config["rope_theta"]?.numberValue ?? 100, layout: .halves, coordinates: .centered
            )
            for (key, isOn) in [
                ("query_bias", biases[0]), ("key_bias", biases[1]), ("value_bias", biases[2]),
                ("proj_bias", true), ("mlp_bias", true), ("use_gated_mlp", configuration.feedForward.isGated),
            ] where config[key] != nil && config[key] != .boolean(isOn) {
                throw CheckpointError(
                    "\(source.path): config.json says \(key) = \(config[key]!.text()), but the tensors say \(isOn); the two "
                        + "don't belong together")
            }
        }
        for (key, value) in [
            ("image_size", configuration.imageSize), ("patch_size", configuration.patchSize),
            ("hidden_size", configuration.width), ("num_hidden_layers", configuration.depth),
            ("intermediate_size", configuration.hiddenWidth), ("num_channels", configuration.channels),
            ("num_register_tokens", configuration.registers),
        ] {
            guard let stated = config[key], (stated.pair ?? stated) != .integer(value) else { continue }
            throw CheckpointError(
                "\(source.path): config.json says \(key) = \(stated.text()), but the tensors say \(value); "
                    + "the two don't belong together")
        }
        // A gated layer's width follows from the ratio by rounding.
        if let ratio = config["mlp_ratio"], !names.isGated,
            ratio.numberValue != Double(configuration.hiddenWidth) / Double(configuration.width)
        {
            throw CheckpointError(
                "\(source.path): config.json says mlp_ratio = \(ratio.text()), but the tensors have a hidden width of "
                    + "\(configuration.hiddenWidth); the two don't belong together")
        }
        guard config["qkv_bias"] == nil || config["qkv_bias"] == .boolean(configuration.qkvBias) else {
            throw CheckpointError(
                "\(source.path): config.json says qkv_bias = \(config["qkv_bias"]!.text()), but the tensors say "
                    + "\(configuration.qkvBias); the two don't belong together")
        }
        return configuration
    }

    /// Who says it, and the images' size where that isn't the model's: a model that `resizes` its positions itself takes any.
    /// `processor_config.json` wins where it has an `image_processor`, as in transformers.
    private static func readPreprocessing(
        _ folder: URL, resizes: Bool, into configuration: inout ViTConfiguration, notes: inout [String]
    ) throws -> (PreprocessingOrigin, preparedSize: Int?) {
        for name in ["processor_config.json", "preprocessor_config.json"] {
            let url = folder.appendingPathComponent(name)
            guard FileManager.default.fileExists(atPath: url.path) else { continue }
            let file = try JSONValue(contentsOf: url)
            guard let settings = name == "processor_config.json" ? file["image_processor"] : file else {
                continue
            }
            if settings["image_processor_type"]?.stringValue?.hasPrefix("DINOv3ViT") == true {
                notes.append(
                    "\(name): DINOv3's processor resizes numbers where this program resizes bytes, so that a pixel may differ by "
                        + "1/255")
            }
            let size = configuration.imageSize
            let made = try Preprocessing.outputSize(huggingFace: settings, path: url.path) ?? size
            guard resizes, made != size else {
                configuration.preprocessing = try Preprocessing(
                    huggingFace: settings, imageSize: size, path: url.path)
                return (.file(name), nil)
            }
            configuration.preprocessing = try Preprocessing(
                huggingFace: settings, imageSize: made, path: url.path
            ).scaled(by: Double(size) / Double(made))
            return (.file(name), made)
        }
        configuration.preprocessing = .transformersDefault
        notes.append(
            "no preprocessor_config.json: transformers' defaults are assumed (images squashed to the input size, "
                + "bilinear, mean and std 0.5)")
        return (.assumed, nil)
    }
}

extension KeyValuePairs<String, Activation> {
    /// The activation of this name; nil for one that isn't among them.
    func value(of name: String) -> Activation? { first { $0.key == name }?.value }

    /// The first name of an activation.
    func key(of activation: Activation) -> String {
        guard let name = first(where: { $0.value == activation })?.key else {
            preconditionFailure("no name of \(activation)")
        }
        return name
    }
}
