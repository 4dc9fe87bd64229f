import Foundation
import TensorCore

/// A safetensors file open for reading.
///
///     8 bytes   header length n, little-endian
///     n bytes   {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …, "__metadata__": {…}}
///     the rest  the data, row-major; the offsets count from here and cover it without holes or overlaps
///
/// The whole header is checked when the file is opened; data are read when they are asked for.
/// Source: the format's own library (huggingface/safetensors), whose rules these are.
public final class SafetensorsFile: Sendable {
    /// What the header says of one tensor.
    public struct Entry: Sendable {
        /// The element type in the format's words: F32, BF16, I64, …
        public let type: String
        /// Sizes, outermost first.
        public let shape: [Int]
        /// Where the data begin in the file, in bytes.
        let offset: Int
        /// The number of elements.
        let count: Int
    }

    /// The file's path.
    public var path: String { reader.path }
    /// The tensors by name.
    public let entries: [String: Entry]
    /// The strings under `__metadata__`.
    public let metadata: [String: String]
    private let reader: FileReader

    /// The key under `__metadata__` of the SHA-256 of all else in the file: see `digest`.
    static let digestKey = "glora_digest"

    /// The longest header, in bytes, that the format's library reads.
    static let largestHeader = 100_000_000

    /// Opens the file and checks its header, and by its digest, where it has one, that it is what was written; `remedy` is what
    /// to do when it isn't. Throws `CheckpointError` naming the file and the tensor at fault.
    public init(_ url: URL, remedy: String = "put a copy in its place, or write it again") throws {
        reader = try FileReader(url)
        let path = reader.path
        func failure(_ what: String) -> CheckpointError {
            CheckpointError("\(path): \(what); download or write the file again")
        }
        guard reader.size >= 8 else {
            throw failure("is no safetensors file, having only \(reader.size) bytes")
        }
        guard try reader.elements(UInt8.self, count: 8, at: 0) != Array("version ".utf8) else {
            throw CheckpointError(
                "\(path) is a pointer of Git LFS and not the file itself; fetch it with git lfs pull")
        }
        let length = try reader.elements(UInt64.self, count: 1, at: 0)[0]
        guard length <= SafetensorsFile.largestHeader else {
            throw failure(
                "is no safetensors file, or its header length \(length) is wrong (at most "
                    + "\(SafetensorsFile.largestHeader) bytes)")
        }
        let dataStart = 8 + Int(length)
        guard dataStart <= reader.size else {
            throw failure("is truncated within its header (\(reader.size) of at least \(dataStart) bytes)")
        }
        let bytes = try reader.elements(UInt8.self, count: Int(length), at: 8)
        do {
            let header = try SafetensorsHeader(bytes, dataStart: dataStart, dataSize: reader.size - dataStart)
            (entries, metadata) = (header.entries, header.metadata)
        } catch let error as CheckpointError {
            throw failure(error.description)
        }
        guard try isAsWritten(dataStart) else {
            throw CheckpointError(
                "\(path) is damaged: it has another digest than when it was written; \(remedy)")
        }
    }

    /// The names of all tensors, sorted.
    public var names: [String] { entries.keys.sorted() }

    /// The sizes of a tensor, outermost first; nil when the file has none of this name.
    public func shape(of name: String) -> [Int]? { entries[name]?.shape }

    // MARK: Digest

    /// Of the header without the digest, its tensors by name, and nothing of the data yet, which follow as they lie in the file, from
    /// `dataStart` on.
    static func digest(_ entries: [String: Entry], dataStart: Int, _ metadata: [String: String]) -> Digest {
        let digest = Digest()
        func add(_ text: String) { Array(text.utf8).withUnsafeBytes { digest.add($0) } }
        add(JSONValue.object(metadata.filter { $0.key != digestKey }.mapValues { .string($0) }).text())
        for (name, entry) in entries.sorted(by: { $0.key < $1.key }) {
            add("\(JSONValue.string(name).text()) \(entry.type) \(entry.shape) \(entry.offset - dataStart)\n")
        }
        return digest
    }

    /// Whether the file has the digest that it says; one that says none may be any.
    private func isAsWritten(_ dataStart: Int) throws -> Bool {
        guard let written = metadata[SafetensorsFile.digestKey] else { return true }
        let digest = SafetensorsFile.digest(entries, dataStart: dataStart, metadata)
        for start in stride(from: dataStart, to: reader.size, by: 1 << 20) {
            let count = min(1 << 20, reader.size - start)
            try reader.elements(UInt8.self, count: count, at: start).withUnsafeBytes { digest.add($0) }
        }
        return digest.hexadecimal == written
    }

    // MARK: Data

    private func entry(_ name: String) throws -> Entry {
        guard let entry = entries[name] else {
            throw CheckpointError("\(path) has no tensor '\(name)'; check that it is the right file")
        }
        return entry
    }

    /// A tensor of F32, F64, F16 or BF16 as float32 (F64 rounded to nearest). Throws `CheckpointError` when it is
    /// missing, of another dtype, or can't be read.
    public func tensor(_ name: String) throws -> HostTensor {
        let entry = try entry(name)
        let (count, offset) = (entry.count, entry.offset)
        let values: [Float] =
            switch entry.type {
            case "F32": try reader.elements(Float.self, count: count, at: offset)
            case "F64": try reader.elements(Double.self, count: count, at: offset).map { Float($0) }
            case "F16": try reader.elements(UInt16.self, count: count, at: offset).map(halfLookup())
            case "BF16":
                try reader.elements(UInt16.self, count: count, at: offset).map {
                    Float(bitPattern: UInt32($0) << 16)
                }
            default: throw unfit(name, entry, "F32, F64, F16 or BF16")
            }
        return HostTensor(shape: entry.shape, values: values)
    }

    /// A tensor of F64, F32, F16 or BF16 as doubles, F64 unchanged; errors as `tensor`.
    public func doubles(_ name: String) throws -> [Double] {
        let entry = try entry(name)
        guard entry.type == "F64" else { return try tensor(name).values.map { Double($0) } }
        return try reader.elements(Double.self, count: entry.count, at: entry.offset)
    }

    /// A tensor of I64 or I32; errors as `tensor`.
    public func integers(_ name: String) throws -> [Int] {
        let entry = try entry(name)
        switch entry.type {
        case "I64":
            return try reader.elements(Int64.self, count: entry.count, at: entry.offset).map { Int($0) }
        case "I32":
            return try reader.elements(Int32.self, count: entry.count, at: entry.offset).map { Int($0) }
        default: throw unfit(name, entry, "I64 or I32")
        }
    }

    private func unfit(_ name: String, _ entry: Entry, _ wanted: String) -> CheckpointError {
        CheckpointError("\(path): tensor '\(name)' has dtype \(entry.type); convert it to \(wanted)")
    }
}

/// Every float16 by its bits. x86-64 converts in software: ViT-B took 3.3 s so, and takes 1.1 s by this table.
private let halves = (0...UInt16.max).map { Float(Float16(bitPattern: $0)) }

/// Float32 from the bits of float16.
func halfLookup() -> (UInt16) -> Float {
    // A local copy, so that a look-up doesn't ask each time whether the global one has been made.
    let halves = halves
    return { halves[Int($0)] }
}
