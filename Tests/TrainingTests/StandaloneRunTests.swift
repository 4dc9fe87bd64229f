import CPUBackend
import Checkpoints
import Datasets
import Foundation
import Testing

@testable import Training

/// What decides a run's function lies in its folder, whatever becomes of the files that it was started from.
@Suite("A run needs nothing but its folder and its model's tensors", .serialized)
struct StandaloneRunTests {
    /// A finished run on `folder/model`, and what its last state scores on twelve images.
    private func run(
        in folder: URL, _ change: (inout TrainingOptions) -> Void = { _ in }
    ) throws -> (directory: RunDirectory, loss: Double) {
        let model = folder.appendingPathComponent("model")
        var checkpoint = try TinyTask.checkpoint()
        checkpoint.configuration.preprocessing = Preprocessing(
            resize: .shorterSide, side: 20, filter: .bilinear, mean: [0.4, 0.5, 0.6], std: [0.3, 0.2, 0.1])
        try checkpoint.saveTimm(to: model)
        var options = TinyTask.options(epochs: 2)
        options.model = model.path
        options.path = "full"
        change(&options)
        let directory = RunDirectory(folder.appendingPathComponent("run"))
        let tuning = try FineTuning(
            options, checkpoint: try options.loadCheckpoint(), training: TinyTask.images(16, seed: 1),
            validation: TinyTask.images(12, seed: 2), in: directory, on: try CPUBackend())
        #expect(try tuning.run(onEvent: { _ in }, shouldStop: { false }) == .epochs)
        return (directory, try score(directory).loss)
    }

    private func score(_ directory: RunDirectory) throws -> (loss: Double, notes: [String]) {
        let ready = try ReadyModel(run: directory, state: .last, on: try CPUBackend())
        let result = try evaluate(
            ready.model, on: try ready.prepare(TinyTask.images(12, seed: 2)),
            batchSize: 12)
        #expect(result.loss.isFinite)
        return (result.loss, ready.notes)
    }

    @Test(
        "A run whose model folder says something else by now scores as before and says so",
        arguments: [
            ("\"num_heads\": 2", "\"num_heads\": 4", "heads 4, not 2"),
            ("0.4", "0.1", "preprocessing.mean"),
            ("\"bilinear\"", "\"bicubic\"", "preprocessing.filter \"bicubic\", not \"bilinear\""),
            ("\"global_pool\": \"token\"", "\"global_pool\": \"avg\"", "pooling \"avg\", not \"token\""),
        ])
    func changedConfiguration(_ before: String, _ after: String, _ what: String) throws {
        try TinyTask.withFolder { folder in
            let (directory, loss) = try run(in: folder)
            let config = folder.appendingPathComponent("model/config.json")
            let text = try String(contentsOf: config, encoding: .utf8)
            try #require(text.contains(before), "\(text)")
            try text.replacingOccurrences(of: before, with: after)
                .write(to: config, atomically: true, encoding: .utf8)
            let now = try score(directory)
            #expect(now.loss == loss)
            #expect(
                now.notes.contains { $0.contains("has changed since") && $0.contains(what) }, "\(now.notes)")
        }
    }

    @Test("A run whose base has other tensors by now is refused")
    func changedTensors() throws {
        try TinyTask.withFolder { folder in
            let (directory, _) = try run(in: folder)
            try TinyTask.checkpoint(seed: 2).saveTimm(to: folder.appendingPathComponent("model"))
            let error = try #require(throws: TrainingError.self) { try score(directory) }
            #expect("\(error)".contains("has changed since"))
        }
    }

    @Test("A run on a backend that cuts products otherwise says so")
    func otherParts() throws {
        try TinyTask.withFolder { folder in
            let directory = try run(in: folder).directory
            let saved = try directory.configuration()
            let parts = try #require(saved.productParts)
            func resume(_ parts: Int) throws -> [String] {
                try FineTuning(
                    saved.options, checkpoint: try saved.options.loadCheckpoint(),
                    training: TinyTask.images(16, seed: 1), validation: TinyTask.images(12, seed: 2),
                    in: directory, resumes: true, on: try CPUBackend(parts: parts)
                ).notes
            }
            #expect(try resume(parts) == [])
            let notes = try resume(parts + 1)
            #expect(notes.count == 1 && notes.first?.contains("cut into \(parts) parts") == true, "\(notes)")
        }
    }

    @Test("A run of an early build, which kept no architecture, prepares images as that build did")
    func earlyRun() throws {
        try TinyTask.withFolder { folder in
            let (directory, _) = try run(in: folder) { $0.crop = .squash }
            let config = folder.appendingPathComponent("run/config.yaml")
            let text = try String(contentsOf: config, encoding: .utf8)
            let lines = try #require(text.firstRange(of: /architecture:\n( .*\n)+/))
            try text.replacingCharacters(in: lines, with: "")
                .write(to: config, atomically: true, encoding: .utf8)
            let ready = try ReadyModel(run: directory, state: .last, on: try CPUBackend())
            #expect(
                ready.model.configuration.preprocessing
                    == Preprocessing(mean: [0.4, 0.5, 0.6], std: [0.3, 0.2, 0.1]))
        }
    }

    @Test("A run goes on with other validation images and says so; with other training images it doesn't")
    func changedImages() throws {
        try TinyTask.withFolder { folder in
            let directory = try run(in: folder).directory
            let options = try directory.configuration().options
            func resume(_ training: InMemoryImages, _ validation: InMemoryImages?) throws -> [String] {
                try FineTuning(
                    options, checkpoint: try options.loadCheckpoint(), training: training,
                    validation: validation, in: directory, resumes: true, on: try CPUBackend()
                ).notes
            }
            let (training, validation) = (TinyTask.images(16, seed: 1), TinyTask.images(12, seed: 2))
            #expect(try resume(training, validation) == [])
            for changed in [TinyTask.images(12, seed: 3), nil] {
                let notes = try resume(training, changed)
                #expect(notes.count == 1 && notes.first?.contains("validation images have changed") == true)
            }
            let error = try #require(throws: TrainingError.self) {
                try resume(TinyTask.images(16, seed: 4), validation)
            }
            #expect("\(error)".contains("not the data"))
        }
    }

    @Test("What a check before the first step throws leaves no folder behind")
    func checkedFirst() throws {
        try TinyTask.withFolder { folder in
            let directory = RunDirectory(folder.appendingPathComponent("run"))
            var counts: [Int] = []
            #expect(throws: CancellationError.self) {
                try FineTuning(
                    TinyTask.options(), checkpoint: try TinyTask.checkpoint(),
                    training: TinyTask.images(16, seed: 1), validation: TinyTask.images(12, seed: 2),
                    in: directory, on: try CPUBackend()
                ) { trainer in
                    counts = trainer.splits.map(\.source.count)
                    throw CancellationError()
                }
            }
            #expect(counts == [16, 12])
            #expect(!FileManager.default.fileExists(atPath: directory.url.path))
        }
    }

    @Test("A run, its adapter and what it is merged into know the classes' names")
    func classNames() throws {
        try TinyTask.withFolder { folder in
            let (directory, _) = try run(in: folder)
            // Images in memory have no names; the run's file is given some, as a folder's classes would have.
            var configuration = try directory.configuration()
            #expect(configuration.classNames == nil)
            configuration.classNames = ["emu", "cat", "dog"]
            let other = RunDirectory(folder.appendingPathComponent("named"))
            try other.create(configuration, try TrainingSnapshot(contentsOf: directory.last))
            let ready = try ReadyModel(run: other, state: .last, on: try CPUBackend())
            #expect(ready.classNames == ["emu", "cat", "dog"])
            #expect(try ready.merged().classNames == ["emu", "cat", "dog"])
            let adapter = folder.appendingPathComponent("adapter")
            try PEFTAdapter.save(
                try ready.model.adapter(), to: adapter, extra: ready.adapterExtra)
            var options = TrainingOptions()
            options.model = folder.appendingPathComponent("model").path
            let read = try ReadyModel(options, adapter: adapter, on: try CPUBackend())
            #expect(read.classNames == ["emu", "cat", "dog"])
            #expect(read.model.configuration.preprocessing == ready.model.configuration.preprocessing)
        }
    }
}

@Suite("Which preprocessing the settings choose")
struct PreprocessingChoiceTests {
    private func checkpoint() throws -> ViTCheckpoint {
        var checkpoint = try TinyTask.checkpoint()
        checkpoint.configuration.preprocessing = Preprocessing(
            resize: .shorterSide, side: 18.5, filter: .hamming, rescale: 0.01, mean: [1, 2, 3],
            std: [4, 5, 6])
        checkpoint.preprocessingOrigin = .file("config.json")
        return checkpoint
    }

    private func prepared(_ change: (inout TrainingOptions) -> Void) throws -> Preprocessing {
        var options = TrainingOptions()
        change(&options)
        return try options.preprocessor(for: try checkpoint().configuration).preprocessing
    }

    @Test("What a model's files say counts, but for what a flag says")
    func flags() throws {
        let own = try checkpoint().configuration.preprocessing
        #expect(try prepared { _ in } == own)
        var expected = own
        expected.filter = .lanczos
        #expect(try prepared { $0.interpolation = .lanczos } == expected)
        expected = own
        (expected.resize, expected.side) = (.squash, nil)
        #expect(try prepared { $0.crop = .squash } == expected)
        (expected.resize, expected.side) = (.shorterSide, 18)  // 8/7 of 16, rounded down
        #expect(try prepared { $0.crop = .center } == expected)
        expected = own
        (expected.mean, expected.std, expected.rescale) = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], 1.0 / 255)
        #expect(try prepared { $0.normalize = .inception } == expected)
    }

    @Test(
        "VTAB-1K's protocol squashes by the bicubic filter, and takes ImageNet's statistics for an npz; flags still win"
    )
    func benchmark() throws {
        try TinyTask.withFolder { folder in
            let archive = folder.appendingPathComponent("m.npz")
            try Data("PK\u{3}\u{4}".utf8).write(to: archive)
            var options = TrainingOptions()
            options.model = folder.path
            options.keepVTABProtocol()
            #expect(
                options.crop == .squash && options.interpolation == .bicubic && options.normalize == .model)
            let line = try options.preprocessingLine(try checkpoint())
            #expect(line.contains("bicubic") && line.contains("as config.json says, but `crop squash`"))
            options.model = archive.path
            options.keepVTABProtocol()
            #expect(options.normalize == .imagenet)
            var given = TrainingOptions()
            (given.model, given.crop, given.normalize) = (archive.path, .center, .inception)
            let before = given
            given.keepVTABProtocol()
            #expect(given == before)
        }
    }

    @Test("A task folder is VTAB-1K's where its lists are named so")
    func vtabFolders() throws {
        try TinyTask.withFolder { folder in
            for (list, isVTAB) in [("train800", true), ("train", false)] {
                let task = folder.appendingPathComponent("\(list)-task")
                try FileManager.default.createDirectory(at: task, withIntermediateDirectories: true)
                try Data("a.png 0\n".utf8).write(to: task.appendingPathComponent("\(list).txt"))
                #expect(try TaskFolder.open(task).isVTAB == isVTAB)
            }
        }
    }
}
