import TensorCore
import TestSupport
import Testing

@Suite("AdamW steps in segments of their own") struct AdamWTests {
    @Test(
        "Three steps over segments with counts of their own are those in double, and a skipped segment keeps its bits",
        arguments: TestDevice.all, testSizes([1, 63, 257], small: [1, 3]))
    func segments(device: TestDevice, lastBlocks: Int) throws {
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
                        segment == 1 ? 0 : 1, Float(1 / (1 - power(Double(settings.beta1), t))),
                        Float(1 / (1 - power(Double(settings.beta2), t)).squareRoot()),
                    ]
                }
                for i in 0..<n where blocks[i / viewAlignment] != 1 {
                    (expectedTheta[i], expectedM[i], expectedV[i]) = Reference.adamW(
                        expectedTheta[i], expectedM[i], expectedV[i], Double(gradient[i]),
                        t: counts[Int(blocks[i / viewAlignment])], settings)
                }
                backend.adamW(
                    values, first, second, try guarded.input(gradient, [n], "g"), segmentOfBlock,
                    try guarded.input(table, [3, 3], "segments"), settings)
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
                    [1, Float(1 / (1 - Double(settings.beta1))), Float(1 / (1 - 0.999).squareRoot())], [1, 3]),
                settings)
            expectClose(backend.values(values), gradient.map { $0 > 0 ? -0.5 : 0.5 }, "adamW", limit: 1e-8)
        }
    }

    private func power(_ base: Double, _ exponent: Int) -> Double {
        (0..<exponent).reduce(1) { x, _ in x * base }
    }
}
