/// A JSON value: what configurations, safetensors headers and adapter settings are made of.
///
/// Ours rather than Foundation's, because a safetensors header with a name twice must be refused and Foundation
/// keeps one of the two without a word.
public enum JSONValue: Hashable, Sendable {
    case null
    case boolean(Bool)
    /// A number without a fraction or an exponent that fits into 64 bits.
    case integer(Int)
    /// Every other number.
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// The longest text that is parsed, in bytes: the largest index of shards has one million, names of 100,000 classes take four.
    /// Values take up to 25 times the memory of their text.
    public static let largestText = 8 << 20

    /// Parses UTF-8. Throws `CheckpointError` at the first byte that isn't JSON, at a key that an object holds
    /// twice, below 128 levels of nesting, and for a text longer than `largestText`.
    public init(parsing bytes: some Sequence<UInt8>) throws {
        var parser = try JSONParser(bytes: Array(bytes))
        self = try parser.document()
    }

    /// The member of an object; nil for other values and when it is absent or null.
    public subscript(key: String) -> JSONValue? {
        guard case .object(let members) = self, let value = members[key], value != .null else { return nil }
        return value
    }

    /// The value as an integer, if it is one.
    public var integerValue: Int? { if case .integer(let value) = self { value } else { nil } }
    /// The value as a string, if it is one.
    public var stringValue: String? { if case .string(let value) = self { value } else { nil } }
    /// The value as a truth value, if it is one.
    public var booleanValue: Bool? { if case .boolean(let value) = self { value } else { nil } }
    /// The elements, if the value is an array.
    public var arrayValue: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    /// The members, if the value is an object.
    public var objectValue: [String: JSONValue]? { if case .object(let value) = self { value } else { nil } }
    /// The value as a number, if it is one.
    public var numberValue: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }
}

// MARK: Writing

extension JSONValue {
    /// The text with keys sorted: the same value always gives the same bytes. Traps on NaN and infinity, which
    /// JSON can't say.
    public func text(indented: Bool = false) -> String {
        var text = ""
        write(to: &text, newline: indented ? "\n" : nil)
        return text
    }

    private func write(to text: inout String, newline: String?) {
        switch self {
        case .null: text += "null"
        case .boolean(let value): text += value ? "true" : "false"
        case .integer(let value): text += String(value)
        case .number(let value):
            precondition(value.isFinite, "JSON has no \(value)")
            text += "\(value)"
        case .string(let value): JSONValue.quote(value, to: &text)
        case .array(let values):
            // A list of numbers stays on one line: [0.5, 0.5, 0.5].
            let inner = values.allSatisfy { $0.numberValue != nil } ? nil : newline.map { $0 + "  " }
            writeList("[", "]", values, to: &text, newline: inner, closing: inner == nil ? nil : newline) {
                $0.write(to: &$1, newline: inner)
            }
        case .object(let members):
            let inner = newline.map { $0 + "  " }
            let sorted = members.sorted { $0.key < $1.key }
            writeList("{", "}", sorted, to: &text, newline: inner, closing: newline) {
                JSONValue.quote($0.key, to: &$1)
                $1 += ": "
                $0.value.write(to: &$1, newline: inner)
            }
        }
    }

    private func writeList<Element>(
        _ open: String, _ close: String, _ elements: [Element], to text: inout String, newline: String?,
        closing: String?, write: (Element, inout String) -> Void
    ) {
        text += open
        for (index, element) in elements.enumerated() {
            if index > 0 { text += newline == nil ? ", " : "," }
            text += newline ?? ""
            write(element, &text)
        }
        if !elements.isEmpty { text += closing ?? "" }
        text += close
    }

    private static func quote(_ string: String, to text: inout String) {
        text += "\""
        for scalar in string.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\t": text += "\\t"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: text.unicodeScalars.append(scalar)
            }
        }
        text += "\""
    }
}

// MARK: Literals

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral,
    ExpressibleByBooleanLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral,
    ExpressibleByNilLiteral
{
    /// A string.
    public init(stringLiteral value: String) { self = .string(value) }
    /// An integer.
    public init(integerLiteral value: Int) { self = .integer(value) }
    /// A number.
    public init(floatLiteral value: Double) { self = .number(value) }
    /// A truth value.
    public init(booleanLiteral value: Bool) { self = .boolean(value) }
    /// An array.
    public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    /// An object. Traps on a key that occurs twice.
    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(Dictionary(uniqueKeysWithValues: elements))
    }
    /// null.
    public init(nilLiteral: ()) { self = .null }
}
