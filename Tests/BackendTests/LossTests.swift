import Foundation
import TensorCore
import TestSupport
import Testing

@Suite("The loss and its gradient") struct LossTests {
    @Test(
        "The losses of samples and their gradient are those in double",
        arguments: TestDevice.all,
        testSizes(
            [
                RowSize(1, 2), RowSize(31, 65), RowSize(64, 10), RowSize(65, 257), RowSize(2, 768),
                RowSize(257, 3),
            ],
            small: [RowSize(1, 2), RowSize(5, 33)]))
    func softmaxCrossEntropy(device: TestDevice, size: RowSize) throws {
        let (b, k) = (size.rows, size.columns)
        let logits = randomValues(size.count, seed: 1)
        let labels = (0..<b).map { $0 * 7 % k }
        let matrix = Matrix(b, k, logits)
        for hasGradient in [true, false] {
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let losses = try guarded.output([b], "losses")
                let dLogits = hasGradient ? try guarded.output([b, k], "dLogits") : nil
                backend.softmaxCrossEntropy(
                    losses, dLogits, try guarded.input(logits, [b, k], "logits"),
                    try guarded.integers(labels.map { Int32($0) }, [b]))
                expectClose(backend.values(losses), Reference.losses(matrix, labels), "losses \(size)")
                if let dLogits {
                    expectClose(
                        backend.values(dLogits), Reference.lossGradient(matrix, labels).values,
                        "dLogits \(size)")
                }
                guarded.expectIntact("softmaxCrossEntropy")
            }
        }
    }

    /// Logits of ±1,000 overflow an exponential that isn't taken relative to the row's largest.
    @Test("Logits of ±1,000 don't overflow", arguments: TestDevice.all)
    func largeLogits(device: TestDevice) throws {
        let logits: [Float] = [1000, -1000, 0, 1000, -1000, 0]
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let (losses, dLogits) = (try guarded.output([2]), try guarded.output([2, 3]))
            backend.softmaxCrossEntropy(
                losses, dLogits, try guarded.input(logits, [2, 3]), try guarded.integers([Int32(0), 1], [2]))
            #expect(backend.values(losses) == [0, 2000])
            #expect(backend.values(dLogits) == [0, 0, 0, 0.5, -0.5, 0])
            guarded.expectIntact("softmaxCrossEntropy")
        }
    }

    // MARK: Targets

    /// Of one example, in double.
    private func loss(_ kind: TargetLoss, _ z: [Double], _ t: [Double], _ weights: [Double]) -> Double {
        let k = Double(z.count)
        switch kind {
        case .softmax:
            let top = z.max()!
            let logSum = top + log(z.reduce(0) { $0 + exp($1 - top) })
            return zip(z, t).reduce(0) { $0 + $1.1 * (logSum - $1.0) }
        case .sigmoid:
            let terms = zip(zip(z, t), weights).map { pair, w in
                w * pair.1 * log(1 + exp(-pair.0)) + (1 - pair.1) * log(1 + exp(pair.0))
            }
            return terms.reduce(0, +) / k
        case .squared: return zip(z, t).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) } / k
        }
    }

    @Test(
        "Losses of targets are those in double, and their gradient the central differences of their mean",
        arguments: TestDevice.all,
        testSizes(
            [
                RowSize(1, 2), RowSize(31, 65), RowSize(64, 10), RowSize(5, 257), RowSize(257, 3),
                RowSize(3, 1),
            ],
            small: [RowSize(1, 2), RowSize(5, 33)]))
    func targets(device: TestDevice, size: RowSize) throws {
        let (b, k) = (size.rows, size.columns)
        let logits = randomValues(size.count, seed: 1, scale: 3)
        // Some are 0, none of the others adds up to 1.
        let targets = randomValues(size.count, seed: 2).enumerated().map { $0 % 3 == 0 ? 0 : abs($1) }
        let weights = randomValues(k, seed: 3).map { 0.2 + abs($0) }
        for kind in TargetLoss.allCases {
            for given in kind == .sigmoid ? [nil, weights] : [nil] {
                let w = given.map { doubles($0) } ?? Array(repeating: 1, count: k)
                func row(_ values: [Float], _ i: Int) -> [Double] {
                    doubles(Array(values[i * k..<(i + 1) * k]))
                }
                let expected = (0..<b).map { loss(kind, row(logits, $0), row(targets, $0), w) }
                let slopes = (0..<b).flatMap { i in
                    (0..<k).map { j in
                        let z = row(logits, i)
                        func moved(_ by: Double) -> Double {
                            var z = z
                            z[j] += by
                            return loss(kind, z, row(targets, i), w)
                        }
                        return (moved(1e-4) - moved(-1e-4)) / 2e-4 / Double(b)
                    }
                }
                for hasGradient in [true, false] {
                    try device.withBackend { backend in
                        let guarded = GuardedTensors(backend)
                        let losses = try guarded.output([b], "losses")
                        let dLogits = hasGradient ? try guarded.output([b, k], "dLogits") : nil
                        backend.targetLoss(
                            losses, dLogits, try guarded.input(logits, [b, k], "logits"),
                            try guarded.input(targets, [b, k], "targets"),
                            weights: try given.map { try guarded.input($0, [k], "weights") }, kind)
                        expectClose(backend.values(losses), expected, "\(kind) losses \(size)")
                        if let dLogits {
                            expectClose(backend.values(dLogits), slopes, "\(kind) dLogits \(size)")
                        }
                        guarded.expectIntact("targetLoss \(kind)")
                    }
                }
            }
        }
    }

    @Test("Soft labels that are one class are that class's loss", arguments: TestDevice.all)
    func oneHot(device: TestDevice) throws {
        let (b, k) = (9, 37)
        let labels = (0..<b).map { Int32($0 * 5 % k) }
        let targets = labels.flatMap { label in (0..<k).map { $0 == Int(label) ? Float(1) : 0 } }
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let logits = try guarded.input(randomValues(b * k, seed: 1, scale: 4), [b, k])
            let (losses, dLogits) = (try guarded.output([b]), try guarded.output([b, k]))
            backend.softmaxCrossEntropy(losses, dLogits, logits, try guarded.integers(labels, [b]))
            let (softLosses, softGradient) = (try guarded.output([b]), try guarded.output([b, k]))
            backend.targetLoss(
                softLosses, softGradient, logits, try guarded.input(targets, [b, k]), .softmax)
            expectClose(backend.values(softLosses), doubles(backend.values(losses)), "losses")
            expectClose(backend.values(softGradient), doubles(backend.values(dLogits)), "dLogits")
        }
    }

    @Test("Far logits don't overflow, and what is no number stays none", arguments: TestDevice.all)
    func farTargets(device: TestDevice) throws {
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            func losses(_ z: [Float], _ t: [Float], _ kind: TargetLoss) throws -> (Float, [Float]) {
                let (losses, dLogits) = (try guarded.output([1]), try guarded.output([1, z.count]))
                backend.targetLoss(
                    losses, dLogits, try guarded.input(z, [1, z.count]),
                    try guarded.input(t, [1, t.count]), kind)
                return (backend.values(losses)[0], backend.values(dLogits))
            }
            #expect(try losses([1000, -1000, 0], [0, 1, 0], .softmax) == (2000, [1, -1, 0]))
            #expect(try losses([1000, -1000], [0, 1], .sigmoid) == (1000, [0.5, -0.5]))
            #expect(try losses([1000, -1000], [1, 0], .sigmoid) == (0, [0, 0]))
            for kind in TargetLoss.allCases {
                let (loss, _) = try losses([0, .nan, 1], [0, 1, 0], kind)
                #expect(loss.isNaN, "\(kind)")
            }
        }
    }
}
