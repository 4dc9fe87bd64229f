import Adapters
import ArchitectureSearch
import Checkpoints
import Foundation
import SupernetSearch
import TensorCore
import Training
import VisionModels

/// Trains, tests and measures the cells of a comparison, all on one base and one device.
public struct CellRunner {
    private let checkpoint: ViTCheckpoint
    private let baseHash: String
    private let state: RunState
    private let backend: any Backend
    private let continuation: String
    private let deviceBytes: (() -> Int)?

    /// A runner that scores `state`. `continuation` is how to go on from a training's last state, a part of a sentence; `deviceBytes`
    /// says what tensors hold on a device with memory of its own.
    public init(
        _ checkpoint: ViTCheckpoint, scoring state: RunState, on backend: any Backend,
        continuation: String = "the same call goes on from it", deviceBytes: (() -> Int)? = nil
    ) {
        (self.checkpoint, self.state, self.backend) = (checkpoint, state, backend)
        (self.continuation, self.deviceBytes) = (continuation, deviceBytes)
        baseHash = contentHash(checkpoint.tensors)
    }

    /// What is there of a cell; see `Cell.result`.
    public func result(of cell: Cell) throws -> CellResult? {
        try cell.result(checkpoint: state, baseHash: baseHash, configuration: checkpoint.configuration)
    }

    /// Trains a cell, from its last state if it was begun, and writes its result; tests nothing. Returns nil when
    /// `shouldStop` ended it: the same call goes on from there. Throws what `FineTuning` throws.
    public func train(
        _ cell: Cell, onEvent: (TrainingOptions, TrainingEvent) -> Void, shouldStop: @escaping () -> Bool
    ) throws -> CellResult? {
        ResidentMemory.resetPeak()
        guard let tuning = try trained(cell, onEvent: onEvent, shouldStop: shouldStop) else { return nil }
        let summary = cell.directory.readSummary()
        let score = try cell.directory.validation(of: state)
        // What the supernet and its search took counts.
        var earlier = (seconds: 0.0, peakBytes: 0)
        if cell.method.isSearched {
            let supernet = cell.supernet
            let (trained, searched) = (supernet.readSummary(), try SearchDirectory(supernet).readSummary())
            earlier.seconds = (trained?.seconds ?? 0) + searched.seconds
            earlier.peakBytes = max(trained?.peakBytes ?? 0, searched.peakBytes)
        }
        let result = CellResult(
            task: cell.task, method: cell.method.description, settings: cell.options, checkpoint: state,
            baseHash: baseHash, trainingHash: hex(cell.images.training),
            validationHash: cell.images.validation.map(hex), valAccuracy: score?.valAccuracy,
            valLoss: score?.valLoss, adapterParameters: tuning.model.parameterCount,
            headParameters: tuning.model.headParameterCount,
            seconds: (summary?.seconds ?? 0) + earlier.seconds,
            peakBytes: max(summary?.peakBytes ?? 0, earlier.peakBytes), deviceBytes: deviceBytes?())
        try cell.write(result)
        return result
    }

    /// The one place that knows how a method's run comes about. A method that needs more than one training does the others
    /// here, in folders below the cell's own, before the one whose last state counts.
    private func trained(
        _ cell: Cell, onEvent: (TrainingOptions, TrainingEvent) -> Void, shouldStop: @escaping () -> Bool
    ) throws -> FineTuning<VisionTransformer>? {
        var options = cell.options
        var inherited: [String: HostTensor]?
        if cell.method.isSearched {
            let supernet = cell.supernet
            let (training, validation) =
                cell.images.searching ?? (cell.images.training, cell.images.validation)
            guard let validation else {
                throw TrainingError.settings(
                    "glora searches by validation images, and there are none; give some, or glora:full")
            }
            let images = try CellImages(training: training, validation: validation, tests: [])
            guard try finished(options, in: supernet, images, nil, onEvent, shouldStop) != nil,
                try search(supernet, images, shouldStop)
            else { return nil }
            options.path = SearchDirectory(supernet).architecture.path
            inherited = try TrainingSnapshot(contentsOf: supernet.last).result
        }
        return try finished(options, in: cell.directory, cell.images, inherited, onEvent, shouldStop)
    }

    /// A run at its end, from wherever it stands; nil when it was stopped.
    private func finished(
        _ options: TrainingOptions, in directory: RunDirectory, _ images: CellImages,
        _ inherited: [String: HostTensor]?, _ onEvent: (TrainingOptions, TrainingEvent) -> Void,
        _ shouldStop: () -> Bool
    ) throws -> FineTuning<VisionTransformer>? {
        let tuning = try FineTuning(
            options, checkpoint: checkpoint, training: images.training, validation: images.validation,
            in: directory, resumes: directory.holdsRun, inheriting: inherited, on: backend,
            continuation: continuation)
        let end = try tuning.run(onEvent: { onEvent(options, $0) }, shouldStop: shouldStop)
        // One whose time is up is as far as it was meant to come.
        return end == .stopped ? nil : tuning
    }

    /// Searches a supernet under half of its richest path's parameters, as much as a random path has, and chooses among the best
    /// by trainings of a quarter of the epochs. Returns whether it ended.
    private func search(
        _ supernet: RunDirectory, _ images: CellImages, _ shouldStop: @escaping () -> Bool
    ) throws -> Bool {
        guard let validation = images.validation else { return false }
        let folder = SearchDirectory(supernet)
        guard (try? folder.found()) == nil else { return true }
        let ready = try ReadyModel(run: supernet, state: .last, on: backend)
        let run = try SearchRun(
            ready, in: folder,
            SearchDirectory.Configuration(
                settings: SearchSettings(), minParameters: 0,
                maxParameters: ready.model.parameterCount / 2, fitnessSplit: "val",
                checkpoint: .last, step: ready.step, exhaustive: false,
                refinement: Refinement(
                    count: 4, epochs: max(1, ready.options.epochs / 4),
                    learningRate: ready.options.learningRate)),
            resumes: FileManager.default.fileExists(atPath: folder.journal.path))
        do {
            _ = try run.run(
                fitness: try ready.prepare(validation), test: nil,
                training: try ready.prepare(images.training), batchSize: min(32, validation.count),
                memoryLimit: 1 << 30, onGeneration: { _ in }, shouldStop: shouldStop)
            return true
        } catch is CancellationError {
            return false
        }
    }

    /// Scores the tests that a trained cell lacks, each once, and writes them into its result; what it says of the first test's images
    /// is kept in the cell's run.
    public func test(_ cell: Cell, _ result: CellResult) throws -> CellResult {
        var result = result
        let ready = try ReadyModel(run: cell.directory, state: state, on: backend)
        for test in cell.images.tests where result.accuracy(on: test.name) == nil {
            let scored = try score(
                ready.model, on: try ready.prepare(test.images),
                batchSize: min(cell.options.batchSize, test.images.count))
            if test.name == cell.images.tests.first?.name {
                try cell.directory.write(
                    StoredPredictions(
                        .init(
                            split: "test", checkpoint: state, step: ready.step,
                            classCount: ready.model.configuration.classCount), scored.images))
            }
            result.tests.append(
                CellResult.Test(name: test.name, hash: hex(test.images), score: scored.result))
        }
        try cell.write(result)
        return result
    }

    /// Measures what an image costs a trained cell's model, unless that is known, and writes it into the result.
    public func measureInference(_ cell: Cell, _ result: CellResult) throws -> CellResult {
        guard result.inference == nil else { return result }
        var result = result
        let ready = try ReadyModel(run: cell.directory, state: state, on: backend)
        let plain = try VisionTransformer(
            checkpoint, classCount: cell.images.training.classCount,
            method: Backbone.frozen, seed: 0, forInference: true, on: backend)
        result.inference = try inferenceCost(
            ready, against: plain, batch: cell.options.batchSize)
        try cell.write(result)
        return result
    }
}
