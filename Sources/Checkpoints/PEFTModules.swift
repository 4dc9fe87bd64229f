import ModelConfiguration
import TensorCore

/// A vision transformer's modules by the names that PEFT saw them under: timm's, timm's in Hugging Face's wrapper, or Hugging
/// Face's of transformers 4 or 5, with the prefix `vit.` or without.
struct PEFTModules {
    /// What a module is in this program's model.
    enum Module: Equatable {
        /// Rows of a Linear: all of them, or the query's, key's or value's of the fused `attn.qkv`.
        case linear(path: String, rows: Range<Int>)
        case head, norm, patches

        /// A sentence's subject: why an adapter can't change it.
        var name: String {
            switch self {
            case .linear: "a Linear"
            case .head: "the head"
            case .norm: "a LayerNorm"
            case .patches: "the patch projection"
            }
        }
    }

    /// The modules by name.
    private(set) var modules: [String: Module] = [:]
    /// The head's name, or those of a distilled DeiT's two.
    let heads: [String]
    /// As a list in Python.
    var headList: String { "[" + heads.map { "\"\($0)\"" }.joined(separator: ", ") + "]" }
    /// Whether the model's class is one of transformers', where all-linear spares the head of a classifier of sequences.
    let isTransformers: Bool

    /// The names of every kind for a model of this configuration.
    static func namings(_ configuration: ViTConfiguration) -> [PEFTModules] {
        let timm = ["", "timm_model."].map { prefix in
            PEFTModules(
                configuration,
                heads: [prefix + "head"]
                    + (configuration.pooling == .classTokenAndSecond ? [prefix + "head_dist"] : []),
                isTransformers: !prefix.isEmpty
            ) {
                [prefix + $0]
            }
        }
        let huggingFace = HuggingFaceNames.Family.allCases.flatMap { family in
            [true, false].flatMap { hasPrefix in
                [true, false].map { isNew in
                    var names = HuggingFaceNames(family, hasPrefix: hasPrefix)
                    names.isNew = isNew
                    names.hasRegisters = configuration.registers > 0
                    names.isGated = configuration.feedForward.isGated
                    names.hasTwoHeads =
                        family == .deit && configuration.pooling == .classTokenAndSecond
                    return PEFTModules(configuration, heads: names.heads, isTransformers: true) { name in
                        names.parts(of: (name == "fc_norm" ? "norm" : name) + ".weight").map {
                            String($0.dropLast(".weight".count))
                        }
                    }
                }
            }
        }
        return timm + huggingFace
    }

    /// How many of the names are modules here.
    func count(of names: some Sequence<String>) -> Int { names.count { modules[$0] != nil } }

    private init(
        _ configuration: ViTConfiguration, heads: [String], isTransformers: Bool,
        names: (String) -> [String]
    ) {
        (self.heads, self.isTransformers) = (heads, isTransformers)
        let shapes = configuration.tensorShapes
        for path in configuration.shape.linears.map(\.name) {
            let parts = names(path)
            let count = shapes[path + ".weight"]![0] / parts.count
            for (index, part) in parts.enumerated() {
                modules[part] = .linear(path: path, rows: index * count..<(index + 1) * count)
            }
        }
        let norms = (0..<configuration.depth).flatMap { ["blocks.\($0).norm1", "blocks.\($0).norm2"] }
        for norm in norms + [configuration.finalNorm] { modules[names(norm)[0]] = .norm }
        modules[names("patch_embed.proj")[0]] = .patches
        for head in heads { modules[head] = .head }
    }
}

/// The tensors of `adapter_model.safetensors`, by module and part, all of one adapter.
///
///     base_model.model.MODULE.lora_A[.ADAPTER].weight             → MODULE, lora_A.weight
///     base_model.model.MODULE.glora_A[.ADAPTER].Xd                → MODULE, glora_A.Xd
///     base_model.model.MODULE[.modules_to_save[.ADAPTER]].weight  → MODULE, weight
///
/// PEFT leaves the adapter's name out when it saves one; raw state dictionaries hold it.
struct PEFTTensors {
    let file: SafetensorsFile
    /// The names in the file of what was adapted, by module and part.
    private(set) var adapted: [String: [String: String]] = [:]
    /// The names in the file of what was saved whole, likewise.
    private(set) var whole: [String: [String: String]] = [:]

    /// Sorts the file's names. Throws `CheckpointError` at one that isn't PEFT's, and when two adapters are in the file.
    init(_ file: SafetensorsFile, _ kind: PEFTSettings.Kind) throws {
        self.file = file
        var adapter: String?
        for name in file.names {
            let words = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
            guard words.count > 2, words[0] == "base_model", words[1] == "model" else {
                throw CheckpointError(
                    "\(file.path) holds '\(name)', which is no tensor of PEFT's; save it with PEFT")
            }
            var module = words.dropFirst(2).dropLast()
            var part = words.last!
            if let marker = module.firstIndex(where: { $0.hasPrefix(kind.marker) || $0 == "modules_to_save" })
            {
                let between = module[(marker + 1)...]
                if words[marker] != "modules_to_save" { part = words[marker] + "." + part }
                module = module[..<marker]
                guard between.count <= 1, !module.isEmpty else {
                    throw CheckpointError(
                        "\(file.path) holds '\(name)', which is no tensor of PEFT's \(kind.name); save it with PEFT"
                    )
                }
                if let other = between.first {
                    guard adapter == nil || adapter == other else {
                        throw CheckpointError(
                            "\(file.path) holds two adapters, '\(adapter!)' and '\(other)'; save one of them alone"
                        )
                    }
                    adapter = other
                }
            }
            let path = module.joined(separator: ".")
            let first =
                part.hasPrefix(kind.marker)
                ? adapted[path, default: [:]].updateValue(name, forKey: part)
                : whole[path, default: [:]].updateValue(name, forKey: part)
            if let first {
                throw CheckpointError(
                    "\(file.path) holds two adapters, with '\(first)' and '\(name)'; save one of them alone")
            }
        }
    }

    /// A tensor by its name in the file. Throws `CheckpointError` naming it when it holds a NaN or an infinity.
    func tensor(_ name: String) throws -> HostTensor { try file.finiteTensor(name) }
}

extension SafetensorsFile {
    /// A tensor as `tensor` reads it. Throws `CheckpointError` naming it also when it holds a NaN or an infinity.
    public func finiteTensor(_ name: String) throws -> HostTensor {
        let tensor = try tensor(name)
        try requireFinite(tensor.values, name)
        return tensor
    }
}
