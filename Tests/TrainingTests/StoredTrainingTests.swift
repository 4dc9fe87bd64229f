import Adapters
import Foundation
import TensorCore
import TestSupport
import Testing

@testable import Training

/// Training with 16 bits: the factor of the loss, and runs that learn what float32's learn.
@Suite("Training in 16 bits")
struct StoredTrainingTests {
    @Test("The loss's factor is halved by an overflow and doubled after 2,000 steps without one")
    func lossScale() {
        var scale = LossScale()
        #expect(scale.factor == 65536)
        scale.update(gradientsAreFinite: false)
        #expect(scale.factor == 32768)
        for _ in 0..<1999 { scale.update(gradientsAreFinite: true) }
        #expect(scale.factor == 32768)
        scale.update(gradientsAreFinite: true)
        #expect(scale.factor == 65536)
        for _ in 0..<1999 { scale.update(gradientsAreFinite: true) }
        scale.update(gradientsAreFinite: false)
        for _ in 0..<1999 { scale.update(gradientsAreFinite: true) }
        #expect(scale.factor == 32768)
    }

    /// The losses of a run's epochs in each precision, and its last state.
    private func train(
        _ precision: Precision, _ method: MethodName = .glora, epochs: Int = 6
    ) throws -> (losses: [Double], state: TrainingState) {
        try TestDevice.withOpenCL(precision) { backend in
            try TinyTask.withFolder { folder in
                var options = TrainingOptions(method: method, batchSize: 8)
                (options.model, options.data) = ("tiny", "tiny")
                (options.epochs, options.warmupEpochs) = (epochs, 1)
                options.learningRate = options.optimizer == .sgd ? 0.05 : method == .full ? 1e-3 : 1e-2
                if method == .glora { (options.ranks, options.path) = ([4, 2], "full") }
                if [.factTT, .factTK].contains(method) { options.methodSettings.rank = 3 }
                if method == .noah { options.methodSettings.dims = "2:2:3,1:0:2" }
                options.precision = precision
                options.dropPath = 0
                let tuning = try FineTuning(
                    options, checkpoint: try TinyTask.checkpoint(), training: TinyTask.images(48, seed: 1),
                    validation: TinyTask.images(24, seed: 2), in: RunDirectory(folder), on: backend)
                var losses: [Double] = []
                _ = try tuning.run(
                    onEvent: { if case .epoch(_, let loss, _) = $0 { losses.append(loss) } },
                    shouldStop: { false })
                return (losses, tuning.trainer.state)
            }
        }
    }

    @Test("A run in 16 bits learns what one in float32 learns", arguments: [Precision.bfloat16, .float16])
    func learns(precision: Precision) throws {
        let (plain, plainState) = try train(.float32)
        let (losses, state) = try train(precision)
        #expect(plain.count == losses.count && losses.last! < losses.first! / 2)
        for (a, b) in zip(losses, plain) { #expect(abs(a - b) < 0.03 * plain[0], "\(losses) for \(plain)") }
        #expect(plainState.lossScale == nil)
        #expect((state.lossScale != nil) == (precision == .float16))
    }

    @Test(
        "A run of any method in 16 bits has the losses of one in float32",
        arguments: MethodName.allCases.filter { $0 != .glora }, [Precision.bfloat16, .float16])
    func methods(method: MethodName, precision: Precision) throws {
        let (plain, _) = try train(.float32, method, epochs: 4)
        let (losses, _) = try train(precision, method, epochs: 4)
        #expect(plain.count == losses.count && plain.last! < plain.first!)
        for (a, b) in zip(losses, plain) { #expect(abs(a - b) < 0.03 * plain[0], "\(losses) for \(plain)") }
    }
}
