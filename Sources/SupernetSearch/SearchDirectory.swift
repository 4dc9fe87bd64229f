import Adapters
import ArchitectureSearch
import Checkpoints
import Foundation
import Training

/// A path for every layer by its name, and what it scored: `architecture.json`, which the settings `path` and `architecture` read.
public struct Architecture: Codable, Equatable, Sendable {
    /// The paths, each with the rank of its lowRank forms.
    public var layers: [String: GLoRAPath]
    /// The parameters on them, without the head.
    public var parameters: Int
    /// Which search found it.
    public var algorithm: String
    /// Which state of the run it was found in.
    public var checkpoint: RunState
    /// The split that it was chosen on; `test` is the original's early protocol, not a result.
    public var fitnessSplit: String
    /// What it is the best in.
    public var fitness: Fitness
    /// What it scores there, 0 to 1 and mean cross-entropy.
    public var accuracy, loss: Double
    /// What it scored there after a short training, by which it was chosen; nil when the search was the end.
    public var refined: Score?
}

/// The folder `search` of a run:
///
///     search.jsonl          the settings, then a line for each candidate and each generation
///     architecture.json     the best candidate
///     front.json            of the candidates that were scored whole, those that none beats in accuracy without more parameters
///     adapter/              the best candidate in PEFT's format
///     summary.json          what the search took, and the one score on the test split
///     ablation.json         what A to E are each worth, when it was asked
public struct SearchDirectory: Sendable {
    /// The folder.
    public let url: URL

    /// The folder in a run's.
    public init(_ run: RunDirectory) { url = run.url.appendingPathComponent("search") }

    /// `architecture.json`.
    public var architecture: URL { url.appendingPathComponent("architecture.json") }
    /// `front.json`.
    public var front: URL { url.appendingPathComponent("front.json") }
    /// `search.jsonl`.
    public var journal: URL { url.appendingPathComponent("search.jsonl") }
    /// `summary.json`.
    public var summary: URL { url.appendingPathComponent("summary.json") }
    /// `ablation.json`.
    public var ablation: URL { url.appendingPathComponent("ablation.json") }
    /// `adapter/`.
    public var adapter: URL { url.appendingPathComponent("adapter") }

    /// What a search is: one that goes on must be the same.
    public struct Configuration: Codable, Equatable, Sendable {
        /// The algorithm and its settings.
        public var settings: SearchSettings
        /// The budget, ends included.
        public var minParameters, maxParameters: Int
        /// The split that candidates are scored on.
        public var fitnessSplit: String
        /// The state of the run whose weights are used, and its step.
        public var checkpoint: RunState
        public var step: Int
        /// Whether every evaluation ran to its end.
        public var exhaustive: Bool
        /// The trainings that choose among the best, if any.
        public var refinement: Refinement?

        /// A search of these parts.
        public init(
            settings: SearchSettings, minParameters: Int, maxParameters: Int, fitnessSplit: String,
            checkpoint: RunState, step: Int, exhaustive: Bool, refinement: Refinement? = nil
        ) {
            (self.settings, self.minParameters, self.maxParameters) = (settings, minParameters, maxParameters)
            (self.fitnessSplit, self.checkpoint, self.step) = (fitnessSplit, checkpoint, step)
            (self.exhaustive, self.refinement) = (exhaustive, refinement)
        }
    }

    /// A line of `search.jsonl`: one of the four.
    struct Line: Codable {
        var search: Configuration?
        var judged: Judged?
        var generation: Generation?
        var refined: Judged?
    }

    /// Where a search stands after a generation.
    public struct Generation: Codable, Equatable, Sendable {
        /// From 0: the first candidates.
        public var number: Int
        /// Candidates judged so far.
        public var judged: Int
        /// The best so far.
        public var accuracy: Double
        /// Its parameters.
        public var parameters: Int
        /// Seconds of this process since the search began.
        public var seconds: Double
    }

    /// What a search took, and its result on the test split.
    public struct Summary: Codable, Equatable, Sendable {
        /// Candidates judged.
        public var judged: Int
        /// Of these, given up before the last image.
        public var givenUp: Int
        /// The share of blocks that a plain loop would have run.
        public var blocksRun: Double
        /// Seconds of all processes that took part.
        public var seconds: Double
        /// The process's peak memory in bytes.
        public var peakBytes: Int
        /// The test split's one scoring; nil without such a split.
        public var test: EvaluationResult?
    }

    /// Makes the folder and begins `search.jsonl`. Throws `TrainingError.run` when a search is there, and `CheckpointError`.
    public func create(_ configuration: Configuration) throws {
        guard !FileManager.default.fileExists(atPath: journal.path) else {
            throw TrainingError.run(
                "\(url.path) already holds a search; add `resume` to go on with it, or remove the folder")
        }
        try AtomicFile.createFolder(url)
        try AtomicFile.write(try AtomicFile.json(Line(search: configuration)), to: journal)
    }

    /// What a killed search has left: its candidates, those it had trained, the number of generations, and the seconds it took. A torn last
    /// line is cut off. Throws `TrainingError.missing` when there is none, and `.run` when it is one of other settings.
    func recall(_ configuration: Configuration) throws -> (
        judged: [Judged], refined: [Judged], generations: Int, seconds: Double
    ) {
        let (content, lines) = try readJournal()
        guard try self.configuration() == configuration else {
            throw TrainingError.run(
                "\(url.path) holds a search with other settings (its first line says which); repeat those with "
                    + "`resume`, or remove the folder")
        }
        // Also where no line is torn: what is appended to is then no link.
        try AtomicFile.write(Array(content.wholeLines), to: journal)
        let generations = lines.compactMap(\.generation)
        return (
            lines.compactMap(\.judged), lines.compactMap(\.refined), generations.count,
            generations.map(\.seconds).max() ?? 0
        )
    }

    /// The journal's text, and its whole lines: what follows the last newline was being written.
    private func readJournal() throws -> (content: [UInt8], lines: [Line]) {
        guard FileManager.default.fileExists(atPath: journal.path) else {
            throw TrainingError.missing("\(url.path) holds no search to go on with", .beginSearch)
        }
        let content = try fileContents(of: journal, limit: largestJournal)
        let lines = content.wholeLines.split(separator: newline).compactMap {
            try? JSONDecoder().decode(Line.self, from: Data($0))
        }
        for line in lines { try check(line) }
        return (content, lines)
    }

    /// Throws for numbers that no search has written.
    private func check(_ line: Line) throws {
        func require(_ holds: Bool, _ what: String) throws {
            if !holds {
                throw TrainingError.run(
                    "\(journal.path) says \(what), which no search has written; remove the folder \(url.path) and search "
                        + "again")
            }
        }
        func require(_ judged: Judged?) throws {
            guard let judged else { return }
            try require(judged.parameters >= 0, "\(judged.parameters) parameters")
            guard let score = judged.score else { return }
            try require((0...1).contains(score.accuracy), "an accuracy of \(score.accuracy)")
            try require(score.loss >= 0, "a loss of \(score.loss)")
        }
        try require(line.judged)
        try require(line.refined)
        if let generation = line.generation {
            // A hundred years.
            try require((0...3.2e9).contains(generation.seconds), "that it took \(generation.seconds) s")
            try require(generation.number >= 0, "generation \(generation.number)")
        }
        guard let search = line.search else { return }
        do { try search.settings.validate() } catch { try require(false, "\(error)") }
        try require(
            search.minParameters >= 0 && search.minParameters <= search.maxParameters,
            "\(search.minParameters) to \(search.maxParameters) parameters")
    }

    func append(_ line: Line) throws { try AtomicFile.append(try AtomicFile.json(line), to: journal) }

    /// Writes a value as indented JSON. Throws `CheckpointError`.
    public func write(_ value: some Encodable, to url: URL) throws {
        try AtomicFile.write(try AtomicFile.json(value, indented: true), to: url)
    }

    /// What the search is. Throws `TrainingError` when there is none.
    public func configuration() throws -> Configuration {
        guard let configuration = try readJournal().lines.first?.search else {
            throw TrainingError.run("\(journal.path) is no search of this program; remove it")
        }
        return configuration
    }

    /// The architecture that the search has found. Throws `TrainingError.missing` when there is none yet.
    public func found() throws -> Architecture { try SearchDirectory.architecture(at: architecture) }

    /// Every candidate that was scored or given up. Throws `TrainingError` when there is no search.
    public func judged() throws -> [Judged] { try readJournal().lines.compactMap(\.judged) }

    /// What A to E are worth; nil when it wasn't asked.
    public func readAblation() -> Ablation? {
        try? read(ablation)
    }

    /// What the search took. Throws `TrainingError.missing` when it hasn't ended.
    public func readSummary() throws -> Summary { try read(summary) }

    /// The front. Throws `TrainingError.missing` when the search hasn't ended.
    public func readFront() throws -> [Architecture] { try read(front) }

    /// The architecture in a file. Throws `TrainingError.missing`.
    public static func architecture(at url: URL) throws -> Architecture {
        guard
            let architecture = try? JSONDecoder().decode(Architecture.self, from: Data(fileContents(of: url)))
        else {
            throw TrainingError.missing("\(url.path) is no architecture", .giveArchitecture)
        }
        return architecture
    }

    private func read<Value: Decodable>(_ url: URL) throws -> Value {
        guard
            let value = try? JSONDecoder().decode(
                Value.self, from: Data(fileContents(of: url, limit: largestJournal)))
        else {
            throw TrainingError.missing("\(url.path) is missing or broken", .endSearch)
        }
        return value
    }
}

/// The longest journal of a search that is read, in bytes: some ten thousand candidates of the deepest models.
private let largestJournal = 128 << 20

private let newline = UInt8(ascii: "\n")

extension [UInt8] {
    /// Up to the last newline.
    fileprivate var wholeLines: ArraySlice<UInt8> { lastIndex(of: newline).map { self[...$0] } ?? [] }
}
