import Adapters
import Checkpoints
import Datasets
import Foundation
import ModelConfiguration
import TensorCore
import Yams

/// The folder of a run:
///
///     config.yaml          the settings by their names; the base's architecture and how its images are prepared;
///                          the classes' names; the hashes of the frozen base and the data
///     metrics.jsonl        a line for each step, epoch and validation
///     last.safetensors     the state after the latest epoch, or where the run was stopped
///     best.safetensors     the state of the best validation
///     checkpoints/         copies of the latest states, where the settings ask for them (`keep`)
///     adapter/             the best state in PEFT's format
///     predictions-….jsonl  what a state says of each image of a split, until the run is trained on
///     summary.json         the seconds and the memory that the training took
///     .glora-lock          while a command writes here: which, and since when
public struct RunDirectory: Sendable {
    /// The folder.
    public let url: URL

    /// What `config.yaml` holds.
    public struct Configuration: Codable, Equatable, Sendable {
        /// The settings.
        public var options: TrainingOptions
        /// The path of each Linear when the settings name a path file: what becomes of that file no longer matters.
        public var paths: [GLoRAPath]?
        /// The checkpoint's tensors, hashed.
        public var baseHash: String
        /// The training and validation splits, hashed.
        public var dataHash: String
        /// K.
        public var classCount: Int
        /// [K] the classes' names, where the data say them.
        public var classNames: [String]?
        /// The base's, with how images are prepared: what no tensor tells. nil in runs of early builds.
        public var architecture: ViTConfiguration?
        /// The backend's: a part of what decides the bits. nil where it has none, and in runs of early builds.
        public var productParts: Int?

        /// A configuration of these parts.
        public init(
            options: TrainingOptions, paths: [GLoRAPath]? = nil, baseHash: String, dataHash: String,
            classCount: Int, classNames: [String]?, architecture: ViTConfiguration, productParts: Int?
        ) {
            (self.options, self.paths, self.baseHash, self.dataHash) = (options, paths, baseHash, dataHash)
            (self.classCount, self.classNames, self.architecture) = (classCount, classNames, architecture)
            self.productParts = productParts
        }

        /// The base of the run in `folder`, read from where it lies and restored as `restoreBase` says. Throws `TrainingError.run`
        /// when it isn't there or has other tensors by now, and `CheckpointError`.
        public func loadBase(of folder: URL) throws -> ViTCheckpoint {
            guard FileManager.default.fileExists(atPath: options.model) else {
                throw TrainingError.run(
                    "\(options.model), the base model of \(folder.path), isn't there; put it back, or write where it lies now "
                        + "into \(folder.path)/config.yaml (model)")
            }
            var checkpoint = try options.loadCheckpoint()
            try restoreBase(&checkpoint, from: options.model, of: folder)
            return checkpoint
        }

        /// Makes `checkpoint`, as it was read from `model` now, the base that the run in `folder` was started on: the run's own heads, ε,
        /// pooling and preprocessing count, and a file that says something else by now is noted. Throws `TrainingError.run` when
        /// the tensors are others.
        func restoreBase(_ checkpoint: inout ViTCheckpoint, from model: String, of folder: URL) throws {
            let hash = contentHash(checkpoint.tensors)
            guard hash == baseHash else {
                throw TrainingError.run(
                    "\(model) is not the model that \(folder.path) was started with, or has changed since (hash "
                        + "\(hash), the run has \(baseHash)); put the original file back, or give the same file"
                )
            }
            guard let architecture else {
                // Builds that kept none obeyed no file but in mean and deviation, and took ImageNet's for .npz.
                var earlier = Preprocessing(
                    mean: checkpoint.configuration.preprocessing.mean,
                    std: checkpoint.configuration.preprocessing.std)
                if options.normalize == .model, checkpoint.preprocessingOrigin == .google {
                    (earlier.mean, earlier.std) = Preprocessing.imagenet
                }
                if options.crop == .center {
                    earlier.resize = .shorterSide
                    earlier.side = checkpoint.configuration.preprocessing.side
                }
                checkpoint.configuration.preprocessing = earlier
                return
            }
            let changes = checkpoint.configuration.differences(from: architecture)
            if !changes.isEmpty {
                checkpoint.notes.append(
                    "\(model) has changed since \(folder.path) was started: \(changes.joined(separator: "; ")). "
                        + "The run keeps its own")
            }
            let shapes = checkpoint.tensors.mapValues(\.shape)
            guard architecture.tensorShapes == shapes else {
                throw TrainingError.run(
                    "\(folder.path)/config.yaml says other sizes (architecture) than \(model) has; put the original back"
                )
            }
            checkpoint.configuration = architecture
        }
    }

    /// What a training took, in all its processes.
    public struct Summary: Codable, Equatable, Sendable {
        /// Seconds, validation included.
        public var seconds: Double
        /// The largest memory of a process, in bytes.
        public var peakBytes: Int
    }

    /// What the training took so far; nil before its first end or stop.
    public func readSummary() -> Summary? {
        guard let bytes = try? fileContents(of: summary) else { return nil }
        return try? JSONDecoder().decode(Summary.self, from: Data(bytes))
    }

    /// Adds what a process took. Throws `CheckpointError`.
    func addToSummary(seconds: Double, peakBytes: Int) throws {
        let earlier = readSummary()
        let sum = Summary(
            seconds: seconds + (earlier?.seconds ?? 0), peakBytes: max(peakBytes, earlier?.peakBytes ?? 0))
        try AtomicFile.write(try AtomicFile.json(sum, indented: true), to: summary)
    }

    /// A line of `metrics.jsonl` after an epoch: its mean training loss, or a validation.
    public struct EpochMetric: Decodable, Sendable {
        /// From 0.
        public let epoch: Int
        /// The mean training loss.
        public let trainLoss: Double?
        /// Of the validation split, 0 to 1; nil where the task is another than classes.
        public let valAccuracy: Double?
        /// Of the validation split, 0 to 1, of labels.
        public let valMeanAveragePrecision: Double?
        /// Of the validation split, at most 1, of values.
        public let valR2: Double?
        /// The one of the three that there is.
        public var valScore: Double? { valAccuracy ?? valMeanAveragePrecision ?? valR2 }
        /// The validation split's mean cross-entropy.
        public let valLoss: Double?
    }

    /// Whether the folder holds a whole run.
    public var holdsRun: Bool { FileManager.default.fileExists(atPath: config.path) }

    /// The validation of a state: the last one, or the first of the best ones. nil without validations. Throws as `epochMetrics`.
    package func validation(of state: RunState) throws -> EpochMetric? {
        let all = try epochMetrics().filter { $0.valScore != nil }
        guard state == .best else { return all.last }
        let best = all.compactMap(\.valScore).max()
        return all.first { $0.valScore == best }
    }

    /// The run's epochs and validations. Throws `TrainingError` when the file is missing or has numbers that no run has.
    public func epochMetrics() throws -> [EpochMetric] {
        guard FileManager.default.fileExists(atPath: metrics.path) else {
            throw TrainingError.missing("\(metrics.path) is missing", .giveRun)
        }
        var all: [EpochMetric] = []
        var unread: Int?
        var number = 0
        try forEachLine(of: metrics) { text in
            number += 1
            // The last line may be torn, none before it.
            if let unread {
                throw TrainingError.run("\(metrics.path), line \(unread), is none of a run's; remove it")
            }
            if RunDirectory.step(in: text) != nil { return }
            guard let line = try? JSONDecoder().decode(EpochMetric.self, from: Data(text)) else {
                unread = number
                return
            }
            guard line.trainLoss != nil || line.valScore != nil else { return }
            let isPossible =
                (0..<TrainingOptions.largestEpochCount).contains(line.epoch)
                && (line.valR2.map(Metric.r2.isPossible) ?? (0...1).contains(line.valScore ?? 0))
            guard isPossible, all.count < 2 * TrainingOptions.largestEpochCount else {
                throw TrainingError.run(
                    "\(metrics.path) has a validation score of \(line.valScore ?? 0) in epoch \(line.epoch), which no run "
                        + "has; remove that line")
            }
            all.append(line)
        }
        return all
    }

    /// The step that a line of `metrics.jsonl` is of, as this program writes it, without reading the rest: runs have millions of them.
    private static func step(in line: UnsafeRawBufferPointer) -> Int? {
        let key = #""step":"#
        guard line.first == UInt8(ascii: "{"), line.last == UInt8(ascii: "}"), line.count > key.utf8.count,
            let place = (0..<line.count - key.utf8.count).first(where: {
                line[$0] == UInt8(ascii: "\"") && memcmp(line.baseAddress! + $0, key, key.utf8.count) == 0
            })
        else { return nil }
        let digits = line[(place + key.utf8.count)...].prefix { (0x30...0x39).contains($0) }
        return Int(String(decoding: digits, as: UTF8.self))
    }

    /// The file of a sweep in the folder that its runs are in.
    public static let sweepFile = "sweep.yaml"

    /// A folder that is there or is to be made.
    public init(_ url: URL) { self.url = url }

    /// `last.safetensors`.
    public var last: URL { url.appendingPathComponent("last.safetensors") }
    /// `best.safetensors`.
    public var best: URL { url.appendingPathComponent("best.safetensors") }
    /// `adapter/`.
    public var adapter: URL { url.appendingPathComponent("adapter") }
    /// `metrics.jsonl`.
    public var metrics: URL { url.appendingPathComponent("metrics.jsonl") }
    /// `summary.json`.
    public var summary: URL { url.appendingPathComponent("summary.json") }
    private var config: URL { url.appendingPathComponent("config.yaml") }

    /// Makes the folder for a new run with its state before the first step, so that it can be resumed from the very beginning.
    /// `config.yaml` comes last: a folder that has it is a whole run.
    /// Throws `TrainingError.run` when a run is already there, and `CheckpointError`.
    public func create(_ configuration: Configuration, _ start: TrainingSnapshot) throws {
        try refuseExisting()
        try AtomicFile.createFolder(url)
        try AtomicFile.write("", to: metrics)
        try start.write(to: last)
        let encoder = YAMLEncoder()
        // The order of a dictionary differs from process to process.
        encoder.options.sortKeys = true
        try AtomicFile.write(try encoder.encode(configuration), to: config)
    }

    /// Keeps a copy of `last.safetensors`, which is of that step, as `checkpoints/step-….safetensors`, and of those copies the latest
    /// so many. Throws `CheckpointError`.
    func keep(_ step: Int, latest count: Int) throws {
        let folder = url.appendingPathComponent("checkpoints")
        try AtomicFile.createFolder(folder)
        func name(_ step: Int) -> String { "step-" + String(format: "%09d", step) + ".safetensors" }
        let manager = FileManager.default
        do {
            let copy = folder.appendingPathComponent(name(step))
            try? manager.removeItem(at: copy)
            // A second name of the same file where the file system has those: `last` is replaced, never written into.
            do { try manager.linkItem(at: last, to: copy) } catch { try manager.copyItem(at: last, to: copy) }
            let all = try manager.contentsOfDirectory(atPath: folder.path)
                .filter { $0.hasPrefix("step-") && $0.hasSuffix(".safetensors") }.sorted()
            // What a run that went on from an earlier state left behind it is older.
            let others = all.filter { $0 != name(step) }
            let (later, earlier) = (others.filter { $0 > name(step) }, others.filter { $0 < name(step) })
            for old in later + earlier.dropLast(count - 1) {
                try manager.removeItem(at: folder.appendingPathComponent(old))
            }
        } catch {
            throw CheckpointError(
                "cannot keep \(folder.path)/\(name(step)): \(error.localizedDescription)")
        }
    }

    /// Keeps the folder, whether there is a run in it yet or not, for this process; errors as `FolderLock`.
    public func lock(holder: String, orGive setting: String? = nil) throws -> FolderLock {
        // `supernet` is the run that a comparison searches.
        let parts = ["adapter", "search", "search/adapter", "supernet"]
        return try FolderLock(url, parts: parts, holder: holder, orGive: setting)
    }

    /// Throws `TrainingError.run` when a run is there.
    func refuseExisting() throws {
        if holdsRun {
            throw TrainingError.run(
                "\(url.path) already holds a run; add `resume` to go on with it, or give another `run`")
        }
    }

    /// The run's settings. Throws `TrainingError.missing` when the folder holds no run, and `.run` when they aren't a run's.
    public func configuration() throws -> Configuration {
        guard holdsRun else {
            throw TrainingError.missing("\(url.path) holds no run: config.yaml is missing", .giveRun)
        }
        // The names of 21,000 classes take half a megabyte; the parser took 700 MB for eight.
        guard let text = String(validating: try fileContents(of: config, limit: 2 << 20), as: UTF8.self)
        else {
            throw TrainingError.run("\(config.path) can't be read as text; put the original back")
        }
        // Nine references to nine references, seven times over, are never read to the end.
        let isMerged = text.contains("<<") || text.contains("merge")
        guard !(isMerged && text.contains("&") && text.contains("*")) else {
            throw TrainingError.run(
                "\(config.path) has YAML's merge keys, which no run writes; put the original back")
        }
        do {
            let configuration = try YAMLDecoder().decode(Configuration.self, from: text)
            try configuration.options.validate()
            try configuration.architecture?.check(source: "architecture")
            guard (1...ImageList.largestClassCount).contains(configuration.classCount) else {
                throw TrainingError.run("it has \(configuration.classCount) classes")
            }
            if let parts = configuration.productParts, !(1...1024).contains(parts) {
                throw TrainingError.run("its productParts is \(parts)")
            }
            if let names = configuration.classNames, names.count != configuration.classCount {
                throw TrainingError.run("it names \(names.count) of \(configuration.classCount) classes")
            }
            return configuration
        } catch {
            throw TrainingError.run(
                "\(config.path) is not a run's configuration (\(error)); put the original back")
        }
    }

    /// Cuts `metrics.jsonl` back to what had happened when `state` was saved, so that a resumed run repeats no line; where it is
    /// missing, makes an empty one. Returns whether it was there. Throws `CheckpointError`.
    public func truncateMetrics(to state: TrainingState) throws -> Bool {
        guard FileManager.default.fileExists(atPath: metrics.path) else {
            try AtomicFile.write("", to: metrics)
            return false
        }
        struct Line: Decodable {
            let step: Int?
            let epoch: Int
        }
        try AtomicFile.write(to: metrics) { writer in
            var kept: [UInt8] = []
            try forEachLine(of: metrics) { text in
                let line = RunDirectory.step(in: text).map { Line(step: $0, epoch: 0) }
                guard let line = line ?? (try? JSONDecoder().decode(Line.self, from: Data(text))),
                    line.step.map({ $0 <= state.step }) ?? (line.epoch < state.epoch)
                else { return }
                kept += text
                kept.append(UInt8(ascii: "\n"))
                guard kept.count >= 1 << 20 else { return }
                try kept.withUnsafeBytes { try writer.write($0) }
                kept.removeAll(keepingCapacity: true)
            }
            try kept.withUnsafeBytes { try writer.write($0) }
        }
        return true
    }

    /// Appends one object as a line to `metrics.jsonl`. Throws `CheckpointError` when it can't be written.
    public func appendMetric(_ metric: some Encodable) throws {
        try AtomicFile.append(try AtomicFile.json(metric), to: metrics)
    }
}

/// The hash of a checkpoint's tensors, by which a resumed run recognises its frozen base: 64-bit FNV-1a over names, shapes and
/// the values' bits, a value at a time. It notices mistakes, not forgery.
package func contentHash(_ tensors: [String: HostTensor]) -> String {
    var hash = ContentHash()
    for (name, tensor) in tensors.sorted(by: { $0.key < $1.key }) {
        hash.add(name.utf8)
        for size in tensor.shape { hash.add(word: UInt64(size)) }
        for value in tensor.values { hash.add(word: UInt64(value.bitPattern)) }
    }
    return String(hash.value, radix: 16)
}
