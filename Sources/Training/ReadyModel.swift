import Adapters
import Checkpoints
import Datasets
import Foundation
import ModelConfiguration
import TensorCore
import Transformers
import VisionModels

/// A model that is ready to be scored or merged: its tensors on a device, set to what it is read at, and how its examples are
/// prepared.
public struct ReadyModel<Model: TrainableModel> {
    /// The model.
    public let model: Model
    /// GLoRA's path of each Linear as the model was opened; a search sets others.
    public let paths: [GLoRAPath]
    /// The settings that it was trained or opened with.
    public let options: TrainingOptions
    /// What was assumed while the checkpoint was read.
    public let notes: [String]
    /// The run's step that this is the state of; 0 without a run.
    public let step: Int
    /// The hash of the run's frozen base; empty without a run.
    public let baseHash: String
    /// [K] the names of the classes, where the run, the adapter or the checkpoint says them.
    public let classNames: [String]?
    /// A line for the user: how images are prepared, and who says so.
    public let preprocessingLine: String
    /// What the outputs say of an image.
    public var task: LearningTask { options.additions.task ?? .classes }
    /// Whether the logits mean something: a checkpoint may have no head, and its features be of use.
    public let hasHead: Bool
}

/// Which state of a run.
public enum RunState: String, Codable, CaseIterable, Sendable {
    /// The best by validation.
    case best
    /// The latest.
    case last
}

extension ReadyModel where Model == VisionTransformer {
    /// A run's model at one of its states, read at the run's own path (`full` for a supernet) or at `path`.
    ///
    /// Throws `TrainingError.run` when the folder holds no such state or the frozen base has changed since,
    /// `CheckpointError`, `BackendError`.
    public init(
        run directory: RunDirectory, state: RunState, path: String? = nil, on backend: any Backend
    ) throws {
        let saved = try directory.configuration()
        let checkpoint = try saved.loadBase(of: directory.url)
        guard path == nil || saved.options.method == .glora else {
            throw TrainingError.run(
                "\(directory.url.path) is a run of \(saved.options.method.rawValue), which has no paths; leave `path` "
                    + "and `architecture` out")
        }
        let shape = checkpoint.configuration.shape
        var method = try saved.options.tuningMethod(shape, of: saved)
        if let path, var glora = method as? GLoRA {
            glora.choice = try PathChoice(path, space: try saved.options.searchSpace(), for: shape)
            method = glora
        }
        let model = try VisionTransformer(
            checkpoint, classCount: saved.classCount, method: method, seed: saved.options.seed,
            headKind: saved.options.head, on: backend)
        let file = state == .best ? directory.best : directory.last
        guard FileManager.default.fileExists(atPath: file.path) else {
            throw TrainingError.run(
                "\(directory.url.path) has no \(file.lastPathComponent) yet; train on with `resume`"
                    + (state == .best ? ", or read `checkpoint last`" : ""))
        }
        let snapshot = try TrainingSnapshot(contentsOf: file)
        for segment in model.store.segments where snapshot.result[segment.name]?.shape != segment.shape {
            throw TrainingError.run(
                "\(directory.url.path) has no \(segment.name) of shape \(segment.shape); its files don't belong together"
            )
        }
        var result = snapshot.result
        try snapshot.state.targetScale?.fold(into: &result)
        model.store.pack(model.store.values, result)
        self.model = model
        options = saved.options
        notes = checkpoint.notes
        step = snapshot.state.step
        baseHash = saved.baseHash
        classNames = saved.classNames
        preprocessingLine = try checkpoint.configuration.runsPreprocessingLine
        paths = model.paths
        hasHead = true
    }

    /// A checkpoint as it is, or with an adapter in PEFT's format. `options` says where the checkpoint lies and how images are
    /// prepared; an adapter of ours that says its image size and preprocessing is taken at its word where the options leave them to
    /// the model. Throws `CheckpointError` and `BackendError`.
    ///
    /// Throws `TrainingError.settings` too for a checkpoint without a head, unless it needs none (`needsHead`): its features are
    /// what they are then, and the logits those of a fresh head of one class.
    public init(
        _ options: TrainingOptions, adapter folder: URL?, needsHead: Bool = true, on backend: any Backend
    ) throws {
        var options = options
        var checkpoint = try options.loadCheckpoint()
        var notes: [String] = []
        var names: [String]?
        let ownHead = checkpoint.head != nil
        options.additions.task = checkpoint.problemType.flatMap(LearningTask.init(problemType:))
        if let folder, let saved = try MethodAdapter.load(folder) {
            names = try options.apply(saved.extra, to: &checkpoint)
            model = try saved.model(checkpoint, on: backend)
            hasHead = true
        } else if let folder {
            let (adapter, extra, passedOver) = try PEFTAdapter.load(folder, for: checkpoint)
            notes += passedOver
            names = try options.apply(extra, to: &checkpoint)
            model = try VisionTransformer.applying(adapter, to: checkpoint, needsHead: needsHead, on: backend)
            hasHead = ownHead || !adapter.head.isEmpty
        } else {
            hasHead = ownHead
            guard ownHead || !needsHead else {
                throw TrainingError.settings(
                    "\(options.model) has no head to classify with; give `adapter` or train a run first")
            }
            model = try VisionTransformer(
                checkpoint, classCount: hasHead ? checkpoint.configuration.classCount : 1,
                method: Backbone.frozen, seed: 0, head: checkpoint.head, on: backend)
        }
        paths = model.paths
        // A head of another size than the checkpoint's is of other classes; one of its size belongs to the model it was trained on.
        let own =
            model.configuration.classCount == checkpoint.configuration.classCount
            ? checkpoint.classNames : nil
        if let names, names.count != model.configuration.classCount {
            throw CheckpointError(
                "adapter_config.json: glora_class_names has \(names.count) names, the head "
                    + "\(model.configuration.classCount) classes; save the adapter again")
        }
        classNames = names ?? own
        preprocessingLine = try options.preprocessingLine(checkpoint)
        self.options = options
        self.notes = checkpoint.notes + notes
        step = 0
        baseHash = ""
    }

    /// The checkpoint of the same shape that computes what this computes as its layers are set, its classes named; see `VisionTransformer.merged`.
    public func merged() throws -> ViTCheckpoint {
        var merged = try model.merged()
        merged.classNames = classNames
        merged.problemType = task.problemType
        return merged
    }

    /// A split prepared as this model wants it. Throws `DatasetError`.
    public func prepare(_ source: any ImageSource) throws -> PreparedImages {
        PreparedImages(source, try model.configuration.preprocessor)
    }
}

extension LearningTask {
    /// What Hugging Face's config.json calls it; nil for classes, its default.
    var problemType: String? {
        switch self {
        case .classes: nil
        case .labels: "multi_label_classification"
        case .values: "regression"
        }
    }

    /// nil for what isn't one of those.
    init?(problemType: String) {
        guard let task = Self.allCases.first(where: { $0.problemType == problemType }) else { return nil }
        self = task
    }
}

extension ViTConfiguration {
    /// A line for the user: how a run prepares images. Throws as `preprocessor`.
    public var runsPreprocessingLine: String { get throws { "images: \(try preprocessor); the run's own" } }

    /// What makes images of any size the model's input. Throws `DatasetError` for what can't be meant.
    public var preprocessor: Preprocessor {
        get throws { try Preprocessor(preprocessing, imageSize: imageSize) }
    }
}
