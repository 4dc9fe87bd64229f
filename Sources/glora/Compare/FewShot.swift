import ArgumentParser
import Checkpoints
import Datasets
import Experiments
import Foundation
import Training

struct FewShot: GridCommand {
    static let configuration = CommandConfiguration(
        commandName: "fewshot",
        abstract: "Accuracy against the number of training images of a class, as NOAH's lists draw them.",
        discussion: """
            --root holds data sets such as food101/, each with annotations/train_meta.list.num_shot_K.seed_S,
            val_meta.list and test_meta.list; --data is one of them. Seed S trains on draw S.

            Trains and tests as NOAH's few-shot runs do: --augment fewshot with labels smoothed
            by 0.1, images squashed to 8/7 of the input's size and the centre cut out.
            --augment none leaves all of that out.

            Example:
              glora fewshot --root few-shot --model ViT-B_16.npz --methods glora,lora
              glora fewshot --data few-shot/food101 --model vit --methods lora --shots 1,16
            """)

    @Option(help: "The folder of the data sets' folders; all that are there are taken.")
    var root: String?
    @Option(help: "One data set's folder.")
    var data: String?
    @Option(help: "Data sets in --root, with commas (default: all).")
    var datasets: String?
    @Option(help: "Training images of a class.")
    var shots = FlagValue([1, 2, 4, 8, 16])
    @Option(help: "The draws, and the seeds that they are trained with.")
    var splitSeeds = FlagValue([0, 1, 2])
    @Option(help: "The folder for the runs and the report.")
    var output = "glora-fewshot"
    @OptionGroup var flags: CellFlags

    static let schema = "glora.fewshot/1"

    struct Row: Encodable {
        let dataset: String
        let method: String
        let shots: Int
        let learningRate: Double
        let tried: [TriedRate]
        let test: Spread?
        let validation: Spread?
        let adapterParameters: Int
        let seconds: Double
    }

    struct Result: Encodable {
        let finished = true
        let output: String
        let datasets: [String]
        let rows: [Row]
    }

    mutating func validate() throws {
        keepProtocol()
        guard (root == nil) != (data == nil) else { throw ValidationError("give either --root or --data") }
        if data != nil, datasets != nil { throw ValidationError("--datasets names folders of --root") }
        for (flag, numbers) in [("--shots", shots.value), ("--split-seeds", splitSeeds.value)] {
            guard numbers.allSatisfy({ $0 >= (flag == "--shots" ? 1 : 0) }),
                Set(numbers).count == numbers.count
            else { throw ValidationError("\(flag) takes different whole numbers, such as 1,2,4") }
        }
    }

    /// NOAH's protocol where no flag says otherwise.
    /// Source: NOAH, lib/datasets.py and supernet_train_prompt.py.
    private mutating func keepProtocol() {
        guard flags.training.given["augment"] == nil else { return }
        flags.training.given["augment"] = "fewshot"
        if flags.training.given["label-smoothing"] == nil { flags.training.given["label-smoothing"] = 0.1 }
        if flags.input.given["crop"] == nil { flags.input.given["crop"] = TrainingOptions.Crop.squashCenter }
    }

    func run() throws {
        let console = flags.common.console
        let lock = try FolderLock.output(URL(fileURLWithPath: output), console)
        defer { lock.release() }
        let folders = try folders()
        let shots = shots.value.sorted()
        let tasks = try folders.map { try self.tasks($0, named: nil) }
        let grid = try Grid(self)
        let outcomes = try grid.run(tasks.flatMap(\.self))
        let rows = zip(folders, tasks).flatMap { folder, tasks in
            zip(shots, tasks).flatMap { shots, task in
                outcomes.filter { $0.task == task.name }.map { row(folder.name, shots, $0) }
            }
        }
        let methods = try flags.entries().map(\.description)
        var page = ComparisonPage("Few-shot", in: grid.output)
        for folder in folders {
            let own = rows.filter { $0.dataset == folder.name }
            let table = table(folder.name, own, methods, shots)
            console.say("")
            for line in table.lines { console.say(line) }
            page.add(folder.name, table.html + chart(own, methods))
        }
        if folders.count > 1 {
            let means = try flags.entries().flatMap { entry in
                shots.compactMap { count in mean(rows, entry.description, count) }
            }
            let table = table("mean of the data sets", means, methods, shots)
            console.say("")
            for line in table.lines { console.say(line) }
            page.add("Mean of the data sets", table.html + chart(means, methods))
        }
        let lines =
            try [
                "trained on draws \(splitSeeds.value.map(String.init).joined(separator: ", ")) of each number of "
                    + "images of a class, each with its number as the seed"
                    + (splitSeeds.value.count > 1 ? ": mean ± standard deviation" : ""),
                "tested on test_meta.list (val_meta.list where there is none)",
            ] + flags.protocolLines(grid, tasks[0][0])
        console.say("")
        for line in lines { console.say("- \(line)") }
        try page.addMistakes(outcomes)
        page.addProtocol(lines)
        try page.write(console)
        try console.result(
            Result(output: grid.output.path, datasets: folders.map(\.name), rows: rows),
            schema: Self.schema)
    }

    // MARK: Data

    private func folders() throws -> [AnnotatedFolder] {
        if let data { return [try open(URL(fileURLWithPath: data))] }
        let root = URL(fileURLWithPath: root ?? "")
        if let datasets {
            return try datasets.split(separator: ",").map {
                try open(root.appendingPathComponent($0.trimmingCharacters(in: .whitespaces)))
            }
        }
        guard let names = try? FileManager.default.contentsOfDirectory(atPath: root.path) else {
            throw DatasetError("there is no folder \(root.path) of data sets; check --root.")
        }
        let found = names.sorted().compactMap { AnnotatedFolder(root.appendingPathComponent($0)) }
        guard !found.isEmpty else {
            throw DatasetError(
                "\(root.path) holds no data set with annotations/train_meta.list.num_shot_1.seed_0; give one with "
                    + "--data.")
        }
        return found
    }

    private func open(_ url: URL) throws -> AnnotatedFolder {
        guard let folder = AnnotatedFolder(url) else {
            throw DatasetError(
                "\(url.path) has no folder annotations with few-shot lists; check --root, --datasets or --data."
            )
        }
        return folder
    }

    func tasks(named name: String?) throws -> [GridTask] {
        try folders().filter { name?.hasPrefix($0.name + "/") ?? true }
            .flatMap { try tasks($0, named: name) }
    }

    /// One task for each number of shots.
    private func tasks(_ folder: AnnotatedFolder, named name: String?) throws -> [GridTask] {
        let (shots, seeds) = (shots.value.sorted(), splitSeeds.value)
        for count in shots {
            for seed in seeds {
                let list = folder.trainingList(shots: count, seed: seed)
                guard FileManager.default.fileExists(atPath: list.path) else {
                    throw DatasetError(
                        "there is no list \(list.path); add it, or say which there are with --shots and "
                            + "--split-seeds.")
                }
            }
        }
        let hasValidation = FileManager.default.fileExists(atPath: folder.validationList.path)
        let lists = (hasValidation ? [folder.validationList] : []) + [folder.testList]
        let count = try ImageList.classCount(
            ofLists: lists + [folder.trainingList(shots: shots[0], seed: seeds[0])])
        let test = CellImages.Test(
            name: "test", images: try ImageList(listFile: folder.testList, classCount: count))
        // Where the validation list is what is tested on, it chooses nothing.
        let validation =
            hasValidation && folder.validationList != folder.testList
            ? try ImageList(listFile: folder.validationList, classCount: count) : nil
        func taskName(_ shots: Int) -> String { "\(folder.name)/\(shots)-shot" }
        return try shots.filter { name == nil || taskName($0) == name }.map { shots in
            GridTask(
                name: taskName(shots), data: folder.url.relativePath,
                trainSplit: "train_meta.list.num_shot_\(shots)",
                draws: try seeds.map { seed in
                    let list = folder.trainingList(shots: shots, seed: seed)
                    return GridTask.Draw(
                        seed: seed,
                        images: try CellImages(
                            training: try ImageList(listFile: list, classCount: count),
                            validation: validation, tests: [test]))
                })
        }
    }

    // MARK: Tables

    private func row(_ dataset: String, _ shots: Int, _ outcome: Outcome) -> Row {
        Row(
            dataset: dataset, method: outcome.method.description, shots: shots, learningRate: outcome.rate,
            tried: outcome.tried, test: outcome.accuracy(on: "test"), validation: outcome.validation,
            adapterParameters: outcome.cells[0].result.adapterParameters,
            seconds: outcome.seconds?.mean ?? 0)
    }

    /// The mean over the data sets of the seeds' means.
    private func mean(_ rows: [Row], _ method: String, _ shots: Int) -> Row? {
        let own = rows.filter { $0.method == method && $0.shots == shots }
        guard let first = own.first, let mean = Spread(own.compactMap(\.test?.mean))?.mean else { return nil }
        return Row(
            dataset: "", method: method, shots: shots, learningRate: first.learningRate, tried: [],
            test: Spread([mean]), validation: nil, adapterParameters: first.adapterParameters, seconds: 0)
    }

    private func table(_ name: String, _ rows: [Row], _ methods: [String], _ shots: [Int]) -> Table {
        var table = Table(head: [name] + shots.map { "\($0)-shot %" })
        for method in methods {
            table.rows.append(
                [method]
                    + shots.map { count in
                        guard let row = rows.first(where: { $0.method == method && $0.shots == count }) else {
                            return ""
                        }
                        let rate = row.tried.isEmpty ? "" : " (lr \(row.learningRate.short))"
                        return (row.test?.percent ?? "") + rate
                    })
        }
        return table
    }

    private func chart(_ rows: [Row], _ methods: [String]) -> String {
        Page.chart(
            methods.map { method in
                Page.Series(
                    name: method,
                    points: rows.filter { $0.method == method }.compactMap { row in
                        row.test.map { (Double(row.shots), 100 * $0.mean) }
                    })
            }, x: "training images of a class", y: "test accuracy, %")
    }
}
