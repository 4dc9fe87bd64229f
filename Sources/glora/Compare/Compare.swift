import ArgumentParser
import Checkpoints
import Datasets
import Experiments
import Foundation
import Training

struct Compare: GridCommand {
    static let configuration = CommandConfiguration(
        abstract: "Methods side by side on one task: accuracy, parameters, time, memory, cost afterwards.",
        discussion: """
            Every method is trained with every seed and tested once. What is done is kept in
            --output: the same command goes on where it was stopped.

            Example:
              glora compare --data task --model vit --methods glora,lora,linear
              glora compare --data task --model vit --methods lora,ssf --lrs 1e-3,3e-3
            """)

    @Option(help: "The data set: a VTAB-1K task folder or an ImageFolder (train/, val/, test/).")
    var data: String
    @Option(help: "The split to train on: train800 or train800val200.")
    var trainSplit = TrainingOptions().trainSplit
    @Option(help: "The folder for the runs and the report.")
    var output = "glora-compare"
    @OptionGroup var seedFlags: SeedFlags
    @OptionGroup var flags: CellFlags

    static let schema = "glora.compare/1"

    struct Row: Encodable {
        let method: String
        let learningRate: Double
        let tried: [TriedRate]
        let test: Spread?
        let validation: Spread?
        let adapterParameters: Int
        let headParameters: Int
        let seconds: Double
        let peakBytes: Int
        let inference: InferenceCost?
    }

    struct Result: Encodable {
        let finished = true
        let output: String
        let task: String
        let seeds: Int
        let rows: [Row]
    }

    func run() throws {
        let console = flags.common.console
        let lock = try FolderLock.output(URL(fileURLWithPath: output), console)
        defer { lock.release() }
        let task = try tasks(named: nil)[0]
        let grid = try Grid(self)
        let outcomes = try grid.run([task], measuring: true)
        let rows = outcomes.map(row)
        let table = table(rows)
        console.say("")
        for line in table.lines { console.say(line) }
        let lines =
            try [
                "trained on \(trainSplit) (\(task.draws[0].images.training.count) images), tested on test "
                    + "(\(task.draws[0].images.tests[0].images.count) images), seeds 0 to \(seedFlags.seeds - 1)"
                    + (seedFlags.seeds > 1 ? ": mean ± standard deviation" : "")
            ] + flags.protocolLines(grid, task) + costLines(rows)
        console.say("")
        for line in lines { console.say("- \(line)") }
        var page = ComparisonPage("\(task.name): methods compared", in: grid.output)
        page.add("Results", table.html)
        page.add("Learning curves, first seed", try curves(outcomes))
        try page.addMistakes(outcomes)
        page.addProtocol(lines)
        try page.write(console)
        try console.result(
            Result(output: grid.output.path, task: task.name, seeds: seedFlags.seeds, rows: rows),
            schema: Self.schema)
    }

    func tasks(named name: String?) throws -> [GridTask] {
        [
            try GridTask(
                try TaskFolder.open(URL(fileURLWithPath: data)), data: data, trainSplit: trainSplit,
                seeds: Array(0..<seedFlags.seeds))
        ]
    }

    private func row(_ outcome: Outcome) -> Row {
        let first = outcome.cells[0].result
        return Row(
            method: outcome.method.description, learningRate: outcome.rate, tried: outcome.tried,
            test: outcome.accuracy(on: "test"), validation: outcome.validation,
            adapterParameters: first.adapterParameters, headParameters: first.headParameters,
            seconds: outcome.seconds?.mean ?? 0, peakBytes: outcome.peakBytes, inference: first.inference)
    }

    private func table(_ rows: [Row]) -> Table {
        var table = Table(head: [
            "method", "lr", "test %", "validation %", "adapter", "head", "training", "peak memory",
            "ms/image", "of the plain model",
        ])
        for row in rows {
            table.rows.append([
                row.method, row.learningRate.short, row.test?.percent ?? "", row.validation?.percent ?? "",
                row.adapterParameters.grouped, row.headParameters.grouped, row.seconds.duration,
                "\(row.peakBytes >> 20) MiB",
                row.inference.map { (1000 * $0.secondsPerImage).fixed(3) } ?? "",
                row.inference.map { "\($0.ratio.fixed(2)) × \($0.isMerged ? "(merged)" : "(not merged)")" }
                    ?? "",
            ])
        }
        return table
    }

    private func costLines(_ rows: [Row]) -> [String] {
        guard let cost = rows.compactMap(\.inference).first else { return [] }
        let merged = rows.filter { $0.inference?.isMerged == true }
        let others = rows.filter { $0.inference?.isMerged == false }
        var lines = [
            "ms/image: a forward of \(cost.batch) images, in turn with the plain frozen model's; the middle of the rounds"
        ]
        func ratios(_ rows: [Row]) -> String {
            rows.map { "\($0.method) \(($0.inference?.ratio ?? 0).fixed(2)) ×" }.joined(separator: ", ")
        }
        if !merged.isEmpty {
            lines.append("merged, these are the same as the plain model; measured: \(ratios(merged))")
        }
        if !others.isEmpty { lines.append("these can't be merged and stay beside it: \(ratios(others))") }
        lines.append(
            "training: seconds of one seed, validation included; peak memory: of its own process, the images it keeps "
                + "included, or on a device with memory of its own what tensors held there")
        return lines
    }

    private func curves(_ outcomes: [Outcome]) throws -> String {
        let metrics = try outcomes.map {
            ($0.method.description, try $0.cells[0].cell.directory.epochMetrics())
        }
        func series(_ value: (RunDirectory.EpochMetric) -> Double?) -> [Page.Series] {
            metrics.map { Page.Series(name: $0, metrics: $1, value) }
        }
        return Page.chart(series(\.trainLoss), x: "epoch", y: "training loss")
            + Page.chart(
                series { $0.valAccuracy.map { 100 * $0 } }, x: "epoch", y: "validation accuracy, %")
    }
}

extension GridTask {
    /// A task folder with its own splits, the same for every seed. Where the training split holds the validation images, these
    /// say nothing about it, and rates are chosen on train800 alone.
    init(_ folder: TaskFolder, data: String, trainSplit: String, seeds: [Int]) throws {
        let validation = try folder.validationSplit()
        let holdsValidation = Split(trainSplit) == .trainAndValidation
        let test = CellImages.Test(name: "test", images: try folder.split(.test))
        var images = try CellImages(
            training: try folder.split(trainSplit), validation: holdsValidation ? nil : validation,
            tests: [test])
        if holdsValidation, let validation {
            images.searching = (training: try folder.split(.train), validation: validation)
        }
        name = folder.name
        (self.data, self.trainSplit) = (data, trainSplit)
        isVTAB = folder.isVTAB
        draws = seeds.map { Draw(seed: $0, images: images) }
        if holdsValidation, let validation {
            choosing = (
                "train800",
                try CellImages(training: try folder.split(.train), validation: validation, tests: [])
            )
        }
    }
}
