import TensorCore
import Transformers

/// What a model scores on a split.
public struct EvaluationResult: Codable, Equatable, Sendable {
    /// Images whose largest logit is their class's.
    public var correct: Int
    /// Images.
    public var count: Int
    /// The mean cross-entropy.
    public var loss: Double
    /// correct / count, 0 to 1.
    public var accuracy: Double { count == 0 ? 0 : Double(correct) / Double(count) }
}

/// Runs `model`, as its layers are set, on every example of a source, in order and without drop-path.
///
/// `body` receives each batch with its outputs [B, K], row-major, and the plan that made them, whose other tensors can be read
/// until it returns. Throws what the examples and `body` throw, `TrainingError.overflow` where an output is not a finite number,
/// and `BackendError`.
public func forEachBatch<Model: TrainableModel>(
    _ model: Model, on examples: Model.Examples, batchSize: Int, isForTraining: Bool = false,
    _ body: (_ outputs: [Float], Model.Examples.Batch, Model.Plan) throws -> Void
) throws {
    let count = examples.count
    // Asked for before any example is read, so that too little memory is said at once.
    if count > 0 { _ = try model.plan(batch: min(batchSize, count), isForTraining: isForTraining) }
    // The weights once rather than in every batch, where there is memory for them.
    if !isForTraining { try? model.prepare() }
    defer { model.unprepare() }
    examples.start(
        stride(from: 0, to: count, by: batchSize).map { Array($0..<min($0 + batchSize, count)) })
    while let batch = try examples.next() {
        let plan = try model.plan(batch: batch.count, isForTraining: isForTraining)
        model.load(batch, into: plan)
        model.forward(plan)
        let outputs = model.backend.values(plan.logits)
        try model.backend.checkForFailure()
        if let bad = outputs.firstIndex(where: { !$0.isFinite }) {
            let example = batch.indices[bad * batch.count / outputs.count]
            throw model.overflow(plan, "the logits of \(examples.exampleName(at: example))")
        }
        try body(outputs, batch, plan)
    }
}

/// Scores `model`, as its layers are set, on every example of a source, in order and without drop-path.
///
/// `onBatch` receives each batch's outputs [B, K], row-major. Throws what the examples throw,
/// `TrainingError.overflow` where an output or a loss is not a finite number, and `BackendError`.
public func evaluate<Model: TrainableModel>(
    _ model: Model, on examples: Model.Examples, batchSize: Int, isForTraining: Bool = false,
    onBatch: (_ outputs: [Float], Model.Examples.Batch) -> Void = { _, _ in }
) throws -> EvaluationResult {
    var result = EvaluationResult(correct: 0, count: 0, loss: 0)
    try forEachBatch(model, on: examples, batchSize: batchSize, isForTraining: isForTraining) {
        outputs, batch, plan in
        model.loss(plan)
        let losses = model.backend.values(plan.losses)
        try model.backend.checkForFailure()
        if let bad = losses.firstIndex(where: { !$0.isFinite }) {
            throw TrainingError.overflow(
                "the loss of \(examples.exampleName(at: batch.indices[bad])) is not a finite number, as its logits "
                    + "are further apart than float32 reaches; the head is damaged or its training diverged")
        }
        result.correct += model.isRight(outputs, labels: batch.labels).count { $0 }
        result.loss += losses.reduce(0) { $0 + Double($1) }
        result.count += batch.count
        onBatch(outputs, batch)
    }
    if result.count > 0 { result.loss /= Double(result.count) }
    return result
}

extension TrainableModel {
    /// The error for `what`, which a forward pass of `plan` gave and which isn't finite: it says where that began.
    package func overflow(_ plan: Plan, _ what: String) -> TrainingError {
        let place = firstOverflow(plan).map { " in \($0)" } ?? ""
        let precision = backend.precision
        return .overflow(
            precision == .float16
                ? "\(what) are not finite numbers: the forward pass overflows float16\(place) (its largest number is 65504); use "
                    + "`precision bfloat16`, which has float32's range"
                : "\(what) are not finite numbers: the forward pass stops being finite\(place) in \(precision.rawValue), "
                    + "though the checkpoint's weights are finite; check that all its files belong together")
    }
}
