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
    let (inputs, outputs) = (try golden.integer("in"), try golden.integer("out"))
    let rank = try golden.integer("max_rank")
    let path = try golden["config"].map(GLoRAPath.init(golden:)) ?? GLoRAPath.none
    let offPath = Set(golden.strings("grad_is_None"))
    guard inputs > 0, outputs > 0, rank > 0, path.rank <= rank else {
        throw GoldenError("a layer of \(inputs) inputs, \(outputs) outputs and rank \(rank) can't be built")
    }

    func input(_ name: String, _ shape: [Int]) throws -> HostTensor {
        let tensor = try file.tensor("in.\(name)")
        guard tensor.shape == shape else {
            throw GoldenError("in.\(name) has shape \(tensor.shape), not \(shape)")
        }
        return tensor
    }
    let shapes: [(String, [Int])] = [
        ("Ad", [outputs, rank]), ("Au", [rank, inputs]), ("Bd", [outputs, rank]), ("Bu", [rank, inputs]),
        ("Cd", [inputs, rank]), ("Cu", [rank, 1]), ("D", [outputs]), ("E", [outputs]),
    ]
    let name = "layer"
    let store = try ParameterStore(
        backend, shapes.map { ParameterStore.Declaration("\(name).\($0.0)", try input($0.0, $0.1)) })
    let weight = try backend.tensor(input("W", [outputs, inputs]))
    let bias = file.entries["in.b"] == nil ? nil : try backend.tensor(input("b", [outputs]))
    let layer = GLoRALinear(
        name: name, weight: Parameter(name: "weight", value: weight),
        bias: bias.map { Parameter(name: "bias", value: $0) },
        support: GLoRALinear.Support(name, in: store))

    let x = try file.tensor("in.x")
    let dy = try file.tensor("in.dy")
    guard x.shape.last == inputs, dy.shape.last == outputs, x.shape.dropLast() == dy.shape.dropLast() else {
        throw GoldenError("in.x of shape \(x.shape) and in.dy of \(dy.shape) don't fit the layer")
    }
    let (xs, dys) = (try backend.tensor(x), try backend.tensor(dy))
    let y = try backend.allocate(dy.shape, .float32)  // [lead…, out]
    let dx = try backend.allocate(x.shape, .float32)  // [lead…, in]
    let scratch = try GLoRALinear.Scratch(
        Arena(backend, chunkByteCount: 1 << 16), weightCount: inputs * outputs, outputs: outputs,
        inputs: inputs)

    let kept = GLoRALinear.Kept(
        bias: try backend.allocate([outputs], .float32), t: try backend.allocate([y.rows, rank], .float32),
        product: try backend.allocate([y.rows, outputs], .float32))

    let mark: Float = 7
    backend.fill(y, .nan)
    backend.fill(dx, .nan)
    store.clearGradients()
    for tensor in offPath {
        if let gradient = store["\(name).\(tensor)"]?.gradient { backend.fill(gradient, mark) }
    }
    layer.forward(y, xs, path: path, kept, backend, scratch)
    layer.backward(dx, dys, xs, path: path, kept, backend, scratch)
    let merged = layer.merged(path: path, backend, scratch)
    let gradients = store.unpack(store.gradients)

    let onPath = Set(layer.tensorsOnPath(path))
    let stored = file.names(under: "grad.", suffix: ".f64")
    let largest = try golden["grad_absmax"]?.numberValue ?? largestMagnitude(file, stored)
    var comparison = Comparison()
    func compare(_ name: String, _ actual: [Float]) throws {
        let (truth, official) = try file.truth(name)
        let bound = 1e-6 * largest
        let isZero = golden.strings("analytically_zero_grads").contains(String(name.dropFirst("grad.".count)))
        if isZero || official == nil {
            comparison.absolute(name, actual, truth: truth, bound: bound)
        } else {
            comparison.normalised(name, actual, truth: truth, official: official, absoluteBound: bound)
        }
    }
    try compare("out.y", backend.values(y))
    try compare("out.dx", backend.values(dx))
    try compare("out.W_merged", merged.weight.values)
    if file.entries["out.b_merged.f64"] != nil {
        try compare("out.b_merged", merged.bias?.values ?? Array(repeating: 0, count: outputs))
    }
    for tensor in stored {
        try compare("grad.\(tensor)", gradients["\(name).\(tensor)"]?.values ?? [])
        comparison.expect(onPath.contains(tensor), otherwise: "\(tensor) is taken to be off the path")
    }
    for tensor in offPath {
        let isUntouched = gradients["\(name).\(tensor)"]?.values.allSatisfy { $0 == mark } ?? false
        comparison.expect(isUntouched, otherwise: "\(tensor) is off the path and its gradient was written")
        comparison.expect(!onPath.contains(tensor), otherwise: "\(tensor) is taken to be on the path")
    }
    return comparison
}

/// The largest magnitude among the stored gradients; 1 without any.
private func largestMagnitude(_ file: SafetensorsFile, _ gradients: [String]) throws -> Double {
    var largest = 0.0
    for name in gradients { largest = try max(largest, file.doubles("grad.\(name).f64").map(abs).max() ?? 0) }
    return largest > 0 ? largest : 1
}
