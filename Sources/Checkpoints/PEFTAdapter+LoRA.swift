import Adapters
import Foundation
import TensorCore

/// LoRA in PEFT's own format (`peft_type` LORA): y += (lora_alpha / r) · x Aᵀ Bᵀ with `lora_A.weight` [r, in] and
/// `lora_B.weight` [out, r]. Read, it is GLoRA's path B = lowRank (`PEFTLayerReader`).
/// Source: peft/tuners/lora/{config,layer}.py.
extension PEFTAdapter {
    /// Writes updates up · down of Linears by their paths, all of one rank r, with lora_alpha = r: the factors hold the scale.
    /// `head`, `names` and `extra` as in `save`. Throws `CheckpointError`.
    public static func saveLoRA(
        _ layers: [String: LinearFactors], head: [String: HostTensor], to folder: URL,
        names: AdapterNames = .timm, extra: [String: JSONValue] = [:]
    ) throws {
        let rank = layers.values.map { $0.down.shape[0] }.max() ?? 1
        var tensors: [String: HostTensor] = [:]
        for (path, factors) in layers {
            let modules = names.modules(path)
            for (index, module) in modules.enumerated() {
                tensors["base_model.model.\(module).lora_A.weight"] = factors.down
                tensors["base_model.model.\(module).lora_B.weight"] = factors.up.rows(
                    index, of: modules.count)
            }
        }
        let head = names.head(head)
        tensors.merge(head.tensors) { $1 }
        let config: [String: JSONValue] = [
            "auto_mapping": nil, "base_model_name_or_path": nil, "bias": "none", "fan_in_fan_out": false,
            "inference_mode": true, "init_lora_weights": true, "lora_alpha": .integer(rank),
            "lora_dropout": 0,
            "modules_to_save": head.modules.isEmpty ? nil : .array(head.modules.map { .string($0) }),
            "peft_type": "LORA",
            "peft_version": "0.21.0", "r": .integer(rank), "revision": nil,
            "target_modules": .array(
                layers.keys.flatMap(names.modules).sorted().map { .string($0) }), "task_type": nil,
            "use_dora": false, "use_rslora": false,
        ]
        try AtomicFile.createFolder(folder)
        try writeSafetensors(
            tensors, to: folder.appendingPathComponent("adapter_model.safetensors"),
            metadata: ["format": "pt"], digest: true)
        try AtomicFile.write(
            JSONValue.object(config.merging(extra) { $1 }).text(indented: true) + "\n",
            to: folder.appendingPathComponent("adapter_config.json"))
    }
}
