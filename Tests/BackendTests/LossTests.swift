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
}
