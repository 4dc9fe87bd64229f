import Checkpoints
import Foundation
import Testing

@Suite("The search on the command line")
struct SearchCommandTests {
    private func search(_ more: String...) -> [String] {
        [
            "search", "--run", "run", "--max-params", "2k", "--population", "8", "--generations", "3",
            "--top", "3",
            "--mutations", "4", "--crossovers", "4", "--batch-size", "5", "--device", "cpu",
        ] + more
    }

    private func lines(_ folder: URL) throws -> [JSONValue] {
        String(decoding: try folder.bytes("run/search/search.jsonl"), as: UTF8.self).split(separator: "\n")
            .map {
                try! JSONValue(parsing: $0.utf8)
            }
    }

    @Test(
        "A search leaves its best path, its front, its adapter and every candidate",
        arguments: ["original", "evolution", "nsga2", "random"])
    func searches(_ algorithm: String) throws {
        try Fixture.withFolder { folder in
            let json = try Glora.succeed(search("--algorithm", algorithm, "--json"), in: folder).json()
            let parameters = try #require(json["parameters"]?.integerValue)
            #expect(parameters <= 2000 && json["judged"]?.integerValue == 32)
            let lines = try lines(folder)
            #expect(lines.count { $0["judged"] != nil } == 32)
            #expect(lines.count { $0["generation"] != nil } == 4)
            #expect(lines[0]["search"]?["maxParameters"]?.integerValue == 2000)
            let found = try JSONValue(
                contentsOf: folder.appendingPathComponent("run/search/architecture.json"))
            #expect(found["layers"]?.objectValue?.count == 8)
            #expect(found["parameters"]?.integerValue == parameters)
            #expect(found["fitnessSplit"]?.stringValue == "val")
            let accuracies = lines.compactMap { $0["judged"]?["score"]?["accuracy"]?.numberValue }
            let losses = lines.compactMap { $0["judged"]?["score"]?["loss"]?.numberValue }
            let (best, least) = (try #require(accuracies.max()), try #require(losses.min()))
            if algorithm == "original" {
                #expect(found["accuracy"]?.numberValue == best)
                #expect(found["fitness"]?.stringValue == "accuracy")
            } else {
                #expect(found["loss"]?.numberValue == least && found["fitness"]?.stringValue == "loss")
            }

            // The run at this path, the adapter alone and the merged model score what the search said, once, on the test split.
            let summary = try JSONValue(contentsOf: folder.appendingPathComponent("run/search/summary.json"))
            let correct = summary["test"]?["correct"]?.integerValue
            #expect(correct != nil)
            let architecture = ["--architecture", "run/search/architecture.json"]
            try Glora.succeed(
                ["merge", "--run", "run", "--output", "merged.safetensors", "--device", "cpu"] + architecture,
                in: folder)
            for source in [
                ["--run", "run"] + architecture, ["--model", "model", "--adapter", "run/search/adapter"],
                ["--model", "merged.safetensors"],
            ] {
                let score = try Glora.succeed(
                    ["eval", "--data", "task", "--device", "cpu", "--json"] + source, in: folder
                ).json()
                #expect(score["correct"]?.integerValue == correct, "\(source)")
            }
            let front =
                try JSONValue(contentsOf: folder.appendingPathComponent("run/search/front.json")).arrayValue
                ?? []
            #expect(front.last?["accuracy"]?.numberValue == best)
            #expect(
                front.compactMap { $0["parameters"]?.integerValue }
                    == front.compactMap { $0["parameters"]?.integerValue }.sorted())
        }
    }

    @Test("Short trainings of the best and of uniform paths choose what they train best")
    func refines() throws {
        try Fixture.withFolder { folder in
            let flags = search("--refine", "3", "--refine-epochs", "2", "--refine-lr", "3e-2")
            try Glora.succeed(flags, in: folder)
            let refined = try lines(folder).compactMap { $0["refined"] }
            #expect(refined.count == 6)
            #expect(Set(refined.compactMap { $0["candidate"]?.stringValue }).count == 6)
            #expect(refined.allSatisfy { $0["parameters"]?.integerValue ?? .max <= 2000 })
            // A layer has five digits; those of a uniform path agree in all eight.
            let uniform = refined.compactMap { $0["candidate"]?.stringValue }.filter { text in
                let digits = Array(text)
                return (5..<digits.count).allSatisfy { digits[$0] == digits[$0 - 5] }
            }
            #expect(uniform.count >= 3)
            // The most accurate, of equals the lowest loss, of equals the fewest parameters.
            func score(_ name: String, _ judged: JSONValue) -> Double {
                judged["score"]?[name]?.numberValue ?? .nan
            }
            let most = refined.map { score("accuracy", $0) }.max()
            let accurate = refined.filter { score("accuracy", $0) == most }
            let losses = accurate.map { score("loss", $0) }
            let found = try JSONValue(
                contentsOf: folder.appendingPathComponent("run/search/architecture.json"))
            #expect(found["refined"]?["loss"]?.numberValue == losses.min())
            let best = accurate.filter { $0["score"]?["loss"]?.numberValue == losses.min() }
            let fewest = best.compactMap { $0["parameters"]?.integerValue }.min()
            #expect(found["parameters"]?.integerValue == fewest && fewest != nil)
            // The supernet's tensors are as they were: its own score of what was chosen is another one.
            #expect(found["loss"]?.numberValue != losses.min())
            for source in [
                ["--run", "run", "--architecture", "run/search/architecture.json"],
                ["--model", "model", "--data", "task", "--adapter", "run/search/adapter"],
            ] {
                let score = try Glora.succeed(
                    ["eval", "--split", "val", "--device", "cpu", "--json"] + source, in: folder
                ).json()
                #expect(abs(try score.number("loss") - (found["loss"]?.numberValue ?? .nan)) < 1e-5)
            }
        }
    }

    @Test(
        "A search that was killed goes on exactly where it was, even within a line",
        arguments: [[], ["--refine", "2", "--refine-epochs", "1"]])
    func resumes(_ refining: [String]) throws {
        try Fixture.withFolder { folder in
            let flags = search("--algorithm", "original") + refining
            try Glora.succeed(flags, in: folder)
            let search = folder.appendingPathComponent("run/search")
            let (journal, architecture) = (
                String(decoding: try folder.bytes("run/search/search.jsonl"), as: UTF8.self),
                try folder.bytes("run/search/architecture.json")
            )
            func untimed(_ text: String) -> [String] {
                text.split(separator: "\n").map {
                    String($0.replacing(/"seconds":[0-9.e-]+/, with: "\"seconds\":0"))
                }
            }
            for bytes in [journal.utf8.count - 40, journal.utf8.count / 2, journal.utf8.count / 4] {
                try FileManager.default.removeItem(at: search)
                try folder.write("run/search/search.jsonl", Data(journal.utf8.prefix(bytes)))
                try Glora.succeed(flags + ["--resume"], in: folder)
                let resumed = String(decoding: try folder.bytes("run/search/search.jsonl"), as: UTF8.self)
                #expect(untimed(resumed) == untimed(journal), "cut after \(bytes) bytes")
                #expect(try folder.bytes("run/search/architecture.json") == architecture)
            }
            // Neither without --resume nor with other settings.
            try Glora.refuse(flags, in: folder, saying: ["already holds a search", "--resume"])
            try Glora.refuse(flags + ["--resume", "--seed", "2"], in: folder, saying: ["other settings"])
        }
    }

    @Test("What can't be searched is an error of a sentence, and leaves no search behind")
    func refusals() throws {
        try Fixture.withFolder { folder in
            let flags = ["search", "--run", "run", "--device", "cpu", "--max-params"]
            try Glora.refuse(
                flags + ["9M", "--min-params", "8M"], in: folder,
                saying: ["8000000 to 9000000", "the smallest has 0, the largest"])
            try Glora.refuse(flags + ["many"], in: folder, code: 64, saying: ["many"])
            try Glora.refuse(
                flags + ["1k", "--min-params", "2k"], in: folder, code: 64, saying: ["--min-params"])
            try Glora.refuse(flags + ["1k", "--fitness-split", "nowhere"], in: folder, saying: ["nowhere"])
            try Glora.refuse(
                flags + ["1k", "--resume"], in: folder,
                saying: ["no search to go on with; run glora search without --resume"])
            #expect(!folder.exists("run/search"))
        }
    }

    @Test("What was found is trained on from the supernet's tensors or from fresh ones, as an ordinary run")
    func finetunes() throws {
        try Fixture.withFolder { folder in
            try Glora.succeed(search(), in: folder)
            let found = try JSONValue(
                contentsOf: folder.appendingPathComponent("run/search/architecture.json"))
            func finetune(_ output: String, _ more: String...) throws -> JSONValue {
                try Glora.succeed(
                    [
                        "finetune", "--run", "run", "--output", output, "--epochs", "1", "--warmup-epochs",
                        "0", "--device", "cpu", "--json",
                    ] + more, in: folder
                ).json()
            }
            // Steps too small to change anything: what was found itself.
            let still = try finetune("still", "--lr", "1e-12", "--weight-decay", "0")
            #expect(still["valAccuracy"]?.numberValue == found["accuracy"]?.numberValue)
            #expect(still["adapterParameters"]?.integerValue == found["parameters"]?.integerValue)
            let score = try Glora.succeed(
                [
                    "eval", "--run", "still", "--checkpoint", "last", "--split", "val", "--device", "cpu",
                    "--json",
                ], in: folder
            ).json()
            let loss = try #require(found["loss"]?.numberValue)
            #expect(try abs(score.number("loss") - loss) < 1e-5)
            let scratch = try finetune("scratch", "--from", "scratch", "--lr", "1e-12", "--weight-decay", "0")
            #expect(scratch["adapterParameters"]?.integerValue == found["parameters"]?.integerValue)
            let fresh = try Glora.succeed(
                [
                    "eval", "--run", "scratch", "--checkpoint", "last", "--split", "val", "--device", "cpu",
                    "--json",
                ], in: folder
            ).json()
            #expect(try abs(fresh.number("loss") - loss) > 1e-3)
            try Glora.refuse(
                ["finetune", "--run", "run", "--output", "still", "--device", "cpu"], in: folder,
                saying: ["already holds a run"])
            try Glora.refuse(
                ["finetune", "--run", "run", "--architecture", "task/test.txt", "--output", "other"],
                in: folder, saying: ["no architecture; give the architecture.json of a glora search"])
        }
    }

    @Test("An ablation scores what was found without each of the five, and the search without them")
    func ablates() throws {
        try Fixture.withFolder { folder in
            try Glora.refuse(
                ["ablate", "--run", "run", "--device", "cpu"], in: folder, saying: ["glora search"])
            try Glora.succeed(search(), in: folder)
            let json = try Glora.succeed(["ablate", "--run", "run", "--device", "cpu", "--json"], in: folder)
                .json()
            let found = try JSONValue(
                contentsOf: folder.appendingPathComponent("run/search/architecture.json"))
            let entries = json["found"]?.arrayValue ?? []
            #expect(entries.map { $0["without"]?.stringValue } == ["", "A", "B", "C", "D", "E"])
            #expect(entries[0]["accuracy"]?.numberValue == found["accuracy"]?.numberValue)
            #expect(entries[0]["parameters"]?.integerValue == found["parameters"]?.integerValue)
            // Without B: the score that a path file says, which has none.
            for (entry, key) in zip(entries.dropFirst(), ["A", "B", "C", "D", "E"]) {
                var layers: [String: JSONValue] = found["layers"]?.objectValue ?? [:]
                layers = layers.mapValues { layer in
                    .object((layer.objectValue ?? [:]).merging([key: .string("none")]) { $1 })
                }
                try folder.write("path.json", Data(JSONValue.object(layers).text().utf8))
                let score = try Glora.succeed(
                    [
                        "eval", "--run", "run", "--checkpoint", "last", "--path", "path.json", "--split",
                        "val",
                        "--device", "cpu", "--json",
                    ], in: folder
                ).json()
                #expect(score["accuracy"]?.numberValue == entry["accuracy"]?.numberValue, "without \(key)")
                #expect(try abs(score.number("loss") - entry.number("loss")) < 1e-5)
            }
            let searched = json["searched"]?.arrayValue ?? []
            #expect(searched.map { $0["without"]?.stringValue } == ["A", "B", "C", "D", "E"])
            for entry in searched { #expect(try entry.number("parameters") <= 2000) }
            #expect(folder.exists("run/search/ablation.json"))
        }
    }

    @Test(
        "A report is one page that needs nothing else, with what was found, what it took and how to make it again"
    )
    func reports() throws {
        try Fixture.withFolder { folder in
            func page(_ arguments: String...) throws -> String {
                try Glora.succeed(["report", "--run", "run"] + arguments, in: folder)
                return String(decoding: try folder.bytes("run/report.html"), as: UTF8.self)
            }
            // A run without a search has its curves.
            let plain = try page()
            #expect(plain.contains("<polyline") && !plain.contains("What was found"))
            try Glora.succeed(search("--algorithm", "nsga2", "--mutation-probability", "0.1"), in: folder)
            try Glora.succeed(["ablate", "--run", "run", "--device", "cpu", "--no-searches"], in: folder)
            try Glora.succeed(
                ["finetune", "--run", "run", "--output", "tuned", "--device", "cpu", "--epochs", "2"],
                in: folder)
            let whole = try page("--with", "tuned")
            for forbidden in ["http:", "https:", "<script", "src=", "@import", "url("] {
                #expect(!whole.contains(forbidden), "\(forbidden)")
            }
            let found = try JSONValue(
                contentsOf: folder.appendingPathComponent("run/search/architecture.json"))
            let parameters = try #require(found["parameters"]?.integerValue)
            #expect(
                whole.contains("What was found: \(parameters == 0 ? "0" : grouped(parameters)) parameters"))
            // Each layer's row has its five forms, in module order.
            var place = whole.startIndex
            for block in 0..<2 {
                for site in ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"] {
                    let name = "blocks.\(block).\(site)"
                    let forms = ["A", "B", "C", "D", "E"].map {
                        found["layers"]?[name]?[$0]?.stringValue ?? "?"
                    }
                    let row = try #require(whole.range(of: "<td>\(name)</td>", range: place..<whole.endIndex))
                    place = row.upperBound
                    let cells = whole[place...].prefix(400).matches(of: /<td class="[a-zA-Z]+">([^<]*)</)
                        .prefix(5)
                    #expect(cells.map { String($0.output.1) } == forms, "\(name)")
                }
            }
            #expect(
                whole.contains("--mutation-probability 0.1 ") || whole.contains("--mutation-probability 0.1<")
            )
            #expect(whole.contains("--algorithm nsga2") && whole.contains("without A"))
            #expect(
                whole.contains(
                    /<td>tuned<\/td><td>architecture.json<\/td><td>[0-9]+ s<\/td><td>[1-9][0-9]* MiB<\/td>/))
            let front = try JSONValue(contentsOf: folder.appendingPathComponent("run/search/front.json"))
            let dots = whole.components(separatedBy: "<circle class=\"dot").count - 1
            #expect(try dots == lines(folder).count { $0["judged"]?["score"] != nil })
            #expect(front.arrayValue?.isEmpty == false)
        }
    }

    private func grouped(_ number: Int) -> String {
        number < 1000 ? "\(number)" : "\(number / 1000)," + String("\(1000 + number % 1000)".dropFirst())
    }

    @Test("A search on the test split says so wherever its result is")
    func testSplit() throws {
        try Fixture.withFolder { folder in
            let outcome = try Glora.succeed(search("--fitness-split", "test", "--json"), in: folder)
            #expect(outcome.errors.contains("no result"))
            #expect(try outcome.json()["fitnessSplit"]?.stringValue == "test")
            for file in ["architecture.json", "front.json"] {
                let json = try JSONValue(contentsOf: folder.appendingPathComponent("run/search/\(file)"))
                #expect((json.arrayValue?.first ?? json)["fitnessSplit"]?.stringValue == "test")
            }
        }
    }
}
