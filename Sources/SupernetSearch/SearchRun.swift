import Adapters
import ArchitectureSearch
import TensorCore
import Training
import Transformers

/// A search for the best paths of a trained supernet, from its settings to its folder.
public final class SearchRun<Model: TrainableModel> {
    /// What can be found.
    public let space: CandidateSpace
    private let ready: ReadyModel<Model>
    private let saveAdapter: () throws -> Void
    private let directory: SearchDirectory
    private let configuration: SearchDirectory.Configuration
    private var known: [Judged] = []
    private var refinedBefore: [Judged] = []
    private var generationsKnown = 0
    private var secondsKnown = 0.0

    /// A search in the run's folder: a new one, or with `resumes` the one that is there. `saveAdapter` writes the model as its
    /// layers are set into the folder.
    ///
    /// Throws `BudgetError` for a budget that no candidate fits, `TrainingError.run`, `FormError`, `CheckpointError`.
    public init(
        _ ready: ReadyModel<Model>, in directory: SearchDirectory,
        _ configuration: SearchDirectory.Configuration, resumes: Bool,
        saveAdapter: @escaping () throws -> Void
    ) throws {
        guard ready.model.method is GLoRA else {
            throw TrainingError.run(
                "this is a run of \(ready.options.method.rawValue); only a supernet of GLoRA's can be searched"
            )
        }
        guard ready.task == .classes else {
            throw TrainingError.run(
                "this is a run that learns \(ready.task.rawValue); only a supernet that learns classes can be searched"
            )
        }
        (self.ready, self.saveAdapter) = (ready, saveAdapter)
        (self.directory, self.configuration) = (directory, configuration)
        space = try ready.model.candidateSpace(try ready.options.searchSpace())
        _ = try BudgetKeeper(space, budget)
        if resumes {
            (known, refinedBefore, generationsKnown, secondsKnown) = try directory.recall(configuration)
            for judged in known + refinedBefore where space.parameterCount(of: judged) == nil {
                throw TrainingError.run(
                    "\(directory.journal.path) says that \(judged.candidate.text.prefix(200)) has \(judged.parameters) parameters, "
                        + "which is no candidate of this space; remove the folder \(directory.url.path) and search again"
                )
            }
        } else {
            try directory.create(configuration)
        }
    }

    private var budget: ParameterBudget {
        ParameterBudget(configuration.minParameters...configuration.maxParameters)
    }

    /// Searches to the end, writes the folder's files, and scores the best candidate once on `test`. `memoryLimit` bytes may
    /// hold activations that candidates share. Throws `CancellationError` when `shouldStop` says so after a candidate; the
    /// folder then holds what a resumed search needs.
    public func run(
        fitness: Model.Examples, test: Model.Examples?, training: Model.Examples? = nil, batchSize: Int,
        memoryLimit: Int, onGeneration: (SearchDirectory.Generation) -> Void,
        onRefined: (Judged, Int) -> Void = { _, _ in }, shouldStop: @escaping () -> Bool
    ) throws -> (best: Architecture, summary: SearchDirectory.Summary) {
        let start = ContinuousClock.now
        func seconds() -> Double { secondsKnown + start.secondsPassed }
        let evaluator = try PathEvaluator(
            ready.model, space, on: fitness, reference: ready.paths, batchSize: batchSize,
            memoryLimit: memoryLimit, fitness: configuration.settings.fitness)
        let judge = Judge(
            space, keeping: configuration.exhaustive ? nil : configuration.settings.kept,
            by: configuration.settings.fitness, known: known,
            onJudged: { [directory] judged in
                try directory.append(SearchDirectory.Line(judged: judged))
                if shouldStop() { throw CancellationError() }
            }, evaluate: evaluator.evaluate)
        try search(space, budget, configuration.settings, judge: judge) { number in
            guard let best = judge.best else { return }
            let generation = SearchDirectory.Generation(
                number: number, judged: judge.all.count, accuracy: best.score?.accuracy ?? 0,
                parameters: best.parameters, seconds: seconds())
            if number >= generationsKnown {
                try directory.append(SearchDirectory.Line(generation: generation))
            }
            onGeneration(generation)
        }
        guard var best = judge.best else { throw TrainingError.run("no candidate could be scored") }
        var refined: Judged?
        if let refinement = configuration.refinement, let training {
            let pool = try self.pool(refinement.count, judge, evaluator)
            refined = try refine(
                refinement, pool, training, fitness, onRefined: onRefined, shouldStop: shouldStop)
            best = pool.first { $0.candidate == refined?.candidate } ?? best
        }
        let took = seconds()
        let paths = space.paths(best.candidate)
        ready.model.layers.take(paths)
        let result = try test.map {
            try evaluate(ready.model, on: $0, batchSize: min(batchSize, $0.count))
        }
        var architecture = self.architecture(best)
        architecture.refined = refined?.score
        let summary = SearchDirectory.Summary(
            judged: judge.all.count, givenUp: judge.all.count { $0.score == nil },
            blocksRun: Double(evaluator.blocksRun) / Double(max(evaluator.blocksWanted, 1)), seconds: took,
            peakBytes: ResidentMemory.peak, test: result)
        try directory.write(paretoFront(judge.all).map(self.architecture), to: directory.front)
        try saveAdapter()
        try directory.write(summary, to: directory.summary)
        try directory.write(architecture, to: directory.architecture)
        return (architecture, summary)
    }

    /// The best of the search and the best uniform paths, each once.
    private func pool(_ count: Int, _ judge: Judge, _ evaluator: PathEvaluator<Model>) throws -> [Judged] {
        let fitness = configuration.settings.fitness
        var uniform: [Judged] = []
        let group = space.uniformCandidates(in: budget)
        try evaluator.evaluate(group, { -.infinity }) { index, score in
            uniform.append(
                Judged(
                    candidate: group[index], parameters: space.parameterCount(group[index]), score: score))
        }
        let found = Array(judge.all.sorted(by: fitness).prefix(count))
        let known = Set(found.map(\.candidate))
        return found
            + uniform.filter { !known.contains($0.candidate) }.sorted(by: fitness).prefix(count)
    }

    /// Trains the pool, but what an earlier process has trained, and returns the most accurate afterwards; of equals that of lower
    /// loss. Not by loss alone: what has been trained on a few images is as sure of its errors as of the rest, and the lowest
    /// loss is that of what has learned least.
    private func refine(
        _ refinement: Refinement, _ pool: [Judged], _ training: Model.Examples, _ examples: Model.Examples,
        onRefined: (Judged, Int) -> Void, shouldStop: () -> Bool
    ) throws -> Judged? {
        var trained = refinedBefore
        let known = Set(trained.map(\.candidate))
        ready.model.unprepare()
        try refinement.train(
            pool.filter { !known.contains($0.candidate) }, of: space, ready, on: training, scoring: examples,
            shouldStop: shouldStop
        ) { judged in
            trained.append(judged)
            try directory.append(SearchDirectory.Line(refined: judged))
            onRefined(judged, pool.count)
        }
        return trained.reduce(nil) { best, next in
            best.map { next.isBetter(than: $0, by: .accuracy) ? next : $0 } ?? next
        }
    }

    private func architecture(_ judged: Judged) -> Architecture {
        Architecture(
            layers: Dictionary(
                uniqueKeysWithValues: zip(space.layers.map(\.name), space.paths(judged.candidate))),
            parameters: judged.parameters, algorithm: configuration.settings.algorithm.rawValue,
            checkpoint: configuration.checkpoint, fitnessSplit: configuration.fitnessSplit,
            fitness: configuration.settings.fitness, accuracy: judged.score?.accuracy ?? 0,
            loss: judged.score?.loss ?? .infinity)
    }
}

extension TrainableModel {
    /// The candidates that this model has in a space.
    public func candidateSpace(_ space: SearchSpace) throws -> CandidateSpace {
        CandidateSpace(
            layers.map {
                CandidateSpace.Layer(
                    name: $0.base.name, inputs: $0.base.inputs, outputs: $0.base.outputs,
                    hasSupport: $0 is GLoRALinear, hasBias: $0.base.bias != nil, space: space)
            })
    }
}
