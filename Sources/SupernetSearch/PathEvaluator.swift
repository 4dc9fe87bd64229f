import Adapters
import ArchitectureSearch
import TensorCore
import Training
import Transformers

/// Scores many candidates on the same images.
///
/// The images are embedded once, and put in the order of their loss on `reference` paths, largest first: what a candidate gets
/// wrong it gets wrong early, and one that can't be among the best any more is given up soon. The weights of a candidate are built once, and of layers that it shares with the one before not
/// at all. A group is scored in the order of its genes, so that neighbours agree on as many of their first blocks as they can: the
/// residual streams behind those are kept, one level for each block, and the next candidate goes on from there.
public final class PathEvaluator<Model: TrainableModel> {
    /// Passes of a batch through a block.
    public private(set) var blocksRun = 0
    /// Those that a plain loop over all candidates and batches would have made.
    public private(set) var blocksWanted = 0

    private let model: Model
    private let space: CandidateSpace
    private let batches: [(plan: Model.Plan, labels: [Int32])]
    private let exampleCount: Int
    private let fitness: Fitness
    // streams[l][b]: [B, T, D] of batch b as it enters block l, of the candidate whose genes are `genes[l]` up to there.
    private var streams: [[Tensor]]
    private var genes: [ArraySlice<UInt8>?]

    /// Prepares a model's images for the candidates of `space`. `memoryLimit` bytes may be kept for shared blocks; the embedded
    /// images are kept in any case. The parameters mustn't change while this is in use.
    ///
    /// Throws `DatasetError` for an unreadable image, `TrainingError.overflow` where the reference paths' loss is not a finite
    /// number, and `BackendError.outOfMemory`.
    public init(
        _ model: Model, _ space: CandidateSpace, on examples: Model.Examples,
        reference: [GLoRAPath], batchSize: Int, memoryLimit: Int, fitness: Fitness
    ) throws {
        (self.model, self.fitness, self.space) = (model, fitness, space)
        let (backend, count) = (model.backend, examples.count)
        exampleCount = count
        // The largest plan first: plans share their memory.
        _ = try model.plan(batch: min(batchSize, count), isForTraining: false)
        let ranges = stride(from: 0, to: count, by: batchSize).map { $0..<min($0 + batchSize, count) }
        examples.start(ranges.map { Array($0) })
        model.paths = reference
        try model.prepare()
        var (values, labels, losses): ([Float], [Int32], [Float]) = ([], [], [])
        while let batch = try examples.next() {
            let plan = try model.plan(batch: batch.count, isForTraining: false)
            model.load(batch, into: plan)
            model.embed(plan)
            values += backend.values(plan.stream(into: 0))
            model.forward(plan, fromBlock: 0, .evaluation) { _ in }
            model.loss(plan)
            labels += batch.labels
            let batchLosses = backend.values(plan.losses)
            try backend.checkForFailure()
            guard batchLosses.allSatisfy(\.isFinite) else {
                throw model.overflow(plan, "the logits of \(examples.name)")
            }
            losses += batchLosses
        }
        let order = labels.indices.sorted { (-losses[$0], $0) < (-losses[$1], $1) }
        let length = values.count / max(count, 1)
        var embedded: [Tensor] = []
        batches = try ranges.map { range in
            let members = order[range]
            let plan = try model.plan(batch: range.count, isForTraining: false)
            let stream = try backend.allocate(plan.stream(into: 0).shape, .float32)
            backend.upload(stream, members.flatMap { values[length * $0..<length * ($0 + 1)] })
            embedded.append(stream)
            return (plan, members.map { labels[$0] })
        }
        streams = [embedded]
        let levelBytes = embedded.reduce(0) { $0 + $1.byteCount }
        for _ in 1..<max(2, model.blocks.count) where streams.count * levelBytes <= memoryLimit {
            guard let level = try? embedded.map({ try backend.allocate($0.shape, .float32) }) else { break }
            streams.append(level)
        }
        genes = [[]] + [ArraySlice<UInt8>?](repeating: nil, count: streams.count - 1)
    }

    deinit { model.unprepare() }

    /// Scores a group: see `Judge.Evaluate`. Throws `BackendError.outOfMemory`.
    public func evaluate(
        _ group: [Candidate], _ needed: () -> Double, _ onScore: (Int, Score?) throws -> Void
    ) throws {
        let order = group.indices.sorted { group[$0].genes.lexicographicallyPrecedes(group[$1].genes) }
        for (place, index) in order.enumerated() {
            let next = place + 1 < order.count ? group[order[place + 1]] : nil
            try onScore(index, try score(group[index], before: next, needed))
        }
    }

    /// The genes of the blocks below `level`.
    private func prefix(_ candidate: Candidate, _ level: Int) -> ArraySlice<UInt8> {
        candidate.genes[..<(level * candidate.genes.count / model.blocks.count)]
    }

    private func score(
        _ candidate: Candidate, before next: Candidate?, _ needed: () -> Double
    ) throws -> Score? {
        let first = genes.indices.last { genes[$0] == prefix(candidate, $0) } ?? 0
        // Levels that the next candidate can start from.
        let kept = genes.indices.filter { level in
            level > first && next.map { prefix($0, level) == prefix(candidate, level) } ?? false
        }
        for level in kept { genes[level] = nil }
        let paths = space.paths(candidate)
        model.paths = paths
        try model.prepare()
        let (backend, depth) = (model.backend, model.blocks.count)
        var (correct, done, loss) = (0, 0, 0.0)
        blocksWanted += depth * batches.count
        for (number, (plan, labels)) in batches.enumerated() {
            backend.copy(plan.stream(into: first), streams[first][number])
            backend.upload(plan.labels, labels)
            model.forward(plan, fromBlock: first, .evaluation) { level in
                if kept.contains(level) { backend.copy(streams[level][number], plan.stream(into: level)) }
            }
            blocksRun += depth - first
            model.loss(plan)
            let outputs = backend.values(plan.logits)
            let losses = backend.values(plan.losses)
            try backend.checkForFailure()
            correct += model.isRight(outputs, labels: labels).count { $0 }
            loss += losses.reduce(0) { $0 + Double($1) }
            // A candidate that overflows can't be judged; the reference didn't.
            guard loss.isFinite else { return nil }
            done += labels.count
            // What it would score if all that is left were right, and without loss.
            let atBest = Score(
                accuracy: Double(correct + exampleCount - done) / Double(exampleCount),
                loss: loss / Double(exampleCount))
            if done < exampleCount, fitness.value(atBest) < needed() { return nil }
        }
        for level in kept { genes[level] = prefix(candidate, level) }
        return Score(accuracy: Double(correct) / Double(exampleCount), loss: loss / Double(exampleCount))
    }
}
