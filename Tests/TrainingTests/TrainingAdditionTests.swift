import Adapters
import CPUBackend
import Foundation
import TensorCore
import TestSupport
import Testing

@testable import Training

/// What practitioners add to a training, against PyTorch, timm and transformers (`Fixtures/make_fixtures.py`).
@Suite("Losses, optimizers and schedules that practitioners know") struct TrainingAdditionTests {
    struct Fixture: Decodable {
        struct Run: Decodable {
            let losses, norms, rates: [Double]  // [50]
            let weight, bias: [Double]  // [24], [3]
            let average: [Double]?  // [24]
        }
        let runs: [String: Run]
        /// The shares of rate and decay of a ViT of three blocks, by name.
        let layers: [String: [Double]]

        static func read() throws -> Fixture {
            let url = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
                .appendingPathComponent("Fixtures/training.json")
            return try JSONDecoder().decode(Fixture.self, from: Data(contentsOf: url))
        }
    }

    static func options(_ change: (inout TrainingOptions) -> Void = { _ in }) -> TrainingOptions {
        var options = TrainingOptions()
        (options.epochs, options.batchSize, options.dropPath) = (50, 24, 0)
        (options.learningRate, options.weightDecay) = (0.05, 0.1)
        (options.warmupEpochs, options.warmupLearningRate) = (0, 1e-4)
        options.minimumLearningRate = 1e-3
        options.additions.schedule = .constant
        change(&options)
        return options
    }

    struct Case: CustomTestStringConvertible, Sendable {
        let name: String
        let change: @Sendable (inout TrainingOptions) -> Void
        var testDescription: String { name }
    }

    static let cases: [Case] = [
        Case(name: "adamw") { _ in },
        Case(name: "betas") {
            ($0.additions.beta1, $0.additions.beta2, $0.additions.epsilon) = (0.8, 0.95, 1e-4)
        },
        Case(name: "sgd") { ($0.optimizer, $0.additions.momentum) = (.sgd, 0.7) },
        Case(name: "nesterov") {
            ($0.optimizer, $0.additions.momentum, $0.additions.nesterov) = (.sgd, 0.7, true)
        },
        Case(name: "lion") { ($0.optimizer, $0.learningRate) = (.lion, 0.01) },
        Case(name: "clip") { $0.additions.clipNorm = 0.3 },
        Case(name: "smoothing") { $0.additions.labelSmoothing = 0.1 },
        Case(name: "weights") { $0.additions.classWeights = "balanced" },
        Case(name: "ema") { $0.additions.ema = 0.9 },
        Case(name: "decay") { $0.additions.decay = .matrices },
        Case(name: "factors") { $0.additions.learningRateFactors = [LearningRateFactor("head.bias=4")!] },
        Case(name: "cosine") { ($0.additions.schedule, $0.additions.warmupSteps) = (.cosine, 10) },
        Case(name: "linear") {
            ($0.additions.schedule, $0.additions.warmupSteps) = (.linear, 10)
            ($0.warmupLearningRate, $0.minimumLearningRate) = (0, 0)
        },
        Case(name: "oneCycle") { $0.additions.schedule = .oneCycle },
    ]

    /// 50 steps; what the events said.
    private func train(
        _ options: TrainingOptions, on backend: any Backend
    ) throws -> (losses: [Double], norms: [Double], rates: [Double], snapshot: TrainingSnapshot) {
        let trainer = try Trainer(
            try SoftmaxRegression(on: backend), options, training: Vectors(), validation: nil)
        var (losses, norms, rates): ([Double], [Double], [Double]) = ([], [], [])
        try trainer.run(onEvent: {
            guard case .step(let progress) = $0 else { return }
            losses.append(progress.loss)
            rates.append(progress.learningRate)
            if let norm = progress.gradientNorm { norms.append(norm) }
        })
        return (losses, norms, rates, try trainer.snapshot())
    }

    @Test(
        "50 steps have PyTorch's losses and end at its values, also in batches of a quarter whose gradients are added",
        arguments: TestDevice.all, cases)
    func steps(device: TestDevice, what: Case) throws {
        let expected = try #require(try Fixture.read().runs[what.name])
        #expect(expected.losses.count == 50)
        for (batch, accumulate) in [(24, nil), (6, 4), (7, 4)] as [(Int, Int?)] {
            let options = Self.options {
                what.change(&$0)
                ($0.batchSize, $0.additions.accumulate) = (batch, accumulate)
            }
            try device.withBackend { backend in
                let found = try train(options, on: backend)
                let text = "\(what.name) in batches of \(batch)"
                expectClose(found.losses.map { Float($0) }, expected.losses, "losses of \(text)")
                expectClose(found.rates.map { Float($0) }, expected.rates, "rates of \(text)")
                if options.additions.clipNorm != nil {
                    expectClose(found.norms.map { Float($0) }, expected.norms, "norms of \(text)")
                    #expect(found.norms.contains { $0 > 0.3 })
                } else {
                    #expect(found.norms.isEmpty)
                }
                let values = found.snapshot.values
                // Steps of Adam that begin near a gradient of 0 magnify float32's rounding.
                expectClose(values["head.weight"]!.values, expected.weight, "weight of \(text)", limit: 1e-9)
                expectClose(values["head.bias"]!.values, expected.bias, "bias of \(text)", limit: 1e-9)
                if let average = expected.average {
                    let averages = try #require(found.snapshot.averages)
                    expectClose(averages["head.weight"]!.values, average, "average of \(text)", limit: 1e-9)
                    #expect(averages["head.weight"]!.values != values["head.weight"]!.values)
                } else {
                    #expect(found.snapshot.averages == nil)
                }
            }
        }
    }

    static let ineffective: [(String, @Sendable (inout TrainingOptions) -> Void)] = [
        ("`min-lr`", { ($0.additions.schedule, $0.minimumLearningRate) = (.constant, 1e-4) }),
        ("above `lr`", { $0.minimumLearningRate = 1 }),
        ("30 % of the steps", { ($0.additions.schedule, $0.warmupEpochs) = (.oneCycle, 3) }),
        ("give one of them", { ($0.additions.warmupSteps, $0.warmupEpochs) = (10, 3) }),
        ("is AdamW's", { ($0.optimizer, $0.adamw) = (.sgd, .sparse) }),
        ("for the blocks", { ($0.path, $0.additions.layerDecay) = ("none", 0.5) }),
        ("`batch-size`", { ($0.batchSize, $0.additions.augment) = (1, "light,mixup=0.2") }),
    ]

    @Test("A setting of a new run that another leaves without effect is refused", arguments: ineffective)
    func withoutEffect(_ words: String, _ change: @Sendable (inout TrainingOptions) -> Void) throws {
        for recipe in [TrainingRecipe.standard, .original] {
            var options = TrainingOptions(recipe)
            if recipe == .original { options.additions.schedule = .cosine }
            try options.refuseWithoutEffect()
            change(&options)
            let error = try #require(throws: TrainingError.self) { try options.refuseWithoutEffect() }
            #expect("\(error)".contains(words), "\(error)")
            // A run that has it is read.
            try options.validate()
        }
        // Every schedule has its recipe's defaults.
        for schedule in [LearningRateSchedule.Kind.constant, .oneCycle] {
            var options = TrainingOptions(.standard)
            options.additions.schedule = schedule
            try options.refuseWithoutEffect()
        }
    }

    @Test("Weights of a file, with smoothing, are PyTorch's")
    func weightsOfAFile() throws {
        let expected = try #require(try Fixture.read().runs["weightsAndSmoothing"])
        try TinyTask.withFolder { folder in
            let file = folder.appendingPathComponent("weights.txt")
            try Data("# rare ones more\r\n2 4\r\n0 0.5\n1,1\n\n".utf8).write(to: file)
            let options = Self.options {
                ($0.additions.classWeights, $0.additions.labelSmoothing) = (file.path, 0.2)
            }
            let found = try train(options, on: try CPUBackend())
            expectClose(found.losses.map { Float($0) }, expected.losses, "losses")
            // A run doesn't go on with other weights than its own.
            let trainer = try Trainer(
                try SoftmaxRegression(on: try CPUBackend()), options, training: Vectors(), validation: nil)
            try trainer.restore(found.snapshot)
            try Data("0 1\n1 1\n2 4\n".utf8).write(to: file)
            let changed = try Trainer(
                try SoftmaxRegression(on: try CPUBackend()), options, training: Vectors(), validation: nil)
            let refusal = try #require(throws: TrainingError.self) { try changed.restore(found.snapshot) }
            #expect("\(refusal)".contains("class weights of \(file.path)"))
            for (text, word) in [
                ("0 1\n1 1\n", "no weight for class 2"), ("0 1\n0 2\n1 1\n2 1", "two weights for class '0'"),
                ("0 1\n1 1\n3 1", "'3' in line 3"), ("0 1\n1 -1\n2 1", "line 2"),
                ("0 nan\n1 1\n2 1", "line 1"),
                ("0 0\n1 0\n2 0", "no weight above 0"),
            ] {
                try Data(text.utf8).write(to: file)
                let error = try #require(throws: TrainingError.self) {
                    _ = try train(options, on: try CPUBackend())
                }
                #expect("\(error)".contains(word), "\(text): \(error)")
            }
        }
    }

    @Test("The levels of layer-wise decay, and what is no matrix, are timm's")
    func layers() throws {
        let expected = try Fixture.read().layers
        #expect(expected.count > 40)
        for (name, shares) in expected {
            let level = ParameterGroups.level(of: name, depth: 3)
            #expect(abs(pow(0.5, Double(4 - level)) - shares[0]) < 1e-12, "\(name): level \(level)")
            // Of timm's tensors a name and the number of dimensions say what is a matrix.
            let isMatrix = !name.hasSuffix("bias") && !name.contains("norm")
            let shape =
                name.contains("token") || name.contains("embed.weight")
                ? [1, 1, 9] : isMatrix ? [3, 4] : [4]
            let segment = ParameterStore.Segment.stub(name, name == "pos_embed" ? [1, 5, 9] : shape)
            #expect(ParameterGroups.isMatrix(segment) == (shares[1] == 1), "\(name)")
        }
    }

    @Test(
        "GLoRA's tensors are reached by their letter, the head and others by name, and what is none is refused"
    )
    func factors() throws {
        let names = ["blocks.0.attn.qkv.Ad", "blocks.0.attn.qkv.Bu", "blocks.1.mlp.fc1.D", "head.weight"]
        let store = try ParameterStore(try CPUBackend(), names.map { .init($0, [4, 3], repeating: 0) })
        func rates(_ text: String) throws -> [Float] {
            let options = Self.options { $0.additions.learningRateFactors = [LearningRateFactor](word: text) }
            #expect(options.additions.learningRateFactors != nil)
            return try ParameterGroups(options, store, depth: 2).rates
        }
        #expect(try rates("A=0.5") == [0.5, 1, 1, 1])
        #expect(try rates("D=3,head=10,attn.qkv=2") == [2, 2, 3, 10])
        #expect(try rates("B=0") == [1, 0, 1, 1])
        let error = try #require(throws: TrainingError.self) { _ = try rates("E=2") }
        #expect("\(error)".contains("'E'"))
        let twice = try #require(throws: TrainingError.self) { _ = try rates("head=10,head=2") }
        #expect("\(twice)".contains("'head' twice"))
        for text in ["head", "head=", "=2", "head=-1", "head=nan", "head=1=2"] {
            #expect(LearningRateFactor(text) == nil, "\(text)")
        }
        let layered = try ParameterGroups(
            Self.options { $0.additions.layerDecay = 0.5 }, store, depth: 2)
        #expect(layered.rates == [0.25, 0.25, 0.5, 1])
    }

    @Test("A balanced sampler draws each class as often as the others, and each of its images")
    func sampler() throws {
        let vectors = Vectors()
        let options = Self.options { ($0.additions.sampler, $0.epochs) = (.balanced, 200) }
        try Trainer(
            try SoftmaxRegression(on: try CPUBackend()), options, training: vectors, validation: nil
        ).run()
        let drawn = vectors.begun.joined().joined()
        #expect(drawn.count == 200 * 24)
        var counts = [Int](repeating: 0, count: 24)
        for index in drawn { counts[index] += 1 }
        // 1,600 draws a class; five deviations of a binomial are 163.
        for range in [0..<12, 12..<20, 20..<24] {
            #expect(abs(counts[range].reduce(0, +) - 1600) < 163)
            let each = Double(1600) / Double(range.count)
            #expect(counts[range].allSatisfy { abs(Double($0) - each) < 6 * each.squareRoot() })
        }
        // The same seed, the same draws.
        let again = Vectors()
        try Trainer(
            try SoftmaxRegression(on: try CPUBackend()), options, training: again, validation: nil
        ).run()
        #expect(again.begun == vectors.begun)
    }

    @Test("A training ends when its validations get no better, also when it goes on from there")
    func patience() throws {
        let options = Self.options {
            ($0.additions.patience, $0.validateEvery, $0.learningRate) = (2, 3, 0)
            ($0.warmupLearningRate, $0.minimumLearningRate) = (0, 0)
        }
        func trainer() throws -> Trainer<SoftmaxRegression> {
            try Trainer(
                try SoftmaxRegression(on: try CPUBackend()), options, training: Vectors(),
                validation: Vectors(10))
        }
        let first = try trainer()
        #expect(try first.run() == .patience)
        // The first validation is the best, after 3 epochs; the second and third are no better.
        #expect(first.state.epoch == 9 && first.state.bestEpoch == 2)
        let second = try trainer()
        try second.restore(try first.snapshot())
        #expect(try second.run() == .patience)
        #expect(second.state.epoch == 9)
        let error = try #require(throws: TrainingError.self) {
            _ = try Trainer(
                try SoftmaxRegression(on: try CPUBackend()), options, training: Vectors(), validation: nil)
        }
        #expect("\(error)".contains("`patience` counts validations"))
    }

    @Test("A training ends when its time is up, behind a step, and says that it can go on")
    func timeLimit() throws {
        let options = Self.options {
            ($0.additions.timeLimit, $0.batchSize, $0.epochs) = (TimeLimit("1s"), 6, 1_000_000)
        }
        let trainer = try Trainer(
            try SoftmaxRegression(on: try CPUBackend()), options, training: Vectors(), validation: nil)
        let begin = ContinuousClock.now
        var saved = 0
        #expect(try trainer.run(save: { _ in saved += 1 }) == .timeLimit)
        #expect(begin.secondsPassed >= 1 && saved > 0 && !TrainingEnd.timeLimit.isFinished)
        #expect(trainer.state.step < options.epochs * 4)
    }

    @Test(
        "Times are read as they are written",
        arguments: [
            ("90s", 90, "1m30s"), ("1h30m", 5400, "1h30m"), ("2h5s", 7205, "2h5s"), ("45m", 2700, "45m"),
        ])
    func times(text: String, seconds: Int, written: String) {
        let limit = TimeLimit(text)
        #expect(limit?.seconds == seconds && limit?.description == written)
    }

    @Test(
        "What is no time is none",
        arguments: ["", "5", "0s", "m", "1m1h", "1m2m", "-3s", "1.5h", "999999999h"])
    func noTimes(text: String) { #expect(TimeLimit(text) == nil) }

    @Test("Settings that can't go together are refused by their names")
    func refusals() {
        typealias Change = (inout TrainingOptions) -> Void
        let cases: [(String, Change)] = [
            ("`epsilon`", { ($0.optimizer, $0.additions.epsilon) = (.lion, 1) }),
            ("`beta1` and `beta2`", { ($0.optimizer, $0.additions.beta2) = (.sgd, 0.5) }),
            ("`momentum`", { $0.additions.momentum = 0.5 }), ("`nesterov`", { $0.additions.nesterov = true }),
            (
                "`momentum 0`",
                {
                    ($0.optimizer, $0.additions.momentum, $0.additions.nesterov) = (.sgd, 0, true)
                }
            ),
            ("`warmup-steps`", { ($0.additions.schedule, $0.additions.warmupSteps) = (nil, 5) }),
            ("one-cycle", { ($0.additions.schedule, $0.additions.warmupSteps) = (.oneCycle, 5) }),
            (
                "`sampler balanced`",
                {
                    ($0.additions.sampler, $0.additions.classWeights) = (.balanced, "balanced")
                }
            ),
            ("`label-smoothing`", { $0.additions.labelSmoothing = 1 }),
            ("`clip-norm`", { $0.additions.clipNorm = 0 }), ("`ema`", { $0.additions.ema = 1 }),
            ("`accumulate`", { $0.additions.accumulate = 0 }), ("`patience`", { $0.additions.patience = 0 }),
        ]
        for (name, change) in cases {
            let error = #expect(throws: TrainingError.self) { try Self.options(change).validate() }
            #expect(error.map { "\($0)".contains(name) } == true, "\(name): \(String(describing: error))")
        }
        #expect(throws: Never.self) { try Self.options().validate() }
    }
}

extension ParameterStore.Segment {
    fileprivate static func stub(_ name: String, _ shape: [Int]) -> Self {
        let store = try! ParameterStore(try! CPUBackend(), [.init(name, shape, repeating: 0)])
        return store.segments[0]
    }
}
