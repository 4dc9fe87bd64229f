import Adapters
import ArchitectureSearch
import Training
import Transformers

/// What each of A to E is worth to what a search has found: the score without it.
public struct Ablation: Codable, Equatable, Sendable {
    /// A score and the parameters it takes.
    public struct Entry: Codable, Equatable, Sendable {
        /// `A` … `E`; empty for what was found itself.
        public var without: String
        /// 0 to 1, on the split that the search scores on.
        public var accuracy: Double
        /// The mean cross-entropy.
        public var loss: Double
        /// On the paths, without the head.
        public var parameters: Int
    }

    /// The found paths, then the same without A, B, C, D or E.
    public var found: [Entry]
    /// The best of the same search, in the same supernet, when no candidate has A, B, C, D or E; empty when not asked for.
    public var searched: [Entry]
}

/// Scores what `directory` holds without each of A to E, and with `searches` repeats its search without them. `onEntry` hears of
/// each entry. Throws `TrainingError.missing` when no search has ended there, and what a search throws.
public func ablate<Model: TrainableModel>(
    _ ready: ReadyModel<Model>, _ directory: SearchDirectory, on examples: Model.Examples, searches: Bool,
    batchSize: Int, onEntry: (_ isSearched: Bool, Ablation.Entry) -> Void
) throws -> Ablation {
    let architecture = try directory.found()
    let configuration = try directory.configuration()
    let model = ready.model
    let paths = try model.layers.map { layer in
        guard let path = architecture.layers[layer.base.name] else {
            throw TrainingError.run("\(directory.architecture.path) has no layer \(layer.base.name)")
        }
        return path
    }
    try PathChoice.check(
        paths, try ready.options.searchSpace(), model.shape, source: directory.architecture.path)
    var ablation = Ablation(found: [], searched: [])
    let tensors = ["A", "B", "C", "D", "E"]
    for tensor in [""] + tensors {
        model.layers.take(paths.map { $0.without(tensor) })
        let result = try evaluate(model, on: examples, batchSize: batchSize)
        let entry = Ablation.Entry(
            without: tensor, accuracy: result.accuracy, loss: result.loss,
            parameters: model.parameterCount)
        ablation.found.append(entry)
        onEntry(false, entry)
    }
    guard searches else { return ablation }
    for tensor in tensors {
        let space = try model.candidateSpace(try ready.options.searchSpace().without(tensor))
        let evaluator = try PathEvaluator(
            model, space, on: examples, reference: ready.paths, batchSize: batchSize, memoryLimit: 0,
            fitness: configuration.settings.fitness)
        let fitness = configuration.settings.fitness
        let judge = Judge(
            space, keeping: configuration.settings.kept, by: fitness, evaluate: evaluator.evaluate)
        try search(
            space, ParameterBudget(configuration.minParameters...configuration.maxParameters),
            configuration.settings, judge: judge)
        guard let best = judge.best, let score = best.score else { continue }
        let entry = Ablation.Entry(
            without: tensor, accuracy: score.accuracy, loss: score.loss, parameters: best.parameters)
        ablation.searched.append(entry)
        onEntry(true, entry)
    }
    return ablation
}
