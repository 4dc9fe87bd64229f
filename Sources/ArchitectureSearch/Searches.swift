import TensorCore

/// A search's settings; the numbers are the original's (ViT-Slim/GLoRA/evolution.py).
public struct SearchSettings: Codable, Equatable, Sendable {
    /// Which search.
    public enum Algorithm: String, Codable, CaseIterable, Sendable {
        /// The original's evolution, to the letter: by accuracy.
        case original
        /// The same steps, by loss.
        case evolution
        /// NSGA-II: accuracy against parameters.
        case nsga2
        /// Candidates drawn alike: the control.
        case random
    }

    /// Which search.
    public var algorithm: Algorithm
    /// Candidates in a generation.
    public var population = 50
    /// Generations after the first candidates.
    public var generations = 20
    /// The best that are kept: the parents of `original` and `evolution`.
    public var top = 10
    /// Mutated candidates in a generation (original, evolution).
    public var mutations = 25
    /// Crossed candidates in a generation (original, evolution).
    public var crossovers = 25
    /// The probability that a gene is drawn again; nil for the algorithm's own, 0.02 (nsga2) or 0.2.
    public var mutationProbability: Double?
    /// What is searched for.
    public var fitness: Fitness
    /// The seed of every draw.
    public var seed = 1

    /// An algorithm with its own fitness, and the original's numbers.
    public init(_ algorithm: Algorithm = .evolution) {
        self.algorithm = algorithm
        fitness = algorithm == .original ? .accuracy : .loss
    }

    /// Throws `BudgetError` for a number that can't be meant, called by its name.
    public func validate() throws {
        for (name, number, least) in [
            ("population", population, 1), ("generations", generations, 0), ("top", top, 1),
            ("mutations", mutations, 0), ("crossovers", crossovers, 0),
        ] where !(least...SearchSettings.largestCount).contains(number) {
            let most = SearchSettings.largestCount
            throw BudgetError(description: "`\(name)` must be from \(least) to \(most), not \(number)")
        }
        if let mutationProbability, !(0...1).contains(mutationProbability) {
            throw BudgetError(
                description: "`mutation-probability` must be from 0 to 1, not \(mutationProbability)")
        }
    }

    /// Of candidates and generations; a search judges them one by one.
    private static let largestCount = 100_000

    /// How many candidates are judged: of the original the last generation, too, although it selects none of those.
    public var evaluationCount: Int { population * (generations + 1) }
    /// How many of the best a candidate must be among to matter; nil where every score counts.
    public var kept: Int? {
        switch algorithm {
        case .original, .evolution: top
        case .nsga2: nil
        case .random: 1
        }
    }
    var probability: Double { mutationProbability ?? (algorithm == .nsga2 ? 0.02 : 0.2) }
}

/// Runs a search: judges `settings.evaluationCount` candidates of the budget, or as many as there are, and calls `onGeneration`
/// after each generation with its number. What it found is in `judge.all`. Throws `BudgetError` and what the judge throws.
public func search(
    _ space: CandidateSpace, _ budget: ParameterBudget, _ settings: SearchSettings, judge: Judge,
    onGeneration: (Int) throws -> Void = { _ in }
) throws {
    let keeper = try BudgetKeeper(space, budget)
    switch settings.algorithm {
    case .original, .evolution:
        var evolution = EvolutionSearch(space, keeper, settings, Random(settings.seed, "search"))
        try evolution.run(judge, onGeneration: { try onGeneration($0) })
    case .nsga2:
        try searchPareto(space, keeper, settings, judge, onGeneration)
    case .random:
        for generation in 0...settings.generations {
            var random = Random(settings.seed, "search", generation)
            let fresh = newCandidates(settings.population, keeper, judge) {
                space.random(using: &random)
            } repair: {
                keeper.repaired($0, using: &random)
            }
            if fresh.isEmpty { return }
            _ = try judge.judge(fresh)
            try onGeneration(generation)
        }
    }
}

/// `count` candidates of the budget that weren't judged yet, fewer when no more are found: each is drawn, repaired when it is
/// outside, and given up after 100 that were all known.
private func newCandidates(
    _ count: Int, _ keeper: BudgetKeeper, _ judge: Judge, draw: () -> Candidate,
    repair: (Candidate) -> Candidate
) -> [Candidate] {
    var fresh: [Candidate] = []
    for _ in 0..<count {
        for _ in 0..<100 {
            let candidate = repair(draw())
            guard !judge.knows(candidate), !fresh.contains(candidate) else { continue }
            fresh.append(candidate)
            break
        }
    }
    return fresh
}

// MARK: The original

/// The original's evolution, to the letter: what it draws, in its order, what it judges and what it keeps.
///
/// Of each generation's candidates the best `top` are kept (fitness alone; of equals the earlier). `mutations` children redraw
/// each gene of a kept parent with a probability, `crossovers` take each gene from one of two; children are drawn ten at a time,
/// and those that were judged before or are outside the budget don't count, in at most ten tries for each child wanted. Random
/// candidates fill the population. The last generation is judged but not selected.
///
/// The original draws random candidates without end when none fits. Here, after 1000 in a row that don't, they are repaired.
/// Source: ViT-Slim/GLoRA/evolution_utils.py.
package struct EvolutionSearch<Source: RandomSource> {
    /// The best `top` so far.
    package private(set) var top: [Judged] = []
    /// Each generation's candidates.
    package private(set) var generations: [[Candidate]] = []
    /// All that were drawn, judged or not.
    package private(set) var seen: Set<Candidate> = []
    /// What it draws from.
    package private(set) var random: Source

    private let space: CandidateSpace
    private let keeper: BudgetKeeper
    private let settings: SearchSettings
    private var taken: Set<Candidate> = []

    /// A search of `space` that draws from `random`.
    package init(
        _ space: CandidateSpace, _ keeper: BudgetKeeper, _ settings: SearchSettings, _ random: Source
    ) {
        (self.space, self.keeper, self.settings, self.random) = (space, keeper, settings, random)
    }

    /// `onSelection` hears of each generation after its selection.
    package mutating func run(_ judge: Judge, onGeneration: (Int) throws -> Void) throws {
        var candidates = fill([])
        var judged = try judge.judge(candidates)
        for generation in 0..<settings.generations {
            generations.append(candidates)
            top = Array((top + judged).sorted(by: settings.fitness).prefix(settings.top))
            try onGeneration(generation)
            // Nothing is drawn from the scores of a generation before its selection, so all of it is judged together.
            let mutated = legal(settings.mutations, tries: 10 * settings.mutations) { $0.mutation() }
            let crossed = legal(settings.crossovers, tries: 10 * settings.crossovers) { $0.crossover() }
            candidates = fill(mutated + crossed)
            judged = try judge.judge(candidates)
        }
        try onGeneration(settings.generations)
    }

    /// Adds random candidates up to the population.
    private mutating func fill(_ candidates: [Candidate]) -> [Candidate] {
        let missing = settings.population - candidates.count
        guard missing > 0 else { return candidates }
        return candidates + legal(missing, tries: nil) { $0.space.random(using: &$0.random) }
    }

    /// Up to `wanted` candidates that are new and in the budget.
    private mutating func legal(
        _ wanted: Int, tries: Int?, draw: (inout Self) -> Candidate
    ) -> [Candidate] {
        var found: [Candidate] = []
        var waiting: ArraySlice<Candidate> = []
        var (tried, failed) = (0, 0)
        while found.count < wanted, tried < tries ?? .max, failed < 2000 {
            if waiting.isEmpty {
                waiting = (0..<10).map { _ in draw(&self) }[...]
                seen.formUnion(waiting)
            }
            var candidate = waiting.removeFirst()
            tried += 1
            failed += 1
            if tries == nil, failed > 1000 { candidate = keeper.repaired(candidate, using: &random) }
            guard !taken.contains(candidate), keeper.contains(candidate) else { continue }
            taken.insert(candidate)
            found.append(candidate)
            failed = 0
        }
        return found
    }

    private mutating func mutation() -> Candidate {
        var child = top[random.index(below: top.count)].candidate
        for gene in child.genes.indices where random.uniform() < settings.probability {
            child.genes[gene] = UInt8(random.index(below: space.costs[gene].count))
        }
        return child
    }

    private mutating func crossover() -> Candidate {
        let first = top[random.index(below: top.count)].candidate
        let second = top[random.index(below: top.count)].candidate
        return Candidate(
            genes: first.genes.indices.map {
                random.index(below: 2) == 0 ? first.genes[$0] : second.genes[$0]
            })
    }
}

extension [Judged] {
    /// The fittest first, equals in their order.
    package func sorted(by fitness: Fitness) -> [Judged] {
        func value(_ judged: Judged) -> Double { judged.score.map(fitness.value) ?? -.infinity }
        return enumerated().sorted {
            let (a, b) = (value($0.element), value($1.element))
            return a != b ? a > b : $0.offset < $1.offset
        }.map(\.element)
    }
}

// MARK: NSGA-II

/// NSGA-II (Deb et al., 2002) on two objectives: the fitness and few parameters.
///
/// Each generation, `population` children of parents that won a tournament of two: layers crossed whole, genes redrawn with a
/// small probability, repaired into the budget. Parents and children together are cut back to `population` by fronts and, in the
/// last front that fits in part, by crowding.
private func searchPareto(
    _ space: CandidateSpace, _ keeper: BudgetKeeper, _ settings: SearchSettings, _ judge: Judge,
    _ onGeneration: (Int) throws -> Void
) throws {
    var parents: [Ranked] = []
    for generation in 0...settings.generations {
        var random = Random(settings.seed, "search", generation)
        let children = newCandidates(settings.population, keeper, judge) {
            guard !parents.isEmpty else { return space.random(using: &random) }
            func winner() -> Candidate {
                let (a, b) = (
                    parents[random.index(below: parents.count)], parents[random.index(below: parents.count)]
                )
                return (b.precedes(a) ? b : a).judged.candidate
            }
            var child = winner()
            let other = winner()
            for layer in space.layers.indices where random.index(below: 2) == 1 {
                child.genes.replaceSubrange(
                    5 * layer..<5 * layer + 5, with: other.genes[5 * layer..<5 * layer + 5])
            }
            for gene in child.genes.indices where random.uniform() < settings.probability {
                child.genes[gene] = UInt8(random.index(below: space.costs[gene].count))
            }
            return child
        } repair: {
            keeper.repaired($0, using: &random)
        }
        if children.isEmpty { return }
        parents = select(
            parents.map(\.judged) + (try judge.judge(children)), settings.population, settings.fitness)
        try onGeneration(generation)
    }
}

/// A member of a population: the number of its front, and how far its neighbours in that front are.
private struct Ranked {
    let judged: Judged
    let front: Int
    let crowding: Double

    func precedes(_ other: Ranked) -> Bool {
        front != other.front ? front < other.front : crowding > other.crowding
    }
}

private func select(_ judged: [Judged], _ count: Int, _ fitness: Fitness) -> [Ranked] {
    var rest = judged
    var selected: [Ranked] = []
    var front = 0
    while selected.count < count, !rest.isEmpty {
        let members = rest.indices.filter { i in !rest.contains { $0.dominates(rest[i], by: fitness) } }
        let ranked = crowded(members.map { rest[$0] }, front, fitness)
        selected += ranked.sorted { $0.crowding > $1.crowding }.prefix(count - selected.count)
        for index in members.reversed() { rest.remove(at: index) }
        front += 1
    }
    return selected
}

/// The members of a front with their crowding distances: along each objective, the gap between the neighbours over the front's
/// range; the ends are infinitely far.
private func crowded(_ members: [Judged], _ front: Int, _ fitness: Fitness) -> [Ranked] {
    var distances = [Double](repeating: 0, count: members.count)
    let objectives: [(Judged) -> Double] = [
        { -($0.score.map(fitness.value) ?? 0) }, { Double($0.parameters) },
    ]
    for value in objectives {
        let order = members.indices.sorted { (value(members[$0]), $0) < (value(members[$1]), $1) }
        let range = value(members[order.last!]) - value(members[order[0]])
        distances[order[0]] = .infinity
        distances[order.last!] = .infinity
        guard range > 0, order.count > 2 else { continue }
        for place in 1..<order.count - 1 {
            distances[order[place]] +=
                (value(members[order[place + 1]]) - value(members[order[place - 1]])) / range
        }
    }
    return zip(members, distances).map { Ranked(judged: $0, front: front, crowding: $1) }
}

extension Judged {
    /// Not worse in fitness and parameters, and better in one.
    fileprivate func dominates(_ other: Judged, by fitness: Fitness) -> Bool {
        guard let mine = score, let theirs = other.score else { return score != nil }
        let (a, b) = (
            (fitness.value(mine), fitness.second(mine)), (fitness.value(theirs), fitness.second(theirs))
        )
        if a < b || parameters > other.parameters { return false }
        return a > b || parameters < other.parameters
    }
}
