import Foundation
import Testing

/// `--precision` on the command line.
@Suite struct PrecisionCommandTests {
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

    @Test("A comparison in 16 bits measures what its merged models cost")
    func compare() throws {
        try Fixture.withFolder { folder in
            let json = try Glora.succeed(
                [
                    "compare", "--data", "task", "--model", "model", "--methods", "glora:full", "--seeds",
                    "1", "--device", "opencl:0", "--precision", "bfloat16", "--batch-size", "8", "--epochs",
                    "2", "--lr", "1e-2", "--output", "out", "--json",
                ], in: folder
            ).json()
            let row = try #require(json["rows"]?.arrayValue?.first)
            #expect(row["inference"]?["isMerged"] == true)
        }
    }

    @Test(
        "What computes in float32 alone says so",
        arguments: [
            (["--device", "cpu", "--precision", "bfloat16"], "needs an OpenCL device"),
            (["--method", "lora", "--precision", "bfloat16"], "is for --method glora"),
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
