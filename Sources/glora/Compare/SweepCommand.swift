import ArgumentParser
import Checkpoints
import Datasets
import Experiments
import Foundation
import Training

struct SweepCommand: CellsCommand {
    static let configuration = CommandConfiguration(
        commandName: "sweep",
        abstract: "Search over train's flags: a grid or draws, judged by the validation split.",
        discussion: """
            The file holds flags of glora train by their names, and below sweep: those
            that vary, as lists, or for search: random as {log: [a, b]}, {uniform: [a, b]}
            or {integers: [a, b]}. halving: {epochs: [2, 6, 20], keep: 0.333} trains all
            for 2 epochs, the best third anew for 6, and so on. With test: true the best
            trial is scored on the test split, once, at the end.

            Example:
              glora sweep --config sweep.yaml --run runs/sweep
              glora sweep --run runs/sweep --resume
            """)

    @Option(help: "The YAML file of the sweep; with --resume the folder's own, where it is left out.")
    var config: String?
    @Option(name: .customLong("run"), help: "The folder for the trials' runs, sweep.json and report.html.")
    var folder: String
    @Flag(help: "Go on where the sweep in --run stopped; what is done is kept.")
    var resume = false
    @OptionGroup var checks: ImageCheckFlags
    @OptionGroup var deviceFlags: DeviceFlags
    @OptionGroup var common: CommonFlags

    static let schema = "glora.sweep/1"

    var scoredState: RunState { .best }
    var continuation: String { "`glora sweep --run \(folder.shellQuoted) --resume`" }

    private var output: URL { URL(fileURLWithPath: folder) }
    /// The sweep's own copy of its file: what becomes of that no longer matters.
    private var kept: URL { output.appendingPathComponent(RunDirectory.sweepFile) }

    mutating func validate() throws {
        if config == nil, !resume { throw ValidationError("--config is missing: the YAML file of the sweep") }
        if deviceFlags.precision != nil {
            throw ValidationError("--precision belongs into the sweep's file, as 'precision: bfloat16'")
        }
    }

    // MARK: The file

    /// A file's text, and the sweep that it says.
    private func read(_ file: URL, name: String) throws -> (text: String, sweep: Sweep) {
        guard let bytes = try? fileContents(of: file, limit: 2 << 20),
            let text = String(validating: bytes, as: UTF8.self)
        else { throw ValidationError("\(name) can't be read; give the YAML file of a sweep") }
        do { return (text, try Sweep(yaml: text, name: name)) } catch { throw ValidationError(error) }
    }

    /// The sweep to run, and the text to keep of it. Throws where the folder holds another one.
    private func asked() throws -> (text: String, sweep: Sweep) {
        let isBegun = FileManager.default.fileExists(atPath: kept.path)
        guard resume else {
            if isBegun {
                throw TrainingError.run(
                    "\(output.path) holds a sweep already; go on with it by \(continuation), or give another --run"
                )
            }
            return try read(URL(fileURLWithPath: config ?? ""), name: "--config \(config ?? "")")
        }
        guard isBegun else {
            throw TrainingError.run("\(output.path) holds no sweep; begin one without --resume")
        }
        let before = try read(kept, name: kept.path)
        guard let config else { return before }
        let given = try read(URL(fileURLWithPath: config), name: "--config \(config)")
        if let difference = given.sweep.differences(from: before.sweep).first {
            throw TrainingError.run(
                "\(output.path) was begun with another sweep: \(difference); give the same, or another --run")
        }
        return given
    }

    // MARK: Cells

    /// The device of the command line, or else of the file.
    private func device(_ sweep: Sweep) -> DeviceFlags {
        var device = deviceFlags
        if device.device == "auto", let word = sweep.device { device.device = word }
        return device
    }

    func cells(of task: String) throws -> (cells: [Cell], device: DeviceFlags) {
        let sweep = try read(kept, name: kept.path).sweep
        let data = try SweepData(sweep)
        let rungs = sweep.halving?.epochs.map(Optional.some) ?? [nil]
        let cells = rungs.flatMap { epochs in
            sweep.trials.flatMap { trial in
                sweep.seeds.map { data.cell(sweep, trial, epochs: epochs, seed: $0, in: output) }
            }
        }
        return (cells, device(sweep))
    }

    // MARK: Running

    func run() throws {
        let console = common.console
        let (text, sweep) = try asked()
        let lock = try FolderLock.output(output, orGive: "run", console)
        defer { lock.release() }
        Interrupt.install()
        let data = try SweepData(sweep)
        console.say(data.summary)
        let device = device(sweep)
        let bases = try SweepBases(sweep, data, device, console)
        let first = data.cell(sweep, sweep.trials[0], epochs: nil, seed: sweep.seeds[0], in: output)
        let base = try bases.base(of: first.options).checkpoint
        console.say(try first.options.preprocessingLine(base))
        if !resume {
            let preprocessor = try first.options.preprocessor(for: base.configuration)
            let splits = [data.images.training] + [data.images.validation].compactMap(\.self)
            // A cell's process reads them again: nothing is kept here.
            try checks.check(splits.map { PreparedImages($0, preprocessor, cacheByteLimit: 0) }, console)
        }
        try AtomicFile.write(text, to: kept)
        let queue = CellQueue(self, console) { try bases.base(of: $0.options) }
        let progress = SweepProgress(sweep, text, data, queue, in: output, console)
        do {
            try progress.train()
            try progress.test()
        } catch let code as ExitCode where code == .stopped {
            console.say("stopped; \(output.path)/ keeps what is done, \(continuation) goes on from there")
            try? progress.writePage(isFinished: false, isFollowed: false)
            try? console.result(progress.result(isFinished: false), schema: Self.schema)
            throw code
        }
        try progress.report()
        try console.result(progress.result(isFinished: true), schema: Self.schema)
    }
}

/// The data that every trial of a sweep is trained and judged on.
struct SweepData {
    let task: TaskFolder
    let images: CellImages

    /// Throws `ValidationError` for data that nothing can be judged on.
    init(_ sweep: Sweep) throws {
        let options = sweep.options(sweep.trials[0], seed: 0)
        task = try TaskFolder.open(URL(fileURLWithPath: options.data))
        guard let validation = try task.validationSplit() else {
            throw ValidationError(
                "a sweep is judged by validation accuracy, and \(options.data) has no validation split; give it one (val/)"
            )
        }
        guard Split(options.trainSplit) != .trainAndValidation else {
            throw ValidationError(
                "a sweep is judged by validation accuracy, and 'train-split: \(options.trainSplit)' trains on these "
                    + "images; give train800"
            )
        }
        let tests = sweep.testsBest ? [CellImages.Test(name: "test", images: try task.split(.test))] : []
        images = try CellImages(
            training: try task.split(options.trainSplit), validation: validation, tests: tests)
    }

    var summary: DataSummary {
        DataSummary(
            of: task.name,
            [
                (images.training as? ImageList).map { DataSummary.Part(.training, $0) },
                (images.validation as? ImageList).map { DataSummary.Part(.validation, $0) },
            ].compactMap(\.self))
    }

    func options(
        _ sweep: Sweep, _ trial: Sweep.Trial, epochs: Int? = nil, seed: Int
    ) -> TrainingOptions {
        var options = sweep.options(trial, epochs: epochs, imageCount: images.training.count, seed: seed)
        if task.isVTAB { options.keepVTABProtocol() }
        return options
    }

    func cell(_ sweep: Sweep, _ trial: Sweep.Trial, epochs: Int?, seed: Int, in output: URL) -> Cell {
        Cell(
            sweep, trial, epochs: epochs, seed: seed, task: task.name,
            options: options(sweep, trial, epochs: epochs, seed: seed), images: images, output: output)
    }
}

/// The bases that a sweep's trials train: one, unless what is loaded varies.
final class SweepBases {
    private var known: [TrainingOptions: KnownBase] = [:]

    /// Loads each once, checks that every trial can be made on its own, and lets them go. Throws `ValidationError` with the trial.
    init(_ sweep: Sweep, _ data: SweepData, _ device: DeviceFlags, _ console: Console) throws {
        for trial in sweep.trials {
            let options = data.options(sweep, trial, seed: sweep.seeds[0])
            do {
                if known[key(options)] == nil {
                    let checkpoint =
                        known.isEmpty
                        ? try TrainingBase(options, device, console).checkpoint : try options.loadCheckpoint()
                    known[key(options)] = KnownBase(checkpoint)
                }
                let shape = try base(of: options).checkpoint.configuration.shape
                _ = try options.tuningMethod(shape)
            } catch let error as ExitCode {
                throw error
            } catch {
                throw ValidationError(
                    "trial \(trial.number) (\(sweep.text(trial))): \(Glora.message(for: error).spelledAsFlags)"
                )
            }
        }
    }

    func base(of options: TrainingOptions) throws -> KnownBase {
        if let base = known[key(options)] { return base }
        let base = KnownBase(try options.loadCheckpoint())
        known[key(options)] = base
        return base
    }

    /// What decides what is loaded.
    private func key(_ options: TrainingOptions) -> TrainingOptions {
        var key = TrainingOptions()
        (key.model, key.heads, key.imageSize) = (options.model, options.heads, options.imageSize)
        (key.normalize, key.crop) = (options.normalize, options.crop)
        (key.resizeTo, key.interpolation) = (options.resizeTo, options.interpolation)
        return key
    }
}
