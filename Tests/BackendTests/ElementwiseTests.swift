import TensorCore
import TestSupport
import Testing

/// Counts on both sides of vectors and blocks; 20,000 is more than one block of the CPU backend.
let elementCounts = testSizes([1, 31, 63, 64, 65, 257, 768, 20_000], small: [1, 5, 33, 130])

@Suite("GELU, residual sums and scaled samples") struct ElementwiseTests {
    @Test("GELU and its backward are those in double, in place too", arguments: TestDevice.all, elementCounts)
    func gelu(device: TestDevice, count: Int) throws {
        let (x, dy) = (randomValues(count, seed: 1, scale: 2), randomValues(count, seed: 2))
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let tx = try guarded.input(x, [count], "x")
            let y = try guarded.output([count], "y")
            backend.gelu(y, tx)
            expectClose(backend.values(y), x.map { Reference.gelu(Double($0)) }, "gelu \(count)")

            let expected = zip(dy, x).map { Double($0) * Reference.geluSlope(Double($1)) }
            let dx = try guarded.output([count], "dx")
            backend.geluBackward(dx, try guarded.input(dy, [count], "dy"), tx)
            expectClose(backend.values(dx), expected, "geluBackward \(count)")
            let inPlace = try guarded.inOut(dy, [count], "dy in place")
            backend.geluBackward(inPlace, inPlace, tx)
            expectClose(backend.values(inPlace), expected, "geluBackward \(count) in place")
            guarded.expectIntact("gelu")
        }
    }

    /// The tails, where a formula by erf cancels: an absolute error of 1e-6 on [−10, 10], and the limits
    /// beyond.
    @Test("GELU is off by less than 1e-6 on [−10, 10], and has its limits beyond", arguments: TestDevice.all)
    func geluTails(device: TestDevice) throws {
        let count = TestDevice.onlySmall ? 101 : 4001
        let x = (0..<count).map { Float(-10 + 20 * Double($0) / Double(count - 1)) } + [100, -100, 1e30]
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let tx = try guarded.input(x, [x.count], "x")
            let (y, dx) = (try guarded.output([x.count], "y"), try guarded.output([x.count], "dx"))
            backend.gelu(y, tx)
            backend.geluBackward(dx, try guarded.input(x.map { _ in 1 }, [x.count], "dy"), tx)
            let (values, slopes) = (backend.values(y), backend.values(dx))
            let errors = (0..<count).map { i -> Double in
                let (value, slope) = (Reference.gelu(Double(x[i])), Reference.geluSlope(Double(x[i])))
                return max(abs(Double(values[i]) - value), abs(Double(slopes[i]) - slope))
            }
            #expect(errors.allSatisfy { $0 < 1e-6 }, "worst error \(errors.max()!)")
            #expect(values[count...] == [100, 0, 1e30] && slopes[count...] == [1, 0, 1])
        }
    }

    /// A diverging run has to be seen, so a NaN must not turn into a number.
    @Test("A NaN stays a NaN through GELU and the loss", arguments: TestDevice.all)
    func notANumberStaysOne(device: TestDevice) throws {
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let x = try guarded.input([Float(0), .nan, 1], [1, 3], "x")
            let (y, losses) = (try guarded.output([1, 3]), try guarded.output([1]))
            backend.fill(y, 7)
            backend.gelu(y, x)
            #expect(backend.values(y).map(\.isNaN) == [false, true, false])
            backend.fill(losses, 7)
            backend.softmaxCrossEntropy(losses, nil, x, try guarded.integers([Int32(0)], [1]))
            #expect(backend.values(losses)[0].isNaN)
        }
    }

    @Test(
        "A branch is added with and without a factor for each sample, in place too",
        arguments: TestDevice.all, RowSize.all)
    func residualAdd(device: TestDevice, size: RowSize) throws {
        let (x, branch) = (randomValues(size.count, seed: 1), randomValues(size.count, seed: 2))
        let scale = randomValues(size.rows, seed: 3).enumerated().map { $0 % 3 == 2 ? 0 : $1 }
        let shape = [size.rows, size.columns]
        for isScaled in [false, true] {
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let tensor = try guarded.input(branch, shape, "branch")
                let sampleScale = isScaled ? try guarded.input(scale, [size.rows], "scale") : nil
                let expected = x.indices.map {
                    Double(x[$0]) + (isScaled ? Double(scale[$0 / size.columns]) : 1) * Double(branch[$0])
                }
                let out = try guarded.output(shape, "out")
                backend.residualAdd(out, try guarded.input(x, shape, "x"), tensor, sampleScale: sampleScale)
                expectClose(backend.values(out), expected, "residualAdd \(size), scaled \(isScaled)")
                let inPlace = try guarded.inOut(x, shape, "x in place")
                backend.residualAdd(inPlace, inPlace, tensor, sampleScale: sampleScale)
                expectClose(backend.values(inPlace), expected, "residualAdd \(size) in place")
                guarded.expectIntact("residualAdd")
            }
        }
    }

    @Test(
        "Each sample is scaled by its factor, or copied without one, in place too", arguments: TestDevice.all,
        RowSize.all)
    func scaleSamples(device: TestDevice, size: RowSize) throws {
        let (x, scale) = (randomValues(size.count, seed: 1), randomValues(size.rows, seed: 2))
        let shape = [size.rows, size.columns]
        let expected = x.indices.map { Double(scale[$0 / size.columns]) * Double(x[$0]) }
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let sampleScale = try guarded.input(scale, [size.rows], "scale")
            let out = try guarded.output(shape, "out")
            backend.scaleSamples(out, try guarded.input(x, shape, "x"), sampleScale: sampleScale)
            expectClose(backend.values(out), expected, "scaleSamples \(size)")
            let inPlace = try guarded.inOut(x, shape, "x in place")
            backend.scaleSamples(inPlace, inPlace, sampleScale: sampleScale)
            expectClose(backend.values(inPlace), expected, "scaleSamples \(size) in place")
            guarded.expectIntact("scaleSamples")
        }
    }
}
