import Adapters
import ArchitectureSearch
import Foundation
import SupernetSearch
import TensorCore
import TestSupport
import Testing
import Training
import VisionModels

@Suite("The scoring of candidates")
struct PathEvaluatorTests {
    /// A model whose support tensors aren't zero, its space and images.
    private func model(on backend: any Backend) throws -> (VisionTransformer, CandidateSpace, PreparedImages)
    {
        let options = TinyTask.options()
        let checkpoint = try TinyTask.checkpoint()
        let model = try VisionTransformer(
            checkpoint, classCount: 3,
            method: GLoRA(rank: 4), seed: 1, on: backend)
        let values = model.store.unpack(model.store.values)
        model.store.pack(
            model.store.values,
            values.mapValues {
                HostTensor(
                    shape: $0.shape,
                    values: randomValues($0.values.count, seed: $0.values.count).map { $0 / 3 })
            })
        let images = PreparedImages(
            TinyTask.images(21, seed: 5), try checkpoint.configuration.preprocessor)
        return (model, try model.candidateSpace(try options.searchSpace()), images)
    }

    /// Candidates of which many agree on their first block.
    private func group(_ space: CandidateSpace) -> [Candidate] {
        var random = Random(2, "candidates")
        let firsts = (0..<3).map { _ in space.costs.map { UInt8(random.index(below: $0.count)) } }
        return (0..<12).map { index in
            var genes = space.costs.map { UInt8(random.index(below: $0.count)) }
            if index % 2 == 0 { genes.replaceSubrange(0..<20, with: firsts[index % 3][0..<20]) }
            return Candidate(genes: genes)
        }
    }

    @Test(
        "Candidates score what their paths score alone, with shared blocks and without",
        arguments: TestDevice.all,
        [0, 1 << 20])
    func scores(_ device: TestDevice, _ memoryLimit: Int) throws {
        try TinyTask.withRun(on: device) { backend, _ in
            let (model, space, images) = try model(on: backend)
            let candidates = group(space)
            let expected = try candidates.map {
                model.layers.take(space.paths($0))
                return try evaluate(model, on: images, batchSize: 8)
            }
            #expect(Set(expected.map(\.correct)).count > 2)
            let evaluator = try PathEvaluator(
                model, space, on: images, reference: model.layers.uniformPath(.none), batchSize: 8,
                memoryLimit: memoryLimit, fitness: .accuracy)
            for _ in 0..<2 {
                var scores = [Score?](repeating: nil, count: candidates.count)
                try evaluator.evaluate(candidates, { -.infinity }) { scores[$0] = $1 }
                for (score, truth) in zip(scores, expected) {
                    #expect(score?.accuracy == truth.accuracy)
                    #expect(abs(try #require(score).loss - truth.loss) < 1e-5)
                }
            }
            #expect(evaluator.blocksWanted == 2 * 12 * 3 * 2)
            #expect((evaluator.blocksRun < evaluator.blocksWanted) == (memoryLimit > 0))
        }
    }

    @Test(
        "A candidate is given up exactly when it can't reach what is needed, and soon",
        arguments: TestDevice.all, Fitness.allCases)
    func givesUp(_ device: TestDevice, _ fitness: Fitness) throws {
        try TinyTask.withRun(on: device) { backend, _ in
            let (model, space, images) = try model(on: backend)
            let candidates = group(space)
            let expected = try candidates.map {
                model.layers.take(space.paths($0))
                return try evaluate(model, on: images, batchSize: 4)
            }
            func value(_ result: EvaluationResult) -> Double {
                fitness.value(Score(accuracy: result.accuracy, loss: result.loss))
            }
            // A little below one of them: their losses agree to rounding only.
            let needed = expected.map(value).sorted()[candidates.count / 2] - 1e-5
            let evaluator = try PathEvaluator(
                model, space, on: images, reference: model.layers.uniformPath(.none), batchSize: 4,
                memoryLimit: 1 << 20, fitness: fitness)
            var scores = [Score?](repeating: nil, count: candidates.count)
            try evaluator.evaluate(candidates, { needed }) { scores[$0] = $1 }
            for (score, truth) in zip(scores, expected) {
                // What reaches it is scored whole; what doesn't may only be found out on the last image.
                if value(truth) >= needed + 1e-5 { #expect(score?.accuracy == truth.accuracy) }
                if let score { #expect(score.accuracy == truth.accuracy) }
            }
            #expect(scores.contains { $0 == nil })
            #expect(evaluator.blocksRun < 2 * candidates.count * 6)
        }
    }
}
