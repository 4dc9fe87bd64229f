import TensorCore

/// The header of a safetensors file, read without a tree of values: one of 100 MB takes at most three times that, and what no header
/// has is refused where it is seen.
struct SafetensorsHeader {
    /// The strings under `__metadata__`.
    private(set) var metadata: [String: String] = [:]
    /// The tensors by name.
    private(set) var entries: [String: SafetensorsFile.Entry] = [:]
    private var scanner: JSONScanner
    /// Where the data begin in the file, and how many bytes they are.
    private let dataStart, dataSize: Int

    private static let types: [(name: String, size: Int)] = [
        ("BOOL", 1), ("U8", 1), ("I8", 1), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1), ("U16", 2),
        ("I16", 2), ("F16", 2), ("BF16", 2), ("U32", 4), ("I32", 4), ("F32", 4), ("U64", 8), ("I64", 8),
        ("F64", 8), ("C64", 8),
    ]
    /// numpy's arrays had at most so many dimensions until 2024, PyTorch's tensors have at most 64.
    private static let largestRank = 64
    /// A transformer of 4,096 blocks has so many tensors; of `__metadata__`, some hundred strings are usual.
    private static let largestCount = 65536
    /// Bytes of a name: paths of modules have some hundred at most.
    private static let longestName = 4096

    /// Reads a header; `dataSize` bytes of data follow it from byte `dataStart` of the file on. Throws `CheckpointError` without
    /// the file's name.
    init(_ bytes: [UInt8], dataStart: Int, dataSize: Int) throws {
        (self.dataStart, self.dataSize) = (dataStart, dataSize)
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
                        try readEntry(name)
                    }
                } while try scanner.goesOn(until: "}")
            }
            scanner.skipSpace()
            guard scanner.isAtEnd else { throw scanner.failure("more text after the value") }
        } catch let error as CheckpointError where error.description.hasPrefix("invalid JSON") {
            throw CheckpointError("its header is damaged (\(error.description))")
        }
        try checkCover()
    }

    // MARK: Reading

    private mutating func readMetadata() throws {
        guard scanner.take("{") else { throw CheckpointError("__metadata__ is no object") }
        scanner.skipSpace()
        if scanner.take("}") { return }
        repeat {
            let keyRange = try scanner.key()
            let key = scanner.text(keyRange)
            guard scanner.byte == UInt8(ascii: "\"") else {
                throw CheckpointError("__metadata__ holds something else than strings")
            }
            guard metadata.count < SafetensorsHeader.largestCount else {
                throw CheckpointError(
                    "__metadata__ holds more than \(SafetensorsHeader.largestCount) strings")
            }
            guard metadata.updateValue(try scanner.stringText(), forKey: key) == nil else {
                throw scanner.failure("the key '\(key)' occurs twice")
            }
        } while try scanner.goesOn(until: "}")
    }

    private mutating func readEntry(_ nameRange: Range<Int>) throws {
        guard nameRange.count <= SafetensorsHeader.longestName else {
            throw CheckpointError("has a tensor's name of \(nameRange.count) bytes, which no model has")
        }
        let name = scanner.text(nameRange)
        let shown = name.prefix(200)
        let lacking = CheckpointError("tensor '\(shown)' lacks its dtype, shape or data_offsets")
        guard entries.count < SafetensorsHeader.largestCount else {
            throw CheckpointError(
                "names more than \(SafetensorsHeader.largestCount) tensors, which no vision transformer has")
        }
        guard scanner.take("{") else {
            try skipScalar()
            throw lacking
        }
        var type: Int?
        var shape: [Int]?
        var offsets: [Int]?
        scanner.skipSpace()
        guard !scanner.take("}") else { throw lacking }
        repeat {
            let keyRange = try scanner.key()
            let key = scanner.text(keyRange)
            if key == "dtype" && type != nil || key == "shape" && shape != nil
                || key == "data_offsets" && offsets != nil
            {
                throw scanner.failure("the key '\(key)' occurs twice")
            }
            switch key {
            case "dtype":
                guard scanner.byte == UInt8(ascii: "\"") else { throw lacking }
                let word = try scanner.stringText()
                type = SafetensorsHeader.types.firstIndex { $0.name == word }
                guard type != nil else {
                    throw CheckpointError("tensor '\(shown)' has the unknown dtype \(word.prefix(80))")
                }
            case "shape":
                guard let sizes = try numbers() else { throw lacking }
                shape = try sizes.map {
                    guard let size = Int($0), size >= 0 else {
                        throw CheckpointError(
                            "tensor '\(shown)' has the impossible dimension \($0.prefix(80))")
                    }
                    return size
                }
            case "data_offsets":
                guard let texts = try numbers() else { throw lacking }
                offsets = texts.compactMap { Int($0) }
            default:
                guard scanner.byte != UInt8(ascii: "{"), scanner.byte != UInt8(ascii: "[") else {
                    throw CheckpointError(
                        "tensor '\(shown)' has a member '\(key.prefix(80))' that is no number or word")
                }
                try skipScalar()
            }
        } while try scanner.goesOn(until: "}")
        guard let type, let shape, let offsets else { throw lacking }
        let (typeName, typeSize) = SafetensorsHeader.types[type]
        guard let count = product(shape), let size = product([count, typeSize]) else {
            throw CheckpointError("tensor '\(shown)' of shape \(shape) is larger than memory can be")
        }
        guard offsets.count == 2, offsets[0] >= 0, offsets[1] >= offsets[0],
            offsets[1] <= Int.max - dataStart
        else { throw CheckpointError("tensor '\(shown)' has impossible data_offsets") }
        guard offsets[1] - offsets[0] == size else {
            throw CheckpointError(
                "tensor '\(shown)' of shape \(shape) and dtype \(typeName) takes \(size) bytes, "
                    + "but its data_offsets hold \(offsets[1] - offsets[0])")
        }
        guard offsets[1] <= dataSize else {
            throw CheckpointError(
                "tensor '\(shown)' ends at byte \(offsets[1]) of the data, which have \(dataSize): "
                    + "the file is truncated or its header wrong")
        }
        let entry = SafetensorsFile.Entry(
            type: typeName, shape: shape, offset: dataStart + offsets[0], count: count)
        guard entries.updateValue(entry, forKey: name) == nil else {
            throw scanner.failure("the key '\(shown)' occurs twice")
        }
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
            let number = try scanner.number().text
            texts.append(scanner.text(number))
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
    private func checkCover() throws {
        let ranges = entries.map { name, entry in
            let size = entry.count * SafetensorsHeader.types.first { $0.name == entry.type }!.size
            return (name: name, begin: entry.offset - dataStart, end: entry.offset - dataStart + size)
        }
        var position = 0
        for range in ranges.sorted(by: { ($0.begin, $0.end) < ($1.begin, $1.end) }) {
            guard range.begin == position else {
                let what =
                    range.begin < position ? "overlaps the tensor before it" : "leaves a hole before it"
                throw CheckpointError(
                    "tensor '\(range.name.prefix(200))' \(what) (it begins at \(range.begin), not \(position))"
                )
            }
            position = range.end
        }
        guard position == dataSize else {
            throw CheckpointError("has \(dataSize) bytes of data, but its tensors cover \(position)")
        }
    }
}
