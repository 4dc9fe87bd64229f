import Foundation
import TensorCore

extension PEFTAdapter {
    /// Reads an adapter that `save` wrote or PEFT trained on this model, in whichever names.
    ///
    /// The forms are the ones that the file says, with the tensors in entangled storage of the file's rank; one of
    /// ours comes back on its own paths when its tensors still say what its table does, else on promoted ones. Adapters of
    /// Hugging Face's query, key and value become one of the fused qkv, of the sum of their ranks.
    /// `extra` are the keys of ours beside PEFT's, `notes` what was passed over, a sentence each. Throws `CheckpointError`
    /// naming the file and the tensor or the key at fault.
    public static func load(
        _ folder: URL, for checkpoint: ViTCheckpoint
    ) throws -> (adapter: GLoRAAdapter, extra: [String: JSONValue], notes: [String]) {
        let settings = try PEFTSettings(folder.appendingPathComponent("adapter_config.json"))
        let reader = try Reader(
            settings: settings, tensors: PEFTTensors(weights(folder), settings.kind), checkpoint: checkpoint)
        let (adapter, adapted) = try reader.adapter()
        return (adapter, settings.extra, try settings.unusedPatterns(adapted))
    }

    private static func weights(_ folder: URL) throws -> SafetensorsFile {
        let url = folder.appendingPathComponent("adapter_model.safetensors")
        let pickle = folder.appendingPathComponent("adapter_model.bin").path
        if !FileManager.default.fileExists(atPath: url.path), FileManager.default.fileExists(atPath: pickle) {
            throw CheckpointError(
                "\(pickle) is a pickle, which could run code; load and save the adapter with a newer PEFT, which writes "
                    + "adapter_model.safetensors")
        }
        return try SafetensorsFile(url)
    }
}

/// Reads the layers and the head, and sees that the configuration names the modules that the file holds.
private struct Reader {
    let settings: PEFTSettings
    let tensors: PEFTTensors
    let checkpoint: ViTCheckpoint

    /// The adapter, and the names of the modules that it adapts.
    func adapter() throws -> (GLoRAAdapter, adapted: [String]) {
        // The names of most of them; the sentence about another says what is wrong with it.
        let names = Set(tensors.adapted.keys).union(tensors.whole.keys)
        let modules = PEFTModules.namings(checkpoint.configuration).max {
            $0.count(of: names) < $1.count(of: names)
        }!
        var head: [String: HostTensor] = [:]
        for (module, names) in tensors.whole.sorted(by: { $0.key < $1.key }) {
            head.merge(try self.head(module, names, modules)) { $1 }
        }
        try TimmNames.joinHeads(&head, width: checkpoint.configuration.width, path: tensors.file.path)
        try checkHead(head, modules)
        var parts: [String: [(rows: Range<Int>, layer: GLoRAAdapter.Layer)]] = [:]
        for (module, names) in tensors.adapted.sorted(by: { $0.key < $1.key }) {
            let (path, rows) = try linear(module, modules)
            let layer = try layer(module, names, path: path, outputs: rows.count)
            parts[path, default: []].append((rows, layer))
        }
        try checkTargets(modules)
        guard !parts.isEmpty || (settings.kind == .glora && !head.isEmpty) else {
            throw CheckpointError("\(tensors.file.path) holds no \(settings.kind.name) layers; save it again")
        }
        return (assembled(parts, head), tensors.adapted.keys.sorted())
    }

    private func linear(_ module: String, _ modules: PEFTModules) throws -> (path: String, rows: Range<Int>) {
        switch modules.modules[module] {
        case .linear(let path, let rows)?: return (path, rows)
        case let other?: throw unsupported(module, other, modules)
        case nil:
            throw CheckpointError(
                "\(tensors.file.path) adapts '\(module)', which is no Linear of the model's "
                    + "\(checkpoint.configuration.depth) blocks; use the model that it was trained on")
        }
    }

    private func unsupported(_ module: String, _ kind: PEFTModules.Module, _ modules: PEFTModules)
        -> CheckpointError
    {
        let advice =
            kind == .head
            ? "train it whole, with modules_to_save=\(modules.headList)"
            : "adapt the Linears of the blocks alone"
        return CheckpointError(
            "\(settings.path): \(settings.kind.name) on \(kind.name) ('\(module)') is not supported; \(advice)"
        )
    }

    /// Every module that the configuration names is in the file and can be adapted, and none else is in the file.
    private func checkTargets(_ modules: PEFTModules) throws {
        let sparesHead = modules.isTransformers && settings["task_type"] == "SEQ_CLS"
        for (module, kind) in modules.modules.sorted(by: { $0.key < $1.key }) {
            let isLinear: Bool
            switch kind {
            case .linear: isLinear = true
            case .head: isLinear = !sparesHead
            case .norm, .patches: isLinear = false
            }
            let isNamed = try settings.adapts(module, isLinear: isLinear)
            if isNamed, kind == .head || kind == .norm || kind == .patches {
                throw unsupported(module, kind, modules)
            }
            guard isNamed == (tensors.adapted[module] != nil) else {
                throw CheckpointError(
                    isNamed
                        ? "\(tensors.file.path) lacks the tensors of '\(module)', one of its target_modules; save it again"
                        : "\(tensors.file.path) holds tensors of '\(module)', which adapter_config.json doesn't name, so "
                            + "that PEFT would pass them over; save it again")
            }
        }
    }

    // MARK: Layers

    private func layer(
        _ module: String, _ names: [String: String], path: String, outputs: Int
    ) throws -> GLoRAAdapter.Layer {
        let shapes = checkpoint.configuration.tensorShapes
        let layer = PEFTLayerReader(
            settings: settings, tensors: tensors, module: module, names: names, outputs: outputs,
            inputs: shapes[path + ".weight"]![1], hasBias: shapes[path + ".bias"] != nil,
            mayLackBias: AdapterNames.timmAddsBias(checkpoint.configuration) && path.hasSuffix("attn.qkv"))
        switch settings.kind {
        case .lora: return try layer.lora()
        case .glora: return try layer.glora(table: settings["glora_layer_configs"]?[path])
        }
    }

    private func assembled(
        _ parts: [String: [(rows: Range<Int>, layer: GLoRAAdapter.Layer)]], _ head: [String: HostTensor]
    ) -> GLoRAAdapter {
        let shapes = checkpoint.configuration.tensorShapes
        let layers = parts.map { path, parts in
            let isWhole = parts[0].rows.count == shapes[path + ".weight"]![0]
            return (
                path,
                isWhole
                    ? parts[0].layer
                    : .fused(
                        parts, weight: checkpoint.tensors[path + ".weight"]!,
                        hasBias: shapes[path + ".bias"] != nil)
            )
        }
        let rank = layers.map { $0.1.tensors["Au"]!.shape[0] }.max() ?? settings.rank
        return GLoRAAdapter(
            rank: rank,
            layers: Dictionary(uniqueKeysWithValues: layers.map { ($0, $1.stored(rank: rank)) }), head: head)
    }

    // MARK: Head

    /// The tensors of a module that was saved whole, which only the head can be.
    private func head(
        _ module: String, _ names: [String: String], _ modules: PEFTModules
    ) throws -> [String: HostTensor] {
        let path = tensors.file.path
        let kind = modules.modules[module]
        guard kind == .head else {
            let name = names.values.min()!
            throw CheckpointError(
                kind.map {
                    "\(path) holds '\(name)', \($0.name) that was trained whole, but only the head can be; train the rest frozen"
                }
                    ?? "\(path) holds '\(name)', but only \(settings.kind.name)'s matrices and the head can be loaded; "
                    + "train it with modules_to_save=\(modules.headList)")
        }
        if let other = names.filter({ !["weight", "bias"].contains($0.key) }).values.min() {
            throw CheckpointError("\(path) holds '\(other)', which is no part of the head; save it again")
        }
        return Dictionary(
            uniqueKeysWithValues: try names.map {
                (
                    (module == modules.heads[0] ? "head." : "second head.") + $0.key,
                    try tensors.tensor($0.value)
                )
            })
    }

    private func checkHead(_ head: [String: HostTensor], _ modules: PEFTModules) throws {
        let path = tensors.file.path
        for (module, kind) in modules.modules.sorted(by: { $0.key < $1.key })
        where settings.savesWhole(module) {
            guard kind == .head else {
                throw CheckpointError(
                    "\(settings.path): modules_to_save names '\(module)', \(kind.name), but only the head can be trained "
                        + "whole; train the rest frozen")
            }
            if head.isEmpty {
                throw CheckpointError(
                    "\(path) lacks the tensors of '\(module)', one of its modules_to_save; save it again")
            }
        }
        guard !head.isEmpty else { return }
        guard let weight = head["head.weight"], let bias = head["head.bias"] else {
            throw CheckpointError("\(path) holds only half of the head; save it again")
        }
        let width = checkpoint.configuration.featureWidth
        guard weight.shape.count == 2, weight.shape[0] > 0, weight.shape[1] == width,
            bias.shape == [weight.shape[0]]
        else {
            throw CheckpointError(
                "\(path): the head has shapes \(weight.shape) and \(bias.shape), but it reads \(width) features; "
                    + "use the model that it was trained on")
        }
    }
}
