import Adapters
import TensorCore

/// Reads what the file holds of one module [outputs, inputs] into entangled storage of its own rank.
struct PEFTLayerReader {
    let settings: PEFTSettings
    let tensors: PEFTTensors
    let module: String
    /// The names in the file by part: `glora_A.Xd`.
    let names: [String: String]
    let outputs: Int
    let inputs: Int
    let hasBias: Bool
    /// Whether the module may lack the bias all the same: timm keeps EVA's apart, and the key's third of a fused one may have none.
    let mayLackBias: Bool

    private func part(_ key: String, _ shape: [Int], rank: Int) throws -> HostTensor {
        guard let name = names[key] else {
            throw CheckpointError(
                "\(tensors.file.path) lacks the tensor '\(key)' of '\(module)'; save the adapter again")
        }
        let found = tensors.file.shape(of: name) ?? []
        guard found == shape else {
            throw CheckpointError(
                "\(tensors.file.path): tensor '\(name)' has shape \(found), but the model and r = \(rank) "
                    + "need \(shape); use the model that it was trained on")
        }
        return try tensors.tensor(name)
    }

    private func refuseOthers(than used: Set<String>) throws {
        guard let key = names.keys.filter({ !used.contains($0) }).min() else { return }
        throw CheckpointError(
            "\(tensors.file.path) holds '\(names[key]!)', which doesn't fit adapter_config.json; save the adapter again"
        )
    }

    /// LoRA: B = lowRank with Bd = scale · lora_B and Bu = lora_A, and with lora_bias E = scale · lora_B's bias.
    /// Source: peft/tuners/lora/layer.py.
    func lora() throws -> GLoRAAdapter.Layer {
        let rank = try settings.rank(of: module)
        let scale = Float(try settings.scale(of: module))
        guard scale.isFinite else {
            throw CheckpointError("\(settings.path): lora_alpha of '\(module)' is too large; correct it")
        }
        var layer = GLoRAAdapter.Layer.lowRankB(
            down: try part("lora_B.weight", [outputs, rank], rank: rank),
            up: try part("lora_A.weight", [rank, inputs], rank: rank),
            scale: scale, storage: rank, outputs: outputs, inputs: inputs)
        var used: Set = ["lora_A.weight", "lora_B.weight"]
        if try settings.flag("lora_bias") {
            guard hasBias else {
                throw CheckpointError(
                    "\(settings.path): lora_bias on '\(module)', which has no bias in the model, is not supported; train "
                        + "without it")
            }
            let bias = try part("lora_B.bias", [outputs], rank: rank)
            layer.path.e = .vector
            layer.tensors["E"] = HostTensor(shape: [outputs], values: bias.values.map { scale * $0 })
            used.insert("lora_B.bias")
        }
        try refuseOthers(than: used)
        return layer
    }

    /// GLoRA in the forms of the settings, or on the path of our own table. Source: peft/tuners/glora/layer.py.
    func glora(table: JSONValue?) throws -> GLoRAAdapter.Layer {
        var used: Set<String> = []
        func part(_ key: String, _ shape: [Int]) throws -> [Float] {
            used.insert(key)
            return try self.part(key, shape, rank: settings.rank).values
        }
        func form(_ letter: String) throws -> String {
            let zeros = "glora_\(letter).zeros"
            let form = try self.form(letter)
            // A module without bias has no C, D and E, whatever the settings say.
            let isEmpty =
                form == "none" || (!hasBias || mayLackBias) && "CDE".contains(letter) && names[zeros] != nil
            guard isEmpty else { return form }
            used.insert(zeros)
            if let name = names[zeros], try tensors.tensor(name).values.contains(where: { $0 != 0 }) {
                throw CheckpointError(
                    "\(tensors.file.path): tensor '\(name)' holds other numbers than zero; save the adapter again"
                )
            }
            return "none"
        }
        // Where no form is lora, r is a number that no tensor of the file has.
        let isLowRank = try ["A", "B", "C"].contains { try form($0) == "lora" }
        let R = isLowRank ? settings.rank : 1
        var values: [String: HostTensor] = [:]
        func matrix(_ letter: String, rows: Int, columns: Int) throws -> String {
            let form = try form(letter)
            if form == "lora" {
                values[letter + "d"] = HostTensor(
                    shape: [rows, R], values: try part("glora_\(letter).Xd", [rows, R]))
                values[letter + "u"] = HostTensor(
                    shape: [R, columns], values: try part("glora_\(letter).Xu", [R, columns]))
                return "LoRA_\(R)"
            }
            var down = [Float](repeating: 0, count: rows * R)
            switch form {
            case "vector":
                for (row, value) in try part("glora_\(letter).X", [rows, 1]).enumerated() {
                    down[row * R] = value
                }
            case "constant": down[0] = try part("glora_\(letter).X", [1])[0]
            default: break
            }
            values[letter + "d"] = HostTensor(shape: [rows, R], values: down)
            values[letter + "u"] = HostTensor(shape: [R, columns], repeating: 0)
            return form
        }
        func scale(_ letter: String) throws -> String {
            var numbers = [Float](repeating: 0, count: outputs)
            let form = try form(letter)
            if form == "vector" { numbers = try part("glora_\(letter).X", [outputs]) }
            if form == "constant" { numbers[0] = try part("glora_\(letter).X", [1])[0] }
            values[letter] = HostTensor(shape: [outputs], values: numbers)
            return form
        }
        let path = GLoRAPath(
            a: try MatrixForm(text: matrix("A", rows: outputs, columns: inputs)),
            b: try MatrixForm(text: matrix("B", rows: outputs, columns: inputs)),
            c: try PromptForm(text: matrix("C", rows: inputs, columns: 1)),
            d: try ScaleForm(text: scale("D")),
            e: try ScaleForm(text: scale("E")))
        try refuseOthers(than: used)
        let layer = GLoRAAdapter.Layer(path: path, tensors: values)
        return try table.map { try unpromoted(layer, table: $0) } ?? layer
    }

    /// The settings' word for the form of A to E.
    private func form(_ letter: String) throws -> String {
        let (key, standard, words) =
            switch letter {
            case "A", "B": ("config_A_B", "lora", ["lora", "vector", "constant", "none"])
            case "C": ("config_C", "lora", ["lora", "vector", "none"])
            default: ("config_D_E", "constant", ["vector", "constant", "none"])
            }
        let form = settings[key].map { $0.stringValue ?? $0.text() } ?? standard
        guard words.contains(form) else {
            throw CheckpointError(
                "\(settings.path): \(key) = '\(form)' is unknown; use \(words.joined(separator: ", "))")
        }
        return form
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
                "\(settings.path): \(error) (glora_layer_configs, '\(module)'); save it again")
        }
        // Beside a Linear without a bias there are zeros, and nothing to promote.
        let isWhole =
            original.path.rank <= settings.rank
            && (layer.path == .full(rank: settings.rank)
                || layer.path == GLoRAPath(a: .lowRank(settings.rank), b: .lowRank(settings.rank))
                    && !original.path.changesBias)
        var promoted = PEFTAdapter.promoted(original).tensors
        if !layer.path.changesBias {
            for name in ["Cd", "Cu", "D", "E"] { promoted[name] = layer.tensors[name] }
        }
        return isWhole && promoted == layer.tensors ? original : layer
    }
}
