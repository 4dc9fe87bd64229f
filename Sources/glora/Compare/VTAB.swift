import ArgumentParser
import Checkpoints
import Datasets
import Experiments
import Foundation

struct VTAB: GridCommand {
    static let configuration = CommandConfiguration(
        commandName: "vtab",
        abstract: "VTAB-1K's 19 tasks, with both averages, beside the published rows.",
        discussion: """
            The folder holds a folder for each task, as NOAH's script writes them. What is done is
            kept in --output: the same command goes on where it was stopped. As the published
            rows do, it trains on train800val200; --lrs are chosen on train800 by val200.

            Example:
              glora vtab --root vtab-1k --model ViT-B_16.npz --methods glora,lora
              glora vtab --root vtab-1k --model vit --methods lora --tasks cifar,dtd
            """)

    @Option(help: "The folder of the tasks' folders.")
    var root: String
    @Option(help: "Tasks, with commas (default: all 19).")
    var tasks: String?
    @Option(help: "The split to train on: train800val200 or train800.")
    var trainSplit = "train800val200"
    @Option(help: "The folder for the runs and the report.")
    var output = "glora-vtab"
    @Option(help: "How many seeds, from 0 on.")
    var seeds = 1
    @OptionGroup var flags: CellFlags

    static let schema = "glora.vtab/1"

    struct Row: Encodable {
        let method: String
        let accuracies: [String: Spread]
        let learningRates: [String: Double]
        let averages: VTABAverages
        let adapterParameters: Int
        let seconds: Double
    }

    struct Result: Encodable {
        let finished = true
        let output: String
        let tasks: [String]
        let seeds: Int
        let rows: [Row]
    }

    mutating func validate() throws {
        guard (1...1000).contains(seeds) else {
            throw ValidationError("--seeds must be from 1 to 1000, not \(seeds)")
        }
        _ = try chosen()
    }

    func run() throws {
        let console = flags.common.console
        let lock = try FolderLock.output(URL(fileURLWithPath: output), console)
        defer { lock.release() }
        let chosen = try chosen()
        // Every list is read before anything is trained.
        let tasks = try self.tasks(named: nil)
        let grid = try Grid(self)
        let outcomes = try grid.run(tasks)
        let rows = try flags.entries().map { entry in row(entry, outcomes.filter { $0.method == entry }) }
        let table = table(chosen, rows)
        console.say("")
        for line in table.lines { console.say(line) }
        let lines =
            try [
                "trained on \(trainSplit), tested on test, "
                    + (seeds == 1 ? "seed 0" : "the mean of the seeds 0 to \(seeds - 1)")
                    + (Split(trainSplit) == .trainAndValidation && flags.lrs != nil
                        ? "; rates chosen on train800 by val200" : ""),
                "groups: the mean of the group means (natural 7, specialized 4, structured 8), which papers print; "
                    + "tasks: the mean of the 19",
                "published: ViT-B/16 of ImageNet-21k, the rows of PACE's Table 1, averages computed from them; "
                    + "these were trained with other schedules, and rates chosen for each task",
            ] + flags.protocolLines(grid, tasks[0])
        console.say("")
        for line in lines { console.say("- \(line)") }
        var page = ComparisonPage("VTAB-1K", in: grid.output)
        page.add("Test accuracy, %", "<div style=\"overflow-x:auto\">\(table.html)</div>")
        if flags.lrs != nil || seeds > 1 {
            page.add("Learning rates and seeds", details(chosen, rows).html)
        }
        try page.addMistakes(outcomes)
        page.addProtocol(lines)
        try page.write(console)
        try console.result(
            Result(output: grid.output.path, tasks: chosen.map(\.name), seeds: seeds, rows: rows),
            schema: Self.schema)
    }

    func tasks(named name: String?) throws -> [GridTask] {
        try chosen().filter { name == nil || $0.name == name }.map { task in
            let url = try folder(of: task)
            return try GridTask(
                try TaskFolder.open(url), data: url.relativePath, trainSplit: trainSplit,
                seeds: Array(0..<seeds))
        }
    }

    /// The tasks that are asked for, in the papers' order.
    private func chosen() throws -> [VTABTask] {
        guard let tasks else { return VTABTask.all }
        let asked = try tasks.split(separator: ",").map { word in
            guard let task = VTABTask.named(word.trimmingCharacters(in: .whitespaces)) else {
                throw ValidationError(
                    "--tasks: there is no task '\(word)'; there are "
                        + VTABTask.all.map(\.name).joined(separator: ", "))
            }
            return task
        }
        guard !asked.isEmpty else { throw ValidationError("--tasks names none; write cifar,dtd") }
        return VTABTask.all.filter(asked.contains)
    }

    private func folder(of task: VTABTask) throws -> URL {
        let url = URL(fileURLWithPath: root).appendingPathComponent(task.name)
        guard FileManager.default.fileExists(atPath: url.path) else {
            throw DatasetError(
                "\(root) has no folder \(task.name); put the task there, or name those that there are with "
                    + "--tasks.")
        }
        return url
    }

    private func row(_ entry: MethodEntry, _ outcomes: [Outcome]) -> Row {
        let means = outcomes.compactMap { outcome in
            outcome.accuracy(on: "test").map { (outcome.task, $0) }
        }
        return Row(
            method: entry.description, accuracies: Dictionary(uniqueKeysWithValues: means),
            learningRates: Dictionary(uniqueKeysWithValues: outcomes.map { ($0.task, $0.rate) }),
            averages: VTABAverages(
                Dictionary(
                    uniqueKeysWithValues: means.compactMap { name, spread in
                        VTABTask.named(name).map { ($0, spread.mean) }
                    })),
            adapterParameters: outcomes.map { $0.cells[0].result.adapterParameters }.max() ?? 0,
            seconds: outcomes.compactMap(\.seconds?.mean).reduce(0, +))
    }

    /// The methods' rows, then the published ones, over the same tasks.
    private func table(_ tasks: [VTABTask], _ rows: [Row]) -> Table {
        let isWhole = tasks.count == VTABTask.all.count
        let averages =
            isWhole ? ["natural", "specialized", "structured", "groups", "tasks"] : ["mean of these"]
        var table = Table(head: [""] + tasks.map(\.shortName) + averages)
        func add(_ name: String, _ accuracies: [VTABTask: Double]) {
            let means = VTABAverages(accuracies)
            let last =
                isWhole
                ? [means.natural, means.specialized, means.structured, means.ofGroups, means.ofTasks]
                : [means.ofThose]
            table.rows.append(
                [name]
                    + (tasks.map { accuracies[$0] } + last).map { value in
                        value.map { (100 * $0).fixed(1) } ?? ""
                    })
        }
        for row in rows {
            add(
                row.method,
                Dictionary(
                    uniqueKeysWithValues: tasks.compactMap { task in
                        row.accuracies[task.name].map { (task, $0.mean) }
                    }))
        }
        for row in PublishedVTABRow.all {
            add(row.name + ", published", row.accuracies.filter { tasks.contains($0.key) })
        }
        return table
    }

    private func details(_ tasks: [VTABTask], _ rows: [Row]) -> Table {
        var table = Table(head: ["task"] + rows.flatMap { [$0.method, "lr"] })
        for task in tasks {
            table.rows.append(
                [task.name]
                    + rows.flatMap { row in
                        [
                            row.accuracies[task.name]?.percent ?? "",
                            row.learningRates[task.name]?.short ?? "",
                        ]
                    })
        }
        return table
    }
}
