import Adapters
import Checkpoints
import Foundation
import TensorCore

/// One GLoRA Linear, forward and backward:
///
///     W = W₀ ⊙ (1 + A) + B,   b = b₀ ⊙ (1 + D) + E + W₀ · C,   y = x Wᵀ + b
///
/// given x [lead…, in], dy [lead…, out] and the stored tensors; y, dx, every gradient, W and b are held against
/// the truth. Gradients of tensors off the path are filled with a mark beforehand and must still hold it.
func replayLayer(_ file: SafetensorsFile, _ golden: JSONValue, on backend: any Backend) throws -> Comparison {
    let (numbers, onPath) = try layerNumbers(file, golden, on: backend)
    let magnitudes = try layerNumbers(file, golden, on: backend, ofMagnitudes: true).numbers
    let (inputs, outputs, rank) = (
        try golden.integer("in"), try golden.integer("out"), try golden.integer("max_rank")
    )
    let rows = (file.shape(of: "in.x") ?? []).dropLast().reduce(1, *)
    let bounds = Bounds(backend.precision)
    let bound = bounds.element(additions: rows + inputs + outputs + rank)
    var comparison = Comparison()
    func compare(_ name: String) throws {
        comparison.elements(
            name, numbers[name] ?? [], truth: try file.truth(name).truth,
            magnitudes: magnitudes[name] ?? [], underflow: bounds.underflow, bound: bound)
    }
    for name in ["out.y", "out.dx", "out.W_merged"] { try compare(name) }
    if file.entries["out.b_merged.f64"] != nil { try compare("out.b_merged") }
    for tensor in file.names(under: "grad.", suffix: ".f64") {
        try compare("grad.\(tensor)")
        comparison.expect(onPath.contains(tensor), otherwise: "\(tensor) is taken to be off the path")
    }
    for tensor in golden.strings("grad_is_None") {
        let isUntouched = numbers["grad.\(tensor)"]?.allSatisfy { $0 == gradientMark } ?? false
        comparison.expect(isUntouched, otherwise: "\(tensor) is off the path and its gradient was written")
        comparison.expect(!onPath.contains(tensor), otherwise: "\(tensor) is taken to be on the path")
    }
    return comparison
}

/// What gradients off the path are filled with.
private let gradientMark: Float = 7

/// The layer's outputs and gradients under their names in the file, computed from its inputs or from their magnitudes, and the
/// tensors that its path reads.
private func layerNumbers(
    _ file: SafetensorsFile, _ golden: JSONValue, on backend: any Backend, ofMagnitudes: Bool = false
) throws -> (numbers: [String: [Float]], onPath: Set<String>) {
    let (inputs, outputs) = (try golden.integer("in"), try golden.integer("out"))
    let rank = try golden.integer("max_rank")
    let path = try golden["config"].map(GLoRAPath.init(golden:)) ?? GLoRAPath.none
    guard inputs > 0, outputs > 0, rank > 0, path.rank <= rank else {
        throw GoldenError("a layer of \(inputs) inputs, \(outputs) outputs and rank \(rank) can't be built")
    }

    func input(_ name: String, _ shape: [Int]? = nil) throws -> HostTensor {
        var tensor = try file.tensor("in.\(name)")
        guard shape == nil || tensor.shape == shape else {
            throw GoldenError("in.\(name) has shape \(tensor.shape), not \(shape!)")
        }
        if ofMagnitudes { tensor.values = tensor.values.map(abs) }
        return tensor
    }
    /// As the backend stores weights and activations; NaN until something is written.
    func stored(_ shape: [Int]) throws -> Tensor {
        let tensor = try backend.allocate(shape, backend.precision.stored)
        backend.upload(tensor, Array(repeating: .nan, count: tensor.count))
        return tensor
    }
    func stored(_ host: HostTensor) throws -> Tensor {
        let tensor = try stored(host.shape)
        backend.upload(tensor, host.values)
        return tensor
    }
    let shapes: [(String, [Int])] = [
        ("Ad", [outputs, rank]), ("Au", [rank, inputs]), ("Bd", [outputs, rank]), ("Bu", [rank, inputs]),
        ("Cd", [inputs, rank]), ("Cu", [rank, 1]), ("D", [outputs]), ("E", [outputs]),
    ]
    let name = "layer"
    let store = try ParameterStore(
        backend, shapes.map { ParameterStore.Declaration("\(name).\($0.0)", try input($0.0, $0.1)) })
    let weight = try stored(input("W", [outputs, inputs]))
    let bias = file.entries["in.b"] == nil ? nil : try backend.tensor(input("b", [outputs]))
    let arena = Arena(backend, chunkByteCount: 1 << 16)
    let scratch = try LinearScratch(
        arena, weightCount: inputs * outputs, outputs: outputs, inputs: inputs)
    let base = BaseLinear(
        name, weight: Parameter(name: "weight", value: weight),
        bias: bias.map { Parameter(name: "bias", value: $0) }, scratch, backend)
    let layer = GLoRALinear(base, GLoRALinear.Support(name, in: store)!)
    layer.path = path

    let (x, dy) = (try input("x"), try input("dy"))
    guard x.shape.last == inputs, dy.shape.last == outputs, x.shape.dropLast() == dy.shape.dropLast() else {
        throw GoldenError("in.x of shape \(x.shape) and in.dy of \(dy.shape) don't fit the layer")
    }
    let (xs, dys) = (try stored(x), try stored(dy))
    let y = try stored(dy.shape)  // [lead…, out]
    let dx = try stored(x.shape)  // [lead…, in]
    let product = try stored([y.rows, outputs])
    let pass = try Workspace.layOut(in: arena, isForTraining: true, stored: backend.precision.stored) {
        try layer.pass(rows: y.rows, product: product, in: $0)
    }

    store.clearGradients()
    for tensor in golden.strings("grad_is_None") {
        if let gradient = store["\(name).\(tensor)"]?.gradient { backend.fill(gradient, gradientMark) }
    }
    pass.begin()
    pass.forward(y, xs, activated: nil, dropoutSeed: nil)
    pass.backward(dx, dys, xs, dropoutSeed: nil)
    let merged = layer.folded() ?? (backend.host(weight), bias.map(backend.host))
    var numbers = [
        "out.y": backend.values(y), "out.dx": backend.values(dx), "out.W_merged": merged.weight.values,
        "out.b_merged": merged.bias?.values ?? Array(repeating: 0, count: outputs),
    ]
    for (tensor, gradient) in store.unpack(store.gradients) {
        numbers["grad.\(tensor.dropFirst(name.count + 1))"] = gradient.values
    }
    return (numbers, Set(layer.tensorsOnPath))
}
