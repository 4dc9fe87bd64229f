import Checkpoints
import Datasets
import TensorCore
import Transformers

/// A fine-tuning run from its settings to its folder: the model on a device, the trainer, and what is written where. What is special to
/// a kind of model, its beginning and its adapter files, lies in extensions (`FineTuning+Images.swift`).
public final class FineTuning<Model: TrainableModel> {
    /// The model with what the method adds.
    public let model: Model
    /// The loop.
    public let trainer: Trainer<Model>
    /// The settings.
    public let options: TrainingOptions

    /// What a resumed run found changed, a sentence each.
    public let notes: [String]

    /// A picture of a few examples as they are trained on, for who watches; nil where there is none.
    var samples: (() throws -> RGBImage)?

    private let directory: RunDirectory
    private let saveAdapter: () throws -> Void
    private var savedStep = 0  // of `directory.last`
    private let isNew: Bool
    /// How to go on from the last state, as a part of a sentence.
    private let continuation: String

    /// A run of `trainer` in `directory`: a new one of this configuration, or without one that which is there, from its last state. A
    /// new one starts from `inherited`, the trained tensors of another run of the same space and classes, or from fresh ones.
    /// `saveAdapter` writes the current values as an adapter into the run's folder; `continuation` is how to go on from the last
    /// state, a part of a sentence (default: by the setting `resume`).
    ///
    /// Throws `TrainingError.run` for a folder in the way or a state of another run, `CheckpointError`, `BackendError`.
    init(
        _ trainer: Trainer<Model>, in directory: RunDirectory, new configuration: RunDirectory.Configuration?,
        inheriting inherited: [String: HostTensor]? = nil, notes: [String], continuation: String? = nil,
        saveAdapter: @escaping () throws -> Void
    ) throws {
        (self.trainer, self.directory, self.saveAdapter) = (trainer, directory, saveAdapter)
        (model, options) = (trainer.model, trainer.options)
        self.continuation = continuation ?? "go on from it with `resume`"
        isNew = configuration != nil
        var notes = notes
        if let configuration {
            if let inherited {
                for segment in model.store.segments where inherited[segment.name]?.shape != segment.shape {
                    throw TrainingError.run(
                        "the run to inherit from has no \(segment.name) of shape \(segment.shape); it is of another "
                            + "space, model or task")
                }
                model.store.pack(model.store.values, inherited)
            }
            if let log = options.additions.logDirectory {
                try EventLog.makeFolder(log, run: directory.url)
            }
            try directory.create(configuration, try trainer.snapshot())
        } else {
            try trainer.restore(try TrainingSnapshot(contentsOf: directory.last))
            if try !directory.truncateMetrics(to: trainer.state) {
                notes.append("\(directory.metrics.path) was missing; a new one begins here")
            }
            savedStep = trainer.state.step
        }
        self.notes = notes
    }

    /// Trains to the end, or until `shouldStop` says so after a step; returns how it ended. However that is, the folder holds the
    /// state. Throws what `Trainer.run` throws, and `CheckpointError` when a file can't be written.
    public func run(onEvent: (TrainingEvent) -> Void, shouldStop: () -> Bool) throws -> TrainingEnd {
        let start = ContinuousClock.now
        let events = try options.additions.logDirectory.map {
            try EventLog(
                $0, run: directory.url, isNew: isNew, from: trainer.state,
                classNames: trainer.classNames, options.metric)
        }
        do {
            if trainer.state.step == 0, let events, let samples { try events.add(samples: try samples()) }
            let end = try trainer.run(
                onEvent: { event in
                    try log(event)
                    try events?.add(event)
                    onEvent(event)
                },
                save: { try save(isBest: $0) }, shouldStop: shouldStop)
            try events?.close()
            try directory.addToSummary(seconds: start.secondsPassed, peakBytes: ResidentMemory.peak)
            return end
        } catch TrainingError.notANumber(let step, _) {
            throw TrainingError.notANumber(step: step, run: directory.last.path)
        } catch let error as CheckpointError {
            throw CheckpointError("\(error.description); \(kept)")
        } catch BackendError.failed(let message, let lacksMemory) {
            // A run keeps its batch size.
            throw BackendError.failed(
                "\(message); \(kept)" + (lacksMemory ? " (a smaller batch needs another folder)" : ""),
                lacksMemory: lacksMemory)
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
            model.method.beginReading(model.layers)
            try trainer.withResult(saveAdapter)
        }
        try snapshot.write(to: directory.last)
        if let keep = options.additions.keep {
            try directory.keep(snapshot.state.step, latest: keep)
        }
        directory.removePredictions()
        savedStep = snapshot.state.step
    }

    private func log(_ event: TrainingEvent) throws {
        switch event {
        case .step(let progress):
            try directory.appendMetric(
                StepLine(
                    step: progress.step, epoch: progress.epoch, loss: progress.loss,
                    lr: progress.learningRate, gradientNorm: progress.gradientNorm))
        case .epoch(let epoch, let loss, let rate):
            try directory.appendMetric(EpochLine(epoch: epoch, trainLoss: loss, lr: rate))
        case .validation(let epoch, let validation):
            let (result, unaveraged) = (validation.result, validation.unaveraged)
            var line = ValidationLine(
                epoch: epoch, valLoss: result.loss, isBest: validation.isBest,
                unaveragedValLoss: unaveraged?.loss)
            switch options.metric {
            case .accuracy: (line.valAccuracy, line.unaveragedValAccuracy) = (result.score, unaveraged?.score)
            case .meanAveragePrecision:
                line.valMeanAveragePrecision = result.score
                line.unaveragedValMeanAveragePrecision = unaveraged?.score
            case .r2: (line.valR2, line.unaveragedValR2) = (result.score, unaveraged?.score)
            }
            try directory.appendMetric(line)
        }
    }
}

private struct StepLine: Encodable {
    let step: Int
    let epoch: Int
    let loss: Double
    let lr: Double
    let gradientNorm: Double?
}

private struct EpochLine: Encodable {
    let epoch: Int
    let trainLoss: Double
    let lr: Double
}

private struct ValidationLine: Encodable {
    let epoch: Int
    // One of the three, by the task.
    var valAccuracy: Double?
    var valMeanAveragePrecision: Double?
    var valR2: Double?
    let valLoss: Double
    let isBest: Bool
    var unaveragedValAccuracy: Double?
    var unaveragedValMeanAveragePrecision: Double?
    var unaveragedValR2: Double?
    let unaveragedValLoss: Double?
}
