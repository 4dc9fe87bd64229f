import Adapters
import Foundation
import TensorCore
import TestSupport
import Testing

/// The layer on a backend against the double-precision reference: forward, dx, every gradient, the merged layer, and what a
/// path leaves alone.
@Suite("A GLoRA layer against its definition in double precision")
struct GLoRALinearTests {
    static let inputs = 6
    static let outputs = 5
    static let rank = 3
    static let rows = 4

    /// On the CPU all 432 paths of the original's space at the storage's rank, everywhere every 41st of the 1,620 paths
    /// at ranks 1, 2 and 3: the stride shares no divisor with any number of forms, so it meets every form of every tensor.
    /// Each in every formulation that allows it.
    @Test("Every path gives the reference's output, gradients and merged layer", arguments: TestDevice.all)
    func paths(device: TestDevice) throws {
        let original = try SearchSpace(ranks: [3]).paths
        let all = try SearchSpace(ranks: [1, 2, 3]).paths
        let spread = stride(from: 0, to: all.count, by: TestDevice.onlySmall ? 211 : 41).map { all[$0] }
        #expect(Set(spread.map(\.a)).count == 6 && Set(spread.map(\.b)).count == 6)
        #expect(Set(spread.map(\.c)).count == 5)
        #expect(Set(spread.map(\.d)).count == 3 && Set(spread.map(\.e)).count == 3)
        let chosen = device.description == "cpu" ? original + spread : spread
        try device.withBackend { backend in
            for hasBias in [true, false] { try GLoRALinearTests.check(chosen, hasBias: hasBias, backend) }
        }
    }

    /// The reference's gradients, against central differences of Σ dy ⊙ y in double.
    @Test("The reference's gradients are the slopes of its output")
    func referenceAgainstCentralDifferences() throws {
        let all = try SearchSpace(ranks: [2, 3]).paths
        for path in stride(from: 0, to: all.count, by: 29).map({ all[$0] }) {
            for hasBias in [true, false] {
                var (layer, x, dy) = GLoRALinearTests.example(hasBias: hasBias)
                let (dx, gradients) = layer.backward(dy, x, path)
                func loss(_ layer: LayerReference, _ x: [Double]) -> Double {
                    zip(layer.forward(x, path), dy).reduce(0) { $0 + $1.0 * $1.1 }
                }
                for (name, gradient) in gradients {
                    for index in gradient.indices {
                        let saved = layer.stored[name]![index]
                        layer.stored[name]![index] = saved + 1e-4
                        let above = loss(layer, x)
                        layer.stored[name]![index] = saved - 1e-4
                        let below = loss(layer, x)
                        layer.stored[name]![index] = saved
                        #expect(abs((above - below) / 2e-4 - gradient[index]) < 1e-8, "\(name) on \(path)")
                    }
                }
                for index in x.indices {
                    var (above, below) = (x, x)
                    above[index] += 1e-4
                    below[index] -= 1e-4
                    #expect(abs((loss(layer, above) - loss(layer, below)) / 2e-4 - dx[index]) < 1e-8)
                }
            }
        }
    }

    /// First values: Xd, D and E zero, so the layer starts as the frozen one; Xu within Xavier's bound.
    @Test("A fresh layer starts as the frozen one")
    func firstValues() throws {
        var random = Random(3, "test")
        let declarations = GLoRALinear.declarations("l", inputs: 50, outputs: 7, rank: 4, random: &random)
        let byName = Dictionary(uniqueKeysWithValues: declarations.map { ($0.name, $0.initial) })
        let shapes = byName.mapValues(\.shape)
        #expect(
            shapes == [
                "l.Ad": [7, 4], "l.Au": [4, 50], "l.Bd": [7, 4], "l.Bu": [4, 50], "l.Cd": [50, 4],
                "l.Cu": [4, 1],
                "l.D": [7], "l.E": [7],
            ])
        for name in ["l.Ad", "l.Bd", "l.Cd", "l.D", "l.E"] {
            #expect(byName[name]!.values.allSatisfy { $0 == 0 })
        }
        for (name, bound) in [("l.Au", (6.0 / 54).squareRoot()), ("l.Bu", (6.0 / 54).squareRoot())] {
            let values = byName[name]!.values.map(Double.init)
            #expect(values.allSatisfy { abs($0) <= bound })
            // The variance of U(±bound) is bound²/3; 200 values stray from it by 9 % at most, almost always.
            let variance = values.reduce(0) { $0 + $1 * $1 } / Double(values.count)
            #expect(abs(variance / (bound * bound / 3) - 1) < 0.25)
        }
        #expect(byName["l.Cu"]!.values.allSatisfy { abs(Double($0)) <= (6.0 / 5).squareRoot() })
        #expect(byName["l.Au"] != byName["l.Bu"])
    }

    /// Every pair of a form of A and one of B in each formulation, with and without what changes the bias.
    @Test("Both formulations give the same wherever both are allowed", arguments: TestDevice.all)
    func formulations(device: TestDevice) throws {
        let forms: [MatrixForm] = [.none, .constant, .vector, .lowRank(2), .lowRank(3)]
        let paths = forms.flatMap { a in
            forms.flatMap { b in
                [GLoRAPath(a: a, b: b), GLoRAPath(a: a, b: b, c: .lowRank(2), d: .vector, e: .constant)]
            }
        }
        for path in paths {
            #expect(Formulation.weight.allows(path))
            let isLowRank = if case .lowRank = path.a { true } else { false }
            #expect(Formulation.activation.allows(path) == !isLowRank)
        }
        try device.withBackend { try GLoRALinearTests.check(paths, hasBias: true, $0) }
    }

    /// z is kept where A scales it in activation space, which is where that is cheaper: in a ViT-B, whatever the batch, but
    /// not in a narrow layer, whose passes over n rows cost more than W's.
    @Test("A layer keeps its product where that is what the backward reads")
    func keepsProduct() throws {
        func cheaper(_ path: GLoRAPath, rows: Int) -> Formulation {
            Formulation.cheaper(path, rows: rows, inputs: 768, outputs: 3072)
        }
        for rows in [8, 1576, 12608] {
            for form in [MatrixForm.constant, .vector] {
                #expect(cheaper(GLoRAPath(a: form), rows: rows) == .activation)
            }
            #expect(cheaper(GLoRAPath(b: .lowRank(3)), rows: rows) == .activation)
            #expect(cheaper(GLoRAPath(a: .lowRank(3)), rows: rows) == .weight)
        }
        try TestDevice.all[0].withBackend { backend throws in
            func keeps(_ path: GLoRAPath, _ inputs: Int, _ outputs: Int, product: Bool = true) throws -> Bool
            {
                let (layer, pass, _, _) = try GLoRALinearTests.layer(
                    LayerReference(
                        inputs: inputs, outputs: outputs, rank: 3,
                        weight: Array(repeating: 0, count: inputs * outputs), bias: nil, stored: [:]),
                    rows: 8, hasProduct: product, backend)
                layer.path = path
                pass.begin()
                return pass.keepsProduct
            }
            for form in [MatrixForm.constant, .vector] {
                #expect(try keeps(GLoRAPath(a: form), 192, 768))
                #expect(try keeps(GLoRAPath(a: form, b: .lowRank(3)), 192, 768))
                #expect(try !keeps(GLoRAPath(a: form), 192, 768, product: false))
            }
            #expect(try !keeps(GLoRAPath(b: .lowRank(3)), 192, 768))
            #expect(try !keeps(GLoRAPath(a: .lowRank(3), b: .vector), 192, 768))
            #expect(try !keeps(.none, 192, 768))
            #expect(try !keeps(GLoRAPath(a: .vector, b: .vector), 6, 5))
        }
    }

    /// The two costs by hand, in bytes, for W₀ [30, 20] and 7 rows: 2 · 7 · 20 · 30 / 8 = 1,050 for a product, 2,400 for W₀.
    @Test("The costs of both formulations are those counted by hand")
    func formulationCosts() {
        func expectCost(_ formulation: Formulation, _ path: GLoRAPath, _ bytes: Double) {
            let cost = formulation.cost(path, rows: 7, inputs: 20, outputs: 30)
            #expect(cost == bytes, "\(formulation) \(path)")
        }
        // Three products; W₀ read and W written forward and backward, W₀ read in the contraction.
        expectCost(.weight, GLoRAPath(a: .vector), 3_150 + 12_000)
        expectCost(.weight, GLoRAPath(c: .vector), 2_100)
        // W₀ four times; z, 7 · 30 floats, written and read, and dy beside it.
        expectCost(.activation, GLoRAPath(a: .vector), 11_700 + 1_680 + 840)
        // x and dy, 7 · 50 floats.
        expectCost(.activation, GLoRAPath(b: .vector), 11_700 + 1_400)
        // x and dy twice, z twice.
        expectCost(.activation, GLoRAPath(a: .constant, b: .lowRank(2)), 11_700 + 2_800 + 1_680)
    }

    // MARK: Helpers

    /// A layer with values in every stored tensor, x [n, in] and dy [n, out]; all are float32 numbers.
    static func example(hasBias: Bool) -> (layer: LayerReference, x: [Double], dy: [Double]) {
        func values(_ count: Int, _ seed: Int) -> [Double] {
            doubles(randomValues(count, seed: seed, scale: 0.7))
        }
        let stored = [
            "Ad": values(outputs * rank, 1), "Au": values(rank * inputs, 2), "Bd": values(outputs * rank, 3),
            "Bu": values(rank * inputs, 4), "Cd": values(inputs * rank, 5), "Cu": values(rank, 6),
            "D": values(outputs, 7), "E": values(outputs, 8),
        ]
        let layer = LayerReference(
            inputs: inputs, outputs: outputs, rank: rank, weight: values(outputs * inputs, 9),
            bias: hasBias ? values(outputs, 10) : nil, stored: stored)
        return (layer, values(rows * inputs, 11), values(rows * outputs, 12))
    }

    private static func shapes(_ layer: LayerReference) -> [String: [Int]] {
        let (inputs, outputs, rank) = (layer.inputs, layer.outputs, layer.rank)
        return [
            "Ad": [outputs, rank], "Au": [rank, inputs], "Bd": [outputs, rank], "Bu": [rank, inputs],
            "Cd": [inputs, rank], "Cu": [rank, 1], "D": [outputs], "E": [outputs],
        ]
    }

    /// The reference's layer on a backend, with memory for a training of n rows in which z may be kept in `product`. Support tensors
    /// that the reference hasn't are zero.
    private static func layer(
        _ reference: LayerReference, rows: Int, hasProduct: Bool, _ backend: any Backend
    ) throws -> (layer: GLoRALinear, pass: any LinearPass, store: ParameterStore, product: Tensor) {
        let (inputs, outputs) = (reference.inputs, reference.outputs)
        func host(_ values: [Double], _ shape: [Int]) -> HostTensor {
            HostTensor(shape: shape, values: values.map { Float($0) })
        }
        let store = try ParameterStore(
            backend,
            shapes(reference).sorted { $0.key < $1.key }.map { name, shape in
                let values = reference.stored[name] ?? Array(repeating: 0, count: shape.reduce(1, *))
                return .init("l.\(name)", host(values, shape))
            })
        let arena = Arena(backend, chunkByteCount: 1 << 14)
        let scratch = try LinearScratch(
            arena, weightCount: outputs * inputs, outputs: outputs, inputs: inputs)
        let base = BaseLinear(
            "l",
            weight: Parameter(
                name: "l.weight", value: try backend.tensor(host(reference.weight, [outputs, inputs]))),
            bias: try reference.bias.map {
                Parameter(name: "l.bias", value: try backend.tensor(host($0, [outputs])))
            }, scratch, backend)
        let layer = GLoRALinear(base, try #require(GLoRALinear.Support("l", in: store)))
        let product = try backend.allocate([rows, outputs], .float32)
        let pass = try Workspace.layOut(in: arena, isForTraining: true, stored: .float32) {
            try layer.pass(rows: rows, product: hasProduct ? product : nil, in: $0)
        }
        return (layer, pass, store, product)
    }

    private static func check(_ paths: [GLoRAPath], hasBias: Bool, _ backend: any Backend) throws {
        let (reference, x, dy) = example(hasBias: hasBias)
        func host(_ values: [Double], _ shape: [Int]) -> HostTensor {
            HostTensor(shape: shape, values: values.map { Float($0) })
        }
        let (layer, pass, store, product) = try self.layer(reference, rows: rows, hasProduct: true, backend)
        let (xs, dys) = (
            try backend.tensor(host(x, [rows, inputs])), try backend.tensor(host(dy, [rows, outputs]))
        )
        let (y, dx) = (
            try backend.allocate([rows, outputs], .float32), try backend.allocate([rows, inputs], .float32)
        )
        let activated = try backend.allocate([rows, outputs], .float32)
        let evaluation = try Workspace.layOut(in: Arena(backend), isForTraining: false, stored: .float32) {
            try layer.pass(rows: rows, product: nil, in: $0)
        }
        // Gradients accumulate: they start from these values, which a tensor off the path keeps to the bit.
        let before = Dictionary(
            uniqueKeysWithValues: shapes(reference).enumerated().map { index, entry in
                let count = entry.value.reduce(1, *)
                let values = randomValues(count, seed: 100 + index)
                return ("l.\(entry.key)", HostTensor(shape: entry.value, values: values))
            })

        for path in paths {
            let expected = reference.backward(dy, x, path)
            let output = reference.forward(x, path)
            layer.path = path
            let onPath = Set(layer.tensorsOnPath)
            #expect(onPath == tensorsRead(path, hasBias: hasBias), "on \(path)")
            for formulation in Formulation.allCases where formulation.allows(path) {
                let what = "on \(path) in \(formulation) space"
                store.pack(store.gradients, before)
                for tensor in [y, dx, activated, product] { backend.fill(tensor, .nan) }
                layer.forced = formulation
                pass.begin()
                pass.forward(y, xs, activated: activated, dropoutSeed: nil)
                expectClose(backend.values(y), output, "y \(what)")
                expectClose(backend.values(activated), output.map(gelu), "GELU(y) \(what)")
                pass.backward(dx, dys, xs, dropoutSeed: nil)
                expectClose(backend.values(dx), expected.dx, "dx \(what)")
                let after = store.unpack(store.gradients)
                for name in shapes(reference).keys {
                    let start = before["l.\(name)"]!.values
                    guard onPath.contains(name) else {
                        expectIdentical(after["l.\(name)"]!.values, start, "gradient of \(name), \(what)")
                        continue
                    }
                    let sum = zip(doubles(start), expected.gradients[name]!).map { $0 + $1 }
                    expectClose(after["l.\(name)"]!.values, sum, "gradient of \(name) \(what)")
                }
                if formulation == .activation, path.a != .none {
                    // From z alone, each output by itself, as a backward asks for them.
                    for tensor in [y, activated] { backend.fill(tensor, .nan) }
                    pass.forward(nil, xs, activated: nil, dropoutSeed: nil)
                    pass.rebuild(y, activated: nil)
                    pass.rebuild(nil, activated: activated)
                    expectClose(backend.values(y), output, "y rebuilt \(what)")
                    expectClose(backend.values(activated), output.map(gelu), "GELU(y) rebuilt \(what)")
                }
            }
            try layer.prepare()
            for tensor in [y, activated] { backend.fill(tensor, .nan) }
            evaluation.forward(y, xs, activated: activated, dropoutSeed: nil)
            expectClose(backend.values(y), output, "y prepared on \(path)")
            expectClose(backend.values(activated), output.map(gelu), "GELU(y) prepared on \(path)")

            guard let merged = layer.folded() else {
                #expect(path == .none)
                continue
            }
            expectClose(merged.weight.values, reference.merged(path).weight, "W on \(path)")
            if let bias = merged.bias {
                expectClose(bias.values, reference.merged(path).bias, "b on \(path)")
            } else {
                #expect(!hasBias && !path.changesBias)
            }
        }
    }

    private static func gelu(_ x: Double) -> Double { x / 2 * (1 + erf(x / 2.0.squareRoot())) }

    /// What autograd would give a gradient, from the formulas.
    private static func tensorsRead(_ path: GLoRAPath, hasBias: Bool) -> Set<String> {
        var names: Set<String> = []
        for (letter, form) in [("A", path.a), ("B", path.b)] {
            switch form {
            case .none: break
            case .constant, .vector: names.insert(letter + "d")
            case .lowRank: names.formUnion([letter + "d", letter + "u"])
            }
        }
        switch path.c {
        case .none: break
        case .vector: names.insert("Cd")
        case .lowRank: names.formUnion(["Cd", "Cu"])
        }
        if path.d != .none && hasBias { names.insert("D") }
        if path.e != .none { names.insert("E") }
        return names
    }
}
