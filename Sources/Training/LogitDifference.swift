import Adapters
import Checkpoints
import Datasets
import VisionModels

/// How far the logits of a model in another form, merged or converted, are from the original's.
public struct LogitDifference: Sendable {
    /// The largest |difference| of a logit; infinite when one is not a number.
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

/// Runs the merged checkpoint beside the unmerged model on every image of `images`. Throws `DatasetError` and `BackendError`.
public func mergeDifference(
    _ ready: ReadyModel, _ merged: ViTCheckpoint, on images: any ImageSource
) throws -> LogitDifference {
    let plain = try VisionTransformer(
        merged, classCount: merged.configuration.classCount, trained: .adapters(rank: 1, sites: []),
        seed: 0, head: merged.head, on: ready.model.backend)
    return try difference(ready, plain, plain.uniformPath(.none), "merged", on: images)
}

extension ReadyModel {
    /// What an adapter of this model notes beside its tensors: the model it belongs to and how images are prepared.
    public var adapterExtra: [String: JSONValue] {
        adapterNotes(options, model.configuration, baseHash: baseHash, classNames: classNames)
    }
}

/// The GLoRA paths that compute what the run of another method computes, as an adapter, and how far their logits are apart on
/// every image of `images`. Throws `CheckpointError` where no path does, `DatasetError` and `BackendError`.
public func gloraAdapter(
    of ready: ReadyModel, on images: any ImageSource
) throws -> (adapter: GLoRAAdapter, model: VisionTransformer, paths: [GLoRAPath], difference: LogitDifference)
{
    var checkpoint = try ready.options.loadCheckpoint()
    checkpoint.configuration = ready.base
    let adapter =
        ready.model.method == nil
        ? try ready.model.adapter(paths: ready.paths) : try ready.model.gloraAdapter(on: checkpoint)
    let (model, paths) = try VisionTransformer.applying(adapter, to: checkpoint, on: ready.model.backend)
    return (adapter, model, paths, try difference(ready, model, paths, "converted", on: images))
}

private func difference(
    _ ready: ReadyModel, _ other: VisionTransformer, _ paths: [GLoRAPath], _ form: String,
    on images: any ImageSource
) throws -> LogitDifference {
    let prepared = try ready.prepare(images)
    func logits(_ model: VisionTransformer, _ paths: [GLoRAPath]) throws -> [Float] {
        var all: [Float] = []
        _ = try evaluate(model, paths: paths, on: prepared, batchSize: min(64, images.count)) { logits, _ in
            all += logits
        }
        return all
    }
    let pairs = zip(try logits(ready.model, ready.paths), try logits(other, paths))
    let largest = pairs.reduce(0.0) { largest, pair in
        let difference = abs(Double(pair.0) - Double(pair.1))
        return difference.isFinite ? max(largest, difference) : .infinity
    }
    return LogitDifference(largest: largest, imageCount: images.count, form: form)
}
