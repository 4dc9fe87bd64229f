import Datasets
import Foundation
import ModelConfiguration
import TensorCore

/// timm's vision transformers: our own names, so reading them is checking them.
///
/// Sizes and parts come from the tensors, which can't be wrong about themselves; `config.json` must agree with them and
/// adds what no shape tells: heads, the activation, LayerNorm's ε, the pooling, mean and std. What its `model_args` don't say is
/// what the architecture's name means in timm (`TimmArchitectures`). timm itself has no argument for ε; `norm_eps` among the
/// `model_args` is what files carry whose ε their name doesn't mean.
enum TimmFormat {
    /// `origin` is the file that `config` is from.
    static func load(
        _ source: any TensorSource, config: JSONValue?, origin: String, heads: Int?, notes: [String]
    ) throws -> ViTCheckpoint {
        var notes = notes
        let path = source.path
        let name = architecture(config)
        if let difference = TimmArchitectures.difference(name) {
            throw CheckpointError(
                "\(path): config.json's architecture \(name) \(difference), which this program doesn't compute; "
                    + "use another model")
        }
        try source.refuseUnknownParts(
            except: [
                "gamma", "reg_token", "norm_pre", "attn_pool", "dist_token", "head_dist", "q_norm", "k_norm",
            ])
        let known = TimmArchitectures.known[name]
        let arguments = config?["model_args"]
        let stated = (config?["pretrained_cfg"] ?? config)?["input_size"]?.arrayValue?.last
        var configuration = try sizes(of: source, arguments, input: stated, known)
        if known == nil { try refuseNameless(source, arguments, config == nil ? nil : name) }
        try readPooling(source, config, known, name, into: &configuration, notes: &notes)
        try configuration.check(source: path)
        var classNames: [String]?
        var preprocessingOrigin = PreprocessingOrigin.assumed
        if let config {
            // A norm_layer of its own takes the name's ε away: timm's classes have 1e-6.
            let hasOwnNorm = arguments?["norm_layer"].map { $0 != .null } ?? false
            configuration.layerNormEpsilon = hasOwnNorm ? 1e-6 : known?.epsilon ?? 1e-6
            try readActivation(arguments, known, into: &configuration, path: path)
            try apply(arguments, isEva: known?.isEva == true, to: &configuration, path: path)
            try setHeads(arguments, known, name, heads, in: &configuration, path: path)
            if configuration.pooling == .attention {
                configuration.poolingHeads = known?.poolHeads ?? configuration.heads
            }
            if known == nil {
                let missing = ["num_heads", "act_layer", "norm_layer", "global_pool"]
                    .filter { arguments?[$0] == nil }
                guard name.isEmpty || name == "vision_transformer" || missing.isEmpty else {
                    throw CheckpointError(
                        "\(path): config.json's architecture '\(name)' isn't known, and its model_args don't say "
                            + "\(missing.joined(separator: ", ")); add what the model does to model_args")
                }
                notes.append(
                    "config.json's architecture \(name.isEmpty ? "isn't named" : "'\(name)' isn't known"): a plain ViT "
                        + "is assumed (LayerNorms before attention and MLP\(name.isEmpty ? ", exact GELU" : ""))"
                )
            }
            if try readPreprocessing(config, into: &configuration, path: path, notes: &notes) {
                preprocessingOrigin = .file(origin)
            }
            if configuration.classCount > 0 {
                classNames = try ClassNames.timm(config, count: configuration.classCount, path: path)
            }
        } else {
            guard heads != nil || configuration.width % 64 == 0 else {
                throw CheckpointError(
                    "\(path) has no config.json and a width of \(configuration.width), not a multiple of 64; "
                        + "give the number of heads")
            }
            configuration.heads = heads ?? configuration.width / 64
            notes.append(
                "no config.json: \(configuration.heads) heads\(heads == nil ? " (width / 64)" : ""), eps 1e-6, exact "
                    + "GELU, images squashed to the input size (bicubic) and ImageNet's mean and std are assumed"
            )
        }
        try configuration.check(source: path)
        let isHeadIgnored = configuration.classCount == 0
        let tensors = try TimmNames(source).read(source, configuration) {
            isPretraining($0)
                || isHeadIgnored
                    && ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"].contains($0)
        }
        noteLeftOut(source.names.filter(isPretraining), in: &notes)
        var checkpoint = try ViTCheckpoint(configuration: configuration, tensors: tensors, notes: notes)
        if known != nil { checkpoint.timmName = name }
        checkpoint.classNames = classNames
        checkpoint.preprocessingOrigin = preprocessingOrigin
        return checkpoint
    }

    /// Throws for parts beside which only the architecture's name says what no tensor shows: EVA's may be rotated, CLIP's activation is one
    /// of two.
    private static func refuseNameless(
        _ source: any TensorSource, _ arguments: JSONValue?, _ name: String?
    ) throws {
        let isStated = arguments?["act_layer"].map { $0 != .null } ?? false
        let parts =
            [
                "blocks.0.gamma_1", "blocks.0.attn.q_bias", "blocks.0.attn.q_proj.weight",
                "blocks.0.attn.norm.weight", "blocks.0.mlp.fc1_g.weight", "attn_pool.latent", "dist_token",
            ] + (isStated ? [] : ["norm_pre.weight"])
        guard let part = parts.first(where: { source.shape(of: $0) != nil }) else { return }
        throw CheckpointError(
            "\(source.path) holds '\(part)', and \(name.map { $0.isEmpty ? "config.json names no architecture" : "config.json's architecture '\($0)' isn't known" } ?? "there is no config.json"); "
                + "only timm's name of it says what the model does: put `architecture` into config.json")
    }

    /// The architecture's name without the tag of its weights (`.augreg_in21k`).
    private static func architecture(_ config: JSONValue?) -> String {
        String((config?["architecture"]?.stringValue ?? "").prefix { $0 != "." })
    }

    /// Whether a tensor is of a masked autoencoder's decoder, which fine-tuning doesn't run.
    private static func isPretraining(_ name: String) -> Bool {
        name == "mask_token" || name.hasPrefix("decoder_")
    }

    /// Says which tensors are left out as only pretraining uses them.
    static func noteLeftOut(_ names: [String], in notes: inout [String]) {
        guard let first = names.min() else { return }
        let others = names.count > 1 ? " and \(names.count - 1) more" : ""
        notes.append("left out, as only pretraining uses them: '\(first)'\(others)")
    }

    /// What the tensors' shapes tell; heads is left at 1.
    private static func sizes(
        of source: any TensorSource, _ arguments: JSONValue?, input: JSONValue?,
        _ known: TimmArchitectures.Settings?
    ) throws -> ViTConfiguration {
        let kernel = try source.shape(orThrow: "patch_embed.proj.weight", rank: 4)
        func has(_ name: String) -> Bool { source.shape(of: name) != nil }
        let last = try source.shape(orThrow: "blocks.0.mlp.fc2.weight", rank: 2)
        let isApart = has("blocks.0.mlp.fc1_g.weight")
        let first = try source.shape(orThrow: "blocks.0.mlp.\(isApart ? "fc1_g" : "fc1").weight", rank: 2)
        let classes = has("head.weight") ? try source.shape(orThrow: "head.weight", rank: 2)[0] : 0
        let blocks = source.names.compactMap { name -> Int? in
            let parts = name.split(separator: ".")
            return parts.count > 1 && parts[0] == "blocks" ? Int(parts[1]) : nil
        }
        let isDistilled = has("dist_token")
        let registers = isDistilled ? 1 : try source.count(ofTokens: "reg_token")
        let prefix = (has("cls_token") ? 1 : 0) + registers
        // Without a word from anybody the tokens in front have positions where the rest of the table is a square.
        let stated = arguments?["no_embed_class"]?.booleanValue
            .map { $0 ? ViTConfiguration.Positions.patches : .allTokens }
        var imageSize: Int
        var kind = ViTConfiguration.Positions.none
        if has("pos_embed") || known?.rotary == nil {
            let positions = try source.shape(orThrow: "pos_embed", rank: 3)[1]
            let onPatches = side(ofSquare: positions - prefix) == nil && side(ofSquare: positions) != nil
            kind = stated ?? known?.positions ?? (onPatches ? .patches : .allTokens)
            imageSize = try self.imageSize(
                positions: positions, prefix: kind == .patches ? 0 : prefix, patch: Array(kernel[2...]),
                path: source.path)
        } else {
            // Only the configuration says for which images a model without learned positions is.
            guard let size = (arguments?["img_size"].flatMap { $0.pair ?? $0 } ?? input)?.integerValue else {
                throw CheckpointError(
                    "\(source.path) has no positions, and config.json says no input size; add img_size to its model_args"
                )
            }
            guard kernel[2] == kernel[3] else {
                throw CheckpointError(
                    "\(source.path) has patches of \(kernel[2]) × \(kernel[3]) pixels; only square patches are supported"
                )
            }
            imageSize = size
        }
        // Not the highest index: a name like blocks.999999999 would cost memory before it is refused.
        var configuration = ViTConfiguration(
            imageSize: imageSize, patchSize: kernel[2], width: kernel[0], depth: Set(blocks).count, heads: 1,
            hiddenWidth: last[1], classCount: classes)
        configuration.channels = kernel[1]
        configuration.hasClassToken = has("cls_token")
        configuration.registers = registers
        configuration.positions = prefix == 0 && kind == .patches ? .allTokens : kind
        configuration.rotary = known?.rotary
        if let stated = arguments?["ref_feat_shape"], stated != .null,
            case .index(let offset, _)? = configuration.rotary?.coordinates
        {
            guard let side = (stated.pair ?? stated).integerValue, side > 0 else {
                throw CheckpointError(
                    "\(source.path): config.json says ref_feat_shape = \(stated.text()), which is no square grid; correct it"
                )
            }
            configuration.rotary?.coordinates = .index(offset: offset, reference: side)
        }
        configuration.patchBias = has("patch_embed.proj.bias")
        configuration.normBeforeBlocks = has("norm_pre.weight")
        configuration.layerScale = has("blocks.0.ls1.gamma") || has("blocks.0.gamma_1")
        configuration.norm = known?.norm ?? .layer
        configuration.attentionNorm = has("blocks.0.attn.norm.weight")
        configuration.queryKeyNorm = has("blocks.0.attn.q_norm.weight")
        configuration.queries = has("blocks.0.attn.q_proj.weight") ? .separate : .fused
        configuration.queryBias =
            has("blocks.0.attn.qkv.bias") || has("blocks.0.attn.k_proj.bias")
            ? .all : has("blocks.0.attn.q_bias") || has("blocks.0.attn.q_proj.bias") ? .withoutKeys : .none
        let isPacked = !isApart && first[0] % 2 == 0 && first[0] / 2 == last[1]
        if isApart || isPacked {
            configuration.feedForward = .gated(
                .silu, isPacked: isPacked, hasNorm: has("blocks.0.mlp.norm.weight"))
        }
        return configuration
    }

    /// The image size of a square grid of positions and a patch [height, width]. Throws when either is no square.
    static func imageSize(positions: Int, prefix: Int, patch: [Int], path: String) throws -> Int {
        guard patch[0] == patch[1] else {
            throw CheckpointError(
                "\(path) has patches of \(patch[0]) × \(patch[1]) pixels; only square patches are supported")
        }
        guard let side = side(ofSquare: positions - prefix) else {
            let front =
                prefix == 0
                ? "" : prefix == 1 ? " and a class token" : " and \(prefix) tokens in front of them"
            throw CheckpointError(
                "\(path) has \(positions) positions, not a square of patches\(front); only square images are supported"
            )
        }
        let (size, overflow) = side.multipliedReportingOverflow(by: patch[0])
        guard !overflow else {
            throw CheckpointError("\(path) has patches of \(patch[0]) pixels; check the file")
        }
        return size
    }

    /// The side of a square of `count`; nil when there is none.
    static func side(ofSquare count: Int) -> Int? {
        guard count > 0 else { return nil }
        let side = Int(Double(count).squareRoot().rounded())
        return side &* side == count ? side : nil
    }

    private static func readPooling(
        _ source: any TensorSource, _ config: JSONValue?, _ known: TimmArchitectures.Settings?,
        _ name: String, into configuration: inout ViTConfiguration, notes: inout [String]
    ) throws {
        let path = source.path
        let hasNormAfterMean = source.shape(of: "fc_norm.weight") != nil
        let argument = config?["model_args"]?["global_pool"]
        let stated = argument ?? config?["global_pool"]
        var standard = known?.pooling ?? (configuration.hasClassToken ? "token" : "avg")
        if hasNormAfterMean { standard = "avg" }
        guard let pooling = stated == nil ? standard : stated?.stringValue else {
            throw CheckpointError(
                "\(path): config.json says global_pool = \(stated!.text()), which is no name; correct it")
        }
        // timm's own reader takes the word at the top for information, and builds what the name means.
        guard argument != nil || known == nil || pooling == standard || pooling.isEmpty else {
            throw CheckpointError(
                "\(path): config.json says global_pool = '\(pooling)', but \(name) reads '\(standard)' unless "
                    + "model_args say otherwise; put global_pool there")
        }
        if pooling.isEmpty, configuration.classCount > 0 {
            configuration.classCount = 0
            notes.append(
                "global_pool is empty: the head, which would classify every token, is left out, and '\(standard)' is "
                    + "read")
        } else if pooling.isEmpty {
            notes.append("global_pool is empty: '\(standard)' is read")
        }
        let hasNorm = known?.hasFinalNorm ?? true
        configuration.poolsPrefix = known?.poolsPrefix ?? false
        switch (pooling.isEmpty ? standard : pooling, hasNormAfterMean) {
        case ("token", false):
            configuration.pooling =
                source.shape(of: "dist_token") != nil
                ? .classTokenAndSecond : hasNorm ? .classToken : .classTokenBeforeNorm
        case ("avg", false): configuration.pooling = hasNorm ? .meanAfterNorm : .mean
        case ("map", false) where source.shape(of: "attn_pool.latent") != nil:
            configuration.pooling = .attention
        case ("avg", true): configuration.pooling = .meanBeforeNorm
        default:
            throw CheckpointError(
                "\(path): the pooling '\(pooling)'\(hasNormAfterMean ? " with fc_norm" : "") is not supported; "
                    + "use a model with token, avg or map")
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

extension TensorSource {
    /// The tokens of [1, R, D]; 0 without the tensor. Throws for more than any model has.
    func count(ofTokens name: String) throws -> Int {
        guard shape(of: name) != nil else { return 0 }
        let count = try shape(orThrow: name, rank: 3)[1]
        guard count <= 1 << 16 else {
            throw CheckpointError(
                "\(path): tensor '\(name)' has \(count) tokens, more than any model; check the file")
        }
        return count
    }
}

extension ViTCheckpoint {
    /// A model of timm's from tensors in memory and its `config.json`. Throws `CheckpointError` as `load`, naming `path`.
    package static func timm(_ tensors: [String: HostTensor], path: String, config: JSONValue) throws
        -> ViTCheckpoint
    {
        try TimmFormat.load(
            MemorySource(path: path, tensors: tensors), config: config, origin: path, heads: nil, notes: [])
    }
}

private struct MemorySource: TensorSource {
    let path: String
    let tensors: [String: HostTensor]
    var names: [String] { tensors.keys.sorted() }
    func shape(of name: String) -> [Int]? { tensors[name]?.shape }
    func tensor(_ name: String) throws -> HostTensor { tensors[name]! }
}
