/// What a candidate scores on the images that a search judges by.
public struct Score: Codable, Equatable, Sendable {
    /// 0 to 1.
    public var accuracy: Double
    /// The mean cross-entropy.
    public var loss: Double

    /// A score of these figures.
    public init(accuracy: Double, loss: Double) {
        (self.accuracy, self.loss) = (accuracy, loss)
    }
}

/// What a search wants.
public enum Fitness: String, Codable, CaseIterable, Sendable {
    /// High accuracy; of equals, low loss. The original's.
    case accuracy
    /// Low loss; of equals, high accuracy. On 200 images accuracy comes in steps of half a percent, and the best of a thousand
    /// candidates is the luckiest; the loss is smoother.
    case loss

    /// The larger, the better.
    public func value(_ score: Score) -> Double { self == .accuracy ? score.accuracy : -score.loss }

    /// The tie-breaker; larger is better.
    func second(_ score: Score) -> Double { self == .accuracy ? -score.loss : score.accuracy }
}

/// A candidate with what is known of it.
public struct Judged: Codable, Equatable, Sendable {
    /// The candidate.
    public let candidate: Candidate
    /// The parameters on its paths.
    public let parameters: Int
    /// Nil when the evaluation was given up: the candidate can't be among the best that the search keeps.
    public let score: Score?

    /// A candidate and its score.
    public init(candidate: Candidate, parameters: Int, score: Score?) {
        (self.candidate, self.parameters, self.score) = (candidate, parameters, score)
    }

    /// The fitter is better, of equals that with fewer parameters; what was given up is worst.
    public func isBetter(than other: Judged, by fitness: Fitness) -> Bool {
        guard let mine = score else { return false }
        guard let theirs = other.score else { return true }
        let (a, b) = (fitness.value(mine), fitness.value(theirs))
        if a != b { return a > b }
        let (c, d) = (fitness.second(mine), fitness.second(theirs))
        return c != d ? c > d : parameters < other.parameters
    }
}

/// Judges the candidates of a search: each once, whatever the search asks, and gives up those that can't be among the best.
///
/// A search draws from (seed, purpose, index) alone, so the order in which it asks is fixed; told the scores that a killed
/// search had got, it goes on exactly where that one was.
public final class Judge {
    /// Scores every candidate of a group, in whatever order is cheapest but always the same, and calls `onScore` after each with
    /// its index. It may give one up (nil) once its fitness can't reach `needed()` any more.
    public typealias Evaluate = (
        _ group: [Candidate], _ needed: () -> Double, _ onScore: (Int, Score?) throws -> Void
    ) throws -> Void

    /// All that was judged, in the order of judgement.
    public private(set) var all: [Judged] = []
    /// How many scores were taken from an earlier run of the same search.
    public private(set) var recalledCount = 0

    /// What the search wants.
    public let fitness: Fitness

    private let space: CandidateSpace
    private let evaluate: Evaluate
    private let kept: Int?
    private var known: [Candidate: (place: Int, judged: Judged)]
    private var judged: [Candidate: Judged] = [:]
    private var bestValues: [Double] = []  // of at most `kept`, falling
    private let onJudged: (Judged) throws -> Void

    /// A judge for a search that keeps the best `kept` of all it has seen (nil: one that needs every score). `known` are scores
    /// that an earlier run of this search has got; `onJudged` hears of every new one.
    public init(
        _ space: CandidateSpace, keeping kept: Int?, by fitness: Fitness, known: [Judged] = [],
        onJudged: @escaping (Judged) throws -> Void = { _ in }, evaluate: @escaping Evaluate
    ) {
        (self.space, self.kept, self.fitness) = (space, kept, fitness)
        self.known = Dictionary(known.enumerated().map { ($1.candidate, ($0, $1)) }) { first, _ in first }
        (self.onJudged, self.evaluate) = (onJudged, evaluate)
    }

    /// Whether a candidate has been judged.
    func knows(_ candidate: Candidate) -> Bool { judged[candidate] != nil }

    /// The candidates with their scores, in their order. Throws what the evaluation throws.
    func judge(_ group: [Candidate]) throws -> [Judged] {
        var new: [Candidate] = []
        var recalled: [(place: Int, judged: Judged)] = []
        for candidate in group where judged[candidate] == nil && !new.contains(candidate) {
            if let earlier = known.removeValue(forKey: candidate) {
                recalled.append(earlier)
            } else {
                new.append(candidate)
            }
        }
        // In the order in which they were judged: of equals the first is the best.
        for earlier in recalled.sorted(by: { $0.place < $1.place }) { note(earlier.judged) }
        recalledCount += recalled.count
        if !new.isEmpty {
            try evaluate(new, { self.needed }) { index, score in
                let result = Judged(
                    candidate: new[index], parameters: space.parameterCount(new[index]), score: score)
                note(result)
                try onJudged(result)
            }
        }
        return group.map { candidate in
            guard let result = judged[candidate] else { preconditionFailure("a candidate was left out") }
            return result
        }
    }

    /// The fitness without which a candidate is not among the best.
    private var needed: Double {
        guard let kept, bestValues.count == kept else { return -.infinity }
        return bestValues[kept - 1]
    }

    /// The best of all; of equals the first.
    public var best: Judged? {
        all.reduce(nil) { best, next in
            best.map { next.isBetter(than: $0, by: fitness) ? next : $0 } ?? next
        }
    }

    private func note(_ result: Judged) {
        judged[result.candidate] = result
        all.append(result)
        guard let kept, let value = result.score.map(fitness.value) else { return }
        bestValues.insert(value, at: bestValues.firstIndex { $0 < value } ?? bestValues.count)
        if bestValues.count > kept { bestValues.removeLast() }
    }
}

/// The candidates that no other beats in accuracy without more parameters: rising in both. Of equals the first.
public func paretoFront(_ judged: [Judged]) -> [Judged] {
    var front: [Judged] = []
    let scored = judged.enumerated().filter { $0.element.score != nil }
    for (_, next) in scored.sorted(by: {
        ($0.element.parameters, -$0.element.score!.accuracy, $0.element.score!.loss, $0.offset)
            < ($1.element.parameters, -$1.element.score!.accuracy, $1.element.score!.loss, $1.offset)
    }) where next.score!.accuracy > front.last?.score?.accuracy ?? -.infinity {
        front.append(next)
    }
    return front
}
