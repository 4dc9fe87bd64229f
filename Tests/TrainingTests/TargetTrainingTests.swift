import CPUBackend
import Datasets
import Foundation
import TensorCore
import TestSupport
import Testing

@testable import Training

/// Heads that learn labels or values, against PyTorch and scikit-learn (`Fixtures/make_fixtures.py`).
@Suite("Labels and values are learnt and judged as PyTorch and scikit-learn have it")
struct TargetTrainingTests {
    struct Fixture: Decodable {
        struct Run: Decodable {
            let losses, weight, bias: [Double]  // [50], [24], [3]
            let outputs: [Double]?  // [24 * 3], of values in their own units
            let score: Double?
        }
        let runs: [String: Run]
    }

    private func fixture(_ name: String) throws -> Fixture.Run {
        let url = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("Fixtures/training.json")
        return try #require(
            try JSONDecoder().decode(Fixture.self, from: Data(contentsOf: url)).runs[name])
    }

    private func options(_ task: LearningTask, _ batch: Int = 24) -> TrainingOptions {
        TrainingAdditionTests.options {
            ($0.additions.task, $0.path) = (task, "full")
            ($0.batchSize, $0.additions.accumulate) = (batch, 24 / batch)
        }
    }

    static let tasks: [(LearningTask, TargetLoss)] = [(.labels, .sigmoid), (.values, .squared)]

    @Test(
        "50 steps have PyTorch's losses, and what they come to its outputs and scikit-learn's score",
        arguments: TestDevice.all, tasks)
    func steps(device: TestDevice, what: (task: LearningTask, loss: TargetLoss)) throws {
        let expected = try fixture(what.task.rawValue)
        for batch in [24, 6] {
            try device.withBackend { backend in
                let examples = Vectors(24, what.loss)
                let trainer = try Trainer(
                    try SoftmaxRegression(on: backend), options(what.task, batch), training: examples,
                    validation: examples)
                var (losses, validations): ([Double], [TrainingEvent.Validation]) = ([], [])
                try trainer.run(onEvent: {
                    if case .step(let progress) = $0 { losses.append(progress.loss) }
                    if case .validation(_, let validation) = $0 { validations.append(validation) }
                })
                expectClose(losses.map { Float($0) }, expected.losses, "losses of \(what.task)")
                let snapshot = try trainer.snapshot()
                expectClose(snapshot.values["head.weight"]!.values, expected.weight, "weight", limit: 1e-9)
                expectClose(snapshot.values["head.bias"]!.values, expected.bias, "bias", limit: 1e-9)
                let last = try #require(validations.last)
                #expect(abs(last.result.score - (try #require(expected.score))) < 1e-5)
                #expect(last.confusions.isEmpty && snapshot.state.lastAccuracy == last.result.score)
                // In their own units, as an adapter and a merged model have them; afterwards the training's again.
                let outputs = try trainer.withResult {
                    var all: [Float] = []
                    let result = try evaluate(trainer.model, on: examples, batchSize: 24) { some, _ in
                        all += some
                    }
                    #expect(abs(result.score - last.result.score) < 1e-5)
                    return all
                }
                expectClose(outputs, try #require(expected.outputs), "outputs", limit: 1e-8)
                #expect(try trainer.snapshot() == snapshot)
                // What goes on from a state scales values as it did.
                let again = try Trainer(
                    try SoftmaxRegression(on: backend), options(what.task, batch), training: examples,
                    validation: examples)
                try again.restore(snapshot)
                #expect(try again.snapshot() == snapshot)
                #expect((snapshot.state.targetScale != nil) == (what.task == .values))
            }
        }
    }

    @Test("Values that are all equal are learnt as they are, and the saved scale has to fit the head")
    func scale() throws {
        let scale = TargetScale([[5, 1], [5, 3]])
        #expect(scale.means == [5, 2] && scale.deviations == [1, 1])
        #expect(scale.standardised([5, 3]) == [0, 1] && TargetScale([[2], [8]]).deviations == [3])
        var tensors = [
            "head.weight": HostTensor(shape: [1, 1], values: [1]),
            "head.bias": HostTensor(shape: [1], values: [0]),
        ]
        #expect(throws: TrainingError.self) { try scale.fold(into: &tensors) }
    }

    @Test("What can't be scored is refused before anything is trained")
    func refusals() throws {
        let backend = try CPUBackend()
        for (task, loss, words) in [
            (LearningTask.labels, TargetLoss.sigmoid, "no image of one has a label"),
            (.values, .squared, "one has one image, and R² needs two"),
        ] {
            let error = try #require(throws: TrainingError.self) {
                _ = try Trainer(
                    try SoftmaxRegression(on: backend), options(task), training: Vectors(24, loss),
                    validation: Vectors(1, loss, name: "one", hasLabels: false))
            }
            #expect("\(error)".contains(words), "\(error)")
        }
    }

    static let ofClasses: [(String, @Sendable (inout TrainingOptions) -> Void)] = [
        ("label-smoothing", { $0.additions.labelSmoothing = 0.1 }),
        ("class-weights", { $0.additions.classWeights = "balanced" }),
        ("sampler balanced", { $0.additions.sampler = .balanced }),
        ("mixup", { $0.additions.augment = "light,mixup=0.2" }), ("supernet", { $0.path = "supernet" }),
    ]

    @Test("Settings of classes are refused with another task", arguments: ofClasses)
    func settings(_ word: String, _ change: @Sendable (inout TrainingOptions) -> Void) throws {
        for task in [LearningTask.labels, .values, .classes] {
            var options = options(task)
            try options.validate()
            change(&options)
            if task == .classes {
                try options.validate()
            } else {
                let error = try #require(throws: TrainingError.self) { try options.validate() }
                #expect("\(error)".contains(word) && "\(error)".contains("`task \(task.rawValue)`"))
            }
        }
    }

    @Test("A score that no model can have is no run's state")
    func impossibleScores() throws {
        for (task, possible, impossible) in [
            (LearningTask.labels, 0.5, -0.5), (.values, -3, 1.5), (.classes, 1, 2),
        ] {
            var state = TrainingState()
            state.lastAccuracy = possible
            try state.check(options(task), stepsPerEpoch: 1)
            state.lastAccuracy = impossible
            #expect(throws: TrainingError.self) { try state.check(options(task), stepsPerEpoch: 1) }
            state.lastAccuracy = .nan
            #expect(throws: TrainingError.self) { try state.check(options(task), stepsPerEpoch: 1) }
        }
    }
}
