import Foundation
import TensorCore

/// timm's vision transformers: our own names, so reading them is checking them.
///
/// Sizes come from the tensors, which can't be wrong about themselves; `config.json` must agree with them and
/// adds what no shape tells: heads, LayerNorm's ε, the pooling, mean and std. timm itself has no argument for ε;
/// `norm_eps` among the `model_args` is what files with another ε than timm's 1e-6 carry.
enum TimmFormat {
    static func load(_ source: any TensorSource, config: JSONValue?, heads: Int?) throws -> ViTCheckpoint {
        try source.refuseUnknownParts()
        var notes: [String] = []
        var configuration = try sizes(of: source)
        configuration.pooling = try pooling(source, config)
        try configuration.check(source: source.path)
        if let config {
            let arguments = config["model_args"]
            try apply(arguments, to: &configuration, path: source.path)
            let architecture = config["architecture"]?.stringValue ?? ""
            // SigLIP's versions differ in their GELU, which no tensor shows.
            guard arguments != nil || !architecture.contains("siglip") else {
                throw CheckpointError("\(source.path): \(architecture) is not supported; use a plain ViT")
            }
            try setHeads(arguments, architecture, heads, in: &configuration, path: source.path)
            // Older files have the members of pretrained_cfg at the top.
            let pretrained = config["pretrained_cfg"] ?? config
            if let mean = pretrained["mean"]?.floats, let deviation = pretrained["std"]?.floats {
                (configuration.preprocessing.mean, configuration.preprocessing.std) = (mean, deviation)
            } else {
                notes.append("config.json gives no mean and std: ImageNet's are assumed")
            }
        } else {
            guard heads != nil || configuration.width % 64 == 0 else {
                throw CheckpointError(
                    "\(source.path) has no config.json and a width of \(configuration.width), not a multiple of 64; "
                        + "give the number of heads")
            }
            configuration.heads = heads ?? configuration.width / 64
            notes.append(
                "no config.json: \(configuration.heads) heads\(heads == nil ? " (width / 64)" : ""), eps 1e-6 and "
                    + "ImageNet's mean and std are assumed")
        }
        try configuration.check(source: source.path)
        let recipes = configuration.tensorShapes.map { name, shape in
            (name, TensorRecipe(shape: shape, parts: [(name, shape)]))
        }
        let tensors = try source.read(Dictionary(uniqueKeysWithValues: recipes), ignored: { _ in false })
        return try ViTCheckpoint(configuration: configuration, tensors: tensors, notes: notes)
    }

    /// What the tensors' shapes tell; heads is left at 1.
    private static func sizes(of source: any TensorSource) throws -> ViTConfiguration {
        let kernel = try source.shape(orThrow: "patch_embed.proj.weight", rank: 4)
        let positions = try source.shape(orThrow: "pos_embed", rank: 3)
        let hidden = try source.shape(orThrow: "blocks.0.mlp.fc1.weight", rank: 2)
        let hasClassToken = source.shape(of: "cls_token") != nil
        let classes =
            source.shape(of: "head.weight") == nil ? 0 : try source.shape(orThrow: "head.weight", rank: 2)[0]
        let blocks = source.names.compactMap { name -> Int? in
            let parts = name.split(separator: ".")
            return parts.count > 1 && parts[0] == "blocks" ? Int(parts[1]) : nil
        }
        // Not the highest index: a name like blocks.999999999 would cost memory before it is refused.
        var configuration = ViTConfiguration(
            imageSize: try imageSize(
                tokens: positions[1], hasClassToken: hasClassToken, patchSize: kernel[2], path: source.path),
            patchSize: kernel[2], width: kernel[0], depth: Set(blocks).count, heads: 1,
            hiddenWidth: hidden[0],
            classCount: classes)
        configuration.channels = kernel[1]
        configuration.hasClassToken = hasClassToken
        configuration.qkvBias = source.shape(of: "blocks.0.attn.qkv.bias") != nil
        return configuration
    }

    /// The image size of a square grid of positions. Throws when there is no such grid.
    static func imageSize(tokens: Int, hasClassToken: Bool, patchSize: Int, path: String) throws -> Int {
        let patches = tokens - (hasClassToken ? 1 : 0)
        let side = Int(Double(max(patches, 0)).squareRoot().rounded())
        guard patches > 0, side * side == patches else {
            throw CheckpointError(
                "\(path) has \(tokens) positions, not a square of patches\(hasClassToken ? " and a class token" : ""); "
                    + "only square images are supported")
        }
        let (size, overflow) = side.multipliedReportingOverflow(by: patchSize)
        guard !overflow else {
            throw CheckpointError("\(path) has patches of \(patchSize) pixels; check the file")
        }
        return size
    }

    private static func pooling(_ source: any TensorSource, _ config: JSONValue?) throws
        -> ViTConfiguration.Pooling
    {
        let hasNormAfterMean = source.shape(of: "fc_norm.weight") != nil
        let standard = hasNormAfterMean || source.shape(of: "cls_token") == nil ? "avg" : "token"
        let name = (config?["model_args"]?["global_pool"] ?? config?["global_pool"])?.stringValue ?? standard
        switch (name, hasNormAfterMean) {
        case ("token", false): return .classToken
        case ("avg", false): return .meanAfterNorm
        case ("avg", true): return .meanBeforeNorm
        default:
            throw CheckpointError(
                "\(source.path): the pooling '\(name)'\(hasNormAfterMean ? " with fc_norm" : "") is not supported; "
                    + "use a model with token or avg")
        }
    }

    // MARK: config.json

    /// Arguments that change nothing in a forward pass without dropout.
    private static let harmless: Set<String> = [
        "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate",
        "weight_init", "fix_init", "dynamic_img_size", "dynamic_img_pad", "strict_img_size", "global_pool",
        "num_heads",
    ]

    private static func apply(_ arguments: JSONValue?, to configuration: inout ViTConfiguration, path: String)
        throws
    {
        let ratio = Double(configuration.hiddenWidth) / Double(configuration.width)
        let usual: [String: [JSONValue]] = [
            "img_size": [.integer(configuration.imageSize)],
            "patch_size": [.integer(configuration.patchSize)],
            "in_chans": [.integer(configuration.channels)],
            "num_classes": [.integer(configuration.classCount)],
            "embed_dim": [.integer(configuration.width)], "depth": [.integer(configuration.depth)],
            "mlp_ratio": [.number(ratio)], "qkv_bias": [.boolean(configuration.qkvBias)],
            "class_token": [.boolean(configuration.hasClassToken)],
            "fc_norm": [.boolean(configuration.pooling == .meanBeforeNorm)],
            "pos_embed": ["learn"], "final_norm": [true], "proj_bias": [true], "act_layer": ["gelu"],
            "norm_layer": ["layernorm"],
        ]
        for (name, value) in arguments?.objectValue ?? [:] where !harmless.contains(name) && value != .null {
            if name == "norm_eps", let epsilon = value.numberValue {
                configuration.layerNormEpsilon = Float(epsilon)
                continue
            }
            let scalar = value.pair ?? value
            guard let expected = usual[name] else {
                // Switches of timm that are off ask for nothing.
                if scalar == false || scalar == 0 || scalar == 0.0 || scalar == "" { continue }
                throw CheckpointError(
                    "\(path): config.json asks for \(name) = \(value.text()), which is not supported")
            }
            // int(width × ratio) is what timm computes, so a rounded ratio is right too.
            let isRatio =
                name == "mlp_ratio"
                && scalar.numberValue.map { (Double(configuration.width) * $0).rounded(.down) }
                    == Double(configuration.hiddenWidth)
            guard isRatio || expected.contains(scalar) else {
                throw CheckpointError(
                    "\(path): config.json says \(name) = \(value.text()), but the tensors say \(expected[0].text()); "
                        + "the two don't belong together")
            }
        }
    }

    private static func setHeads(
        _ arguments: JSONValue?, _ architecture: String, _ given: Int?,
        in configuration: inout ViTConfiguration,
        path: String
    ) throws {
        // timm's huge and larger models, and one other, have 16 heads at every width; the rest heads of 64.
        let has16 = ["huge", "giant", "gigantic", "so400m", "vit_base_patch16_gap"].contains(
            where: architecture.contains)
        if let heads = arguments?["num_heads"]?.integerValue {
            configuration.heads = heads
        } else if architecture.hasPrefix("vit_") || architecture.hasPrefix("deit"),
            has16 || configuration.width % 64 == 0
        {
            configuration.heads = has16 ? 16 : configuration.width / 64
        } else if let given {
            configuration.heads = given
        } else {
            throw CheckpointError(
                "\(path): config.json doesn't tell the number of heads of '\(architecture)'; give the number of heads"
            )
        }
        guard given == nil || given == configuration.heads else {
            throw CheckpointError(
                "\(path): \(given!) heads were asked for, but config.json says \(configuration.heads); leave it out"
            )
        }
    }
}

extension JSONValue {
    /// The numbers of an array of numbers.
    var floats: [Float]? {
        guard let values = arrayValue, values.allSatisfy({ $0.numberValue != nil }) else { return nil }
        return values.map { Float($0.numberValue!) }
    }

    /// The one value of an array like [224, 224].
    var pair: JSONValue? {
        guard let values = arrayValue, let first = values.first, values.allSatisfy({ $0 == first }) else {
            return nil
        }
        return first
    }
}
