import Adapters
import Foundation
import TensorCore

/// LoRA in PEFT's own format (`peft_type` LORA): y += (lora_alpha / r) · x Aᵀ Bᵀ with `lora_A.weight` [r, in] and
/// `lora_B.weight` [out, r]. Read, it is GLoRA's path B = lowRank with Bd = lora_alpha / r · lora_B and Bu = lora_A.
/// Source: peft/tuners/lora/{config,layer}.py.
extension PEFTAdapter {
    /// Writes updates up · down of Linears by their paths, all of one rank r, with lora_alpha = r: the factors hold the scale.
    /// `head` and `extra` as in `save`. Throws `CheckpointError`.
    public static func saveLoRA(
        _ layers: [String: LinearFactors], head: [String: HostTensor], to folder: URL,
        extra: [String: JSONValue] = [:]
    ) throws {
        let rank = layers.values.map { $0.down.shape[0] }.max() ?? 1
        var tensors: [String: HostTensor] = [:]
        for (path, factors) in layers {
            tensors["base_model.model.\(path).lora_A.weight"] = factors.down
            tensors["base_model.model.\(path).lora_B.weight"] = factors.up
        }
        for (name, tensor) in head { tensors["base_model.model.\(name)"] = tensor }
        let config: [String: JSONValue] = [
            "auto_mapping": nil, "base_model_name_or_path": nil, "bias": "none", "fan_in_fan_out": false,
            "inference_mode": true, "init_lora_weights": true, "lora_alpha": .integer(rank),
            "lora_dropout": 0, "modules_to_save": head.isEmpty ? nil : ["head"], "peft_type": "LORA",
            "peft_version": "0.21.0", "r": .integer(rank), "revision": nil,
            "target_modules": .array(layers.keys.sorted().map { .string($0) }), "task_type": nil,
            "use_dora": false, "use_rslora": false,
        ]
        try AtomicFile.createFolder(folder)
        try writeSafetensors(
            tensors, to: folder.appendingPathComponent("adapter_model.safetensors"),
            metadata: ["format": "pt"])
        try AtomicFile.write(
            JSONValue.object(config.merging(extra) { $1 }).text(indented: true) + "\n",
            to: folder.appendingPathComponent("adapter_config.json"))
    }

    /// Reads a LORA adapter as GLoRA's. What PEFT can do beside plain LoRA on Linears is refused with a sentence. Throws
    /// `CheckpointError`.
    static func loadLoRA(
        _ config: JSONValue, _ file: SafetensorsFile, path configPath: String,
        for configuration: ViTConfiguration
    ) throws -> (adapter: GLoRAAdapter, extra: [String: JSONValue]) {
        func failure(_ what: String) -> CheckpointError { CheckpointError("\(configPath): \(what)") }
        for key in ["use_dora", "fan_in_fan_out"] where config[key] == true {
            throw failure("\(key) is not supported; only plain LoRA is")
        }
        guard config["bias"] == nil || config["bias"] == "none" else {
            throw failure("bias \(config["bias"]!.text()) is not supported; train with bias=\"none\"")
        }
        let usesRoot = config["use_rslora"] == true
        func number(_ key: String, _ pattern: String, _ path: String, _ standard: Double) -> Double {
            // The longest key that the path ends with, as PEFT looks for it.
            let matches = (config[pattern]?.objectValue ?? [:]).filter {
                path == $0.key || path.hasSuffix("." + $0.key)
            }
            let best = matches.max { $0.key.count < $1.key.count }
            return best?.value.numberValue ?? config[key]?.numberValue ?? standard
        }
        var factors: [String: [String: HostTensor]] = [:]
        var head: [String: HostTensor] = [:]
        for name in file.names {
            var parts = name.split(separator: ".").map(String.init)
            guard parts.count > 3, parts[0] == "base_model", parts[1] == "model" else {
                throw CheckpointError(
                    "\(file.path) holds '\(name)', which is no tensor of PEFT's; save it with PEFT")
            }
            parts.removeFirst(2)
            if let index = parts.firstIndex(where: { $0 == "lora_A" || $0 == "lora_B" }) {
                factors[parts[..<index].joined(separator: "."), default: [:]][parts[index]] =
                    try file.tensor(name)
                continue
            }
            if let index = parts.firstIndex(of: "modules_to_save"), index + 2 < parts.count {
                parts.removeSubrange(index...index + 1)
            }
            let target = parts.joined(separator: ".")
            guard target == "head.weight" || target == "head.bias" else {
                throw CheckpointError(
                    "\(file.path) holds '\(name)', but only LoRA's matrices and the head can be loaded")
            }
            head[target] = try file.tensor(name)
        }
        try checkHead(head, configuration, path: file.path)
        guard !factors.isEmpty else { throw CheckpointError("\(file.path) holds no LoRA; save it again") }
        let storage = factors.values.compactMap { $0["lora_A"]?.shape.first }.max() ?? 1
        let known = Set(configuration.linearPaths)
        var layers: [String: GLoRAAdapter.Layer] = [:]
        for (path, pair) in factors {
            guard known.contains(path), let shape = configuration.tensorShapes[path + ".weight"] else {
                throw CheckpointError(
                    "\(file.path) adapts '\(path)', which is no Linear of the model's \(configuration.depth) blocks; "
                        + "use the model that it was trained on")
            }
            guard let a = pair["lora_A"], let b = pair["lora_B"], a.shape.count == 2, a.shape[1] == shape[1],
                b.shape == [shape[0], a.shape[0]]
            else {
                throw CheckpointError(
                    "\(file.path): lora_A and lora_B of '\(path)' are not both there, or of other shapes than the "
                        + "model's \(shape); use the model that it was trained on")
            }
            let rank = a.shape[0]
            let alpha = number("lora_alpha", "alpha_pattern", path, 8)
            let scale = Float(alpha / (usesRoot ? Double(rank).squareRoot() : Double(rank)))
            layers[path] = GLoRAAdapter.Layer.lowRankB(
                down: b, up: a, scale: scale, storage: storage, outputs: shape[0], inputs: shape[1])
        }
        let extra = (config.objectValue ?? [:]).filter { $0.key.hasPrefix("glora_") }
        return (GLoRAAdapter(rank: storage, layers: layers, head: head), extra)
    }
}

extension GLoRAAdapter.Layer {
    /// A layer on the path B = lowRank with Bd = scale · down [out, r] and Bu = up [r, in], in storage of rank `storage`.
    public static func lowRankB(
        down: HostTensor, up: HostTensor, scale: Float, storage: Int, outputs: Int, inputs: Int
    ) -> GLoRAAdapter.Layer {
        let rank = up.shape[0]
        var layer = GLoRAAdapter.Layer.empty(outputs: outputs, inputs: inputs, rank: storage)
        layer.path = GLoRAPath(b: .lowRank(rank))
        for row in 0..<outputs {
            for column in 0..<rank {
                layer.tensors["Bd"]!.values[row * storage + column] =
                    scale * down.values[row * rank + column]
            }
        }
        layer.tensors["Bu"]!.values.replaceSubrange(0..<rank * inputs, with: up.values)
        return layer
    }

    /// A layer on the path none, its storage zero.
    public static func empty(outputs: Int, inputs: Int, rank: Int) -> GLoRAAdapter.Layer {
        func zeros(_ shape: Int...) -> HostTensor { HostTensor(shape: shape, repeating: 0) }
        return GLoRAAdapter.Layer(
            path: .none,
            tensors: [
                "Ad": zeros(outputs, rank), "Au": zeros(rank, inputs), "Bd": zeros(outputs, rank),
                "Bu": zeros(rank, inputs), "Cd": zeros(inputs, rank), "Cu": zeros(rank, 1),
                "D": zeros(outputs), "E": zeros(outputs),
            ])
    }
}
