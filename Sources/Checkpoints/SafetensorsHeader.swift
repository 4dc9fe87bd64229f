import TensorCore

/// The header of a safetensors file as a table over its own text, in at most three times the memory of that: a hostile header of
/// 100 MB names two million tensors.
///
/// Names and shapes stay in the text; of each tensor 32 bytes are kept, and 8 that find it by its name.
struct SafetensorsHeader: Sendable {
    private struct Row {
        var nameStart, nameEnd, shapeStart: UInt32
        /// Of `types`.
        var type: UInt8
        /// Where the data begin, counted from the header's end.
        var begin: Int
        var count: Int
    }

    /// The strings under `__metadata__`.
    private(set) var metadata: [String: String] = [:]
    private var scanner: JSONScanner
    private var rows: [Row] = []
    /// A hash table by open addressing: 1 + the row of a name, or 0.
    private var places: [UInt32] = []

    private static let types: [(name: String, size: Int)] = [
        ("BOOL", 1), ("U8", 1), ("I8", 1), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1), ("U16", 2),
        ("I16", 2), ("F16", 2), ("BF16", 2), ("U32", 4), ("I32", 4), ("F32", 4), ("U64", 8), ("I64", 8),
        ("F64", 8), ("C64", 8),
    ]
    /// numpy's arrays had at most so many dimensions until 2024, PyTorch's tensors have at most 64.
    private static let largestRank = 64
    /// A trainer leaves some hundred strings of its settings.
    private static let largestMetadataCount = 65536

    /// Reads a header; `dataSize` bytes of data follow it. Throws `CheckpointError` without the file's name.
    init(_ bytes: [UInt8], dataSize: Int) throws {
        scanner = JSONScanner(bytes)
        guard scanner.take("{") else { throw CheckpointError("its header is no JSON object") }
        var hasMetadata = false
        do {
            scanner.skipSpace()
            if !scanner.take("}") {
                repeat {
                    let name = try scanner.key()
                    if scanner.bytes[name].elementsEqual("__metadata__".utf8) {
                        guard !hasMetadata else {
                            throw scanner.failure("the key '__metadata__' occurs twice")
                        }
                        hasMetadata = true
                        try readMetadata()
                    } else {
                        try readEntry(name, dataSize: dataSize)
                    }
                } while try scanner.goesOn(until: "}")
            }
            scanner.skipSpace()
            guard scanner.isAtEnd else { throw scanner.failure("more text after the value") }
            try findPlaces()
        } catch let error as CheckpointError where error.description.hasPrefix("invalid JSON") {
            throw CheckpointError("its header is damaged (\(error.description))")
        }
        try checkCover(dataSize)
    }

    // MARK: Look-up

    /// The names, sorted.
    var names: [String] { rows.map(name).sorted() }

    /// What is said of a tensor; nil when there is none of this name. `begin` counts from the header's end.
    func entry(_ name: String) -> (type: String, shape: [Int], begin: Int, count: Int)? {
        var name = name
        let found = name.withUTF8 { bytes in
            places[place(UnsafeRawBufferPointer(bytes))]
        }
        guard found > 0 else { return nil }
        let row = rows[Int(found) - 1]
        return (SafetensorsHeader.types[Int(row.type)].name, shape(row), row.begin, row.count)
    }

    private func name(_ row: Row) -> String { scanner.text(Int(row.nameStart)..<Int(row.nameEnd)) }

    private func start(of row: Row) -> String {
        scanner.start(of: Int(row.nameStart)..<Int(row.nameEnd))
    }

    private func shape(_ row: Row) -> [Int] {
        var text = scanner.bytes[Int(row.shapeStart)...].dropFirst()
        text = text.prefix { $0 != UInt8(ascii: "]") }
        return text.split(separator: UInt8(ascii: ",")).compactMap { digits in
            Int(String(decoding: digits.filter { $0 > 0x20 }, as: UTF8.self))
        }
    }

    /// Where a name is in `places`, or would be. The hash is seeded anew in every process: no file can be made whose names meet.
    private func place(_ name: UnsafeRawBufferPointer) -> Int {
        var hasher = Hasher()
        hasher.combine(bytes: name)
        var place = hasher.finalize() & (places.count - 1)
        while places[place] > 0 {
            let row = rows[Int(places[place]) - 1]
            if scanner.bytes[Int(row.nameStart)..<Int(row.nameEnd)].elementsEqual(name) { break }
            place = (place + 1) & (places.count - 1)
        }
        return place
    }

    private mutating func findPlaces() throws {
        var size = 1
        while size < 2 * rows.count { size *= 2 }
        places = [UInt32](repeating: 0, count: size)
        for (index, row) in rows.enumerated() {
            let name = scanner.bytes[Int(row.nameStart)..<Int(row.nameEnd)]
            let place = name.withUnsafeBytes(place)
            guard places[place] == 0 else {
                throw CheckpointError("its header is damaged (the key '\(start(of: row))' occurs twice)")
            }
            places[place] = UInt32(index + 1)
        }
    }

    // MARK: Reading

    private mutating func readMetadata() throws {
        guard scanner.take("{") else { throw CheckpointError("__metadata__ is no object") }
        scanner.skipSpace()
        if scanner.take("}") { return }
        repeat {
            let key = scanner.text(try scanner.key())
            guard scanner.byte == UInt8(ascii: "\"") else {
                throw CheckpointError("__metadata__ holds something else than strings")
            }
            guard metadata.count < SafetensorsHeader.largestMetadataCount else {
                throw CheckpointError(
                    "__metadata__ holds more than \(SafetensorsHeader.largestMetadataCount) strings")
            }
            guard metadata.updateValue(scanner.text(try scanner.string()), forKey: key) == nil else {
                throw scanner.failure("the key '\(key)' occurs twice")
            }
        } while try scanner.goesOn(until: "}")
    }

    private mutating func readEntry(_ nameRange: Range<Int>, dataSize: Int) throws {
        func name(_ scanner: JSONScanner) -> String { scanner.start(of: nameRange) }
        func lacking(_ scanner: JSONScanner) -> CheckpointError {
            CheckpointError("tensor '\(name(scanner))' lacks its dtype, shape or data_offsets")
        }
        guard scanner.take("{") else {
            try skipScalar()
            throw lacking(scanner)
        }
        var type: Int?
        var shape: [Int]?
        var shapeStart = 0
        var offsets: [Int]?
        scanner.skipSpace()
        guard !scanner.take("}") else { throw lacking(scanner) }
        repeat {
            let key = scanner.text(try scanner.key())
            if key == "dtype" && type != nil || key == "shape" && shape != nil
                || key == "data_offsets" && offsets != nil
            {
                throw scanner.failure("the key '\(key)' occurs twice")
            }
            switch key {
            case "dtype":
                guard scanner.byte == UInt8(ascii: "\"") else { throw lacking(scanner) }
                let word = scanner.text(try scanner.string())
                type = SafetensorsHeader.types.firstIndex { $0.name == word }
                guard type != nil else {
                    throw CheckpointError("tensor '\(name(scanner))' has the unknown dtype \(word.prefix(80))")
                }
            case "shape":
                shapeStart = scanner.position
                guard let sizes = try numbers() else { throw lacking(scanner) }
                shape = try sizes.map {
                    guard let size = Int($0), size >= 0 else {
                        throw CheckpointError("tensor '\(name(scanner))' has the impossible dimension \($0.prefix(80))")
                    }
                    return size
                }
            case "data_offsets":
                guard let texts = try numbers() else { throw lacking(scanner) }
                offsets = texts.compactMap { Int($0) }
            default:
                guard scanner.byte != UInt8(ascii: "{"), scanner.byte != UInt8(ascii: "[") else {
                    throw CheckpointError("tensor '\(name(scanner))' has a member '\(key.prefix(80))' that is no number or word")
                }
                try skipScalar()
            }
        } while try scanner.goesOn(until: "}")
        guard let type, let shape, let offsets else { throw lacking(scanner) }
        let (typeName, typeSize) = SafetensorsHeader.types[type]
        guard let count = product(shape), let size = product([count, typeSize]) else {
            throw CheckpointError("tensor '\(name(scanner))' of shape \(shape) is larger than memory can be")
        }
        guard offsets.count == 2, offsets[0] >= 0, offsets[1] >= offsets[0],
            offsets[1] <= Int.max - scanner.bytes.count - 8
        else { throw CheckpointError("tensor '\(name(scanner))' has impossible data_offsets") }
        guard offsets[1] - offsets[0] == size else {
            throw CheckpointError(
                "tensor '\(name(scanner))' of shape \(shape) and dtype \(typeName) takes \(size) bytes, "
                    + "but its data_offsets hold \(offsets[1] - offsets[0])")
        }
        guard offsets[1] <= dataSize else {
            throw CheckpointError(
                "tensor '\(name(scanner))' ends at byte \(offsets[1]) of the data, which have \(dataSize): "
                    + "the file is truncated or its header wrong")
        }
        rows.append(
            Row(
                nameStart: UInt32(nameRange.lowerBound), nameEnd: UInt32(nameRange.upperBound),
                shapeStart: UInt32(shapeStart), type: UInt8(type), begin: offsets[0], count: count))
    }

    /// The texts of a list of numbers; nil for anything else.
    private mutating func numbers() throws -> [String]? {
        guard scanner.take("[") else { return nil }
        var texts: [String] = []
        scanner.skipSpace()
        if scanner.take("]") { return texts }
        repeat {
            scanner.skipSpace()
            guard scanner.isAtNumber, texts.count < SafetensorsHeader.largestRank else { return nil }
            texts.append(scanner.text(try scanner.number().text))
        } while try scanner.goesOn(until: "]")
        return texts
    }

    /// Goes past a string, a number or a word; what is nested is left where it begins.
    private mutating func skipScalar() throws {
        switch scanner.byte {
        case nil: throw scanner.failure("the text ends too early")
        case UInt8(ascii: "\""): _ = try scanner.string()
        case UInt8(ascii: "t"): try scanner.word("true")
        case UInt8(ascii: "f"): try scanner.word("false")
        case UInt8(ascii: "n"): try scanner.word("null")
        case UInt8(ascii: "["): return
        default:
            guard scanner.isAtNumber else { throw scanner.failure("a value is missing") }
            _ = try scanner.number()
        }
    }

    /// Throws unless the tensors cover the data without holes or overlaps.
    private func checkCover(_ dataSize: Int) throws {
        func end(_ row: Row) -> Int { row.begin + row.count * SafetensorsHeader.types[Int(row.type)].size }
        func precedes(_ a: Row, _ b: Row) -> Bool { (a.begin, end(a)) < (b.begin, end(b)) }
        var order = Array(UInt32(0)..<UInt32(rows.count))
        // Writers put them in their order.
        if zip(rows, rows.dropFirst()).contains(where: { precedes($1, $0) }) {
            order.sort { precedes(rows[Int($0)], rows[Int($1)]) }
        }
        var position = 0
        for index in order {
            let row = rows[Int(index)]
            guard row.begin == position else {
                let what = row.begin < position ? "overlaps the tensor before it" : "leaves a hole before it"
                throw CheckpointError(
                    "tensor '\(start(of: row))' \(what) (it begins at \(row.begin), not \(position))")
            }
            position = end(row)
        }
        guard position == dataSize else {
            throw CheckpointError("has \(dataSize) bytes of data, but its tensors cover \(position)")
        }
    }
}
