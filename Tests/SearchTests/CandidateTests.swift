import Adapters
import TensorCore
import Testing

@testable import ArchitectureSearch

@Suite("Candidates and their genes")
struct CandidateTests {
    let problem: Problem

    init() throws { problem = try Problem() }

    @Test("A candidate's paths count what the original counts, and make the candidate again")
    func paths() throws {
        for seed in 0..<50 {
            let candidate = problem.random(seed)
            let paths = problem.space.paths(candidate)
            let count = zip(problem.space.layers, paths).reduce(0) {
                $0 + $1.1.parameterCount(inputs: $1.0.inputs, outputs: $1.0.outputs)
            }
            #expect(problem.space.parameterCount(candidate) == count)
            #expect(problem.space.candidate(paths) == candidate)
            #expect(Candidate(text: candidate.text) == candidate)
        }
        #expect(Candidate(text: "01-") == nil)
        let full = problem.space.layers.map { _ in GLoRAPath.full(rank: 8) }
        #expect(problem.space.candidate(full) == nil)
    }

    @Test("A layer without support tensors takes nothing, one without a bias no C, D and E")
    func restricted() {
        for seed in 0..<50 {
            let paths = problem.space.paths(problem.random(seed))
            #expect(paths[3] == .none && !paths[5].changesBias)
        }
    }

    @Test("Repaired candidates are in the budget, whatever it is; those that were in it stay")
    func repairs() throws {
        let possible = problem.space.parameterCounts
        #expect(possible.lowerBound == 0)
        var random = Random(1, "repair")
        // A wide budget, narrow ones at both ends, and single counts that only few candidates have.
        let some = problem.space.parameterCount(problem.random(3))
        let budgets = [
            300...500, 0...3, possible.upperBound - 2...possible.upperBound + 99, some...some, 1...1, 0...0,
        ]
        for budget in budgets {
            let keeper = try BudgetKeeper(problem.space, ParameterBudget(budget))
            for seed in 0..<100 {
                let candidate = problem.random(seed)
                let repaired = keeper.repaired(candidate, using: &random)
                #expect(budget.contains(problem.space.parameterCount(repaired)), "\(budget)")
                if budget.contains(problem.space.parameterCount(candidate)) { #expect(repaired == candidate) }
            }
        }
    }

    @Test("Counts are reachable exactly when some candidate has them")
    func reachable() throws {
        // One block without its second half: few enough sums to list.
        let layers = Array(try Problem(blocks: 1).space.layers.prefix(2))
        let space = CandidateSpace(layers)
        var sums: Set<Int> = [0]
        for costs in space.costs { sums = Set(sums.flatMap { sum in costs.map { sum + $0 } }) }
        for count in 0...space.parameterCounts.upperBound + 70 {
            let isPossible = (try? BudgetKeeper(space, ParameterBudget(count...count))) != nil
            #expect(isPossible == sums.contains(count), "\(count)")
        }
    }

    @Test("A budget that nothing fits is an error that names the smallest and the largest count")
    func infeasible() throws {
        let largest = problem.space.parameterCounts.upperBound
        do {
            _ = try BudgetKeeper(problem.space, ParameterBudget(largest + 1...largest + 9))
            Issue.record("no error")
        } catch let error as BudgetError {
            #expect(error.description.contains("smallest has 0, the largest \(largest)"))
        }
    }
}
