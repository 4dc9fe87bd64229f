import Adapters
import Checkpoints
import Foundation
import TensorCore
import VisionModels

/// The settings that `adapter_config.json` has had by other names than their own since the first build.
private let oldKeys = ["adapter-norm": "adapterNorm", "learnable-scale": "learnableScale"]

/// The trained tensors of another method than GLoRA as a folder: LoRA in PEFT's format, the others under their authors' names in
/// `adapter_model.safetensors`, with the method and its settings in `adapter_config.json`:
///
///     {"glora_method": "fact-tk", "glora_method_version": 1, "rank": 16, …, "head_kind": "linear"}
struct MethodAdapter {
    let method: MethodName
    let settings: MethodSettings
    let head: HeadKind
    let tensors: [String: HostTensor]
    /// The keys of `adapterNotes`.
    let extra: [String: JSONValue]

    /// Writes the values that the model has now. Throws `CheckpointError`, and `BackendError.failed`.
    static func save(
        _ model: VisionTransformer, _ options: TrainingOptions, to folder: URL, extra: [String: JSONValue]
    ) throws {
        let values = model.store.unpack(model.store.values)
        let factors = model.lowRankFactors()
        try model.backend.checkForFailure()
        if options.method == .lora, options.head != .batchNorm, let factors {
            return try PEFTAdapter.saveLoRA(
                factors, head: values.filter { $0.key.hasPrefix("head.") }, to: folder,
                names: model.adapterNames, extra: extra)
        }
        var config = try JSONValue(parsing: JSONEncoder().encode(options.methodSettings)).objectValue ?? [:]
        for (name, key) in oldKeys { config[key] = config.removeValue(forKey: name) }
        config["glora_method"] = .string(options.method.rawValue)
        config["glora_method_version"] = 1
        config["head_kind"] = .string(options.head.rawValue)
        try AtomicFile.createFolder(folder)
        try writeSafetensors(
            values, to: folder.appendingPathComponent("adapter_model.safetensors"),
            metadata: ["format": "pt"], digest: true)
        try AtomicFile.write(
            JSONValue.object(config.merging(extra) { $1 }).text(indented: true) + "\n",
            to: folder.appendingPathComponent("adapter_config.json"))
    }

    /// Reads what `save` wrote; nil when the folder's adapter is PEFT's. Throws `CheckpointError`.
    static func load(_ folder: URL) throws -> MethodAdapter? {
        let url = folder.appendingPathComponent("adapter_config.json")
        let config = try JSONValue(contentsOf: url)
        guard let name = config["glora_method"]?.stringValue else { return nil }
        guard let method = MethodName(rawValue: name), config["glora_method_version"] == 1,
            let head = HeadKind(rawValue: config["head_kind"]?.stringValue ?? "")
        else {
            throw CheckpointError("\(url.path) is of a method or a version that this program doesn't know")
        }
        let file = try SafetensorsFile(folder.appendingPathComponent("adapter_model.safetensors"))
        let settings: MethodSettings
        do {
            var named = config.objectValue ?? [:]
            for (name, key) in oldKeys { named[name] = named.removeValue(forKey: key) }
            settings = try JSONDecoder().decode(
                MethodSettings.self, from: Data(JSONValue.object(named).text().utf8))
        } catch {
            throw CheckpointError("\(url.path) holds settings that can't be read; save the adapter again")
        }
        return MethodAdapter(
            method: method, settings: settings, head: head,
            tensors: Dictionary(uniqueKeysWithValues: try file.names.map { ($0, try file.finiteTensor($0)) }),
            extra: (config.objectValue ?? [:]).filter {
                $0.key.hasPrefix("glora_") && !$0.key.hasPrefix("glora_method")
            })
    }

    /// The model of a checkpoint with this adapter's tensors. Throws `CheckpointError` where they don't fit, `MethodError`,
    /// `BackendError`.
    func model(_ checkpoint: ViTCheckpoint, on backend: any Backend) throws -> VisionTransformer {
        let shape = checkpoint.configuration.shape
        let other: any TuningMethod
        do { other = try method.method(settings, for: shape) } catch let error as MethodError {
            throw CheckpointError("the adapter's adapter_config.json can't be meant: \(error)")
        }
        guard let classCount = tensors["head.weight"]?.shape.first, !(other is GLoRA) else {
            throw CheckpointError("the adapter has no head, or is GLoRA's; save it again")
        }
        func require(_ name: String, _ shape: [Int]) throws {
            guard tensors[name]?.shape == shape else {
                throw CheckpointError(
                    "the adapter has no \(name) of shape \(shape); use the model that it was trained on")
            }
        }
        // The settings' sizes are only a claim until the tensors have them.
        for needed in other.declarations(shape, seed: 0) + head.declarations(classCount, shape.width, seed: 0)
        {
            try require(needed.name, needed.shape)
        }
        let model = try VisionTransformer(
            checkpoint, classCount: classCount, method: other, seed: 0, headKind: head, on: backend)
        // Of the base, too, where the method trains that.
        for segment in model.store.segments { try require(segment.name, segment.shape) }
        model.store.pack(model.store.values, tensors)
        return model
    }
}
