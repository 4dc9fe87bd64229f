import Checkpoints
import Foundation
import Testing

/// `compare`, `shift`, `vtab` and `fewshot`, on trees of their exact layouts made of the fixture's images.
@Suite("The comparisons: compare, shift, vtab and fewshot")
struct CompareTests {
    /// Flags of a training of three epochs of four steps.
    private static func flags(_ methods: String, _ more: String...) -> [String] {
        [
            "--model", "model", "--methods", methods, "--device", "cpu", "--batch-size", "8", "--epochs",
            "3", "--warmup-epochs", "1", "--ranks", "4,2", "--validate-every", "1", "--output", "out",
        ] + more
    }

    private static func compare(_ methods: String, _ more: String...) -> [String] {
        ["compare", "--data", "task"] + flags(methods) + more
    }

    private func result(_ folder: URL, _ cell: String) throws -> JSONValue {
        try JSONValue(contentsOf: folder.appendingPathComponent("out/\(cell)/result.json"))
    }

    /// Every file of the runs with its bytes.
    private func files(_ folder: URL) throws -> [String: Data] {
        let names = FileManager.default.subpaths(atPath: folder.appendingPathComponent("out").path) ?? []
        return try Dictionary(
            uniqueKeysWithValues: names.filter { $0.contains("/") && $0.contains(".") }.map {
                ($0, try folder.bytes("out/\($0)"))
            }.filter { !$0.1.isEmpty })
    }

    // MARK: compare

    @Test(
        "compare chooses a rate on the first seed, trains every seed with it, tests each once, and skips what is done"
    )
    func compares() throws {
        try Fixture.withFolder { folder in
            let arguments = Self.compare(
                "glora:full,glora:none", "--lrs", "1e-5,1e-2", "--seeds", "2", "--json")
            let json = try Glora.succeed(arguments, in: folder).json()
            #expect(try json.keys() == ["schema", "finished", "output", "task", "seeds", "rows"])
            let rows = try #require(json["rows"]?.arrayValue)
            #expect(rows.map { $0["method"]?.stringValue } == ["glora:full", "glora:none"])
            for (row, name) in zip(rows, ["glora-full", "glora-none"]) {
                #expect(try row.number("learningRate") == 1e-2)
                let cells = try (0..<2).map { try result(folder, "task/\(name)/lr-1e-2/seed-\($0)") }
                let scores = try cells.map { cell in
                    let tests = try #require(cell["tests"]?.arrayValue)
                    #expect(tests.count == 1 && tests[0]["name"]?.stringValue == "test")
                    return try #require(tests[0]["score"]).number("correct") / 12
                }
                let test = try #require(row["test"])
                #expect(try test.number("mean") == (scores[0] + scores[1]) / 2)
                #expect(
                    try abs(test.number("deviation") - abs(scores[0] - scores[1]) / 2.squareRoot()) < 1e-9)
                // What was only tried has seen no test image.
                #expect(try result(folder, "task/\(name)/lr-1e-5/seed-0")["tests"]?.arrayValue == [])
                #expect(!folder.exists("out/task/\(name)/lr-1e-5/seed-1"))
                let tried = try #require(row["tried"]?.arrayValue)
                #expect(try tried.map { try $0.number("rate") } == [1e-5, 1e-2])
                #expect(try tried[1].number("accuracy") == cells[0].number("valAccuracy"))
                let cost = try #require(row["inference"])
                #expect(cost["isMerged"] == true && cost["batch"]?.integerValue == 8)
                #expect(try cost.number("secondsPerImage") > 0 && cost.number("ratio") > 0)
                #expect(try row.number("seconds") > 0 && row.number("peakBytes") > 1e6)
            }
            #expect(try rows[0].number("adapterParameters") > 0 && rows[1].number("adapterParameters") == 0)
            #expect(try rows[0].number("headParameters") == 51)
            // The score is the last state's, by the command that scores runs.
            let eval = try Glora.succeed(
                [
                    "eval", "--run", "out/task/glora-full/lr-1e-2/seed-1", "--checkpoint", "last", "--device",
                    "cpu", "--json",
                ], in: folder
            ).json()
            let cell = try result(folder, "task/glora-full/lr-1e-2/seed-1")
            let score = try #require(cell["tests"]?.arrayValue?[0]["score"])
            #expect(
                try score["correct"] == eval["correct"]
                    && abs(score.number("loss") - eval.number("loss")) < 1e-6)

            let before = try files(folder)
            let again = try Glora.succeed(arguments, in: folder)
            #expect(try again.json() == json && files(folder) == before)
            #expect(again.errors.components(separatedBy: "done before").count == 7)

            let page = String(decoding: try folder.bytes("out/report.html"), as: UTF8.self)
            #expect(page.contains("glora:none") && page.contains("<svg") && page.contains("--lrs 1e-5,1e-2"))
            #expect(!page.contains("<script") && !page.contains(/src="(?!data:)/) && !page.contains("http"))
        }
    }

    @Test("The table says what was measured, and how")
    func table() throws {
        try Fixture.withFolder { folder in
            let output = try Glora.succeed(
                Self.compare("glora", "--seeds", "1", "--lr", "1e-2"), in: folder
            ).output
            let lines = output.split(separator: "\n")
            let head = try #require(lines.firstIndex { $0.hasPrefix("method ") })
            for word in [
                "lr", "test %", "validation %", "adapter", "head", "training", "peak memory", "ms/image",
            ] {
                #expect(lines[head].contains(word))
            }
            #expect(lines[head + 1].hasPrefix("glora ") && lines[head + 1].contains("(merged)"))
            for word in [
                "train800", "32 images", "12 images", "16 × 16", "deviation", "same as the plain model",
            ] {
                #expect(output.contains(word), "\(word)")
            }
        }
    }

    @Test("glora is a supernet, a search and the training of what it found, taken up at any of the three")
    func searched() throws {
        try Fixture.withFolder { folder in
            let arguments = Self.compare("glora", "--seeds", "1", "--lr", "1e-2")
            try Glora.succeed(arguments, in: folder)
            let cell = "out/task/glora/lr-1e-2/seed-0"
            let whole = try result(folder, "task/glora/lr-1e-2/seed-0")
            let found = try JSONValue(
                contentsOf: folder.appendingPathComponent(cell + "/supernet/search/architecture.json"))
            #expect(whole["adapterParameters"] == found["parameters"] && found["refined"] != nil)
            // At most half of the richest path's.
            let full = try Glora.succeed(
                ["inspect", "--run", cell + "/supernet", "--json"], in: folder
            ).json()
            let most = try #require(full["parameters"]?.integerValue) / 2
            #expect(try #require(found["parameters"]?.integerValue) <= most)
            let last = try folder.bytes(cell + "/last.safetensors")
            let journal = try folder.bytes(cell + "/supernet/search/search.jsonl")
            for lost in [
                ["result.json"], ["result.json", "config.yaml", "supernet/search/architecture.json"],
                ["result.json", "config.yaml", "supernet"],
            ] {
                for file in lost {
                    try FileManager.default.removeItem(at: folder.appendingPathComponent(cell + "/" + file))
                }
                if lost.contains("supernet/search/architecture.json") {
                    try folder.write(
                        cell + "/supernet/search/search.jsonl", journal.prefix(journal.count / 2))
                }
                try Glora.succeed(arguments, in: folder)
                #expect(try folder.bytes(cell + "/last.safetensors") == last, "without \(lost)")
                let again = try result(folder, "task/glora/lr-1e-2/seed-0")
                #expect(again["tests"] == whole["tests"])
            }
        }
    }

    @Test(
        "Other settings, another checkpoint and other images than a result's are refused, done or half done")
    func changed() throws {
        try Fixture.withFolder { folder in
            try Fixture.own("task", in: folder)
            let arguments = Self.compare("glora:none", "--seeds", "1", "--lr", "1e-2")
            try Glora.succeed(arguments, in: folder)
            let before = try files(folder)
            let cell = "out/task/glora-none/lr-1e-2/seed-0"
            for (more, words) in [
                (["--epochs", "4"], ["--epochs 3, not 4"]), (["--normalize", "imagenet"], ["--normalize"]),
                (["--weight-decay", "0.1"], ["--weight-decay 1e-4, not 1e-1"]),
                (["--checkpoint", "best"], ["--checkpoint"]),
                (["--batch-size", "4", "--epochs", "5"], ["--batch-size", "--epochs"]),
            ] {
                try Glora.refuse(
                    arguments + more + ["--json"], in: folder, saying: words + [cell, "another --output"])
            }
            try Fixture.checkpoint(seed: 2).saveTimm(to: folder.appendingPathComponent("model2"))
            try Glora.refuse(
                arguments + ["--model", "model2", "--json"], in: folder, saying: [cell, "another --model"])
            for (list, word) in [("train800", "training"), ("val200", "validation"), ("test", "test")] {
                let old = try folder.bytes("task/\(list).txt")
                try folder.write("task/\(list).txt", old + Data("\(list)/an image 0.png 1\n".utf8))
                try Glora.refuse(
                    arguments + ["--json"], in: folder, saying: [cell, "another \(word) split"])
                try folder.write("task/\(list).txt", old)
            }
            #expect(try files(folder) == before)
            try FileManager.default.removeItem(at: folder.appendingPathComponent(cell + "/result.json"))
            try Glora.refuse(
                arguments + ["--epochs", "4", "--json"], in: folder, saying: ["--epochs 3, not 4", cell])
            // With its own settings it is taken up, and tested.
            try Glora.succeed(arguments, in: folder)
            #expect(folder.exists(cell + "/result.json"))
        }
    }

    @Test(
        "Ctrl-C ends with 130; the same command goes on and makes the same bytes",
        arguments: [SIGINT, SIGTERM, SIGHUP])
    func interrupted(_ signal: Int32) throws {
        try Fixture.withFolder { folder in
            func arguments(_ output: String) -> [String] {
                Self.compare(
                    "glora:full", "--seeds", "2", "--lr", "1e-3", "--epochs", "60", "--output", output)
            }
            try Glora.succeed(arguments("whole"), in: folder)
            let running = try Glora.start(arguments("out"), in: folder)
            let cell = "task/glora-full/lr-1e-3/seed-1"
            // It trains.
            running.wait { (try? folder.bytes("out/\(cell)/metrics.jsonl"))?.isEmpty == false }
            running.send(signal)
            let outcome = try running.outcome()
            #expect(outcome.exitCode == 130, "\(outcome.errors)")
            #expect(outcome.output.contains("stopped") && outcome.output.contains("same command"))
            #expect(folder.exists("out/task/glora-full/lr-1e-3/seed-0/result.json"))
            #expect(!folder.exists("out/\(cell)/result.json"))
            let again = try Glora.succeed(arguments("out"), in: folder)
            #expect(again.output.contains("[1/2]") && again.output.contains("done before"))
            #expect(again.output.contains("going on"))
            for name in ["last.safetensors", "metrics.jsonl", "adapter/adapter_model.safetensors"] {
                #expect(try folder.bytes("out/\(cell)/\(name)") == folder.bytes("whole/\(cell)/\(name)"))
            }
            let whole = try JSONValue(contentsOf: folder.appendingPathComponent("whole/\(cell)/result.json"))
            #expect(try result(folder, cell)["tests"] == whole["tests"])
        }
    }

    /// Starts a comparison whose second cell is long, and waits until that trains. Gives the process that trains it too.
    private func startLong(in folder: URL) throws -> (running: Glora.Running, cell: pid_t) {
        let running = try Glora.start(
            Self.compare("glora:none,linear", "--seeds", "1", "--lr", "1e-3", "--epochs", "100000"),
            in: folder)
        running.wait { folder.exists("out/task/glora-none/lr-1e-3/seed-0/config.yaml") }
        return (running, try #require(running.children().first))
    }

    @Test("A terminal's Ctrl-C, which reaches the cell's process as well, stops both after the step")
    func interruptedGroup() throws {
        try Fixture.withFolder { folder in
            let (running, cell) = try startLong(in: folder)
            #expect(getpgid(cell) == running.process.processIdentifier)
            kill(-running.process.processIdentifier, SIGINT)
            let outcome = try running.outcome()
            #expect(outcome.exitCode == 130 && outcome.output.contains("same command"), "\(outcome.errors)")
            // It was stopped with its state, rather than ended.
            #expect(folder.exists("out/task/glora-none/lr-1e-3/seed-0/summary.json"))
        }
    }

    @Test("A cell whose process is killed is named in one sentence")
    func killedCell() throws {
        try Fixture.withFolder { folder in
            let (running, cell) = try startLong(in: folder)
            kill(cell, SIGKILL)
            let outcome = try running.outcome()
            #expect(outcome.exitCode == 1 && outcome.errors.split(separator: "\n").count == 1)
            for word in ["task, glora:none, lr 1e-3, seed 0", "signal 9", "memory", "--batch-size"] {
                #expect(outcome.sentence?.contains(word) == true, "\(outcome.errors)")
            }
        }
    }

    @Test("No cell outlives its comparison")
    func killedComparison() throws {
        try Fixture.withFolder { folder in
            let (running, cell) = try startLong(in: folder)
            running.send(SIGKILL)
            #expect(try running.outcome().signal == SIGKILL)
            let deadline = Date() + 30
            while kill(cell, 0) == 0, Date() < deadline { usleep(1_000) }
            #expect(kill(cell, 0) != 0)
            kill(cell, SIGKILL)
        }
    }

    @Test("A small cell after a large one has its own peak memory, the same as alone")
    func peakMemory() throws {
        try Fixture.withFolder { folder in
            // 4.7 million weights: full trains them all, with gradients and two moments of 19 MB each.
            try Fixture.checkpoint(seed: 1, width: 768).saveTimm(to: folder.appendingPathComponent("wide"))
            func peaks(_ methods: String, _ output: String) throws -> [Double] {
                let json = try Glora.succeed(
                    Self.compare(
                        methods, "--seeds", "1", "--epochs", "1", "--warmup-epochs", "0", "--model", "wide",
                        "--output", output, "--json"), in: folder
                ).json()
                return try #require(json["rows"]?.arrayValue).map { try $0.number("peakBytes") }
            }
            let after = try peaks("full,linear", "both")
            let alone = try peaks("linear", "alone")
            #expect(after[1] < after[0] - 40e6, "\(after)")
            #expect(abs(after[1] - alone[0]) < 10e6, "\(after), \(alone)")
        }
    }

    @Test("A rate at which the loss stops being a number is left out; when all do, that is said")
    func diverging() throws {
        try Fixture.withFolder { folder in
            let json = try Glora.succeed(
                Self.compare("glora:full", "--seeds", "1", "--lrs", "1e30,1e-3", "--json"), in: folder
            ).json()
            let row = try #require(json["rows"]?.arrayValue?.first)
            #expect(try row.number("learningRate") == 1e-3)
            #expect(row["tried"]?.arrayValue?[0]["accuracy"] == nil)
            try Glora.refuse(
                Self.compare(
                    "glora:full", "--seeds", "1", "--lrs", "1e30,1e31", "--output", "new", "--json"),
                in: folder, saying: ["task, glora:full", "--lrs", "lower"])
            try Glora.refuse(
                Self.compare("glora:full", "--seeds", "1", "--lr", "1e30", "--output", "new2", "--json"),
                in: folder, saying: ["task, glora:full, lr 1e30, seed 0", "not a number", "lower --lr"])
        }
    }

    @Test(
        "A command line that can't be meant is refused before anything is trained",
        arguments: [
            (compare("lore"), ["no method 'lore'", "lora", "vpt-deep"]),
            (compare("lora:full"), ["'lora:full'", "only glora"]),
            (compare("glora:nowhere.json"), ["nowhere.json", "glora:FILE.json"]),
            (compare("glora:"), ["'glora:'"]), (compare(","), ["--methods names none"]),
            (compare("glora", "--lr", "1", "--lrs", "1"), ["either --lr or --lrs"]),
            (compare("glora", "--seeds", "0"), ["--seeds must be"]),
            (compare("glora", "--lrs", "1e-3,-1"), ["--lr must be"]),
            (compare("glora", "--epochs", "0"), ["--epochs must be"]),
            (compare("glora:a/x.json,glora:b/x.json"), ["glora-x", "rename"]),
            (
                ["vtab", "--root", "."] + flags("glora", "--tasks", "cifar,mnist"),
                ["no task 'mnist'", "kitti"]
            ),
            (["fewshot"] + flags("glora"), ["either --root or --data"]),
            (["fewshot", "--root", "."] + flags("glora", "--shots", "0"), ["--shots"]),
            (
                ["shift", "--train", "task,run", "--test", "task"] + flags("glora"),
                ["--train takes one folder"]
            ),
            (["shift", "--train", "task", "--test", "task,task"] + flags("glora"), ["the same twice"]),
        ])
    func mistakes(_ arguments: [String], _ words: [String]) throws {
        try Fixture.withFolder { folder in
            for path in ["a/x.json", "b/x.json"] { try folder.write(path, "{}") }
            try Glora.refuse(arguments, in: folder, code: 64, saying: words)
            #expect(!folder.exists("out"))
        }
    }

    // MARK: shift

    @Test(
        "shift trains on one list and tests on others, each relative to its own folder; a test that comes later is added"
    )
    func shifts() throws {
        try Fixture.withFolder { folder in
            try Fixture.own("task", in: folder)
            try FileManager.default.createDirectory(
                at: folder.appendingPathComponent("other place"), withIntermediateDirectories: true)
            try FileManager.default.copyItem(
                at: folder.appendingPathComponent("task/val200"),
                to: folder.appendingPathComponent("other place/val200"))
            try folder.write("other place/far away.txt", try folder.bytes("task/val200.txt"))
            // A draw that lacks nothing but images, and one test image whose class is not trained.
            let lines = String(decoding: try folder.bytes("task/train800.txt"), as: UTF8.self)
                .split(separator: "\n")
            for seed in 0..<2 {
                let draw = lines.enumerated().filter { $0.offset % 4 != seed }.map { $0.element + "\n" }
                try folder.write("task/a draw.seed\(seed).txt", draw.joined())
            }
            let arguments =
                [
                    "shift", "--train", "task/a draw.seed0.txt,task/a draw.seed1.txt", "--val",
                    "task/val200.txt",
                ]
                + Self.flags("glora:full", "--lr", "1e-2", "--json")
            let near = try Glora.succeed(arguments + ["--test", "task/test.txt"], in: folder).json()
            let cells = (0..<2).map { "a draw.seed/glora-full/lr-1e-2/seed-\($0)" }
            let first = try cells.map { try result(folder, $0) }
            #expect(first[0]["trainingHash"] != first[1]["trainingHash"])
            let both = try Glora.succeed(
                arguments + ["--test", "task/test.txt,other place/far away.txt"], in: folder)
            #expect(both.errors.components(separatedBy: "done before").count == 3)
            let json = try both.json()
            #expect(json["tests"]?.arrayValue == ["test", "far away"])
            let row = try #require(json["rows"]?.arrayValue?.first)
            let before = try #require(near["rows"]?.arrayValue?.first)
            #expect(row["tests"]?["test"] == before["tests"]?["test"] && before["shifted"] == nil)
            #expect(row["tests"]?["test"]?["count"]?.integerValue == 2)
            // The images are the validation's, so the accuracy is.
            #expect(row["tests"]?["far away"] == row["validation"])
            #expect(row["shifted"] == row["validation"]?["mean"])
            try folder.write("other place/new.txt", "val200/an image 0.png 3\n")
            try Glora.refuse(
                arguments + ["--test", "other place/new.txt"], in: folder,
                saying: ["new.txt, line 1", "label 3 is out of range", "3 classes"])
        }
    }

    @Test(
        "shift reads annotations/ as ImageNet and its siblings have them, and folders by their classes' names"
    )
    func shiftedFolders() throws {
        try Fixture.withFolder { folder in
            try Fixture.writeAnnotated("imagenet", images: "", test: false, in: folder)
            try Fixture.writeAnnotated("imagenet-x", images: "images/", test: false, in: folder)
            let flags = Self.flags("glora:none", "--lr", "1e-2", "--seeds", "1", "--json")
            let json = try Glora.succeed(
                ["shift", "--train", "imagenet", "--shots", "2", "--test", "imagenet,imagenet-x"] + flags,
                in: folder
            ).json()
            let tests = try #require(json["rows"]?.arrayValue?.first?["tests"])
            #expect(try tests.keys() == ["imagenet", "imagenet-x"])
            // What is tested on has chosen nothing.
            #expect(json["rows"]?.arrayValue?.first?["validation"] == nil)
            #expect(tests["imagenet"] == tests["imagenet-x"])

            // A sibling without the first class: the others keep their numbers.
            try Fixture.own("folders", in: folder)
            try FileManager.default.copyItem(
                at: folder.appendingPathComponent("folders"), to: folder.appendingPathComponent("fewer"))
            for split in ["train", "val", "test"] {
                try FileManager.default.removeItem(at: folder.appendingPathComponent("fewer/\(split)/c0"))
            }
            let shift = ["shift", "--train", "folders", "--test", "folders,fewer"]
            let rows = try Glora.succeed(
                shift
                    + Self.flags("glora:full", "--lr", "1e-2", "--seeds", "1", "--output", "out2", "--json"),
                in: folder
            ).json()["rows"]
            let scores = try #require(rows?.arrayValue?.first?["tests"])
            let correct = try ["folders", "fewer"].map { try #require(scores[$0]).number("mean") }
            #expect(12 * correct[0] - 8 * correct[1] <= 4 && correct[1] > 0.5, "\(correct)")
            try FileManager.default.moveItem(
                at: folder.appendingPathComponent("fewer/test/c2"),
                to: folder.appendingPathComponent("fewer/test/c9"))
            try FileManager.default.removeItem(at: folder.appendingPathComponent("fewer/train"))
            try FileManager.default.removeItem(at: folder.appendingPathComponent("fewer/val"))
            try Glora.refuse(shift + flags, in: folder, saying: ["doesn't know: c9", "c0, c1, c2"])
        }
    }

    // MARK: vtab

    @Test(
        "vtab goes through the 19 folders, prints both averages beside the published rows, and tells what is missing"
    )
    func vtab() throws {
        try Fixture.withFolder { folder in
            let root = folder.appendingPathComponent("vtab 1k")
            try FileManager.default.createDirectory(at: root, withIntermediateDirectories: true)
            for task in VTABTree.tasks {
                try FileManager.default.createSymbolicLink(
                    at: root.appendingPathComponent(task),
                    withDestinationURL: folder.appendingPathComponent("task"))
            }
            let arguments =
                ["vtab", "--root", "vtab 1k"] + Self.flags("glora:none", "--epochs", "1", "--lr", "1e-2")
            let some = try Glora.succeed(arguments + ["--tasks", "kitti,cifar100"], in: folder)
            #expect(some.output.contains("mean of these") && !some.output.contains("specialized  "))
            let line = some.output.split(separator: "\n").first { $0.hasPrefix("GLoRA, published") }
            #expect(line?.split(separator: " ").suffix(3) == ["76.4", "86.2", "81.3"])
            let outcome = try Glora.succeed(arguments + ["--json"], in: folder)
            #expect(outcome.errors.components(separatedBy: "done before").count == 3)
            let published = outcome.errors.split(separator: "\n").first { $0.hasPrefix("GLoRA, published") }
            #expect(published?.split(separator: " ").suffix(5) == ["83.6", "87.0", "63.3", "78.0", "75.8"])
            for word in ["train800val200", "seed 0", "normalised", "group means"] {
                #expect(outcome.errors.contains(word), "\(word)")
            }
            let json = try outcome.json()
            #expect(json["tasks"]?.arrayValue?.compactMap(\.stringValue) == VTABTree.tasks)
            let row = try #require(json["rows"]?.arrayValue?.first)
            // The tasks are one and the same, so every average is its accuracy.
            let accuracy = try #require(row["accuracies"]?["dtd"]).number("mean")
            let averages = try #require(row["averages"])
            for name in ["natural", "specialized", "structured", "ofGroups", "ofTasks"] {
                #expect(try abs(averages.number(name) - accuracy) < 1e-9)
            }
            let cell = try result(folder, "dtd/glora-none/lr-1e-2/seed-0")
            #expect(cell["settings"]?["train-split"]?.stringValue == "train800val200")
            #expect(cell["valAccuracy"] == nil)
            try FileManager.default.removeItem(at: root.appendingPathComponent("svhn"))
            try Glora.refuse(
                arguments + ["--json"], in: folder, saying: ["vtab 1k has no folder svhn", "--tasks"])
        }
    }

    @Test("vtab chooses rates on train800 and then trains on all thousand")
    func vtabRates() throws {
        try Fixture.withFolder { folder in
            try FileManager.default.createSymbolicLink(
                at: folder.appendingPathComponent("dtd"),
                withDestinationURL: folder.appendingPathComponent("task"))
            let json = try Glora.succeed(
                ["vtab", "--root", ".", "--tasks", "dtd"]
                    + Self.flags("glora:full", "--lrs", "1e-5,1e-2", "--json"), in: folder
            ).json()
            #expect(json["rows"]?.arrayValue?[0]["learningRates"]?["dtd"]?.numberValue == 1e-2)
            for rate in ["1e-5", "1e-2"] {
                let tried = try result(folder, "dtd/glora-full/lr-\(rate)/seed-0-train800")
                #expect(tried["settings"]?["train-split"]?.stringValue == "train800")
                #expect(tried["tests"]?.arrayValue == [])
            }
            #expect(try result(folder, "dtd/glora-full/lr-1e-2/seed-0")["tests"]?.arrayValue?.count == 1)
            #expect(!folder.exists("out/dtd/glora-full/lr-1e-5/seed-0"))
        }
    }

    // MARK: fewshot

    @Test("fewshot reads images/ and Cars' own place, every draw with its seed, and means over them")
    func fewShot() throws {
        try Fixture.withFolder { folder in
            try Fixture.writeAnnotated("few shot/food101", images: "images/", in: folder)
            try Fixture.writeAnnotated("few shot/standford-cars", images: "", in: folder)
            let flags = Self.flags("glora:full,glora:none", "--lr", "1e-2", "--json")
            let arguments = ["fewshot", "--root", "few shot", "--shots", "1,2"] + flags
            let json = try Glora.succeed(arguments, in: folder).json()
            #expect(json["datasets"]?.arrayValue == ["food101", "standford-cars"])
            let rows = try #require(json["rows"]?.arrayValue)
            #expect(rows.count == 8)
            func score(_ dataset: String, _ shots: Int) throws -> [JSONValue] {
                try (0..<3).map { seed in
                    let cell = try result(
                        folder, "\(dataset)/\(shots)-shot/glora-full/lr-1e-2/seed-\(seed)")
                    #expect(cell["settings"]?["seed"]?.integerValue == seed)
                    return cell
                }
            }
            // NOAH's protocol, unless somebody says otherwise.
            let settings = try #require(try score("food101", 1)[0]["settings"])
            #expect(settings["augment"] == "fewshot" && settings["crop"] == "squash-center")
            #expect(settings["label-smoothing"]?.numberValue == 0.1)
            for (dataset, shots) in [("food101", 1), ("food101", 2), ("standford-cars", 2)] {
                let cells = try score(dataset, shots)
                #expect(Set(try cells.map { try #require($0["trainingHash"]) }).count == 3)
                let scores = try cells.map {
                    try #require($0["tests"]?.arrayValue?[0]["score"]).number("correct") / 12
                }
                let row = rows.first {
                    $0["dataset"]?.stringValue == dataset && $0["shots"]?.integerValue == shots
                        && $0["method"] == "glora:full"
                }
                let mean = try #require(row?["test"]).number("mean")
                #expect(abs(mean - scores.reduce(0, +) / 3) < 1e-9)
            }
            // The same images in two places score the same.
            #expect(
                try score("food101", 2).map { $0["tests"] } == score("standford-cars", 2).map { $0["tests"] })
            let page = String(decoding: try folder.bytes("out/report.html"), as: UTF8.self)
            #expect(page.components(separatedBy: "<figure><svg").count == 4 && page.contains("2-shot"))
            let again = try Glora.succeed(
                ["fewshot", "--data", "few shot/food101", "--shots", "2"] + flags, in: folder)
            #expect(again.errors.components(separatedBy: "done before").count == 7)
            // Of one number of shots each method is a mark.
            let marks = String(decoding: try folder.bytes("out/report.html"), as: UTF8.self)
            #expect(marks.contains("<circle class=\"point c0\"") && !marks.contains("<polyline"))
            _ = try Glora.succeed(
                ["fewshot", "--data", "few shot/food101", "--shots", "1", "--split-seeds", "0"]
                    + Self.flags("linear", "--lr", "1e-2", "--augment", "none"), in: folder)
            let plain = try result(folder, "food101/1-shot/linear/lr-1e-2/seed-0")
            #expect(plain["settings"]?["augment"] == "none" && plain["settings"]?["crop"] == nil)
            #expect(plain["settings"]?["label-smoothing"] == nil)
            #expect(marks.components(separatedBy: "<circle").count == 3)
            try Glora.refuse(
                ["fewshot", "--data", "few shot/food101"] + flags, in: folder,
                saying: ["train_meta.list.num_shot_4.seed_0", "--shots"])
            try Glora.refuse(
                ["fewshot", "--root", "task"] + flags, in: folder,
                saying: ["task holds no data set", "--data"])
            try folder.write("few shot/food101/annotations/train_meta.list.num_shot_2.seed_1", "\n")
            try Glora.refuse(arguments, in: folder, saying: ["num_shot_2.seed_1", "lists no images"])
        }
    }

    @Test("--lrs needs a validation split")
    func noValidation() throws {
        try Fixture.withFolder { folder in
            _ = try Glora.refuse(
                ["shift", "--train", "task/train800.txt", "--test", "task/test.txt"]
                    + Self.flags("glora", "--lrs", "1e-3,1e-2", "--json"), in: folder, code: 64,
                saying: ["--lrs chooses by validation accuracy", "train800 has no validation split"])
        }
    }
}

/// VTAB-1K's folders in the papers' order.
private enum VTABTree {
    static let tasks = [
        "cifar", "caltech101", "dtd", "oxford_flowers102", "oxford_iiit_pet", "svhn", "sun397",
        "patch_camelyon", "eurosat", "resisc45", "diabetic_retinopathy", "clevr_count", "clevr_dist", "dmlab",
        "kitti", "dsprites_loc", "dsprites_ori", "smallnorb_azi", "smallnorb_ele",
    ]
}
