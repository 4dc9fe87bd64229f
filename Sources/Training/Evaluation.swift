import Foundation
import TensorCore
import Transformers

/// What a model scores on a split.
public struct EvaluationResult: Codable, Equatable, Sendable {
    /// Images whose largest logit is their class's.
    public var correct: Int
    /// Images.
    public var count: Int
    /// The mean cross-entropy; of labels the binary one, of values the squared error, as `TargetLoss` has them.
    public var loss: Double
    /// Of labels the mean average precision, 0 to 1, of values the mean R², at most 1; nil of classes.
    public var targetScore: Double?
    /// correct / count, 0 to 1.
    public var accuracy: Double { count == 0 ? 0 : Double(correct) / Double(count) }
    /// What a model is judged by: the accuracy, or `targetScore`.
    public var score: Double { targetScore ?? accuracy }
}

/// What a model is judged by.
public enum Metric: Sendable {
    /// Classes'.
    case accuracy
    /// Labels', over the labels that some image has.
    case meanAveragePrecision
    /// Values', the mean over them.
    case r2

    /// As a sentence says it.
    public var name: String {
        switch self {
        case .accuracy: "accuracy"
        case .meanAveragePrecision: "mean average precision"
        case .r2: "R²"
        }
    }

    /// `an` or `a` before the name.
    var article: String { self == .meanAveragePrecision ? "a" : "an" }

    /// With its unit: per cent, but R², which may be far below 0.
    public func text(_ score: Double, decimals: Int = 2) -> String {
        self == .r2
            ? String(format: "%.\(decimals + 2)f", score)
            : String(format: "%.\(decimals)f", 100 * score) + " %"
    }

    /// Whether a model can have that score.
    func isPossible(_ score: Double) -> Bool {
        self == .r2 ? score <= 1 && score > -.infinity : (0...1).contains(score)
    }
}

extension TrainingOptions {
    /// What the task is judged by.
    public var metric: Metric {
        switch additions.task {
        case nil, .classes: .accuracy
        case .labels: .meanAveragePrecision
        case .values: .r2
        }
    }
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
/// `onBatch` receives each batch's outputs [B, K], row-major. `scale` is that of the values as the model's outputs have it; nil for
/// the values' own units. Throws what the examples throw, `TrainingError.settings` where they can't be scored,
/// `TrainingError.overflow` where an output or a loss is not a finite number, and `BackendError`.
public func evaluate<Model: TrainableModel>(
    _ model: Model, on examples: Model.Examples, batchSize: Int, isForTraining: Bool = false,
    scale: TargetScale? = nil,
    onBatch: (_ outputs: [Float], Model.Examples.Batch) -> Void = { _, _ in }
) throws -> EvaluationResult {
    var result = EvaluationResult(correct: 0, count: 0, loss: 0)
    if let kind = examples.targetLoss {
        try checkTargets(examples)
        var (outputs, targets): ([Float], [Float]) = ([], [])
        try forEachBatch(model, on: examples, batchSize: batchSize, isForTraining: isForTraining) {
            some, batch, _ in
            outputs += some
            for index in batch.indices {
                let own = examples.targets(at: index)
                targets += scale?.standardised(own) ?? own
            }
            result.count += batch.count
            onBatch(some, batch)
        }
        guard result.count > 0 else { return result }
        let columns = outputs.count / result.count
        result.loss = zip(outputs, targets).reduce(0) { $0 + kind.loss($1.0, $1.1) } / Double(outputs.count)
        result.targetScore =
            kind == .sigmoid
            ? LabelMetrics(outputs: outputs, targets: targets, count: columns).meanAveragePrecision
            : ValueMetrics(outputs: outputs, targets: targets, count: columns).meanR2
        return result
    }
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

/// Throws `TrainingError.settings` for examples on which labels or values can't be scored.
func checkTargets(_ examples: some ExampleSource) throws {
    guard let kind = examples.targetLoss, examples.count > 0 else { return }
    if kind == .squared, examples.count < 2 {
        throw TrainingError.settings("\(examples.name) has one image, and R² needs two; give it more")
    }
    if kind == .sigmoid,
        !(0..<examples.count).contains(where: { examples.targets(at: $0).contains { $0 > 0 } })
    {
        throw TrainingError.settings(
            "no image of \(examples.name) has a label, so that nothing can be ranked there; give it some that have"
        )
    }
}

extension TargetLoss {
    /// Of one output z and its target t, in double: what is averaged over images and outputs.
    fileprivate func loss(_ z: Float, _ t: Float) -> Double {
        let (z, t) = (Double(z), Double(t))
        return self == .squared ? (z - t) * (z - t) : max(z, 0) - z * t + log1p(exp(-abs(z)))
    }
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
