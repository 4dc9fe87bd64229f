import Checkpoints
import Foundation
import Testing

/// `eval`'s scores of each class against predictions, and what a run keeps of them for `report`.
@Suite("Scores of classes, and what a report shows of mistakes")
struct EvalTests {
    private static let eval = ["eval", "--run", "run", "--device", "cpu"]
    private static let kept = "run/predictions-test.jsonl"

    @Test("Accuracies, F1 and the confusion matrix are those of the predictions")
    func scores() throws {
        try Fixture.withFolder { folder in
            // The head without its adapter makes mistakes.
            let flags = ["--run", "run", "--path", "none", "--device", "cpu"]
            let score = try Glora.succeed(["eval", "--json"] + flags, in: folder).json()
            try Glora.succeed(
                ["predict", "--data", "folders/test", "--output", "p.jsonl"] + flags, in: folder)
            var matrix = [[Int]](repeating: [0, 0, 0], count: 3)
            for line in try folder.lines("p.jsonl") {
                let path = try #require(line["path"]?.stringValue)
                let label = try #require((0..<3).first { path.contains("/c\($0)/") })
                matrix[label][try #require(line["class"]?.stringValue.flatMap { Int($0) })] += 1
            }
            let right = (0..<3).map { matrix[$0][$0] }
            try #require(right.reduce(0, +) < 12, "no mistakes, no test")
            #expect(score["confusionMatrix"] == .array(matrix.map { .array($0.map { .integer($0) }) }))
            #expect(score["correct"]?.integerValue == right.reduce(0, +))
            var sum = (f1: 0.0, count: 0)
            for k in 0..<3 {
                let one = try #require(score["classes"]?.arrayValue?[k])
                let predicted = (0..<3).reduce(0) { $0 + matrix[$1][k] }
                #expect(one["count"] == 4 && one["predicted"]?.integerValue == predicted)
                #expect(try one.number("accuracy") == Double(right[k]) / 4)
                #expect(
                    one["precision"]?.numberValue
                        == (predicted == 0 ? nil : Double(right[k]) / Double(predicted)))
                let f1 = 2 * Double(right[k]) / Double(4 + predicted)
                #expect(try abs(one.number("f1") - f1) < 1e-12)
                sum = (sum.f1 + f1, sum.count + 1)
            }
            #expect(try abs(score.number("macroF1") - sum.f1 / Double(sum.count)) < 1e-12)
            #expect(score["topK"] == 3 && score["topKAccuracy"]?.numberValue == 1)
            let confused = try #require(score["mostConfused"]?.arrayValue)
            let counts = try confused.map { pair in
                let (label, predicted) = (
                    pair["label"]?.integerValue ?? 0, pair["predicted"]?.integerValue ?? 0
                )
                #expect(label != predicted && pair["count"]?.integerValue == matrix[label][predicted])
                return try pair.number("count")
            }
            #expect(counts == counts.sorted(by: >) && Int(counts.reduce(0, +)) == 12 - right.reduce(0, +))
            // Another path than the run's own is not what it says.
            #expect(!folder.exists(Self.kept))
        }
    }

    @Test("Few classes are a table; of many the worst are named, and top-5 is told")
    func texts() throws {
        try Fixture.withFolder { folder in
            let few = try Glora.succeed(Self.eval, in: folder).output
            #expect(few.contains("macro F1") && few.contains("as 2") && !few.contains("top-"))
            try Fixture.own("task", in: folder)
            try folder.write("task/classes.txt", (0..<12).map { "name\($0)\n" }.joined())
            try Glora.succeed(
                Fixture.train(
                    "many", "--path", "none", "--epochs", "1", "--warmup-epochs", "0", "--lr", "1e-6"),
                in: folder)
            let many = try Glora.succeed(["eval", "--run", "many", "--device", "cpu"], in: folder).output
            #expect(
                many.contains("top-5 ") && many.contains("most confused: name")
                    && many.contains("least accurate: name"))
            #expect(!many.contains("as 11"))
        }
    }

    @Test(
        "A run keeps what it says of its own data, until it is trained on; where it can't the score is told anyway"
    )
    func keeps() throws {
        try Fixture.withFolder { folder in
            let score = try Glora.succeed(Self.eval + ["--json"], in: folder).json()
            let all = try folder.lines(Self.kept)
            #expect(
                all[0] == [
                    "checkpoint": "best", "classCount": 3, "formatVersion": 1, "split": "test",
                    "step": all[0]["step"]!,
                ])
            #expect(all.count == 13 && all[0]["step"]?.integerValue ?? 0 > 0)
            var (right, loss) = (0, 0.0)
            for image in all.dropFirst() {
                #expect(try image.keys() == ["path", "label", "predicted", "probability", "loss", "rank"])
                #expect((image["rank"] == 0) == (image["label"] == image["predicted"]))
                #expect(FileManager.default.fileExists(atPath: try #require(image["path"]?.stringValue)))
                right += image["rank"] == 0 ? 1 : 0
                loss += try image.number("loss")
            }
            #expect(score["correct"]?.integerValue == right)
            #expect(try abs(score.number("loss") - loss / 12) < 1e-5)
            let before = try folder.bytes(Self.kept)
            try Glora.succeed(Self.eval + ["--data", "folders", "--match-classes", "number"], in: folder)
            #expect(try folder.bytes(Self.kept) == before)
            try Glora.succeed(Self.eval + ["--split", "val", "--data", "task"], in: folder)
            #expect(folder.exists("run/predictions-val.jsonl"))
            let held = try FolderLock(folder.appendingPathComponent("run"), holder: "glora test")
            let noted = try Glora.succeed(Self.eval, in: folder)
            #expect(
                noted.errors.contains("note: ") && noted.errors.contains("isn't kept")
                    && noted.output.contains("accuracy"))
            held.release()
            try Glora.succeed(Fixture.train("other", "--epochs", "1"), in: folder)
            try Glora.succeed(["eval", "--run", "other", "--device", "cpu"], in: folder)
            #expect(folder.exists("other/predictions-test.jsonl"))
            // Stopped at once, or trained to its end: what was said is of a state that is there no more.
            try folder.write(
                "other/config.yaml",
                String(decoding: folder.bytes("other/config.yaml"), as: UTF8.self).replacing(
                    "epochs: 1\n", with: "epochs: 2\n"))
            try Glora.succeed(["train", "--run", "other", "--resume", "--device", "cpu"], in: folder)
            #expect(!folder.exists("other/predictions-test.jsonl"))
        }
    }

    private func write(_ images: [(path: String, label: Int, predicted: Int, loss: Double)], in folder: URL)
        throws
    {
        let header = #"{"checkpoint":"best","classCount":3,"formatVersion":1,"split":"test","step":12}"#
        try folder.write(
            Self.kept,
            ([header]
                + images.map {
                    #"{"label":\#($0.label),"loss":\#($0.loss),"path":"\#($0.path)","predicted":\#($0.predicted),"#
                        + #""probability":0.75,"rank":\#($0.label == $0.predicted ? 0 : 1)}"#
                }).map { $0 + "\n" }.joined())
    }

    @Test(
        "A report draws the confusion matrix and shows the worst mistakes, the worst first, with both names")
    func report() throws {
        try Fixture.withFolder { folder in
            func page(_ more: String...) throws -> String {
                try Glora.succeed(["report", "--run", "run", "--output", "page.html"] + more, in: folder)
                return String(decoding: try folder.bytes("page.html"), as: UTF8.self)
            }
            let without = try page()
            #expect(without.contains("glora eval --run") && !without.contains("class=\"matrix\""))
            func path(_ index: Int) -> String { folder.path + "/task/test/an image \(index).png" }
            try write(
                [
                    (path(0), 0, 0, 0.1), (path(1), 0, 2, 2.5), (path(2), 0, 2, 7.5), (path(3), 1, 1, 0.2),
                    (folder.path + "/gone.png", 2, 1, 4.5), (path(4), 0, 0, 0.1), (path(5), 0, 0, 0.1),
                ], in: folder)
            let drawn = try page("--with", "run")
            // Once for each time that the run is named.
            #expect(drawn.matches(of: /<figure class="matrix">/).count == 2)
            let own = String(drawn.components(separatedBy: "<figure class=\"matrix\">")[1])
            let cells = own.matches(
                of:
                    /<rect class="(right|wrong)" x="([0-9.]+)" y="([0-9.]+)" [^>]*fill-opacity="([0-9.]+)"><title>([^<]*)</
            )
            #expect(
                cells.map { "\($0.output.1) \($0.output.5)" } == [
                    "right 0 as 0: 3 of 5", "wrong 0 as 2: 2 of 5", "right 1 as 1: 1 of 1",
                    "wrong 2 as 1: 1 of 1",
                ])
            // 440 pixels in three rows from 110 on, three columns from 150 on.
            #expect(cells.map { Double($0.output.2)! } == [150, 443.33, 296.67, 296.67])
            #expect(cells.map { Double($0.output.3)! } == [110, 110, 256.67, 403.33])
            #expect(cells.map { Double($0.output.4)! } == [0.66, 0.49, 1, 1])
            #expect(drawn.contains("4 of 7 images right (57.14 %)") && drawn.contains("step 12"))
            let mistakes = own.components(separatedBy: "<figure class=\"mistake\">").dropFirst()
            let names = mistakes.map { $0.matches(of: /<b>([^<]*)<\/b>/).map { String($0.output.1) } }
            #expect(names == [["0", "2"], ["2", "1"], ["0", "2"]])
            #expect(mistakes.map { $0.contains("an image 2.png") } == [true, false, false])
            for (index, mistake) in mistakes.enumerated() {
                #expect(mistake.contains("can't be read any more") == (index == 1))
                guard let data = mistake.firstMatch(of: /data:image\/jpeg;base64,([^"]*)"/) else { continue }
                let bytes = try #require(Data(base64Encoded: String(data.output.1)))
                #expect(bytes.starts(with: [0xff, 0xd8, 0xff]))
            }
            #expect(own.matches(of: /data:image\/jpeg/).count == 2)
            for wrong in [(path(0), 3, 0, 0.1), (path(0), 0, -1, 0.1)] {
                try write([wrong], in: folder)
                try Glora.refuse(
                    ["report", "--run", "run", "--output", "page.html"], in: folder,
                    saying: ["predictions-test.jsonl", "line 2"])
            }
            try folder.write(Self.kept, "{}\n")
            try Glora.refuse(
                ["report", "--run", "run"], in: folder, saying: ["predictions-test.jsonl", "no header"])
        }
    }

    @Test("A comparison's page shows the mistakes of each method's first seed")
    func comparison() throws {
        try Fixture.withFolder { folder in
            try Glora.succeed(
                [
                    "compare", "--data", "task", "--model", "model", "--methods", "linear,lora", "--seeds",
                    "1",
                    "--device", "cpu", "--epochs", "1", "--warmup-epochs", "0", "--lr", "1e-6",
                    "--batch-size", "8",
                    "--output", "out",
                ], in: folder)
            let page = String(decoding: try folder.bytes("out/report.html"), as: UTF8.self)
            #expect(page.matches(of: /<details><summary>(linear|lora)<\/summary>/).count == 2)
            #expect(page.matches(of: /<figure class="matrix">/).count == 2)
            let kept = try folder.lines("out/task/linear/lr-1e-6/seed-0/predictions-test.jsonl")
            let result = try JSONValue(
                contentsOf: folder.appendingPathComponent("out/task/linear/lr-1e-6/seed-0/result.json"))
            let score = try #require(result["tests"]?.arrayValue?[0]["score"])
            #expect(
                kept.dropFirst().count { $0["rank"] == 0 } == score["correct"]?.integerValue
                    && kept.count == 13)
        }
    }
}
