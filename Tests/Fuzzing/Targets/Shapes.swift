import CZlib
@testable import Checkpoints
import Foundation
import TensorCore

/// Names and shapes of tensors as a fuzzer changes them easily: `{"cls_token": [1, 1, 8], …}`. The files made of them are
/// consistent, so that an input gets behind the first checks.
struct Shapes {
    let shapes: [(name: String, shape: [Int])]
    /// All elements of all tensors.
    let count: Int

    /// nil when it isn't such a text, or the tensors are larger than `limit` elements.
    init?(_ text: some Sequence<UInt8>, limit: Int) {
        guard let members = try? JSONValue(parsing: text).objectValue else { return nil }
        var shapes: [(String, [Int])] = []
        var count = 0
        for (name, value) in members.sorted(by: { $0.key < $1.key }) {
            let sizes = (value.arrayValue ?? []).compactMap(\.integerValue)
            guard sizes.allSatisfy({ $0 >= 0 }), let size = product(sizes) else { return nil }
            let (sum, overflow) = count.addingReportingOverflow(size)
            guard !overflow, sum <= limit else { return nil }
            count = sum
            shapes.append((name, sizes))
        }
        self.shapes = shapes
        self.count = count
    }

    /// The text of such shapes.
    static func text(_ names: [String], _ shape: (String) -> [Int]?) -> String {
        JSONValue.object(
            Dictionary(
                uniqueKeysWithValues: names.map { ($0, .array((shape($0) ?? []).map { .integer($0) })) })
        ).text()
    }

    /// A safetensors file of float32, up to the data; then 4 · `count` bytes of them.
    func safetensors(metadata: [String: String] = [:]) -> [UInt8] {
        var members: [String: JSONValue] = [:]
        var position = 0
        for (name, shape) in shapes {
            let end = position + 4 * shape.reduce(1, *)
            members[name] = [
                "dtype": "F32", "shape": .array(shape.map { .integer($0) }),
                "data_offsets": [.integer(position), .integer(end)],
            ]
            position = end
        }
        if !metadata.isEmpty { members["__metadata__"] = .object(metadata.mapValues { .string($0) }) }
        let header = Array(JSONValue.object(members).text().utf8)
        return withUnsafeBytes(of: UInt64(header.count).littleEndian, Array.init) + header
    }

    /// An npz archive of float32 zeros.
    func npz() -> [UInt8] {
        storedZip(
            shapes.map { name, shape in
                let sizes = shape.map { "\($0)," }.joined(separator: " ")
                let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (\(sizes)), }\n"
                let start: [UInt8] =
                    [0x93] + Array("NUMPY".utf8) + [
                        1, 0, UInt8(header.utf8.count & 255), UInt8(header.utf8.count >> 8),
                    ]
                return (
                    name + ".npy",
                    start + Array(header.utf8) + [UInt8](repeating: 0, count: 4 * shape.reduce(1, *))
                )
            })
    }
}

/// A zip archive of these members, uncompressed and with their checksums, behind which a fuzzer wouldn't come.
func storedZip(_ members: [(name: String, bytes: [UInt8])]) -> [UInt8] {
    func little(_ value: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }
    var file: [UInt8] = []
    var directory: [UInt8] = []
    for (name, bytes) in members {
        let checksum = Int(crc32(0, bytes, UInt32(bytes.count)))
        let name = Array(name.utf8.prefix(Int(UInt16.max)))
        let common =
            little(0, 2) + little(0, 2) + little(0, 4) + little(checksum, 4) + little(bytes.count, 4)
            + little(bytes.count, 4) + little(name.count, 2) + little(0, 2)
        directory +=
            little(0x0201_4B50, 4) + little(20, 2) + little(20, 2) + common + little(0, 2 + 2 + 2 + 4)
            + little(file.count, 4) + name
        file += little(0x0403_4B50, 4) + little(20, 2) + common + name + bytes
    }
    let end =
        little(0x0605_4B50, 4) + little(0, 4) + little(members.count, 2) + little(members.count, 2)
        + little(directory.count, 4) + little(file.count, 4) + little(0, 2)
    return file + directory + end
}
