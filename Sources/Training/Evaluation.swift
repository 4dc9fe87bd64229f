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
    package let loader: BatchLoader

    /// Reads every image once, so that a damaged one is found now; see `BatchLoader.checkAll`.
    public func checkImages(
        onProgress: (Int) -> Void = { _ in }, shouldStop: () -> Bool = { false }
    ) throws -> [String] {
        try loader.checkAll(onProgress: onProgress, shouldStop: shouldStop)
    }

    /// What a person would want to know of the images that were read so far; see `BatchLoader.notes`.
    public var notes: [String] { loader.notes }

    /// Starts the loader's threads. `cacheByteLimit` bytes of resized images may be kept.
    public init(_ source: any ImageSource, _ preprocessing: Preprocessor, cacheByteLimit: Int = 1 << 30) {
        self.source = source
        loader = BatchLoader(source, preprocessing, cacheByteLimit: cacheByteLimit)
    }
}

/// Scores `model` on every image of a split, in order and without drop-path, on the given paths.
///
/// `onBatch` receives each batch's logits [B, K], row-major. Throws `DatasetError` for an unreadable image,
/// `TrainingError.overflow` where a logit or a loss is not a finite number, and `BackendError`.
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
        if let bad = logits.firstIndex(where: { !$0.isFinite }) {
            throw model.overflow(
                plan, paths, "the logits of \(images.source.imageName(at: batch.indices[bad / classes]))")
        }
        if let bad = losses.firstIndex(where: { !$0.isFinite }) {
            throw TrainingError.overflow(
                "the loss of \(images.source.imageName(at: batch.indices[bad])) is not a finite number, as its logits "
                    + "are further apart than float32 reaches; the head is damaged or its training diverged")
        }
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

extension VisionTransformer {
    /// The error for `what`, which a forward pass of `plan` on `paths` gave and which isn't finite: it says where that began.
    package func overflow(_ plan: ViTPlan, _ paths: [GLoRAPath], _ what: String) -> TrainingError {
        let place = firstOverflow(plan, paths: paths).map { " in \($0)" } ?? ""
        let precision = backend.precision
        return .overflow(
            precision == .float16
                ? "\(what) are not finite numbers: the forward pass overflows float16\(place) (its largest number is 65504); use "
                    + "--precision bfloat16, which has float32's range"
                : "\(what) are not finite numbers: the forward pass stops being finite\(place) in \(precision.rawValue), "
                    + "though the checkpoint's weights are finite; check that all its files belong together")
    }
}

extension ArraySlice<Float> {
    /// Where the largest element is, the first of equals as in `torch.argmax`; nowhere (the end) when none is a number.
    package var indexOfLargest: Int {
        var best = endIndex
        for index in indices where best == endIndex ? !self[index].isNaN : self[index] > self[best] {
            best = index
        }
        return best
    }
}

extension Batch {
    /// The batch's pixels and classes into a plan's memory.
    package func upload(to plan: ViTPlan, on backend: any Backend) {
        withUnsafeBytes { backend.upload(plan.images, $0) }
        backend.upload(plan.labels, labels)
    }
}
