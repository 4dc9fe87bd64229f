import Adapters
import Checkpoints
import Foundation
import ModelConfiguration
import TensorCore
import Transformers
import VisionModels

/// The frozen model of a set and its batches of images.
struct GoldenBase {
    /// The model without a head.
    let checkpoint: ViTCheckpoint
    /// The head that it was made with: head.weight [K, D], head.bias [K].
    let head: [String: HostTensor]
    /// K.
    let classCount: Int
    /// [batches, B, 3, S, S].
    let images: HostTensor
    /// [batches, B] flattened.
    let labels: [Int]

    /// B.
    var batch: Int { images.shape[1] }

    /// Reads `base.*` and `in.*`. Sizes come from the description's `arch`, the MLP's width from its tensor; one of timm's models is read
    /// as its files are. Throws `CheckpointError` where a tensor doesn't fit.
    init(_ file: SafetensorsFile, arch: JSONValue?, description: JSONValue) throws {
        guard let arch else { throw GoldenError("the description has no architecture 'arch'") }
        var tensors: [String: HostTensor] = [:]
        for name in file.names(under: "base.") { tensors[name] = try file.tensor("base.\(name)") }
        head = tensors.filter { $0.key.hasPrefix("head.") }
        if let model = arch["timm_model"] {
            classCount = try arch.integer("num_classes")
            // The sizes are the tensors' and must be the same; the name says the rest.
            let arguments = (arch.objectValue ?? [:]).filter {
                !["timm_model", "timm_args", "eps", "prefix_tokens"].contains($0.key)
            }
            checkpoint = try ViTCheckpoint.timm(
                tensors, path: file.path,
                config: .object(["architecture": model, "model_args": .object(arguments)])
            ).withoutHead()
            if let epsilon = arch["eps"]?.numberValue,
                Float(epsilon) != checkpoint.configuration.layerNormEpsilon
            {
                throw GoldenError(
                    "the model was made with an eps of \(epsilon), and \(model.text()) means \(checkpoint.configuration.layerNormEpsilon)"
                )
            }
        } else {
            let hidden = tensors["blocks.0.mlp.fc1.weight"]?.shape.first
            var configuration = ViTConfiguration(
                imageSize: try arch.integer("img"), patchSize: try arch.integer("patch"),
                width: try arch.integer("dim"),
                depth: try arch.integer("depth"), heads: try arch.integer("heads"),
                hiddenWidth: try hidden ?? 4 * arch.integer("dim"), classCount: 0)
            if let epsilon = (arch["eps"] ?? description["eps"])?.numberValue {
                configuration.layerNormEpsilon = Float(epsilon)
            }
            configuration.qkvBias = tensors["blocks.0.attn.qkv.bias"] != nil
            classCount = try arch.integer("classes")
            checkpoint = try ViTCheckpoint(
                configuration: configuration, tensors: tensors.filter { !$0.key.hasPrefix("head.") })
        }
        images = try file.tensor("in.x")
        labels = try file.integers("in.y")
        let size = checkpoint.configuration.imageSize
        guard images.shape.count == 5, Array(images.shape[2...]) == [3, size, size], batch > 0,
            file.shape(of: "in.y") == Array(images.shape[..<2])
        else {
            throw GoldenError("in.x of shape \(images.shape) holds no batches of images of \(size) pixels")
        }
        guard labels.allSatisfy((0..<classCount).contains) else {
            throw GoldenError("in.y holds a label outside 0..<\(classCount)")
        }
    }

    /// Puts images and labels of batch `index` into a plan.
    func load(_ index: Int, into plan: VisionTransformer.Plan, on backend: any Backend) throws {
        guard (0..<images.shape[0]).contains(index) else {
            throw GoldenError("batch \(index) is asked for; the base has \(images.shape[0])")
        }
        let count = plan.images.count
        backend.upload(plan.images, Array(images.values[index * count..<(index + 1) * count]))
        backend.upload(plan.labels, labels[index * batch..<(index + 1) * batch].map { Int32($0) })
    }

    /// The model with support tensors of rank `rank` at `sites` and this head.
    func model(
        rank: Int, sites: [LinearRole], head: [String: HostTensor], on backend: any Backend
    ) throws -> VisionTransformer {
        let width = checkpoint.configuration.featureWidth
        guard head["head.weight"]?.shape == [classCount, width], head["head.bias"]?.shape == [classCount]
        else {
            throw GoldenError("the head is no [\(classCount), \(width)] with a bias")
        }
        return try VisionTransformer(
            checkpoint, classCount: classCount, method: GLoRA(rank: rank, roles: sites), seed: 0,
            head: head, on: backend)
    }
}

/// Logits [B, K] and the mean loss of one batch, forward only.
func evaluate(
    _ model: VisionTransformer, _ base: GoldenBase, batch: Int
) throws -> (logits: [Float], loss: Double) {
    let plan = try model.plan(batch: base.batch, isForTraining: false)
    try base.load(batch, into: plan, on: model.backend)
    model.backend.fill(plan.logits, .nan)
    model.forward(plan)
    model.loss(plan)
    return (model.backend.values(plan.logits), mean(model.backend.values(plan.losses)))
}

/// The logits of the model that `merged()` of another gives, without support tensors.
func evaluateMerged(
    _ model: VisionTransformer, _ base: GoldenBase, batch: Int
) throws -> (logits: [Float], tensors: [String: HostTensor]) {
    let merged = try model.merged(allowsRounding: true)
    let plain = try VisionTransformer(
        merged, classCount: base.classCount, method: Backbone.frozen, seed: 0,
        head: merged.tensors.filter { $0.key.hasPrefix("head.") }, on: model.backend)
    let logits = try evaluate(plain, base, batch: batch).logits
    return (logits, merged.tensors)
}

/// The mean in double.
func mean(_ values: [Float]) -> Double { values.reduce(0) { $0 + Double($1) } / Double(values.count) }

/// The paths of all of a model's Linears from a list that goes with the description's `layers`; none elsewhere.
func goldenPaths(_ list: [JSONValue], _ golden: JSONValue, _ model: VisionTransformer) throws -> [GLoRAPath] {
    let layers = golden.strings("layers")
    guard layers.count == list.count else {
        throw GoldenError("\(list.count) paths are given for \(layers.count) layers")
    }
    var paths = model.layers.uniformPath(.none)
    for (layer, config) in zip(layers, list) {
        let path = try GLoRAPath(golden: config)
        guard let index = model.layers.firstIndex(where: { $0.base.name == layer }) else {
            throw GoldenError("the model has no layer '\(layer)'")
        }
        guard
            path == .none || path.rank <= (model.layers[index] as? GLoRALinear)?.support.ad.value.columns ?? 0
        else {
            throw GoldenError("\(layer) has no support tensors of rank \(path.rank)")
        }
        paths[index] = path
    }
    return paths
}

/// A model whose trained tensors are those under `prefix` in `file` (`param.` or `init.`), the head's included.
func goldenModel(
    _ file: SafetensorsFile, _ golden: JSONValue, _ base: GoldenBase, prefix: String, on backend: any Backend
) throws -> VisionTransformer {
    let sites = base.checkpoint.configuration.shape.sites.filter { site in
        golden.strings("layers").contains { $0.hasSuffix(".\(site.name)") }
    }.map(\.role)
    var given: [String: HostTensor] = [:]
    for name in file.names(under: prefix) { given[name] = try file.tensor(prefix + name) }
    let model = try base.model(
        rank: golden.integer("rank"), sites: sites, head: given.filter { $0.key.hasPrefix("head.") },
        on: backend)
    var values = model.store.unpack(model.store.values)
    for (name, tensor) in given {
        guard let expected = values[name] else { throw GoldenError("the model trains no '\(name)'") }
        guard expected.shape == tensor.shape else {
            throw GoldenError("\(prefix)\(name) has shape \(tensor.shape); the model needs \(expected.shape)")
        }
        values[name] = tensor
    }
    model.store.pack(model.store.values, values)
    return model
}

// MARK: Replays

/// Logits and loss of the frozen model on batch 0.
func replayBase(_ file: SafetensorsFile, _ golden: JSONValue, on backend: any Backend) throws -> Comparison {
    let base = try GoldenBase(file, arch: golden["arch"], description: golden)
    let model = try base.model(rank: 1, sites: [], head: base.head, on: backend)
    let (logits, loss) = try evaluate(model, base, batch: 0)
    var comparison = Comparison()
    try comparison.outputs(file, Bounds(backend.precision), logits: logits, loss: loss)
    return comparison
}

/// The streams behind the blocks of the frozen model on batch 0, as far as they are computed: of the last block the class token alone
/// where nothing else is read. Then what `replayBase` compares, element by element.
func replayVision(_ file: SafetensorsFile, _ golden: JSONValue, on backend: any Backend) throws -> Comparison
{
    let base = try GoldenBase(file, arch: golden["arch"], description: golden)
    let model = try base.model(rank: 1, sites: [], head: base.head, on: backend)
    let bounds = Bounds(backend.precision)
    let plan = try model.plan(batch: base.batch, isForTraining: false)
    try base.load(0, into: plan, on: backend)
    var comparison = Comparison()
    func compare(block: Int) throws {
        let name = "dbg.block\(block)"
        guard let shape = file.shape(of: "\(name).f64"), shape.count == 3 else {
            throw GoldenError("\(file.path) has no tensor \(name).f64 of three dimensions")
        }
        let stream = plan.stream(into: block + 1)
        let row = shape[2] * stream.shape[1]
        var truth = try file.doubles("\(name).f64")
        if stream.shape[1] < shape[1] {
            truth = (0..<shape[0]).flatMap {
                truth[$0 * shape[1] * shape[2]..<$0 * shape[1] * shape[2] + row]
            }
        }
        comparison.tensor(name, bounds, backend.values(stream), truth: truth)
    }
    model.beginPass()
    model.embed(plan)
    var failure: (any Error)?
    model.forward(plan, fromBlock: 0, .evaluation) { next in
        do { try compare(block: next - 1) } catch { failure = failure ?? error }
    }
    if let failure { throw failure }
    try compare(block: model.configuration.depth - 1)
    model.loss(plan)
    if backend.precision == .float32 {
        try comparison.strictOutputs(file, logits: backend.values(plan.logits))
    }
    try comparison.outputs(
        file, bounds, logits: backend.values(plan.logits), loss: mean(backend.values(plan.losses)))
    return comparison
}

/// Forward and backward on given paths: logits, loss, every gradient, and the merged model.
func replayFixed(
    _ file: SafetensorsFile, _ golden: JSONValue, base baseFile: SafetensorsFile, on backend: any Backend
) throws -> Comparison {
    // The newer sets describe a model once, with the model.
    let described = try baseFile.metadata["golden"].map { try JSONValue(parsing: $0.utf8) }
    let base = try GoldenBase(
        baseFile, arch: golden["arch"] ?? described?["arch"], description: golden)
    let model = try goldenModel(file, golden, base, prefix: "param.", on: backend)
    let paths = try goldenPaths(golden.array("configs"), golden, model)
    model.layers.take(paths)
    return try replayStep(file, golden, base, model)
}

/// Forward and backward of a model whose tensors are loaded: logits, loss, every gradient, and the merged model. `dead` names
/// tensors of the authors' that never reach the output and that this model doesn't have: their gradients are zero.
func replayStep(
    _ file: SafetensorsFile, _ golden: JSONValue, _ base: GoldenBase, _ model: VisionTransformer,
    dead: Set<String> = []
) throws -> Comparison {
    let backend = model.backend
    let batch = golden["batch"]?.integerValue ?? 0
    let offPath = golden.strings("grad_is_None")

    let bounds = Bounds(backend.precision)
    // What float16 loses below 6e-8, a scaled loss keeps.
    let lossScale: Float = backend.precision == .float16 ? 1024 : 1
    let plan = try model.plan(batch: base.batch, isForTraining: true)
    try base.load(batch, into: plan, on: backend)
    let mark: Float = 7
    model.store.clearGradients()
    for name in offPath { if let gradient = model.store[name]?.gradient { backend.fill(gradient, mark) } }
    backend.fill(plan.logits, .nan)
    model.forward(plan)
    model.loss(plan)
    let loss = mean(backend.values(plan.losses))
    model.backward(plan, lossScale: lossScale)
    let gradients = model.store.unpack(model.store.gradients)

    var comparison = Comparison()
    var vector: (actual: [Float], truth: [Double]) = ([], [])
    try comparison.outputs(file, bounds, logits: backend.values(plan.logits), loss: loss)
    // Of the newer sets every element is compared, where rounding is float32's.
    let isStrict = try golden.string("kind") == "vision_fixed" && backend.precision == .float32
    if isStrict { try comparison.strictOutputs(file, logits: backend.values(plan.logits)) }
    let zeros = Set(golden.strings("analytically_zero_grads"))
    let largest = try golden.number("grad_absmax")
    var largestDeviation = 0.0
    let trained = model.trainedNames
    let names = file.names(under: "grad.", suffix: ".f64")
    /// How far the authors' float32 was off: [deviation, absmax].
    func deviation(_ name: String) -> Double {
        golden["grad_f32_dev_and_absmax"]?[name]?.arrayValue?.first?.numberValue ?? 0
    }
    // A constant's gradient is one number, a sum over its whole Linear that may nearly cancel. What float32 makes of one such sum is
    // luck, so all of the file say how far it may be off: they are those with one number that isn't zero.
    let constants = Set(
        try names.filter { try file.truth("grad.\($0)").truth.count(where: { $0 != 0 }) == 1 })
    let constantDeviation = constants.map(deviation).max() ?? 0
    for name in names {
        guard !dead.contains(name) else {
            let isZero = try file.truth("grad.\(name)").truth.allSatisfy { $0 == 0 }
            comparison.expect(isZero, otherwise: "\(name) reaches the output, and this model doesn't have it")
            continue
        }
        let deviation = constants.contains(name) ? constantDeviation : deviation(name)
        largestDeviation = max(largestDeviation, deviation)
        vector.actual += (gradients[name]?.values ?? []).map { $0 / lossScale }
        vector.truth += try file.truth("grad.\(name)").truth
        if isStrict, !zeros.contains(name) {
            // A sum that nearly cancels is off by more, as it was in the authors' float32.
            comparison.largest(
                "grad.\(name)", gradients[name]?.values ?? [], truth: try file.truth("grad.\(name)").truth,
                bound: 1e-5, atLeast: 4 * deviation)
        }
        comparison.expect(trained.contains(name), otherwise: "\(name) is taken to be off the path")
    }
    comparison.distance(
        "gradients", vector.actual, truth: vector.truth,
        bound: bounds.tensor(official: largestDeviation / largest))
    for name in offPath {
        let isUntouched = gradients[name]?.values.allSatisfy { $0 == mark } ?? false
        comparison.expect(isUntouched, otherwise: "\(name) is off the path and its gradient was written")
        comparison.expect(!trained.contains(name), otherwise: "\(name) is taken to be on the path")
    }

    if file.entries["merged.logits.f64"] != nil {
        let (logits, tensors) = try evaluateMerged(model, base, batch: batch)
        let (truth, official) = try file.truth("merged.logits")
        comparison.tensor("merged.logits", bounds, logits, truth: truth, official: official)
        for name in file.names(under: "merged.") where name.hasSuffix(".weight") || name.hasSuffix(".bias") {
            let truth = try file.doubles("merged.\(name)")
            comparison.tensor("merged.\(name)", bounds, tensors[name]?.values ?? [], truth: truth)
        }
    }
    return comparison
}

extension Comparison {
    /// `out.logits` and `out.loss`: the mean over B images moves by √(2/B) of what their logits move by at most, since the
    /// gradient of an image's loss is softmax − onehot, whose length is √2 at most.
    fileprivate mutating func outputs(
        _ file: SafetensorsFile, _ bounds: Bounds, logits: [Float], loss: Double
    ) throws {
        let (truth, official) = try file.truth("out.logits")
        tensor("out.logits", bounds, logits, truth: truth, official: official)
        let images = Double(file.shape(of: "out.logits.f64")?.first ?? 1)
        let allowed = bounds.tensor(official: official.map { relativeDistance($0, truth) } ?? 0)
        absolute(
            "out.loss", [Float(loss)], truth: try file.truth("out.loss").truth,
            bound: allowed * truth.reduce(0) { $0 + $1 * $1 }.squareRoot() * (2 / images).squareRoot())
    }

    /// `out.logits` in float32, element by element.
    fileprivate mutating func strictOutputs(_ file: SafetensorsFile, logits: [Float]) throws {
        largest("out.logits", logits, truth: try file.truth("out.logits").truth, bound: 2e-6)
    }

    /// A tensor as a whole.
    mutating func tensor(
        _ name: String, _ bounds: Bounds, _ actual: [Float], truth: [Double], official: [Double]? = nil
    ) {
        let error = official.map { relativeDistance($0, truth) } ?? 0
        distance(name, actual, truth: truth, bound: bounds.tensor(official: error))
    }
}
