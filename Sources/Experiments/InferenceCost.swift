import Adapters
import Training
import Transformers
import VisionModels

/// What an image costs a fine-tuned model, beside the plain one that it was made of.
public struct InferenceCost: Codable, Equatable, Sendable {
    /// Whether the method was folded into the plain model's weights.
    public var isMerged: Bool
    /// Images at a time.
    public var batch: Int
    /// Seconds an image, the middle of the rounds.
    public var secondsPerImage: Double
    /// The plain model's.
    public var plainSecondsPerImage: Double
    /// The middle of each round's quotient: the two are timed in turn, so that a machine that slows down slows both.
    public var ratio: Double
}

/// Times forwards of `batch` made-up images: the fine-tuned model's, merged where it can be, in turn with the plain one's.
/// Throws `BackendError`.
func inferenceCost(
    _ ready: ReadyModel<VisionTransformer>, against plain: VisionTransformer, batch: Int, rounds: Int = 9
) throws -> InferenceCost {
    let merges = ready.model.method.unmergeable == nil
    var model = ready.model
    if merges {
        let merged = try ready.model.merged(allowsRounding: true)
        model = try VisionTransformer(
            merged, classCount: merged.configuration.classCount, method: Backbone.frozen, seed: 0,
            head: merged.head, forInference: true, on: ready.model.backend)
    }
    defer {
        model.unprepare()
        plain.unprepare()
    }
    func timer(_ model: VisionTransformer) throws -> () -> Double {
        let plan = try model.plan(batch: batch, isForTraining: false)
        let backend = model.backend
        backend.upload(plan.images, (0..<plan.images.count).map { Float(($0 &* 7919) % 2003) / 1001 - 1 })
        try? model.prepare()
        return {
            let start = ContinuousClock.now
            model.forward(plan)
            _ = backend.values(plan.logits)
            return start.secondsPassed / Double(batch)
        }
    }
    let (mine, theirs) = (try timer(model), try timer(plain))
    // The first forward fills caches.
    _ = (mine(), theirs())
    // Each goes first in every other round.
    let times = (0..<rounds).map { round -> (Double, Double) in
        if round % 2 == 0 { return (mine(), theirs()) }
        let second = theirs()
        return (mine(), second)
    }
    try ready.model.backend.checkForFailure()
    func middle(_ values: [Double]) -> Double { values.sorted()[rounds / 2] }
    return InferenceCost(
        isMerged: merges, batch: batch, secondsPerImage: middle(times.map(\.0)),
        plainSecondsPerImage: middle(times.map(\.1)), ratio: middle(times.map { $0.0 / $0.1 }))
}
