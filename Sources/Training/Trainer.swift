import TensorCore
import Transformers

/// What happens, for whoever reports it.
public enum TrainingEvent: Sendable {
    /// A step is done. `loss` is the batch's mean; `imagesPerSecond` is over the steps since the last event of the epoch.
    case step(TrainingProgress)
    /// An epoch is done: its mean training loss.
    case epoch(Int, loss: Double, learningRate: Double)
    /// The validation split was scored after an epoch.
    case validation(Int, EvaluationResult, isBest: Bool)
}

/// Where a run stands after a step.
public struct TrainingProgress: Sendable {
    /// From 0.
    public let epoch: Int
    /// Steps done in all.
    public let step: Int
    /// Steps of the whole run.
    public let stepCount: Int
    /// The batch's mean cross-entropy.
    public let loss: Double
    /// η of the step.
    public let learningRate: Double
    /// Images trained on per second of this process's training.
    public let imagesPerSecond: Double
    /// What is left at that rate.
    public let secondsLeft: Double
}

/// Trains a model's parameters on a split, epoch by epoch, and keeps nothing that a saved state doesn't hold: the order of the
/// images, the paths and the dropped branches of every step are functions of the seed and the step, so a run that goes
/// on from a state computes what it would have computed.
public final class Trainer<Model: TrainableModel> {
    /// The model in training.
    public let model: Model
    /// The settings.
    public let options: TrainingOptions
    /// Where the run stands.
    public private(set) var state = TrainingState()

    private let optimizer: any Optimizer
    private let training: Model.Examples
    private let validation: Model.Examples?
    private let unscale: Tensor?  // [1]: 1 / the loss's factor, in float16

    /// A run at its beginning. Takes the memory of its steps. Throws `BackendError.outOfMemory`.
    public init(
        _ model: Model, _ options: TrainingOptions, training: Model.Examples, validation: Model.Examples?
    ) throws {
        (self.model, self.options, self.training, self.validation) = (model, options, training, validation)
        optimizer =
            switch options.optimizer {
            case .adamw: AdamW(model.store, mode: options.adamw, on: model.backend)
            case .sgd: SGD(model.store, on: model.backend)
            }
        if options.precision == .float16 {
            state.lossScale = LossScale()
            unscale = try model.backend.allocate([1], .float32)
        } else {
            unscale = nil
        }
        _ = try model.plan(batch: batchSize, isForTraining: true)
    }

    /// What it trains on and what it validates on.
    public var splits: [Model.Examples] { [training, validation].compactMap(\.self) }

    /// Images in a step: a training set smaller than a batch is one batch.
    private var batchSize: Int { min(options.batchSize, training.count) }

    /// Steps in an epoch.
    public var stepsPerEpoch: Int {
        let count = training.count
        return options.dropLast ? count / batchSize : (count + batchSize - 1) / batchSize
    }

    /// Trains until the end or until `shouldStop` says so after a step. Returns whether it reached the end. `save` is called
    /// with the run's state after every epoch and at a stop; `isBest` marks the best validation so far.
    ///
    /// Throws `TrainingError.notANumber` before the broken step changes anything, `DatasetError`, and `BackendError`.
    @discardableResult
    public func run(
        onEvent: (TrainingEvent) throws -> Void = { _ in }, save: (_ isBest: Bool) throws -> Void = { _ in },
        shouldStop: () -> Bool = { false }
    ) throws -> Bool {
        var clock = StepClock()
        defer { model.method.beginReading(model.layers) }
        while state.epoch < options.epochs {
            let epoch = state.epoch
            let rate = options.schedule.learningRate(inEpoch: epoch)
            training.start(Array(batches(ofEpoch: epoch).dropFirst(state.stepInEpoch)))
            clock.start()
            while let batch = try training.next() {
                let loss = try step(batch, rate: rate)
                state.step += 1
                state.stepInEpoch += 1
                state.epochLoss += loss
                clock.add(images: batch.count)
                let stepsLeft = options.epochs * stepsPerEpoch - state.step
                try onEvent(
                    .step(
                        TrainingProgress(
                            epoch: epoch, step: state.step, stepCount: options.epochs * stepsPerEpoch,
                            loss: loss, learningRate: rate, imagesPerSecond: clock.imagesPerSecond,
                            secondsLeft: Double(stepsLeft * batchSize) / clock.imagesPerSecond)))
                if shouldStop(), state.stepInEpoch < stepsPerEpoch {
                    try save(false)
                    return false
                }
            }
            try onEvent(.epoch(epoch, loss: state.epochLoss / Double(stepsPerEpoch), learningRate: rate))
            state.epoch += 1
            state.stepInEpoch = 0
            state.epochLoss = 0
            let isBest = try validateIfDue(epoch, onEvent)
            try save(isBest)
            if shouldStop(), state.epoch < options.epochs { return false }
        }
        return true
    }

    /// Scores the validation split when its turn has come. Without one, the latest state is the best.
    private func validateIfDue(_ epoch: Int, _ onEvent: (TrainingEvent) throws -> Void) throws -> Bool {
        guard let validation else { return true }
        guard (epoch + 1) % options.validateEvery == 0 || epoch + 1 == options.epochs else { return false }
        let result: EvaluationResult
        do {
            model.method.beginReading(model.layers)
            result = try evaluate(model, on: validation, batchSize: batchSize, isForTraining: true)
        } catch TrainingError.overflow where options.precision != .float16 {
            // float32's range isn't left but by weights that the training has lost.
            throw TrainingError.notANumber(step: state.step, run: "the run's last.safetensors")
        }
        let isBest = state.bestAccuracy.map { result.accuracy > $0 } ?? true
        if isBest {
            state.bestAccuracy = result.accuracy
            state.bestEpoch = epoch
        }
        state.lastAccuracy = result.accuracy
        try onEvent(.validation(epoch, result, isBest: isBest))
        return isBest
    }

    /// One step on a batch; returns its mean loss.
    private func step(_ batch: Model.Examples.Batch, rate: Double) throws -> Double {
        let backend = model.backend
        let plan = try model.plan(batch: batch.count, isForTraining: true)
        model.method.beginStep(state.step, seed: options.seed, model.layers)
        model.load(batch, into: plan)
        var random = Random(options.seed, "dropout", state.step)
        let mode = PassMode(dropoutSeed: random.next(), dropsBranches: options.dropPath > 0)
        if mode.dropsBranches { drawBranchScales(plan) }
        model.store.clearGradients()
        model.forward(plan, mode)
        model.loss(plan)
        let losses = backend.values(plan.losses)
        try backend.checkForFailure()
        let loss = losses.reduce(0) { $0 + Double($1) } / Double(losses.count)
        guard loss.isFinite else {
            // Before the first step the learning rate has done nothing yet.
            if state.step == 0 { throw model.overflow(plan, "step 1's logits") }
            throw TrainingError.notANumber(step: state.step + 1, run: "the run's last.safetensors")
        }
        model.backward(plan, mode, lossScale: state.lossScale?.factor ?? 1)
        if try unscaledGradientsAreFinite() {
            optimizer.step(
                learningRate: rate, weightDecay: options.weightDecay, onPath: model.trainedNames)
        }
        return loss
    }

    /// Divides the gradients by the loss's factor. Returns false when one of them overflowed: the step is left out then. Throws
    /// `TrainingError.notANumber` when they do so without any factor.
    private func unscaledGradientsAreFinite() throws -> Bool {
        guard let scale = state.lossScale else { return true }
        let gradients = model.store.gradients
        let areFinite = model.backend.values(gradients).allSatisfy(\.isFinite)
        try model.backend.checkForFailure()
        guard areFinite || scale.factor > 1 else {
            throw TrainingError.notANumber(step: state.step + 1, run: "the run's last.safetensors")
        }
        if areFinite {
            model.backend.upload(unscale!, [1 / scale.factor])
            let whole = gradients.reshaped([1, gradients.count])
            model.backend.scaleSamples(whole, whole, sampleScale: unscale!)
        }
        state.lossScale!.update(gradientsAreFinite: areFinite)
        return areFinite
    }

    /// Stochastic depth, per sample: a branch of block l is dropped with probability p · l / (L − 1), and what stays is
    /// scaled by 1 / (1 − p). Source: timm 0.6.5, `drop_path`.
    private func drawBranchScales(_ plan: Model.Plan) {
        var random = Random(options.seed, "drop-path", state.step)
        for (block, memory) in plan.blocks.enumerated() {
            let keep = 1 - options.dropPath * Double(block) / Double(max(plan.blocks.count - 1, 1))
            for scales in memory.branchScales {
                let values = (0..<plan.batch).map { _ in
                    random.uniform() < keep ? Float(1 / keep) : 0
                }
                model.backend.upload(scales, values)
            }
        }
    }

    private func batches(ofEpoch epoch: Int) -> [[Int]] {
        var random = Random(options.seed, "order", epoch)
        let order = (0..<training.count).shuffled(using: &random)
        return (0..<stepsPerEpoch).map {
            Array(order[$0 * batchSize..<min(($0 + 1) * batchSize, order.count)])
        }
    }

    // MARK: State

    /// Everything that a resumed run needs: values, moments, step counts, and where the run stands. Throws `BackendError.failed`.
    public func snapshot() throws -> TrainingSnapshot {
        let store = model.store
        var state = state
        state.stepCounts = Dictionary(
            uniqueKeysWithValues: zip(store.segments.map(\.name), optimizer.stepCounts))
        let snapshot = TrainingSnapshot(
            state: state, values: store.unpack(store.values),
            firstMoments: store.unpack(store.firstMoments), secondMoments: store.unpack(store.secondMoments))
        try model.backend.checkForFailure()
        return snapshot
    }

    /// Goes on from a snapshot. Throws `TrainingError.run` when its tensors aren't this model's or its state isn't this run's.
    public func restore(_ snapshot: TrainingSnapshot) throws {
        try snapshot.state.check(options, stepsPerEpoch: stepsPerEpoch)
        let store = model.store
        for segment in store.segments {
            for tensors in [snapshot.values, snapshot.firstMoments, snapshot.secondMoments]
            where tensors[segment.name]?.shape != segment.shape {
                throw TrainingError.run(
                    "the saved state has \(segment.name) as \(tensors[segment.name]?.shape ?? []), "
                        + "this run as \(segment.shape); it belongs to another run")
            }
        }
        store.pack(store.values, snapshot.values)
        store.pack(store.firstMoments, snapshot.firstMoments)
        store.pack(store.secondMoments, snapshot.secondMoments)
        optimizer.stepCounts = store.segments.map { snapshot.state.stepCounts[$0.name] ?? 0 }
        state = snapshot.state
    }
}

/// Measures training alone: neither validation nor saving counts.
private struct StepClock {
    private var images = 0
    private var seconds = 0.0
    private var last = ContinuousClock.now

    mutating func start() { last = .now }

    mutating func add(images count: Int) {
        seconds += last.secondsPassed
        last = .now
        images += count
    }

    var imagesPerSecond: Double { Double(images) / max(seconds, 1e-9) }
}
