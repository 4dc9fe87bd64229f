import TensorCore
import Transformers

/// What happens, for whoever reports it.
public enum TrainingEvent: Sendable {
    /// A step is done. `loss` is the batch's mean; `imagesPerSecond` is over the steps since the last event of the epoch.
    case step(TrainingProgress)
    /// An epoch is done: its mean training loss.
    case epoch(Int, loss: Double, learningRate: Double)
    /// The validation split was scored after an epoch.
    case validation(Int, Validation)

    /// What the validation split said.
    public struct Validation: Sendable {
        /// With a moving average the averages'.
        public let result: EvaluationResult
        /// With a moving average what the tensors themselves score.
        public let unaveraged: EvaluationResult?
        /// Whether it is the best so far.
        public let isBest: Bool
        /// How many images of a class were taken for another, or for it, as `result` has them.
        public let confusions: [ClassScores.Confusion: Int]
    }
}

/// How a training ended.
public enum TrainingEnd: String, Sendable, Encodable {
    /// With its last epoch.
    case epochs
    /// As its validations got no better (`patience`).
    case patience
    /// As its time was up (`time-limit`); it can go on.
    case timeLimit = "time-limit"
    /// As it was asked to; it can go on.
    case stopped

    /// Whether there is nothing to go on with.
    public var isFinished: Bool { self == .epochs || self == .patience }
}

/// Where a run stands after a step.
public struct TrainingProgress: Sendable {
    /// From 0.
    public let epoch: Int
    /// Steps done in all.
    public let step: Int
    /// Steps of the whole run.
    public let stepCount: Int
    /// The batch's mean loss.
    public let loss: Double
    /// η of the step.
    public let learningRate: Double
    /// The norm of the step's gradients before they were clipped; nil where they aren't.
    public let gradientNorm: Double?
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
    public internal(set) var state = TrainingState()

    private let optimizer: any Optimizer
    let training: Model.Examples
    private let validation: Model.Examples?
    private let gradients: GradientScaling
    private let targets: TargetMaker?
    private let average: MovingAverage?

    /// A run at its beginning. Takes the memory of its steps. Throws `TrainingError.settings` for settings that don't fit what is
    /// trained, and `BackendError.outOfMemory`.
    public init(
        _ model: Model, _ options: TrainingOptions, training: Model.Examples, validation: Model.Examples?
    ) throws {
        (self.model, self.options, self.training, self.validation) = (model, options, training, validation)
        let additions = options.additions
        if additions.patience != nil, validation == nil {
            throw TrainingError.settings(
                "`patience` counts validations, and there is no validation split; leave it out, or give the data one"
            )
        }
        optimizer = additions.optimizer(options, model.store, on: model.backend)
        optimizer.groups = try ParameterGroups(options, model.store, depth: model.shape.depth)
        gradients = try GradientScaling(model.store, on: model.backend)
        average = try additions.ema.map { try MovingAverage(model.store, decay: $0, on: model.backend) }
        if options.precision == .float16 { state.lossScale = LossScale() }
        let plan = try model.plan(batch: min(options.batchSize, training.count), isForTraining: true)
        targets = try TargetMaker(additions, training, classCount: plan.logits.columns)
        if let validation { try checkTargets(validation) }
    }

    /// The classes' names, where they are known.
    var classNames: [String]? { training.classNames }

    /// What it trains on and what it validates on.
    public var splits: [Model.Examples] { [training, validation].compactMap(\.self) }

    /// Images in a batch: a training set smaller than that is one batch.
    private var batchSize: Int { min(options.batchSize, training.count) }

    /// Images in a step: of one batch, or of several whose gradients are added.
    private var stepSize: Int { min(options.batchSize * (options.additions.accumulate ?? 1), training.count) }

    /// Steps in an epoch.
    public var stepsPerEpoch: Int {
        let count = training.count
        return options.dropLast ? count / stepSize : (count + stepSize - 1) / stepSize
    }

    /// Trains until the end or until `shouldStop` says so after a step. Returns how it ended. `save` is called with the run's state
    /// after every epoch, every `checkpoint-every` steps and at a stop; `isBest` marks the best validation so far.
    ///
    /// Throws `TrainingError.notANumber` before the broken step changes anything, `DatasetError`, and `BackendError`.
    @discardableResult
    public func run(
        onEvent: (TrainingEvent) throws -> Void = { _ in }, save: (_ isBest: Bool) throws -> Void = { _ in },
        shouldStop: () -> Bool = { false }
    ) throws -> TrainingEnd {
        let begin = ContinuousClock.now
        var clock = StepClock()
        defer { model.method.beginReading(model.layers) }
        let schedule = LearningRateSchedule(options, stepsPerEpoch: stepsPerEpoch)
        let stepCount = options.epochs * stepsPerEpoch
        /// Why the run is to end now, if it is.
        func end() -> TrainingEnd? {
            if shouldStop() { return .stopped }
            let limit = options.additions.timeLimit.map { Double($0.seconds) } ?? .infinity
            return begin.secondsPassed >= limit ? .timeLimit : nil
        }
        while state.epoch < options.epochs {
            if patienceIsOver { return .patience }
            let epoch = state.epoch
            let steps = steps(ofEpoch: epoch).dropFirst(state.stepInEpoch)
            training.start(steps.flatMap { $0 }, training: draws)
            clock.start()
            var rate = schedule.learningRate(at: state.step)
            for indices in steps {
                rate = schedule.learningRate(at: state.step)
                let (loss, norm) = try step(indices, rate: rate)
                state.step += 1
                state.stepInEpoch += 1
                state.epochLoss += loss
                clock.add(images: indices.joined().count)
                try onEvent(
                    .step(
                        TrainingProgress(
                            epoch: epoch, step: state.step, stepCount: stepCount, loss: loss,
                            learningRate: rate, gradientNorm: norm, imagesPerSecond: clock.imagesPerSecond,
                            secondsLeft: Double((stepCount - state.step) * stepSize) / clock.imagesPerSecond))
                )
                guard state.stepInEpoch < stepsPerEpoch else { break }
                let end = end()
                if end != nil || options.additions.checkpointEvery.map({ state.step % $0 == 0 }) == true {
                    try save(false)
                }
                if let end { return end }
            }
            try onEvent(.epoch(epoch, loss: state.epochLoss / Double(stepsPerEpoch), learningRate: rate))
            state.epoch += 1
            state.stepInEpoch = 0
            state.epochLoss = 0
            let isBest = try validateIfDue(epoch, onEvent)
            try save(isBest)
            if state.epoch < options.epochs, !patienceIsOver, let end = end() { return end }
        }
        return .epochs
    }

    /// What changes the examples of the steps from this one to the epoch's end.
    var draws: TrainingDraws {
        TrainingDraws(
            seed: options.seed, epoch: state.step / stepsPerEpoch,
            batch: state.step * ((stepSize + batchSize - 1) / batchSize))
    }

    /// Whether there were `patience` validations since the best one.
    private var patienceIsOver: Bool {
        guard let patience = options.additions.patience, let best = state.bestEpoch, validation != nil else {
            return false
        }
        func validations(after epochs: Int) -> Int {
            epochs / options.validateEvery
                + (epochs == options.epochs && epochs % options.validateEvery > 0 ? 1 : 0)
        }
        return validations(after: state.epoch) - validations(after: best + 1) >= patience
    }

    /// Scores the validation split when its turn has come. Without one, the latest state is the best.
    private func validateIfDue(_ epoch: Int, _ onEvent: (TrainingEvent) throws -> Void) throws -> Bool {
        guard let validation else { return true }
        guard (epoch + 1) % options.validateEvery == 0 || epoch + 1 == options.epochs else { return false }
        let result: EvaluationResult
        var unaveraged: EvaluationResult?
        var confusions: [ClassScores.Confusion: Int] = [:]
        do {
            model.method.beginReading(model.layers)
            func score() throws -> EvaluationResult {
                confusions = [:]
                return try evaluate(
                    model, on: validation, batchSize: batchSize, isForTraining: true, scale: targets?.scale
                ) { outputs, batch in
                    guard validation.targetLoss == nil else { return }
                    let classes = outputs.count / batch.count
                    for (row, label) in batch.labels.enumerated() {
                        let scores = outputs[row * classes..<(row + 1) * classes]
                        let predicted = scores.largest(1)[0]
                        confusions[.init(label: Int(label), predicted: predicted), default: 0] += 1
                    }
                }
            }
            if let average {
                unaveraged = try score()
                result = try average.inPlace(score)
            } else {
                result = try score()
            }
        } catch TrainingError.overflow where options.precision != .float16 {
            // float32's range isn't left but by weights that the training has lost.
            throw TrainingError.notANumber(step: state.step, run: "the run's last.safetensors")
        }
        let isBest = state.bestAccuracy.map { result.score > $0 } ?? true
        if isBest {
            state.bestAccuracy = result.score
            state.bestEpoch = epoch
        }
        state.lastAccuracy = result.score
        try onEvent(
            .validation(
                epoch,
                .init(result: result, unaveraged: unaveraged, isBest: isBest, confusions: confusions)))
        return isBest
    }

    /// One step on the next batches, of these images; returns their mean loss and the gradients' norm where that is asked for.
    func step(_ indices: [[Int]], rate: Double) throws -> (loss: Double, norm: Double?) {
        let backend = model.backend
        let count = indices.joined().count
        model.method.beginStep(state.step, seed: options.seed, model.layers)
        var random = Random(options.seed, "dropout", state.step)
        let scales = options.dropPath > 0 ? branchScales(samples: count) : []
        let weight = targets?.weight(of: indices.joined().map { training.label(at: $0) })
        model.store.clearGradients()
        var (sum, first) = (0.0, 0)
        for batch in indices {
            guard let batch = try training.next() else {
                preconditionFailure("an epoch has no batch of \(batch.count) images left")
            }
            let plan = try model.plan(batch: batch.count, isForTraining: true)
            let mode = PassMode(dropoutSeed: random.next(), dropsBranches: options.dropPath > 0)
            model.load(batch, into: plan)
            for (values, tensor) in zip(scales, plan.blocks.flatMap(\.branchScales)) {
                backend.upload(tensor, Array(values[first..<first + batch.count]))
            }
            model.forward(plan, mode)
            if let targets {
                model.loss(plan, targets.kind, targets.values(of: batch, weight: weight))
            } else {
                model.loss(plan)
            }
            let losses = backend.values(plan.losses)
            try backend.checkForFailure()
            sum += losses.reduce(0) { $0 + Double($1) }
            guard sum.isFinite else {
                // Before the first step the learning rate has done nothing yet.
                if state.step == 0 { throw model.overflow(plan, "step 1's logits") }
                throw TrainingError.notANumber(step: state.step + 1, run: "the run's last.safetensors")
            }
            let share = Float(batch.count) / Float(count)
            model.backward(plan, mode, lossScale: (state.lossScale?.factor ?? 1) * share)
            first += batch.count
        }
        guard try unscaledGradientsAreFinite() else { return (sum / Double(count), nil) }
        let norm = try clippedNorm()
        optimizer.step(learningRate: rate, weightDecay: options.weightDecay, onPath: model.trainedNames)
        average?.add()
        return (sum / Double(count), norm)
    }

    /// Divides the gradients by the loss's factor. Returns false when one of them overflowed: the step is left out then. Throws
    /// `TrainingError.notANumber` when they do so without any factor.
    private func unscaledGradientsAreFinite() throws -> Bool {
        guard let scale = state.lossScale else { return true }
        let areFinite = model.backend.values(model.store.gradients).allSatisfy(\.isFinite)
        try model.backend.checkForFailure()
        guard areFinite || scale.factor > 1 else {
            throw TrainingError.notANumber(step: state.step + 1, run: "the run's last.safetensors")
        }
        if areFinite { gradients.multiply(by: 1 / scale.factor) }
        state.lossScale!.update(gradientsAreFinite: areFinite)
        return areFinite
    }

    /// Shortens gradients that are longer than `clip-norm`. Returns their norm before that; nil where nobody asks for it. Throws
    /// `TrainingError.notANumber` for one that is none.
    private func clippedNorm() throws -> Double? {
        guard let limit = options.additions.clipNorm else { return nil }
        let norm = gradients.norm()
        guard norm.isFinite else {
            throw TrainingError.notANumber(step: state.step + 1, run: "the run's last.safetensors")
        }
        // As torch.nn.utils.clip_grad_norm_ does.
        let factor = limit / (norm + 1e-6)
        if factor < 1 { gradients.multiply(by: Float(factor)) }
        return norm
    }

    /// Stochastic depth, per sample: a branch of block l is dropped with probability p · l / (L − 1), and what stays is
    /// scaled by 1 / (1 − p); [samples] for each of the blocks' two branches. Source: timm 0.6.5, `drop_path`.
    private func branchScales(samples: Int) -> [[Float]] {
        var random = Random(options.seed, "drop-path", state.step)
        let depth = model.blocks.count
        return (0..<depth).flatMap { block in
            let keep = 1 - options.dropPath * Double(block) / Double(max(depth - 1, 1))
            return (0..<2).map { _ in
                (0..<samples).map { _ in random.uniform() < keep ? Float(1 / keep) : 0 }
            }
        }
    }

    /// The images of an epoch's steps, batch by batch.
    func steps(ofEpoch epoch: Int) -> [[[Int]]] {
        var random = Random(options.seed, "order", epoch)
        let order: [Int]
        switch options.additions.sampler ?? .shuffle {
        case .shuffle: order = (0..<training.count).shuffled(using: &random)
        case .balanced:
            let byClass = Dictionary(grouping: 0..<training.count) { training.label(at: $0) }
                .sorted { $0.key < $1.key }.map(\.value)
            order = (0..<training.count).map { _ in
                let images = byClass[random.index(below: byClass.count)]
                return images[random.index(below: images.count)]
            }
        }
        return (0..<stepsPerEpoch).map { step in
            let end = min((step + 1) * stepSize, order.count)
            return stride(from: step * stepSize, to: end, by: batchSize).map {
                Array(order[$0..<min($0 + batchSize, end)])
            }
        }
    }

    // MARK: State

    /// Runs `body` with what the training has come to in the tensors' place: the moving average where there is one, and a head that gives
    /// values in their own units.
    func withResult<Result>(_ body: () throws -> Result) throws -> Result {
        func scaled() throws -> Result {
            guard let scale = targets?.scale else { return try body() }
            let store = model.store
            let own = store.unpack(store.values)
            var folded = own
            try scale.fold(into: &folded)
            store.pack(store.values, folded)
            defer { store.pack(store.values, own) }
            return try body()
        }
        return try average?.inPlace(scaled) ?? scaled()
    }

    /// Everything that a resumed run needs: values, moments, step counts, and where the run stands. Throws `BackendError.failed`.
    public func snapshot() throws -> TrainingSnapshot {
        let store = model.store
        var state = state
        state.classWeights = targets?.weights
        state.targetScale = targets?.scale
        state.stepCounts = Dictionary(
            uniqueKeysWithValues: zip(store.segments.map(\.name), optimizer.stepCounts))
        let snapshot = TrainingSnapshot(
            state: state, values: store.unpack(store.values),
            firstMoments: store.unpack(store.firstMoments),
            secondMoments: store.unpack(store.secondMoments),
            averages: average.map { store.unpack($0.values) })
        try model.backend.checkForFailure()
        return snapshot
    }

    /// Goes on from a snapshot. Throws `TrainingError.run` when its tensors aren't this model's or its state isn't this run's.
    public func restore(_ snapshot: TrainingSnapshot) throws {
        try snapshot.state.check(options, stepsPerEpoch: stepsPerEpoch)
        guard snapshot.state.classWeights == targets?.weights else {
            throw TrainingError.run(
                "the class weights of \(options.additions.classWeights ?? "none") are not those that the run was started with; put the "
                    + "file back as it was")
        }
        let store = model.store
        for segment in store.segments {
            let all = [
                snapshot.values, snapshot.firstMoments, snapshot.secondMoments,
                average == nil ? nil : snapshot.averages ?? [:],
            ]
            for tensors in all.compactMap(\.self)
            where tensors[segment.name]?.shape != segment.shape {
                throw TrainingError.run(
                    "the saved state has \(segment.name) as \(tensors[segment.name]?.shape ?? []), "
                        + "this run as \(segment.shape); it belongs to another run")
            }
        }
        store.pack(store.values, snapshot.values)
        store.pack(store.firstMoments, snapshot.firstMoments)
        store.pack(store.secondMoments, snapshot.secondMoments)
        if let average, let averages = snapshot.averages { store.pack(average.values, averages) }
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
