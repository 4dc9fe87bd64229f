import ArchitectureSearch
import Training

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
/// each entry. Throws `TrainingError.run` when no search has ended there, and what a search throws.
public func ablate(
    _ ready: ReadyModel, _ directory: SearchDirectory, on images: PreparedImages, searches: Bool,
    batchSize: Int, onEntry: (_ isSearched: Bool, Ablation.Entry) -> Void
) throws -> Ablation {
    let architecture = try directory.found()
    let configuration = try directory.configuration()
    let model = ready.model
    let paths = try model.linears.map { linear in
        guard let path = architecture.layers[linear.name] else {
            throw TrainingError.run("\(directory.architecture.path) has no layer \(linear.name)")
        }
        return path
    }
    try PathChoice.check(
        paths, model: model, rank: ready.options.searchSpace().largestRank,
        source: directory.architecture.path)
    var ablation = Ablation(found: [], searched: [])
    let tensors = ["A", "B", "C", "D", "E"]
    for tensor in [""] + tensors {
        let left = paths.map { $0.without(tensor) }
        let result = try evaluate(model, paths: left, on: images, batchSize: batchSize)
        let entry = Ablation.Entry(
            without: tensor, accuracy: result.accuracy, loss: result.loss,
            parameters: model.parameterCount(left))
        ablation.found.append(entry)
        onEntry(false, entry)
    }
    guard searches else { return ablation }
    for tensor in tensors {
        let space = try model.candidateSpace(try ready.options.searchSpace().without(tensor))
        let evaluator = try PathEvaluator(
            model, space, on: images, reference: ready.paths, batchSize: batchSize, memoryLimit: 0,
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
