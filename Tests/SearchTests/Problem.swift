import Adapters
import ArchitectureSearch
import TensorCore

/// A search problem without a model: layers of made-up widths, and a fitness that each gene adds to.
struct Problem {
    let space: CandidateSpace

    init(blocks: Int = 2) throws {
        let original = try SearchSpace(ranks: [4, 2])
        space = CandidateSpace(
            (0..<4 * blocks).map { index in
                CandidateSpace.Layer(
                    name: "layer \(index)", inputs: 8 + index % 4, outputs: 12 + 5 * (index % 3),
                    hasSupport: index != 3, hasBias: index != 5, space: original)
            })
    }

    /// From 0 to 1: larger for some choices, in 200ths, as of 200 images.
    func accuracy(_ candidate: Candidate) -> Double {
        let sum = candidate.genes.enumerated().reduce(0) { $0 + (7 * Int($1.element) + $1.offset) % 5 }
        return Double(min(200, 200 * sum / (4 * candidate.genes.count))) / 200
    }

    func score(_ candidate: Candidate) -> Score {
        Score(accuracy: accuracy(candidate), loss: 1 - accuracy(candidate))
    }

    func random(_ seed: Int) -> Candidate {
        var random = Random(seed, "test")
        return Candidate(genes: space.costs.map { UInt8(random.index(below: $0.count)) })
    }

    /// A judge that counts its evaluations, and gives candidates up as soon as they can't be among the best.
    final class Counted {
        private(set) var evaluated: [Candidate] = []
        private(set) var judge: Judge!

        init(
            _ problem: Problem, keeping kept: Int? = nil, by fitness: Fitness = .accuracy,
            known: [Judged] = [], stopAfter: Int = .max
        ) {
            judge = Judge(problem.space, keeping: kept, by: fitness, known: known) { group, needed, onScore in
                // In another order than the search's.
                for index in group.indices.reversed() {
                    if self.evaluated.count == stopAfter { throw Stopped() }
                    self.evaluated.append(group[index])
                    let score = problem.score(group[index])
                    try onScore(index, fitness.value(score) < needed() ? nil : score)
                }
            }
        }
    }

    struct Stopped: Error {}
}
