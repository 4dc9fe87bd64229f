import Adapters
import ArgumentParser
import Training
import Transformers
import VisionModels

extension MemoryPolicy: ExpressibleByArgument {}

/// What is behind a flag: a word, a number, or a comma-separated list such as `8,4` or `qkv,proj`.
struct FlagValue<Value: SettingValue>: ExpressibleByArgument {
    let value: Value

    init(_ value: Value) { self.value = value }

    init?(argument: String) {
        guard let value = Value(word: argument) else { return nil }
        self.value = value
    }

    var defaultValueDescription: String { (value.items ?? []).map(\.description).joined(separator: ",") }
    static var allValueStrings: [String] { Value.choices }
    static var defaultCompletionKind: CompletionKind {
        Value.choices.isEmpty ? .default : .list(Value.choices)
    }
}

/// Flags that are settings. ArgumentParser finds what a type's mirror shows and has it decoded by the same names; so nothing is
/// said here that the settings say.
protocol SettingFlags: ParsableArguments, CustomReflectable {
    /// In the order of `--help`.
    static var settings: [any AnySetting] { get }
    /// What `--help` says of a flag that is left out.
    static func origin(of setting: any AnySetting) -> String?
    /// What the command line gives, by name.
    var given: [String: any SettingValue] { get set }
}

extension SettingFlags {
    static func origin(of setting: any AnySetting) -> String? { setting.origin ?? setting.text }

    var customMirror: Mirror {
        Mirror(self, children: Self.settings.map { ($0.name, $0.flag(default: Self.origin(of: $0))) })
    }

    init(from decoder: any Decoder) throws {
        self.init()
        let container = try decoder.container(keyedBy: SettingKey.self)
        for setting in Self.settings { given[setting.name] = try setting.given(in: container) }
    }
}

extension AnySetting {
    private var isSwitch: Bool { Value.Item.self == Bool.self }

    /// The line of `--help`; `origin` is what decides where the flag is left out.
    func flagHelp(default origin: String?) -> ArgumentHelp {
        let help = help.spelledAsFlags
        guard let origin, !origin.isEmpty else { return "\(help)." }
        guard origin == text else { return "\(help) (default: \(origin))." }
        return "\(help). (default: \(["true": "--\(name)", "false": "--no-\(name)"][origin] ?? origin))"
    }

    /// A `Flag` or an `Option`.
    fileprivate func flag(default origin: String?) -> Any {
        let (name, help) = (NameSpecification.customLong(name), flagHelp(default: origin))
        return isSwitch
            ? Flag<Bool?>(name: name, inversion: .prefixedNo, exclusivity: .chooseLast, help: help) as Any
            : Option<FlagValue<Value>?>(name: name, help: help)
    }

    fileprivate func given(in container: KeyedDecodingContainer<SettingKey>) throws -> (any SettingValue)? {
        let key = SettingKey(stringValue: name)
        guard isSwitch else {
            return try container.decode(Option<FlagValue<Value>?>.self, forKey: key).wrappedValue?.value
        }
        return try container.decode(Flag<Bool?>.self, forKey: key).wrappedValue as Bool?
    }
}

/// How a checkpoint is read and images are prepared.
struct InputFlags: SettingFlags {
    static var settings: [any AnySetting] {
        let all = TrainingOptions()
        return [all.$heads, all.$imageSize, all.$normalize, all.$crop, all.$resizeTo, all.$interpolation]
    }

    var given: [String: any SettingValue] = [:]
}

/// The settings of a training run; the device's flags have its precision.
struct TrainingFlags: SettingFlags {
    static var settings: [any AnySetting] { TrainingOptions().settings.filter { $0.name != "precision" } }

    static func origin(of setting: any AnySetting) -> String? {
        setting.name == "recipe" ? TrainingRecipe.standard.rawValue : setting.origin ?? setting.text
    }

    var given: [String: any SettingValue] = [:]
}

/// Throws `ValidationError` for a number of images at a time that can't be meant.
func checkBatchSize(_ size: Int, flag: String = "--batch-size") throws {
    guard (1...TrainingOptions.largestBatch).contains(size) else {
        throw ValidationError("\(flag) must be from 1 to \(TrainingOptions.largestBatch), not \(size)")
    }
}
