import Checkpoints
import Foundation
import Testing

@Suite("The benchmarks")
struct BenchTests {
    private func bench(_ arguments: String...) throws -> JSONValue {
        let flags = ["--model", "vit_tiny_patch16_224", "--batch", "1", "--json"]
        return try Glora.succeed(
            ["bench"] + arguments + flags, in: FileManager.default.temporaryDirectory
        ).json()
    }

    private func expectPositive(_ json: JSONValue, _ keys: String...) throws {
        #expect(try json.keys().subtracting(["rows"]) == Set(keys))
        for key in keys { #expect(try json.number(key) > 0, "\(key) in \(json)") }
    }

    @Test(
        "bench step says images a second, seconds and peak memory, under every policy and on either backend",
        arguments: [
            ["--device", "cpu"], ["--device", "opencl:0"],
            ["--device", "cpu", "--memory", "low", "--method", "full"],
        ])
    func step(_ flags: [String]) throws {
        let json = try Glora.succeed(
            ["bench", "step", "--model", "vit_tiny_patch16_224", "--batch", "1", "--steps", "1", "--json"]
                + flags,
            in: FileManager.default.temporaryDirectory
        ).json()
        try expectPositive(json, "seconds", "imagesPerSecond", "shareOfRoof", "peakBytes")
        let product = try json.number("seconds") * json.number("imagesPerSecond")
        #expect(abs(product - 1) < 1e-6)
        // 5.5 million parameters and their four copies of float32 in the trained ones, at least.
        #expect(try json.number("peakBytes") > 22e6)
    }

    @Test("bench inference says images a second")
    func inference() throws {
        try expectPositive(
            try bench("inference", "--device", "cpu"), "seconds", "imagesPerSecond", "shareOfRoof",
            "peakBytes")
    }

    @Test(
        "bench layernorm and attention have a row for each direction",
        arguments: ["layernorm", "attention"])
    func operations(_ name: String) throws {
        let json = try bench(name, "--device", "cpu")
        try expectPositive(json, "seconds", "gflops", "gbps", "shareOfRoof")
        let rows = try #require(json["rows"]?.arrayValue)
        #expect(rows.compactMap { $0["name"]?.stringValue } == ["forward", "backward"])
        let sum = try rows.reduce(0) { try $0 + $1.number("seconds") }
        #expect(abs(sum - (try json.number("seconds"))) < 1e-9)
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
