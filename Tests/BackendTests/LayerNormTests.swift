import TensorCore
import TestSupport
import Testing

@Suite("LayerNorm and its backward") struct LayerNormTests {
    /// A mean of 30 standard deviations: E[x²] − mean² in float32 would miss the limit.
    private func rows(_ size: RowSize) -> [Float] { randomValues(size.count, seed: 1, mean: 30) }

    @Test("Rows far from zero are normalised as in double", arguments: TestDevice.all, RowSize.all)
    func forward(device: TestDevice, size: RowSize) throws {
        let (n, d) = (size.rows, size.columns)
        let x = rows(size)
        let (weight, bias) = (randomValues(d, seed: 2), randomValues(d, seed: 3))
        let expected = Reference.layerNorm(
            Matrix(n, d, x), weight: doubles(weight), bias: doubles(bias), epsilon: 1e-5)
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let y = try guarded.output([n, d], "y")
            let (mean, rstd) = (try guarded.output([n], "mean"), try guarded.output([n], "rstd"))
            backend.layerNorm(
                y, mean, rstd, try guarded.input(x, [n, d], "x"), try guarded.input(weight, [d], "weight"),
                try guarded.input(bias, [d], "bias"), epsilon: 1e-5)
            // x itself is rounded to 2⁻²² of its mean of 30; what is left is the reference's own
            // sensitivity.
            expectClose(backend.values(y), expected.y.values, "layerNorm \(size) y")
            expectClose(backend.values(mean), expected.mean, "layerNorm \(size) mean")
            expectClose(backend.values(rstd), expected.rstd, "layerNorm \(size) rstd")
            guarded.expectIntact("layerNorm")
        }
    }

    /// 1 / √∞ is 0, which would make the bias of such a row; PyTorch's is NaN.
    @Test("A row whose squares leave float32 is no number, its neighbour is", arguments: TestDevice.all)
    func overflow(device: TestDevice) throws {
        let d = 40
        let row = randomValues(d, seed: 1)
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let y = try guarded.output([2, d], "y")
            let (mean, rstd) = (try guarded.output([2], "mean"), try guarded.output([2], "rstd"))
            backend.layerNorm(
                y, mean, rstd, try guarded.input(row.map { $0 * 1e20 } + row, [2, d], "x"),
                try guarded.input(randomValues(d, seed: 2), [d], "weight"),
                try guarded.input(randomValues(d, seed: 3), [d], "bias"), epsilon: 1e-6)
            let values = backend.values(y)
            #expect(values[..<d].allSatisfy { $0.isNaN })
            #expect(values[d...].allSatisfy { $0.isFinite })
        }
    }

    /// From 3 columns on: with fewer dx is zero but for ε.
    @Test(
        "The gradients are those in double; dx accumulates where it is asked to", arguments: TestDevice.all,
        RowSize.all.filter { $0.columns > 2 })
    func backward(device: TestDevice, size: RowSize) throws {
        let (n, d) = (size.rows, size.columns)
        let (x, dy) = (randomValues(size.count, seed: 1, mean: 1), randomValues(size.count, seed: 2))
        let weight = randomValues(d, seed: 3)
        let (dx0, dWeight0) = (randomValues(size.count, seed: 4), randomValues(d, seed: 5))
        let dBias0 = randomValues(d, seed: 6)
        let zeros = [Double](repeating: 0, count: d)
        let forward = Reference.layerNorm(
            Matrix(n, d, x), weight: doubles(weight), bias: zeros, epsilon: 1e-5)
        let expected = Reference.layerNormBackward(
            Matrix(n, d, dy), Matrix(n, d, x), weight: doubles(weight), epsilon: 1e-5)
        for accumulate in [false, true] {
            for (trainsWeight, trainsBias) in [(true, true), (false, false), (true, false), (false, true)] {
                try device.withBackend { backend in
                    let guarded = GuardedTensors(backend)
                    let dx =
                        try accumulate ? guarded.inOut(dx0, [n, d], "dx") : guarded.output([n, d], "dx")
                    let dWeight = trainsWeight ? try guarded.inOut(dWeight0, [d], "dWeight") : nil
                    let dBias = trainsBias ? try guarded.inOut(dBias0, [d], "dBias") : nil
                    backend.layerNormBackward(
                        dx, dWeight, dBias, try guarded.input(dy, [n, d], "dy"),
                        try guarded.input(x, [n, d], "x"),
                        try guarded.input(forward.mean.map { Float($0) }, [n], "mean"),
                        try guarded.input(forward.rstd.map { Float($0) }, [n], "rstd"),
                        try guarded.input(weight, [d], "weight"), accumulate: accumulate)
                    let what = "layerNormBackward \(size), accumulate \(accumulate)"
                    let expectedDx = accumulate ? expected.dx.combined(Matrix(n, d, dx0), +) : expected.dx
                    expectClose(backend.values(dx), expectedDx.values, "\(what) dx")
                    if let dWeight {
                        let sums = zip(expected.dWeight, dWeight0).map { $0 + Double($1) }
                        expectClose(backend.values(dWeight), sums, "\(what) dWeight")
                    }
                    if let dBias {
                        let sums = zip(expected.dBias, dBias0).map { $0 + Double($1) }
                        expectClose(backend.values(dBias), sums, "\(what) dBias")
                    }
                    guarded.expectIntact(what)
                }
            }
        }
    }
}
