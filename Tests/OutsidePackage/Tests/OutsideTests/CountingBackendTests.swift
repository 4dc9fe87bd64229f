import SwiftGLoRA
import Testing

@Suite("A backend of somebody else's")
struct CountingBackendTests {
    /// Twelve steps of a supernet, and what is left of them.
    struct Training {
        let losses: [Double]
        /// Every trained number, and the model's outputs on its path.
        let values, outputs: [Float]
        /// Of a counting backend, before the outputs.
        let counts: [String: Int]

        init(on backend: any Backend) throws {
            let method = GLoRA(rank: 4, .supernet(try SearchSpace(), .original))
            let model = try QueryBiasTests.model(backend, method)
            let counting = backend as? any CountingBackend
            counting?.counts = [:]
            var options = TrainingOptions()
            (options.epochs, options.warmupEpochs, options.batchSize, options.learningRate) = (3, 1, 8, 2e-3)
            let images = try QueryBiasTests.images(32, for: model)
            var losses: [Double] = []
            try Trainer(model, options, training: images, validation: nil).run(onEvent: {
                if case .step(let progress) = $0 { losses.append(progress.loss) }
            })
            (self.losses, values) = (losses, backend.values(model.store.values))
            counts = counting?.counts ?? [:]
            var outputs: [Float] = []
            _ = try evaluate(model, on: images, batchSize: 8) { scores, _ in outputs += scores }
            self.outputs = outputs
        }
    }

    /// What one step calls with lowRank A, B and C in all layers, but for the optimizer's.
    static func countsOfStep(on backend: any CountingBackend) throws -> [String: Int] {
        let model = try QueryBiasTests.model(backend, GLoRA(rank: 4))
        model.layers.take(model.layers.uniformPath(.full(rank: 4)))
        let plan = try model.plan(batch: 4, isForTraining: true)
        let images = try QueryBiasTests.images(4, for: model)
        images.start([[0, 1, 2, 3]])
        model.load(try #require(try images.next()), into: plan)
        backend.counts = [:]
        model.forward(plan)
        model.loss(plan)
        model.backward(plan)
        return backend.counts
    }

    /// Of two blocks, whose last one goes on with the class token alone:
    static let everyStep = [
        "extractPatches": 1, "embedTokens": 1, "softmaxCrossEntropy": 1,
        // Two a block, and the last one. Backward all but the first, below which nothing is trained.
        "layerNorm": 5, "layerNormBackward": 4,
        "attention": 2, "attentionBackward": 2, "residualAdd": 4,
        // The token that goes on behind the last attention.
        "poolTokens": 1, "poolTokensBackward": 1,
        // GELU comes with its Linear; the backward computes it once more, as the policy `balanced` says.
        "activate": 2, "activateBackward": 2,
        // Four Linears a block.
        "gloraBias": 8, "gloraBiasBackward": 8, "gloraWeightBackward": 8,
        // Σ dy of those and of the head's bias.
        "sumRows": 9,
    ]

    @Test("trains a supernet to the bits of the backend that computes for it")
    func bits() throws {
        let expected = try Training(on: CPUBackend())
        let training = try Training(on: WholeBackend(CPUBackend()))
        #expect(training.losses.count == 12 && training.losses == expected.losses)
        #expect(training.values.map(\.bitPattern) == expected.values.map(\.bitPattern))
        #expect(training.outputs.count == 64)
        #expect(training.outputs.map(\.bitPattern) == expected.outputs.map(\.bitPattern))
        // A block's attention forward and backward in each step; ten Linears with the patches' and the head.
        let counts = training.counts
        #expect(counts["attention"] == 12 * 2 && counts["attentionBackward"] == 12 * 2)
        #expect(counts["linear"] == 12 * 10 && counts["adamW"] == 12)
    }

    @Test("is asked by a step for what the model is made of, and for nothing else")
    func step() throws {
        let counts = try CountingBackendTests.countsOfStep(on: WholeBackend(CPUBackend()))
        var expected = CountingBackendTests.everyStep
        // Four Linears a block, the patches' and the head. Backward all but the patches' and the first, whose inputs need no
        // gradient; the head's weight gets its own by a product.
        (expected["linear"], expected["linearBackward"], expected["matmul"]) = (10, 8, 1)
        #expect(counts == expected)
    }

    @Test("may leave out the Linears and trains to the same losses but for rounding")
    func small() throws {
        let expected = try Training(on: CPUBackend())
        let training = try Training(on: SmallBackend(CPUBackend()))
        #expect(training.losses.count == 12 && training.outputs.count == 64)
        for (loss, other) in zip(training.losses, expected.losses) { #expect(abs(loss - other) <= 1e-5) }
        for (output, other) in zip(training.outputs, expected.outputs) {
            #expect(abs(output - other) <= 1e-4)
        }
        #expect(training.counts["linear"] == nil)
    }

    @Test("gets products and GLoRA's weights instead of the Linears that it leaves out")
    func smallStep() throws {
        let counts = try CountingBackendTests.countsOfStep(on: SmallBackend(CPUBackend()))
        var expected = CountingBackendTests.everyStep
        // A product and its epilogue for ten Linears; eight more products backward, and the head's weight gradient.
        (expected["matmul"], expected["finish"]) = (10 + 8 + 1, 10)
        // W of the blocks' eight, and of seven once more backward.
        expected["gloraWeight"] = 8 + 7
        #expect(counts == expected)
    }
}
