import Foundation
import TensorCore

extension ViTCheckpoint {
    /// Writes timm's form: the file `url` when its name ends in `.safetensors`, else a folder with
    /// `model.safetensors` and `config.json` (`timm.create_model("local-dir:FOLDER", pretrained=True)` loads it).
    ///
    /// A single file carries the same JSON in its metadata under `config`, so that `load` knows heads, ε, mean and
    /// std; `metadata` is added to it. Throws `CheckpointError` as `AtomicFile` and `writeSafetensors`.
    public func saveTimm(to url: URL, metadata: [String: String] = [:], float16: Bool = false) throws {
        // transformers and timm refuse files that don't say which framework's layout they have.
        var metadata = metadata.merging(["format": "pt"]) { $1 }
        guard url.pathExtension != "safetensors" else {
            metadata["config"] = timmConfig.text()
            return try writeSafetensors(tensors, to: url, metadata: metadata, float16: float16)
        }
        try AtomicFile.createFolder(url)
        try writeSafetensors(
            tensors, to: url.appendingPathComponent("model.safetensors"), metadata: metadata, float16: float16
        )
        try AtomicFile.write(
            timmConfig.text(indented: true) + "\n", to: url.appendingPathComponent("config.json"))
    }

    /// `config.json` in timm's form.
    var timmConfig: JSONValue {
        let c = configuration
        let pooling = c.pooling == .classToken ? "token" : "avg"
        var arguments: [String: JSONValue] = [
            "img_size": .integer(c.imageSize), "patch_size": .integer(c.patchSize),
            "embed_dim": .integer(c.width),
            "depth": .integer(c.depth), "num_heads": .integer(c.heads),
            "mlp_ratio": .number(mlpRatio), "qkv_bias": .boolean(c.qkvBias),
            "class_token": .boolean(c.hasClassToken), "global_pool": .string(pooling),
            "fc_norm": .boolean(c.pooling == .meanBeforeNorm),
        ]
        // timm's own ε needs no saying; another one timm can't be told, so it had better stop at the word.
        if c.layerNormEpsilon != 1e-6 { arguments["norm_eps"] = .number(shortest(c.layerNormEpsilon)) }
        return [
            // Any registered name does, as model_args says everything.
            "architecture": "vit_base_patch16_224", "num_classes": .integer(c.classCount),
            "num_features": .integer(c.width), "global_pool": .string(pooling),
            "model_args": .object(arguments),
            "pretrained_cfg": [
                "input_size": [3, .integer(c.imageSize), .integer(c.imageSize)], "fixed_input_size": true,
                "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash",
                "mean": .array(c.preprocessing.mean.map { .number(shortest($0)) }),
                "std": .array(c.preprocessing.std.map { .number(shortest($0)) }),
                "num_classes": .integer(c.classCount), "first_conv": "patch_embed.proj", "classifier": "head",
            ],
        ]
    }

    /// A ratio whose product with the width, rounded down, is the hidden width: what timm computes.
    private var mlpRatio: Double {
        let ratio = Double(configuration.hiddenWidth) / Double(configuration.width)
        return Int(ratio * Double(configuration.width)) == configuration.hiddenWidth ? ratio : ratio.nextUp
    }

    /// Writes a Hugging Face folder: `config.json`, `model.safetensors`, `preprocessor_config.json`, a
    /// `ViTForImageClassification` with `classNames` (LABEL_0, … without them), or a `ViTModel` without a head.
    ///
    /// Throws `CheckpointError` for models that it can't express (no class token, mean pooling) and as `saveTimm`.
    public func saveHuggingFace(to folder: URL, classNames: [String]? = nil, float16: Bool = false) throws {
        let c = configuration
        guard c.hasClassToken, c.pooling == .classToken else {
            throw CheckpointError(
                "cannot write \(folder.path): Hugging Face's ViT reads the class token, this model the mean; "
                    + "write timm's form")
        }
        precondition(classNames == nil || classNames!.count == c.classCount)
        let names = HuggingFaceFormat.Names(hasPrefix: c.classCount > 0)
        var renamed: [String: HostTensor] = [:]
        for (name, tensor) in tensors {
            let parts = names.parts(of: name)
            let count = tensor.values.count / parts.count
            var shape = tensor.shape
            shape[0] /= parts.count
            for (index, part) in parts.enumerated() {
                renamed[part] = HostTensor(
                    shape: shape, values: Array(tensor.values[index * count..<(index + 1) * count]))
            }
        }
        let labels = classNames ?? (0..<c.classCount).map { "LABEL_\($0)" }
        let pairs = labels.enumerated()
        var config: [String: JSONValue] = [
            "architectures": [c.classCount > 0 ? "ViTForImageClassification" : "ViTModel"],
            "model_type": "vit",
            "hidden_size": .integer(c.width), "num_hidden_layers": .integer(c.depth),
            "num_attention_heads": .integer(c.heads), "intermediate_size": .integer(c.hiddenWidth),
            "hidden_act": "gelu", "layer_norm_eps": .number(shortest(c.layerNormEpsilon)),
            "image_size": .integer(c.imageSize), "patch_size": .integer(c.patchSize), "num_channels": 3,
            "qkv_bias": .boolean(c.qkvBias), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        ]
        if c.classCount > 0 {
            config["id2label"] = .object(
                Dictionary(uniqueKeysWithValues: pairs.map { ("\($0)", .string($1)) }))
            config["label2id"] = .object(Dictionary(pairs.map { ($1, .integer($0)) }) { first, _ in first })
        }
        let preprocessing: JSONValue = [
            "image_processor_type": "ViTImageProcessor", "do_normalize": true, "do_rescale": true,
            "do_resize": true,
            "image_mean": .array(c.preprocessing.mean.map { .number(shortest($0)) }),
            "image_std": .array(c.preprocessing.std.map { .number(shortest($0)) }),
            // 3 is Pillow's number of its bicubic filter.
            "resample": 3, "rescale_factor": .number(1.0 / 255),
            "size": ["height": .integer(c.imageSize), "width": .integer(c.imageSize)],
        ]
        try AtomicFile.createFolder(folder)
        func file(_ name: String) -> URL { folder.appendingPathComponent(name) }
        try writeSafetensors(
            renamed, to: file("model.safetensors"), metadata: ["format": "pt"], float16: float16)
        try AtomicFile.write(preprocessing.text(indented: true) + "\n", to: file("preprocessor_config.json"))
        try AtomicFile.write(JSONValue.object(config).text(indented: true) + "\n", to: file("config.json"))
    }
}

/// The double that prints as the float does: 0.485, not 0.48500001430511475.
private func shortest(_ value: Float) -> Double { Double("\(value)")! }
