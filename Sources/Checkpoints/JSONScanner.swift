/// The words of RFC 8259 in a text, one after the other, without leniency: what it accepts, every other reader
/// understands in the same way.
///
/// A string's escapes are resolved where it stands, which never takes more room, so that a string is a range of `bytes`
/// and costs no memory of its own.
struct JSONScanner {
    private(set) var bytes: [UInt8]
    private(set) var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func failure(_ what: String) -> CheckpointError {
        CheckpointError("invalid JSON at byte \(position): \(what)")
    }

    var isAtEnd: Bool { position == bytes.count }
    var byte: UInt8? { position < bytes.count ? bytes[position] : nil }

    mutating func skipSpace() {
        while let byte, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
    }

    /// Goes past `character` if it comes next.
    mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard byte == UInt8(ascii: character) else { return false }
        position += 1
        return true
    }

    /// Goes past `true`, `false` or `null`.
    mutating func word(_ word: StaticString) throws {
        let isThere = word.withUTF8Buffer { bytes[position...].starts(with: $0) }
        guard isThere else { throw failure("a value is missing") }
        position += word.utf8CodeUnitCount
    }

    /// Text of a range that `string` or `number` gave.
    func text(_ range: Range<Int>) -> String { String(decoding: bytes[range], as: UTF8.self) }

    /// As much of a text as an error's sentence has room for.
    func start(of range: Range<Int>) -> String { text(range.prefix(200)) }

    /// The key of a member and the colon behind it.
    mutating func key() throws -> Range<Int> {
        skipSpace()
        guard byte == UInt8(ascii: "\"") else { throw failure("a key is missing") }
        let key = try string()
        skipSpace()
        guard take(":") else { throw failure("':' is missing after the key '\(start(of: key))'") }
        skipSpace()
        return key
    }

    /// Whether a list or an object goes on behind a member; `end` closes it.
    mutating func goesOn(until end: Unicode.Scalar) throws -> Bool {
        skipSpace()
        if take(end) { return false }
        guard take(",") else { throw failure("',' or '\(end)' is missing") }
        return true
    }

    // MARK: Strings

    /// The text of the string that begins here. (Not `text(try string())`, which would read the bytes of before.)
    mutating func stringText() throws -> String {
        let range = try string()
        return text(range)
    }

    /// What the string that begins here says.
    mutating func string() throws -> Range<Int> {
        position += 1
        let start = position
        var end = start
        while let byte {
            position += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard String(validating: bytes[start..<end], as: UTF8.self) != nil else {
                    throw failure("no valid UTF-8")
                }
                return start..<end
            case UInt8(ascii: "\\"):
                for byte in try escaped() { put(byte, at: &end) }
            case 0..<0x20: throw failure("a control character in a string")
            default: put(byte, at: &end)
            }
        }
        throw failure("a string has no end")
    }

    private mutating func put(_ byte: UInt8, at end: inout Int) {
        if end + 1 < position { bytes[end] = byte }
        end += 1
    }

    /// The UTF-8 of what follows a backslash.
    private mutating func escaped() throws -> Unicode.Scalar.UTF8View {
        guard let byte else { throw failure("a string has no end") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte).utf8
        case UInt8(ascii: "b"): return Unicode.Scalar(0x08 as UInt8).utf8
        case UInt8(ascii: "f"): return Unicode.Scalar(0x0C as UInt8).utf8
        case UInt8(ascii: "n"): return Unicode.Scalar(0x0A as UInt8).utf8
        case UInt8(ascii: "r"): return Unicode.Scalar(0x0D as UInt8).utf8
        case UInt8(ascii: "t"): return Unicode.Scalar(0x09 as UInt8).utf8
        case UInt8(ascii: "u"):
            var code = UInt32(try hexadecimal())
            if code & 0xFC00 == 0xD800 {
                guard take("\\"), take("u") else { throw failure("half a surrogate pair") }
                let low = UInt32(try hexadecimal())
                guard low & 0xFC00 == 0xDC00 else { throw failure("half a surrogate pair") }
                code = 0x10000 + (code & 0x3FF) << 10 + low & 0x3FF
            }
            guard let scalar = Unicode.Scalar(code) else { throw failure("half a surrogate pair") }
            return scalar.utf8
        default: throw failure("an unknown escape")
        }
    }

    private mutating func hexadecimal() throws -> UInt16 {
        guard position + 4 <= bytes.count else { throw failure("a string has no end") }
        var code: UInt16 = 0
        for byte in bytes[position..<position + 4] {
            let digit: UInt8
            switch byte {
            case 0x30...0x39: digit = byte - 0x30
            case 0x41...0x46: digit = byte - 0x41 + 10
            case 0x61...0x66: digit = byte - 0x61 + 10
            default: throw failure("four hexadecimal digits are missing")
            }
            code = code << 4 | UInt16(digit)
        }
        position += 4
        return code
    }

    // MARK: Numbers

    /// Whether a number begins here.
    var isAtNumber: Bool { byte.map { $0 == UInt8(ascii: "-") || (0x30...0x39).contains($0) } ?? false }

    /// The number that begins here, and whether it has neither a fraction nor an exponent.
    mutating func number() throws -> (text: Range<Int>, isInteger: Bool) {
        let start = position
        var isInteger = true
        _ = take("-")
        if !take("0") { try digits() }
        if take(".") {
            isInteger = false
            try digits()
        }
        if take("e") || take("E") {
            isInteger = false
            if !take("+") { _ = take("-") }
            try digits()
        }
        return (start..<position, isInteger)
    }

    private mutating func digits() throws {
        let first = position
        while let byte, (0x30...0x39).contains(byte) { position += 1 }
        if position == first { throw failure("a digit is missing") }
    }
}
