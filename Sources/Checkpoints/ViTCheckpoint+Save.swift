import Datasets
import Foundation
import ModelConfiguration
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
        let names = TimmNames(
            isEva: timmArchitecture.means.isEva, isDistilled: configuration.pooling == .classTokenAndSecond)
        let tensors = try names.written(tensors, configuration)
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
        guard epsilon != timmArchitecture.means.epsilon else { return notes }
        return notes + [
            "timm's LayerNorms have an eps of \(timmArchitecture.means.epsilon) and it refuses the model_args' norm_eps, \(epsilon), which this program "
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
            let pooling =
                switch c.pooling {
                case .classToken, .classTokenAndSecond, .classTokenBeforeNorm: "token"
                case .attention: "map"
                default: "avg"
                }
            let architecture = timmArchitecture
            let means = architecture.means
            guard c.pooling != .classTokenAndMean, c.hasFinalNorm || !means.hasFinalNorm else {
                throw CheckpointError(
                    "timm's head can't read \(c.hasFinalNorm ? "class token and mean together" : "tokens before the last LayerNorm"); "
                        + "write Hugging Face's form (`format hf`)")
            }
            // Parts that no argument of a plain ViT's asks for come with the name that was read.
            let isOther =
                c.rotary != nil || c.queries != .fused || c.queryBias == .withoutKeys || c.attentionNorm
                || c.norm != .layer || c.positions == .none || c.pooling == .attention
                || c.pooling == .classTokenAndSecond || !c.hasFinalNorm || c.feedForward.isGated
            let isMeant =
                timmName != nil
                || means.rotary == c.rotary && c.pooling == .classToken && c.hasFinalNorm
                    && c.queries == .fused && !c.attentionNorm && !c.hasHiddenNorm && c.norm == .layer
                    && (c.rotary != nil || c.registers == 0 || c.registers == 4)
            guard !isOther || isMeant else {
                throw CheckpointError(
                    "timm's form can't be written: no file said which of timm's architectures has these parts; write Hugging "
                        + "Face's form (`format hf`)")
            }
            var arguments: [String: JSONValue] = [
                "img_size": .integer(c.imageSize), "patch_size": .integer(c.patchSize),
                "embed_dim": .integer(c.width),
                "depth": .integer(c.depth), "num_heads": .integer(c.heads),
                "mlp_ratio": .number(mlpRatio), "qkv_bias": .boolean(c.qkvBias),
                "class_token": .boolean(c.hasClassToken), "global_pool": .string(pooling),
                "fc_norm": .boolean(c.pooling == .meanBeforeNorm),
            ]
            if isOther || means.isEva {
                for key in ["qkv_bias", "class_token", "fc_norm"] { arguments[key] = nil }
            }
            if means.isEva { arguments["num_reg_tokens"] = .integer(c.registers) }
            // What a plain ViT has needs no saying: older versions of timm don't know the words.
            if c.layerScale, !isOther { arguments["init_values"] = 1e-5 }
            if c.registers > 0, !isOther { arguments["reg_tokens"] = .integer(c.registers) }
            if c.prefixCount > 0, !isOther,
                (c.positions == .patches) || architecture.means.positions == .patches
            {
                arguments["no_embed_class"] = .boolean(c.positions == .patches)
            }
            if !isOther, c.normBeforeBlocks || architecture.name.contains("clip") {
                arguments["pre_norm"] = .boolean(c.normBeforeBlocks)
            }
            if !isOther, c.feedForward.activation != architecture.means.activation {
                arguments["act_layer"] = .string(TimmFormat.activations.key(of: c.feedForward.activation))
            }
            if c.queryKeyNorm { arguments["qk_norm"] = true }
            // The name's own ε needs no saying; another one timm can't be told, so it had better stop at the word.
            if c.layerNormEpsilon != architecture.means.epsilon {
                arguments["norm_eps"] = .number(shortest(c.layerNormEpsilon))
            }
            var pretrained: [String: JSONValue] = [
                "input_size": [3, .integer(c.imageSize), .integer(c.imageSize)], "fixed_input_size": true,
                "num_classes": .integer(c.classCount), "first_conv": "patch_embed.proj", "classifier": "head",
            ]
            pretrained.merge(try c.preprocessing.timm(imageSize: c.imageSize)) { $1 }
            var config: [String: JSONValue] = [
                // Any registered name does that has the ε, as model_args says everything else.
                "architecture": .string(architecture.name), "num_classes": .integer(c.classCount),
                "num_features": .integer(c.width), "global_pool": .string(pooling),
                "model_args": .object(arguments),
                "pretrained_cfg": .object(pretrained),
            ]
            if let classNames { config["label_names"] = .array(classNames.map { .string($0) }) }
            return .object(config)
        }
    }

    /// The registered name that is written, and what it means where model_args don't say otherwise.
    private var timmArchitecture: (name: String, means: TimmArchitectures.Settings) {
        let name = timmName ?? usualName
        return (name, TimmArchitectures.known[name]!)
    }

    /// A registered name for a model that no file of timm's gave one.
    private var usualName: String {
        let c = configuration
        if c.rotary != nil {
            let size = c.feedForward.isGated ? "huge_plus" : "base"
            return "vit_\(size)_patch16_dinov3\(c.queryBias == .withoutKeys ? "_qkvb" : "")"
        }
        if c.layerScale, c.feedForward.isGated {
            return "vit_giant_patch14_\(c.registers > 0 ? "reg4_" : "")dinov2"
        }
        return c.layerNormEpsilon == 1e-5 ? "vit_base_patch16_clip_224" : "vit_base_patch16_224"
    }

    /// A ratio whose product with the width, rounded down, is what timm takes for the hidden width: in `VisionTransformer` that of gate
    /// and values together.
    private var mlpRatio: Double {
        let isBoth = configuration.feedForward.isGated && !timmArchitecture.means.isEva
        let hidden = configuration.hiddenWidth * (isBoth ? 2 : 1)
        let ratio = Double(hidden) / Double(configuration.width)
        return Int(ratio * Double(configuration.width)) == hidden ? ratio : ratio.nextUp
    }

    /// Writes a Hugging Face folder: `config.json`, `model.safetensors`, `preprocessor_config.json`, a model of the class that computes
    /// this (`ViTForImageClassification`, `Dinov2ForImageClassification`, …) with `classNames` (LABEL_0, … without them), or of the
    /// one without a head. Returns what transformers will do otherwise, a sentence each.
    ///
    /// Throws `CheckpointError` for models that no class computes, when there are not as many `classNames` as classes, and as
    /// `AtomicFile` and `writeSafetensors`.
    @discardableResult
    public func saveHuggingFace(to folder: URL, float16: Bool = false) throws -> [String] {
        try checkClassNames()
        let c = configuration
        let form = try HuggingFaceForm(c, folder: folder)
        let renamed = try form.names.written(tensors, c).merging(form.unread) { own, _ in own }
        let pairs = (classNames ?? ClassNames.generic(c.classCount)).enumerated()
        var config = form.config
        config["problem_type"] = problemType.map { .string($0) }
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
