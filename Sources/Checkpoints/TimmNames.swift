import ModelConfiguration
import TensorCore

/// What timm's files call the tensors where it isn't our name.
///
/// | ours | `Eva` | distilled DeiT |
/// | --- | --- | --- |
/// | `blocks.0.ls1.gamma` | `blocks.0.gamma_1` | |
/// | `blocks.0.attn.qkv.bias` | `blocks.0.attn.q_bias`, zeros, `blocks.0.attn.v_bias` | |
/// | `reg_token` | | `dist_token` |
/// | `head` [K, 2·D] | | half of `head`, half of `head_dist`, beside each other |
struct TimmNames {
    /// Whether layer scales are `gamma_1`.
    let isEva: Bool
    let isDistilled: Bool

    init(isEva: Bool, isDistilled: Bool) { (self.isEva, self.isDistilled) = (isEva, isDistilled) }

    init(_ source: any TensorSource) {
        isEva = source.shape(of: "blocks.0.gamma_1") != nil
        isDistilled = source.shape(of: "dist_token") != nil
    }

    private func name(of name: String) -> String {
        if isEva, name.hasSuffix(".gamma") {
            return String(name.dropLast("ls1.gamma".count)) + "gamma_\(name.dropLast(".gamma".count).last!)"
        }
        return isDistilled && name == "reg_token" ? "dist_token" : name
    }

    private static func biases(_ name: String) -> [String] {
        ["q", "v"].map { name.dropLast("qkv.bias".count) + "\($0)_bias" }
    }

    /// The file's tensors in our names.
    func read(
        _ source: any TensorSource, _ configuration: ViTConfiguration, ignored: (String) -> Bool
    ) throws -> [String: HostTensor] {
        let d = configuration.width
        let lacksKeys = configuration.queries == .fused && configuration.queryBias == .withoutKeys
        var recipes: [String: TensorRecipe] = [:]
        for (ours, shape) in configuration.tensorShapes {
            if lacksKeys, ours.hasSuffix("attn.qkv.bias") {
                recipes[ours] = TensorRecipe(shape: [2 * d], parts: TimmNames.biases(ours).map { ($0, [d]) })
            } else if isDistilled, ours.hasPrefix("head.") {
                let part = shape.count == 2 ? [shape[0], d] : shape
                for (key, file) in [
                    (ours, ours), ("second " + ours, ours.replacing("head.", with: "head_dist.")),
                ] {
                    recipes[key] = TensorRecipe(shape: part, parts: [(file, part)])
                }
            } else {
                recipes[ours] = TensorRecipe(shape: shape, parts: [(name(of: ours), shape)])
            }
        }
        var tensors = try source.read(recipes, ignored: ignored)
        if lacksKeys {
            for name in tensors.keys where name.hasSuffix("attn.qkv.bias") {
                tensors[name]!.insertZeroKeys(width: d)
            }
        }
        if isDistilled { try Self.joinHeads(&tensors, width: d, path: source.path) }
        return tensors
    }

    /// The two heads [K, D] of a distilled DeiT, the second's tensors being `second head.…`, as one that reads both tokens' features,
    /// [K, 2·D]: its logits are the mean of theirs. Throws `CheckpointError` where only the second is there, or they differ in shape.
    static func joinHeads(_ tensors: inout [String: HostTensor], width d: Int, path: String) throws {
        let second = ["second head.weight", "second head.bias"].map { tensors.removeValue(forKey: $0) }
        guard second.contains(where: { $0 != nil }) else { return }
        guard let weight = tensors["head.weight"], let bias = tensors["head.bias"],
            let secondWeight = second[0], let secondBias = second[1],
            weight.shape == secondWeight.shape, weight.shape == [bias.values.count, d],
            bias.shape == secondBias.shape
        else {
            throw CheckpointError(
                "\(path): the heads 'head' and 'head_dist' don't both have a weight [classes, \(d)] and a bias; save them again"
            )
        }
        var both: [Float] = []
        for row in 0..<weight.shape[0] {
            both += weight.values[row * d..<(row + 1) * d].map { $0 / 2 }
            both += secondWeight.values[row * d..<(row + 1) * d].map { $0 / 2 }
        }
        tensors["head.weight"] = HostTensor(shape: [weight.shape[0], 2 * d], values: both)
        tensors["head.bias"]!.values = zip(bias.values, secondBias.values).map { ($0 + $1) / 2 }
    }

    /// The other way round: the two heads' tensors of one's `weight` [K, 2·D] or `bias`.
    static func separatedHeads(_ tensor: HostTensor, width d: Int) -> [HostTensor] {
        // The bias stands in both, and both get twice their half.
        guard tensor.shape.count == 2 else { return [tensor, tensor] }
        return (0..<2).map { half in
            let values = (0..<tensor.shape[0]).flatMap { row -> [Float] in
                let start = (2 * row + half) * d
                return tensor.values[start..<start + d].map { 2 * $0 }
            }
            return HostTensor(shape: [tensor.shape[0], d], values: values)
        }
    }

    /// Our tensors in the file's names. Throws `CheckpointError` for a bias of the keys, which the file has no place for.
    func written(_ tensors: [String: HostTensor], _ configuration: ViTConfiguration) throws -> [String:
        HostTensor]
    {
        let d = configuration.width
        var result: [String: HostTensor] = [:]
        for (ours, tensor) in tensors {
            if configuration.queries == .fused, configuration.queryBias == .withoutKeys,
                ours.hasSuffix("attn.qkv.bias")
            {
                let values = try tensor.withoutKeys(ours, isRotated: configuration.rotary != nil)
                let names = TimmNames.biases(ours)
                result[names[0]] = HostTensor(shape: [d], values: Array(values.prefix(d)))
                result[names[1]] = HostTensor(shape: [d], values: Array(values.suffix(d)))
            } else if isDistilled, ours.hasPrefix("head.") {
                for (head, part) in zip(["head", "head_dist"], Self.separatedHeads(tensor, width: d)) {
                    result[head + ours.dropFirst("head".count)] = part
                }
            } else {
                result[name(of: ours)] = tensor
            }
        }
        return result
    }
}

extension HostTensor {
    /// [2·D] of queries and values as [3·D], with zeros for the keys.
    mutating func insertZeroKeys(width d: Int) {
        let zeros = [Float](repeating: 0, count: d)
        self = HostTensor(shape: [3 * d], values: values.prefix(d) + zeros + values.suffix(d))
    }

    /// [2·D] of a bias [3·D] without the keys'. Throws `CheckpointError` where that would change what is computed.
    func withoutKeys(_ name: String, isRotated: Bool) throws -> [Float] {
        let d = values.count / 3
        // Without a rotation the keys' bias adds the same to all scores of a query, which the softmax takes away.
        guard !isRotated || values[d..<2 * d].allSatisfy({ $0 == 0 }) else {
            throw CheckpointError(
                "the keys of '\(name)' have a bias now, for which files of models with rotary positions have no tensor; train without "
                    + "changing biases of `qkv`: leave C, D and E out there")
        }
        return Array(values.prefix(d) + values.suffix(d))
    }
}
