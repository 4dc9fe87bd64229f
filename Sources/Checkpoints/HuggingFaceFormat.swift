import Foundation
import TensorCore

/// Hugging Face's `ViTModel` (no prefix) and `ViTForImageClassification` (prefix `vit.`, head `classifier`), in the
/// names of transformers up to 4 (which 5 still writes) or in 5's own.
enum HuggingFaceFormat {
    static func load(
        _ source: any TensorSource, config: JSONValue, folder: URL, heads: Int?
    ) throws -> ViTCheckpoint {
        let type = config["model_type"]?.stringValue ?? ""
        guard type == "vit" else {
            throw CheckpointError(
                "\(folder.path): models of type '\(type)' are not supported; use a plain ViT (type vit)")
        }
        guard ["gelu", nil].contains(config["hidden_act"]?.stringValue) else {
            throw CheckpointError(
                "\(folder.path): hidden_act \(config["hidden_act"]!.text()) is not supported; only gelu is")
        }
        try source.refuseUnknownParts()
        let names = Names(source)
        var notes: [String] = []
        var configuration = try sizes(source, names, config)
        let path = folder.appendingPathComponent("config.json").path
        configuration.heads = config["num_attention_heads"]?.integerValue ?? 12
        guard heads == nil || heads == configuration.heads else {
            throw CheckpointError(
                "\(path) says \(configuration.heads) heads, not \(heads!); leave the number out")
        }
        configuration.layerNormEpsilon = Float(config["layer_norm_eps"]?.numberValue ?? 1e-12)
        try readPreprocessing(folder, into: &configuration, notes: &notes)
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
        let tensors = try source.read(recipes) {
            $0.contains("pooler.") || $0.hasSuffix("embeddings.mask_token")
        }
        return try ViTCheckpoint(configuration: configuration, tensors: tensors, notes: notes)
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
                tokens: tokens, hasClassToken: true, patchSize: kernel[2], path: source.path),
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
        return configuration
    }

    private static func readPreprocessing(
        _ folder: URL, into configuration: inout ViTConfiguration, notes: inout [String]
    ) throws {
        (configuration.preprocessing.mean, configuration.preprocessing.std) = (
            [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]
        )
        let url = folder.appendingPathComponent("preprocessor_config.json")
        guard FileManager.default.fileExists(atPath: url.path) else {
            notes.append("no preprocessor_config.json: mean and std 0.5 are assumed")
            return
        }
        let settings = try JSONValue(contentsOf: url)
        if settings["do_normalize"] == false {
            (configuration.preprocessing.mean, configuration.preprocessing.std) = ([0, 0, 0], [1, 1, 1])
        } else if let mean = settings["image_mean"]?.floats, let deviation = settings["image_std"]?.floats {
            (configuration.preprocessing.mean, configuration.preprocessing.std) = (mean, deviation)
        }
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
