import Checkpoints
import Foundation
import Testing

/// Heads for labels and values on the command line: a table's two splits, from training to a merged model.
@Suite("--task labels and values")
struct TargetTests {
    /// Of the fixture's images, whose class is the dominant colour c: labels that hold for two classes and for one, and 1000 c + 5000.
    private static func cells(_ task: String, _ c: Int) -> [String] {
        task == "labels" ? [c < 2 ? "1" : "0", c == 1 ? "1" : "0"] : ["\(1000 * c + 5000)", "\(c)"]
    }

    private static let heads = ["labels": ["warm", "green"], "values": ["price", "colour"]]
    private static let names = ["labels": "meanAveragePrecision", "values": "r2"]
    private static let metrics = ["labels": "mean average precision", "values": "R²"]

    private func withTables(_ task: String, _ body: (URL) throws -> Void) throws {
        try Fixture.withFolder { folder in
            for (list, split) in [("train800", "train"), ("val200", "val"), ("test", "test")] {
                var table = "path," + Self.heads[task]!.joined(separator: ",") + "\n"
                let lines = String(decoding: try folder.bytes("task/\(list).txt"), as: UTF8.self)
                for line in lines.split(separator: "\n") {
                    let gap = line.lastIndex(of: " ")!
                    let label = try #require(Int(line[line.index(after: gap)...]))
                    try folder.write("table/\(line[..<gap])", try folder.bytes("task/\(line[..<gap])"))
                    table += ([String(line[..<gap])] + Self.cells(task, label)).joined(separator: ",") + "\n"
                }
                try folder.write("table/\(split).csv", table)
            }
            try body(folder)
        }
    }

    private func train(_ task: String, _ run: String, _ more: String...) -> [String] {
        [
            "train", "--task", task, "--model", "model", "--data", "table", "--run", run, "--device", "cpu",
            "--batch-size", "8", "--lr", "1e-2", "--epochs", "40",
        ] + more
    }

    /// A cell for each output of each image of the test split, as a CSV file of predictions has it.
    private func predictions(_ file: String, _ task: String, in folder: URL) throws -> [[Double]] {
        let rows = String(decoding: try folder.bytes(file), as: UTF8.self).split(separator: "\n")
            .map { $0.split(separator: ",") }
        #expect(rows[0].map(String.init) == ["path"] + Self.heads[task]! && rows.count == 13)
        return try rows.dropFirst().map { try $0.dropFirst().map { try #require(Double($0)) } }
    }

    @Test(
        "A run learns them, is judged by them, and a merged model and an adapter say the same",
        arguments: ["labels", "values"])
    func wholeWay(task: String) throws {
        let metric = try #require(Self.names[task])
        let capital = metric.prefix(1).uppercased() + metric.dropFirst()
        try withTables(task) { folder in
            let outcome = try Glora.succeed(
                train(task, "a", "--ema", "0.5", "--log-dir", "logs", "--json"), in: folder)
            let json = try outcome.json()
            #expect(try json.number("bestVal\(capital)") > 0.8 && json["valAccuracy"] == nil)
            #expect(
                outcome.errors.contains("validation \(Self.metrics[task]!) ")
                    && !outcome.errors.contains("accuracy"))
            let lines = String(decoding: try folder.bytes("a/metrics.jsonl"), as: UTF8.self)
            #expect(lines.contains("\"unaveragedVal\(capital)\":") && !lines.contains("Accuracy"))
            try DocumentationTests.expectValid(lines, as: "glora.metrics/1", in: folder)

            let eval = ["eval", "--data", "table", "--device", "cpu", "--json"]
            let scored = try Glora.succeed(eval + ["--run", "a"], in: folder)
            try DocumentationTests.expectValid(scored.output + outcome.output, in: folder)
            let score = try scored.json().number(metric)
            #expect(score > 0.8 && score <= 1)
            #expect(try scored.json()[task]?.arrayValue?.map { $0["name"]?.stringValue } == Self.heads[task])

            let images = ["--data", "table/test", "--device", "cpu"]
            try Glora.succeed(["predict", "--run", "a", "--output", "p.csv"] + images, in: folder)
            try Glora.succeed(["predict", "--run", "a", "--output", "p.jsonl"] + images, in: folder)
            let predicted = try predictions("p.csv", task, in: folder)
            let objects = try folder.lines("p.jsonl")
            for (row, object) in zip(predicted, objects) {
                #expect(try Self.heads[task]!.map { try #require(object[task]).number($0) } == row)
            }
            // An image's class is its number's remainder; folders are read by the bytes of their names.
            let classes = objects.map { object in
                Int(object["path"]!.stringValue!.split(separator: " ").last!.dropLast(4))! % 3
            }
            let first = predicted.map { $0[0] }
            let truth = classes.map { Double(Self.cells(task, $0)[0])! }
            if task == "labels" {
                #expect(predicted.allSatisfy { $0.allSatisfy { (0...1).contains($0) } })
                #expect(zip(first, truth).count { ($0 > 0.5) == ($1 > 0.5) } >= 10)
            } else {
                // In their own units, and as R² has them.
                let mean = truth.reduce(0, +) / 12
                let (residual, total) = (
                    zip(first, truth).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) },
                    truth.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
                )
                let r2 = try #require(try scored.json()["values"]?.arrayValue?[0]).number("r2")
                #expect(abs(1 - residual / total - r2) < 1e-4)
                let error = zip(first, truth).reduce(0) { $0 + abs($1.0 - $1.1) } / 12
                let said = try #require(try scored.json()["values"]?.arrayValue?[0]).number(
                    "meanAbsoluteError")
                #expect(abs(error - said) < 1e-3 * error)
            }

            try Glora.succeed(
                ["merge", "--run", "a", "--output", "hf", "--format", "hf", "--device", "cpu"], in: folder)
            let problem = ["labels": "multi_label_classification", "values": "regression"][task]
            let config = try JSONValue(parsing: try folder.bytes("hf/config.json"))
            #expect(config["problem_type"]?.stringValue == problem)
            for model in [["--model", "hf"], ["--model", "model", "--adapter", "a/adapter"]] {
                let other = try Glora.succeed(eval + model, in: folder).json().number(metric)
                #expect(abs(other - score) < 1e-5, "\(model)")
            }
            // An adapter of classes on that folder says classes, whatever the folder's own head says.
            try Glora.succeed(
                [
                    "train", "--model", "hf", "--data", "task", "--run", "c", "--device", "cpu", "--epochs",
                    "1",
                ],
                in: folder)
            let asClasses = ["eval", "--model", "hf", "--adapter", "c/adapter", "--data", "task"]
            let accuracy = try Glora.succeed(asClasses + ["--device", "cpu", "--json"], in: folder).json()
            #expect(accuracy["accuracy"] != nil && accuracy["task"] == nil)
            try Glora.succeed(["report", "--run", "a"], in: folder)
            let page = String(decoding: try folder.bytes("a/report.html"), as: UTF8.self)
            #expect(
                page.contains("validation \(Self.metrics[task]!)") && !page.contains("validation accuracy"))
        }
    }

    @Test("A run that was stopped goes on to the bytes of one that wasn't", arguments: ["labels", "values"])
    func resume(task: String) throws {
        try withTables(task) { folder in
            let flags = ["--epochs", "100", "--validate-every", "9"]
            try Glora.succeed(train(task, "whole") + flags, in: folder)
            let running = try Glora.start(train(task, "parts") + flags, in: folder)
            running.wait { (try? folder.bytes("parts/metrics.jsonl"))?.count ?? 0 > 4000 }
            running.send(SIGINT)
            #expect(try running.outcome().exitCode == 130)
            try Glora.succeed(["train", "--run", "parts", "--resume", "--device", "cpu"], in: folder)
            for name in [
                "last.safetensors", "best.safetensors", "metrics.jsonl", "adapter/adapter_model.safetensors",
            ] {
                let (whole, parts) = (try folder.bytes("whole/\(name)"), try folder.bytes("parts/\(name)"))
                #expect(whole == parts && !whole.isEmpty, "\(name)")
            }
        }
    }

    @Test("What is for classes alone says so")
    func refusals() throws {
        try withTables("labels") { folder in
            try Glora.succeed(train("labels", "a", "--epochs", "1"), in: folder)
            try Glora.refuse(
                ["search", "--run", "a", "--max-params", "2k", "--device", "cpu"], in: folder,
                saying: ["learns labels"])
            try Glora.refuse(train("classes", "b"), in: folder, saying: ["are for labels, not for classes"])
            try Glora.refuse(
                [
                    "train", "--task", "labels", "--model", "model", "--data", "task", "--run", "b",
                    "--device", "cpu",
                ],
                in: folder, saying: ["holds no tables that say labels"])
            try Glora.refuse(
                train("labels", "b", "--label-smoothing", "0.1"), in: folder, code: 64,
                saying: ["--label-smoothing is for classes", "--task labels"])
            try Glora.refuse(
                [
                    "predict", "--run", "a", "--data", "table/test", "--output", "p.csv", "--top", "2",
                    "--device", "cpu",
                ],
                in: folder, code: 64, saying: ["--top is for classes"])
            try folder.write(
                "sweep.yaml", "model: model\ndata: table\ntask: labels\nsweep: {lr: [1e-3, 1e-2]}\n")
            try Glora.refuse(
                ["sweep", "--config", "sweep.yaml", "--run", "s"], in: folder, code: 64,
                saying: ["'task' is not for sweeps"])
            #expect(!folder.exists("b") && !folder.exists("p.csv"))
        }
    }
}
