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
            A run that is scored on its own data keeps what it says of each image, for
            glora report. --json holds every class's scores and the confusion matrix.

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
        let topK: Int
        let topKAccuracy: Double
        let macroF1: Double
        let classes: [ClassScores.Class]
        let confusionMatrix: [[Int]]?
        let mostConfused: [Confusion]
    }

    struct Confusion: Encodable {
        let label: Int
        let predicted: Int
        let count: Int
    }

    /// Of more classes the matrix would be a result of megabytes; what matters of it is in `mostConfused`.
    private static let largestMatrix = 1024

    mutating func validate() throws {
        try checkBatchSize(batchSize)
        if data == nil, source.run == nil {
            throw ValidationError("--data is missing: the folder of labelled images")
        }
    }

    func run() throws {
        let console = common.console
        let ready = try source.open(device, console)
        let task = try TaskFolder.open(URL(fileURLWithPath: data ?? ready.options.data), for: ready.task)
        let images = try match.open([split], of: task, for: ready, console)[0]
        let prepared = try ready.prepare(images)
        guard ready.task == .classes else { return try scoreTargets(ready, prepared, console) }
        let (result, scored) = try score(
            ready.model, on: prepared, batchSize: min(batchSize, images.count))
        for note in prepared.notes { console.note(note) }
        console.say(
            "\(images.name): accuracy \((100 * result.accuracy).fixed(2)) % "
                + "(\(result.correct) of \(result.count)), loss \(result.loss.fixed(4))")
        let classCount = ready.model.configuration.classCount
        let scores = ClassScores(scored, classCount: classCount, names: ready.classNames)
        let k = min(5, classCount)
        for line in lines(scores, top: k) { console.say(line) }
        keep(scored, ready, console)
        try console.result(
            Result(
                accuracy: result.accuracy, loss: result.loss, count: result.count, correct: result.correct,
                split: split, topK: k, topKAccuracy: scores.accuracy(top: k), macroF1: scores.macroF1,
                classes: scores.classes,
                confusionMatrix: classCount <= Evaluate.largestMatrix ? scores.matrix : nil,
                mostConfused: scores.mostConfused(20).map {
                    Confusion(label: $0.label, predicted: $0.predicted, count: $0.count)
                }),
            schema: "glora.eval/1")
    }

    /// Scores a model of labels or values: a table of them, and the same as the result.
    private func scoreTargets(
        _ ready: ReadyModel<VisionTransformer>, _ images: PreparedImages, _ console: Console
    ) throws {
        let scores = try TargetScores(ready, on: images, batchSize: min(batchSize, images.count))
        for note in images.notes { console.note(note) }
        console.say("\(images.name): \(scores.line)")
        for line in scores.table.lines { console.say(line) }
        try console.result(scores.result(split: split), schema: "glora.eval/1")
    }

    /// What there is to say of the classes: of up to ten all, of more the worst.
    private func lines(_ scores: ClassScores, top k: Int) -> [String] {
        // All images are among as many as there are classes.
        let top = k < scores.classes.count ? "top-\(k) \((100 * scores.accuracy(top: k)).fixed(2)) %, " : ""
        let first = "\(top)macro F1 \((100 * scores.macroF1).fixed(2)) %"
        func percent(_ share: Double?) -> String { share.map { (100 * $0).fixed(1) + " %" } ?? "" }
        if scores.classes.count <= 10 {
            var table = Table(head: ["class", "images", "right"] + scores.classes.map { "as \($0.index)" })
            for (one, row) in zip(scores.classes, scores.matrix) {
                let name = one.name.map { "\(one.index) \($0.prefix(24))" } ?? "\(one.index)"
                table.rows.append([name, "\(one.count)", percent(one.accuracy)] + row.map(String.init))
            }
            return [first] + table.lines
        }
        let confused = scores.mostConfused(5).map { label, predicted, count in
            "\(scores.classes[label].title) as \(scores.classes[predicted].title) "
                + "(\(count) of \(scores.classes[label].count))"
        }
        guard !confused.isEmpty else { return [first] }
        let worst = scores.classes.filter { $0.count > 0 }.sorted {
            ($0.accuracy ?? 0, $0.index) < ($1.accuracy ?? 0, $1.index)
        }
        return [
            first, "most confused: \(confused.joined(separator: ", "))",
            "least accurate: "
                + worst.prefix(5).map { "\($0.title) \(percent($0.accuracy))" }.joined(separator: ", "),
        ]
    }

    /// What the split is called in a run's folder, whichever of its names was given.
    private var keptName: String {
        switch Split(split) {
        case .train: "train"
        case .validation: "val"
        case .trainAndValidation: "trainval"
        case .test: "test"
        case .named(let name): name
        }
    }

    /// Keeps what a run says of its own data's images in its folder. That a folder can't be written to is no reason to say no score.
    private func keep(_ images: [ScoredImage], _ ready: ReadyModel<VisionTransformer>, _ console: Console) {
        guard let run = source.run, source.path == nil, source.architecture == nil else { return }
        func place(_ folder: String) -> String { URL(fileURLWithPath: folder).standardizedFileURL.path }
        if let data, place(data) != place(ready.options.data) { return }
        let directory = RunDirectory(URL(fileURLWithPath: run))
        do {
            let lock = try directory.lock(console)
            defer { lock.release() }
            try directory.write(
                StoredPredictions(
                    .init(
                        split: keptName, checkpoint: source.checkpoint ?? .best, step: ready.step,
                        classCount: ready.model.configuration.classCount), images))
        } catch { console.note("what it says of each image isn't kept for glora report: \(error)") }
    }
}
