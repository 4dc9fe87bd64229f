import Adapters
import Checkpoints
import TensorCore
import VisionModels

/// The method that a description is about, with its settings. Throws `GoldenError` for one that this program doesn't know.
private func goldenMethod(_ golden: JSONValue, _ shape: TransformerShape) throws -> any TuningMethod {
    var settings = MethodSettings()
    let name = try golden.string("method").lowercased()
    let kind: MethodName
    if name.hasPrefix("adaptformer") {
        guard let config = golden["tuning_config"] else { throw GoldenError("no 'tuning_config' is given") }
        settings.width = try config.integer("ffn_num")
        settings.placement = try config.string("ffn_option")
        settings.adapterNorm = try config.string("ffn_adapter_layernorm_option")
        let scale = config["ffn_adapter_scalar"]
        if scale?.stringValue == "learnable_scalar" {
            settings.learnableScale = true
        } else {
            settings.scale = scale?.numberValue ?? scale?.stringValue.flatMap { Double($0) }
        }
        kind = .adaptformer
    } else if name.hasPrefix("vpt") {
        settings.prompts = try golden.integer("num_tokens")
        kind = name.contains("deep") ? .vptDeep : .vptShallow
    } else if name.hasPrefix("fact") {
        settings.rank = try golden.integer("rank")
        settings.scale = try golden.number("scale")
        kind = name.contains("tk") ? .factTK : .factTT
    } else if name.hasPrefix("repadapter") {
        settings.width = try golden.integer("hidden_dim")
        settings.groups = try golden.integer("groups")
        settings.scale = try golden.number("scale")
        settings.targets = name.contains("attn") ? "attention" : "block"
        kind = .repadapter
    } else if name.hasPrefix("lora") {
        settings.rank = try golden.integer("r")
        settings.alpha = try golden.number("alpha")
        settings.targets = golden.strings("trainable").contains { $0.contains("fc1") } ? "all" : "qv"
        kind = .lora
    } else if name.hasPrefix("ssf") {
        kind = .ssf
    } else if name.hasPrefix("noah") {
        return try goldenNOAH(golden)
    } else {
        throw GoldenError("the method '\(name)' is none that this program knows")
    }
    return try kind.method(settings, for: shape)
}

private func goldenNOAH(_ golden: JSONValue) throws -> NOAH {
    guard let config = golden["sample_config"] else { throw GoldenError("no 'sample_config' is given") }
    func sizes(_ key: String) throws -> [Int] { try config.array(key).compactMap(\.integerValue) }
    let (prompts, ranks, widths) = (
        try sizes("visual_prompt_dim"), try sizes("lora_dim"), try sizes("adapter_dim")
    )
    guard prompts.count == ranks.count, ranks.count == widths.count else {
        throw GoldenError("the sampled sizes are of \(prompts.count), \(ranks.count), \(widths.count) blocks")
    }
    let largest = try golden.integer("super_dims")
    return NOAH(
        prompts.indices.map { .init(prompts: prompts[$0], rank: ranks[$0], width: widths[$0]) },
        storage: .init(prompts: largest, rank: largest, width: largest))
}

/// Forward and backward of another method: logits, loss, every gradient, the merged model and the count of parameters.
func replayMethod(
    _ file: SafetensorsFile, _ golden: JSONValue, base baseFile: SafetensorsFile, on backend: any Backend
) throws -> Comparison {
    let description = try JSONValue(parsing: (baseFile.metadata["golden"] ?? "{}").utf8)
    let base = try GoldenBase(baseFile, arch: golden["arch"] ?? description["arch"], description: description)
    let shape = base.checkpoint.configuration.shape
    let method = try goldenMethod(golden, shape)
    var given: [String: HostTensor] = [:]
    for name in file.names(under: "param.") { given[name] = try file.tensor("param.\(name)") }
    let model = try VisionTransformer(
        base.checkpoint, classCount: base.classCount, method: method, seed: 0, on: backend)
    var values = model.store.unpack(model.store.values)
    var dead: Set<String> = []
    for (name, tensor) in given {
        guard let expected = values[name] else {
            dead.insert(name)
            continue
        }
        guard expected.shape == tensor.shape else {
            throw GoldenError("param.\(name) has shape \(tensor.shape); the model needs \(expected.shape)")
        }
        values[name] = tensor
    }
    for name in values.keys where given[name] == nil {
        throw GoldenError("the model trains '\(name)', which isn't given")
    }
    model.store.pack(model.store.values, values)
    var comparison = try replayStep(
        file, golden, base, model, dead: dead)
    let count = method.declarations(shape, seed: 0).reduce(0) { $0 + $1.shape.reduce(1, *) }
    let deadCount = dead.reduce(0) { $0 + (given[$1]?.values.count ?? 0) }
    let stored = try golden.integer("trainable_numel_without_head")
    comparison.expect(
        count + deadCount == stored, otherwise: "\(count + deadCount) parameters, the authors have \(stored)")
    if let noah = method as? NOAH, let official = golden["official_get_sampled_params_numel"]?.integerValue {
        let ours = noah.officialParameterCount(shape)
        comparison.expect(ours == official, otherwise: "\(ours) sampled parameters, the authors' \(official)")
    }
    return comparison
}
