import Datasets
import Foundation
import TensorCore

extension ViTCheckpoint {
    /// Writes timm's form: the file `url`, or that it is a symbolic link to, when its name ends in `.safetensors`, else a folder with
    /// `model.safetensors` and `config.json` (`timm.create_model("local-dir:FOLDER", pretrained=True)` loads it).
    ///
    /// Returns what the reader will do otherwise, a sentence each. A single file carries the same JSON in its metadata under `config`, so that `load` knows heads, ε, mean and
    /// std; `metadata` is added to it. Throws `CheckpointError` as `AtomicFile` and `writeSafetensors`, when there are
    /// not as many `classNames` as classes, and for images that aren't resized, which timm can't be told.
    @discardableResult
    public func saveTimm(to url: URL, metadata: [String: String] = [:], float16: Bool = false) throws
        -> [String]
    {
        let config = try timmConfig
        // transformers and timm refuse files that don't say which framework's layout they have.
        var metadata = metadata.merging(["format": "pt"]) { $1 }
        guard url.pathExtension != "safetensors" else {
            metadata["config"] = config.text()
            try writeSafetensors(
                tensors, to: url.resolvingSymlinksInPath(), metadata: metadata, float16: float16)
            return timmNotes
        }
        try AtomicFile.createFolder(url)
        try writeSafetensors(
            tensors, to: url.appendingPathComponent("model.safetensors"), metadata: metadata, float16: float16
        )
        try AtomicFile.write(
            config.text(indented: true) + "\n", to: url.appendingPathComponent("config.json"))
        return timmNotes
    }

    /// What timm does otherwise.
    private var timmNotes: [String] {
        let epsilon = configuration.layerNormEpsilon
        let notes = cropNotes(.rounded, by: "timm")
        guard epsilon != 1e-6 else { return notes }
        return notes + [
            "timm's LayerNorms have an eps of 1e-6 and it refuses the model_args' norm_eps, \(epsilon), which this program "
                + "reads; to load the model there, remove the word or write Hugging Face's form (`format hf`)"
        ]
    }

    /// What to say when the model's own cut of the centre isn't that of the format's reader: `crop`.
    private func cropNotes(_ crop: Preprocessing.Crop, by reader: String) -> [String] {
        let preprocessing = configuration.preprocessing
        guard preprocessing.crop != .none, preprocessing.crop != crop,
            preprocessing.resize != .squash || hasOddCut
        else { return [] }
        return ["\(reader) may cut the centre of an image out one pixel from where this model did"]
    }

    /// Whether rounding and truncating half of what is cut off differ: 3 / 2 is 2 or 1, but 1 / 2 is 0 or 0.
    private var hasOddCut: Bool {
        let side = configuration.preprocessing.side.map { Int($0) } ?? configuration.imageSize
        return (side - configuration.imageSize) % 4 == 3
    }

    /// Throws when there aren't as many names as classes.
    private func checkClassNames() throws {
        guard let classNames, classNames.count != configuration.classCount else { return }
        throw CheckpointError(
            "the model has \(configuration.classCount) classes, but \(classNames.count) names; name every class"
        )
    }

    /// `config.json` in timm's form.
    private var timmConfig: JSONValue {
        get throws {
            try checkClassNames()
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
            var pretrained: [String: JSONValue] = [
                "input_size": [3, .integer(c.imageSize), .integer(c.imageSize)], "fixed_input_size": true,
                "num_classes": .integer(c.classCount), "first_conv": "patch_embed.proj", "classifier": "head",
            ]
            pretrained.merge(try c.preprocessing.timm(imageSize: c.imageSize)) { $1 }
            var config: [String: JSONValue] = [
                // Any registered name does, as model_args says everything.
                "architecture": "vit_base_patch16_224", "num_classes": .integer(c.classCount),
                "num_features": .integer(c.width), "global_pool": .string(pooling),
                "model_args": .object(arguments),
                "pretrained_cfg": .object(pretrained),
            ]
            if let classNames { config["label_names"] = .array(classNames.map { .string($0) }) }
            return .object(config)
        }
    }

    /// A ratio whose product with the width, rounded down, is the hidden width: what timm computes.
    private var mlpRatio: Double {
        let ratio = Double(configuration.hiddenWidth) / Double(configuration.width)
        return Int(ratio * Double(configuration.width)) == configuration.hiddenWidth ? ratio : ratio.nextUp
    }

    /// Writes a Hugging Face folder: `config.json`, `model.safetensors`, `preprocessor_config.json`, a
    /// `ViTForImageClassification` with `classNames` (LABEL_0, … without them), or a `ViTModel` without a head.
    /// Returns what transformers will do otherwise, a sentence each.
    ///
    /// Throws `CheckpointError` for models that it can't express (no class token, mean pooling), when there are not
    /// as many `classNames` as classes, and as `AtomicFile` and `writeSafetensors`.
    @discardableResult
    public func saveHuggingFace(to folder: URL, float16: Bool = false) throws -> [String] {
        try checkClassNames()
        let c = configuration
        guard c.hasClassToken, c.pooling == .classToken else {
            throw CheckpointError(
                "cannot write \(folder.path): Hugging Face's ViT reads the class token, this model the mean; "
                    + "write timm's form")
        }
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
        let pairs = (classNames ?? ClassNames.generic(c.classCount)).enumerated()
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
            // Of classes that share a name, the first.
            config["label2id"] = .object(Dictionary(pairs.map { ($1, .integer($0)) }) { first, _ in first })
        }
        let preprocessing = c.preprocessing.huggingFace(imageSize: c.imageSize)
        try AtomicFile.createFolder(folder)
        func file(_ name: String) -> URL { folder.appendingPathComponent(name) }
        try writeSafetensors(
            renamed, to: file("model.safetensors"), metadata: ["format": "pt"], float16: float16)
        try AtomicFile.write(preprocessing.text(indented: true) + "\n", to: file("preprocessor_config.json"))
        try AtomicFile.write(JSONValue.object(config).text(indented: true) + "\n", to: file("config.json"))
        return cropNotes(.truncated, by: "transformers")
    }
}
