import Foundation
import TensorCore

/// A numpy `.npz` archive open for reading: Google's vision transformers are published so.
///
/// Every member must be an array; its header is read and checked when the archive is opened, its data when they are
/// asked for. Python objects (pickles) are refused, and so is an archive of more than 4 GiB.
/// Source: numpy/lib/format.py (versions 1 to 3 of .npy).
public struct NPZArchive {
    /// What an array's header says.
    struct Header {
        /// numpy's word: <f4, <f2, …
        var type: String
        var isFortranOrder: Bool
        var shape: [Int]
        /// Bytes before the data.
        var length: Int
    }

    private let zip: ZipArchive
    private let arrays: [String: (member: ZipArchive.Member, header: Header)]

    /// The file's path.
    public var path: String { zip.reader.path }
    /// The arrays' names without `.npy`, sorted.
    public var names: [String] { arrays.keys.sorted() }

    /// Opens an archive. Throws `CheckpointError` naming the file and the array at fault.
    public init(_ url: URL) throws {
        zip = try ZipArchive(url)
        var total = 0
        var arrays: [String: (member: ZipArchive.Member, header: Header)] = [:]
        for member in zip.members {
            guard member.name.hasSuffix(".npy") else {
                throw zip.failure("holds '\(member.name)', which is no array")
            }
            let (sum, overflow) = total.addingReportingOverflow(member.size)
            guard !overflow, sum <= 4 << 30 else { throw zip.failure("would take more than 4 GiB of memory") }
            total = sum
            let name = String(member.name.dropLast(4))
            // A header has about 100 bytes; numpy itself refuses more than 10000.
            let bytes = try zip.prefix(of: member, count: 16384)
            let header: Header
            do {
                header = try Header(bytes)
            } catch let error as CheckpointError {
                throw zip.failure("is no archive of plain arrays: '\(name)' \(error.description)")
            }
            guard let size = header.dataSize, member.size - header.length == size else {
                throw zip.failure(
                    "lies about '\(name)': \(header.type) \(header.shape) doesn't take the \(member.size) bytes "
                        + "that the archive says")
            }
            arrays[name] = (member, header)
        }
        self.arrays = arrays
    }

    /// The sizes of an array, outermost first; nil when the archive has none of this name.
    public func shape(of name: String) -> [Int]? { arrays[name]?.header.shape }

    /// An array of little-endian float32, float64 or float16 as float32 in row-major order. Throws `CheckpointError`
    /// when it is missing, of another type, damaged, or longer than its header says.
    public func tensor(_ name: String) throws -> HostTensor {
        guard let (member, header) = arrays[name] else {
            throw CheckpointError("\(path) has no array '\(name)'; check that it is the right file")
        }
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: member.size, alignment: 16)
        defer { bytes.deallocate() }
        try zip.read(member, into: bytes)
        let data = UnsafeRawBufferPointer(rebasing: bytes[header.length...])
        let values: [Float]
        switch header.type {
        case "<f4":
            values = Array(unsafeUninitializedCapacity: data.count / 4) { buffer, initialized in
                UnsafeMutableRawBufferPointer(buffer).copyMemory(from: data)
                initialized = data.count / 4
            }
        case "<f8":
            values = (0..<data.count / 8).map {
                Float(data.loadUnaligned(fromByteOffset: $0 * 8, as: Double.self))
            }
        case "<f2":
            let half = halfLookup()
            values = (0..<data.count / 2).map {
                half(data.loadUnaligned(fromByteOffset: $0 * 2, as: UInt16.self))
            }
        default:
            throw CheckpointError(
                "\(path): array '\(name)' has type '\(header.type)'; convert it to float32 with numpy's astype"
            )
        }
        guard header.isFortranOrder else { return HostTensor(shape: header.shape, values: values) }
        return HostTensor(shape: header.shape, values: rowMajor(values, shape: header.shape))
    }

    /// Column-major values, first index fastest, in row-major order.
    private func rowMajor(_ values: [Float], shape: [Int]) -> [Float] {
        var strides = [Int](repeating: 1, count: shape.count)
        for axis in shape.indices.dropFirst() { strides[axis] = strides[axis - 1] * shape[axis - 1] }
        var index = [Int](repeating: 0, count: shape.count)
        var source = 0
        return (0..<values.count).map { _ in
            let value = values[source]
            for axis in shape.indices.reversed() {
                index[axis] += 1
                source += strides[axis]
                if index[axis] < shape[axis] { break }
                source -= strides[axis] * shape[axis]
                index[axis] = 0
            }
            return value
        }
    }
}

extension NPZArchive.Header {
    /// The size of the data in bytes; nil when it overflows.
    var dataSize: Int? {
        guard let width = Int(type.dropFirst(2)) else { return nil }
        return product(shape + [width])
    }

    /// Parses `\x93NUMPY`, the version, the length and the dictionary
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
    init(_ bytes: [UInt8]) throws {
        guard bytes.count >= 10, Array(bytes[0..<6]) == [0x93] + Array("NUMPY".utf8) else {
            throw CheckpointError("is no .npy array")
        }
        guard (1...3).contains(bytes[6]), bytes[7] == 0 else {
            throw CheckpointError("has the unknown .npy version \(bytes[6]).\(bytes[7])")
        }
        let start = bytes[6] == 1 ? 10 : 12
        guard bytes.count >= start else { throw CheckpointError("is truncated") }
        length = start + bytes.integer(start - 8, at: 8)
        guard length <= bytes.count else {
            throw CheckpointError("has a header that is truncated or too long")
        }
        var text = Substring(String(decoding: bytes[start..<length], as: UTF8.self))
        var members: [String: Substring] = [:]

        func skip(_ prefix: String) -> Bool {
            text = text.drop { $0 == " " || $0 == "\n" }
            guard text.hasPrefix(prefix) else { return false }
            text = text.dropFirst(prefix.count)
            return true
        }
        func upTo(_ end: Character) throws -> Substring {
            guard let index = text.firstIndex(of: end) else { throw CheckpointError("has a damaged header") }
            defer { text = text[text.index(after: index)...] }
            return text[..<index]
        }
        guard skip("{") else { throw CheckpointError("has a damaged header") }
        while !skip("}") {
            guard skip("'") else { throw CheckpointError("has a damaged header") }
            let key = String(try upTo("'"))
            guard skip(":"), members[key] == nil else { throw CheckpointError("has a damaged header") }
            if skip("'") {
                members[key] = try upTo("'")
            } else if skip("(") {
                members[key] = try upTo(")")
            } else if skip("[") {
                throw CheckpointError("holds records rather than numbers")
            } else {
                let word = text.prefix { $0.isLetter }
                text = text.dropFirst(word.count)
                members[key] = word
            }
            _ = skip(",")
        }
        _ = skip("")
        guard text.isEmpty, members.count == 3, let type = members["descr"].map(String.init),
            let order = members["fortran_order"], let sizes = members["shape"],
            order == "True" || order == "False"
        else { throw CheckpointError("has a damaged header") }
        guard !type.contains("O") else {
            throw CheckpointError("is a pickled Python object, which could run code")
        }
        guard type.count >= 3, "<>|=".contains(type.first!), "fiub".contains(type.dropFirst().first!) else {
            throw CheckpointError("has the type '\(type)', which no model's weights have")
        }
        self.type = type
        isFortranOrder = order == "True"
        shape = try sizes.filter { $0 != " " }.split(separator: ",").map {
            guard let size = Int($0), size >= 0 else {
                throw CheckpointError("has the impossible dimension \($0)")
            }
            return size
        }
    }
}
