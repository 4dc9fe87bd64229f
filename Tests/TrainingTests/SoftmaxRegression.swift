import Adapters
import Foundation
import TensorCore
import TestSupport
import Transformers

@testable import Training

/// The smallest model that can be trained: a Linear [3, 8] on 24 vectors, as `Fixtures/make_fixtures.py` has it.
final class SoftmaxRegression: TrainableModel {
    typealias Examples = Vectors
    static let (inputs, classes) = (8, 3)

    let backend: any Backend
    let store: ParameterStore
    var method: any TuningMethod = Backbone.frozen
    let shape = TransformerShape(width: 8, hiddenWidth: 8, depth: 0, patchSize: 1, hasClassToken: false)
    let blocks: [TransformerBlock] = []
    let headParameterCount = 27
    private var plans: [Int: Plan] = [:]

    init(on backend: any Backend) throws {
        self.backend = backend
        let weight = (0..<24).map { Float(0.3 * cos(Double($0))) }
        store = try ParameterStore(
            backend,
            [
                .init("head.weight", HostTensor(shape: [3, 8], values: weight)),
                .init("head.bias", HostTensor(shape: [3], values: [0.1, -0.2, 0.05])),
            ])
    }

    struct Plan: StepPlan {
        let isForTraining = true
        let batch: Int
        let inputs, logits, dLogits, targets: Tensor  // [B, 8], [B, 3]
        let labels, losses: Tensor  // [B]
        var blocks: [TransformerBlock.Memory] { [] }
        func stream(into block: Int) -> Tensor { inputs }
    }

    func plan(batch: Int, isForTraining: Bool) throws -> Plan {
        if let plan = plans[batch] { return plan }
        func take(_ columns: Int) throws -> Tensor { try backend.allocate([batch, columns], .float32) }
        let plan = Plan(
            batch: batch, inputs: try take(8), logits: try take(3), dLogits: try take(3),
            targets: try take(3), labels: try backend.allocate([batch], .int32),
            losses: try backend.allocate([batch], .float32))
        plans[batch] = plan
        return plan
    }

    func plannedByteCount(batch: Int, memory: MemoryPolicy?) -> Int { 0 }

    func load(_ batch: Vectors.Batch, into plan: Plan) {
        backend.upload(plan.inputs, batch.indices.flatMap(Vectors.vector))
        backend.upload(plan.labels, batch.labels)
    }

    func beginPass() {}
    func embed(_ plan: Plan) {}

    func forward(_ plan: Plan, fromBlock first: Int, _ mode: PassMode, onBlock: (Int) -> Void) {
        backend.matmul(
            plan.logits, plan.inputs, store["head.weight"]!.value, transposeA: false, transposeB: true,
            accumulate: false)
        backend.scaleShift(plan.logits, plan.logits, ones, store["head.bias"]!.value)
    }

    private lazy var ones: Tensor = {
        let ones = try! backend.allocate([3], .float32)
        backend.fill(ones, 1)
        return ones
    }()

    func loss(_ plan: Plan) {
        backend.softmaxCrossEntropy(plan.losses, plan.dLogits, plan.logits, plan.labels)
    }

    func loss(_ plan: Plan, _ kind: TargetLoss, _ targets: [Float]) {
        backend.upload(plan.targets, targets)
        backend.targetLoss(plan.losses, plan.dLogits, plan.logits, plan.targets, kind)
    }

    func backward(_ plan: Plan, _ mode: PassMode, lossScale: Float) {
        if lossScale != 1 {
            backend.fill(plan.losses, lossScale)
            backend.scaleSamples(plan.dLogits, plan.dLogits, sampleScale: plan.losses)
        }
        backend.matmul(
            store["head.weight"]!.gradient!, plan.dLogits, plan.inputs, transposeA: true, transposeB: false,
            accumulate: true)
        backend.sumRows(store["head.bias"]!.gradient!, plan.dLogits, accumulate: true)
    }

    func isRight(_ outputs: [Float], labels: [Int32]) -> [Bool] {
        labels.enumerated().map { row, label in
            let scores = outputs[3 * row..<3 * row + 3]
            return scores.firstIndex(of: scores.max()!) == 3 * row + Int(label)
        }
    }

    func firstOverflow(_ plan: Plan) -> String? { nil }
}

/// 24 vectors of classes 0, 1 and 2, of which there are 12, 8 and 4.
final class Vectors: ExampleSource {
    struct Batch: ExampleBatch {
        let indices: [Int]
        let labels: [Int32]
    }

    let count: Int
    let name: String
    /// The batches of every epoch that was begun.
    private(set) var begun: [[[Int]]] = []
    private var batches: ArraySlice<[Int]> = []

    let targetLoss: TargetLoss?

    private let hasLabels: Bool

    init(_ count: Int = 24, _ targetLoss: TargetLoss? = nil, name: String = "vectors", hasLabels: Bool = true)
    {
        (self.count, self.targetLoss, self.name, self.hasLabels) = (count, targetLoss, name, hasLabels)
    }

    func targets(at i: Int) -> [Float] {
        (0..<3).map { k in
            targetLoss == .sigmoid
                ? (hasLabels && sin(Double(2 * i + 5 * k)) > 0.3 ? 1 : 0)
                : Float(Double(1000 * (k + 1)) + 300 * sin(Double(i + k)))
        }
    }

    static func vector(_ i: Int) -> [Float] { (0..<8).map { Float(sin(Double(1 + 7 * i + 3 * $0))) } }
    func exampleName(at index: Int) -> String { "vector \(index)" }
    func label(at index: Int) -> Int { index < 12 ? 0 : index < 20 ? 1 : 2 }
    func start(_ batches: [[Int]]) {
        begun.append(batches)
        self.batches = batches[...]
    }
    func next() -> Batch? {
        batches.popFirst().map { Batch(indices: $0, labels: $0.map { Int32(label(at: $0)) }) }
    }
}
