import TensorCore
import TestSupport
import Testing

/// Rows of [a, b] from a and b [n, columns].
func besides(_ a: [Float], _ b: [Float], columns: Int) -> [Float] {
    var packed: [Float] = []
    for first in stride(from: 0, to: a.count, by: columns) {
        packed += a[first..<first + columns]
        packed += b[first..<first + columns]
    }
    return packed
}

@Suite("Gates of an MLP") struct GateTests {
    /// Good to some 1e-9.
    private func slope(_ f: (Double) -> Double, at x: Double) -> Double {
        (f(x + 1e-5) - f(x - 1e-5)) / 2e-5
    }

    /// Off ReLU's bend, where there is no central difference.
    private func inputs(_ count: Int) -> [Float] {
        randomValues(count, seed: 1, scale: 2).map { abs($0) < 1e-3 ? 0.5 : $0 }
    }

    @Test(
        "A gate is its formula in double and its gradients central differences, for tensors apart and halves of one",
        arguments: TestDevice.all, RowSize.all)
    func gate(device: TestDevice, size: RowSize) throws {
        let (n, d) = (size.rows, size.columns)
        let (a, b, dy) = (
            inputs(n * d), randomValues(n * d, seed: 2), randomValues(n * d, seed: 3)
        )
        let packed = besides(a, b, columns: d)
        func halves(_ values: [Float]) -> ([Float], [Float]) {
            let rows = (0..<n).map { values[2 * $0 * d..<2 * ($0 + 1) * d] }
            return (rows.flatMap { $0.prefix(d) }, rows.flatMap { $0.suffix(d) })
        }
        for activation in Activation.allCases {
            let expected = zip(a, b).map { Reference.activation(activation, Double($0)) * Double($1) }
            let dA = a.indices.map { i in
                slope(
                    { Double(dy[i]) * Reference.activation(activation, $0) * Double(b[i]) }, at: Double(a[i]))
            }
            let dB = a.indices.map { i in
                slope(
                    { Double(dy[i]) * Reference.activation(activation, Double(a[i])) * $0 }, at: Double(b[i]))
            }
            let what = "gate \(activation) \(size)"
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let ta = MatrixBlock(try guarded.input(a, [n, d], "a"), stride: d)
                let tb = MatrixBlock(try guarded.input(b, [n, d], "b"), stride: d)
                let tdy = try guarded.input(dy, [n, d], "dy")
                let y = try guarded.output([n, d], "y")
                backend.gate(y, ta, tb, activation)
                expectClose(backend.values(y), expected, what)
                let (tdA, tdB) = (try guarded.output([n, d], "dA"), try guarded.output([n, d], "dB"))
                backend.gateBackward(
                    MatrixBlock(tdA, stride: d), MatrixBlock(tdB, stride: d), tdy, ta, tb, activation)
                expectClose(backend.values(tdA), dA, "\(what), dA")
                expectClose(backend.values(tdB), dB, "\(what), dB")

                // Halves of one tensor, whose gradients take their place.
                let both = try guarded.inOut(packed, [n, 2 * d], "a and b")
                let (first, second) = (
                    MatrixBlock(both, stride: 2 * d), MatrixBlock(both, offset: d, stride: 2 * d)
                )
                let z = try guarded.output([n, d], "y of halves")
                backend.gate(z, first, second, activation)
                expectClose(backend.values(z), expected, "\(what), halves")
                backend.gateBackward(first, second, tdy, first, second, activation)
                let found = halves(backend.values(both))
                expectClose(found.0, dA, "\(what), dA in place")
                expectClose(found.1, dB, "\(what), dB in place")
                guarded.expectIntact(what)
            }
        }
    }
}
