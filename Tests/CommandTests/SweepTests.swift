import Checkpoints
import Foundation
import Testing

@Suite("sweep")
struct SweepTests {
    /// Trainings of two epochs of four steps.
    private static let head = """
        model: model
        data: task
        device: cpu
        batch-size: 8
        epochs: 2
        warmup-epochs: 0
        validate-every: 1

        """

    private static let sweep = ["sweep", "--config", "sweep.yaml", "--run", "out"]

    private func write(_ text: String, in folder: URL) throws {
        try folder.write("sweep.yaml", Self.head + text)
    }

    /// `sweep.json` without what a clock says and where the folder lies.
    private func result(_ folder: URL, _ output: String = "out") throws -> String {
        String(decoding: try folder.bytes(output + "/sweep.json"), as: UTF8.self)
            .replacing(/"seconds":[0-9.e-]+/, with: "").replacing("/\(output)", with: "")
    }

    private func spread(_ values: [Double]) -> (mean: Double, deviation: Double) {
        let mean = values.reduce(0, +) / Double(values.count)
        let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        return (mean, (squares / Double(values.count - 1)).squareRoot())
    }

    @Test("A grid is judged by its seeds' best validations, and the best alone is tested, once")
    func grid() throws {
        try Fixture.withFolder { folder in
            try write(
                "sweep: {method: [linear, lora], lr: [1e-5, 1e-2]}\nseeds: [3, 4]\ntest: true\n", in: folder)
            let outcome = try Glora.succeed(Self.sweep + ["--json"], in: folder)
            let json = try outcome.json()
            #expect(json["finished"] == true && json["task"]?.stringValue == "task")
            #expect(json["done"]?.integerValue == 8 && json["count"]?.integerValue == 8)
            let trials = try #require(json["trials"]?.arrayValue)
            #expect(Set(trials.map { $0["trial"]?.integerValue }) == [1, 2, 3, 4])
            var keys: [(Double, Double)] = []
            for trial in trials {
                let number = try #require(trial["trial"]?.integerValue)
                #expect(
                    trial["settings"]?["method"]?.stringValue == (number < 3 ? "linear" : "lora"))
                #expect(try trial["settings"]?.number("lr") == (number % 2 == 1 ? 1e-5 : 1e-2))
                let rung = try #require(trial["rungs"]?.arrayValue?.first)
                #expect(rung["epochs"]?.integerValue == 2)
                // Each run's own journal says what it is judged by.
                let best = try [3, 4].map { seed in
                    let lines = try folder.lines("out/trial-\(number)/seed-\(seed)/metrics.jsonl")
                    return lines.compactMap { $0["valAccuracy"]?.numberValue }.max() ?? -1
                }
                let (mean, deviation) = spread(best)
                let validation = try #require(rung["validation"])
                #expect(try abs(validation.number("mean") - mean) < 1e-12)
                #expect(try abs(validation.number("deviation") - deviation) < 1e-12)
                keys.append((-mean, try rung.number("loss")))
            }
            #expect(keys.map(\.0) == keys.map(\.0).sorted() && keys[0] < keys[3])
            let first = try #require(trials[0]["trial"]?.integerValue)
            let best = try #require(json["best"])
            #expect(best["trial"]?.integerValue == first)
            var tests: [Double] = []
            for number in 1...4 {
                for seed in [3, 4] {
                    let cell = try JSONValue(
                        contentsOf: folder.appendingPathComponent(
                            "out/trial-\(number)/seed-\(seed)/result.json"))
                    let scores = try #require(cell["tests"]?.arrayValue)
                    #expect(scores.count == (number == first ? 1 : 0), "trial \(number)")
                    tests += try scores.map { try #require($0["score"]).number("correct") / 12 }
                }
            }
            #expect(try abs(#require(best["test"]).number("mean") - spread(tests).mean) < 1e-12)
            #expect(outcome.errors.contains("was read once, at the end, for trial \(first) alone"))
            // The run is an ordinary one.
            let run = try #require(best["run"]?.stringValue)
            try Glora.succeed(["eval", "--run", run, "--device", "cpu"], in: folder)
            let page = String(decoding: try folder.bytes("out/report.html"), as: UTF8.self)
            #expect(page.contains("Trials, best first") && page.contains("Mistakes of the best"))
            let file = try JSONValue(contentsOf: folder.appendingPathComponent("out/sweep.json"))
            #expect(file == json)
        }
    }

    @Test("Without test: true no test image is needed, nor read")
    func noTest() throws {
        try Fixture.withFolder { folder in
            try Fixture.own("task", in: folder)
            try FileManager.default.removeItem(at: folder.appendingPathComponent("task/test.txt"))
            try FileManager.default.removeItem(at: folder.appendingPathComponent("task/test"))
            try write("sweep: {lr: [1e-2]}\nmethod: linear\n", in: folder)
            let outcome = try Glora.succeed(Self.sweep, in: folder)
            #expect(outcome.output.contains("the test split was not read"))
        }
    }

    @Test("Halving trains the best share anew for more epochs, and a trial that fails never goes on")
    func halving() throws {
        try Fixture.withFolder { folder in
            try write(
                "sweep: {lr: [1e30, 1e-6, 1e-2, 3e-2]}\nmethod: linear\nhalving: {epochs: [1, 2], keep: 0.5}\n",
                in: folder)
            let json = try Glora.succeed(Self.sweep + ["--json"], in: folder).json()
            let trials = try #require(json["trials"]?.arrayValue)
            let rungs = trials.map { $0["rungs"]?.arrayValue?.compactMap { $0["epochs"]?.integerValue } }
            #expect(rungs == [[1, 2], [1, 2], [1], [1]])
            #expect(trials.last?["trial"]?.integerValue == 1)
            #expect(trials.last?["rungs"]?.arrayValue?[0]["validation"] == nil)
            #expect(json["done"]?.integerValue == 6 && json["count"]?.integerValue == 6)
            // Who goes on is who was best after one epoch.
            func loss(_ trial: JSONValue) throws -> (Double, Double) {
                let rung = try #require(trial["rungs"]?.arrayValue?[0])
                return (-(try #require(rung["validation"]).number("mean")), try rung.number("loss"))
            }
            let dropped = try loss(trials[2])
            for trial in trials[..<2] { #expect(try loss(trial) < dropped) }
            let best = try #require(trials[0]["trial"]?.integerValue)
            #expect(folder.exists("out/trial-\(best)/epochs-2/seed-0/best.safetensors"))
            #expect(try folder.lines("out/trial-\(best)/epochs-2/seed-0/metrics.jsonl").count == 4 * 2 + 4)
        }
    }

    @Test("Ctrl-C ends with 130; --resume keeps what is done, goes on, and makes the same result")
    func interrupted() throws {
        try Fixture.withFolder { folder in
            try folder.write(
                "sweep.yaml",
                Self.head.replacing("epochs: 2\nwarmup", with: "epochs: 60\nwarmup")
                    + "sweep: {lr: [1e-2, 1e-3]}\nmethod: linear\ntest: true\n")
            try Glora.succeed(["sweep", "--config", "sweep.yaml", "--run", "whole"], in: folder)
            let running = try Glora.start(Self.sweep + ["--json"], in: folder)
            running.wait { (try? folder.bytes("out/trial-2/seed-0/metrics.jsonl"))?.isEmpty == false }
            // What becomes of the file no longer matters.
            try folder.write("sweep.yaml", "nothing")
            running.send(SIGINT)
            let outcome = try running.outcome()
            #expect(outcome.exitCode == 130, "\(outcome.errors)")
            let stopped = try outcome.json()
            #expect(stopped["finished"] == false && stopped["best"] == nil)
            #expect(stopped["done"]?.integerValue == 1 && stopped["count"]?.integerValue == 2)
            #expect(outcome.errors.contains("`glora sweep --run out --resume` goes on from there"))
            func page() throws -> String {
                String(decoding: try folder.bytes("out/report.html"), as: UTF8.self)
            }
            #expect(try page().contains("1 of 2 trainings are done") && !page().contains("http-equiv"))
            try Glora.refuse(["report", "--run", "out"], in: folder, saying: ["the folder of a sweep"])
            let again = try Glora.succeed(["sweep", "--run", "out", "--resume"], in: folder)
            #expect(try !page().contains("trainings are done"))
            #expect(again.output.contains("[1/2] trial 1 (lr 1e-2): done before"))
            #expect(again.output.contains("[2/2] trial 2 (lr 1e-3): going on"))
            #expect(try result(folder) == result(folder, "whole"))
            for name in ["last.safetensors", "metrics.jsonl"] {
                #expect(
                    try folder.bytes("out/trial-2/seed-0/\(name)")
                        == folder.bytes("whole/trial-2/seed-0/\(name)"))
            }
            // All of it is kept another time.
            let file = try folder.bytes("out/sweep.json")
            try Glora.succeed(["sweep", "--run", "out", "--resume"], in: folder)
            #expect(try folder.bytes("out/sweep.json") == file)
        }
    }

    @Test("A folder that holds a sweep is gone on with by --resume alone, and with the same sweep alone")
    func folders() throws {
        try Fixture.withFolder { folder in
            try write("sweep: {lr: [1e-2]}\nmethod: linear\n", in: folder)
            try Glora.refuse(
                Self.sweep + ["--resume"], in: folder, saying: ["out holds no sweep", "without --resume"])
            #expect(!folder.exists("out"))
            try Glora.succeed(Self.sweep, in: folder)
            try Glora.refuse(Self.sweep, in: folder, saying: ["out holds a sweep already", "another --run"])
            try write("sweep: {lr: [1e-3]}\nmethod: linear\n", in: folder)
            try Glora.refuse(
                Self.sweep + ["--resume"], in: folder,
                saying: ["another sweep", "'lr' is [1e-2] there, [1e-3] here", "another --run"])
            // The test may be asked for later.
            try write("sweep: {lr: [1e-2]}\nmethod: linear\ntest: true\n", in: folder)
            let json = try Glora.succeed(Self.sweep + ["--resume", "--json"], in: folder).json()
            #expect(json["best"]?["test"] != nil)
            // Other images are other results.
            try Fixture.own("task", in: folder)
            let list = try folder.bytes("task/val200.txt")
            try folder.write("task/val200.txt", list + Data("val200/an image 0.png 1\n".utf8))
            try Glora.refuse(
                Self.sweep + ["--resume", "--json"], in: folder,
                saying: ["out/trial-1/seed-0", "another validation split", "another --run"])
        }
    }

    @Test(
        "What can't be meant is refused before anything runs",
        arguments: [
            ("sweep: {learning-speed: [1]}", ["sweep.yaml", "'learning-speed'"]),
            ("sweep: {lr: [fast]}", ["'lr' can't be 'fast'"]), ("sweep: {lr: [-1]}", ["--lr must be"]),
            ("method: linear\nsweep: {rank: [4]}", ["trial 1 (rank 4)", "--rank"]),
            ("method: lora\nsweep: {rank: [4, 1000]}", ["trial 2 (rank 1000)", "rank"]),
            ("sweep: {lr: [1e-2]}\ntrain-split: train800val200", ["validation", "train-split"]),
            ("sweep: {lr: [1e-2]}\ncolour: red", ["'colour'"]),
            ("sweep: {image-size: [20]}", ["trial 1", "20"]),
        ])
    func refusals(_ text: String, _ words: [String]) throws {
        try Fixture.withFolder { folder in
            try write(text + "\n", in: folder)
            try Glora.refuse(Self.sweep, in: folder, code: 64, saying: words)
            #expect(!folder.exists("out"))
        }
    }

    @Test("Data without a validation split are refused, and so are command lines without a file")
    func noValidation() throws {
        try Fixture.withFolder { folder in
            try Fixture.own("task", in: folder)
            try FileManager.default.removeItem(at: folder.appendingPathComponent("task/val200.txt"))
            try write("sweep: {lr: [1e-2]}\n", in: folder)
            try Glora.refuse(
                Self.sweep, in: folder, code: 64,
                saying: ["judged by validation accuracy", "no validation split"])
            try Glora.refuse(
                ["sweep", "--run", "out"], in: folder, code: 64, saying: ["--config is missing"])
            try Glora.refuse(
                Self.sweep + ["--precision", "float16"], in: folder, code: 64, saying: ["--precision"])
            #expect(!folder.exists("out"))
        }
    }
}
