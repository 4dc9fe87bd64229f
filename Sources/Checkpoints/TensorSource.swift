import Foundation
import TensorCore

/// A file, or several that make one, whose tensors are read by name.
protocol TensorSource {
    var path: String { get }
    var names: [String] { get }
    func shape(of name: String) -> [Int]?
    func tensor(_ name: String) throws -> HostTensor
}

extension SafetensorsFile: TensorSource {}
extension NPZArchive: TensorSource {}

/// Hugging Face's sharded weights: `model.safetensors.index.json` names the file of each tensor.
struct ShardedSafetensors: TensorSource {
    let path: String
    private let files: [String: SafetensorsFile]

    init(_ folder: URL) throws {
        let url = folder.appendingPathComponent("model.safetensors.index.json")
        path = url.path
        guard let map = try JSONValue(contentsOf: url)["weight_map"]?.objectValue else {
            throw CheckpointError("\(path) has no weight_map; download it again")
        }
        var shards: [String: SafetensorsFile] = [:]
        var files: [String: SafetensorsFile] = [:]
        for (name, value) in map {
            guard let shard = value.stringValue, !shard.contains("/"), shard.hasSuffix(".safetensors") else {
                throw CheckpointError("\(path) gives no file beside it for '\(name)'; download it again")
            }
            let file = try shards[shard] ?? SafetensorsFile(folder.appendingPathComponent(shard))
            shards[shard] = file
            guard file.entries[name] != nil else {
                throw CheckpointError(
                    "\(file.path) lacks '\(name)', which the index promises; download it again")
            }
            files[name] = file
        }
        self.files = files
    }

    var names: [String] { files.keys.sorted() }
    func shape(of name: String) -> [Int]? { files[name]?.shape(of: name) }
    func tensor(_ name: String) throws -> HostTensor { try files[name]!.tensor(name) }
}

/// How one of timm's tensors is made from those of a file: the parts, one below the other.
struct TensorRecipe {
    /// How a part's values lie in the file.
    enum Layout {
        /// In timm's order.
        case same
        /// [in, out] in place of [out, in], whatever the dimensions are split into.
        case transposed
        /// A convolution's kernel [height, width, in, out] in place of [out, in, height, width].
        case channelsLast
    }

    /// timm's shape.
    var shape: [Int]
    /// The names and shapes in the file.
    var parts: [(name: String, shape: [Int])]
    var layout = Layout.same
}

extension TensorSource {
    func shape(orThrow name: String, rank: Int) throws -> [Int] {
        guard let shape = shape(of: name) else {
            throw CheckpointError(
                "\(path) has no tensor '\(name)'; it is no vision transformer of a known format")
        }
        guard shape.count == rank else {
            throw CheckpointError(
                "\(path): tensor '\(name)' has shape \(shape), not \(rank) dimensions; check the file")
        }
        return shape
    }

    /// Throws at the first tensor that belongs to another kind of transformer: their other shapes would otherwise
    /// be reported in its place.
    func refuseUnknownParts(except known: Set<String> = []) throws {
        for name in names {
            guard let part = foreignParts.first(where: { name.contains($0.0) && !known.contains($0.0) })
            else {
                continue
            }
            throw CheckpointError(
                "\(path) holds '\(name)', \(part.1), which this program doesn't compute; use another model")
        }
    }

    /// Checks all names and shapes, then reads: a wrong file is refused before gigabytes of it are.
    /// `ignored` says which unused tensors don't matter.
    func read(_ recipes: [String: TensorRecipe], ignored: (String) -> Bool) throws -> [String: HostTensor] {
        for (_, recipe) in recipes.sorted(by: { $0.key < $1.key }) {
            for part in recipe.parts {
                guard let shape = shape(of: part.name) else {
                    throw CheckpointError(
                        "\(path) lacks the tensor '\(part.name)' of shape \(part.shape); it is incomplete or not a plain ViT"
                    )
                }
                guard shape == part.shape else {
                    throw CheckpointError(
                        "\(path): tensor '\(part.name)' has shape \(shape), but the rest of the model needs "
                            + "\(part.shape); check the file and its configuration")
                }
            }
        }
        let used = Set(recipes.values.flatMap { $0.parts.map(\.name) })
        let unexpected = names.filter { !used.contains($0) && !ignored($0) }
        if let first = unexpected.first {
            let others = unexpected.count > 1 ? " and \(unexpected.count - 1) more" : ""
            throw CheckpointError(
                "\(path) holds '\(first)'\(others), of which this program knows nothing; use a plain ViT")
        }
        return try recipes.mapValues { recipe in
            var values: [Float] = []
            for part in recipe.parts {
                let name = part.name
                let part = try tensor(name).values
                try requireFinite(part, name)
                let rows = recipe.shape[0] / recipe.parts.count
                switch recipe.layout {
                case .same: values = recipe.parts.count == 1 ? part : values + part
                case .transposed: values += transposed(part, rows: part.count / rows, columns: rows)
                case .channelsLast:
                    // [h·w, i, o] → [o, h·w, i] → per output [i, h·w].
                    let (I, HW) = (recipe.shape[1], recipe.shape[2] * recipe.shape[3])
                    let kernels = transposed(part, rows: part.count / rows, columns: rows)
                    for row in 0..<rows {
                        values += transposed(
                            Array(kernels[row * I * HW..<(row + 1) * I * HW]), rows: HW, columns: I)
                    }
                }
            }
            return HostTensor(shape: recipe.shape, values: values)
        }
    }
}

extension TensorSource {
    /// Throws at a value that is NaN or infinite, and when there is no value. It takes as long as reading the values from memory does: 50 ms for
    /// ViT-B's 86 million on a busy machine.
    func requireFinite(_ values: [Float], _ name: String) throws {
        guard !values.isEmpty else {
            throw CheckpointError(
                "\(path): tensor '\(name)' of shape \(shape(of: name) ?? []) holds no values; write the file again"
            )
        }
        // The exponent's bits are all ones in such a value alone, and adding one then reaches the sign's bit.
        let bits = values.withUnsafeBufferPointer { values in
            values.reduce(UInt32(0)) { $0 | (($1.bitPattern & 0x7F80_0000) &+ 0x0080_0000) }
        }
        guard bits & 0x8000_0000 != 0 else { return }
        let index = values.firstIndex { !$0.isFinite }!
        let count = values.count { !$0.isFinite }
        throw CheckpointError(
            "\(path): tensor '\(name)' holds \(values[index]) at element \(index)\(count > 1 ? " and \(count - 1) more such values" : ""); "
                + "its training has diverged or the file is damaged: use an earlier checkpoint or download it again"
        )
    }
}

/// [rows, columns] → [columns, rows].
func transposed(_ values: [Float], rows: Int, columns: Int) -> [Float] {
    Array(unsafeUninitializedCapacity: values.count) { buffer, initialized in
        values.withUnsafeBufferPointer { source in
            for column in 0..<columns {
                for row in 0..<rows { buffer[column * rows + row] = source[row * columns + column] }
            }
        }
        initialized = values.count
    }
}

/// Parts of other transformers, by what their tensors' names contain.
private let foreignParts = [
    ("dist_token", "a distillation token"), ("distillation", "a distillation token"),
    ("head_dist", "a second head"),
    ("gamma", "a LayerScale"), ("lambda", "a LayerScale"), ("pre_logits", "a layer before the head"),
    ("reg_token", "register tokens"), ("register", "register tokens"),
    ("norm_pre", "a LayerNorm before the blocks"),
    ("q_norm", "a LayerNorm of the queries"), ("k_norm", "a LayerNorm of the keys"),
    ("attn_pool", "an attention pooling"), ("MAPHead", "an attention pooling"),
    ("rel_pos", "relative positions"),
    ("relative_position", "relative positions"),
]
