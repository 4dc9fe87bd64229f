import Foundation
import Testing

@Suite("--precision on the command line")
struct PrecisionCommandTests {
    /// A run of three epochs on PoCL: the later of two equal flags counts.
    private func train(_ run: String, _ more: String...) -> [String] {
        Fixture.train(run, "--path", "full", "--device", "opencl:0") + more
    }

    @Test("A run keeps its precision, goes on in it, is scored in any, and merges in float32 alone")
    func run() throws {
        try Fixture.withFolder { folder in
            try Glora.succeed(train("half", "--precision", "bfloat16"), in: folder)
            let config = try String(
                contentsOf: folder.appendingPathComponent("half/config.yaml"), encoding: .utf8)
            #expect(config.contains("precision: bfloat16"))
            let resume = ["train", "--run", "half", "--resume", "--device", "opencl:0"]
            let resumed = try Glora.succeed(resume, in: folder)
            #expect(resumed.errors.contains("bfloat16") || resumed.output.contains("bfloat16"))
            // An engine that passed its probe is named.
            let probe = try Glora.run(["probe", "--device", "opencl:0", "--engine", "1"], in: folder)
            #expect(
                (probe.exitCode == 0 && probe.signal == nil)
                    == (resumed.errors + resumed.output).contains("bfloat16 by "))
            try Glora.refuse(
                resume + ["--precision", "float32"], in: folder, code: 64,
                saying: ["--precision differs from the run's own setting"])
            var accuracies: [Double] = []
            for precision in ["float32", "bfloat16", "float16"] {
                let json = try Glora.succeed(
                    [
                        "eval", "--run", "half", "--split", "test", "--device", "opencl:0", "--precision",
                        precision, "--json",
                    ], in: folder
                ).json()
                accuracies.append(try #require(json["accuracy"]?.numberValue))
            }
            // One of twelve images may lie on the border between two classes.
            #expect(accuracies.allSatisfy { abs($0 - accuracies[0]) < 0.1 && $0 > 0.5 }, "\(accuracies)")
            for command in ["merge", "convert"] {
                try Glora.refuse(
                    [
                        command, "--run", "half", "--output", "out", "--device", "opencl:0", "--precision",
                        "bfloat16",
                    ] + (command == "convert" ? ["--to", "glora"] : []), in: folder, code: 64,
                    saying: ["--precision bfloat16", "float32"])
            }
        }
    }

    @Test("A run of another method trains, goes on and is scored in 16 bits", arguments: ["lora", "full"])
    func method(_ method: String) throws {
        try Fixture.withFolder { folder in
            let rate = method == "full" ? "1e-3" : "1e-2"
            try Glora.succeed(
                [
                    "train", "--model", "model", "--data", "task", "--run", "half", "--method", method,
                    "--device",
                    "opencl:0", "--batch-size", "8", "--epochs", "3", "--warmup-epochs", "1", "--lr", rate,
                    "--precision", "bfloat16",
                ], in: folder)
            try Glora.succeed(["train", "--run", "half", "--resume", "--device", "opencl:0"], in: folder)
            let losses = try ["float32", "bfloat16"].map { precision in
                let json = try Glora.succeed(
                    [
                        "eval", "--run", "half", "--split", "test", "--device", "opencl:0", "--precision",
                        precision, "--json",
                    ], in: folder
                ).json()
                return try #require(json["loss"]?.numberValue)
            }
            #expect(losses[0] != losses[1] && abs(losses[0] - losses[1]) < 0.05 * losses[0], "\(losses)")
        }
    }

    @Test("A comparison in 16 bits measures what its merged models cost")
    func compare() throws {
        try Fixture.withFolder { folder in
            let json = try Glora.succeed(
                [
                    "compare", "--data", "task", "--model", "model", "--methods", "glora:full,lora,full",
                    "--seeds",
                    "1", "--device", "opencl:0", "--precision", "bfloat16", "--batch-size", "8", "--epochs",
                    "2", "--lr", "1e-2", "--output", "out", "--json",
                ], in: folder
            ).json()
            let rows = try #require(json["rows"]?.arrayValue)
            #expect(rows.count == 3 && rows.allSatisfy { $0["inference"]?["isMerged"] == true })
        }
    }

    @Test(
        "What computes in float32 alone says so",
        arguments: [
            (["--device", "cpu", "--precision", "bfloat16"], "needs an OpenCL device"),
            (["--precision", "bfloat8"], "bfloat8"),
        ])
    func refused(flags: [String], word: String) throws {
        try Fixture.withFolder { folder in
            try Glora.refuse(
                ["train", "--model", "model", "--data", "task", "--run", "new", "--device", "opencl:0"]
                    + flags,
                in: folder, code: 64, saying: [word])
            #expect(!folder.exists("new"))
        }
    }
}
