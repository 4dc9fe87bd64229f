import Adapters
import ArgumentParser
import Checkpoints
import Experiments
import Foundation
import Training

/// A sweep under way: its trials' scores so far, rung by rung, in `sweep.json` and on its page after every trial.
final class SweepProgress {
    /// A trial on a rung.
    struct Entry {
        let score: TrialScore
        /// One for each seed, up to the first whose loss stopped being a number.
        let cells: [(cell: Cell, result: CellResult)]
    }

    private let sweep: Sweep
    private let text: String
    private let data: SweepData
    private let queue: CellQueue
    private let output: URL
    private let console: Console
    private var entries: [Entry] = []

    /// `text` is the sweep's file.
    init(
        _ sweep: Sweep, _ text: String, _ data: SweepData, _ queue: CellQueue, in output: URL,
        _ console: Console
    ) {
        (self.sweep, self.text, self.data, self.queue) = (sweep, text, data, queue)
        (self.output, self.console) = (output, console)
        var left = sweep.trials.count
        for _ in rungs {
            queue.count += left * sweep.seeds.count
            left = sweep.halving?.kept(of: left) ?? left
        }
    }

    /// The epochs of each rung; nil for a sweep without.
    private var rungs: [Int?] { sweep.halving?.epochs.map(Optional.some) ?? [nil] }

    /// Trains every trial, rung by rung. Throws `ExitCode.stopped` when the user stopped it.
    func train() throws {
        var trials = sweep.trials
        for (index, epochs) in rungs.enumerated() {
            let rung = try trials.map { trial in
                let entry = try train(trial, rung: index, epochs)
                entries.append(entry)
                try write(isFinished: false)
                try writePage(isFinished: false, isFollowed: true)
                return entry.score
            }
            let ranked = TrialScore.ranked(rung).filter { $0.validation != nil }
            guard !ranked.isEmpty else {
                throw TrainingError.run(
                    "the loss stopped being a number in every trial; give lower learning rates, and another --run"
                )
            }
            guard let halving = sweep.halving, index + 1 < rungs.count else { return }
            let kept = ranked.prefix(halving.kept(of: trials.count)).map(\.trial)
            queue.skip((halving.kept(of: trials.count) - kept.count) * sweep.seeds.count)
            console.say(
                "after \(halving.epochs[index]) epoch\(halving.epochs[index] == 1 ? "" : "s") \(kept.count) of \(trials.count) trials go on to "
                    + "\(halving.epochs[index + 1])")
            trials = kept.sorted { $0.number < $1.number }
        }
    }

    private func train(_ trial: Sweep.Trial, rung: Int, _ epochs: Int?) throws -> Entry {
        var cells: [(cell: Cell, result: CellResult)] = []
        for seed in sweep.seeds {
            let cell = data.cell(sweep, trial, epochs: epochs, seed: seed, in: output)
            do { cells.append((cell, try queue.take(cell, to: .trained))) } catch let code as ExitCode
                where code.rawValue == CellProcess.notANumber
            {
                // The other seeds can't make it a choice.
                queue.skip(sweep.seeds.count - cells.count)
                break
            }
        }
        let isWhole = cells.count == sweep.seeds.count
        return Entry(
            score: TrialScore(
                trial: trial, rung: rung, epochs: epochs ?? data.options(sweep, trial, seed: 0).epochs,
                validation: isWhole ? Spread(cells.compactMap(\.result.valAccuracy)) : nil,
                loss: isWhole ? Spread(cells.compactMap(\.result.valLoss))?.mean : nil),
            cells: cells)
    }

    /// Scores the best trial's best states on the test split, where the sweep asks for it.
    func test() throws {
        guard sweep.testsBest, let best = ranked.first,
            let index = entries.lastIndex(where: { $0.score.trial == best.score.trial })
        else { return }
        let cells = try best.cells.map { cell, _ in
            (cell: cell, result: try queue.take(cell, to: .tested, counts: false))
        }
        entries[index] = Entry(score: best.score, cells: cells)
    }

    /// Every trial where it got furthest, best first.
    private var ranked: [Entry] {
        var furthest: [Int: Entry] = [:]
        for entry in entries { furthest[entry.score.trial.number] = entry }
        return TrialScore.ranked(furthest.values.map(\.score)).compactMap { furthest[$0.trial.number] }
    }

    // MARK: Result

    private func write(isFinished: Bool) throws {
        let json = try Console.json(result(isFinished: isFinished), schema: SweepCommand.schema)
        try AtomicFile.write(json + "\n", to: output.appendingPathComponent("sweep.json"))
    }

    func result(isFinished: Bool) -> SweepResult {
        let trials = ranked.map { entry in
            SweepResult.Trial(
                trial: entry.score.trial.number, settings: .init(sweep.assignments(entry.score.trial)),
                rungs: entries.filter { $0.score.trial == entry.score.trial }.map(SweepResult.Rung.init))
        }
        var best: SweepResult.Best?
        if isFinished, let first = ranked.first,
            let run = first.cells.max(by: { ($0.result.valAccuracy ?? 0) < ($1.result.valAccuracy ?? 0) })
        {
            best = SweepResult.Best(
                trial: first.score.trial.number, run: run.cell.folder.path,
                validation: first.score.validation,
                test: Spread(first.cells.compactMap { $0.result.accuracy(on: "test") }))
        }
        return SweepResult(
            finished: isFinished, run: output.path, task: data.task.name, search: sweep.search.rawValue,
            seeds: sweep.seeds, done: queue.done, count: queue.count, trials: trials, best: best)
    }

    // MARK: Table and page

    /// A terminal's worth of trials.
    private static let shown = 30

    /// Writes `sweep.json` and `report.html`, and prints the table.
    func report() throws {
        try write(isFinished: true)
        let table = table
        console.say("")
        for line in table.lines.prefix(Self.shown + 1) { console.say(line) }
        if table.rows.count > Self.shown {
            console.say("and \(table.rows.count - Self.shown) more in \(output.path)/report.html")
        }
        console.say("")
        for line in protocolLines { console.say("- \(line)") }
        try writePage(isFinished: true, isFollowed: false)
    }

    /// Writes `report.html`; one that `isFollowed` is going to change.
    func writePage(isFinished: Bool, isFollowed: Bool) throws {
        var page = ComparisonPage("\(data.task.name): a sweep", in: output)
        if !isFinished {
            page.add("Not finished", "<p>\(queue.done) of \(queue.count) trainings are done.</p>")
        }
        page.add("Trials, best first", table.html)
        let scatter = scatter
        if !scatter.isEmpty { page.add("Settings and validation", scatter) }
        page.add("Learning curves of the best, first seed", try curves)
        if let best = ranked.first?.cells.first, let mistakes = try Mistakes(best.cell.directory) {
            page.add("Mistakes of the best, first seed, on \(mistakes.split)", mistakes.html)
        }
        let file = output.appendingPathComponent(RunDirectory.sweepFile).path
        page.addProtocol(
            protocolLines,
            again: "glora sweep --config \(file.shellQuoted) --run again\n\n# \(file)\n\(text)")
        try page.write(console, isFollowed: isFollowed)
    }

    private var table: Table {
        let isTested = sweep.testsBest
        var table = Table(
            head: ["trial"] + sweep.axes.map(\.name) + ["validation %", "loss"] + (isTested ? ["test %"] : [])
                + ["epochs", "adapter", "training"])
        for entry in ranked {
            let own = entries.filter { $0.score.trial == entry.score.trial }
            let seconds = own.flatMap(\.cells).reduce(0) { $0 + $1.result.seconds }
            let test = Spread(entry.cells.compactMap { $0.result.accuracy(on: "test") })
            table.rows.append(
                ["\(entry.score.trial.number)"]
                    + zip(sweep.axes, entry.score.trial.words).map { $0.short($1) }
                    + [
                        entry.score.validation?.percent ?? "not a number",
                        entry.score.loss?.fixed(4) ?? "",
                    ] + (isTested ? [test?.percent ?? ""] : []) + [
                        "\(entry.score.epochs)", entry.cells.first?.result.adapterParameters.grouped ?? "",
                        seconds.duration,
                    ])
        }
        return table
    }

    private var protocolLines: [String] {
        let (images, seeds) = (data.images, sweep.seeds.map(String.init).joined(separator: ", "))
        let count = sweep.trials.count
        var lines = [
            (sweep.search == .grid ? "all \(count) combinations" : "\(count) draws of seed \(sweep.seed)")
                + ", each trained with "
                + (sweep.seeds.count > 1 ? "seeds \(seeds): mean ± standard deviation" : "seed \(seeds)"),
            "judged by the best validation of a training (\(images.validation?.count ?? 0) images): the best of \(count) "
                + "looks better there than it is",
        ]
        if let halving = sweep.halving {
            let rungs = halving.epochs.map(String.init).joined(separator: ", ")
            lines.append(
                "successive halving: trainings of \(rungs) epochs, each anew with its own schedule, and the best "
                    + "\((100 * halving.keep).fixed(1)) % go on; trials of fewer epochs stand below")
        }
        guard let best = ranked.first else { return lines }
        if sweep.testsBest, let test = Spread(best.cells.compactMap { $0.result.accuracy(on: "test") }) {
            lines.append(
                "the test split (\(images.tests[0].images.count) images) was read once, at the end, for trial "
                    + "\(best.score.trial.number) alone: \(test.percent) %")
        } else {
            lines.append("the test split was not read")
        }
        lines.append(
            "the best: trial \(best.score.trial.number), \(result(isFinished: true).best?.run ?? "")")
        return lines
    }

    /// Validation accuracy over each number that varies; over its logarithm where that was drawn.
    private var scatter: String {
        sweep.axes.enumerated().map { index, axis in
            var isLog = false
            if case .log = axis.range { isLog = true }
            // Trials of other rungs had other numbers of epochs.
            let series = Set(ranked.map(\.score.rung)).sorted(by: >).map { rung in
                let points = ranked.compactMap { entry -> (x: Double, y: Double)? in
                    guard entry.score.rung == rung, let x = Double(entry.score.trial.words[index]),
                        let y = entry.score.validation?.mean
                    else { return nil }
                    return (isLog ? log10(x) : x, 100 * y)
                }
                let name = sweep.halving.map { "a trial of \($0.epochs[rung]) epochs" } ?? "a trial"
                return Page.Series(name: name, points: points, isDots: true)
            }
            guard series.contains(where: { !$0.points.isEmpty }) else { return "" }
            return Page.chart(
                series, x: isLog ? "log₁₀ \(axis.name)" : axis.name, y: "validation accuracy, %")
        }.joined()
    }

    private var curves: String {
        get throws {
            let series = try ranked.prefix(6).filter { !$0.cells.isEmpty }.map { entry in
                Page.Series(
                    name: "trial \(entry.score.trial.number)",
                    metrics: try entry.cells[0].cell.directory.epochMetrics()
                ) { $0.valAccuracy.map { 100 * $0 } }
            }
            return Page.chart(series, x: "epoch", y: "validation accuracy, %")
        }
    }
}

/// What `sweep.json` holds and `--json` prints.
struct SweepResult: Encodable {
    struct Trial: Encodable {
        let trial: Int
        let settings: Settings
        let rungs: [Rung]
    }

    struct Rung: Encodable {
        let epochs: Int
        let validation: Spread?
        let loss: Double?
        let seeds: [Seed]
        let adapterParameters: Int?

        init(_ entry: SweepProgress.Entry) {
            (epochs, validation, loss) = (entry.score.epochs, entry.score.validation, entry.score.loss)
            adapterParameters = entry.cells.first?.result.adapterParameters
            seeds = entry.cells.map { cell, result in
                Seed(
                    seed: cell.options.seed, run: cell.folder.path, accuracy: result.valAccuracy,
                    loss: result.valLoss, seconds: result.seconds)
            }
        }
    }

    struct Seed: Encodable {
        let seed: Int
        let run: String
        let accuracy: Double?
        let loss: Double?
        let seconds: Double
    }

    struct Best: Encodable {
        let trial: Int
        let run: String
        let validation: Spread?
        let test: Spread?
    }

    /// The settings that vary, under their names.
    struct Settings: Encodable {
        private let values: [(name: String, value: any SettingValue)]

        init(_ values: [(name: String, value: any SettingValue)]) { self.values = values }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: SettingKey.self)
            for (name, value) in values { try container.encode(value, forKey: SettingKey(stringValue: name)) }
        }
    }

    let finished: Bool
    let run: String
    let task: String
    let search: String
    let seeds: [Int]
    let done: Int
    let count: Int
    /// Best first.
    let trials: [Trial]
    let best: Best?
}
