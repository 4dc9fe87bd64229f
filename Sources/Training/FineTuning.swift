import Adapters
import Checkpoints
import Datasets
import Foundation
import ModelConfiguration
import TensorCore
import VisionModels

/// A fine-tuning run from its settings to its folder: the model on a device, the trainer, and what is written where.
public final class FineTuning {
    /// The model with its support tensors.
    public let model: VisionTransformer
    /// The loop.
    public let trainer: Trainer
    /// The settings.
    public let options: TrainingOptions

    /// What a resumed run found changed, a sentence each.
    public private(set) var notes: [String]

    private let directory: RunDirectory
    private let baseHash: String
    private let classNames: [String]?
    private var savedStep = 0  // of `directory.last`
    /// How to go on from the last state, as a part of a sentence.
    private let continuation: String

    /// Prepares a run in `directory`: a new one, or with `resumes` the one that is there, from its last state. A new one starts
    /// from `inherited`, the trained tensors of another run of the same space and classes, or from fresh ones. `check` is called
    /// before anything is written, with a trainer that has its images: what it throws leaves no folder behind. `continuation` is how
    /// to go on from the last state, a part of a sentence (default: by `glora train --resume`).
    ///
    /// Throws `TrainingError` for settings that can't be meant, a folder in the way, another frozen base or other data than
    /// the run's, or too little memory (with the batch size that would fit); `CheckpointError`; `BackendError`.
    public init(
        _ options: TrainingOptions, checkpoint: ViTCheckpoint, training: any ImageSource,
        validation: (any ImageSource)?, in directory: RunDirectory, resumes: Bool = false,
        inheriting inherited: [String: HostTensor]? = nil, on backend: any Backend,
        continuation: String? = nil, check: (Trainer) throws -> Void = { _ in }
    ) throws {
        try options.validate()
        guard training.count > 0 else {
            throw TrainingError.settings("\(training.name) has no images to train on")
        }
        self.options = options
        self.directory = directory
        self.continuation =
            continuation
            ?? "go on from it with `glora train --run \(directory.url.path.shellQuoted) --resume`"
        var checkpoint = checkpoint
        let saved = resumes ? try directory.configuration() : nil
        var notes: [String] = []
        let hashes = [training.contentHash, validation?.contentHash ?? 0].map { String($0, radix: 16) }
        if let saved {
            let known = checkpoint.notes.count
            try saved.restoreBase(&checkpoint, from: options.model, of: directory.url)
            notes += checkpoint.notes[known...]
            // A damaged validation image may be replaced: it changes which state counts as the best from here on, no step.
            let before = saved.dataHash.split(separator: "-").map(String.init)
            guard before.first == hashes[0] else {
                throw TrainingError.run(
                    "the training images of \(options.data) are not the data that \(directory.url.path) was started with "
                        + "(hash \(hashes[0]), the run has \(before.first ?? "none")); give the same splits")
            }
            if let names = saved.classNames, names != training.classNames {
                notes.append(
                    "the classes' names have changed since \(directory.url.path) was started; the run keeps its own"
                )
            }
            if let parts = saved.productParts, let own = backend.productParts, parts != own {
                notes.append(
                    "\(directory.url.path) was started with products cut into \(parts) parts, here they are cut into \(own): "
                        + "what follows may differ in its last bits")
            }
            if before != hashes {
                notes.append(
                    "the validation images have changed since \(directory.url.path) was started; from here on the best "
                        + "state is chosen on those that are there now")
            }
        } else {
            try directory.refuseExisting()
            checkpoint.configuration.preprocessing = options.preprocessing(of: checkpoint.configuration)
        }
        self.notes = notes
        baseHash = saved?.baseHash ?? contentHash(checkpoint.tensors)
        classNames = saved?.classNames ?? training.classNames
        let space = try options.searchSpace()
        model = try VisionTransformer(
            checkpoint, classCount: training.classCount,
            trained: try options.trained(checkpoint.configuration),
            seed: options.seed, headKind: options.head, memory: options.memory, on: backend)
        try FineTuning.checkMemory(model, batch: min(options.batchSize, training.count))
        let preprocessing = try model.configuration.preprocessor
        let paths =
            if let saved {
                try PathChoice(saved, space: space, model: model)
            } else {
                try PathChoice(options.pathText, space: space, recipe: options.recipe, model: model)
            }
        trainer = try Trainer(
            model, options, paths: paths,
            training: PreparedImages(training, preprocessing),
            validation: validation.map { PreparedImages($0, preprocessing) })
        try check(trainer)
        if resumes {
            try trainer.restore(try TrainingSnapshot(contentsOf: directory.last))
            if try !directory.truncateMetrics(to: trainer.state) {
                self.notes.append("\(directory.metrics.path) was missing; a new one begins here")
            }
            savedStep = trainer.state.step
        } else {
            if let inherited {
                for segment in model.store.segments where inherited[segment.name]?.shape != segment.shape {
                    throw TrainingError.run(
                        "the run to inherit from has no \(segment.name) of shape \(segment.shape); it is of another "
                            + "space, model or task")
                }
                model.store.pack(model.store.values, inherited)
            }
            try directory.create(
                RunDirectory.Configuration(
                    options: options, paths: PathChoice.isFile(options.pathText) ? readingPaths : nil,
                    baseHash: baseHash, dataHash: hashes.joined(separator: "-"),
                    classCount: training.classCount, classNames: classNames,
                    architecture: checkpoint.configuration, productParts: backend.productParts),
                try trainer.snapshot())
        }
    }

    /// The paths that the run is validated and read at.
    public var readingPaths: [GLoRAPath] { trainer.paths.readingPaths(model: model) }

    /// Trains to the end, or until `shouldStop` says so after a step; returns whether it reached the end. Either way the
    /// folder holds the state. Throws what `Trainer.run` throws, and `CheckpointError` when a file can't be written.
    public func run(onEvent: (Trainer.Event) -> Void, shouldStop: () -> Bool) throws -> Bool {
        let start = ContinuousClock.now
        do {
            let reachedEnd = try trainer.run(
                onEvent: { event in
                    try log(event)
                    onEvent(event)
                },
                save: { try save(isBest: $0) }, shouldStop: shouldStop)
            try directory.addToSummary(seconds: start.secondsPassed, peakBytes: ResidentMemory.peak)
            return reachedEnd
        } catch TrainingError.notANumber(let step, _) {
            throw TrainingError.notANumber(step: step, run: directory.last.path)
        } catch let error as CheckpointError {
            throw CheckpointError("\(error.description); \(kept)")
        } catch BackendError.failed(let message) {
            // A run keeps its batch size.
            throw BackendError.failed(
                "\(message); \(kept)"
                    + (message.contains("--batch-size") ? " (a smaller batch needs another folder)" : ""))
        }
    }

    /// What is left of a run that an error ends, as a part of a sentence.
    private var kept: String {
        "the state after step \(savedStep) is kept in \(directory.last.path), \(continuation)"
    }

    /// The best state goes first: a run that dies in between goes on from the last state and writes the best one again, where the
    /// other order would leave an older one for good.
    private func save(isBest: Bool) throws {
        let snapshot = try trainer.snapshot()
        guard snapshot.isFinite else {
            throw TrainingError.notANumber(step: snapshot.state.step, run: directory.last.path)
        }
        if isBest {
            try snapshot.write(to: directory.best)
            try saveAdapter()
        }
        try snapshot.write(to: directory.last)
        savedStep = snapshot.state.step
    }

    /// Writes the current values as an adapter into the run's folder.
    private func saveAdapter() throws {
        let notes = adapterNotes(
            options, model.configuration, baseHash: baseHash, classNames: classNames)
        if model.method != nil {
            try MethodAdapter.save(model, options, to: directory.adapter, extra: notes)
        } else {
            try PEFTAdapter.save(
                try model.adapter(paths: readingPaths), to: directory.adapter, extra: notes)
        }
    }

    private func log(_ event: Trainer.Event) throws {
        switch event {
        case .step(let progress):
            try directory.appendMetric(
                StepLine(
                    step: progress.step, epoch: progress.epoch, loss: progress.loss,
                    lr: progress.learningRate))
        case .epoch(let epoch, let loss, let rate):
            try directory.appendMetric(EpochLine(epoch: epoch, trainLoss: loss, lr: rate))
        case .validation(let epoch, let result, let isBest):
            try directory.appendMetric(
                ValidationLine(
                    epoch: epoch, valAccuracy: result.accuracy, valLoss: result.loss, isBest: isBest))
        }
    }

    private struct StepLine: Encodable {
        let step: Int
        let epoch: Int
        let loss: Double
        let lr: Double
    }

    private struct EpochLine: Encodable {
        let epoch: Int
        let trainLoss: Double
        let lr: Double
    }

    private struct ValidationLine: Encodable {
        let epoch: Int
        let valAccuracy: Double
        let valLoss: Double
        let isBest: Bool
    }

    /// Throws before a step's memory is taken when it can't fit, with what is needed and the batch size that would fit.
    private static func checkMemory(_ model: VisionTransformer, batch: Int) throws {
        let needed = model.plannedByteCount
        let available = model.backend.memoryByteCount
        guard needed(batch) > available else { return }
        // The largest batch that fits, by bisection.
        var (fits, tooLarge) = (0, batch)
        while tooLarge - fits > 1 {
            let middle = (fits + tooLarge) / 2
            if needed(middle) <= available { fits = middle } else { tooLarge = middle }
        }
        throw TrainingError.settings(
            "a step of \(batch) images needs about \(needed(batch) >> 20) MiB, \(model.backend.name) has "
                + "\(available >> 20) MiB; "
                + (fits > 0
                    ? "--batch-size \(fits) would fit"
                    : "not even one image fits, so use a smaller --image-size or --ranks, or another --device")
        )
    }
}

extension TrainingOptions {
    /// `--path` for GLoRA; other methods leave every Linear's path at none.
    var pathText: String { method == .glora ? path : "none" }

    /// What these settings train in a model. Throws `MethodError` and `FormError`.
    public func trained(_ model: ViTConfiguration) throws -> VisionTransformer.Trained {
        if let other = try method.method(methodSettings, for: model.shape) { return .method(other) }
        let space = try searchSpace()
        try MethodSettings.checkRank(space.largestRank, flag: "--ranks", modelWidth: model.width)
        return .adapters(rank: space.largestRank, sites: space.sites)
    }
}
