import Datasets
import Foundation
import ModelConfiguration

/// Hugging Face's `ViTModel` (no prefix) and `ViTForImageClassification` (prefix `vit.`, head `classifier`), in the
/// names of transformers up to 4 (which 5 still writes) or in 5's own.
enum HuggingFaceFormat {
    static func load(
        _ source: any TensorSource, config: JSONValue, folder: URL, heads: Int?, notes: [String]
    ) throws -> ViTCheckpoint {
        let path = folder.appendingPathComponent("config.json").path
        try refuseOthers(config, path: path)
        try source.refuseUnknownParts()
        let names = Names(source)
        var notes = notes
        var configuration = try sizes(source, names, config)
        configuration.heads = config["num_attention_heads"]?.integerValue ?? 12
        guard heads == nil || heads == configuration.heads else {
            throw CheckpointError(
                "\(path) says \(configuration.heads) heads, not \(heads!); leave the number out")
        }
        configuration.layerNormEpsilon = Float(config["layer_norm_eps"]?.numberValue ?? 1e-12)
        let origin = try readPreprocessing(folder, into: &configuration, notes: &notes)
        try configuration.check(source: path)
        if configuration.classCount == 0 && source.names.contains(where: { $0.contains("classifier") }) {
            throw CheckpointError("\(source.path) has a classifier but no prefix 'vit.'; convert it again")
        }
        var recipes: [String: TensorRecipe] = [:]
        for (name, shape) in configuration.tensorShapes {
            let parts = names.parts(of: name)
            var partShape = shape
            partShape[0] /= parts.count
            recipes[name] = TensorRecipe(shape: shape, parts: parts.map { ($0, partShape) })
        }
        let tensors = try source.read(recipes) { $0.contains("pooler.") || isPretraining($0) }
        TimmFormat.noteLeftOut(source.names.filter(isPretraining), in: &notes)
        if let problem = config["problem_type"]?.stringValue, configuration.classCount > 0,
            problem != "single_label_classification"
        {
            notes.append(
                "config.json's problem_type is \(problem): the head was not trained to choose one class, which is what "
                    + "scoring takes it for")
        }
        var checkpoint = try ViTCheckpoint(configuration: configuration, tensors: tensors, notes: notes)
        if configuration.classCount > 0 {
            checkpoint.classNames = try ClassNames.huggingFace(
                config, count: configuration.classCount, path: path, notes: &checkpoint.notes)
        }
        checkpoint.preprocessingOrigin = origin
        return checkpoint
    }

    /// Whether a tensor is of masked-image pretraining (`ViTForMaskedImageModeling`).
    private static func isPretraining(_ name: String) -> Bool {
        name.hasSuffix("embeddings.mask_token") || name.hasPrefix("decoder.")
    }

    // MARK: config.json

    /// Keys that `load` reads.
    private static let obeyed: Set<String> = [
        "model_type", "architectures", "hidden_act", "num_attention_heads", "layer_norm_eps", "image_size",
        "patch_size", "hidden_size", "num_hidden_layers", "intermediate_size", "num_channels", "qkv_bias",
        "id2label",
        "label2id", "problem_type", "num_labels",
    ]
    /// Keys of a ViT and of every transformers configuration that change nothing in a forward pass: dropout, the
    /// pooler and the decoder (which a classifier doesn't have), what was trained how, and text generation.
    private static let harmless: Set<String> = [
        "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "drop_path_rate",
        "initializer_range", "encoder_stride", "pooler_act", "pooler_output_size", "add_pooling_layer",
        "_name_or_path", "_commit_hash", "_attn_implementation", "_attn_implementation_autoset",
        "_attn_implementation_internal", "attn_implementation", "_output_attentions", "_num_labels",
        "name_or_path",
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
    /// The classes that this reader computes; what pretraining adds to the last is left out.
    private static let classes: Set<String> = [
        "ViTModel", "ViTForImageClassification", "ViTForMaskedImageModeling",
    ]

    private static func refuseOthers(_ config: JSONValue, path: String) throws {
        let type = config["model_type"]?.stringValue ?? ""
        guard type == "vit" else {
            throw CheckpointError(
                "\(path): models of type '\(type)' are not supported; use a plain ViT (type vit)")
        }
        guard ["gelu", nil].contains(config["hidden_act"]?.stringValue) else {
            throw CheckpointError(
                "\(path): hidden_act \(config["hidden_act"]!.text()) is not supported; only gelu is")
        }
        for name in (config["architectures"]?.arrayValue ?? []).compactMap(\.stringValue) {
            let plain =
                ["Flax", "TF"].first(where: name.hasPrefix).map { name.dropFirst($0.count) } ?? name[...]
            guard classes.contains(String(plain)) else {
                throw CheckpointError(
                    "\(path): the architecture \(name) is not supported; use a ViTForImageClassification or a ViTModel"
                )
            }
        }
        let known = obeyed.union(harmless)
        let others = (config.objectValue ?? [:]).filter { !known.contains($0.key) && !$0.value.isOff }
        if let (key, value) = others.min(by: { $0.key < $1.key }) {
            throw CheckpointError(
                "\(path): \(key) = \(value.text()) is not known and may change what the model computes; remove it if it "
                    + "doesn't")
        }
    }

    private static func sizes(
        _ source: any TensorSource, _ names: Names, _ config: JSONValue
    ) throws -> ViTConfiguration {
        func shape(_ name: String, rank: Int) throws -> [Int] {
            try source.shape(orThrow: names.parts(of: name)[0], rank: rank)
        }
        let kernel = try shape("patch_embed.proj.weight", rank: 4)
        let hidden = try shape("blocks.0.mlp.fc1.weight", rank: 2)
        let tokens = try shape("pos_embed", rank: 3)[1]
        let hasHead = source.shape(of: "classifier.weight") != nil && names.hasPrefix
        var configuration = ViTConfiguration(
            imageSize: try TimmFormat.imageSize(
                tokens: tokens, hasClassToken: true, patch: Array(kernel[2...]), path: source.path),
            patchSize: kernel[2], width: kernel[0], depth: names.blockCount, heads: 1, hiddenWidth: hidden[0],
            classCount: hasHead ? try shape("head.weight", rank: 2)[0] : 0)
        configuration.channels = kernel[1]
        configuration.qkvBias = source.shape(of: names.parts(of: "blocks.0.attn.qkv.bias")[0]) != nil
        for (key, value) in [
            ("image_size", configuration.imageSize), ("patch_size", configuration.patchSize),
            ("hidden_size", configuration.width), ("num_hidden_layers", configuration.depth),
            ("intermediate_size", configuration.hiddenWidth), ("num_channels", configuration.channels),
        ] {
            guard let stated = config[key], (stated.pair ?? stated) != .integer(value) else { continue }
            throw CheckpointError(
                "\(source.path): config.json says \(key) = \(stated.text()), but the tensors say \(value); "
                    + "the two don't belong together")
        }
        guard config["qkv_bias"] == nil || config["qkv_bias"] == .boolean(configuration.qkvBias) else {
            throw CheckpointError(
                "\(source.path): config.json says qkv_bias = \(config["qkv_bias"]!.text()), but the tensors say "
                    + "\(configuration.qkvBias); the two don't belong together")
        }
        return configuration
    }

    /// Who says it. `processor_config.json` wins where it has an `image_processor`, as in transformers.
    private static func readPreprocessing(
        _ folder: URL, into configuration: inout ViTConfiguration, notes: inout [String]
    ) throws -> PreprocessingOrigin {
        for name in ["processor_config.json", "preprocessor_config.json"] {
            let url = folder.appendingPathComponent(name)
            guard FileManager.default.fileExists(atPath: url.path) else { continue }
            let file = try JSONValue(contentsOf: url)
            guard let settings = name == "processor_config.json" ? file["image_processor"] : file else {
                continue
            }
            configuration.preprocessing = try Preprocessing(
                huggingFace: settings, imageSize: configuration.imageSize, path: url.path)
            return .file(name)
        }
        configuration.preprocessing = .transformersDefault
        notes.append(
            "no preprocessor_config.json: transformers' defaults are assumed (images squashed to the input size, "
                + "bilinear, mean and std 0.5)")
        return .assumed
    }

    /// The correspondence of names.
    struct Names {
        /// Whether the model's tensors begin with `vit.`.
        var hasPrefix: Bool
        /// Whether the blocks are `layers.N.attention.q_proj`, …
        var isNew: Bool
        var blockCount: Int

        init(hasPrefix: Bool) {
            self.hasPrefix = hasPrefix
            isNew = false
            blockCount = 0
        }

        init(_ source: any TensorSource) {
            let names = source.names
            hasPrefix = names.contains { $0.hasPrefix("vit.") }
            let prefix = hasPrefix ? "vit." : ""
            isNew = names.contains { $0.hasPrefix(prefix + "layers.") }
            let start = prefix + (isNew ? "layers." : "encoder.layer.")
            let blocks = names.filter { $0.hasPrefix(start) }.map {
                $0.dropFirst(start.count).prefix { $0 != "." }
            }
            blockCount = Set(blocks).count
        }

        /// The names here of timm's tensor, more than one for the fused query, key and value.
        func parts(of name: String) -> [String] {
            let prefix = hasPrefix ? "vit." : ""
            let whole = [
                "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
                "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
                "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
                "norm.weight": "layernorm.weight", "norm.bias": "layernorm.bias",
            ]
            if let name = whole[name] { return [prefix + name] }
            let words = name.split(separator: ".").map(String.init)
            guard words[0] == "blocks" else { return ["classifier." + words[1]] }
            let block = prefix + (isNew ? "layers." : "encoder.layer.") + words[1] + "."
            let kind = "." + words.last!
            let linear =
                switch words.dropFirst(2).dropLast().joined(separator: ".") {
                case "norm1": ["layernorm_before"]
                case "norm2": ["layernorm_after"]
                case "attn.qkv":
                    isNew
                        ? ["q", "k", "v"].map { "attention.\($0)_proj" }
                        : ["query", "key", "value"].map { "attention.attention.\($0)" }
                case "attn.proj": [isNew ? "attention.o_proj" : "attention.output.dense"]
                case "mlp.fc1": [isNew ? "mlp.fc1" : "intermediate.dense"]
                default: [isNew ? "mlp.fc2" : "output.dense"]
                }
            return linear.map { block + $0 + kind }
        }
    }
}
