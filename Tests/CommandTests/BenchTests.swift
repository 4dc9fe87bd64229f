import Checkpoints
import Foundation
import Testing

@Suite("The benchmarks")
struct BenchTests {
    /// The result of a benchmark of a ViT-Ti/16 with two images, with these keys and no others: finite numbers above 0, and no more
    /// seconds than the whole command has taken.
    private func bench(_ arguments: [String], _ keys: String...) throws -> JSONValue {
        let start = ContinuousClock.now
        let json = try Glora.succeed(
            ["bench"] + arguments + ["--model", "vit_tiny_patch16_224", "--batch", "2", "--json"],
            in: FileManager.default.temporaryDirectory
        ).json()
        let took = ContinuousClock.now - start
        #expect(try json.keys().subtracting(["schema", "rows"]) == Set(keys + ["roofs"]))
        for key in ["gflops", "gbps"] { #expect(try #require(json["roofs"]).number(key) > 0) }
        for object in [json] + (json["rows"]?.arrayValue ?? []) {
            for key in keys {
                let number = try object.number(key)
                #expect(number > 0 && number.isFinite, "\(key) in \(object)")
            }
        }
        #expect(.seconds(try json.number("seconds")) < took)
        return json
    }

    /// Two images take the seconds, and their model with its ten classes the bytes: 5.5 million parameters of 4 bytes at least.
    private func expectImages(_ json: JSONValue) throws {
        let images = try json.number("seconds") * json.number("imagesPerSecond")
        #expect(abs(images - 2) < 1e-6)
        let bytes = try json.number("peakBytes")
        #expect(bytes > 22e6 && bytes < 2e9)
    }

    @Test(
        "bench step says images a second, seconds and peak memory, under every policy and on either backend",
        arguments: [
            ["--device", "cpu"], ["--device", "opencl:0"],
            ["--device", "cpu", "--memory", "low", "--method", "full"],
        ])
    func step(_ flags: [String]) throws {
        try expectImages(
            try bench(
                ["step", "--steps", "1"] + flags, "seconds", "imagesPerSecond", "shareOfRoof", "peakBytes"))
    }

    @Test("bench inference says images a second")
    func inference() throws {
        try expectImages(
            try bench(
                ["inference", "--device", "cpu"], "seconds", "imagesPerSecond", "shareOfRoof", "peakBytes"))
    }

    /// By hand: 2 · 197 rows of 192 values, of which LayerNorm makes 8 operations each, its backward 12; 2 · 3 · 197² scores of
    /// heads of 64, of 4 · 64 + 5 and 10 · 64 + 6 operations; RMSNorm 4 and 9; 394 rows of 96 pairs, turned with 6; 394 rows of 768
    /// hidden values with 11 and 15. Bytes are those of the tensors, read or written once.
    @Test(
        "bench of an operation has a row for each direction, whose operations and bytes are those of the tensors",
        arguments: [
            ("layernorm", [8 * 75_648, 12 * 75_648], [4 * 152_468, 4 * 303_572]),
            ("rmsnorm", [4 * 75_648, 9 * 75_648], [4 * 151_882, 4 * 303_178]),
            ("rotate", [6 * 37_824, 6 * 37_824], [4 * 176_906, 4 * 176_906]),
            ("gate", [11 * 302_592, 15 * 302_592], [12 * 302_592, 20 * 302_592]),
            ("attention", [261 * 232_854, 646 * 232_854], [4 * 303_774, 4 * 606_366]),
        ])
    func operations(_ name: String, _ flops: [Int], _ bytes: [Int]) throws {
        let json = try bench([name, "--device", "cpu"], "seconds", "gflops", "gbps", "shareOfRoof")
        let rows = try #require(json["rows"]?.arrayValue)
        #expect(rows.compactMap { $0["name"]?.stringValue } == ["forward", "backward"])
        /// What a rate comes to in its time.
        func amounts(_ key: String) throws -> [Double] {
            try (rows + [json]).map { try $0.number(key) * $0.number("seconds") }
        }
        for (key, expected) in [("gflops", flops), ("gbps", bytes)] {
            for (amount, truth) in zip(try amounts(key), expected + [expected[0] + expected[1]]) {
                #expect(abs(1e9 * amount / Double(truth) - 1) < 1e-6, "\(key) in \(json)")
            }
        }
        let seconds = try (rows + [json]).map { try $0.number("seconds") }
        #expect(abs(seconds[0] + seconds[1] - seconds[2]) < 1e-9)
        // A share of a roof, times the seconds, is the least that an operation could take: of both no more than of each in turn.
        let least = try amounts("shareOfRoof")
        #expect(least[2] <= 1.000_001 * (least[0] + least[1]) && least[2] > max(least[0], least[1]))
    }

    @Test("bench takes a model's file, at another size")
    func files() throws {
        try Fixture.withFolder { folder in
            for (command, size) in [("step", "32"), ("inference", "24"), ("gemm", "16")] {
                let flags = ["--model", "model", "--image-size", size, "--batch", "2"]
                let json = try Glora.succeed(
                    ["bench", command, "--device", "cpu", "--json"] + flags, in: folder
                ).json()
                #expect(try json.number("seconds") > 0)
            }
            try Glora.refuse(
                ["bench", "step", "--device", "cpu", "--model", "model", "--image-size", "17"],
                in: folder, code: 1, saying: ["17"])
        }
    }

    @Test("bench refuses a model, a batch and a count of steps that can't be")
    func refusals() throws {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("glora-bench-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let device = ["--device", "cpu"]
        for command in ["step", "gemm", "inference"] {
            try Glora.refuse(
                ["bench", command, "--model", "resnet50"] + device, in: folder, code: 64,
                saying: ["resnet50", "vit_tiny", "vit_base_patch16_224"])
        }
        try Glora.refuse(
            ["bench", "step", "--batch", "0"] + device, in: folder, code: 64, saying: ["--batch"])
        try Glora.refuse(
            ["bench", "step", "--steps", "0"] + device, in: folder, code: 64, saying: ["--steps"])
        try Glora.refuse(
            ["bench", "step", "--memory", "none"] + device, in: folder, code: 64, saying: ["none"])
    }

    @Test("train takes every --memory, and the run is the same")
    func memory() throws {
        try Fixture.withFolder { folder in
            var metrics: [String] = []
            for policy in ["low", "balanced", "fast"] {
                try Glora.succeed(
                    Fixture.train(policy, "--memory", policy, "--epochs", "1", "--warmup-epochs", "0"),
                    in: folder)
                let text = String(decoding: try folder.bytes("\(policy)/metrics.jsonl"), as: UTF8.self)
                let line = text.split(separator: "\n").first { $0.contains("trainLoss") }
                let epoch = try JSONValue(parsing: #require(line).utf8)
                metrics.append("\(try epoch.number("trainLoss"))")
                let settings = String(decoding: try folder.bytes("\(policy)/config.yaml"), as: UTF8.self)
                #expect(settings.contains("memory: \(policy)"))
            }
            #expect(Set(metrics).count == 1, "\(metrics)")
            try Glora.refuse(
                Fixture.train("more", "--memory", "huge"), in: folder, code: 64, saying: ["huge"])
        }
    }
}
