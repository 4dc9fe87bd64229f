import Checkpoints
import Datasets
import Foundation
import ModelConfiguration
import Training

/// The images of one training and of what it is tested on.
public struct CellImages: Sendable {
    /// A split that is only ever tested on.
    public struct Test: Sendable {
        /// Its column in a table.
        public let name: String
        /// Its images, of the training split's classes.
        public let images: any ImageSource

        /// A split under a name.
        public init(name: String, images: any ImageSource) {
            (self.name, self.images) = (name, images)
        }
    }

    /// What is trained on.
    public let training: any ImageSource
    /// What curves are drawn and rates are chosen by.
    public let validation: (any ImageSource)?
    /// What is scored once, when the training has ended.
    public let tests: [Test]

    /// All of them.
    public var splits: [any ImageSource] {
        [training] + [validation].compactMap(\.self) + tests.map(\.images)
    }

    /// What a search is trained and scored on, where `training` holds the validation images: never what it was trained on.
    public var searching: (training: any ImageSource, validation: any ImageSource)?

    /// These splits. Throws `DatasetError` for a test with more classes than are trained.
    public init(training: any ImageSource, validation: (any ImageSource)?, tests: [Test]) throws {
        for images in tests.map(\.images) + [validation].compactMap(\.self)
        where images.classCount > training.classCount {
            throw DatasetError(
                "\(images.name) has \(images.classCount) classes, \(training.name), which is trained on, "
                    + "\(training.classCount); give images of the same classes.")
        }
        (self.training, self.validation, self.tests) = (training, validation, tests)
    }
}

/// One training of a comparison: a method with its settings on a task's images, in a folder of its own.
public struct Cell: Sendable {
    /// The task's name, as tables and folders have it.
    public let task: String
    /// The method.
    public let method: MethodEntry
    /// Every setting, the seed and the learning rate among them.
    public let options: TrainingOptions
    /// The splits.
    public let images: CellImages
    /// What it is called in a sentence.
    public let label: String
    /// OUTPUT/task/method/lr-1e-3/seed-0, or a sweep's OUTPUT/trial-1/seed-0.
    public let folder: URL
    /// The setting that names another folder than `output`.
    public let folderSetting: String
    private let output: URL

    /// A comparison's cell below `output`. `suffix` tells apart cells whose splits alone differ.
    public init(
        task: String, method: MethodEntry, options: TrainingOptions, images: CellImages, output: URL,
        suffix: String = ""
    ) {
        let rate = "lr \(options.learningRate.short)"
        self.init(
            task: task, method: method, options: options, images: images, output: output,
            place: [
                task, method.folderName, rate.replacing(" ", with: "-"), "seed-\(options.seed)" + suffix,
            ],
            label: "\(task), \(method), \(rate), seed \(options.seed)", folderSetting: "output")
    }

    init(
        task: String, method: MethodEntry, options: TrainingOptions, images: CellImages, output: URL,
        place: [String], label: String, folderSetting: String
    ) {
        (self.task, self.method, self.options, self.images) = (task, method, options, images)
        (self.output, self.label, self.folderSetting) = (output, label, folderSetting)
        folder = place.reduce(output) { $0.appendingPathComponent($1) }
    }

    /// The training of a sweep's trial with one seed below `output`, on the rung of so many epochs where there are rungs.
    public init(
        _ sweep: Sweep, _ trial: Sweep.Trial, epochs: Int?, seed: Int, task: String, options: TrainingOptions,
        images: CellImages, output: URL
    ) {
        let rung = epochs.map { ["epochs-\($0)"] } ?? []
        self.init(
            task: task, method: MethodEntry(of: options), options: options, images: images, output: output,
            place: ["trial-\(trial.number)"] + rung + ["seed-\(seed)"],
            label: "trial \(trial.number) (\(sweep.text(trial)))"
                + (epochs.map { $0 == 1 ? ", 1 epoch" : ", \($0) epochs" } ?? "")
                + (sweep.seeds.count > 1 ? ", seed \(seed)" : ""),
            folderSetting: "run")
    }

    /// Its run.
    public var directory: RunDirectory { RunDirectory(folder) }

    /// The run that is searched for `directory`'s paths, where the method is.
    var supernet: RunDirectory { RunDirectory(folder.appendingPathComponent("supernet")) }
    /// The run that it was begun with; nil before.
    public var begun: RunDirectory? { [supernet, directory].first(where: \.holdsRun) }

    /// Keeps the folders of all its runs for this process; see `FolderLock`.
    ///
    /// Throws `CheckpointError` too where a folder between the comparison's and the cell's is a symbolic link.
    public func lock(holder: String) throws -> [FolderLock] {
        var place = folder
        while place.path.count > output.path.count {
            try FolderLock.refuseLink(place, out: output)
            place.deleteLastPathComponent()
        }
        return try ([directory] + (method.isSearched ? [supernet] : [])).map { try $0.lock(holder: holder) }
    }

    /// Whether every test that it asks for has been scored.
    public func isTested(_ result: CellResult) -> Bool {
        images.tests.allSatisfy { result.accuracy(on: $0.name) != nil }
    }
}

/// What came out of a cell: `result.json` in its folder, whole or not there.
public struct CellResult: Codable, Equatable, Sendable {
    /// What a test split scored.
    public struct Test: Codable, Equatable, Sendable {
        public var name: String
        /// The split, hashed.
        public var hash: String
        /// The score.
        public var score: EvaluationResult
    }

    /// The file format; a reader refuses another.
    public var formatVersion = 1
    /// The task.
    public var task: String
    /// The method as the user wrote it.
    public var method: String
    /// Every setting.
    public var settings: TrainingOptions
    /// Which state was scored.
    public var checkpoint: RunState
    /// The frozen base, hashed.
    public var baseHash: String
    /// The training split, hashed.
    public var trainingHash: String
    /// The validation split, hashed.
    public var validationHash: String?
    /// Of the state that was scored, 0 to 1; nil without a validation split.
    public var valAccuracy: Double?
    /// The mean cross-entropy there.
    public var valLoss: Double?
    /// Trained parameters without the head.
    public var adapterParameters: Int
    /// The head's.
    public var headParameters: Int
    /// Seconds of training, validation included.
    public var seconds: Double
    /// The largest memory of its process while it trained, in bytes.
    public var peakBytes: Int
    /// What tensors held on a device with memory of its own, in bytes.
    public var deviceBytes: Int?
    /// The tests so far.
    public var tests: [Test] = []
    /// What an image costs afterwards, where it was measured.
    public var inference: InferenceCost?

    /// The accuracy on a test; nil before it was scored.
    public func accuracy(on test: String) -> Double? {
        tests.first { $0.name == test }?.score.accuracy
    }
}

extension Cell {
    private var file: URL { folder.appendingPathComponent("result.json") }

    /// The result that is there, or nil. Throws `TrainingError.run` when it was made with other settings, another base
    /// (`configuration`, and the hash of its tensors) or other images, or the run that is half done is.
    public func result(
        checkpoint: RunState, baseHash: String, configuration: ViTConfiguration
    ) throws -> CellResult? {
        guard FileManager.default.fileExists(atPath: file.path) else {
            if directory.holdsRun {
                var saved = try directory.configuration().options
                // The path of a searched run is what the search has found.
                if method.isSearched { saved.path = options.path }
                try checkSettings(saved)
                try checkModelFiles(configuration)
            }
            return nil
        }
        let result: CellResult
        do {
            result = try JSONDecoder().decode(CellResult.self, from: Data(fileContents(of: file)))
        } catch {
            throw TrainingError.run("\(file.path) is no result of this program; remove \(folder.path)")
        }
        guard result.formatVersion == 1 else {
            throw TrainingError.run(
                "\(file.path) has format version \(result.formatVersion); this program reads version 1")
        }
        try checkSettings(result.settings)
        func check(_ holds: Bool, _ what: String) throws {
            if !holds {
                throw TrainingError.run(
                    "\(folder.path) was made with another \(what); give the same, or another `\(folderSetting)`"
                )
            }
        }
        try check(result.checkpoint == checkpoint, "`checkpoint`")
        try check(result.baseHash == baseHash, "`model`")
        try checkModelFiles(configuration)
        try check(result.trainingHash == hex(images.training), "training split")
        try check(result.validationHash == images.validation.map(hex), "validation split")
        for test in result.tests {
            guard let asked = images.tests.first(where: { $0.name == test.name }) else { continue }
            try check(hex(asked.images) == test.hash, "test split \(test.name)")
        }
        return result
    }

    /// Throws when the base's files have other heads, another ε, pooling or preprocessing by now than the run keeps.
    private func checkModelFiles(_ configuration: ViTConfiguration) throws {
        guard directory.holdsRun, let kept = try directory.configuration().architecture else { return }
        var asked = configuration
        asked.preprocessing = options.preprocessing(of: configuration)
        let differences = kept.differences(from: asked)
        guard differences.isEmpty else {
            throw TrainingError.run(
                "\(folder.path) was made when the model's files said something else: "
                    + "\(differences.joined(separator: "; ")); put them back, or give another `\(folderSetting)`"
            )
        }
    }

    private func checkSettings(_ saved: TrainingOptions) throws {
        let differences = saved.differences(from: options)
        guard differences.isEmpty else {
            throw TrainingError.run(
                "\(folder.path) was made with \(differences.joined(separator: "; ")); give the same settings, "
                    + "or another `\(folderSetting)`")
        }
    }

    func write(_ result: CellResult) throws {
        try AtomicFile.write(try AtomicFile.json(result, indented: true), to: file)
    }
}

/// A split's hash as files hold it.
func hex(_ images: any ImageSource) -> String { String(images.contentHash, radix: 16) }
