import SwiftGLoRA
import Testing

/// A model that has no images: sequences [T, D] through blocks of random frozen weights, and a head on the first token.
final class SequenceModel: TrainableModel {
    typealias Examples = Sequences
    static let tokens = 4

    let backend: any Backend
    let store: ParameterStore
    var method: any TuningMethod
    let shape = TransformerShape(width: 16, hiddenWidth: 32, depth: 2, patchSize: 1, hasClassToken: true)
    let blocks: [TransformerBlock]
    let headParameterCount = 16 * 2 + 2

    private let places: Attachments
    private let head: PlainLinear
    private let planArena: Arena
    private var plans: [String: Plan] = [:]

    init(_ method: any TuningMethod, seed: Int, on backend: any Backend) throws {
        (self.method, self.backend, planArena) = (method, backend, Arena(backend))
        var random = Initialization(seed, "sequences")
        let shape = self.shape
        let d = shape.width
        store = try ParameterStore(
            backend,
            method.declarations(shape, seed: seed) + [
                random.linear("head.weight", [2, d], inputs: d), .init("head.bias", [2], repeating: 0),
            ])
        let arena = Arena(backend)
        let scratch = try LinearScratch(arena, weightCount: 48 * 16, outputs: 48, inputs: 32)
        func frozen(_ declaration: ParameterStore.Declaration) throws -> Parameter {
            Parameter(name: declaration.name, value: try backend.tensor(declaration.initial))
        }
        func norm(_ name: String) throws -> Norm {
            Norm(
                weight: try frozen(.init("\(name).weight", [d], repeating: 1)),
                bias: try frozen(.init("\(name).bias", [d], repeating: 0)), epsilon: 1e-6, behind: nil,
                backend)
        }
        let linears = try (0..<shape.depth).map { block in
            try shape.sites.map { site in
                let name = "blocks.\(block).\(site.name)"
                return BaseLinear(
                    name,
                    weight: try frozen(
                        random.linear("\(name).weight", [site.outputs, site.inputs], inputs: site.inputs)),
                    bias: try frozen(.init("\(name).bias", [site.outputs], repeating: 0)), scratch, backend)
            }
        }
        var places = Attachments(shape, linears)
        try method.attach(to: &places, store, arena, backend)
        self.places = places
        blocks = try places.blocks.enumerated().map { index, block in
            TransformerBlock(
                index, shape, heads: 2, block, norm1: try norm("blocks.\(index).norm1"),
                norm2: try norm("blocks.\(index).norm2"), backend)
        }
        head = PlainLinear(
            BaseLinear("head", weight: store["head.weight"]!, bias: store["head.bias"]!, scratch, backend))
        method.beginReading(layers)
    }

    struct Plan: StepPlan {
        let isForTraining: Bool
        let batch: Int
        let sequences: Tensor  // [B, T, D]
        let blocks: [TransformerBlock.Memory]
        let output: Tensor  // [B, 1, D]
        let head: any LinearPass
        let logits, dLogits: Tensor  // [B, 2]
        let labels, losses: Tensor  // [B]
        let targets: Tensor  // [B, 2]
        func stream(into block: Int) -> Tensor { block < blocks.count ? blocks[block].entry : output }
    }

    private func layOut(_ batch: Int, _ workspace: Workspace) throws -> Plan {
        let (t, d) = (SequenceModel.tokens, shape.width)
        return Plan(
            isForTraining: workspace.isForTraining, batch: batch,
            sequences: try workspace.own([batch, t, d]),
            blocks: try blocks.map {
                try $0.memory(
                    batch: batch, incoming: t, tokens: t, goingOn: $0.index + 1 == blocks.count ? 1 : t,
                    policy: .balanced, workspace)
            },
            output: try workspace.own([batch, 1, d]),
            head: head.pass(rows: batch, product: nil, in: workspace),
            logits: try workspace.own([batch, 2]), dLogits: try workspace.own([batch, 2]),
            labels: try workspace.own([batch], .int32), losses: try workspace.own([batch]),
            targets: try workspace.own([batch, 2]))
    }

    func plan(batch: Int, isForTraining: Bool) throws -> Plan {
        let key = "\(batch) \(isForTraining)"
        if let plan = plans[key] { return plan }
        planArena.reset()
        let plan = try Workspace.layOut(
            in: planArena, isForTraining: isForTraining, stored: backend.precision.stored
        ) { try layOut(batch, $0) }
        plans[key] = plan
        return plan
    }

    func plannedByteCount(batch: Int, memory: MemoryPolicy?) -> Int {
        let plan = try? Workspace.byteCount(isForTraining: true, stored: backend.precision.stored) {
            _ = try layOut(batch, $0)
        }
        return plan.map { $0 + 4 * store.values.byteCount } ?? .max
    }

    func load(_ batch: Sequences.Batch, into plan: Plan) {
        backend.upload(plan.sequences, batch.values)
        backend.upload(plan.labels, batch.labels)
    }

    func beginPass() { places.begin?() }
    func embed(_ plan: Plan) { backend.copy(plan.stream(into: 0), plan.sequences) }

    func forward(_ plan: Plan, fromBlock first: Int, _ mode: PassMode, onBlock: (Int) -> Void) {
        for block in blocks.dropFirst(first) {
            if block.index > first { onBlock(block.index) }
            block.forward(plan.blocks[block.index], into: plan.stream(into: block.index + 1), mode)
        }
        let features = plan.output.reshaped([plan.batch, shape.width])
        plan.head.forward(plan.logits, features, activated: nil, dropoutSeed: nil)
    }

    func loss(_ plan: Plan) {
        backend.softmaxCrossEntropy(plan.losses, plan.dLogits, plan.logits, plan.labels)
    }

    func loss(_ plan: Plan, _ kind: TargetLoss, _ targets: [Float]) {
        backend.upload(plan.targets, targets)
        backend.targetLoss(plan.losses, plan.dLogits, plan.logits, plan.targets, kind)
    }

    func backward(_ plan: Plan, _ mode: PassMode, lossScale: Float) {
        precondition(lossScale == 1, "float32 alone")
        let size = [plan.batch, shape.width]
        plan.head.backward(
            plan.blocks.last?.outputGradient?.reshaped(size), plan.dLogits, plan.output.reshaped(size),
            dropoutSeed: nil)
        for block in blocks.reversed() { block.backward(plan.blocks[block.index], mode, lowest: nil) }
        places.end?()
    }

    func isRight(_ outputs: [Float], labels: [Int32]) -> [Bool] {
        labels.enumerated().map { row, label in (outputs[2 * row + 1] > outputs[2 * row]) == (label == 1) }
    }
    func firstOverflow(_ plan: Plan) -> String? { nil }
}

/// Sequences whose third token is larger where the class is 1.
final class Sequences: ExampleSource {
    struct Batch: ExampleBatch {
        let indices: [Int]
        let labels: [Int32]
        let values: [Float]
    }

    let count: Int
    let name = "sequences"
    private let first: Int
    private var batches: ArraySlice<[Int]> = []

    init(_ count: Int, from first: Int = 0) { (self.count, self.first) = (count, first) }

    func exampleName(at index: Int) -> String { "sequence \(index)" }
    func label(at index: Int) -> Int { index % 2 }
    func start(_ batches: [[Int]]) { self.batches = batches[...] }
    func next() -> Batch? {
        batches.popFirst().map { indices in
            let values = indices.flatMap { index -> [Float] in
                var random = Random(3, "sequence", self.first + index)
                return (0..<SequenceModel.tokens).flatMap { token -> [Float] in
                    (0..<16).map {
                        Float(random.normal()) + (token == 2 && $0 < 8 ? Float(index % 2) * 4 : 0)
                    }
                }
            }
            return Batch(indices: indices, labels: indices.map { Int32($0 % 2) }, values: values)
        }
    }
}

@Suite("A model of somebody else's")
struct SequenceModelTests {
    @Test("has the gradients that central differences give", arguments: QueryBiasTests.devices)
    func gradients(_ device: String) throws {
        let model = try SequenceModel(GLoRA(rank: 2), seed: 1, on: try Device(device)!.open())
        model.layers.take(model.layers.uniformPath(.full(rank: 2)))
        try QueryBiasTests.expectSlopes(
            of: model, on: Sequences(8),
            ["blocks.0.attn.qkv.E", "blocks.0.mlp.fc1.Bd", "blocks.1.attn.proj.Ad", "head.weight"],
            at: [0, 6, 15])
    }

    @Test(
        "trains with GLoRA and is scored by what trains and scores a ViT", arguments: QueryBiasTests.devices)
    func training(_ device: String) throws {
        let method = GLoRA(rank: 2, .supernet(try SearchSpace(ranks: [2]), .original))
        let model = try SequenceModel(method, seed: 1, on: try Device(device)!.open())
        var options = TrainingOptions()
        (options.epochs, options.warmupEpochs, options.batchSize, options.learningRate) = (20, 1, 16, 1e-2)
        let unseen = Sequences(256, from: 256)
        let before = try evaluate(model, on: unseen, batchSize: 16)
        try Trainer(model, options, training: Sequences(256), validation: nil).run()
        let after = try evaluate(model, on: unseen, batchSize: 16)
        #expect(after.count == 256 && after.accuracy > 0.85 && after.loss < 0.5 * before.loss)
    }
}
