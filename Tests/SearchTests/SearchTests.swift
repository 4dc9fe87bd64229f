import Testing

@testable import ArchitectureSearch

@Suite("The searches")
struct SearchTests {
    let problem: Problem
    let budget = ParameterBudget(100...700)

    init() throws { problem = try Problem() }

    private func settings(
        _ algorithm: SearchSettings.Algorithm, population: Int = 20, generations: Int = 6
    ) -> SearchSettings {
        var settings = SearchSettings(algorithm)
        settings.population = population
        settings.generations = generations
        settings.top = 5
        settings.mutations = population / 2
        settings.crossovers = population / 2
        return settings
    }

    private func best(_ judged: [Judged], _ count: Int, by fitness: Fitness) -> [Judged] {
        Array(
            judged.enumerated().sorted {
                $0.element.isBetter(than: $1.element, by: fitness)
                    || !$1.element.isBetter(than: $0.element, by: fitness) && $0.offset < $1.offset
            }.map(\.element).prefix(count))
    }

    @Test(
        "Every search judges as many candidates as it says, each once, all in the budget",
        arguments: SearchSettings.Algorithm.allCases)
    func budgets(_ algorithm: SearchSettings.Algorithm) throws {
        let counted = Problem.Counted(problem)
        let settings = settings(algorithm)
        var generations: [Int] = []
        try search(problem.space, budget, settings, judge: counted.judge) { generations.append($0) }
        #expect(counted.evaluated.count == settings.evaluationCount)
        #expect(Set(counted.evaluated).count == counted.evaluated.count)
        #expect(counted.judge.all.count == counted.evaluated.count)
        #expect(counted.judge.all.allSatisfy { budget.counts.contains($0.parameters) })
        #expect(counted.judge.all.allSatisfy { $0.parameters == problem.space.parameterCount($0.candidate) })
        #expect(generations == Array(0...settings.generations))
    }

    @Test(
        "The searches that learn find better than the control",
        arguments: [SearchSettings.Algorithm.original, .evolution, .nsga2])
    func learns(_ algorithm: SearchSettings.Algorithm) throws {
        func best(_ algorithm: SearchSettings.Algorithm, _ seed: Int) throws -> Double {
            var settings = settings(algorithm, generations: 15)
            settings.seed = seed
            let counted = Problem.Counted(problem)
            try search(problem.space, budget, settings, judge: counted.judge)
            return counted.judge.all.compactMap { $0.score?.accuracy }.max() ?? 0
        }
        for seed in 1...3 {
            let (found, control) = (try best(algorithm, seed), try best(.random, seed))
            #expect(found > control, "seed \(seed)")
        }
    }

    @Test(
        "Giving candidates up early changes neither what is judged nor the best",
        arguments: [SearchSettings.Algorithm.original, .random], Fitness.allCases)
    func givesUp(_ algorithm: SearchSettings.Algorithm, _ fitness: Fitness) throws {
        var settings = settings(algorithm)
        settings.fitness = fitness
        let whole = Problem.Counted(problem, by: fitness)
        let early = Problem.Counted(problem, keeping: settings.kept, by: fitness)
        try search(problem.space, budget, settings, judge: whole.judge)
        try search(problem.space, budget, settings, judge: early.judge)
        #expect(early.judge.all.map(\.candidate) == whole.judge.all.map(\.candidate))
        #expect(early.judge.all.contains { $0.score == nil })
        let kept = try #require(settings.kept)
        #expect(best(early.judge.all, kept, by: fitness) == best(whole.judge.all, kept, by: fitness))
    }

    @Test(
        "A search that was stopped goes on exactly, from any candidate",
        arguments: SearchSettings.Algorithm.allCases)
    func resumes(_ algorithm: SearchSettings.Algorithm) throws {
        let settings = settings(algorithm)
        let whole = Problem.Counted(problem, keeping: settings.kept)
        try search(problem.space, budget, settings, judge: whole.judge)
        for stop in [0, 1, 19, 20, 33, 139] {
            let first = Problem.Counted(problem, keeping: settings.kept, stopAfter: stop)
            #expect(throws: Problem.Stopped.self) {
                try search(problem.space, budget, settings, judge: first.judge)
            }
            #expect(first.judge.all.count == stop)
            let second = Problem.Counted(problem, keeping: settings.kept, known: first.judge.all)
            try search(problem.space, budget, settings, judge: second.judge)
            #expect(second.judge.all == whole.judge.all, "after \(stop)")
            #expect(
                second.judge.recalledCount == stop && first.evaluated + second.evaluated == whole.evaluated)
        }
    }

    @Test(
        "A space of few candidates, and a budget that few fit, end",
        arguments: SearchSettings.Algorithm.allCases)
    func ends(_ algorithm: SearchSettings.Algorithm) throws {
        // Counts 0 to 1: every gene none, or one constant.
        let few = ParameterBudget(0...1)
        let counted = Problem.Counted(problem)
        try search(
            problem.space, few, settings(algorithm, population: 60, generations: 3), judge: counted.judge)
        #expect(!counted.evaluated.isEmpty && Set(counted.evaluated).count == counted.evaluated.count)
        #expect(counted.judge.all.allSatisfy { $0.parameters <= 1 })
    }

    @Test("Another seed judges other candidates")
    func seeds() throws {
        let (one, two) = (Problem.Counted(problem), Problem.Counted(problem))
        try search(problem.space, budget, settings(.original), judge: one.judge)
        var other = settings(.original)
        other.seed = 2
        try search(problem.space, budget, other, judge: two.judge)
        #expect(Set(one.evaluated).isDisjoint(with: two.evaluated))
    }

    @Test("The front is what none beats in accuracy without more parameters")
    func front() throws {
        let judged = (0..<200).map { seed -> Judged in
            let candidate = problem.random(seed)
            return Judged(
                candidate: candidate, parameters: problem.space.parameterCount(candidate) / 50,
                // In fiftieths, so that some are equal.
                score: seed % 9 == 0
                    ? nil : Score(accuracy: (50 * problem.accuracy(candidate)).rounded() / 50, loss: 1))
        }
        let front = paretoFront(judged)
        #expect(front.count > 2)
        for member in front {
            #expect(
                !judged.contains {
                    guard let score = $0.score else { return false }
                    return $0.parameters <= member.parameters && score.accuracy >= member.score!.accuracy
                        && ($0.parameters < member.parameters || score.accuracy > member.score!.accuracy)
                })
        }
        for other in judged where other.score != nil {
            #expect(
                front.contains {
                    $0.parameters <= other.parameters && $0.score!.accuracy >= other.score!.accuracy
                })
        }
    }

    @Test("Of equal accuracies the front takes the fewest parameters, of equal counts the best accuracy")
    func frontOfEquals() {
        let judged = [(3, 0.6), (1, 0.5), (2, 0.5), (3, 0.7), (1, 0.4), (9, 0.7)].map {
            Judged(
                candidate: Candidate(genes: []), parameters: $0.0, score: Score(accuracy: $0.1, loss: 1))
        }
        #expect(paretoFront(judged) == [judged[1], judged[3]])
    }

    @Test("The fitness counts first, then the other measure, then parameters; what was given up is worst")
    func order() {
        func judged(_ accuracy: Double?, _ loss: Double = 1, _ parameters: Int = 1) -> Judged {
            Judged(
                candidate: Candidate(genes: []), parameters: parameters,
                score: accuracy.map { Score(accuracy: $0, loss: loss) })
        }
        let falling = [
            judged(0.9, 5, 9), judged(0.8, 1, 9), judged(0.8, 2, 3), judged(0.8, 2, 4), judged(nil),
        ]
        for (i, a) in falling.enumerated() {
            for (j, b) in falling.enumerated() { #expect(a.isBetter(than: b, by: .accuracy) == (i < j)) }
        }
        let rising = [
            judged(nil), judged(0.9, 5, 9), judged(0.8, 2, 4), judged(0.8, 2, 3), judged(0.8, 1, 9),
            judged(0.9, 1, 9),
        ]
        for (i, a) in rising.enumerated() {
            for (j, b) in rising.enumerated() { #expect(a.isBetter(than: b, by: .loss) == (i > j)) }
        }
    }
}
