import Adapters
import Foundation

/// What an adapter's `adapter_config.json` says, every key of it known, off, or refused by name.
///
/// Source: peft/tuners/{lora,glora}/config.py and peft/tuners/tuners_utils.py (`check_target_module_exists`) of PEFT 0.21.2.
struct PEFTSettings {
    /// The kinds of adapters that can be read.
    enum Kind: String {
        case lora = "LORA"
        case glora = "GLORA"

        /// As sentences name it.
        var name: String { self == .lora ? "LoRA" : "GLoRA" }
        /// What the names of its tensors have after the module's: `lora_A`, `glora_A`.
        var marker: String { self == .lora ? "lora_" : "glora_" }
    }

    /// The file, for messages.
    let path: String
    let kind: Kind
    /// r, the rank where no pattern says another.
    let rank: Int
    /// The keys of ours beside PEFT's.
    let extra: [String: JSONValue]
    private let members: [String: JSONValue]
    private let targets: Modules?
    private let excluded: Modules?
    private let layers: Layers?
    /// modules_to_save: names by which modules are trained and saved whole.
    private let savedWhole: [String]
    private let savedWholePatterns: [NSRegularExpression]
    private let ranks: [Pattern]
    private let alphas: [Pattern]

    /// Reads the file. Throws `CheckpointError` naming the key that can't be obeyed.
    init(_ url: URL) throws {
        let path = url.path
        let (config, keys) = try JSONValue.withMemberKeys(contentsOf: url)
        func failure(_ what: String) -> CheckpointError { CheckpointError("\(path): \(what)") }
        let type = config["peft_type"]?.stringValue ?? ""
        guard let kind = Kind(rawValue: type) else {
            throw failure("adapters of type '\(type)' can't be loaded; only PEFT's GLORA and LORA can")
        }
        if let version = config["glora_format_version"], version != 1 {
            throw failure("format version \(version.text()) is newer than this program; use a newer one")
        }
        let members = config.objectValue ?? [:]
        try PEFTSettings.refuseUnknownKeys(members, kind, path: path)
        if kind == .lora { try PEFTSettings.refuseChangesOfTheBase(config["init_lora_weights"], path: path) }
        guard config["bias"] == nil || config["bias"] == "none" else {
            throw failure("bias \(config["bias"]!.text()) is not supported; train with bias=\"none\"")
        }
        rank = config["r"].map { $0.integerValue ?? 0 } ?? 8
        guard (1...GLoRAPath.largestRank).contains(rank) else {
            throw failure("r = \(config["r"]!.text()) is no rank; correct it")
        }

        targets = try Modules(config["target_modules"], key: "target_modules", path: path)
        excluded = try Modules(config["exclude_modules"], key: "exclude_modules", path: path)
        layers = try Layers(config, targets: targets, path: path)
        savedWhole = try PEFTSettings.strings(config["modules_to_save"], key: "modules_to_save", path: path)
        savedWholePatterns = try savedWhole.map {
            try expression("(^|.*\\.)\($0)($|\\..*)", of: $0, key: "modules_to_save", path: path)
        }
        func patterns(_ key: String) throws -> [Pattern] {
            guard let values = config[key] else { return [] }
            guard let values = values.objectValue else {
                throw failure("\(key) is no object of patterns; correct it")
            }
            return try (keys[key] ?? []).map { name in
                guard let value = values[name]?.numberValue else {
                    throw failure("\(key) gives no number for '\(name)'; correct it")
                }
                return Pattern(
                    text: name,
                    expression: try expression("(.*\\.)?(\(name))$", of: name, key: key, path: path),
                    value: value)
            }
        }
        ranks = try patterns("rank_pattern")
        alphas = try patterns("alpha_pattern")
        if let wrong = ranks.first(where: {
            $0.value != $0.value.rounded() || !(1...Double(GLoRAPath.largestRank)).contains($0.value)
        }) {
            throw failure(
                "rank_pattern gives '\(wrong.text)' the rank \(wrong.value), which is none; correct it")
        }
        extra = members.filter { $0.key.hasPrefix("glora_") && !PEFTAdapter.reserved.contains($0.key) }
        (self.path, self.kind, self.members) = (path, kind, members)
    }

    /// The value of a key; nil when it is absent or null.
    subscript(key: String) -> JSONValue? { members[key].flatMap { $0 == .null ? nil : $0 } }

    /// A switch of PEFT's, off where it isn't given.
    func flag(_ key: String) throws -> Bool {
        guard let value = self[key] else { return false }
        guard let flag = value.booleanValue else {
            throw CheckpointError("\(path): \(key) = \(value.text()) is neither true nor false; correct it")
        }
        return flag
    }

    // MARK: Keys

    /// Keys that are read here or by the kinds' own readers.
    private static let read: [Kind: Set<String>] = [
        .lora: [
            "alpha_pattern", "exclude_modules", "init_lora_weights", "layers_pattern", "layers_to_transform",
            "lora_alpha", "lora_bias", "rank_pattern", "use_rslora",
        ],
        .glora: ["config_A_B", "config_C", "config_D_E"],
    ]
    private static let readOfBoth: Set<String> = [
        "bias", "modules_to_save", "peft_type", "r", "target_modules", "task_type",
    ]

    /// Keys that change nothing in a forward pass over Linears, whatever they say: where the adapter comes from, how it began
    /// and was trained. `fan_in_fan_out` is about Conv1D; PEFT sets it to false at a Linear. VeLoRA's forward pass is LoRA's.
    private static let harmless: Set<String> = [
        "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
        "fan_in_fan_out", "inference_mode", "init_weights", "lora_dropout", "lora_ga_config", "megatron_core",
        "peft_version", "qalora_group_size", "revision", "runtime_config", "velora_config",
    ]

    private static func refuseUnknownKeys(_ members: [String: JSONValue], _ kind: Kind, path: String) throws {
        let known = readOfBoth.union(harmless).union(read[kind]!)
        for (key, value) in members.sorted(by: { $0.key < $1.key }) {
            let isOff = [.null, false, "", [], [:]].contains(value)
            guard !isOff, !known.contains(key), !key.hasPrefix("glora_") else { continue }
            throw CheckpointError(
                "\(path): \(key) = \(value.text()) is not supported, as it can change what the adapter computes; "
                    + "only plain \(kind.name) on Linears can be loaded")
        }
    }

    /// Most initialisations set the factors alone, which the file holds as they were trained; the others also take what the
    /// factors begin with out of the base's weights, or quantise them, and are wrong on any other base.
    private static func refuseChangesOfTheBase(_ value: JSONValue?, path: String) throws {
        guard let value, value.booleanValue == nil else { return }
        let name = value.stringValue?.lowercased() ?? ""
        if ["gaussian", "eva", "orthogonal", "mica"].contains(name) { return }
        if ["pissa", "corda", "olora", "loftq", "lora_ga"].contains(where: name.hasPrefix) {
            throw CheckpointError(
                "\(path): init_lora_weights = \(value.text()) changes the base model's weights, which this program "
                    + "doesn't; save the adapter as plain LoRA (PEFT's path_initial_model_for_weight_conversion)"
            )
        }
        throw CheckpointError(
            "\(path): init_lora_weights = \(value.text()) is unknown and may change the base model's weights; use "
                + "a newer program")
    }

    private static func strings(_ value: JSONValue?, key: String, path: String) throws -> [String] {
        guard let value else { return [] }
        guard let strings = value.arrayValue?.compactMap(\.stringValue),
            strings.count == value.arrayValue?.count
        else { throw CheckpointError("\(path): \(key) = \(value.text()) is no list of names; correct it") }
        return strings
    }

    // MARK: Modules

    /// Names of modules: a pattern that a whole name must match, or names and their last parts.
    private enum Modules {
        case pattern(NSRegularExpression)
        case names([String])
        /// "all-linear": every Linear.
        case linears

        init?(_ value: JSONValue?, key: String, path: String) throws {
            switch value {
            case nil: return nil
            case .string("") where key == "exclude_modules": return nil
            case .string(let text) where key == "target_modules" && text.lowercased() == "all-linear":
                self = .linears
            case .string(let text):
                self = .pattern(try expression("(?:\(text))\\z", of: text, key: key, path: path))
            default: self = .names(try strings(value, key: key, path: path))
            }
        }
    }

    /// layers_to_transform: the indices of the layers that names (not patterns, not whole paths) are looked for in.
    private struct Layers {
        let indices: [Int]
        let expressions: [NSRegularExpression]

        init?(_ config: JSONValue, targets: Modules?, path: String) throws {
            let patterns = config["layers_pattern"]
            guard let given = config["layers_to_transform"] else {
                guard patterns == nil || patterns == [] || patterns == "" else {
                    throw CheckpointError("\(path): layers_pattern needs layers_to_transform; correct it")
                }
                return nil
            }
            let list = given.arrayValue ?? [given]
            indices = list.compactMap(\.integerValue)
            guard indices.count == list.count else {
                throw CheckpointError(
                    "\(path): layers_to_transform = \(given.text()) is no list of layers; correct it")
            }
            switch targets {
            case .names: break
            default:
                throw CheckpointError(
                    "\(path): layers_to_transform can't be used when target_modules is a pattern; correct it")
            }
            guard !indices.isEmpty else { return nil }
            let names =
                try patterns?.stringValue.map { $0.isEmpty ? [] : [$0] }
                ?? strings(patterns, key: "layers_pattern", path: path)
            expressions =
                try names.isEmpty
                ? [expression(".*?\\.[^.]*\\.(\\d+)\\.", of: "", key: "layers_pattern", path: path)]
                : names.map {
                    // Its own groups would shift the index's.
                    try expression(
                        "(?:^|.*?\\.)\($0)\\.(?<index>\\d+)\\.", of: $0, key: "layers_pattern", path: path)
                }
        }

        /// Whether the first layer's index in the name is one of ours.
        func contains(_ module: String) -> Bool {
            let range = NSRange(module.startIndex..., in: module)
            for expression in expressions {
                guard let match = expression.firstMatch(in: module, options: .anchored, range: range) else {
                    continue
                }
                let named = match.range(withName: "index")
                let index = named.location == NSNotFound ? match.range(at: 1) : named
                return Range(index, in: module).flatMap { Int(module[$0]) }.map(indices.contains) ?? false
            }
            return false
        }
    }

    /// Whether PEFT adapts the module of this name in the model. Throws when the file has no target_modules.
    func adapts(_ module: String, isLinear: Bool) throws -> Bool {
        guard let targets else {
            throw CheckpointError(
                "\(path) has no target_modules, so that nothing says what it adapts; save it with PEFT")
        }
        func ends(with names: [String]) -> Bool { names.contains { module.hasSuffix("." + $0) } }
        switch excluded {
        case .pattern(let expression) where try expression.matches(module): return false
        case .names(let names) where names.contains(module) || ends(with: names): return false
        default: break
        }
        // A module that is saved whole, and what lies in it, is never adapted.
        if try savedWholePatterns.contains(where: { try $0.matches(module) }) { return false }
        switch targets {
        case .linears: return isLinear
        case .pattern(let expression): return try expression.matches(module)
        case .names(let names):
            if names.contains(module) { return true }
            return ends(with: names) && layers?.contains(module) != false
        }
    }

    /// Whether PEFT trains and saves the module of this name whole.
    func savesWhole(_ module: String) -> Bool { savedWhole.contains(where: module.hasSuffix) }

    // MARK: Ranks and scales

    /// A pattern of rank_pattern or alpha_pattern, which the end of a name from a dot on must match.
    private struct Pattern {
        let text: String
        let expression: NSRegularExpression
        let value: Double
    }

    /// LoRA's rank at a module.
    func rank(of module: String) throws -> Int {
        try ranks.first { try $0.expression.matches(module) }.map { Int($0.value) } ?? rank
    }

    /// LoRA's factor at a module: alpha / r, or alpha / √r of a rank-stabilised one.
    func scale(of module: String) throws -> Double {
        let standard = self["lora_alpha"] ?? 8
        guard
            let alpha = try alphas.first(where: { try $0.expression.matches(module) })?.value
                ?? standard.numberValue
        else { throw CheckpointError("\(path): lora_alpha = \(standard.text()) is no number; correct it") }
        let rank = Double(try rank(of: module))
        return try alpha / (flag("use_rslora") ? rank.squareRoot() : rank)
    }

    /// A sentence for each pattern that matches none of the adapted modules, which PEFT passes over without a word.
    func unusedPatterns(_ modules: some Collection<String>) throws -> [String] {
        try [("rank_pattern", ranks), ("alpha_pattern", alphas)].flatMap { key, patterns in
            try patterns.filter { pattern in try !modules.contains(where: pattern.expression.matches) }.map {
                "\(path): '\($0.text)' of \(key) matches none of the adapted layers"
            }
        }
    }
}

/// Compiles what PEFT makes of a pattern of the configuration. ICU's expressions are Python's in all but rare forms, of which it
/// refuses most; Swift's own have other word boundaries and no look-behind.
private func expression(_ text: String, of pattern: String, key: String, path: String) throws
    -> NSRegularExpression
{
    do {
        return try NSRegularExpression(pattern: text)
    } catch {
        throw CheckpointError(
            "\(path): '\(pattern)' of \(key) can't be read as a regular expression; write it more plainly")
    }
}

extension NSRegularExpression {
    /// Whether the expression matches from the beginning of the text on. Throws `CheckpointError` for one that takes longer than 0.1 s:
    /// Foundation gives patterns up after 0.6 s, and says that they don't match.
    fileprivate func matches(_ text: String) throws -> Bool {
        /// Of this thread on a processor: what else runs doesn't lengthen it.
        func seconds() -> Double {
            var time = timespec()
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
            return Double(time.tv_sec) + 1e-9 * Double(time.tv_nsec)
        }
        let start = seconds()
        let match = firstMatch(in: text, options: .anchored, range: NSRange(text.startIndex..., in: text))
        guard seconds() - start < 0.1 else {
            throw CheckpointError(
                "adapter_config.json: the pattern '\(pattern.prefix(200))' can't be matched with '\(text)' in reasonable time; write "
                    + "it more plainly")
        }
        return match != nil
    }
}
