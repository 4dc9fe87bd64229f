import Checkpoints
import Foundation
import ModelConfiguration
import TensorCore

/// One operation: y given its inputs, and every gradient given that of y, `in.d_y`. What it computes is the description's `formula`.
func replayOperation(
    _ file: SafetensorsFile, _ golden: JSONValue, on backend: any Backend
) throws -> Comparison {
    func stored(_ name: String) throws -> Tensor { try backend.stored(file.tensor("in.\(name)")) }
    let dy = try stored("d_y")  // [n, d]
    func result() throws -> Tensor { try backend.marked(dy.shape) }
    var found: [String: Tensor] = [:]
    switch try golden.string("formula") {
    case "y = weight · x · (mean(x²) + eps)^-1/2": found = try rmsNorm(file, golden, plus: 0, on: backend)
    case "Gemma: y = (1 + weight) · x · (mean(x²) + eps)^-1/2":
        found = try rmsNorm(file, golden, plus: 1, on: backend)
    case "y = x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))":
        let (x, y, dx) = (try stored("x"), try result(), try result())
        backend.activate(y, x, .geluTanh)
        backend.activateBackward(dx, dy, x, .geluTanh)
        found = ["out.y": y, "grad.x": dx]
    case let formula where ["y = silu(gate) · up", "y = gelu_tanh(gate) · up"].contains(formula):
        let activation: Activation = formula.contains("silu") ? .silu : .geluTanh
        let (gate, up) = (try stored("gate"), try stored("up"))
        let (y, dGate, dUp) = (try result(), try result(), try result())
        func block(_ tensor: Tensor) -> MatrixBlock { MatrixBlock(tensor, stride: tensor.columns) }
        backend.gate(y, block(gate), block(up), activation)
        backend.gateBackward(block(dGate), block(dUp), dy, block(gate), block(up), activation)
        found = ["out.y": y, "grad.gate": dGate, "grad.up": dUp]
    case let formula: throw GoldenError("the formula '\(formula)' is none that this program knows")
    }
    return try compare(file, found.mapValues(backend.values), on: backend)
}

/// A rotation of queries by the places of their patches: the tables out.cos and out.sin [H · W, head], y and dx [1, heads, H · W, head].
/// DINOv3's where the settings have no grid of the pretraining, else EVA-02's.
func replayRotation(
    _ file: SafetensorsFile, _ golden: JSONValue, on backend: any Backend
) throws -> Comparison {
    guard let size = golden["grid"]?.arrayValue?.compactMap(\.integerValue), size.count == 2,
        size.allSatisfy({ $0 > 0 }), let settings = golden["settings"]
    else {
        throw GoldenError(
            "the description has no grid of patches; rotations along a line of tokens aren't known")
    }
    let known: Set = ["temperature", "reference_grid"]
    guard Set((settings.objectValue ?? [:]).keys).isSubset(of: known) else {
        throw GoldenError(
            "the settings \(settings.text()) hold more than \(known.sorted().joined(separator: " and "))")
    }
    let layouts: [String: RotaryLayout] = ["half": .halves, "interleaved": .interleaved]
    guard let layout = layouts[try golden.string("layout")] else {
        throw GoldenError("the layout '\(try golden.string("layout"))' isn't known")
    }
    var coordinates = RotaryGrid.Coordinates.centered
    if let sides = settings["reference_grid"]?.arrayValue?.compactMap(\.integerValue) {
        guard sides.count == 2, sides[0] == sides[1] else { throw GoldenError("reference_grid is no square") }
        coordinates = .index(offset: 0, reference: sides[0])
    }
    let grid = RotaryGrid(
        temperature: try settings.number("temperature"), layout: layout, coordinates: coordinates)
    let (x, dy) = (try file.tensor("in.x"), try file.tensor("in.d_y"))
    let (patches, head) = (size[0] * size[1], try golden.integer("head_dim"))
    guard x.shape.count == 4, x.shape == dy.shape, x.shape[0] == 1, x.shape[2...] == [patches, head],
        head % 4 == 0
    else { throw GoldenError("in.x of shape \(x.shape) holds no queries of \(patches) patches") }
    let (heads, pairs) = (x.shape[1], head / 2)
    let angles = grid.angles(rows: size[0], columns: size[1], headWidth: head)  // [patches, pairs]
    let cosines = try backend.tensor(
        HostTensor(shape: [patches, pairs], values: angles.map { Float(cos($0)) }))
    let sines = try backend.tensor(
        HostTensor(shape: [patches, pairs], values: angles.map { Float(sin($0)) }))
    let positions = try backend.allocate([patches], .int32)
    backend.upload(positions, (0..<patches).map { Int32($0) })

    /// [1, heads, patches, head] ↔ [patches, heads · head] is a turn of the two in the middle.
    func turned(_ values: [Float], _ rows: Int, _ columns: Int) -> [Float] {
        (0..<columns * rows).flatMap { index -> ArraySlice<Float> in
            let start = ((index % rows) * columns + index / rows) * head
            return values[start..<start + head]
        }
    }
    func rotated(_ host: HostTensor, inverse: Bool) throws -> [Float] {
        let rows = HostTensor(shape: [patches, heads * head], values: turned(host.values, heads, patches))
        let tensor = try backend.stored(rows)
        backend.rotate(
            MatrixBlock(tensor, stride: heads * head), positions: positions, cosines: cosines, sines: sines,
            heads: heads,
            headWidth: head, layout: layout, inverse: inverse)
        return turned(backend.values(tensor), patches, heads)
    }
    var comparison = try compare(
        file, ["out.y": rotated(x, inverse: false), "grad.x": rotated(dy, inverse: true)], on: backend)
    // timm has an angle for each number of a head, in float32: of at most 2π · √2, they are off by some 2⁻²².
    for (name, function) in [("out.cos", { cos($0) }), ("out.sin", { sin($0) })]
        as [(String, (Double) -> Double)]
    {
        let table = (0..<patches * head).map { index -> Float in
            let (patch, number) = (index / head, index % head)
            return Float(function(angles[patch * pairs + (layout == .halves ? number % pairs : number / 2)]))
        }
        comparison.absolute(name, table, truth: try file.doubles(name), bound: 1e-6)
    }
    return comparison
}

private func rmsNorm(
    _ file: SafetensorsFile, _ golden: JSONValue, plus one: Float, on backend: any Backend
) throws -> [String: Tensor] {
    var weight = try file.tensor("in.weight")
    weight.values = weight.values.map { $0 + one }
    let (x, dy) = (try backend.stored(file.tensor("in.x")), try backend.stored(file.tensor("in.d_y")))
    let (scale, rstd) = (try backend.tensor(weight), try backend.allocate([x.rows], .float32))
    let (y, dx) = (try backend.marked(x.shape), try backend.marked(x.shape))
    let dWeight = try backend.tensor(HostTensor(shape: weight.shape, repeating: 0))
    backend.rmsNorm(y, rstd, x, scale, epsilon: Float(try golden.number("eps")))
    backend.rmsNormBackward(dx, dWeight, dy, x, rstd, scale, accumulate: false)
    return ["out.y": y, "grad.x": dx, "grad.weight": dWeight]
}

/// Every output and gradient that the file has, by the length of what is off. None is left out.
private func compare(
    _ file: SafetensorsFile, _ found: [String: [Float]], on backend: any Backend
) throws -> Comparison {
    var comparison = Comparison()
    let bounds = Bounds(backend.precision)
    let names = ["out.", "grad."].flatMap { part in file.names(under: part, suffix: ".f64").map { part + $0 }
    }
    for name in names {
        guard let values = found[name] else {
            throw GoldenError("\(name) is nothing that the operation gives")
        }
        // One operation rounds no more than a transformer does; what PyTorch's float32 was off by isn't needed.
        comparison.distance(
            name, values, truth: try file.truth(name).truth, bound: bounds.tensor(official: 0))
    }
    return comparison
}

extension Backend {
    /// `host` as activations are stored. Throws `BackendError.outOfMemory`.
    fileprivate func stored(_ host: HostTensor) throws -> Tensor {
        let tensor = try allocate(host.shape, precision.stored)
        upload(tensor, host.values)
        return tensor
    }

    /// Activations that are NaN until something is written. Throws `BackendError.outOfMemory`.
    fileprivate func marked(_ shape: [Int]) throws -> Tensor {
        try stored(HostTensor(shape: shape, repeating: .nan))
    }
}
