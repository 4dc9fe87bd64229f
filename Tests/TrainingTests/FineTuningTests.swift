import Adapters
import Checkpoints
import Datasets
import Foundation
import TensorCore
import TestSupport
import Testing
import Training
import VisionModels

@testable import OpenCLBackend

@Suite("Fine-tuning runs", .serialized)
struct FineTuningTests {
    /// Trains `options` in `folder`, stopping after `stopAfter` steps if given; returns the losses of the steps.
    private func train(
        _ options: TrainingOptions, _ folder: URL, resumes: Bool = false, stopAfter: Int? = nil,
        training: InMemoryImages = TinyTask.images(21, seed: 1), on backend: any Backend
    ) throws -> [Double] {
        let tuning = try FineTuning(
            options, checkpoint: try TinyTask.checkpoint(), training: training,
            validation: TinyTask.images(12, seed: 2), in: RunDirectory(folder), resumes: resumes, on: backend)
        var losses: [Double] = []
        let end = try tuning.run(
            onEvent: { if case .step(let progress) = $0 { losses.append(progress.loss) } },
            shouldStop: { stopAfter.map { losses.count >= $0 } ?? false })
        #expect(end == (stopAfter == nil ? .epochs : .stopped))
        return losses
    }

    @Test(
        "A run that was stopped and resumed has the losses and the bytes of one that wasn't",
        arguments: TestDevice.all, [("supernet", 3), ("supernet", 2), ("full", 5), ("none", 4)])
    func resume(_ device: TestDevice, _ what: (path: String, stopAfter: Int)) throws {
        try TinyTask.withRun(on: device) { backend, folder in
            for mode in AdamW.Mode.allCases {
                var options = TinyTask.options()
                options.path = what.path
                options.adamw = mode
                let (whole, parts) = (
                    folder.appendingPathComponent("whole-\(mode)"),
                    folder.appendingPathComponent("parts-\(mode)")
                )
                let expected = try train(options, whole, on: backend)
                #expect(expected.count == 6)
                var losses = try train(options, parts, stopAfter: what.stopAfter, on: backend)
                losses += try train(options, parts, resumes: true, on: backend)
                #expect(losses == expected)
                for name in [
                    "last.safetensors", "best.safetensors", "metrics.jsonl",
                    "adapter/adapter_model.safetensors",
                ] {
                    let (one, other) = (
                        try Data(contentsOf: whole.appendingPathComponent(name)),
                        try Data(contentsOf: parts.appendingPathComponent(name))
                    )
                    #expect(one == other && !one.isEmpty, "\(name)")
                }
            }
        }
    }

    /// Every addition that can go together, in the two orders in which optimizers and supernets differ most.
    @Test(
        "With everything that practitioners add, a run that was stopped and resumed has the losses and the bytes of one that wasn't",
        arguments: TestDevice.all, [1, 2, 4, 5])
    func resumeWithEverything(_ device: TestDevice, _ stopAfter: Int) throws {
        try TinyTask.withRun(on: device) { backend, folder in
            for (path, optimizer) in [
                ("supernet", TrainingOptions.OptimizerName.adamw), ("full", .lion), ("full", .sgd),
            ] {
                let weights = folder.appendingPathComponent("weights.txt")
                try Data("0 1\n1 2\n2 0.5\n".utf8).write(to: weights)
                var options = TinyTask.options()
                (options.path, options.optimizer, options.batchSize) = (path, optimizer, 4)
                options.memory = .lowest
                options.dropLast = false
                var additions = TrainingAdditions()
                additions.augment = "fewshot,vflip=0.3,jitter=0.4"
                (additions.labelSmoothing, additions.classWeights) = (0.1, weights.path)
                (additions.sampler, additions.accumulate, additions.clipNorm) = (.balanced, 2, 0.5)
                (additions.decay, additions.layerDecay) = (.matrices, 0.8)
                additions.learningRateFactors = [LearningRateFactor("head=2")!]
                (additions.schedule, additions.warmupSteps) = (.cosine, 2)
                (additions.ema, additions.patience) = (0.8, 50)
                (additions.checkpointEvery, additions.keep) = (1, 2)
                additions.timeLimit = TimeLimit("1h")
                additions.logDirectory = folder.appendingPathComponent("logs-\(path)-\(optimizer)").path
                switch optimizer {
                case .adamw: (additions.beta1, additions.beta2, additions.epsilon) = (0.8, 0.99, 1e-6)
                case .sgd: (additions.momentum, additions.nesterov) = (0.8, true)
                case .lion: additions.beta2 = 0.95
                }
                options.additions = additions
                let (whole, parts) = (
                    folder.appendingPathComponent("whole-\(path)-\(optimizer)"),
                    folder.appendingPathComponent("parts-\(path)-\(optimizer)")
                )
                let expected = try train(options, whole, on: backend)
                #expect(expected.count == 9)
                var losses = try train(options, parts, stopAfter: stopAfter, on: backend)
                losses += try train(options, parts, resumes: true, on: backend)
                #expect(losses == expected, "\(path), \(optimizer)")
                for name in [
                    "last.safetensors", "best.safetensors", "metrics.jsonl",
                    "adapter/adapter_model.safetensors",
                ] {
                    let (one, other) = (
                        try Data(contentsOf: whole.appendingPathComponent(name)),
                        try Data(contentsOf: parts.appendingPathComponent(name))
                    )
                    #expect(one == other && !one.isEmpty, "\(name) of \(path), \(optimizer)")
                }
                let kept = try FileManager.default
                    .contentsOfDirectory(atPath: parts.appendingPathComponent("checkpoints").path).sorted()
                #expect(kept == ["step-000000008.safetensors", "step-000000009.safetensors"])
                let last = try TrainingSnapshot(contentsOf: RunDirectory(parts).last)
                #expect(last.averages != nil && last.result == last.averages && last.result != last.values)
                // The adapter is that of the averages.
                let best = try TrainingSnapshot(contentsOf: RunDirectory(parts).best)
                let adapter = try SafetensorsFile(
                    parts.appendingPathComponent("adapter/adapter_model.safetensors"))
                let head = try adapter.tensor("base_model.model.head.weight")
                #expect(head == best.averages?["head.weight"])
            }
        }
    }

    @Test("Two runs of one name don't share a folder of events")
    func eventsOfAnother() throws {
        try TinyTask.withRun(on: .cpu) { backend, folder in
            var options = TinyTask.options()
            options.path = "none"
            options.additions.logDirectory = folder.appendingPathComponent("logs").path
            let run = folder.appendingPathComponent("a/run")
            _ = try train(options, run, stopAfter: 1, on: backend)
            // The run itself goes on.
            _ = try train(options, run, resumes: true, on: backend)
            let other = folder.appendingPathComponent("b/run")
            let error = try #require(throws: TrainingError.self) {
                _ = try train(options, other, on: backend)
            }
            #expect("\(error)".contains("logs/run holds the events of another run"))
            #expect(!FileManager.default.fileExists(atPath: other.path))
            options.additions.logDirectory = "/dev/null/logs"
            #expect(throws: TrainingError.self) { _ = try train(options, other, on: backend) }
            #expect(!FileManager.default.fileExists(atPath: other.path))
        }
    }

    @Test("Augmented images reach the training, and not the validation")
    func augmentation() throws {
        try TinyTask.withRun(on: .cpu) { backend, folder in
            var options = TinyTask.options(epochs: 2)
            (options.path, options.learningRate, options.dropPath) = ("none", 0, 0)
            (options.warmupLearningRate, options.minimumLearningRate) = (0, 0)
            options.batchSize = 21
            let plain = try train(options, folder.appendingPathComponent("plain"), on: backend)
            #expect(plain[0] == plain[1] || abs(plain[0] - plain[1]) < 1e-6)
            options.additions.augment = "light"
            let light = try train(options, folder.appendingPathComponent("light"), on: backend)
            // Nothing is learned, so that only the images differ, in each epoch anew.
            #expect(Set([plain[0], light[0], light[1]]).count == 3)
            func validation(_ name: String) throws -> [Double] {
                try RunDirectory(folder.appendingPathComponent(name)).epochMetrics().compactMap(\.valLoss)
            }
            #expect(try validation("plain") == validation("light"))
            // Mixed images have soft labels: half of two classes is at least ln 2 away from either.
            options.additions.augment = "none,mixup=1000"
            let mixed = try train(options, folder.appendingPathComponent("mixed"), on: backend)
            #expect(mixed[0] != plain[0] && mixed[0] > 0.3)
            options.additions.augment = "ligth"
            #expect(throws: TrainingError.self) { try options.validate() }
        }
    }

    @Test(
        "Training learns: the loss falls and the validation images are told apart", arguments: TestDevice.all)
    func learns(_ device: TestDevice) throws {
        try TinyTask.withRun(on: device) { backend, folder in
            var options = TinyTask.options(epochs: 12)
            options.path = "full"
            options.dropPath = 0
            let losses = try train(options, folder, on: backend)
            #expect(losses.allSatisfy { $0.isFinite })
            #expect(losses.last! < 0.5 * losses.first!)
            let state = try TrainingSnapshot(contentsOf: RunDirectory(folder).best).state
            #expect(state.bestAccuracy! > 0.9)
        }
    }

    @Test(
        "A device that fails in the middle of a run leaves the state that was saved last, from which it goes on",
        arguments: ["step", "last step", "epoch", "validation"])
    func deviceFails(_ place: String) throws {
        try TinyTask.withFolder { folder in
            try TestDevice.withOpenCL(.float32) { backend in
                let whole = folder.appendingPathComponent("whole")
                _ = try train(TinyTask.options(), whole, on: backend)
                let parts = RunDirectory(folder.appendingPathComponent("parts"))
                // Two steps an epoch; the second epoch doesn't end.
                let tuning = try FineTuning(
                    TinyTask.options(), checkpoint: try TinyTask.checkpoint(),
                    training: TinyTask.images(21, seed: 1), validation: TinyTask.images(12, seed: 2),
                    in: parts,
                    on: backend)
                var saved: [Data] = []
                func files() throws -> [Data] {
                    try [parts.last, parts.best].map { try Data(contentsOf: $0) }
                }
                var after: [String] = []
                let error = try #require(throws: BackendError.self) {
                    _ = try tuning.run(
                        onEvent: { event in
                            let now =
                                switch event {
                                case .step(let progress) where progress.step == 3: "step"
                                case .step(let progress) where progress.step == 4: "last step"
                                case .epoch(1, _, _): "epoch"
                                case .validation(1, _): "validation"
                                default: ""
                                }
                            if !saved.isEmpty { after.append(now) }
                            guard now == place else { return }
                            saved = (try? files()) ?? []
                            backend.perform("add_product") { -4 }
                        }, shouldStop: { false })
                }
                let file = parts.last.path
                let sentence = """
                    \(backend.name) ran out of memory (add_product failed with CL_MEM_OBJECT_ALLOCATION_FAILURE \
                    (-4)): use a smaller `batch-size` or another `device`; the state after step 2 is kept in \
                    \(file), go on from it with `resume` (a smaller batch needs another folder)
                    """
                #expect("\(error)" == sentence)
                #expect(try files() == saved)
                // Nothing was told that the device hadn't computed.
                #expect(after == (place == "last step" ? ["epoch"] : []))
                _ = try train(
                    TinyTask.options(), parts.url, resumes: true,
                    on: try OpenCLBackend(device: backend.device))
                for name in ["last.safetensors", "best.safetensors", "metrics.jsonl"] {
                    #expect(
                        try Data(contentsOf: whole.appendingPathComponent(name))
                            == Data(contentsOf: parts.url.appendingPathComponent(name)), "\(name)")
                }
            }
        }
    }

    @Test("A device that fails while it scores gives no score")
    func deviceFailsAtEvaluation() throws {
        try TestDevice.withOpenCL(.float32) { backend in
            let checkpoint = try TinyTask.checkpoint()
            let model = try VisionTransformer(
                checkpoint, classCount: 3, method: Backbone.frozen, seed: 1, on: backend)
            let images = PreparedImages(
                TinyTask.images(12, seed: 2),
                try checkpoint.configuration.preprocessor)
            var batches = 0
            #expect(throws: BackendError.self) {
                _ = try evaluate(
                    model, on: images, batchSize: 4, isForTraining: true
                ) { _, _ in
                    batches += 1
                    if batches == 2 { backend.perform("add_product") { -36 } }
                }
            }
            #expect(batches == 2)
            // Nor tensors to save.
            #expect(throws: BackendError.self) { try model.merged() }
            #expect(throws: BackendError.self) { try model.adapter() }
        }
    }

    @Test("A training set smaller than a batch is one batch, drop-last or not", arguments: [true, false])
    func smallSet(dropLast: Bool) throws {
        try TinyTask.withRun(on: .cpu) { backend, folder in
            var options = TinyTask.options(epochs: 2)
            options.dropLast = dropLast
            let losses = try train(options, folder, training: TinyTask.images(5, seed: 1), on: backend)
            #expect(losses.count == 2)
        }
    }

    @Test("Without drop-last the last, smaller batch counts")
    func keepsLast() throws {
        try TinyTask.withRun(on: .cpu) { backend, folder in
            var options = TinyTask.options(epochs: 1)
            options.dropLast = false
            let losses = try train(options, folder, on: backend)
            #expect(losses.count == 3)
        }
    }

    @Test("A loss that is not a number stops the run, names the step and keeps the last good checkpoint")
    func notANumber() throws {
        try TinyTask.withRun(on: .cpu) { backend, folder in
            var options = TinyTask.options(epochs: 8)
            options.path = "full"
            options.learningRate = 1e20
            options.warmupEpochs = 2
            options.warmupLearningRate = 1e-6
            let error = try #require(throws: TrainingError.self) { try train(options, folder, on: backend) }
            guard case .notANumber(let step, _) = error else {
                Issue.record("another error: \(error)")
                return
            }
            #expect(step > 4)
            let last = try TrainingSnapshot(contentsOf: RunDirectory(folder).last)
            #expect(last.state.step < step && last.state.step >= 4)
        }
    }

    @Test("A run goes on only with its own base and data, and a folder with a run isn't overwritten")
    func refusals() throws {
        try TinyTask.withRun(on: .cpu) { backend, folder in
            let options = TinyTask.options()
            let directory = RunDirectory(folder)
            _ = try train(options, folder, stopAfter: 1, on: backend)
            func attempt(_ checkpoint: ViTCheckpoint, _ images: InMemoryImages, resumes: Bool) throws {
                _ = try FineTuning(
                    options, checkpoint: checkpoint, training: images,
                    validation: TinyTask.images(12, seed: 2),
                    in: directory, resumes: resumes, on: backend)
            }
            let (base, data) = (try TinyTask.checkpoint(), TinyTask.images(21, seed: 1))
            for (run, word) in [
                ({ try attempt(try TinyTask.checkpoint(seed: 9), data, resumes: true) }, "not the model"),
                ({ try attempt(base, TinyTask.images(21, seed: 5), resumes: true) }, "not the data"),
                ({ try attempt(base, data, resumes: false) }, "already holds a run"),
            ] {
                let error = try #require(throws: TrainingError.self) { try run() }
                #expect("\(error)".contains(word))
            }
            try attempt(base, data, resumes: true)
        }
    }

    @Test("Too little memory is an error before a step's is taken, with the batch that would fit")
    func memory() throws {
        try TinyTask.withRun(on: .cpu) { backend, folder in
            var options = TinyTask.options()
            options.batchSize = TrainingOptions.largestBatch
            let many = CountedImages(count: 1 << 40)
            let error = try #require(throws: TrainingError.self) {
                _ = try FineTuning(
                    options, checkpoint: try TinyTask.checkpoint().interpolated(toImageSize: 512),
                    training: many, validation: nil, in: RunDirectory(folder), on: backend)
            }
            let text = "\(error)"
            #expect(text.contains("needs about") && text.contains("`batch-size "))
        }
    }
}

/// As many images as are asked for, never drawn.
private struct CountedImages: ImageSource {
    let name = "counted"
    let count: Int
    let classCount = 3
    let contentHash: UInt64 = 1
    func label(at index: Int) -> Int { 0 }
    func image(at index: Int) throws -> RGBImage { throw DatasetError("no image") }
}
