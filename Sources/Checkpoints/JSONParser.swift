/// RFC 8259 without leniency: what it accepts, every other reader understands in the same way.
struct JSONParser {
    let bytes: [UInt8]
    /// The keys of the objects that the document's own object holds, by its keys, in the file's order, which `JSONValue` loses.
    private(set) var memberKeys: [String: [String]] = [:]
    private var lastKeys: [String] = []
    private var position = 0
    private var depth = 0

    init(bytes: [UInt8]) { self.bytes = bytes }

    /// One value and nothing but white space after it.
    mutating func document() throws -> JSONValue {
        let value = try value()
        skipSpace()
        guard position == bytes.count else { throw failure("more text after the value") }
        return value
    }

    private func failure(_ what: String) -> CheckpointError {
        CheckpointError("invalid JSON at byte \(position): \(what)")
    }

    private var byte: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipSpace() {
        while let byte, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard byte == UInt8(ascii: character) else { return false }
        position += 1
        return true
    }

    private mutating func value() throws -> JSONValue {
        // A hostile file of a million brackets would otherwise overflow the stack.
        guard depth < 128 else { throw failure("more than 128 levels of nesting") }
        depth += 1
        defer { depth -= 1 }
        skipSpace()
        switch byte {
        case UInt8(ascii: "{"): return try object()
        case UInt8(ascii: "["): return try array()
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .boolean(true))
        case UInt8(ascii: "f"): return try word("false", .boolean(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case nil: throw failure("the text ends too early")
        case let digit? where digit == UInt8(ascii: "-") || (0x30...0x39).contains(digit): return try number()
        default: throw failure("a value is missing")
        }
    }

    private mutating func word(_ word: String, _ value: JSONValue) throws -> JSONValue {
        guard bytes[position...].starts(with: word.utf8) else { throw failure("a value is missing") }
        position += word.utf8.count
        return value
    }

    private mutating func object() throws -> JSONValue {
        var members: [String: JSONValue] = [:]
        var keys: [String] = []
        defer { lastKeys = keys }
        position += 1
        skipSpace()
        if take("}") { return .object(members) }
        while true {
            skipSpace()
            guard byte == UInt8(ascii: "\"") else { throw failure("a key is missing") }
            let key = try string()
            skipSpace()
            guard take(":") else { throw failure("':' is missing after the key '\(key)'") }
            let value = try value()
            guard members.updateValue(value, forKey: key) == nil else {
                throw failure("the key '\(key)' occurs twice")
            }
            keys.append(key)
            if depth == 1, case .object = value { memberKeys[key] = lastKeys }
            skipSpace()
            if take("}") { return .object(members) }
            guard take(",") else { throw failure("',' or '}' is missing") }
        }
    }

    private mutating func array() throws -> JSONValue {
        var elements: [JSONValue] = []
        position += 1
        skipSpace()
        if take("]") { return .array(elements) }
        while true {
            elements.append(try value())
            skipSpace()
            if take("]") { return .array(elements) }
            guard take(",") else { throw failure("',' or ']' is missing") }
        }
    }

    private mutating func string() throws -> String {
        position += 1
        var text: [UInt8] = []
        while let byte {
            position += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let string = String(validating: text, as: UTF8.self) else {
                    throw failure("no valid UTF-8")
                }
                return string
            case UInt8(ascii: "\\"): try escape(into: &text)
            case 0..<0x20: throw failure("a control character in a string")
            default: text.append(byte)
            }
        }
        throw failure("a string has no end")
    }

    private mutating func escape(into text: inout [UInt8]) throws {
        guard let byte else { throw failure("a string has no end") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"):
            var code = UInt32(try hexadecimal())
            if code & 0xFC00 == 0xD800 {
                guard take("\\"), take("u") else { throw failure("half a surrogate pair") }
                let low = UInt32(try hexadecimal())
                guard low & 0xFC00 == 0xDC00 else { throw failure("half a surrogate pair") }
                code = 0x10000 + (code & 0x3FF) << 10 + low & 0x3FF
            }
            guard let scalar = Unicode.Scalar(code) else { throw failure("half a surrogate pair") }
            text.append(contentsOf: UTF8.encode(scalar)!)
        default: throw failure("an unknown escape")
        }
    }

    private mutating func hexadecimal() throws -> UInt16 {
        guard position + 4 <= bytes.count else { throw failure("a string has no end") }
        let digits = bytes[position..<position + 4]
        let isHexadecimal = digits.allSatisfy { Unicode.Scalar($0).properties.isASCIIHexDigit }
        guard isHexadecimal, let code = UInt16(String(decoding: digits, as: UTF8.self), radix: 16) else {
            throw failure("four hexadecimal digits are missing")
        }
        position += 4
        return code
    }

    private mutating func number() throws -> JSONValue {
        let start = position
        var isInteger = true
        func digits(_ parser: inout JSONParser) throws {
            let first = parser.position
            while let byte = parser.byte, (0x30...0x39).contains(byte) { parser.position += 1 }
            if parser.position == first { throw parser.failure("a digit is missing") }
        }
        _ = take("-")
        if !take("0") { try digits(&self) }
        if take(".") {
            isInteger = false
            try digits(&self)
        }
        if take("e") || take("E") {
            isInteger = false
            if !take("+") { _ = take("-") }
            try digits(&self)
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger, let value = Int(text) { return .integer(value) }
        guard let value = Double(text), value.isFinite else {
            throw failure("the number \(text) is too large")
        }
        return .number(value)
    }
}
