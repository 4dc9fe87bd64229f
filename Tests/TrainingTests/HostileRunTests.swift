import Adapters
import CPUBackend
import Checkpoints
import Foundation
import SupernetSearch
import TensorCore
import TestSupport
import Testing

@testable import Training

@Suite("What a run's folder says is checked before anything is computed from it")
struct HostileRunTests {
    private func sentence(_ body: () throws -> Void) -> String {
        do { try body() } catch { return "\(error)" }
        return "nothing"
    }

    @Test("A state that no run can have is refused")
    func statesThatNoRunHas() throws {
        let options = TinyTask.options()
        for (part, change) in [
            ("step", { $0.step = .max }), ("step -5", { $0.step = -5 }), ("epoch", { $0.epoch = .max }),
            ("epoch", { $0.epoch = -1 }), ("in an epoch", { $0.stepInEpoch = .min }),
            ("in an epoch", { $0.stepInEpoch = 1 << 62 }), ("a loss of nan", { $0.epochLoss = .nan }),
            ("an accuracy of 1e+300", { $0.bestAccuracy = 1e300 }),
            ("an accuracy of -1.0", { $0.lastAccuracy = -1 }), ("the best epoch", { $0.bestEpoch = .max }),
            ("steps of x", { $0.stepCounts["x"] = -1 }), ("steps of x", { $0.stepCounts["x"] = .max }),
            ("another precision", { $0.lossScale = LossScale() }),
        ] as [(String, (inout TrainingState) -> Void)] {
            var state = TrainingState()
            (state.epoch, state.stepInEpoch, state.step) = (2, 1, 9)
            state.stepCounts = ["x": 9]
            try state.check(options, stepsPerEpoch: 4)
            change(&state)
            let said = sentence { try state.check(options, stepsPerEpoch: 4) }
            #expect(said.contains(part) && said.contains("can't have reached"), "\(said)")
        }
    }

    @Test("A loss scale that no run can have is refused")
    func lossScalesThatNoRunHas() throws {
        var options = TinyTask.options()
        options.precision = .float16
        for json in [
            #"{"factor": 0, "goodSteps": 0}"#, #"{"factor": -2, "goodSteps": 0}"#,
            #"{"factor": 2, "goodSteps": 9223372036854775807}"#, #"{"factor": 2, "goodSteps": -1}"#,
        ] {
            var state = TrainingState()
            state.lossScale = try JSONDecoder().decode(LossScale.self, from: Data(json.utf8))
            let said = sentence { try state.check(options, stepsPerEpoch: 4) }
            #expect(said.contains("the loss scale"), "\(said)")
        }
    }

    @Test("Settings out of bounds are refused by their name")
    func settingsOutOfBounds() {
        for (part, change) in [
            ("`batch-size`", { $0.batchSize = 1 << 62 }), ("`batch-size`", { $0.batchSize = 0 }),
            ("`image-size`", { $0.imageSize = .max }), ("`epochs`", { $0.epochs = .max }),
            ("`ranks`", { $0.ranks = [1 << 62] }),
        ] as [(String, (inout TrainingOptions) -> Void)] {
            var options = TinyTask.options()
            change(&options)
            let said = sentence { try options.validate() }
            #expect(said.contains(part), "\(said)")
        }
        for (part, method, change) in [
            ("`rank 4096`", .factTK, { $0.methodSettings.rank = 4096 }),
            ("`rank 65`", .lora, { $0.methodSettings.rank = 65 }),
            ("`dims`", .noah, { $0.methodSettings.dims = "9223372036854775807:1:1" }),
            ("`dims`", .noah, { $0.methodSettings.dims = "0:4097:0" }),
            ("`prompts`", .vptDeep, { $0.methodSettings.prompts = 1 << 62 }),
            ("`ranks 65`", .glora, { $0.ranks = [65] }),
        ] as [(String, MethodName, (inout TrainingOptions) -> Void)] {
            var options = TrainingOptions(method: method)
            change(&options)
            let said = sentence { _ = try options.tuningMethod(TinyTask.checkpoint().configuration.shape) }
            #expect(said.contains(part), "\(said)")
        }
    }

    @Test("Edited files of a run are refused by name")
    func editedFilesOfARun() throws {
        try TinyTask.withRun(on: .cpu) { backend, folder in
            let directory = RunDirectory(folder.appendingPathComponent("run"))
            _ = try FineTuning(
                TinyTask.options(), checkpoint: TinyTask.checkpoint(), training: TinyTask.images(8, seed: 1),
                validation: nil, in: directory, on: backend)
            let config = directory.url.appendingPathComponent("config.yaml")
            let text = try String(contentsOf: config, encoding: .utf8)
            for (from, to, part) in [
                ("classCount: 3", "classCount: -1", "-1 classes"),
                ("classCount: 3", "classCount: 4611686018427387904", "classes"),
                ("batch-size: 8", "batch-size: 4611686018427387904", "`batch-size`"),
                ("epochs: 3", "epochs: 9223372036854775807", "`epochs`"),
                ("depth: 2", "depth: 4611686018427387904", "depth"),
                ("width: 16", "width: -16", "not positive"),
            ] {
                try #require(text.contains(from))
                try AtomicFile.write(text.replacing(from, with: to), to: config)
                let said = sentence { _ = try directory.configuration() }
                #expect(said.contains(part) && said.contains("config.yaml"), "\(said)")
            }
            try AtomicFile.write(text.replacing("depth: 2", with: "depth: 3"), to: config)
            var base = try TinyTask.checkpoint()
            let saved = try directory.configuration()
            let said = sentence { try saved.restoreBase(&base, from: "tiny", of: directory.url) }
            #expect(said.contains("other sizes"), "\(said)")
            for line in [
                #"{"epoch": 9223372036854775807, "valAccuracy": 0.5}"#, #"{"epoch": -1, "trainLoss": 1}"#,
                #"{"epoch": 1, "valAccuracy": 1e300}"#,
            ] {
                try AtomicFile.write(line + "\n", to: directory.metrics)
                let said = sentence { _ = try directory.epochMetrics() }
                #expect(said.contains("which no run has"), "\(said)")
            }
            for (file, body) in [
                (config, { _ = try directory.configuration() }),
                (directory.metrics, { _ = try directory.epochMetrics() }),
            ] as [(URL, () throws -> Void)] {
                try FileManager.default.removeItem(at: file)
                #expect(mkfifo(file.path, 0o600) == 0)
                let said = sentence(body)
                #expect(said.contains("is not a file"), "\(said)")
            }
        }
    }

    @Test(
        "A journal that no search has written is refused",
        arguments: [
            (
                #"{"generation": {"number": 0, "judged": 1, "accuracy": 0.5, "parameters": 1, "seconds": 1e300}}"#,
                "1e+300 s"
            ),
            (
                #"{"generation": {"number": -1, "judged": 1, "accuracy": 0.5, "parameters": 1, "seconds": 1}}"#,
                "generation -1"
            ),
            (#"{"judged": {"candidate": "0", "parameters": -1}}"#, "-1 parameters"),
            (
                #"{"judged": {"candidate": "0", "parameters": 1, "score": {"accuracy": 7, "loss": 1}}}"#,
                "accuracy of 7.0"
            ),
        ])
    func journalsThatNoSearchHas(_ line: String, _ part: String) throws {
        try TinyTask.withFolder { folder in
            let directory = SearchDirectory(RunDirectory(folder))
            try AtomicFile.createFolder(directory.url)
            try AtomicFile.write(line + "\n", to: directory.journal)
            let said = sentence { _ = try directory.judged() }
            #expect(said.contains(part) && said.contains("no search has written"), "\(said)")
        }
    }

    @Test("First values are made only when there is memory for them")
    func firstValuesAreMadeWhenThereIsMemory() throws {
        let backend = try CPUBackend()
        for shape in [[1 << 62], [1 << 40, 1 << 40], [1 << 40, 8]] {
            let declaration = ParameterStore.Declaration("x", shape, repeating: 0)
            #expect(throws: BackendError.self) { _ = try ParameterStore(backend, [declaration]) }
        }
        var (drawn, skipped) = (Random(1, "x"), Random(1, "x"))
        for _ in 0..<1000 { _ = drawn.next() }
        skipped.skip(1000)
        #expect(drawn.next() == skipped.next())
    }

    /// The last line may be torn, and lines of steps are not read whole: a run has millions.
    @Test("A torn last line of the metrics is passed over, and another bad one is refused")
    func linesOfMetrics() throws {
        try TinyTask.withFolder { folder in
            let directory = RunDirectory(folder)
            let epoch = #"{"epoch":0,"trainLoss":2.5}"#
            let step = #"{"epoch":0,"loss":2.5,"step":7}"#
            func read(_ lines: [String]) throws -> Int {
                try AtomicFile.write(lines.joined(separator: "\n"), to: directory.metrics)
                return try directory.epochMetrics().count
            }
            #expect(try read([step, epoch, "", step, epoch, #"{"epoch":1,"trainL"#]) == 2)
            for bad in [#"{"epoch":0,"trainLoss":"x"}"#, "-1", "null", #"{"epoch":0,"trainLoss":NaN}"#] {
                let said = sentence { _ = try read([epoch, bad, epoch]) }
                #expect(said.contains("line 2"), "\(said)")
            }
            let long = sentence { _ = try read([String(repeating: "[],", count: 500_000), epoch]) }
            #expect(long.contains("more than a megabyte"), "\(long)")
            // Cut back to a state: what came later goes, whatever its form.
            _ = try read([step, #"{"epoch":0,"step":8,"loss":1}"#, #"{"step":9,"epoch":1}"#, epoch, "torn"])
            var state = TrainingState()
            (state.step, state.epoch) = (8, 1)
            #expect(try directory.truncateMetrics(to: state))
            let left = try String(contentsOf: directory.metrics, encoding: .utf8)
            #expect(left == [step, #"{"epoch":0,"step":8,"loss":1}"#, epoch, ""].joined(separator: "\n"))
        }
    }

    @Test("YAML's merge keys are refused")
    func mergeKeysOfYAML() throws {
        try TinyTask.withFolder { folder in
            var text = "a: &a {x: 1}\n"
            for (name, before) in zip("bcdefgh", "abcdefg") {
                let references = Array(repeating: "*\(before)", count: 9).joined(separator: ",")
                text += "\(name): &\(name) {<<: [\(references)]}\n"
            }
            try AtomicFile.write(text + "<<: *h\n", to: folder.appendingPathComponent("config.yaml"))
            let said = sentence { _ = try RunDirectory(folder).configuration() }
            #expect(said.contains("merge keys"), "\(said)")
        }
    }
}
