import TensorCore
import TestSupport
import Testing

@Suite("Steps of AdamW, SGD and Lion in segments of their own") struct OptimizerTests {
    /// (r, d) of three segments.
    private static let shares: [(rate: Double, decay: Double)] = [(1, 1), (0, 1), (0.25, 0.5)]

    @Test(
        "Three steps over segments with counts and rates of their own are those in double, and a skipped segment keeps its bits",
        arguments: TestDevice.all, testSizes([1, 63, 257], small: [1, 3]))
    func adamW(device: TestDevice, lastBlocks: Int) throws {
        let lengths = [1, 2, lastBlocks]
        let blocks = lengths.enumerated().flatMap { [Int32](repeating: Int32($0), count: $1) }
        let n = blocks.count * viewAlignment
        var settings = AdamWSettings(learningRate: 1e-2, weightDecay: 0.1)
        settings.epsilon = 1e-6
        let theta = randomValues(n, seed: 1)
        let (m, v) = (randomValues(n, seed: 2, scale: 0.1), randomValues(n, seed: 3).map { 0.1 * $0 * $0 })
        var (expectedTheta, expectedM, expectedV) = (doubles(theta), doubles(m), doubles(v))
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let (values, first) = (try guarded.inOut(theta, [n], "θ"), try guarded.inOut(m, [n], "m"))
            let second = try guarded.inOut(v, [n], "v")
            let segmentOfBlock = try guarded.integers(blocks, [blocks.count], "blocks")
            for step in 0..<3 {
                let counts = [1 + step, 1, 900 + step]
                let gradient = randomValues(n, seed: 4 + step)
                let table = counts.enumerated().flatMap { segment, t -> [Float] in
                    [
                        Float(Self.shares[segment].rate), Float(1 / (1 - power(Double(settings.beta1), t))),
                        Float(1 / (1 - power(Double(settings.beta2), t)).squareRoot()),
                        Float(Self.shares[segment].decay),
                    ]
                }
                for i in 0..<n where blocks[i / viewAlignment] != 1 {
                    let share = Self.shares[Int(blocks[i / viewAlignment])]
                    var settings = settings
                    settings.learningRate *= share.rate
                    settings.weightDecay *= share.decay
                    (expectedTheta[i], expectedM[i], expectedV[i]) = Reference.adamW(
                        expectedTheta[i], expectedM[i], expectedV[i], Double(gradient[i]),
                        t: counts[Int(blocks[i / viewAlignment])], settings)
                }
                backend.adamW(
                    values, first, second, try guarded.input(gradient, [n], "g"), segmentOfBlock,
                    try guarded.input(table, [3, 4], "segments"), settings)
            }
            let results = [
                (values, theta, expectedTheta, "θ"), (first, m, expectedM, "m"), (second, v, expectedV, "v"),
            ]
            let skipped = viewAlignment..<3 * viewAlignment
            for (tensor, initial, expected, name) in results {
                let values = backend.values(tensor)
                // The skipped segment apart: it may not make the others' error look small.
                expectClose(
                    Array(values[..<skipped.lowerBound] + values[skipped.upperBound...]),
                    Array(expected[..<skipped.lowerBound] + expected[skipped.upperBound...]), "adamW \(name)")
                expectIdentical(
                    Array(values[skipped]), Array(initial[skipped]), "adamW \(name) of a skipped segment")
            }
            guarded.expectIntact("adamW")
        }
    }

    /// What an optimizer with one moment does to a parameter, in double.
    private func expectSteps(
        _ device: TestDevice, lastBlocks: Int, _ what: String,
        expected step: (
            _ theta: inout Double, _ moment: inout Double, _ g: Double, (rate: Double, decay: Double)
        ) -> Void,
        _ run: (any Backend, Tensor, Tensor, Tensor, Tensor, Tensor) -> Void
    ) throws {
        let blocks = [1, 2, lastBlocks].enumerated().flatMap { [Int32](repeating: Int32($0), count: $1) }
        let n = blocks.count * viewAlignment
        let (theta, v) = (randomValues(n, seed: 1), randomValues(n, seed: 2))
        var (expectedTheta, expectedV) = (doubles(theta), doubles(v))
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let (values, moments) = (try guarded.inOut(theta, [n], "θ"), try guarded.inOut(v, [n], "v"))
            let segmentOfBlock = try guarded.integers(blocks, [blocks.count], "blocks")
            // The columns in the middle don't count.
            let table = Self.shares.flatMap { [Float($0.rate), .nan, 3, Float($0.decay)] }
            let segments = try guarded.input(table, [3, 4], "segments")
            for index in 0..<4 {
                let g = randomValues(n, seed: 4 + index)
                for i in 0..<n where blocks[i / viewAlignment] != 1 {
                    step(
                        &expectedTheta[i], &expectedV[i], Double(g[i]),
                        Self.shares[Int(blocks[i / viewAlignment])])
                }
                run(backend, values, moments, try guarded.input(g, [n], "g"), segmentOfBlock, segments)
            }
            let skipped = viewAlignment..<3 * viewAlignment
            for (tensor, initial, expected, name) in [
                (values, theta, expectedTheta, "θ"), (moments, v, expectedV, "v"),
            ] {
                let found = backend.values(tensor)
                // The skipped segment apart: it may not make the others' error look small.
                expectClose(
                    Array(found[..<skipped.lowerBound] + found[skipped.upperBound...]),
                    Array(expected[..<skipped.lowerBound] + expected[skipped.upperBound...]),
                    "\(what) \(name)")
                expectIdentical(
                    Array(found[skipped]), Array(initial[skipped]), "\(what) \(name) of a skipped segment")
            }
            guarded.expectIntact(what)
        }
    }

    @Test(
        "Four steps of SGD over segments are those in double, with and without Nesterov's look ahead",
        arguments: TestDevice.all, testSizes([1, 63, 257], small: [1, 3]))
    func sgd(device: TestDevice, lastBlocks: Int) throws {
        var settings = SGDSettings(learningRate: 0.1, weightDecay: 0.05)
        #expect(settings.momentum == 0.9 && !settings.nesterov)
        settings.momentum = 0.8
        for nesterov in [false, true] {
            settings.nesterov = nesterov
            try expectSteps(device, lastBlocks: lastBlocks, "sgd, nesterov \(nesterov)") {
                theta, v, g, share in
                let slope = g + 0.05 * share.decay * theta
                v = 0.8 * v + slope
                theta -= 0.1 * share.rate * (nesterov ? slope + 0.8 * v : v)
            } _: {
                $0.sgd($1, $2, $3, $4, $5, settings)
            }
        }
    }

    @Test(
        "Four steps of Lion over segments are those in double",
        arguments: TestDevice.all, testSizes([1, 63, 257], small: [1, 3]))
    func lion(device: TestDevice, lastBlocks: Int) throws {
        var settings = LionSettings(learningRate: 0.02, weightDecay: 0.3)
        #expect(settings.beta1 == 0.9 && settings.beta2 == 0.99)
        (settings.beta1, settings.beta2) = (0.8, 0.95)
        try expectSteps(device, lastBlocks: lastBlocks, "lion") { theta, m, g, share in
            let direction = 0.8 * m + 0.2 * g
            theta *= 1 - 0.3 * share.decay * 0.02 * share.rate
            theta -= 0.02 * share.rate * (direction > 0 ? 1 : direction < 0 ? -1 : 0)
            m = 0.95 * m + 0.05 * g
        } _: {
            $0.lion($1, $2, $3, $4, $5, settings)
        }
    }

    @Test(
        "Where Lion's direction is 0 nothing moves, and what is no number stays none",
        arguments: TestDevice.all)
    func lionAtZero(device: TestDevice) throws {
        let n = viewAlignment
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let values = try guarded.inOut([Float](repeating: 3, count: n), [n])
            let g = (0..<n).map { $0 == 5 ? Float.nan : 0 }
            backend.lion(
                values, try guarded.inOut([Float](repeating: 0, count: n), [n]), try guarded.input(g, [n]),
                try guarded.integers([Int32(0)], [1]), try guarded.input([1, 1, 1, 1], [1, 4]),
                LionSettings(learningRate: 0.5, weightDecay: 0))
            let found = backend.values(values)
            #expect(found[5].isNaN)
            #expect(found.enumerated().allSatisfy { $0.offset == 5 || $0.element == 3 })
        }
    }

    @Test(
        "From zero moments the first step is η · sign(g), whatever the gradient's size",
        arguments: TestDevice.all)
    func firstStep(device: TestDevice) throws {
        let n = viewAlignment
        let zeros = [Float](repeating: 0, count: n)
        let gradient = (0..<n).map { Float($0 % 2 == 0 ? 1e-3 : -1e3) }
        let settings = AdamWSettings(learningRate: 0.5, weightDecay: 0)
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let values = try guarded.inOut(zeros, [n])
            backend.adamW(
                values, try guarded.inOut(zeros, [n]), try guarded.inOut(zeros, [n]),
                try guarded.input(gradient, [n]),
                try guarded.integers([Int32(0)], [1]),
                try guarded.input(
                    [1, Float(1 / (1 - Double(settings.beta1))), Float(1 / (1 - 0.999).squareRoot()), 1],
                    [1, 4]),
                settings)
            expectClose(backend.values(values), gradient.map { $0 > 0 ? -0.5 : 0.5 }, "adamW", limit: 1e-8)
        }
    }

    private func power(_ base: Double, _ exponent: Int) -> Double {
        (0..<exponent).reduce(1) { x, _ in x * base }
    }
}
