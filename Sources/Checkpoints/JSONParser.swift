/// A whole JSON text as a `JSONValue`.
struct JSONParser {
    /// The keys of the objects that the document's own object holds, by its keys, in the file's order, which `JSONValue` loses.
    private(set) var memberKeys: [String: [String]] = [:]
    private var lastKeys: [String] = []
    private var scanner: JSONScanner
    private var depth = 0

    /// Throws `CheckpointError` for a text longer than `JSONValue.largestText`.
    init(bytes: [UInt8]) throws {
        guard bytes.count <= JSONValue.largestText else {
            throw CheckpointError(
                "\(bytes.count) bytes of JSON are more than the \(JSONValue.largestText) that settings take")
        }
        scanner = JSONScanner(bytes)
    }

    /// One value and nothing but white space after it.
    mutating func document() throws -> JSONValue {
        let value = try value()
        scanner.skipSpace()
        guard scanner.isAtEnd else { throw scanner.failure("more text after the value") }
        return value
    }

    private mutating func value() throws -> JSONValue {
        // A hostile file of a million brackets would otherwise overflow the stack.
        guard depth < 128 else { throw scanner.failure("more than 128 levels of nesting") }
        depth += 1
        defer { depth -= 1 }
        scanner.skipSpace()
        switch scanner.byte {
        case UInt8(ascii: "{"): return try object()
        case UInt8(ascii: "["): return try array()
        case UInt8(ascii: "\""): return .string(try scanner.stringText())
        case UInt8(ascii: "t"):
            try scanner.word("true")
            return true
        case UInt8(ascii: "f"):
            try scanner.word("false")
            return false
        case UInt8(ascii: "n"):
            try scanner.word("null")
            return .null
        case nil: throw scanner.failure("the text ends too early")
        default:
            guard scanner.isAtNumber else { throw scanner.failure("a value is missing") }
            return try number()
        }
    }

    private mutating func object() throws -> JSONValue {
        var members: [String: JSONValue] = [:]
        var keys: [String] = []
        defer { lastKeys = keys }
        _ = scanner.take("{")
        scanner.skipSpace()
        if scanner.take("}") { return .object(members) }
        repeat {
            let keyRange = try scanner.key()
            let key = scanner.text(keyRange)
            let value = try value()
            guard members.updateValue(value, forKey: key) == nil else {
                throw scanner.failure("the key '\(key)' occurs twice")
            }
            keys.append(key)
            if depth == 1, case .object = value { memberKeys[key] = lastKeys }
        } while try scanner.goesOn(until: "}")
        return .object(members)
    }

    private mutating func array() throws -> JSONValue {
        var elements: [JSONValue] = []
        _ = scanner.take("[")
        scanner.skipSpace()
        if scanner.take("]") { return .array(elements) }
        repeat { elements.append(try value()) } while try scanner.goesOn(until: "]")
        return .array(elements)
    }

    private mutating func number() throws -> JSONValue {
        let (range, isInteger) = try scanner.number()
        let text = scanner.text(range)
        if isInteger, let value = Int(text) { return .integer(value) }
        guard let value = Double(text), value.isFinite else {
            throw scanner.failure("the number \(text) is too large")
        }
        return .number(value)
    }
}
