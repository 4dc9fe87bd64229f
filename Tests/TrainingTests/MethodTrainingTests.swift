import Adapters
import Checkpoints
import Foundation
import TensorCore
import TestSupport
import Testing
import Training

/// Runs of the methods that GLoRA is compared with: exact resume, what their folders hold, and what their authors set.
@Suite("Runs of the methods that GLoRA is compared with", .serialized)
struct MethodTrainingTests {
    private func options(_ method: MethodName) -> TrainingOptions {
        var options = TrainingOptions(method: method, batchSize: 8)
        options.model = "tiny"
        options.data = "tiny"
        options.epochs = 3
        options.warmupEpochs = 1
        options.learningRate = options.optimizer == .sgd ? 0.05 : 1e-2
        options.validateEvery = 1
        if [.factTT, .factTK, .lora].contains(method) { options.methodSettings.rank = 3 }
        if method == .noah { options.methodSettings.dims = "2:2:3,1:0:2" }
        if method == .vptDeep { options.methodSettings.dropout = 0.2 }
        return options
    }

    private func train(
        _ options: TrainingOptions, _ folder: URL, resumes: Bool = false, stopAfter: Int? = nil,
        on backend: any Backend
    ) throws -> [Double] {
        let tuning = try FineTuning(
            options, checkpoint: try TinyTask.checkpoint(), training: TinyTask.images(21, seed: 1),
            validation: TinyTask.images(12, seed: 2), in: RunDirectory(folder), resumes: resumes, on: backend)
        var losses: [Double] = []
        _ = try tuning.run(
            onEvent: { if case .step(let progress) = $0 { losses.append(progress.loss) } },
            shouldStop: { stopAfter.map { losses.count >= $0 } ?? false })
        return losses
    }

    /// Dropout, batch norm's statistics and SGD's velocities are part of what a run goes on from.
    @Test(
        "A stopped and resumed run of any method has the losses and the bytes of a whole one",
        arguments: TestDevice.all, MethodName.allCases.filter { $0 != .glora })
    func resumes(_ device: TestDevice, _ method: MethodName) throws {
        try TinyTask.withRun(on: device) { backend, folder in
            let options = options(method)
            let (whole, parts) = (folder.appendingPathComponent("a"), folder.appendingPathComponent("b"))
            let expected = try train(options, whole, on: backend)
            #expect(expected.count == 6 && expected.allSatisfy(\.isFinite))
            #expect(Set(expected).count == 6)
            var losses = try train(options, parts, stopAfter: 3, on: backend)
            losses += try train(options, parts, resumes: true, on: backend)
            #expect(losses == expected)
            for name in ["last.safetensors", "best.safetensors", "adapter/adapter_model.safetensors"] {
                let (one, other) = (
                    try Data(contentsOf: whole.appendingPathComponent(name)),
                    try Data(contentsOf: parts.appendingPathComponent(name))
                )
                #expect(one == other && !one.isEmpty, "\(name)")
            }
        }
    }

    @Test(
        "A run and its adapter alone score what the training's validation said",
        arguments: MethodName.allCases.filter { $0 != .glora })
    func adapters(_ method: MethodName) throws {
        try TinyTask.withRun(on: .cpu) { backend, folder in
            let model = folder.appendingPathComponent("model")
            try TinyTask.checkpoint().saveTimm(to: model)
            var options = options(method)
            options.model = model.path
            options.epochs = 1
            let run = RunDirectory(folder.appendingPathComponent("run"))
            let images = TinyTask.images(12, seed: 2)
            let tuning = try FineTuning(
                options, checkpoint: try options.loadCheckpoint(), training: TinyTask.images(21, seed: 1),
                validation: images, in: run, on: backend)
            var validation: EvaluationResult?
            _ = try tuning.run(
                onEvent: { if case .validation(_, let scored) = $0 { validation = scored.result } },
                shouldStop: { false })
            let expected = try #require(validation)
            var opened = TrainingOptions()
            opened.model = model.path
            for ready in [
                try ReadyModel(run: run, state: .last, on: backend),
                try ReadyModel(opened, adapter: run.adapter, on: backend),
            ] {
                let score = try evaluate(
                    ready.model, on: try ready.prepare(images), batchSize: 8)
                #expect(score.correct == expected.correct)
                #expect(abs(score.loss - expected.loss) < 1e-5)
            }
            let config = try JSONValue(
                contentsOf: run.adapter.appendingPathComponent("adapter_config.json"))
            if method == .lora {
                #expect(config["peft_type"] == "LORA" && config["r"] == 6 && config["lora_alpha"] == 6)
            } else {
                #expect(config["glora_method"]?.stringValue == method.rawValue)
            }
            #expect(throws: TrainingError.self) {
                try ReadyModel(run: run, state: .last, path: "full", on: backend)
            }
        }
    }

    @Test("The defaults are the authors'")
    func defaults() {
        let adaptformer = TrainingOptions(method: .adaptformer, batchSize: 128)
        #expect(adaptformer.optimizer == .sgd && adaptformer.head == .batchNorm)
        #expect(adaptformer.learningRate == 0.05 && adaptformer.weightDecay == 0)
        #expect(adaptformer.warmupEpochs == 20 && adaptformer.epochs == 100)
        let vpt = TrainingOptions(method: .vptDeep)
        #expect(vpt.optimizer == .sgd && vpt.head == .vpt && vpt.learningRate == 0.25)
        let ssf = TrainingOptions(method: .ssf)
        #expect(ssf.optimizer == .adamw && ssf.weightDecay == 5e-5 && ssf.learningRate == 1e-3)
        let fact = TrainingOptions(method: .factTK)
        #expect(fact.learningRate == 1e-3 && fact.weightDecay == 1e-4 && fact.dropPath == 0.1)
        #expect(TrainingOptions(method: .glora) == TrainingOptions())
    }

    @Test("A path and a recipe belong to GLoRA")
    func refusesPaths() {
        var options = TrainingOptions(method: .lora)
        options.path = "full"
        #expect(throws: TrainingError.self) { try options.validate() }
        options.path = "supernet"
        options.recipe = .sandwich
        #expect(throws: TrainingError.self) { try options.validate() }
        options.recipe = .original
        #expect(throws: Never.self) { try options.validate() }
    }
}
