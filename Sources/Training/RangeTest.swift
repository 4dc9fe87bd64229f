import Foundation

/// The learning-rate range test (Smith, arXiv 1506.01186): one training in which each step's rate is a little larger than the last's,
/// from `low` to `high`, and the loss L of each step:
///
///     ηₜ = low · (high / low)^(t / (T − 1)),   sₜ = (1 − β) Σᵢ β^(t − i) Lᵢ / (1 − β^(t + 1)),   β = 0.98
///
/// It ends early where sₜ exceeds four times its smallest value. What it suggests is a rate in the first half of the longest stretch of
/// falling losses, its tenth at the beginning and its last five steps left out.
///
/// Source: fastai's `LRFinder` and its `valley`.
public struct RangeTest: Equatable, Sendable {
    /// One step.
    public struct Point: Codable, Equatable, Sendable {
        /// Its rate.
        public let rate: Double
        /// Its loss.
        public let loss: Double
        /// The mean of the losses so far, the later ones weighing more.
        public let smoothed: Double
    }

    /// The steps.
    public private(set) var points: [Point] = []
    /// Whether the loss had grown too large to go on.
    public private(set) var diverged = false
    private var mean = 0.0
    private var least = Double.infinity
    private static let beta = 0.98

    /// Without any step.
    public init() {}

    /// The rates of T steps.
    public static func rates(from low: Double, to high: Double, steps count: Int) -> [Double] {
        (0..<count).map { low * pow(high / low, Double($0) / Double(max(count - 1, 1))) }
    }

    /// Takes a step's loss, also one that is no number; returns whether to go on.
    public mutating func add(rate: Double, loss: Double) -> Bool {
        guard loss.isFinite else {
            diverged = true
            return false
        }
        mean = Self.beta * mean + (1 - Self.beta) * loss
        let smoothed = mean / (1 - pow(Self.beta, Double(points.count + 1)))
        points.append(Point(rate: rate, loss: loss, smoothed: smoothed))
        least = min(least, smoothed)
        diverged = smoothed > 4 * least
        return !diverged
    }

    /// A rate to train with; nil where the loss never fell.
    public var suggestion: Double? {
        let used = points.dropFirst(points.count / 10).dropLast(5)
        let (rates, losses) = (used.map(\.rate), used.map(\.smoothed))
        guard !losses.isEmpty else { return nil }
        // lengths[i]: of the longest falling subsequence that ends at i.
        var lengths = [Int](repeating: 1, count: losses.count)
        var end = 0
        for i in losses.indices {
            for j in 0..<i where losses[i] < losses[j] { lengths[i] = max(lengths[i], lengths[j] + 1) }
            if lengths[i] > lengths[end] { end = i }
        }
        guard lengths[end] > 1 else { return nil }
        let start = end - lengths[end]
        let third = Double(end - start) / 3
        return rates[max(0, start + Int(third) + Int(third / 2))]
    }
}

extension Trainer {
    /// Trains with a rate that grows at each step, epoch after epoch, until the test ends or `shouldStop` says so; the model is not to be
    /// used for anything else then. Throws what `run` throws, but for a loss that is no number.
    public func rangeTest(
        from low: Double, to high: Double, steps count: Int, onStep: (RangeTest) -> Void = { _ in },
        shouldStop: () -> Bool = { false }
    ) throws -> RangeTest {
        defer { model.method.beginReading(model.layers) }
        var test = RangeTest()
        let rates = RangeTest.rates(from: low, to: high, steps: count)
        while state.step < count {
            let steps = steps(ofEpoch: state.step / stepsPerEpoch)
            training.start(steps.flatMap { $0 }, training: draws)
            for indices in steps where state.step < count {
                let rate = rates[state.step]
                var loss = Double.nan
                do { loss = try step(indices, rate: rate).loss } catch TrainingError.notANumber {}
                state.step += 1
                let goesOn = test.add(rate: rate, loss: loss)
                onStep(test)
                if !goesOn || shouldStop() { return test }
            }
        }
        return test
    }
}
