import ArgumentParser
import Checkpoints
import Datasets
import Experiments
import Foundation
import Training

struct Shift: GridCommand {
    static let configuration = CommandConfiguration(
        abstract: "Train on one data set, test on it and on shifted ones of the same classes.",
        discussion: """
            Each of --train, --val and --test is a list file (lines 'path label', paths from the
            list's folder), a folder with annotations/ such as ImageNet's and those of V2,
            Sketch, A and R, or a task folder. Several lists to --train are draws of one
            training set, a seed each. Nothing of the shifted sets is seen before the tests.

            Example:
              glora shift --train imagenet --test imagenet,v2 --model vit --methods lora
              glora shift --train a.txt --test b.txt,c.txt --model vit --methods lora,glora
            """)

    @Option(help: "What to train on: a folder, a list file, or list files with commas.")
    var train: String
    @Option(
        help: "What curves are drawn and rates chosen by (default: that of --train's folder, if it is one).")
    var val: String?
    @Option(help: "What to test on, with commas; the first is what the others are set beside.")
    var test: String
    @Option(help: "Images of a class, where --train is a folder with annotations/.")
    var shots = 16
    @Option(help: "The folder for the runs and the report.")
    var output = "glora-shift"
    @OptionGroup var match: MatchFlags
    @OptionGroup var seedFlags: SeedFlags
    @OptionGroup var flags: CellFlags

    static let schema = "glora.shift/1"

    struct Row: Encodable {
        let method: String
        let learningRate: Double
        let tried: [TriedRate]
        let tests: [String: Spread]
        let shifted: Double?
        let validation: Spread?
        let adapterParameters: Int
    }

    struct Result: Encodable {
        let finished = true
        let output: String
        let train: String
        let tests: [String]
        let rows: [Row]
    }

    func run() throws {
        let console = flags.common.console
        let lock = try FolderLock.output(URL(fileURLWithPath: output), console)
        defer { lock.release() }
        let task = try tasks(named: nil)[0]
        let grid = try Grid(self)
        let outcomes = try grid.run([task])
        let tests = task.draws[0].images.tests
        let rows = outcomes.map { outcome in
            let means = tests.compactMap { test in outcome.accuracy(on: test.name).map { (test.name, $0) } }
            return Row(
                method: outcome.method.description, learningRate: outcome.rate, tried: outcome.tried,
                tests: Dictionary(uniqueKeysWithValues: means),
                shifted: Spread(means.dropFirst().map(\.1.mean))?.mean, validation: outcome.validation,
                adapterParameters: outcome.cells[0].result.adapterParameters)
        }
        var table = Table(
            head: ["method", "lr"] + tests.map { $0.name + " %" }
                + (tests.count > 1 ? ["mean of the shifted"] : []))
        for row in rows {
            table.rows.append(
                [row.method, row.learningRate.short] + tests.map { row.tests[$0.name]?.percent ?? "" }
                    + (tests.count > 1 ? [row.shifted.map { (100 * $0).fixed(1) } ?? ""] : []))
        }
        console.say("")
        for line in table.lines { console.say(line) }
        let training = task.draws[0].images.training
        let sizes = tests.map { "\($0.name) (\($0.images.count))" }.joined(separator: ", ")
        let lines =
            try [
                "trained on \(training.name) (\(training.count) images of \(training.classCount) classes), "
                    + "seeds 0 to \(task.draws.count - 1)"
                    + (Set(task.draws.map(\.images.training.contentHash)).count > 1
                        ? ", each with its own draw of training images" : "")
                    + (task.draws.count > 1 ? ": mean ± standard deviation" : ""),
                "tested on \(sizes) images; nothing of these was trained or chosen on",
            ] + flags.protocolLines(grid, task)
        console.say("")
        for line in lines { console.say("- \(line)") }
        var page = ComparisonPage("\(task.name): under shift", in: grid.output)
        page.add("Test accuracy", table.html)
        try page.addMistakes(outcomes)
        page.addProtocol(lines)
        try page.write(console)
        try console.result(
            Result(output: grid.output.path, train: task.name, tests: tests.map(\.name), rows: rows),
            schema: Self.schema)
    }

    // MARK: Data

    func tasks(named name: String?) throws -> [GridTask] {
        let sources = train.split(separator: ",").map { URL(fileURLWithPath: String($0)) }
        guard let first = sources.first else { throw ValidationError("--train names nothing to train on") }
        if sources.count > 1, sources.contains(where: isFolder) {
            throw ValidationError("--train takes one folder, or several list files; give one of them")
        }
        let names = try testNames()
        let seeds = Array(0..<(sources.count > 1 ? sources.count : seedFlags.seeds))
        let draws: [GridTask.Draw]
        if !isFolder(first) {
            let count = try ImageList.classCount(ofLists: sources)
            let lists = try sources.map { try ImageList(listFile: $0, classCount: count) }
            let (validation, tests) = (try validation(lists[0]), try self.tests(names, lists[0]))
            draws = try seeds.map { seed in
                GridTask.Draw(
                    seed: seed,
                    images: try CellImages(
                        training: lists.count > 1 ? lists[seed] : lists[0], validation: validation,
                        tests: tests))
            }
        } else if let folder = AnnotatedFolder(first) {
            let files = seeds.map { folder.trainingList(shots: shots, seed: $0) }
            let count = try ImageList.classCount(ofLists: files)
            let lists = try files.map { try ImageList(listFile: $0, classCount: count) }
            let own =
                FileManager.default.fileExists(atPath: folder.validationList.path)
                ? folder.validationList : nil
            // ImageNet's validation list is what it is tested on, so it chooses nothing.
            let chosen = own == folder.testList ? nil : own
            let validation =
                try validation(lists[0]) ?? chosen.map { try ImageList(listFile: $0, classCount: count) }
            let tests = try self.tests(names, lists[0])
            draws = try zip(seeds, lists).map { seed, list in
                GridTask.Draw(
                    seed: seed,
                    images: try CellImages(training: list, validation: validation, tests: tests))
            }
        } else {
            let folder = try TaskFolder.open(first)
            let training = try folder.split(.train)
            let images = try CellImages(
                training: training,
                validation: try validation(training) ?? folder.validationSplit(),
                tests: try tests(names, training))
            draws = seeds.map { GridTask.Draw(seed: $0, images: images) }
        }
        return [
            GridTask(
                name: isFolder(first)
                    ? first.standardizedFileURL.lastPathComponent : commonName(sources.map(listName)),
                data: first.path, trainSplit: first.lastPathComponent, draws: draws)
        ]
    }

    private func isFolder(_ url: URL) -> Bool {
        var isFolder: ObjCBool = false
        return FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) && isFolder.boolValue
    }

    private func validation(_ training: ImageList) throws -> ImageList? {
        guard let val else { return nil }
        return try images(URL(fileURLWithPath: val), .validation, training)
    }

    private func tests(_ names: [(String, URL)], _ training: ImageList) throws -> [CellImages.Test] {
        try names.map { CellImages.Test(name: $0, images: try images($1, .test, training)) }
    }

    /// A list file, or a folder's split, in the classes of the training images.
    private func images(_ url: URL, _ split: Split, _ training: ImageList) throws -> ImageList {
        let list =
            isFolder(url)
            ? AnnotatedFolder(url).map { split == .test ? $0.testList : $0.validationList } : url
        if let list {
            return try ImageList(listFile: list, classCount: training.classCount).matched(
                to: training.classNames, classCount: training.classCount, by: match.matchClasses,
                of: training.name)
        }
        let task = try TaskFolder.open(url)
        return try task.split(
            split, matchedTo: training.classNames, classCount: training.classCount, by: match.matchClasses,
            of: training.name)
    }

    /// A name for each of --test: the folder's or the list's, or where two are alike the whole path.
    private func testNames() throws -> [(String, URL)] {
        let urls = test.split(separator: ",").map { (String($0), URL(fileURLWithPath: String($0))) }
        guard !urls.isEmpty else { throw ValidationError("--test names nothing to test on") }
        let short = urls.map { isFolder($0.1) ? $0.1.standardizedFileURL.lastPathComponent : listName($0.1) }
        let names = zip(short, urls).map { name, url in
            short.count { $0 == name } > 1 ? url.0 : name
        }
        guard Set(names).count == names.count else {
            throw ValidationError("--test names the same twice: \(test); leave one out")
        }
        return zip(names, urls).map { ($0, $1.1) }
    }

    /// What the names of several draws begin with: `digits.16shot.seed` for digits.16shot.seed0 and -1.
    private func commonName(_ names: [String]) -> String {
        let common = names.dropFirst().reduce(names[0]) { String($0.commonPrefix(with: $1)) }
        return common.isEmpty ? names[0] : common
    }

    /// `digits.test` for digits.test.txt; the data set for a list in annotations/.
    private func listName(_ url: URL) -> String {
        let folder = url.deletingLastPathComponent()
        if folder.lastPathComponent == "annotations" {
            return folder.deletingLastPathComponent().lastPathComponent
        }
        return url.pathExtension == "txt"
            ? url.deletingPathExtension().lastPathComponent : url.lastPathComponent
    }
}
