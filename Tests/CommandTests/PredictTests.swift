import Checkpoints
import Datasets
import Foundation
import Testing

/// `predict`: its files against each other, `eval` and the model's own head.
@Suite("Predictions and features of images")
struct PredictTests {
    private let run = ["predict", "--run", "run", "--device", "cpu"]

    /// The cells of a CSV file whose cells need no quotation marks.
    private func rows(_ file: String, in folder: URL) throws -> [[String]] {
        let text = String(decoding: try folder.bytes(file), as: UTF8.self)
        #expect(text.hasSuffix("\n") && !text.contains("\r") && !text.contains("\""))
        return text.dropLast().split(separator: "\n", omittingEmptySubsequences: false).map {
            $0.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        }
    }

    private func numbers(_ value: JSONValue?) throws -> [Float] {
        try #require(value?.arrayValue).map { Float(try #require($0.numberValue)) }
    }

    @Test(
        "CSV and JSON lines say the same of every image, in order, and their classes score what eval scores")
    func forms() throws {
        try Fixture.withFolder { folder in
            let result = try Glora.succeed(
                run + ["--data", "folders/test", "--output", "p.csv", "--logits", "--json"], in: folder
            ).json()
            #expect(result["count"] == 12 && result["classCount"] == 3 && result["classNames"] == nil)
            #expect(try result.number("imagesPerSecond") > 0)
            try Glora.succeed(
                run + ["--data", "folders/test", "--output", "p.jsonl", "--logits", "--top", "2"], in: folder)
            let (csv, json) = (try rows("p.csv", in: folder), try folder.lines("p.jsonl"))
            #expect(
                csv[0] == [
                    "path", "class", "probability", "class_2", "probability_2", "class_3", "probability_3",
                    "logit_0", "logit_1", "logit_2",
                ])
            #expect(csv.count == 13 && json.count == 12)
            // Folders in order, and in each the images by the bytes of their names: 0, 3, 6, 9 and 1, 10, 4, 7 and 11, 2, 5, 8.
            #expect(csv[5][0] == "folders/test/c1/1.png" && csv[6][0] == "folders/test/c1/10.png")
            var right = 0
            for (cells, object) in zip(csv.dropFirst(), json) {
                #expect(try object.keys() == ["path", "class", "probability", "top", "logits"])
                #expect(object["path"]?.stringValue == cells[0] && object["class"]?.stringValue == cells[1])
                let logits = try numbers(object["logits"])
                #expect(logits == cells[7...].compactMap(Float.init))
                let exponentials = logits.map { exp(Double($0)) }
                let probabilities = exponentials.map { $0 / exponentials.reduce(0, +) }
                let order = (0..<3).sorted { logits[$0] > logits[$1] }
                let top = try #require(object["top"]?.arrayValue)
                #expect(top.compactMap { $0["class"]?.stringValue } == order.prefix(2).map(String.init))
                #expect([cells[1], cells[3], cells[5]] == order.map(String.init))
                for (place, k) in order.enumerated() {
                    let written = try #require(Double(cells[2 + 2 * place]))
                    #expect(abs(written - probabilities[k]) < 1e-12)
                    if place < 2 { #expect(try top[place].number("probability") == written) }
                }
                #expect(try object.number("probability") == top[0].number("probability"))
                if cells[0].contains("/c\(cells[1])/") { right += 1 }
            }
            let score = try Glora.succeed(["eval", "--run", "run", "--device", "cpu", "--json"], in: folder)
                .json()
            #expect(score["correct"]?.integerValue == right && right > 0)
        }
    }

    @Test("A folder without classes, files, lists and one image are taken together, names as they were given")
    func sources() throws {
        try Fixture.withFolder { folder in
            let image = try folder.bytes("folders/test/c2/2.png")
            for name in ["photos/a, b.png", "photos/deep/er/\"c\".png", "one.png"] {
                try folder.write(name, image)
            }
            try folder.write("photos/list.txt", "deep/er/\"c\".png\n")
            try Glora.succeed(
                run + [
                    "--data", "photos/", "one.png", "./photos/list.txt", "--output", "p.csv", "--top", "1",
                ],
                in: folder)
            let text = String(decoding: try folder.bytes("p.csv"), as: UTF8.self).split(separator: "\n")
            #expect(text[0] == "path,class,probability" && text.count == 5)
            for (line, path) in zip(
                text.dropFirst(),
                [
                    "\"photos/a, b.png\"", "\"photos/deep/er/\"\"c\"\".png\"", "one.png",
                    "\"./photos/deep/er/\"\"c\"\".png\"",
                ])
            {
                #expect(line.hasPrefix(path + ","), "\(line)")
            }
            // The same image says the same everywhere, but for the last bits, which in OpenBLAS's products for Haswell and Zen depend on
            // its place in the batch.
            let ends = text.dropFirst().map { $0.split(separator: ",").suffix(2) }
            #expect(Set(ends.map(\.first)).count == 1)
            let probabilities = try ends.map { try #require(Double($0.last!)) }
            #expect(probabilities.allSatisfy { abs($0 - probabilities[0]) < 1e-6 })
            try Glora.succeed(
                run + ["--data", "one.png", "--output", "p.jsonl", "--batch-size", "1"], in: folder)
            let line = try folder.lines("p.jsonl")
            #expect(line.count == 1 && line[0]["path"] == "one.png" && line[0]["logits"] == nil)
            #expect(line[0]["top"]?.arrayValue?.count == 3)
        }
    }

    @Test("Classes have the model's names, quoted where they must be")
    func names() throws {
        try Fixture.withFolder { folder in
            try Fixture.own("task", in: folder)
            try folder.write("task/classes.txt", "red, or so\n\"green\"\nblue\n")
            try Glora.succeed(Fixture.train("named", "--path", "full"), in: folder)
            let flags = [
                "predict", "--run", "named", "--device", "cpu", "--data", "task/test.txt", "--logits",
            ]
            try Glora.succeed(flags + ["--output", "p.csv"], in: folder)
            let result = try Glora.succeed(flags + ["--output", "p.jsonl", "--json"], in: folder).json()
            #expect(result["classNames"] == ["red, or so", "\"green\"", "blue"])
            let text = String(decoding: try folder.bytes("p.csv"), as: UTF8.self)
            #expect(text.contains("\"logit_red, or so\",\"logit_\"\"green\"\"\",logit_blue\n"))
            for line in try folder.lines("p.jsonl") {
                let logits = try numbers(line["logits"])
                let place = try #require(logits.firstIndex(of: logits.max()!))
                #expect(line["class"] == result["classNames"]?.arrayValue?[place])
                #expect(line["path"]?.stringValue?.hasPrefix("task/test/an image ") == true)
            }
        }
    }

    @Test(
        "Features are what the classifier reads; a model without a head has them too; tokens hold the class token"
    )
    func features() throws {
        try Fixture.withFolder { folder in
            try Glora.succeed(
                ["merge", "--run", "run", "--output", "merged.safetensors", "--device", "cpu"], in: folder)
            let head = try SafetensorsFile(folder.appendingPathComponent("merged.safetensors"))
            let (weight, bias) = (try head.tensor("head.weight").values, try head.tensor("head.bias").values)
            try Glora.succeed(
                run + [
                    "--data", "folders/test", "--output", "p.jsonl", "--logits", "--features",
                    "f.safetensors",
                    "--batch-size", "5",
                ], in: folder)
            let file = try SafetensorsFile(folder.appendingPathComponent("f.safetensors"))
            let features = try file.tensor("features")
            #expect(file.names == ["features"] && features.shape == [12, 16])
            #expect(file.entries["features"]?.type == "F32")
            let paths = try JSONValue(parsing: try #require(file.metadata["paths"]).utf8)
            let objects = try folder.lines("p.jsonl")
            #expect(paths.arrayValue == objects.map { $0["path"]! })
            for (row, object) in objects.enumerated() {
                for (k, logit) in try numbers(object["logits"]).enumerated() {
                    let sum = (0..<16).reduce(Double(bias[k])) {
                        $0 + Double(weight[k * 16 + $1]) * Double(features.values[row * 16 + $1])
                    }
                    #expect(abs(sum - Double(logit)) < 1e-4, "image \(row), class \(k)")
                }
            }
            // Another batch size, tokens beside: the same to rounding.
            try Glora.succeed(
                run + ["--data", "folders/test", "--features", "t.safetensors", "--tokens"], in: folder)
            let both = try SafetensorsFile(folder.appendingPathComponent("t.safetensors"))
            let (again, tokens) = (try both.tensor("features"), try both.tensor("tokens"))
            #expect(tokens.shape == [12, 5, 16] && again.shape == features.shape)
            for (index, value) in again.values.enumerated() {
                #expect(abs(value - features.values[index]) < 1e-4)
                #expect(value == tokens.values[index / 16 * 5 * 16 + index % 16])
            }
            let plain = try Glora.succeed(
                [
                    "predict", "--model", "model", "--data", "folders/test", "--features",
                    "plain.safetensors",
                    "--device", "cpu", "--json",
                ], in: folder
            ).json()
            #expect(plain["width"] == 16 && plain["classCount"] == nil && plain["output"] == nil)
            let others = try SafetensorsFile(folder.appendingPathComponent("plain.safetensors"))
            let unlike = try others.tensor("features")
            #expect(unlike.shape == [12, 16] && unlike.values != features.values)
        }
    }

    @Test("What is in the way, can't be meant or can't be read is refused, and nothing is left behind")
    func refuses() throws {
        try Fixture.withFolder { folder in
            let before = try Set(FileManager.default.contentsOfDirectory(atPath: folder.path))
            for (flags, words) in [
                (["--data", "folders/test"], ["--output"]),
                (["--data", "folders/test", "--output", "p.txt"], [".csv", ".jsonl"]),
                (["--data", "folders/test", "--output", "p.csv", "--top", "0"], ["--top"]),
                (["--data", "folders/test", "--output", "p.csv", "--tokens"], ["--features"]),
                (["--data", "folders/test", "--features", "f.safetensors", "--logits"], ["--output"]),
                (["--data", "folders/test", "--features", "f.npz"], [".safetensors"]),
            ] {
                try Glora.refuse(run + flags, in: folder, code: 64, saying: words)
            }
            try Glora.refuse(
                [
                    "predict", "--model", "model", "--data", "folders/test", "--output", "p.csv", "--device",
                    "cpu",
                ],
                in: folder, saying: ["no head"])
            try Glora.refuse(
                run + ["--data", "nowhere", "--output", "p.csv"], in: folder,
                saying: ["nowhere", "No such file"])
            try Glora.refuse(
                run + ["--data", "folders/test", "--output", "no/p.csv"], in: folder,
                saying: ["no/p.csv", "make its folder first"])
            #expect(try Set(FileManager.default.contentsOfDirectory(atPath: folder.path)) == before)
            try folder.write("p.csv", "mine")
            try Glora.refuse(
                run + ["--data", "folders/test", "--output", "p.csv"], in: folder,
                saying: ["p.csv exists already"])
            #expect(try folder.bytes("p.csv") == Data("mine".utf8))
            // Damaged behind its first bytes: found when its batch is read.
            try folder.write("photos/a.png", try folder.bytes("folders/test/c0/0.png"))
            try folder.write("photos/b.png", try folder.bytes("folders/test/c0/0.png").prefix(60))
            try Glora.refuse(
                run + [
                    "--data", "photos", "--output", "q.csv", "--features", "q.safetensors", "--batch-size",
                    "1",
                ], in: folder, saying: ["photos/b.png", "damaged"])
            #expect(!folder.exists("q.csv") && !folder.exists("q.safetensors"))
        }
    }

    @Test("Ctrl-C ends it after a batch, and nothing is left")
    func stops() throws {
        try Fixture.withFolder { folder in
            try folder.write("many.txt", String(repeating: "folders/test/c0/0.png\n", count: 200_000))
            let before = try Set(FileManager.default.contentsOfDirectory(atPath: folder.path))
            let running = try Glora.start(
                run + ["--data", "many.txt", "--output", "p.csv", "--features", "f.safetensors", "--json"],
                in: folder)
            try running.wait {
                try FileManager.default.contentsOfDirectory(atPath: folder.path).count {
                    $0.hasSuffix(".tmp")
                } == 2
            }
            running.send(SIGINT)
            let outcome = try running.outcome()
            #expect(
                outcome.exitCode == 130 && outcome.output.isEmpty
                    && outcome.errors.contains("nothing was written"))
            #expect(try Set(FileManager.default.contentsOfDirectory(atPath: folder.path)) == before)
        }
    }
}
