// What a protocol asks for is described there alone.

/// What a setting can be, as a file or a command line says it: a number, a word, a list of them with commas, or nothing, where it
/// is left out.
public protocol SettingValue: Codable, Hashable, Sendable {
    /// The value itself, or one of a list's.
    associatedtype Item: LosslessStringConvertible & Sendable = Self
    /// Reads a word; nil where that can't be meant.
    init?(word: String)
    /// The value's words, between its commas; nil where it is left out.
    var items: [Item]? { get }
    /// Every word that it may be; none where they can't be listed.
    static var choices: [String] { get }
}

extension SettingValue {
    public static var choices: [String] { [] }
}

extension SettingValue where Item == Self {
    public init?(word: String) { self.init(word) }
    public var items: [Self]? { [self] }
}

extension Int: SettingValue {}
extension Double: SettingValue {}
extension Bool: SettingValue {}
extension String: SettingValue {}

/// One of a few words.
public protocol SettingChoice: SettingValue, LosslessStringConvertible, RawRepresentable, CaseIterable
where RawValue == String, Item == Self {}

extension SettingChoice {
    public init?(_ description: String) { self.init(rawValue: description) }
    public var description: String { rawValue }
    public static var choices: [String] { allCases.map(\.rawValue) }
}

/// What a file holds as the word that the command line takes.
public protocol SettingText: SettingValue, LosslessStringConvertible where Item == Self {}

extension SettingText {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let value = Self(text) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "'\(text)' can't be read")
        }
        self = value
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

extension Optional: SettingValue where Wrapped: SettingValue {
    public init?(word: String) {
        if let value = Wrapped(word: word) { self = value } else { return nil }
    }
    public var items: [Wrapped.Item]? { self?.items }
    public static var choices: [String] { Wrapped.choices }
}

extension Array: SettingValue where Element: SettingValue, Element.Item == Element {
    public init?(word: String) {
        let elements = word.split(separator: ",").map { Element(word: String($0)) }
        guard !elements.isEmpty, !elements.contains(where: { $0 == nil }) else { return nil }
        self = elements.compactMap(\.self)
    }
    public var items: [Element]? { self }
}

/// What a setting may be. The rule stands in the error between the setting's name and its value: `lr` "must be a number", not nan.
public struct SettingCheck<Item>: Sendable {
    let rule: String
    let holds: @Sendable (Item) -> Bool

    /// A rule in words and as a predicate of each item.
    public init(_ rule: String, _ holds: @escaping @Sendable (Item) -> Bool) {
        (self.rule, self.holds) = (rule, holds)
    }
}

extension SettingCheck<Int> {
    public static func within(_ range: ClosedRange<Int>) -> Self {
        Self("must be from \(range.lowerBound) to \(range.upperBound)") { range.contains($0) }
    }
}

extension SettingCheck<Double> {
    public static var number: Self { Self("must be a number") { $0.isFinite } }
    public static var rate: Self { Self("must be a number from 0 on") { $0 >= 0 && $0.isFinite } }
    public static var positive: Self { Self("must be a number above 0") { $0 > 0 && $0.isFinite } }
    public static var probability: Self { Self("must be at least 0 and below 1") { (0..<1).contains($0) } }
}

extension SettingCheck<String> {
    public static func one(of words: String...) -> Self {
        Self("is \(words.joined(separator: " or "))") { words.contains($0) }
    }
}

/// A `Setting` of some value.
public protocol AnySetting: Sendable {
    /// What it can be.
    associatedtype Value: SettingValue
    /// What it is called in errors, and its key in files.
    var name: String { get }
    /// What it is for, without a full stop.
    var help: String { get }
    /// What decides where it is left out, if that isn't the default value.
    var origin: String? { get }
    /// The value.
    var wrappedValue: Value { get }
    /// What is wrong with the value, as a sentence; nil for nothing.
    var fault: String? { get }
}

extension AnySetting {
    /// The value as one word; nil where it is left out.
    public var text: String? { wrappedValue.items?.map(\.description).joined(separator: ",") }
}

/// A value of a `SettingGroup` with all that is said of it, in the one place where a setting is written:
///
///     @Setting("epochs", "Passes over the training split", .within(1...1000)) public var epochs = 100
///
/// The key in files, the command line's flag with its help and its default, the checks and the differences of two groups follow from it.
@propertyWrapper
public struct Setting<Value: SettingValue>: StoredSetting, Hashable {
    /// Copies of a setting share it. `SettingGroup` alone changes it, in a group that has no copy yet.
    private final class Storage: Sendable {
        nonisolated(unsafe) var value: Value
        init(_ value: Value) { self.value = value }
    }

    public let name, help: String
    public let origin: String?
    private let check: SettingCheck<Value.Item>?
    private var storage: Storage

    /// A setting by its name, with its default value; `origin` says what else decides where it is left out.
    public init(
        wrappedValue: Value, _ name: String, _ help: String, default origin: String? = nil,
        _ check: SettingCheck<Value.Item>? = nil
    ) {
        (self.name, self.help, self.origin, self.check) = (name, help, origin, check)
        storage = Storage(wrappedValue)
    }

    public var wrappedValue: Value {
        get { storage.value }
        set { storage = Storage(newValue) }
    }
    /// The setting itself.
    public var projectedValue: Self { self }

    public var fault: String? {
        guard let check, let item = wrappedValue.items?.first(where: { !check.holds($0) })
        else { return nil }
        return "`\(name)` \(check.rule), not \(item)"
    }

    func store(_ value: any SettingValue) { storage.value = value as! Value }

    func decode(_ container: KeyedDecodingContainer<SettingKey>) throws {
        let key = SettingKey(stringValue: name)
        guard text != nil || container.contains(key) else { return }
        storage.value = try container.decode(Value.self, forKey: key)
    }

    func encode(_ container: inout KeyedEncodingContainer<SettingKey>) throws {
        if text != nil { try container.encode(wrappedValue, forKey: SettingKey(stringValue: name)) }
    }

    public static func == (one: Self, other: Self) -> Bool { one.wrappedValue == other.wrappedValue }
    public func hash(into hasher: inout Hasher) { hasher.combine(wrappedValue) }
}

/// What a group does with its settings.
protocol StoredSetting: AnySetting {
    func store(_ value: any SettingValue)
    func decode(_ container: KeyedDecodingContainer<SettingKey>) throws
    func encode(_ container: inout KeyedEncodingContainer<SettingKey>) throws
}

/// A setting's name as a key of files and of command lines.
public struct SettingKey: CodingKey {
    public let stringValue: String
    public var intValue: Int? { nil }

    public init(stringValue: String) { self.stringValue = stringValue }
    public init?(intValue: Int) { nil }
}

/// Settings, written to files under their names; those of a group inside stand among its own. One without a default
/// value may be missing in a file, and no other: so must be what later versions add, since runs of earlier ones are read.
public protocol SettingGroup: Codable, Hashable, Sendable {
    /// The defaults.
    init()
}

extension SettingGroup {
    /// In the order in which they are written.
    public var settings: [any AnySetting] { stored }

    private var stored: [any StoredSetting] {
        Mirror(reflecting: self).children.flatMap { child -> [any StoredSetting] in
            if let group = child.value as? any SettingGroup { return group.stored }
            return [child.value as? any StoredSetting].compactMap(\.self)
        }
    }

    /// What is wrong with the first invalid setting, as a sentence; nil for nothing.
    public var fault: String? { settings.lazy.compactMap(\.fault).first }

    public init(from decoder: any Decoder) throws {
        self.init()
        let container = try decoder.container(keyedBy: SettingKey.self)
        for setting in stored { try setting.decode(container) }
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: SettingKey.self)
        for setting in stored { try setting.encode(&container) }
    }

    /// Takes the values that were given, by name.
    public mutating func take(_ given: [String: any SettingValue]) {
        let taken = Self()
        for (old, new) in zip(stored, taken.stored) { new.store(given[old.name] ?? old.wrappedValue) }
        self = taken
    }
}
