/// A mean over seeds, and how far the seeds are apart.
public struct Spread: Codable, Equatable, Sendable {
    /// The mean.
    public let mean: Double
    /// The sample standard deviation, over n − 1; nil for a single value.
    public let deviation: Double?
    /// How many values.
    public let count: Int

    /// Of at least one value; nil for none.
    public init?(_ values: [Double]) {
        guard !values.isEmpty else { return nil }
        let mean = values.reduce(0, +) / Double(values.count)
        self.mean = mean
        count = values.count
        let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        deviation = values.count > 1 ? (squares / Double(values.count - 1)).squareRoot() : nil
    }
}

/// A learning rate that was tried on the first seed.
public struct TriedRate: Codable, Equatable, Sendable {
    /// The rate.
    public let rate: Double
    /// On the validation split; nil when the loss stopped being a number.
    public let accuracy, loss: Double?

    /// A rate with what it scored.
    public init(rate: Double, accuracy: Double?, loss: Double?) {
        (self.rate, self.accuracy, self.loss) = (rate, accuracy, loss)
    }

    /// The rate of the best accuracy; of equals the lowest loss, of those the first. nil when all failed.
    public static func best(_ tried: [TriedRate]) -> Double? {
        var best: TriedRate?
        for one in tried {
            guard let accuracy = one.accuracy else { continue }
            let (sofar, loss) = (best?.accuracy ?? -1, one.loss ?? .infinity)
            if accuracy > sofar || accuracy == sofar && loss < best?.loss ?? .infinity { best = one }
        }
        return best?.rate
    }
}
