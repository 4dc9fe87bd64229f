import ArchitectureSearch
import Checkpoints
import Foundation
import TensorCore

/// A recorded search, drawn again from its own random numbers: the same candidates in every generation, the same accuracies of the
/// best 50, the same final best.
///
/// Source: ViT-Slim/GLoRA/evolution_utils.py, `EvolutionSearcher`.
func replaySearch(_ content: JSONValue) throws -> Comparison {
    guard let arguments = content["args"], let choices = content["choices"],
        let weights = content["fitness"]?["weights"]
    else { throw GoldenError("a recorded search needs args, choices and fitness.weights") }
    func forms<Form>(_ key: String, _ read: (String) throws -> Form) throws -> [Form] {
        try choices.array(key).map { try read($0.stringValue ?? "") }
    }
    // The original counts on ViT-B/16: 48 layers, and no other (evolution_utils.py, `depth = 48`).
    let (depth, width) = (12, 768)
    let shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    let space = CandidateSpace(
        try (0..<4 * depth).map {
            CandidateSpace.Layer(
                name: "\($0)", inputs: shapes[$0 % 4].0, outputs: shapes[$0 % 4].1,
                a: try forms("A") { try MatrixForm(text: $0) },
                b: try forms("B") { try MatrixForm(text: $0) },
                c: try forms("C") { try PromptForm(text: $0) }, d: try forms("D") { try ScaleForm(text: $0) },
                e: try forms("E") { try ScaleForm(text: $0) })
        })
    var settings = SearchSettings(.original)
    settings.population = try arguments.integer("population_num")
    settings.generations = try arguments.integer("max_epochs")
    settings.top = try arguments.integer("select_num")
    settings.mutations = try arguments.integer("mutation_num")
    settings.crossovers = try arguments.integer("crossover_num")
    settings.mutationProbability = try arguments.number("m_prob")
    let millions = (try arguments.number("min_param_limits"), try arguments.number("param_limits"))
    let keeper = try BudgetKeeper(
        space,
        ParameterBudget(Int((millions.0 * 1e6).rounded(.up))...Int((millions.1 * 1e6).rounded())))

    // Σ over layers i and tensors k: weights[k][choice] · (1 + (i mod 7) / 7).
    let table = try ["A", "B", "C", "D", "E"].map { key in
        try choices.array(key).map { try (weights[key] ?? .null).number($0.stringValue ?? "") }
    }
    func fitness(_ candidate: Candidate) -> Double {
        candidate.genes.indices.reduce(0) {
            $0 + table[$1 % 5][Int(candidate.genes[$1])] * (1 + Double($1 / 5 % 7) / 7)
        }
    }
    let judge = Judge(space, keeping: nil, by: .accuracy) { group, _, onScore in
        for (index, candidate) in group.enumerated() {
            try onScore(index, Score(accuracy: fitness(candidate), loss: 0))
        }
    }
    var search = EvolutionSearch(space, keeper, settings, try RecordedDraws(content.array("draws")))
    try search.run(judge, onGeneration: { _ in })

    var comparison = Comparison()
    comparison.expect(search.random.fault == nil, otherwise: "draws: \(search.random.fault ?? "")")
    comparison.expect(search.random.isUsedUp, otherwise: "draws: some are left")
    let judged = Dictionary(uniqueKeysWithValues: judge.all.map { ($0.candidate, $0) })
    let generations = try content.array("generations")
    let accuracies = try content.array("top_accuracies")
    guard generations.count == search.generations.count, accuracies.count == generations.count else {
        throw GoldenError("\(search.generations.count) generations, the file has \(generations.count)")
    }
    var best: [Judged] = []
    for (number, candidates) in search.generations.enumerated() {
        comparison.expect(
            candidates.map { $0.text } == generations[number].arrayValue?.map { $0.stringValue ?? "" },
            otherwise: "generation \(number): other candidates")
        best = Array((best + candidates.compactMap { judged[$0] }).sorted(by: .accuracy).prefix(50))
        let expected = accuracies[number].arrayValue?.compactMap(\.numberValue) ?? []
        let found = best.compactMap { $0.score?.accuracy }
        comparison.expect(
            found.count == expected.count, otherwise: "generation \(number): \(found.count) best")
        for (a, b) in zip(found, expected) {
            comparison.expect(
                "generation \(number)", "relative error", error: abs(a - b) / abs(b), bound: 1e-12)
        }
    }
    let selected = try content.array("top_select").map { $0.arrayValue ?? [] }
    comparison.expect(
        search.top.map { $0.candidate.text } == selected.map { $0.first?.stringValue ?? "" },
        otherwise: "the final best are others")
    for (found, expected) in zip(search.top, selected) where expected.count == 3 {
        comparison.expect(
            Double(found.parameters) / 1e6 == expected[2].numberValue, otherwise: "other parameter counts")
    }
    comparison.expect(
        judge.all.count == (try content.integer("n_evaluated")),
        otherwise: "\(judge.all.count) candidates were judged")
    comparison.expect(
        search.seen.count == (try content.integer("n_seen")),
        otherwise: "\(search.seen.count) candidates were drawn")
    return comparison
}

/// The draws of a recorded search, in the order of its calls: a string is a run of `random.choice` indices, one digit each; a list of
/// integers n a run of `random.random()` values n / 10⁶.
private struct RecordedDraws: RandomSource {
    /// What was asked for that the recording hasn't.
    private(set) var fault: String?
    /// Whether nothing is left.
    var isUsedUp: Bool { next == draws.count }

    private enum Draw {
        case index(Int)
        case uniform(Double)
    }
    private let draws: [Draw]
    private var next = 0

    init(_ runs: [JSONValue]) throws {
        var draws: [Draw] = []
        for run in runs {
            if let text = run.stringValue {
                for digit in text {
                    guard let value = digit.wholeNumberValue else {
                        throw GoldenError("a choice is no digit")
                    }
                    draws.append(.index(value))
                }
            } else {
                for value in run.arrayValue ?? [] {
                    guard let millionths = value.integerValue else {
                        throw GoldenError("a draw is no integer")
                    }
                    draws.append(.uniform(Double(millionths) / 1e6))
                }
            }
        }
        self.draws = draws
    }

    mutating func index(below bound: Int) -> Int {
        if case .index(let value)? = take(), value < bound { return value }
        fault = fault ?? "draw \(next) is no choice of \(bound)"
        return 0
    }

    mutating func uniform() -> Double {
        if case .uniform(let value)? = take() { return value }
        fault = fault ?? "draw \(next) is no random()"
        return 0
    }

    private mutating func take() -> Draw? {
        guard next < draws.count else { return nil }
        next += 1
        return draws[next - 1]
    }
}
