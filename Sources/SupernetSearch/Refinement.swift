import Adapters
import ArchitectureSearch
import Training
import Transformers

/// Short trainings that choose among what a search has found.
///
/// What scores well with a supernet's shared tensors isn't always what trains well alone, and simple paths train well. So the
/// `count` best of the search and the `count` best uniform paths of the budget (one path in every layer) are each trained from
/// the supernet's tensors for `epochs` epochs; the most accurate on the validation images is the result. (Successive halving,
/// Jamieson and Talwalkar 2016, with one round.)
public struct Refinement: Codable, Equatable, Sendable {
    /// Candidates of either kind.
    public var count: Int
    /// Of each training; a tenth of them warms up.
    public var epochs: Int
    /// Of each training.
    public var learningRate: Double

    /// Trainings of these sizes.
    public init(count: Int, epochs: Int, learningRate: Double) {
        (self.count, self.epochs, self.learningRate) = (count, epochs, learningRate)
    }

    /// Trains every candidate of `pool` and calls `onTrained` with its score on `examples`; nil where the loss stopped being a
    /// number. The model's tensors are as they were afterwards. Throws `DatasetError`, `BackendError`, and `CancellationError`
    /// when `shouldStop` says so.
    func train<Model: TrainableModel>(
        _ pool: [Judged], of space: CandidateSpace, _ ready: ReadyModel<Model>, on training: Model.Examples,
        scoring examples: Model.Examples, shouldStop: () -> Bool, onTrained: (Judged) throws -> Void
    ) throws {
        let (model, method) = (ready.model, ready.model.method)
        guard var glora = method as? GLoRA else { preconditionFailure("only GLoRA has candidates") }
        let start = model.store.unpack(model.store.values)
        defer {
            model.store.pack(model.store.values, start)
            model.method = method
        }
        var options = ready.options
        // Of a run's additions these end a training, or judge by a validation that there isn't here.
        (options.additions.timeLimit, options.additions.patience) = (nil, nil)
        (options.epochs, options.warmupEpochs, options.learningRate) = (
            epochs, max(1, epochs / 10), learningRate
        )
        for candidate in pool {
            glora.choice = .fixed(space.paths(candidate.candidate))
            model.method = glora
            model.store.pack(model.store.values, start)
            for moments in [model.store.firstMoments, model.store.secondMoments] {
                model.backend.fill(moments, 0)
            }
            let trainer = try Trainer(model, options, training: training, validation: nil)
            var score: Score?
            do {
                let end = try trainer.run(onEvent: { _ in }, save: { _ in }, shouldStop: shouldStop)
                guard end.isFinished else {
                    throw CancellationError()
                }
                model.method.beginReading(model.layers)
                let result = try evaluate(
                    model, on: examples, batchSize: min(options.batchSize, examples.count),
                    isForTraining: true)
                score = Score(accuracy: result.accuracy, loss: result.loss)
            } catch TrainingError.notANumber {} catch TrainingError.overflow {}
            try onTrained(
                Judged(candidate: candidate.candidate, parameters: candidate.parameters, score: score))
        }
    }
}

extension CandidateSpace {
    /// The candidates of `budget` with one path in every layer, as far as the layers have it.
    func uniformCandidates(in budget: ParameterBudget) -> [Candidate] {
        let most = costs.map(\.count)
        let sizes = (0..<5).map { tensor in
            stride(from: tensor, to: most.count, by: 5).map { most[$0] }.max() ?? 1
        }
        var all: [[Int]] = [[]]
        for size in sizes { all = all.flatMap { head in (0..<size).map { head + [$0] } } }
        return all.map { choice in
            Candidate(genes: most.enumerated().map { $1 == 1 ? 0 : UInt8(choice[$0 % 5]) })
        }.filter { budget.counts.contains(parameterCount($0)) }
    }
}
