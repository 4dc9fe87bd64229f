import ArgumentParser
import Datasets
import Foundation
import SupernetSearch
import Training
import VisionModels

extension RunState: ExpressibleByArgument {}
extension ClassMatching: ExpressibleByArgument {}

/// `--match-classes`: which of a model's classes a data set's class is.
struct MatchFlags: ParsableArguments {
    @Option(
        help:
            "name: a class folder is the model's class of that name; number: the folders in order are the model's classes in order (default: by name where both have names)."
    )
    var matchClasses: ClassMatching?

    /// Splits of a task in the classes of the model, after a summary that says how they were matched.
    func open(
        _ splits: [String], of task: TaskFolder, for ready: ReadyModel<VisionTransformer>, _ console: Console
    ) throws -> [ImageList] {
        let parts = try splits.map { name in
            let split = Split(name)
            let use: DataSummary.Use =
                switch split {
                case .train, .trainAndValidation: .training
                case .validation: .validation
                case .test, .named: .test
                }
            let images = try task.split(
                split, matchedTo: ready.classNames, classCount: ready.model.configuration.classCount,
                by: matchClasses)
            return DataSummary.Part(use, images, name: split == .named(name) ? name : nil)
        }
        console.say(try task.summary(parts))
        return parts.map(\.images)
    }
}

/// `--run`, or `--model` with or without `--adapter`: which model a command reads.
struct ModelFlags: ParsableArguments {
    @Option(help: "A run's folder.")
    var run: String?
    @Option(
        help:
            "best (by validation) or last: which of the run's states (default: best; an architecture's own).")
    var checkpoint: RunState?
    @Option(help: "Read the run at another path: full, none, or a JSON file.")
    var path: String?
    @Option(help: "Read the run at the paths that a search found: its architecture.json.")
    var architecture: String?
    @Option(help: "A checkpoint, instead of a run.")
    var model: String?
    @Option(help: "An adapter's folder, on top of --model: one of glora's, or PEFT's GLORA or LORA.")
    var adapter: String?
    @OptionGroup var input: InputFlags

    mutating func validate() throws {
        guard (run == nil) != (model == nil) else {
            throw ValidationError("give either --run or --model")
        }
        if adapter != nil, model == nil {
            throw ValidationError("--adapter needs the --model that it belongs to")
        }
        if model != nil, path != nil || architecture != nil || checkpoint != nil {
            throw ValidationError(
                "--path, --architecture and --checkpoint read a --run, not a --model; leave them out")
        }
        if path != nil, architecture != nil { throw ValidationError("give either --path or --architecture") }
        if run != nil, !input.given.isEmpty {
            let flags = InputFlags.settings.map { "--\($0.name)" }.joined(separator: ", ")
            throw ValidationError("\(flags) are the run's own; leave them out")
        }
    }

    func open(
        _ device: DeviceFlags, _ console: Console, needsHead: Bool = true
    ) throws -> ReadyModel<VisionTransformer> {
        let backend = try device.backend(console)
        let ready: ReadyModel<VisionTransformer>
        if let run {
            let found = try architecture.map {
                try SearchDirectory.architecture(at: URL(fileURLWithPath: $0))
            }
            ready = try ReadyModel(
                run: RunDirectory(URL(fileURLWithPath: run)), state: checkpoint ?? found?.checkpoint ?? .best,
                path: architecture ?? path, on: backend)
        } else {
            var options = TrainingOptions()
            options.model = model ?? ""
            options.take(input.given)
            ready = try ReadyModel(
                options, adapter: adapter.map { URL(fileURLWithPath: $0) }, needsHead: needsHead, on: backend)
        }
        for note in ready.notes { console.note(note) }
        console.say(ready.preprocessingLine)
        return ready
    }
}

struct Evaluate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "eval",
        abstract: "Score a run, a checkpoint or an adapter on a split.",
        discussion: """
            Example:
              glora eval --run runs/a --data task --split test
              glora eval --model merged.safetensors --data task --json
            """)

    @OptionGroup var source: ModelFlags
    @Option(help: "The data set (default: the run's own).")
    var data: String?
    @Option(help: "val, test, or another split of the data set.")
    var split = "test"
    @Option(help: "Images at a time.")
    var batchSize = 64
    @OptionGroup var match: MatchFlags
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    struct Result: Encodable {
        let accuracy: Double
        let loss: Double
        let count: Int
        let correct: Int
        let split: String
    }

    mutating func validate() throws {
        try checkBatchSize(batchSize)
        if data == nil, source.run == nil {
            throw ValidationError("--data is missing: the folder of labelled images")
        }
    }

    func run() throws {
        let console = common.console
        let ready = try source.open(device, console)
        let task = try TaskFolder.open(URL(fileURLWithPath: data ?? ready.options.data))
        let images = try match.open([split], of: task, for: ready, console)[0]
        let prepared = try ready.prepare(images)
        let result = try evaluate(
            ready.model, on: prepared, batchSize: min(batchSize, images.count))
        for note in prepared.notes { console.note(note) }
        console.say(
            "\(images.name): accuracy \((100 * result.accuracy).fixed(2)) % "
                + "(\(result.correct) of \(result.count)), loss \(result.loss.fixed(4))")
        try console.result(
            Result(
                accuracy: result.accuracy, loss: result.loss, count: result.count, correct: result.correct,
                split: split),
            schema: "glora.eval/1")
    }
}
