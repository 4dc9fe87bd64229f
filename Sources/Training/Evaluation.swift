import Adapters
import Datasets
import TensorCore
import VisionModels

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

/// A split that is ready to be read in batches: its images, how they are prepared, and the loader that keeps them.
public struct PreparedImages {
    /// The images and their classes.
    public let source: any ImageSource
    let loader: BatchLoader

    /// Starts the loader's threads.
    public init(_ source: any ImageSource, _ preprocessing: Preprocessing) {
        self.source = source
        loader = BatchLoader(source, preprocessing)
    }
}

/// Scores `model` on every image of a split, in order and without drop-path, on the given paths.
///
/// `onBatch` receives each batch's logits [B, K], row-major. Throws `DatasetError` for an unreadable image and
/// `BackendError`.
public func evaluate(
    _ model: VisionTransformer, paths: [GLoRAPath], on images: PreparedImages, batchSize: Int,
    isForTraining: Bool = false, onBatch: (_ logits: [Float], Batch) -> Void = { _, _ in }
) throws -> EvaluationResult {
    let count = images.source.count
    let loader = images.loader
    // Asked for before any image is decoded, so that too little memory is said at once.
    if count > 0 { _ = try model.plan(batch: min(batchSize, count), isForTraining: isForTraining) }
    // The weights of these paths once rather than in every batch, where there is memory for them.
    if !isForTraining { try? model.prepare(paths: paths) }
    defer { model.unprepare() }
    loader.start(
        stride(from: 0, to: count, by: batchSize).map { Array($0..<min($0 + batchSize, count)) })
    let classes = model.configuration.classCount
    var result = EvaluationResult(correct: 0, count: 0, loss: 0)
    while let batch = try loader.next() {
        let plan = try model.plan(batch: batch.count, isForTraining: isForTraining)
        batch.upload(to: plan, on: model.backend)
        model.forward(plan, paths: paths)
        model.loss(plan)
        let logits = model.backend.values(plan.logits)
        let losses = model.backend.values(plan.losses)
        try model.backend.checkForFailure()
        for (row, label) in batch.labels.enumerated() {
            let scores = logits[row * classes..<(row + 1) * classes]
            if scores.indexOfLargest - scores.startIndex == Int(label) { result.correct += 1 }
        }
        result.loss += losses.reduce(0) { $0 + Double($1) }
        result.count += batch.count
        onBatch(logits, batch)
    }
    if result.count > 0 { result.loss /= Double(result.count) }
    return result
}

extension ArraySlice<Float> {
    /// Where the largest element is, the first of equals as in `torch.argmax`; nowhere (the end) when none is a number.
    var indexOfLargest: Int {
        var best = endIndex
        for index in indices where best == endIndex ? !self[index].isNaN : self[index] > self[best] {
            best = index
        }
        return best
    }
}

extension Batch {
    /// The batch's pixels and classes into a plan's memory.
    func upload(to plan: ViTPlan, on backend: any Backend) {
        withUnsafeBytes { backend.upload(plan.images, $0) }
        backend.upload(plan.labels, labels)
    }
}
