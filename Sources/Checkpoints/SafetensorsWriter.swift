import Foundation
import TensorCore

/// Writes a safetensors file, all tensors as F32 or, rounded to nearest even, as F16.
///
/// The same tensors always give the same bytes. With `digest` the file tells by `SafetensorsFile.digestKey` whether it is still
/// what was written. Throws `CheckpointError` as `AtomicFile`, and when a value is too large for F16.
public func writeSafetensors(
    _ tensors: [String: HostTensor], to url: URL, metadata: [String: String] = [:], float16: Bool = false,
    digest: Bool = false
) throws {
    try writeSafetensors(tensors, to: url, metadata: metadata, digest: digest) { _ in float16 }
}

/// Writes a safetensors file, the tensors that `storesAsFloat16` names as F16 and the others as F32; otherwise as
/// above.
public func writeSafetensors(
    _ tensors: [String: HostTensor], to url: URL, metadata: [String: String] = [:], digest: Bool = false,
    storesAsFloat16: (String) -> Bool
) throws {
    precondition(tensors["__metadata__"] == nil, "a tensor can't have the name __metadata__")
    // As the format's library orders them: the wide types first, so that all stay aligned; then by name.
    let types = Dictionary(uniqueKeysWithValues: tensors.keys.map { ($0, storesAsFloat16($0) ? 2 : 4) })
    let names = tensors.keys.sorted { (types[$1]!, $0) < (types[$0]!, $1) }

    var entries: [String: SafetensorsFile.Entry] = [:]
    var position = 0
    for name in names {
        let tensor = tensors[name]!
        entries[name] = SafetensorsFile.Entry(
            type: types[name] == 2 ? "F16" : "F32", shape: tensor.shape, offset: position,
            count: tensor.values.count)
        position += tensor.values.count * types[name]!
    }
    func forEachPart(_ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        for name in names {
            let values = tensors[name]!.values
            if types[name] == 4 {
                try values.withUnsafeBytes(body)
            } else {
                try float16(values, name: name, path: url.path).withUnsafeBytes(body)
            }
        }
    }
    var metadata = metadata
    if digest {
        let digest = SafetensorsFile.digest(entries, dataStart: 0, metadata)
        try forEachPart { digest.add($0) }
        metadata[SafetensorsFile.digestKey] = digest.hexadecimal
    }

    let header = try safetensorsHeader(names, entries, metadata, path: url.path)
    try AtomicFile.write(to: url) { writer in
        try header.withUnsafeBytes { try writer.write($0) }
        try forEachPart { try writer.write($0) }
    }
}

/// Writes a safetensors file of float32 tensors, of these names and shapes and in this order, as they come: for what doesn't fit into
/// memory. `body` is given what appends values, row-major, one tensor after the other. Traps unless they are all there in the end.
/// Throws `CheckpointError` as `AtomicFile`, and what `body` throws.
package func writeSafetensors(
    _ shapes: [(name: String, shape: [Int])], to url: URL, metadata: [String: String] = [:],
    _ body: (@escaping (_ values: [Float]) throws -> Void) throws -> Void
) throws {
    var entries: [String: SafetensorsFile.Entry] = [:]
    var count = 0
    for (name, shape) in shapes {
        let own = shape.reduce(1, *)
        entries[name] = SafetensorsFile.Entry(type: "F32", shape: shape, offset: 4 * count, count: own)
        count += own
    }
    let header = try safetensorsHeader(shapes.map(\.name), entries, metadata, path: url.path)
    try AtomicFile.write(to: url) { writer in
        try header.withUnsafeBytes { try writer.write($0) }
        try body { values in
            count -= values.count
            try values.withUnsafeBytes { try writer.write($0) }
        }
        precondition(count == 0, "\(url.path): \(count) values are missing")
    }
}

/// The length and the header of a file with these tensors in this order. Throws `CheckpointError` where the format's library would
/// refuse its length.
private func safetensorsHeader(
    _ names: [String], _ entries: [String: SafetensorsFile.Entry], _ metadata: [String: String], path: String
) throws -> [UInt8] {
    var header = "{"
    if !metadata.isEmpty {
        header += "\"__metadata__\": " + JSONValue.object(metadata.mapValues { .string($0) }).text()
    }
    for name in names {
        let entry = entries[name]!
        let value: JSONValue = [
            "dtype": .string(entry.type), "shape": .array(entry.shape.map { .integer($0) }),
            "data_offsets": [
                .integer(entry.offset), .integer(entry.offset + entry.count * (entry.type == "F16" ? 2 : 4)),
            ],
        ]
        header += (header == "{" ? "" : ", ") + JSONValue.string(name).text() + ": " + value.text()
    }
    header += "}"
    var bytes = Array(header.utf8)
    // Spaces, so that the data begin at a multiple of 8 bytes.
    bytes += Array(repeating: UInt8(ascii: " "), count: (8 - bytes.count % 8) % 8)
    guard bytes.count <= SafetensorsFile.largestHeader else {
        throw CheckpointError(
            "cannot write \(path): its header would be \(bytes.count) bytes long, and the format's library reads "
                + "\(SafetensorsFile.largestHeader); write fewer at a time")
    }
    return withUnsafeBytes(of: UInt64(bytes.count).littleEndian) { Array($0) } + bytes
}

private func float16(_ values: [Float], name: String, path: String) throws -> [Float16] {
    let halves = values.map { Float16($0) }
    if let index = halves.indices.first(where: { halves[$0].isInfinite && values[$0].isFinite }) {
        throw CheckpointError(
            "cannot write \(path): tensor '\(name)' holds \(values[index]), more than float16 can; write float32"
        )
    }
    return halves
}
