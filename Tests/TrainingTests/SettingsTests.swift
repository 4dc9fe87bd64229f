import Adapters
import CPUBackend
import Foundation
import ModelConfiguration
import TensorCore
import Testing
import Training
import VisionModels

@Suite("Settings", .serialized)
struct SettingsTests {
    @Test("The defaults are the original's")
    func defaults() {
        let options = TrainingOptions()
        #expect(options.learningRate == 1e-4 && options.weightDecay == 1e-4 && options.batchSize == 64)
        #expect(options.epochs == 500 && options.warmupEpochs == 10 && options.dropPath == 0.1)
        #expect(options.ranks == [4] && options.seed == 42 && options.adamw == .dense && options.dropLast)
        #expect(options.path == "supernet" && options.trainSplit == "train800")
    }

    @Test("The standard recipe's defaults, of which every one gives way to what is given")
    func standardRecipe() {
        func options(_ given: [String: any SettingValue]) -> TrainingOptions {
            TrainingOptions(given: given, recipe: .standard)
        }
        let own = options([:])
        #expect(own.recipe == .standard && own.path == "full" && own.additions.schedule == .cosine)
        #expect(own.batchSize == 32 && own.warmupEpochs == 1 && own.validateEvery == 1)
        #expect(
            own.learningRate == 2e-3 && own.dropPath == 0 && own.minimumLearningRate == 0
                && own.recipe.draws == .sandwich)
        for (count, epochs) in [(1, 50), (160, 50), (800, 15), (1000, 12), (5000, 5), (1 << 40, 5)] {
            var fitted = own
            fitted.fit(imageCount: count)
            #expect(fitted.epochs == epochs, "\(count) images")
            var given = options(["epochs": 7])
            given.fit(imageCount: count)
            #expect(given.epochs == 7)
        }
        let given = options([
            "path": "supernet", "batch-size": 64, "schedule": LearningRateSchedule.Kind.linear,
        ])
        #expect(given.path == "supernet" && given.batchSize == 64 && given.additions.schedule == .linear)
        // Other methods keep their authors' optimizers, whose rates go by the batch.
        let vpt = options(["method": MethodName.vptDeep])
        #expect(vpt.optimizer == .sgd && vpt.learningRate == 0.125 && vpt.path == "supernet")
        #expect(throws: Never.self) { try vpt.validate() }
        for recipe in [TrainingRecipe.original, .sandwich] {
            var authors = options(["recipe": recipe])
            authors.fit(imageCount: 1)
            #expect(authors.recipe == recipe && authors.recipe.draws.rawValue == recipe.rawValue)
            authors.recipe = .original
            #expect(authors == TrainingOptions())
        }
    }

    @Test("A run's configuration survives its file")
    func configuration() throws {
        try TinyTask.withFolder { folder in
            var options = TinyTask.options()
            options.heads = 3
            options.formsC = [.none]
            options.normalize = .inception
            let directory = RunDirectory(folder.appendingPathComponent("run"))
            options.interpolation = .hamming
            var architecture = ViTConfiguration(
                imageSize: 224, patchSize: 16, width: 192, depth: 12, heads: 3, hiddenWidth: 768,
                classCount: 0)
            architecture.preprocessing.side = 248.88888888888889
            let written = RunDirectory.Configuration(
                options: options, baseHash: "0e10", dataHash: "1e5-22", classCount: 3,
                classNames: ["null", "1e3", "a: b"], architecture: architecture, productParts: 3)
            let start = TrainingSnapshot(
                state: TrainingState(), values: [:], firstMoments: [:], secondMoments: [:])
            try directory.create(written, start)
            let read = try directory.configuration()
            #expect(read.options == written.options)
            #expect(read.classNames == written.classNames)
            #expect(read.architecture == written.architecture)
            #expect(read == written)
        }
    }

    private static let mistakes: [(String, @Sendable (inout TrainingOptions) -> Void)] = [
        ("`epochs`", { $0.epochs = 0 }), ("`epochs`", { $0.epochs = .max }),
        ("`batch-size`", { $0.batchSize = 0 }), ("`lr`", { $0.learningRate = .nan }),
        ("`lr`", { $0.learningRate = -1 }), ("`warmup-lr`", { $0.warmupLearningRate = .nan }),
        ("`min-lr`", { $0.minimumLearningRate = -1 }), ("`weight-decay`", { $0.weightDecay = -1 }),
        ("`drop-path`", { $0.dropPath = 1 }), ("`warmup-epochs`", { $0.warmupEpochs = -1 }),
        ("`validate-every`", { $0.validateEvery = 0 }), ("rank", { $0.ranks = [0] }),
        ("`ranks`", { $0.ranks = [1 << 40] }), ("D", { $0.formsD = [.lowRank] }),
        ("C", { $0.formsC = [.constant] }),
    ]

    @Test("Numbers that can't be meant are refused with the setting's name", arguments: mistakes)
    func refusals(_ name: String, _ change: @Sendable (inout TrainingOptions) -> Void) throws {
        var options = TrainingOptions()
        try options.validate()
        change(&options)
        let error = try #require(throws: (any Error).self) { try options.validate() }
        #expect("\(error)".contains(name))
    }

    @Test(
        "The sandwich recipe takes the richest path at every other step, and the original's draws at the others"
    )
    func recipes() throws {
        let space = try SearchSpace(ranks: [4, 2])
        let model = try VisionTransformer(
            TinyTask.checkpoint(), classCount: 3, method: GLoRA(rank: 4, roles: space.sites), seed: 1,
            on: try CPUBackend())
        let original = try PathChoice("supernet", space: space, for: model.shape)
        let sandwich = try PathChoice("supernet", space: space, recipe: .sandwich, for: model.shape)
        for step in 0..<20 {
            let (mine, theirs) = (
                sandwich.paths(atStep: step, seed: 3, model.layers),
                original.paths(atStep: step, seed: 3, model.layers)
            )
            #expect(theirs != model.layers.uniformPath(space.fullPath))
            #expect(mine == (step % 2 == 1 ? model.layers.uniformPath(space.fullPath) : theirs))
        }
    }

    /// `qkv` means queries, keys and values also where they are apart, and `fc1` the gate.
    @Test("Paths reach Linears that are apart")
    func pathsOfLinearsApart() throws {
        let shape = TransformerShape(
            width: 8, hiddenWidth: 16, depth: 1, patchSize: 4, hasClassToken: true, queries: .separate,
            queryBias: .withoutKeys, feedForward: .gated(.silu, isPacked: false, hasNorm: true))
        func paths(_ choice: PathChoice) -> [GLoRAPath]? {
            if case .fixed(let paths) = choice { paths } else { nil }
        }
        let whole = try SearchSpace()
        let full = try #require(paths(PathChoice("full", space: whole, for: shape)))
        #expect(full.count == 7 && full.allSatisfy { $0.a == .lowRank(4) && $0.b == .lowRank(4) })
        #expect(zip(shape.sites, full).allSatisfy { $1.changesBias == $0.hasBias })
        let attention = try SearchSpace(sites: [.fusedQKV])
        let some = try #require(paths(PathChoice("full", space: attention, for: shape)))
        #expect(some.map { $0 != .none } == [true, true, true, false, false, false, false])
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).json")
        defer { try? FileManager.default.removeItem(at: file) }
        try Data(#"{"blocks.0.mlp.fc1_g": {"B": "LoRA_4"}, "blocks.0.attn.k_proj": {"A": "vector"}}"#.utf8)
            .write(to: file)
        let named = try #require(paths(PathChoice(file.path, space: whole, for: shape)))
        #expect(named[1] == GLoRAPath(a: .vector) && named[4] == GLoRAPath(b: .lowRank(4)))
        #expect(throws: TrainingError.self) { try PathChoice(file.path, space: attention, for: shape) }
    }

    @Test("A path's setting reads supernet, full, none, one path for all layers, and a path for each layer")
    func paths() throws {
        let space = try SearchSpace(ranks: [4, 2])
        let model = try VisionTransformer(
            TinyTask.checkpoint(), classCount: 3, method: GLoRA(rank: 4, roles: space.sites), seed: 1,
            on: try CPUBackend())
        func fixed(_ text: String) throws -> [GLoRAPath] {
            let choice = try PathChoice(text, space: space, for: model.shape)
            guard case .fixed = choice else { throw TrainingError.settings("not fixed") }
            return choice.readingPaths(model.layers)
        }
        #expect(try fixed("full") == Array(repeating: .full(rank: 4), count: 8))
        #expect(try fixed("none") == Array(repeating: .none, count: 8))
        try TinyTask.withFolder { folder in
            func file(_ text: String) throws -> String {
                let url = folder.appendingPathComponent("\(UUID().uuidString).json")
                try Data(text.utf8).write(to: url)
                return url.path
            }
            let lora = try fixed(file(#"{"B": "LoRA_2"}"#))
            #expect(lora == Array(repeating: .lora(rank: 2), count: 8))
            let one = try fixed(file(#"{"blocks.1.mlp.fc1": {"A": "vector", "E": "constant"}}"#))
            #expect(one[6] == GLoRAPath(a: .vector, e: .constant))
            #expect(one.filter { $0 == .none }.count == 7)
            for (text, word) in [
                (#"{"B": "LoRA_8"}"#, "rank 8"), (#"{"C": "constant"}"#, "constant"),
                (#"{"X": "none"}"#, "X"),
                (#"{"blocks.9.attn.qkv": {"A": "none"}}"#, "blocks.9"), ("[1]", "path file"),
                ("{", "path file"),
            ] {
                let error = try #require(throws: TrainingError.self) { _ = try fixed(try file(text)) }
                #expect("\(error)".contains(word), "\(text): \(error)")
            }
            #expect(throws: TrainingError.self) { _ = try fixed("nowhere.json") }
        }
    }

    @Test("The schedule's first epochs both run at the warm-up rate, and the cosine ends near its floor")
    func schedule() {
        var options = TrainingOptions()
        options.epochs = 100
        let schedule = options.cosineSchedule
        #expect(schedule.learningRate(inEpoch: 0) == 1e-6 && schedule.learningRate(inEpoch: 1) == 1e-6)
        #expect(abs(schedule.learningRate(inEpoch: 2) - 1.09e-5) < 1e-12)
        #expect(schedule.learningRate(inEpoch: 99) < 1.02e-5)
        options.warmupEpochs = 0
        #expect(options.cosineSchedule.learningRate(inEpoch: 0) == 1e-4)
    }

    @Test("Draws depend on seed, purpose and index, and on nothing else")
    func random() {
        var (a, b) = (Random(1, "path", 3), Random(1, "path", 3))
        #expect((0..<8).map { _ in a.next() } == (0..<8).map { _ in b.next() })
        var others = [Random(2, "path", 3), Random(1, "order", 3), Random(1, "path", 4)]
        var first = Random(1, "path", 3)
        let value = first.next()
        for index in others.indices { #expect(others[index].next() != value) }
        var many = Random(5, "moments")
        let values = (0..<20_000).map { _ in many.normal() }
        let mean = values.reduce(0, +) / 20_000
        let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 20_000
        #expect(abs(mean) < 0.03 && abs(variance - 1) < 0.05)
    }
}
