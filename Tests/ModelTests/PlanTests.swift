import Adapters
import CPUBackend
import Checkpoints
import ModelConfiguration
import OpenCLBackend
import TensorCore
import TestSupport
import Testing
import Transformers

@testable import VisionModels

/// What a plan keeps and takes, weights that are built once, and the costs that benchmarks state.
@Suite("What a plan keeps, takes and costs")
struct PlanTests {
    /// Paths in which A scales a z that is kept, where activation space is the cheaper one, beside others.
    static let keepingPaths: [GLoRAPath] = [
        GLoRAPath(a: .vector, b: .lowRank(2), e: .vector), GLoRAPath(a: .constant, d: .vector),
        GLoRAPath(a: .vector, b: .vector, c: .lowRank(1)), GLoRAPath(b: .lowRank(1)),
        GLoRAPath(a: .lowRank(2), b: .constant), .none,
        GLoRAPath(a: .vector, b: .lowRank(2)), GLoRAPath(a: .constant, b: .constant, e: .constant),
    ]

    static let cases: [(width: Int, pooling: ViTConfiguration.Pooling)] = [
        (6, .classToken), (6, .meanAfterNorm), (64, .classToken), (64, .meanBeforeNorm),
    ]

    // MARK: Memory

    /// The memory of a model, of its plans and of its methods' terms goes when it goes.
    @Test("A model gives its memory back", arguments: [MethodName.glora, .lora, .vptDeep])
    func aModelGivesItsMemoryBack(method: MethodName) throws {
        let tiny = try TinyModel(width: 8, hiddenWidth: 16)
        try TestDevice(description: "opencl:0").withBackend { backend in
            let backend = try #require(backend as? OpenCLBackend)
            let before = backend.allocatedByteCount
            for isForTraining in [true, false] {
                let shape = tiny.checkpoint.configuration.shape
                var model: VisionTransformer? = try tiny.model(
                    method.method(MethodSettings(), for: shape), on: backend)
                let plan = try model!.plan(batch: 2, isForTraining: isForTraining)
                backend.upload(plan.images, TinyModel.images(2))
                model!.forward(plan)
                #expect(backend.values(plan.logits).allSatisfy { $0.isFinite })
                #expect(backend.allocatedByteCount > before)
                model = nil
            }
            #expect(backend.allocatedByteCount == before)
        }
    }

    /// Whatever is kept, and whatever is computed again, losses and gradients are the same.
    @Test("Every memory policy gives the same step", arguments: TestDevice.all, cases)
    func everyPolicyGivesTheSameStep(
        device: TestDevice, what: (width: Int, pooling: ViTConfiguration.Pooling)
    ) throws {
        let tiny = try TinyModel(pooling: what.pooling, width: what.width)
        let scales: [[Float]] = [[4 / 3, 0], [0, 4 / 3], [4 / 3, 4 / 3], [4 / 3, 4 / 3]]
        try device.withBackend { backend in
            for paths in [TinyModel.mixedPaths, PlanTests.keepingPaths] {
                var steps: [(losses: [Float], gradients: [String: HostTensor])] = []
                for policy in [MemoryPolicy.fast, .balanced, .low, .lowest] {
                    let model = try tiny.adapted(memory: policy, on: backend)
                    let plan = try model.plan(batch: 2, isForTraining: true)
                    model.store.clearGradients()
                    model.step(
                        plan, TinyModel.images(2), TinyModel.labels(2), paths: paths, scales: scales)
                    steps.append((backend.values(plan.losses), model.store.unpack(model.store.gradients)))
                }
                for (step, policy) in zip(steps[1...], ["balanced", "low", "lowest"]) {
                    expectClose(step.losses, doubles(steps[0].losses), "losses, \(policy)", limit: 1e-12)
                    for (name, gradient) in step.gradients {
                        expectClose(
                            gradient.values, doubles(steps[0].gradients[name]!.values), "\(name), \(policy)",
                            limit: 1e-12)
                    }
                }
                // What is computed again from a block's input is to the bit what was kept.
                #expect(steps[3].losses == steps[0].losses && steps[3].gradients == steps[0].gradients)
            }
        }
    }

    /// The gradients of the support tensors are those of the merged weights, contracted: a model that trains everything
    /// keeps no z and rebuilds nothing.
    @Test(
        "Gradients of support tensors are the merged weights' gradients, contracted",
        arguments: TestDevice.all, cases)
    func supportGradientsAreContractedOnes(
        device: TestDevice, what: (width: Int, pooling: ViTConfiguration.Pooling)
    ) throws {
        let tiny = try TinyModel(pooling: what.pooling, width: what.width)
        let (images, labels) = (TinyModel.images(2), TinyModel.labels(2))
        try device.withBackend { backend in
            for paths in [TinyModel.mixedPaths, PlanTests.keepingPaths] {
                let model = try tiny.adapted(on: backend)
                let plan = try model.plan(batch: 2, isForTraining: true)
                model.store.clearGradients()
                model.step(plan, images, labels, paths: paths)
                let found = model.store.unpack(model.store.gradients)
                let stored = model.store.unpack(model.store.values)

                let whole = try VisionTransformer(
                    try model.merged(), classCount: TinyModel.classCount, method: Backbone.everything,
                    seed: 1, head: tiny.head, on: backend)
                let wholePlan = try whole.plan(batch: 2, isForTraining: true)
                whole.store.clearGradients()
                whole.step(wholePlan, images, labels)
                let merged = whole.store.unpack(whole.store.gradients)
                for (linear, path) in zip(model.layers.map(\.base), paths) {
                    let (outputs, inputs) = (linear.outputs, linear.inputs)
                    let dw = doubles(merged["\(linear.name).weight"]!.values)
                    let db = doubles(merged["\(linear.name).bias"]!.values)
                    let w0 = doubles(tiny.checkpoint.tensors["\(linear.name).weight"]!.values)
                    for (letter, form, dx) in [
                        ("A", path.a, zip(dw, w0).map { $0 * $1 }), ("B", path.b, dw),
                    ] {
                        let up = doubles(stored["\(linear.name).\(letter)u"]!.values)
                        var expected = [Double](repeating: 0, count: outputs * 2)
                        for o in 0..<outputs {
                            for i in 0..<inputs {
                                let g = dx[o * inputs + i]
                                switch form {
                                case .none: break
                                case .constant: expected[0] += g
                                case .vector: expected[o * 2] += g
                                case .lowRank(let rank):
                                    for r in 0..<rank { expected[o * 2 + r] += g * up[r * inputs + i] }
                                }
                            }
                        }
                        let name = "\(linear.name).\(letter)d"
                        if form == .constant {
                            expectSum(found[name]!.values, dx, "\(name) on \(path)")
                        } else {
                            expectClose(found[name]!.values, expected, "\(name) on \(path)", limit: 1e-8)
                        }
                    }
                    let e = found["\(linear.name).E"]!.values
                    switch path.e {
                    case .none: expectClose(e, db.map { _ in 0 }, "\(linear.name).E")
                    case .vector: expectClose(e, db, "\(linear.name).E", limit: 1e-8)
                    case .constant: expectSum(e, db, "\(linear.name).E")
                    }
                }
            }
        }
    }

    /// Expects Σ terms at element 0, to a millionth of Σ |terms|, and zeros elsewhere. What is written to the residual
    /// stream has a sum of zero, since a LayerNorm takes its mean away again: of that no digit is left.
    private func expectSum(_ found: [Float], _ terms: [Double], _ what: String) {
        let size = terms.reduce(0) { $0 + abs($1) }
        #expect(abs(Double(found[0]) - terms.reduce(0, +)) <= 1e-6 * size, "\(what)")
        #expect(found[1...].allSatisfy { $0 == 0 }, "\(what)")
    }

    /// A plan takes what `byteCount` says, to the byte: an arena whose chunk is that large needs one, and two when the chunk
    /// is one view smaller.
    @Test(
        "A plan takes the bytes that it says, to the byte", arguments: MemoryPolicy.allCases, [true, false])
    func byteCount(policy: MemoryPolicy, isForTraining: Bool) throws {
        for pooling in [ViTConfiguration.Pooling.classToken, .meanAfterNorm] {
            let backend = try CPUBackend()
            let model = try TinyModel(pooling: pooling, width: 64).adapted(memory: policy, on: backend)
            let bytes = model.planByteCount(batch: 3, isForTraining: isForTraining)
            for (less, chunks) in [(0, 1), (4 * viewAlignment, 2)] {
                let arena = Arena(backend, chunkByteCount: bytes - less)
                _ = try Workspace.layOut(in: arena, isForTraining: isForTraining, stored: .float32) {
                    try model.layOut(batch: 3, $0)
                }
                #expect(arena.byteCount == chunks * (bytes - less))
            }
        }
    }

    /// What a policy saves, by hand: fast keeps GELU's output [B, Q, F] of every block in place of a shared one, balanced the
    /// LayerNorms' [B, T, D] and [B, Q, D] likewise.
    @Test("Memory policies differ by the tensors that they keep")
    func policiesDifferByWhatTheyKeep() throws {
        func bytes(_ policy: MemoryPolicy, isForTraining: Bool = true) throws -> Int {
            try PlanTests.zeros("vit_tiny_patch16_224", memory: policy)
                .planByteCount(batch: 8, isForTraining: isForTraining)
        }
        let (all, one) = (8 * 197 * 192, 8 * 192)  // [B, T, D] and [B, 1, D]
        #expect(try bytes(.fast) - bytes(.balanced) == 4 * (10 * 4 * all + 4 * one))
        #expect(try bytes(.balanced) - bytes(.low) == 4 * (11 * 2 * all + one))
        for policy in MemoryPolicy.allCases {
            #expect(try bytes(policy, isForTraining: false) == bytes(.low, isForTraining: false))
        }
        // Eleven blocks keep their input alone, and one all.
        let inputs = 4 * 12 * all
        #expect(try bytes(.lowest) < inputs + bytes(.fast) / 5)
        #expect(try bytes(.lowest) < bytes(.low) / 3)
        // An evaluation keeps one block's tensors, not twelve's.
        #expect(try bytes(.low, isForTraining: false) < bytes(.low) / 4)
    }

    /// An architecture with weights of zero, GLoRA of rank 4 in every layer and ten classes.
    static func zeros(_ name: String, memory: MemoryPolicy = .balanced) throws -> VisionTransformer {
        let configuration = try #require(ViTConfiguration(named: name, classCount: 0))
        let checkpoint = try ViTCheckpoint(
            configuration: configuration,
            tensors: configuration.tensorShapes.mapValues { HostTensor(shape: $0, repeating: 0) })
        return try VisionTransformer(
            checkpoint, classCount: 10, method: GLoRA(rank: 4), seed: 1, memory: memory, on: try CPUBackend())
    }

    // MARK: Prepared weights

    /// The same logits from weights built once as from weights built in every batch, for those paths and for others.
    @Test(
        "Weights built once give the same logits as weights built in every batch", arguments: TestDevice.all)
    func preparedPathsGiveTheSameLogits(device: TestDevice) throws {
        try device.withBackend { backend in
            for width in [6, 64] {
                let model = try TinyModel(width: width).adapted(on: backend)
                let plan = try model.plan(batch: 3, isForTraining: false)
                func logits(_ paths: [GLoRAPath]) -> [Float] {
                    model.step(plan, TinyModel.images(3), TinyModel.labels(3), paths: paths)
                    return backend.values(plan.logits)
                }
                let others = model.layers.uniformPath(.full(rank: 2))
                let (expected, expectedOthers) = (
                    doubles(logits(PlanTests.keepingPaths)), doubles(logits(others))
                )
                model.layers.take(PlanTests.keepingPaths)
                try model.prepare()
                // What is prepared doesn't follow the parameters; other paths do.
                let saved = model.store.unpack(model.store.values)
                expectClose(logits(others), expectedOthers, "paths that aren't prepared", limit: 1e-12)
                backend.fill(model.store["blocks.0.attn.qkv.Bd"]!.value, 5)
                expectClose(logits(PlanTests.keepingPaths), expected, "prepared, width \(width)")
                model.unprepare()
                #expect(normalisedSquaredError(logits(PlanTests.keepingPaths), expected) > 1e-4)
                model.store.pack(model.store.values, saved)
                expectClose(logits(PlanTests.keepingPaths), expected, "unprepared", limit: 1e-12)
            }
        }
    }

    /// Where a device reads weights in another layout, that is all that is kept; what is left says that it can't be merged.
    @Test("A model that only infers gives the same logits from less memory", arguments: TestDevice.all)
    func aModelForInferenceGivesTheSameLogits(device: TestDevice) throws {
        let tiny = try TinyModel(width: 64)
        try device.withBackend { backend in
            func model(forInference: Bool) throws -> VisionTransformer {
                try VisionTransformer(
                    tiny.checkpoint, classCount: TinyModel.classCount, method: Backbone.frozen, seed: 5,
                    head: tiny.head, forInference: forInference, on: backend)
            }
            func logits(_ model: VisionTransformer) throws -> [Float] {
                let plan = try model.plan(batch: 3, isForTraining: false)
                try model.prepare()
                model.step(plan, TinyModel.images(3), TinyModel.labels(3))
                model.unprepare()
                model.step(plan, TinyModel.images(3), TinyModel.labels(3))
                return backend.values(plan.logits)
            }
            let (whole, inferring) = (try model(forInference: false), try model(forInference: true))
            expectClose(try logits(inferring), doubles(try logits(whole)), "on \(device)", limit: 1e-12)
            #expect(throws: CheckpointError.self) { try inferring.merged() }
            let linear = inferring.layers[0].base
            let isPacked = try backend.prepared(LinearWeight(whole.layers[0].base.weight.value)).ready != nil
            #expect((linear.weight.value.buffer.byteCount == .max) == isPacked)
        }
    }

    // MARK: Costs and names

    /// ViT-B/16, batch 8, 10 classes, by hand. A block's Linears have 12 · 768² = 7,077,888 weights and see 8 · 197 = 1,576
    /// tokens; behind the last attention 8 do. A score costs 4 · 64 + 5 = 261, in the backward 10 · 64 + 6 = 646.
    @Test("The cost of a ViT-B/16 is that counted by hand")
    func costOfAViTBase() throws {
        let model = try PlanTests.zeros("vit_base_patch16_224")
        let block = 2 * 1_576 * 7_077_888
        let (qkv, behind) = (2 * 1_576 * 1_769_472, 2 * 8 * 5_308_416)
        let ends = 2 * 1_568 * 768 * 768 + 2 * 8 * 768 * 10
        let scores = 8 * 12 * 197 * (11 * 197 + 1)
        let forward = ends + 11 * block + qkv + behind + 261 * scores
        #expect(model.forwardCost(batch: 8).flops == Double(forward))
        // 268 GFLOP for twelve whole blocks; the last one saves three quarters of its share.
        #expect(
            12 * block == 267_714_035_712 && 12 * block - (11 * block + qkv + behind) == 16_647_192_576)

        // The frozen path: a backward through the head alone, which counts as nothing.
        let none = model.layers.uniformPath(.none)
        #expect(model.stepCost(batch: 8, paths: none).flops == Double(forward))
        // lowRank B in activation space: a second product everywhere but in the first Linear, whose dx nobody needs.
        let lora = model.layers.uniformPath(GLoRAPath(b: .lowRank(4)))
        let second = 11 * block + qkv + behind - qkv + 646 * scores
        #expect(model.stepCost(batch: 8, paths: lora).flops == Double(forward + second))
        // lowRank A needs dW too, everywhere.
        let full = model.layers.uniformPath(.full(rank: 4))
        let third = 11 * block + qkv + behind
        #expect(model.stepCost(batch: 8, paths: full).flops == Double(forward + second + third))
    }

    /// timm's names, with its counts of parameters at 1,000 classes.
    @Test(
        "An architecture's name gives timm's number of parameters",
        arguments: [
            ("vit_tiny_patch16_224", 5_717_416), ("vit_small_patch16_224", 22_050_664),
            ("vit_base_patch16_224", 86_567_656), ("vit_base_patch32_224", 88_224_232),
            ("vit_base_patch16_384", 86_859_496), ("vit_large_patch16_224", 304_326_632),
        ])
    func namedArchitectures(name: String, parameterCount: Int) throws {
        let configuration = try #require(ViTConfiguration(named: name, classCount: 1000))
        let count = configuration.tensorShapes.values.reduce(0) { $0 + $1.reduce(1, *) }
        #expect(count == parameterCount)
        #expect(configuration.width / configuration.heads == 64)
        let parts = name.split(separator: "_")
        #expect(parts[2] == "patch\(configuration.patchSize)" && parts[3] == "\(configuration.imageSize)")
    }

    @Test(
        "Names of other architectures give none",
        arguments: [
            "", "vit", "resnet50", "vit_huge_patch14_224", "vit_base_patch16", "vit_base_patch0_224",
            "vit_base_patch16_225", "vit_base_patch16_8", "vit_base_patchx_224", "deit_base_patch16_224",
            "vit_base_patch16_224_in21k", "vit_base_patch-16_224",
        ])
    func otherNames(name: String) {
        #expect(ViTConfiguration(named: name, classCount: 10) == nil)
    }
}
