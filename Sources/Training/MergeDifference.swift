import Adapters
import Checkpoints
import Datasets
import VisionModels

/// How far a merged model's logits are from the unmerged one's.
public struct MergeDifference: Sendable {
    /// The largest |merged − unmerged| of a logit; infinite when one is not a number.
    public let largest: Double
    /// The images that were compared.
    public let imageCount: Int

    /// Throws `TrainingError.run` above 1e-3.
    public func check() throws {
        guard largest <= 1e-3 else {
            throw TrainingError.run(
                "the merged model's logits differ by \(largest), more than 1e-3, so nothing was written; "
                    + "the adapter's weights are too large for float32 in this model")
        }
    }
}

/// Runs the merged checkpoint beside the unmerged model on every image of `images`. Throws `DatasetError` and `BackendError`.
public func mergeDifference(
    _ ready: ReadyModel, _ merged: ViTCheckpoint, on images: any ImageSource
) throws -> MergeDifference {
    let plain = try VisionTransformer(
        merged, classCount: merged.configuration.classCount, trained: .adapters(rank: 1, sites: []),
        seed: 0, head: merged.head, on: ready.model.backend)
    let prepared = try ready.prepare(images)
    func logits(_ model: VisionTransformer, _ paths: [GLoRAPath]) throws -> [Float] {
        var all: [Float] = []
        _ = try evaluate(model, paths: paths, on: prepared, batchSize: min(64, images.count)) { logits, _ in
            all += logits
        }
        return all
    }
    let pairs = zip(try logits(ready.model, ready.paths), try logits(plain, plain.uniformPath(.none)))
    let largest = pairs.reduce(0.0) { largest, pair in
        let difference = abs(Double(pair.0) - Double(pair.1))
        return difference.isFinite ? max(largest, difference) : .infinity
    }
    return MergeDifference(largest: largest, imageCount: images.count)
}
