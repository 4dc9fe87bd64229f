/// How many parameters a search's result may have, ends included.
public struct ParameterBudget: Sendable, Equatable {
    /// The smallest and the largest count.
    public let counts: ClosedRange<Int>

    /// A budget of these counts.
    public init(_ counts: ClosedRange<Int>) { self.counts = counts }
}

/// A budget that no candidate fits.
public struct BudgetError: Error, CustomStringConvertible {
    /// What would fit.
    public let description: String
}

/// Makes candidates that are in a budget, whatever it is.
///
/// A candidate outside is walked in by changing random genes, each time to a dearer or a cheaper choice. Where that walk ends
/// beside the budget (only sums that few combinations have are in it), genes are drawn in order among the choices that leave a
/// possible rest: reachable[g] holds the counts that genes g… can add up to, a bit for each count.
package struct BudgetKeeper {
    private let space: CandidateSpace
    package let counts: ClosedRange<Int>
    private let reachable: [Bits]

    /// Throws `BudgetError` when no candidate of `space` is in the budget.
    package init(_ space: CandidateSpace, _ budget: ParameterBudget) throws {
        self.space = space
        let possible = space.parameterCounts
        guard budget.counts.overlaps(possible) else {
            throw BudgetError(
                description: "no candidate has \(budget.counts.lowerBound) to \(budget.counts.upperBound) "
                    + "parameters: the smallest has \(possible.lowerBound), the largest \(possible.upperBound)"
            )
        }
        counts = budget.counts.clamped(to: possible)
        var suffixes = [Bits(count: counts.upperBound + 1)]
        suffixes[0].insert(0)
        for costs in space.costs.reversed() {
            var sums = Bits(count: counts.upperBound + 1)
            for cost in Set(costs) { sums.formUnion(suffixes.last!, shiftedBy: cost) }
            suffixes.append(sums)
        }
        reachable = suffixes.reversed()
        guard reachable[0].hasMember(in: counts) else {
            throw BudgetError(
                description:
                    "no candidate has \(counts.lowerBound) to \(counts.upperBound) parameters, although "
                    + "the smallest has \(possible.lowerBound) and the largest \(possible.upperBound); "
                    + "widen the budget")
        }
    }

    func contains(_ candidate: Candidate) -> Bool { counts.contains(space.parameterCount(candidate)) }

    /// The candidate itself when it is in the budget, else one near it that is.
    func repaired(_ candidate: Candidate, using random: inout some RandomSource) -> Candidate {
        var candidate = candidate
        var count = space.parameterCount(candidate)
        // A step for each gene is plenty when there is a way at all.
        for _ in 0..<4 * candidate.genes.count where !counts.contains(count) {
            let gene = random.index(below: candidate.genes.count)
            let (costs, old) = (space.costs[gene], space.costs[gene][Int(candidate.genes[gene])])
            let better = costs.indices.filter { choice in
                let sum = count - old + costs[choice]
                return count > counts.upperBound
                    ? costs[choice] < old : costs[choice] > old && sum <= counts.upperBound
            }
            guard !better.isEmpty else { continue }
            let choice = better[random.index(below: better.count)]
            candidate.genes[gene] = UInt8(choice)
            count += costs[choice] - old
        }
        return counts.contains(count) ? candidate : drawn(near: candidate, using: &random)
    }

    /// A candidate in the budget that keeps the genes of another as long as there is a way on.
    private func drawn(near candidate: Candidate, using random: inout some RandomSource) -> Candidate {
        var genes: [UInt8] = []
        var sum = 0
        for (gene, costs) in space.costs.enumerated() {
            let open = costs.indices.filter { choice in
                let upper = counts.upperBound - sum - costs[choice]
                guard upper >= 0 else { return false }
                return reachable[gene + 1].hasMember(
                    in: max(0, counts.lowerBound - sum - costs[choice])...upper)
            }
            let own = Int(candidate.genes[gene])
            let choice = open.contains(own) ? own : open[random.index(below: open.count)]
            genes.append(UInt8(choice))
            sum += costs[choice]
        }
        return Candidate(genes: genes)
    }
}

/// A set of integers 0..<count, 64 to a word.
private struct Bits {
    private var words: [UInt64]

    init(count: Int) { words = [UInt64](repeating: 0, count: (count + 63) / 64) }

    mutating func insert(_ member: Int) { words[member / 64] |= 1 << UInt64(member % 64) }

    /// Adds the members of `other`, each larger by `shift`; what passes the end is lost.
    mutating func formUnion(_ other: Bits, shiftedBy shift: Int) {
        let (whole, part) = (shift / 64, UInt64(shift % 64))
        guard whole < words.count else { return }
        for index in whole..<words.count {
            var word = other.words[index - whole] << part
            if part > 0, index > whole { word |= other.words[index - whole - 1] >> (64 - part) }
            words[index] |= word
        }
    }

    func hasMember(in range: ClosedRange<Int>) -> Bool {
        let (first, last) = (range.lowerBound / 64, min(range.upperBound / 64, words.count - 1))
        guard first <= last else { return false }
        for index in first...last {
            var word = words[index]
            if index == range.lowerBound / 64 { word &= ~0 << UInt64(range.lowerBound % 64) }
            if index == range.upperBound / 64 { word &= ~0 >> UInt64(63 - range.upperBound % 64) }
            if word != 0 { return true }
        }
        return false
    }
}
