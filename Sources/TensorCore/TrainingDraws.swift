/// What an epoch's changes of its examples are drawn by: what becomes of an example follows from seed, epoch and its index, how a
/// batch is mixed from seed and the batch's number.
public struct TrainingDraws: Hashable, Sendable {
    /// The run's seed.
    public var seed: Int
    /// Which time the examples are read.
    public var epoch: Int
    /// The batches of the run before the epoch's first one that is asked for.
    public var batch: Int

    /// These draws.
    public init(seed: Int, epoch: Int, batch: Int) {
        (self.seed, self.epoch, self.batch) = (seed, epoch, batch)
    }
}

/// The second classes of a batch whose examples were mixed in pairs: an example counts λ of its own class and 1 − λ of the other.
public struct LabelMix: Hashable, Sendable {
    /// λ.
    public let lambda: Double
    /// [B] the classes that were mixed in.
    public let partners: [Int32]

    /// Of these classes.
    public init(lambda: Double, partners: [Int32]) { (self.lambda, self.partners) = (lambda, partners) }
}
