import ArgumentParser
import Datasets
import Foundation
import TensorCore
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
    /// Other splits to choose the rate on, where the training split holds the validation images: their name, and they.
    var choosing: (split: String, images: CellImages)?
}

/// One method on one task: the rate that was chosen, and a result for each seed.
struct Outcome {
    let task: String
    let method: MethodEntry
    let rate: Double
    let tried: [TriedRate]
    /// One for each seed, in order.
    var cells: [(cell: Cell, result: CellResult)]

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

/// Trains and tests the cells of a comparison one after the other. What was done before is read, what was begun goes on.
final class Grid {
    let runner: CellRunner
    let base: TrainingBase
    let output: URL
    private let flags: CellFlags
    private let console: Console
    private var (done, count) = (0, 0)

    init(_ flags: CellFlags, output: String, _ console: Console) throws {
        self.flags = flags
        self.console = console
        self.output = URL(fileURLWithPath: output)
        let first = try flags.entries()[0]
        let options = flags.options(first, rate: flags.rates(first)[0], seed: 0)
        base = try TrainingBase(options, flags.device, console)
        let backend = base.backend
        runner = CellRunner(
            base.checkpoint, scoring: flags.checkpoint, on: backend,
            deviceBytes: flags.device.isOnHost(backend) ? nil : { backend.heldByteCount })
    }

    /// Every method on every task, task by task. Throws `ExitCode(130)` when the user stopped it.
    func run(_ tasks: [GridTask]) throws -> [Outcome] {
        Interrupt.install()
        let entries = try flags.entries()
        for task in tasks {
            for entry in entries {
                let rates = flags.rates(entry).count
                count += task.draws.count
                if rates > 1 { count += task.choosing == nil ? rates - 1 : rates }
            }
        }
        // What was made with other settings is said before hours are spent on the rest.
        for task in tasks {
            for entry in entries {
                for rate in flags.rates(entry) {
                    for draw in task.draws { _ = try runner.result(of: cell(task, entry, rate, draw)) }
                }
            }
        }
        return try tasks.flatMap { task in try entries.map { try outcome(task, $0) } }
    }

    private func outcome(_ task: GridTask, _ entry: MethodEntry) throws -> Outcome {
        let rates = flags.rates(entry)
        let tried = rates.count > 1 ? try rates.map { try attempt(task, entry, $0) } : []
        guard let rate = tried.isEmpty ? rates[0] : TriedRate.best(tried) else {
            throw TrainingError.run(
                "\(task.name), \(entry): the loss stopped being a number at every one of --lrs; give lower ones"
            )
        }
        if !tried.isEmpty { console.say("\(task.name), \(entry): validation chose lr \(rate.short)") }
        let cells = try task.draws.map { draw in
            let cell = cell(task, entry, rate, draw)
            let isChosenAlready = !tried.isEmpty && task.choosing == nil && draw.seed == task.draws[0].seed
            let result: CellResult
            do { result = try train(cell, counts: !isChosenAlready) } catch TrainingError.notANumber(
                let step, _)
            {
                throw TrainingError.run(
                    "\(label(cell)): the loss is not a number at step \(step); give a lower --lr and another "
                        + "--output, or --lrs to choose from")
            }
            return (cell: cell, result: try test(cell, result))
        }
        return Outcome(task: task.name, method: entry, rate: rate, tried: tried, cells: cells)
    }

    /// Tries a rate on the first seed. One at which the loss stops being a number is no choice, and no error.
    private func attempt(_ task: GridTask, _ entry: MethodEntry, _ rate: Double) throws -> TriedRate {
        var cell = cell(task, entry, rate, task.draws[0])
        if let choosing = task.choosing {
            var options = cell.options
            options.trainSplit = choosing.split
            cell = Cell(
                task: task.name, method: entry, options: options, images: choosing.images, output: output,
                suffix: "-" + choosing.split)
        }
        guard cell.images.validation != nil else {
            throw ValidationError(
                "--lrs chooses by validation accuracy, and \(task.name) has no validation split; give one, or --lr"
            )
        }
        do {
            let result = try train(cell, counts: true)
            return TriedRate(rate: rate, accuracy: result.valAccuracy, loss: result.valLoss)
        } catch TrainingError.notANumber(let step, _) {
            console.endProgress()
            console.note("\(label(cell)): the loss is not a number at step \(step); this rate is left out")
            return TriedRate(rate: rate, accuracy: nil, loss: nil)
        }
    }

    private func cell(_ task: GridTask, _ entry: MethodEntry, _ rate: Double, _ draw: GridTask.Draw) -> Cell {
        var options = flags.options(entry, rate: rate, seed: draw.seed)
        options.data = task.data
        options.trainSplit = task.trainSplit
        return Cell(task: task.name, method: entry, options: options, images: draw.images, output: output)
    }

    private func label(_ cell: Cell) -> String {
        "\(cell.task), \(cell.method), lr \(cell.options.learningRate.short), seed \(cell.options.seed)"
    }

    private func train(_ cell: Cell, counts: Bool) throws -> CellResult {
        if counts { done += 1 }
        let title = "[\(done)/\(count)] \(label(cell))"
        if let result = try runner.result(of: cell) {
            if counts { console.say("\(title): done before") }
            return result
        }
        try stopIfAsked()
        if cell.directory.holdsRun { console.say("\(title): going on") }
        let result = try runner.train(
            cell,
            onEvent: { options, event in
                if case .step(let progress) = event {
                    console.progress(
                        "\(title)  epoch \(progress.epoch + 1)/\(options.epochs)  loss "
                            + "\(progress.loss.fixed(4))  \(progress.imagesPerSecond.fixed(1)) img/s  "
                            + "\(progress.secondsLeft.duration) left")
                }
            }, shouldStop: { Interrupt.wasRequested })
        console.endProgress()
        guard let result else { throw stopped() }
        let validation = result.valAccuracy.map { "validation \((100 * $0).fixed(1)) %, " } ?? ""
        console.say("\(title): \(validation)trained in \(result.seconds.duration)")
        return result
    }

    private func test(_ cell: Cell, _ result: CellResult) throws -> CellResult {
        guard !runner.isTested(cell, result) else { return result }
        try stopIfAsked()
        let result = try runner.test(cell, result)
        let scores = cell.images.tests.map {
            "\($0.name) \((100 * (result.accuracy(on: $0.name) ?? 0)).fixed(1)) %"
        }
        console.say("  \(scores.joined(separator: ", "))")
        return result
    }

    /// Ends the command when the user asked for it.
    func stopIfAsked() throws { if Interrupt.wasRequested { throw stopped() } }

    private func stopped() -> any Error {
        console.say("stopped; \(output.path)/ keeps what is done, the same command goes on from there")
        try? console.result(Stopped(finished: false, output: output.path, done: done - 1, count: count))
        return ExitCode(130)
    }

    private struct Stopped: Encodable {
        let finished: Bool
        let output: String
        let done: Int
        let count: Int
    }
}
