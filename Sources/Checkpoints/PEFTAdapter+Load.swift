import Adapters
import Foundation
import TensorCore

extension PEFTAdapter {
    /// Reads an adapter that `save` wrote or PEFT trained, for a model of the given configuration.
    ///
    /// The forms are the ones that the file says, with the tensors in entangled storage of the file's rank; one of
    /// ours comes back on its own paths when its tensors still say what its table does, else on promoted ones.
    /// `extra` are the keys beside PEFT's. Throws `CheckpointError` naming the file and the tensor at fault.
    public static func load(
        _ folder: URL, for configuration: ViTConfiguration
    ) throws -> (adapter: GLoRAAdapter, extra: [String: JSONValue]) {
        let url = folder.appendingPathComponent("adapter_config.json")
        let config = try JSONValue(contentsOf: url)
        if config["peft_type"] == "LORA" {
            let file = try SafetensorsFile(folder.appendingPathComponent("adapter_model.safetensors"))
            return try loadLoRA(config, file, path: url.path, for: configuration)
        }
        let settings = try Settings(config, path: url.path)
        let file = try SafetensorsFile(folder.appendingPathComponent("adapter_model.safetensors"))

        // "base_model.model.blocks.0.attn.qkv.glora_A.Xd" → path, key; a name of the adapter may stand before Xd.
        var layerKeys: [String: [String: String]] = [:]
        var head: [String: HostTensor] = [:]
        for name in file.names {
            guard name.hasPrefix("base_model.model.") else {
                throw CheckpointError(
                    "\(file.path) holds '\(name)', which is no tensor of PEFT's; save it with PEFT")
            }
            var parts = name.split(separator: ".").dropFirst(2).map(String.init)
            if let index = parts.firstIndex(where: { $0.hasPrefix("glora_") }), index + 1 < parts.count {
                let path = parts[..<index].joined(separator: ".")
                layerKeys[path, default: [:]][parts[index] + "." + parts.last!] = name
            } else {
                if let index = parts.firstIndex(of: "modules_to_save"), index + 2 < parts.count {
                    parts.removeSubrange(index...index + 1)
                }
                let target = parts.joined(separator: ".")
                guard target == "head.weight" || target == "head.bias" else {
                    throw CheckpointError(
                        "\(file.path) holds '\(name)', but only GLoRA's tensors and the head can be loaded; "
                            + "train it with modules_to_save=[\"head\"]")
                }
                head[target] = try file.tensor(name)
            }
        }
        try checkHead(head, configuration, path: file.path)
        guard !layerKeys.isEmpty || !head.isEmpty else {
            throw CheckpointError("\(file.path) holds no adapter; save it again")
        }
        var layers: [String: GLoRAAdapter.Layer] = [:]
        let paths = Set(configuration.linearPaths)
        for (path, keys) in layerKeys.sorted(by: { $0.key < $1.key }) {
            guard paths.contains(path), let shape = configuration.tensorShapes[path + ".weight"] else {
                throw CheckpointError(
                    "\(file.path) adapts '\(path)', which is no Linear of the model's \(configuration.depth) blocks; "
                        + "use the model that it was trained on")
            }
            let reader = LayerReader(
                file: file, settings: settings, path: path, keys: keys, outputs: shape[0], inputs: shape[1])
            layers[path] = try reader.layer(table: settings.table?[path])
        }
        if let missing = settings.targets.first(where: { paths.contains($0) && layers[$0] == nil }) {
            throw CheckpointError(
                "\(file.path) lacks the tensors of '\(missing)', one of its target_modules; save it again")
        }
        let adapter = GLoRAAdapter(rank: settings.rank, layers: layers, head: head)
        return (adapter, settings.extra)
    }

    static func checkHead(
        _ head: [String: HostTensor], _ configuration: ViTConfiguration, path: String
    ) throws {
        guard !head.isEmpty else { return }
        guard let weight = head["head.weight"], let bias = head["head.bias"] else {
            throw CheckpointError("\(path) holds only half of the head; save it again")
        }
        guard weight.shape.count == 2, weight.shape[0] > 0, weight.shape[1] == configuration.width,
            bias.shape == [weight.shape[0]]
        else {
            throw CheckpointError(
                "\(path): the head has shapes \(weight.shape) and \(bias.shape), but the model's width is "
                    + "\(configuration.width); use the model that it was trained on")
        }
    }
}

/// What `adapter_config.json` says.
private struct Settings {
    var rank: Int
    var forms: [String: String] = [:]
    var targets: [String]
    var table: [String: JSONValue]?
    var extra: [String: JSONValue]

    init(_ config: JSONValue, path: String) throws {
        func failure(_ what: String) -> CheckpointError { CheckpointError("\(path): \(what)") }
        let type = config["peft_type"]?.stringValue ?? ""
        guard type == "GLORA" else {
            throw failure("adapters of type '\(type)' can't be loaded; only PEFT's GLORA and LORA can")
        }
        if let version = config["glora_format_version"], version != 1 {
            throw failure("format version \(version.text()) is newer than this program; use a newer one")
        }
        guard config["bias"] == nil || config["bias"] == "none" else {
            throw failure("bias \(config["bias"]!.text()) is not supported; train with bias=\"none\"")
        }
        rank = config["r"]?.integerValue ?? 8
        guard (1...65536).contains(rank) else { throw failure("r = \(rank) is no rank; correct it") }
        let choices = [
            ("config_A_B", "lora", ["lora", "vector", "constant", "none"]),
            ("config_C", "lora", ["lora", "vector", "none"]),
            ("config_D_E", "constant", ["vector", "constant", "none"]),
        ]
        for (key, standard, words) in choices {
            let form = config[key].map { $0.stringValue ?? $0.text() } ?? standard
            guard words.contains(form) else {
                throw failure("\(key) = '\(form)' is unknown; use \(words.joined(separator: ", "))")
            }
            for letter in key.dropFirst("config_".count).split(separator: "_") {
                forms[String(letter)] = form
            }
        }
        targets = config["target_modules"]?.arrayValue?.compactMap(\.stringValue) ?? []
        table = config["glora_layer_configs"]?.objectValue
        extra = (config.objectValue ?? [:]).filter { !PEFTAdapter.reserved.contains($0.key) }
    }
}

/// Reads one Linear [outputs, inputs] of the file into entangled storage.
private struct LayerReader {
    let file: SafetensorsFile
    let settings: Settings
    let path: String
    /// The names in the file by PEFT's keys: `glora_A.Xd`.
    let keys: [String: String]
    let outputs: Int
    let inputs: Int

    func layer(table: JSONValue?) throws -> GLoRAAdapter.Layer {
        var used: Set<String> = []
        func part(_ key: String, _ shape: [Int]) throws -> [Float] {
            used.insert(key)
            guard let name = keys[key] else {
                throw CheckpointError(
                    "\(file.path) lacks the tensor '\(key)' of '\(path)'; save the adapter again")
            }
            let tensor = try file.tensor(name)
            guard tensor.shape == shape else {
                throw CheckpointError(
                    "\(file.path): tensor '\(name)' has shape \(tensor.shape), but the model and r = \(settings.rank) "
                        + "need \(shape); use the model that it was trained on")
            }
            return tensor.values
        }
        func form(_ letter: String) -> String {
            // A layer without bias has no C, D and E, whatever the settings say.
            let isEmpty = "CDE".contains(letter) && keys["glora_\(letter).zeros"] != nil
            if isEmpty || settings.forms[letter] == "none" { used.insert("glora_\(letter).zeros") }
            return isEmpty ? "none" : settings.forms[letter]!
        }
        let R = settings.rank
        var tensors: [String: HostTensor] = [:]
        func matrix(_ letter: String, rows: Int, columns: Int) throws -> String {
            var down = [Float](repeating: 0, count: rows * R)
            var up = [Float](repeating: 0, count: R * columns)
            let form = form(letter)
            switch form {
            case "lora":
                down = try part("glora_\(letter).Xd", [rows, R])
                up = try part("glora_\(letter).Xu", [R, columns])
            case "vector":
                for (row, value) in try part("glora_\(letter).X", [rows, 1]).enumerated() {
                    down[row * R] = value
                }
            case "constant": down[0] = try part("glora_\(letter).X", [1])[0]
            default: break
            }
            tensors[letter + "d"] = HostTensor(shape: [rows, R], values: down)
            tensors[letter + "u"] = HostTensor(shape: [R, columns], values: up)
            return form == "lora" ? "LoRA_\(R)" : form
        }
        func scale(_ letter: String) throws -> String {
            var values = [Float](repeating: 0, count: outputs)
            let form = form(letter)
            if form == "vector" { values = try part("glora_\(letter).X", [outputs]) }
            if form == "constant" { values[0] = try part("glora_\(letter).X", [1])[0] }
            tensors[letter] = HostTensor(shape: [outputs], values: values)
            return form
        }
        let forms = GLoRAPath(
            a: try MatrixForm(text: matrix("A", rows: outputs, columns: inputs)),
            b: try MatrixForm(text: matrix("B", rows: outputs, columns: inputs)),
            c: try PromptForm(text: matrix("C", rows: inputs, columns: 1)),
            d: try ScaleForm(text: scale("D")),
            e: try ScaleForm(text: scale("E")))
        if let key = keys.keys.filter({ !used.contains($0) }).min() {
            throw CheckpointError(
                "\(file.path) holds '\(keys[key]!)', which doesn't fit adapter_config.json; save the adapter again"
            )
        }
        let layer = GLoRAAdapter.Layer(path: forms, tensors: tensors)
        return try table.map { try unpromoted(layer, table: $0) } ?? layer
    }

    /// The layer on the path of our own table, if the tensors are that path's, promoted.
    private func unpromoted(_ layer: GLoRAAdapter.Layer, table: JSONValue) throws -> GLoRAAdapter.Layer {
        func word(_ letter: String) -> String { table[letter]?.stringValue ?? "none" }
        var original = layer
        do {
            original.path = GLoRAPath(
                a: try MatrixForm(text: word("A")), b: try MatrixForm(text: word("B")),
                c: try PromptForm(text: word("C")), d: try ScaleForm(text: word("D")),
                e: try ScaleForm(text: word("E")))
        } catch {
            throw CheckpointError(
                "adapter_config.json: \(error) (glora_layer_configs, '\(path)'); save it again")
        }
        let isWhole = original.path.rank <= settings.rank && layer.path == .full(rank: settings.rank)
        return isWhole && PEFTAdapter.promoted(original).tensors == layer.tensors ? original : layer
    }
}
