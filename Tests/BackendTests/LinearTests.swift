import TensorCore
import TestSupport
import Testing

/// The weights that a product can be given.
enum WeightKind: String, CaseIterable, Sendable {
    case plain, terms, prepared, preparedPlain
}

/// A Linear's sizes: n rows through a layer.
struct LinearSize: Sendable, CustomStringConvertible {
    let rows: Int
    let layer: LayerSize
    var description: String { "\(rows) rows, \(layer)" }

    init(_ rows: Int, _ outputs: Int, _ inputs: Int, _ rank: Int) {
        (self.rows, layer) = (rows, LayerSize(outputs, inputs, rank))
    }

    static let all = testSizes(
        [
            LinearSize(1, 1, 1, 1), LinearSize(3, 13, 17, 4), LinearSize(13, 3, 1, 1),
            LinearSize(33, 17, 197, 8), LinearSize(197, 33, 13, 3), LinearSize(65, 129, 130, 4),
            LinearSize(1, 257, 65, 4),
        ], small: [LinearSize(1, 1, 1, 1), LinearSize(5, 17, 3, 2)])
}

@Suite("A Linear with its epilogue") struct LinearTests {
    /// y, z and GELU(y), each wanted or not.
    private static let outputs = (1..<8).map {
        (y: $0 & 1 != 0, product: $0 & 2 != 0, activated: $0 & 4 != 0)
    }

    @Test(
        "A Linear gives every combination of its outputs: y, the pre-activation and GELU(y)",
        arguments: TestDevice.all, LinearSize.all)
    func everyOutput(device: TestDevice, size: LinearSize) throws {
        let layer = size.layer
        let (n, o, i) = (size.rows, layer.outputs, layer.inputs)
        let (x, frozen) = (randomValues(n * i, seed: 1), randomValues(o * i, seed: 2))
        let bias = randomValues(o, seed: 3, scale: 3)
        let (a, b) = (MatrixStorage(layer, seed: 10), MatrixStorage(layer, seed: 20))
        let form = MatrixForm.lowRank(layer.rank)
        let w = Reference.gloraWeight(Matrix(o, i, frozen), a.matrix(form), b.matrix(form))
        for kind in WeightKind.allCases {
            let isPlain = kind == .plain || kind == .preparedPlain
            let product = Matrix(n, i, x) * (isPlain ? Matrix(o, i, frozen) : w).transposed
            for hasBias in [false, true] {
                let y = hasBias ? Reference.adding(doubles(bias), to: product) : product
                for wanted in LinearTests.outputs {
                    let what = "linear \(size), \(kind), bias \(hasBias), \(wanted)"
                    try device.withBackend { backend in
                        let guarded = GuardedTensors(backend)
                        let frozenTensor = try guarded.input(frozen, [o, i], "W₀")
                        let weight = try self.weight(
                            kind, frozenTensor, try a.term(form, guarded), try b.term(form, guarded),
                            try guarded.output([o, i], "scratch"), backend)
                        var epilogue = Epilogue(bias: hasBias ? try guarded.input(bias, [o], "bias") : nil)
                        epilogue.preActivation = wanted.product ? try guarded.output([n, o], "z") : nil
                        epilogue.activated = wanted.activated ? try guarded.output([n, o], "activated") : nil
                        let result = wanted.y ? try guarded.output([1, n, o], "y") : nil
                        backend.linear(result, try guarded.input(x, [1, n, i], "x"), weight, epilogue)
                        if let result { expectClose(backend.values(result), y.values, "\(what) y") }
                        if let z = epilogue.preActivation {
                            expectClose(backend.values(z), product.values, "\(what) z")
                        }
                        if let activated = epilogue.activated {
                            expectClose(
                                backend.values(activated), y.values.map(Reference.gelu), "\(what) activated")
                        }
                        guarded.expectIntact(what)
                    }
                }
            }
        }
    }

    @Test("dx is dy times W, frozen or built from its terms", arguments: TestDevice.all, LinearSize.all)
    func backward(device: TestDevice, size: LinearSize) throws {
        let layer = size.layer
        let (n, o, i) = (size.rows, layer.outputs, layer.inputs)
        let (dy, frozen) = (randomValues(n * o, seed: 1), randomValues(o * i, seed: 2))
        let (a, b) = (MatrixStorage(layer, seed: 10), MatrixStorage(layer, seed: 20))
        let form = MatrixForm.lowRank(layer.rank)
        let w = Reference.gloraWeight(Matrix(o, i, frozen), a.matrix(form), b.matrix(form))
        for kind in [WeightKind.plain, .terms] {  // what is prepared is for the forward
            let expected = Matrix(n, o, dy) * (kind == .plain ? Matrix(o, i, frozen) : w)
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let weight = try self.weight(
                    kind, try guarded.input(frozen, [o, i], "W₀"), try a.term(form, guarded),
                    try b.term(form, guarded), try guarded.output([o, i], "scratch"), backend)
                let dx = try guarded.output([1, n, i], "dx")
                backend.linearBackward(dx, try guarded.input(dy, [1, n, o], "dy"), weight)
                expectClose(backend.values(dx), expected.values, "linearBackward \(size), \(kind)")
                guarded.expectIntact("linearBackward")
            }
        }
    }

    @Test(
        "A prepared weight keeps its values when the terms change and the scratch is used for something else",
        arguments: TestDevice.all)
    func preparedStays(device: TestDevice) throws {
        let layer = LayerSize(17, 33, 4)
        let (frozen, x) = (randomValues(17 * 33, seed: 1), randomValues(5 * 33, seed: 2))
        let storage = MatrixStorage(layer, seed: 10)
        let form = MatrixForm.lowRank(3)
        let w = Reference.gloraWeight(Matrix(17, 33, frozen), storage.matrix(form), storage.matrix(.vector))
        let expected = Matrix(5, 33, x) * w.transposed
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let frozenTensor = try guarded.input(frozen, [17, 33], "W₀")
            let down = try guarded.inOut(storage.down, [17, 4], "Xd")
            let parameter = Parameter(name: "Xd", value: down)
            let up = Parameter(name: "Xu", value: try guarded.input(storage.up, [4, 33], "Xu"))
            let scratch = try guarded.output([17, 33], "scratch")
            let weight = try backend.prepared(
                LinearWeight(
                    frozenTensor, a: MatrixTerm(form: form, down: parameter, up: up),
                    b: MatrixTerm(form: .vector, down: parameter, up: up), scratch: scratch))
            backend.fill(down, 7)
            backend.fill(scratch, .nan)
            let y = try guarded.output([5, 17], "y")
            backend.linear(y, try guarded.input(x, [5, 33], "x"), weight, Epilogue())
            expectClose(backend.values(y), expected.values, "a prepared weight")
            guarded.expectIntact("prepared")
        }
    }

    private func weight(
        _ kind: WeightKind, _ frozen: Tensor, _ a: MatrixTerm, _ b: MatrixTerm, _ scratch: Tensor,
        _ backend: any Backend
    ) throws -> LinearWeight {
        switch kind {
        case .plain: LinearWeight(frozen)
        case .preparedPlain: try backend.prepared(LinearWeight(frozen))
        case .terms: LinearWeight(frozen, a: a, b: b, scratch: scratch)
        case .prepared: try backend.prepared(LinearWeight(frozen, a: a, b: b, scratch: scratch))
        }
    }
}
