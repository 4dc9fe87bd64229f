import Adapters
import Foundation
import TensorCore

/// The trained tensors of GLoRA in a model, and its head, without the frozen model.
public struct GLoRAAdapter: Equatable, Sendable {
    /// One Linear's path and support tensors.
    public struct Layer: Equatable, Sendable {
        /// Which forms count.
        public var path: GLoRAPath
        /// Ad, Bd [out, R], Au, Bu [R, in], Cd [in, R], Cu [R, 1], D and E [out], by these names.
        public var tensors: [String: HostTensor]

        /// A layer; `tensors` must hold all eight.
        public init(path: GLoRAPath, tensors: [String: HostTensor]) {
            (self.path, self.tensors) = (path, tensors)
        }
    }

    /// R, the rank of the storage.
    public var rank: Int
    /// The adapted Linears by their path in the model: `blocks.0.attn.qkv`.
    public var layers: [String: Layer]
    /// `head.weight` [classes, D] and `head.bias` [classes], or nothing when the model's own head stays.
    public var head: [String: HostTensor]

    /// An adapter of these parts.
    public init(rank: Int, layers: [String: Layer], head: [String: HostTensor] = [:]) {
        (self.rank, self.layers, self.head) = (rank, layers, head)
    }
}

/// GLoRA in the format of Hugging Face's PEFT 0.21: `adapter_config.json` and `adapter_model.safetensors`.
///
/// PEFT knows one setting for all layers (A and B tied, D and E tied). We always say `lora`, `lora`, `vector`, into
/// which every path can be promoted without loss:
///
///     A, B:  lowRank r → its columns, the others 0;   vector v → Xd[:, 0] = v, Xu[0, :] = 1
///            constant c → Xd[:, 0] = c, Xu[0, :] = 1;   none → Xd = 0
///     C:     likewise, without constant;   D, E:  constant c → c everywhere, none → 0
///
/// `glora_layer_configs` rides along with the paths themselves (PEFT drops unknown keys with a warning).
/// Source: peft/tuners/glora/{config,layer}.py, peft/utils/save_and_load.py.
public enum PEFTAdapter {
    /// The keys of `adapter_config.json` that are PEFT's or this format's own.
    static let reserved: Set<String> = [
        "auto_mapping", "base_model_name_or_path", "bias", "config_A_B", "config_C", "config_D_E",
        "inference_mode",
        "init_weights", "modules_to_save", "peft_type", "peft_version", "r", "revision", "target_modules",
        "task_type",
        "glora_format_version", "glora_layer_configs",
    ]

    /// Writes `adapter` to the folder, which is made, under `names`. `extra` goes into `adapter_config.json` beside PEFT's keys,
    /// none of which it may have. Throws `CheckpointError` as `AtomicFile`.
    public static func save(
        _ adapter: GLoRAAdapter, to folder: URL, names: AdapterNames = .timm, extra: [String: JSONValue] = [:]
    ) throws {
        precondition(reserved.isDisjoint(with: extra.keys), "an extra key is one of PEFT's")
        var tensors: [String: HostTensor] = [:]
        for (path, layer) in adapter.layers {
            let own = names.tensors(path, promoted(layer), changesBias: layer.path.changesBias)
            tensors.merge(own) { $1 }
        }
        let head = names.head(adapter.head)
        tensors.merge(head.tensors) { $1 }

        var config: [String: JSONValue] = [
            "auto_mapping": nil, "base_model_name_or_path": nil, "bias": "none", "config_A_B": "lora",
            "config_C": "lora", "config_D_E": "vector", "inference_mode": true, "init_weights": true,
            "modules_to_save": head.modules.isEmpty ? nil : .array(head.modules.map { .string($0) }),
            "peft_type": "GLORA", "peft_version": "0.21.0", "r": .integer(adapter.rank), "revision": nil,
            "target_modules": .array(
                adapter.layers.keys.flatMap(names.modules).sorted().map { .string($0) }), "task_type": nil,
            "glora_format_version": 1,
        ]
        config["glora_layer_configs"] = .object(adapter.layers.mapValues { table($0.path) })
        let settings = JSONValue.object(config.merging(extra) { $1 })
        try AtomicFile.createFolder(folder)
        try writeSafetensors(
            tensors, to: folder.appendingPathComponent("adapter_model.safetensors"),
            metadata: ["format": "pt"], digest: true)
        try AtomicFile.write(
            settings.text(indented: true) + "\n", to: folder.appendingPathComponent("adapter_config.json"))
    }

    /// PEFT's key of one of our eight names.
    static func key(of name: String) -> String {
        let letter = name.first!
        let part = name.count == 1 ? "X" : "X" + name.dropFirst()
        return "glora_\(letter).\(part)"
    }

    static func table(_ path: GLoRAPath) -> JSONValue {
        [
            "A": .string(path.a.text), "B": .string(path.b.text), "C": .string(path.c.text),
            "D": .string(path.d.text),
            "E": .string(path.e.text),
        ]
    }

    /// The same W and b on the path lowRank, lowRank, lowRank, vector, vector.
    static func promoted(_ layer: GLoRAAdapter.Layer) -> GLoRAAdapter.Layer {
        let rank = layer.tensors["Ad"]!.shape[1]
        var tensors = layer.tensors
        func promote(_ letter: String, columns: Int, isVector: Bool, isConstant: Bool) {
            var down = tensors[letter + "d"]!  // [rows, R]
            let up = tensors[letter + "u"]!  // [R, in]
            for row in 0..<down.shape[0] {
                for column in columns..<rank { down.values[row * rank + column] = 0 }
                if isConstant { down.values[row * rank] = layer.tensors[letter + "d"]!.values[0] }
            }
            tensors[letter + "d"] = down
            let width = up.shape[1]
            if isVector {
                tensors[letter + "u"]!.values.replaceSubrange(0..<width, with: repeatElement(1, count: width))
            }
        }
        for (letter, form) in [("A", layer.path.a), ("B", layer.path.b)] {
            promote(
                letter, columns: form.columnCount, isVector: form == .vector || form == .constant,
                isConstant: form == .constant)
        }
        promote("C", columns: layer.path.c.columnCount, isVector: layer.path.c == .vector, isConstant: false)
        for (letter, form) in [("D", layer.path.d), ("E", layer.path.e)] where form != .vector {
            let value = form == .none ? 0 : tensors[letter]!.values[0]
            tensors[letter] = HostTensor(shape: tensors[letter]!.shape, repeating: value)
        }
        return GLoRAAdapter.Layer(path: .full(rank: rank), tensors: tensors)
    }
}
