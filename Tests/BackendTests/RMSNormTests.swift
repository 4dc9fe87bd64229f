import TensorCore
import TestSupport
import Testing

@Suite("RMSNorm and its backward") struct RMSNormTests {
    @Test("Rows are divided by their root mean square as in double", arguments: TestDevice.all, RowSize.all)
    func forward(device: TestDevice, size: RowSize) throws {
        let (n, d) = (size.rows, size.columns)
        // ε counts: rows of a mean square near it.
        for (scale, epsilon): (Double, Float) in [(1, 1e-6), (1e-3, 1e-6), (30, 1e-5)] {
            let (x, weight) = (randomValues(size.count, seed: 1, scale: scale), randomValues(d, seed: 2))
            let expected = Reference.rmsNorm(
                Matrix(n, d, x), weight: doubles(weight), epsilon: Double(epsilon))
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let (y, rstd) = (try guarded.output([n, d], "y"), try guarded.output([n], "rstd"))
                backend.rmsNorm(
                    y, rstd, try guarded.input(x, [n, d], "x"), try guarded.input(weight, [d], "weight"),
                    epsilon: epsilon)
                expectClose(backend.values(y), expected.y.values, "rmsNorm \(size) y")
                expectClose(backend.values(rstd), expected.rstd, "rmsNorm \(size) rstd")
                guarded.expectIntact("rmsNorm")
            }
        }
    }

    @Test("A row whose squares leave float32 is no number, its neighbour is", arguments: TestDevice.all)
    func overflow(device: TestDevice) throws {
        let d = 40
        let row = randomValues(d, seed: 1)
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let (y, rstd) = (try guarded.output([2, d], "y"), try guarded.output([2], "rstd"))
            backend.rmsNorm(
                y, rstd, try guarded.input(row.map { $0 * 1e20 } + row, [2, d], "x"),
                try guarded.input(randomValues(d, seed: 2), [d], "weight"), epsilon: 1e-6)
            let values = backend.values(y)
            #expect(values[..<d].allSatisfy { $0.isNaN })
            #expect(values[d...].allSatisfy { $0.isFinite })
        }
    }

    /// From 2 columns on: with one dx is zero but for ε.
    @Test(
        "The gradients are those in double; dx accumulates where it is asked to", arguments: TestDevice.all,
        RowSize.all.filter { $0.columns > 1 })
    func backward(device: TestDevice, size: RowSize) throws {
        let (n, d) = (size.rows, size.columns)
        let (x, dy) = (randomValues(size.count, seed: 1, mean: 1), randomValues(size.count, seed: 2))
        let (weight, dx0) = (randomValues(d, seed: 3), randomValues(size.count, seed: 4))
        let dWeight0 = randomValues(d, seed: 5)
        let rstd = Reference.rmsNorm(Matrix(n, d, x), weight: doubles(weight), epsilon: 1e-5).rstd
        let expected = Reference.rmsNormBackward(
            Matrix(n, d, dy), Matrix(n, d, x), weight: doubles(weight), epsilon: 1e-5)
        for accumulate in [false, true] {
            for trainsWeight in [false, true] {
                try device.withBackend { backend in
                    let guarded = GuardedTensors(backend)
                    let what = "rmsNormBackward \(size), accumulate \(accumulate)"
                    let dx =
                        try accumulate ? guarded.inOut(dx0, [n, d], "dx") : guarded.output([n, d], "dx")
                    let dWeight = trainsWeight ? try guarded.inOut(dWeight0, [d], "dWeight") : nil
                    backend.rmsNormBackward(
                        dx, dWeight, try guarded.input(dy, [n, d], "dy"), try guarded.input(x, [n, d], "x"),
                        try guarded.input(rstd.map { Float($0) }, [n], "rstd"),
                        try guarded.input(weight, [d], "weight"), accumulate: accumulate)
                    let expectedDx = accumulate ? expected.dx.combined(Matrix(n, d, dx0), +) : expected.dx
                    expectClose(backend.values(dx), expectedDx.values, "\(what) dx")
                    if let dWeight {
                        let sums = zip(expected.dWeight, dWeight0).map { $0 + Double($1) }
                        expectClose(backend.values(dWeight), sums, "\(what) dWeight")
                    }
                    guarded.expectIntact(what)
                }
            }
        }
    }
}
