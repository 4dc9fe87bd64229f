import ArgumentParser
import Checkpoints
import Datasets
import Experiments
import Foundation
import ModelConfiguration
import Training

/// A task of a comparison: its splits for each seed.
struct GridTask {
    /// The splits of one seed.
    struct Draw {
        let seed: Int
        let images: CellImages
    }

    /// As folders and tables have it; a slash makes a folder in a folder.
    let name: String
    /// `--data` and `--train-split` of its runs.
    let data: String
    let trainSplit: String
    let draws: [Draw]
    /// Whether it is one of VTAB-1K's, whose protocol its trainings keep.
    var isVTAB = false
    /// Other splits to choose the rate on, where the training split holds the validation images: their name, and they.
    var choosing: (split: String, images: CellImages)?

    /// The training of one method with one rate and one seed, below `output`.
    func cell(_ entry: MethodEntry, _ rate: Double, _ draw: Draw, _ flags: CellFlags, in output: URL) -> Cell
    {
        var options = flags.options(entry, rate: rate, seed: draw.seed)
        options.data = data
        options.trainSplit = trainSplit
        if isVTAB { options.keepVTABProtocol() }
        return Cell(task: name, method: entry, options: options, images: draw.images, output: output)
    }

    /// The training that tries a rate, on the first seed.
    func trial(_ entry: MethodEntry, _ rate: Double, _ flags: CellFlags, in output: URL) -> Cell {
        let cell = cell(entry, rate, draws[0], flags, in: output)
        guard let choosing else { return cell }
        var options = cell.options
        options.trainSplit = choosing.split
        return Cell(
            task: name, method: entry, options: options, images: choosing.images, output: output,
            suffix: "-" + choosing.split)
    }

    /// What its first seed is trained and tested on.
    var summary: DataSummary {
        let images = draws[0].images
        let named =
            [(.training, "training", images.training)]
            + (images.validation.map { [(.validation, "validation", $0)] } ?? [])
            + images.tests.map { (.test, $0.name, $0.images) } as [(DataSummary.Use, String, any ImageSource)]
        return DataSummary(
            of: name,
            named.compactMap { use, name, images in
                (images as? ImageList).map { DataSummary.Part(use, $0, name: name) }
            })
    }

    /// Every training that the flags may come to, whichever rates are chosen.
    func cells(_ flags: CellFlags, in output: URL) throws -> [Cell] {
        try flags.entries().flatMap { entry in
            let rates = flags.rates(entry)
            return rates.flatMap { rate in
                (rates.count > 1 ? [trial(entry, rate, flags, in: output)] : [])
                    + draws.map { cell(entry, rate, $0, flags, in: output) }
            }
        }
    }
}

/// One method on one task: the rate that was chosen, and a result for each seed.
struct Outcome {
    let task: String
    let method: MethodEntry
    let rate: Double
    let tried: [TriedRate]
    /// One for each seed, in order.
    let cells: [(cell: Cell, result: CellResult)]

    /// Over the seeds.
    func accuracy(on test: String) -> Spread? {
        Spread(cells.compactMap { $0.result.accuracy(on: test) })
    }

    /// Over the seeds; nil without a validation split.
    var validation: Spread? { Spread(cells.compactMap(\.result.valAccuracy)) }

    /// Over the seeds, of one training.
    var seconds: Spread? { Spread(cells.map(\.result.seconds)) }

    /// The most of any seed: the device's where it has memory of its own, else the process's.
    var peakBytes: Int { cells.map { $0.result.deviceBytes ?? $0.result.peakBytes }.max() ?? 0 }
}

/// Has the cells of a comparison trained and tested.
final class Grid {
    let output: URL
    private let base: KnownBase
    private let flags: CellFlags
    private let schema: String
    private let console: Console
    private let queue: CellQueue

    /// Checks the model and the device that the cells will use, and lets both go.
    init<Command: GridCommand>(_ command: Command) throws {
        flags = command.flags
        schema = Command.schema
        output = URL(fileURLWithPath: command.output)
        console = flags.common.console
        let first = try flags.entries()[0]
        let options = flags.options(first, rate: flags.rates(first)[0], seed: 0)
        let base = KnownBase(try TrainingBase(options, flags.device, console).checkpoint)
        self.base = base
        queue = CellQueue(command, console) { _ in base }
    }

    /// Of the base that all train.
    var configuration: ViTConfiguration { base.checkpoint.configuration }

    /// Every method on every task, task by task; `measuring` what an image costs the first seed's models. Throws `ExitCode.stopped`
    /// when the user stopped it.
    func run(_ tasks: [GridTask], measuring: Bool = false) throws -> [Outcome] {
        Interrupt.install()
        let entries = try flags.entries()
        for task in tasks {
            for entry in entries {
                let rates = flags.rates(entry).count
                queue.count += task.draws.count
                if rates > 1 { queue.count += task.choosing == nil ? rates - 1 : rates }
            }
        }
        for task in tasks { console.say(task.summary) }
        let lines = try tasks.map { task in
            try task.cell(entries[0], 0, task.draws[0], flags, in: output).options.preprocessingLine(
                base.checkpoint)
        }
        for (index, line) in lines.enumerated() where !lines[..<index].contains(line) { console.say(line) }
        for task in tasks {
            // What was made with other settings is said before hours are spent on the rest.
            let results = try task.cells(flags, in: output).map { try queue.result(of: $0) }
            if results.contains(nil) { try check(task) }
        }
        do {
            return try tasks.flatMap { task in try entries.map { try outcome(task, $0, measuring) } }
        } catch let code as ExitCode where code == .stopped {
            console.say("stopped; \(output.path)/ keeps what is done, the same command goes on from there")
            try? console.result(
                Stopped(output: output.path, done: queue.done, count: queue.count), schema: schema)
            throw code
        }
    }

    /// Reads a task's images once: see `ImageCheckFlags`.
    private func check(_ task: GridTask) throws {
        let cell = task.cell(try flags.entries()[0], 0, task.draws[0], flags, in: output)
        let preprocessor = try cell.options.preprocessor(for: configuration)
        var hashes: Set<UInt64> = []
        let splits = task.draws.flatMap(\.images.splits).filter { hashes.insert($0.contentHash).inserted }
        // A cell's process reads them again: nothing is kept here.
        try flags.checks.check(splits.map { PreparedImages($0, preprocessor, cacheByteLimit: 0) }, console)
    }

    private func outcome(_ task: GridTask, _ entry: MethodEntry, _ measuring: Bool) throws -> Outcome {
        let rates = flags.rates(entry)
        let tried = rates.count > 1 ? try rates.map { try attempt(task, entry, $0) } : []
        guard let rate = tried.isEmpty ? rates[0] : TriedRate.best(tried) else {
            throw TrainingError.run(
                "\(task.name), \(entry): the loss stopped being a number at every one of --lrs; give lower ones"
            )
        }
        if !tried.isEmpty { console.say("\(task.name), \(entry): validation chose lr \(rate.short)") }
        let cells = try task.draws.enumerated().map { index, draw in
            let cell = task.cell(entry, rate, draw, flags, in: output)
            let isChosenAlready = !tried.isEmpty && task.choosing == nil && index == 0
            let result = try queue.take(
                cell, to: measuring && index == 0 ? .measured : .tested, counts: !isChosenAlready)
            return (cell: cell, result: result)
        }
        return Outcome(task: task.name, method: entry, rate: rate, tried: tried, cells: cells)
    }

    /// Tries a rate. One at which the loss stops being a number has no accuracy.
    private func attempt(_ task: GridTask, _ entry: MethodEntry, _ rate: Double) throws -> TriedRate {
        let cell = task.trial(entry, rate, flags, in: output)
        guard cell.images.validation != nil else {
            throw ValidationError(
                "--lrs chooses by validation accuracy, and \(task.name) has no validation split; give one, or --lr"
            )
        }
        do {
            let result = try queue.take(cell, to: .trained)
            return TriedRate(rate: rate, accuracy: result.valAccuracy, loss: result.valLoss)
        } catch let code as ExitCode where code.rawValue == CellProcess.notANumber {
            queue.skip(1)
            return TriedRate(rate: rate, accuracy: nil, loss: nil)
        }
    }

    private struct Stopped: Encodable {
        let finished = false
        let output: String
        let done: Int
        let count: Int
    }
}
