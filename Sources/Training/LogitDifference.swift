import Adapters
import Checkpoints
import Datasets
import Transformers
import VisionModels

/// How far the logits of a model in another form, merged or converted, are from the original's.
public struct LogitDifference: Sendable {
    /// The largest |difference| of a logit; of values in units of how far those of that output lie apart, or of 1/2048 of the largest,
    /// if that is more (float32 has 24 bits). Infinite when one is not a number.
    public let largest: Double
    /// The images that were compared.
    public let imageCount: Int
    /// `merged` or `converted`.
    let form: String

    /// Throws `TrainingError.run` above 1e-3.
    public func check() throws {
        guard largest <= 1e-3 else {
            throw TrainingError.run(
                "the \(form) model's logits differ by \(largest), more than 1e-3, so nothing was written; "
                    + "the adapter's weights are too large for float32 in this model")
        }
    }
}

/// Runs two models on the same images, the second being the first in another `form` (`merged`). Throws `TrainingError.run` where there
/// is nothing to compare, `DatasetError` and `BackendError`.
public func logitDifference(
    _ model: VisionTransformer, _ other: VisionTransformer, _ form: String, on images: PreparedImages
) throws -> LogitDifference {
    let counts = [model, other].map(\.configuration.classCount)
    guard images.count > 0, counts[0] == counts[1] else {
        throw TrainingError.run(
            "the logits of \(counts[0]) and \(counts[1]) classes on \(images.count) images can't be compared; give models of "
                + "the same classes, and images")
    }
    func logits(_ model: VisionTransformer) throws -> [Float] {
        var all: [Float] = []
        try forEachBatch(model, on: images, batchSize: min(64, max(1, images.count))) { logits, _, _ in
            all += logits
        }
        return all
    }
    let (own, others) = (try logits(model), try logits(other))
    /// What an output's differences are divided by.
    func unit(_ k: Int) -> Double {
        let all = stride(from: k, to: own.count, by: counts[0]).map { Double(own[$0]) }
        let (least, most) = (all.min() ?? 0, all.max() ?? 0)
        return max(most - least, max(abs(least), abs(most)) / 2048)
    }
    let units = (0..<counts[0]).map { images.source.task == .values ? unit($0) : 1 }
    let largest = zip(own, others).enumerated().reduce(0.0) { largest, next in
        let difference = abs(Double(next.element.0) - Double(next.element.1))
        guard difference.isFinite else { return .infinity }
        return difference == 0 ? largest : max(largest, difference / units[next.offset % counts[0]])
    }
    return LogitDifference(largest: largest, imageCount: images.count, form: form)
}

/// Runs the merged checkpoint beside the unmerged model on every image of `images`. Throws `DatasetError` and `BackendError`.
public func mergeDifference(
    _ ready: ReadyModel<VisionTransformer>, _ merged: ViTCheckpoint, on images: any ImageSource
) throws -> LogitDifference {
    let plain = try VisionTransformer(
        merged, classCount: merged.configuration.classCount, method: Backbone.frozen,
        seed: 0, head: merged.head, forInference: true, on: ready.model.backend)
    return try logitDifference(ready.model, plain, "merged", on: ready.prepare(images))
}

extension ReadyModel where Model == VisionTransformer {
    /// What an adapter of this model notes beside its tensors: the model it belongs to and how images are prepared.
    public var adapterExtra: [String: JSONValue] {
        adapterNotes(options, model.configuration, baseHash: baseHash, classNames: classNames)
    }
}

/// The GLoRA paths that compute what the run of another method computes, as an adapter, and how far their logits are apart on
/// every image of `images`. Throws `CheckpointError` where no path does, `DatasetError` and `BackendError`.
public func gloraAdapter(
    of ready: ReadyModel<VisionTransformer>, on images: any ImageSource
) throws -> (adapter: GLoRAAdapter, model: VisionTransformer, difference: LogitDifference) {
    var checkpoint = try ready.options.loadCheckpoint()
    let classCount = checkpoint.configuration.classCount
    // As the run or the adapter keeps it whatever its files say by now.
    checkpoint.configuration = ready.model.configuration
    checkpoint.configuration.classCount = classCount
    let adapter =
        ready.model.method is GLoRA
        ? try ready.model.adapter() : try ready.model.gloraAdapter(on: checkpoint)
    let model = try VisionTransformer.applying(adapter, to: checkpoint, on: ready.model.backend)
    return (
        adapter, model, try logitDifference(ready.model, model, "converted", on: ready.prepare(images))
    )
}
