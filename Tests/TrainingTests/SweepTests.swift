import Adapters
import Experiments
import Foundation
import Testing
import Training

@Suite("What a sweep's file says, and which trials it makes")
struct SweepTests {
    private static let head = "model: vit\ndata: task\nepochs: 20\n"

    private func sweep(_ text: String) throws -> Sweep { try Sweep(yaml: Self.head + text, name: "s.yaml") }

    @Test("A grid has every combination, the last key changing fastest")
    func grid() throws {
        let sweep = try sweep(
            "sweep: {method: [lora, ssf, 'glora:full'], lr: [1e-4, 0.001]}\nranks: [8, 4]\n")
        #expect(
            sweep.trials.map(\.words) == [
                ["lora", "1e-4"], ["lora", "0.001"], ["ssf", "1e-4"], ["ssf", "0.001"],
                ["glora:full", "1e-4"], ["glora:full", "0.001"],
            ])
        #expect(sweep.trials.map(\.number) == Array(1...6))
        #expect(sweep.text(sweep.trials[3]) == "method ssf, lr 0.001")
        let options = sweep.options(sweep.trials[3], seed: 7)
        #expect(options.method == .ssf && options.learningRate == 1e-3 && options.seed == 7)
        // What isn't said is the method's own; GLoRA's path stands behind the method's colon.
        #expect(options.weightDecay == 5e-5 && options.epochs == 20 && options.ranks == [8, 4])
        let full = sweep.options(sweep.trials[4], seed: 0)
        #expect(full.method == .glora && full.path == "full" && full.weightDecay == 1e-4)
        #expect(MethodEntry(of: full).description == "glora:full")
        // A supernet that is trained, and none that is searched.
        #expect(!MethodEntry(of: TrainingOptions()).isSearched)
    }

    private static let ranges = """
        search: random
        trials: 200
        sweep: {lr: {log: [1e-5, 1e-1]}, drop-path: {uniform: [0.1, 0.3]}, warmup-epochs: {integers: [2, 4]},
          optimizer: [adamw, sgd]}

        """

    @Test("Draws stay in their bounds, those of log with a uniform logarithm, and are the seed's")
    func draws() throws {
        let sweep = try sweep(Self.ranges)
        let all = sweep.trials.map { sweep.options($0, seed: 0) }
        #expect(all.count == 200 && Set(sweep.trials.map(\.words)).count == 200)
        #expect(all.allSatisfy { (1e-5...1e-1).contains($0.learningRate) })
        #expect(all.allSatisfy { (0.1...0.3).contains($0.dropPath) })
        #expect(Set(all.map(\.warmupEpochs)) == [2, 3, 4] && Set(all.map(\.optimizer)) == [.adamw, .sgd])
        // Half lie below the geometric mean (of 200, 100 ± 7); drawn uniformly, 2 would.
        #expect((70...130).contains(all.count { $0.learningRate < 1e-3 }))
        #expect((70...130).contains(all.count { $0.dropPath < 0.2 }))
        #expect(try self.sweep(Self.ranges).trials == sweep.trials)
        let others = try self.sweep(Self.ranges + "seed: 1\n").trials
        #expect(zip(others, sweep.trials).allSatisfy { $0.words != $1.words })
        // Fewer draws are the same ones.
        let fewer = try self.sweep(Self.ranges.replacing("200", with: "20")).trials
        #expect(fewer == Array(sweep.trials.prefix(20)))
    }

    @Test("No draw comes twice; of a small space there are all")
    func small() throws {
        let sweep = try sweep("search: random\ntrials: 50\nsweep: {rank: [2, 4], method: [lora, fact-tt]}\n")
        #expect(sweep.trials.count == 4 && Set(sweep.trials.map(\.words)).count == 4)
    }

    @Test("A third of 27 trials is 9, of 4 one, and one always goes on")
    func halving() throws {
        let text = "sweep: {lr: [1e-4, 1e-3]}\nhalving: {epochs: [2, 6, 20], keep: 0.333}\n"
        let (standard, sweep) = (try sweep(text), try sweep(text + "recipe: original\n"))
        let halving = try #require(sweep.halving)
        #expect([27, 9, 3, 4, 5, 1].map(halving.kept) == [9, 3, 1, 1, 2, 1])
        // The warm-up is shortened like the training.
        func warmups(_ sweep: Sweep) -> [Int] {
            [2, 3, 6, 20].map { sweep.options(sweep.trials[0], epochs: $0, seed: 0).warmupEpochs }
        }
        #expect(warmups(sweep) == [0, 1, 3, 10] && warmups(standard) == [0, 1, 1, 1])
        // Without rungs the images say how long, where the file doesn't.
        func epochs(_ text: String) throws -> Int {
            let sweep = try Sweep(yaml: "model: vit\ndata: task\n" + text, name: "s.yaml")
            return sweep.options(sweep.trials[0], imageCount: 800, seed: 0).epochs
        }
        #expect(try epochs("sweep: {lr: [1e-4, 1e-3]}\n") == 15)
        #expect(try epochs("epochs: 7\nsweep: {lr: [1e-4, 1e-3]}\n") == 7)
        // Whatever the rung, some of it is trained at the rate that is searched for.
        for epochs in 1...20 {
            let schedule = sweep.options(sweep.trials[1], epochs: epochs, seed: 0).cosineSchedule
            #expect((0..<epochs).contains { schedule.learningRate(inEpoch: $0) > 2e-4 }, "\(epochs)")
        }
        #expect(sweep.options(sweep.trials[0], epochs: 6, seed: 0).epochs == 6)
        let most = try self.sweep("sweep: {lr: [1e-4, 1e-3]}\nhalving: {epochs: [2, 20], keep: 0.9}\n")
            .halving
        #expect(most?.kept(of: 3) == 3 && most?.kept(of: 10) == 9)
    }

    @Test("Trials are ranked by rung, accuracy, loss and number; what failed is last on its rung")
    func ranking() throws {
        let trials = try sweep("sweep: {lr: [1, 2, 3, 4, 5, 6]}").trials
        func score(_ index: Int, _ rung: Int, _ accuracy: Double?, _ loss: Double?) -> TrialScore {
            TrialScore(
                trial: trials[index], rung: rung, epochs: rung,
                validation: Spread([accuracy].compactMap { $0 }),
                loss: loss)
        }
        let ranked = TrialScore.ranked([
            score(0, 0, nil, nil), score(1, 0, 0.9, 1), score(2, 1, 0.5, 2), score(3, 1, 0.5, 1),
            score(5, 1, 0.6, 3), score(4, 1, 0.5, 1),
        ])
        #expect(ranked.map(\.trial.number) == [6, 4, 5, 3, 2, 1])
    }

    @Test("Another sweep is told by its keys; where the model and the data lie, and the test, make none")
    func differences() throws {
        let text = "sweep: {lr: [1e-4, 1e-3]}\n"
        let begun = try sweep(text)
        let moved = try Sweep(
            yaml: "model: a\ndata: b\nepochs: 20\ntest: true\ndevice: cpu\n" + text, name: "s.yaml")
        #expect(moved.differences(from: begun).isEmpty)
        #expect(
            try sweep("sweep: {lr: [1e-4]}\n").differences(from: begun)
                == ["'lr' is [1e-4, 1e-3] there, [1e-4] here"])
        for more in ["seeds: [0, 1]", "batch-size: 8", "halving: {epochs: [2, 20], keep: 0.5}"] {
            #expect(try sweep(text + more).differences(from: begun).count == 1, "\(more)")
        }
    }

    @Test(
        "What can't be meant is refused with its key",
        arguments: [
            ("sweep: {lr: [1e-4]}\nlearning-speed: 3", "'learning-speed'"),
            ("sweep: {learning-speed: [3]}", "'learning-speed'"),
            ("sweep: {lr: [fast]}", "'lr' can't be 'fast'"),
            ("sweep: {lr: [-1]}", "`lr` must be a number from 0 on, not -1.0"),
            ("sweep: {method: [loar]}", "'method' can't be 'loar'; there are glora, lora"),
            ("sweep: {lr: [1e-4, 0.0001]}", "'lr' lists 0.0001 twice"),
            ("sweep: {lr: []}", "'lr' lists nothing"), ("sweep: {lr: 1e-4}", "'lr', which varies"),
            ("sweep: {lr: [1e-4]}\nlr: 1e-3", "'lr' is both"), ("sweep: {}", "'sweep' holds"),
            ("lr: 1e-3", "'sweep' is missing"), ("sweep: {data: [a, b]}", "'data' can't vary"),
            ("sweep: {seed: [0, 1]}", "'seed' can't vary"),
            ("sweep: {train-split: [train800]}", "'train-split' can't vary"),
            ("sweep: {lr: [1]}\ntime-limit: 1h", "'time-limit' is not for sweeps"),
            ("sweep: {log-dir: [a, b]}", "'log-dir' is not for sweeps"),
            ("sweep: {lr: {log: [1e-5, 1e-1]}}", "'lr' is a range"),
            ("sweep: {lr: [1]}\nsearch: bayes", "'search' is grid or random"),
            ("sweep: {lr: [1]}\nsearch: random", "'trials' is missing"),
            ("sweep: {lr: [1]}\ntrials: 3", "'trials' goes with"),
            ("sweep: {lr: [1]}\ntrials: 0", "'trials' is a number"),
            ("search: random\ntrials: 3\nsweep: {lr: {log: [0, 1]}}", "'lr': the first bound"),
            ("search: random\ntrials: 3\nsweep: {lr: {uniform: [2, 1]}}", "'lr': the first bound"),
            ("search: random\ntrials: 3\nsweep: {lr: {integers: [1, 2]}}", "'lr' is a number"),
            ("search: random\ntrials: 3\nsweep: {rank: {log: [1, 2]}}", "'rank' is a whole number"),
            (
                "search: random\ntrials: 3\nsweep: {rank: {integers: [1, 5000]}}",
                "`rank` must be from 1 to 4096"
            ),
            ("search: random\ntrials: 3\nsweep: {lr: {normal: [1, 2]}}", "'lr', which varies"),
            ("search: random\ntrials: 3\nsweep: {method: {uniform: [1, 2]}}", "'method' is no number"),
            ("sweep: {lr: [1]}\nseeds: [0, 0]", "'seeds' lists different"),
            ("sweep: {lr: [1]}\nseeds: 3", "'seeds' lists different"),
            ("sweep: {lr: [1]}\ntest: maybe", "'test' is true or false"),
            ("sweep: {lr: [1]}\nhalving: {epochs: [6, 2], keep: 0.5}", "'halving' is such as"),
            ("sweep: {lr: [1]}\nhalving: {epochs: [6], keep: 0.5}", "'halving' is such as"),
            ("sweep: {lr: [1]}\nhalving: {epochs: [2, 20], keep: 1}", "'halving' is such as"),
            ("sweep: {lr: [1]}\nhalving: {epochs: [2, 6], keep: 0.5}", "'epochs' is 20, and the last"),
            ("sweep: {epochs: [1, 2]}\nlr: 1e-4", "'epochs' is both"),
            ("sweep: {method: [lora], path: [full]}", "trial 1 (method lora, path full): `path`"),
            ("sweep: {method: ['glora:full']}\npath: none", "'path' is said by 'method'"),
            (
                "sweep: {lr: [\((1...101).map(String.init).joined(separator: ","))], weight-decay: [\((1...100).map(String.init).joined(separator: ","))]}",
                "more than 10000 trials"
            ),
            ("sweep: [lr]", "'sweep' holds"), ("sweep: {lr: [1}", "not YAML"),
        ])
    func refusals(_ text: String, _ words: String) throws {
        let error = try #require(throws: TrainingError.self) { _ = try sweep(text) }
        #expect(error.description.hasPrefix("s.yaml"), "\(error)")
        #expect(error.description.contains(words), "\(error)")
    }

    @Test("Model and data are asked for")
    func missing() throws {
        for (text, key) in [("data: task\n", "'model'"), ("model: vit\n", "'data'")] {
            let error = try #require(throws: TrainingError.self) {
                _ = try Sweep(yaml: text + "sweep: {lr: [1]}", name: "s.yaml")
            }
            #expect(error.description.contains("\(key) is missing"))
        }
    }
}
