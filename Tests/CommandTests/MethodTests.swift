import Checkpoints
import Foundation
import TensorCore
import Testing

/// `train --method`, `convert`, `inspect`, and what they say of what can't be.
@Suite("Other methods on the command line")
struct MethodCommandTests {
    private func trained(_ method: String, _ more: String...) -> [String] {
        Fixture.train(method, "--method", method, "--epochs", "2") + more
    }

    @Test(
        "A run of another method converts to the GLoRA path that scores the same, and merges",
        arguments: [
            ["lora", "--rank", "3"], ["fact-tk", "--rank", "2"], ["repadapter", "--width", "4"], ["bitfit"],
            ["ssf", "--targets", "linears"],
        ])
    func converts(_ flags: [String]) throws {
        try Fixture.withFolder { folder in
            let method = flags[0]
            // Not the model's own normalisation: the converted adapter has to say so.
            try Glora.succeed(
                trained(method, "--normalize", "imagenet") + flags.dropFirst(), in: folder)
            let converted = try Glora.succeed(
                [
                    "convert", "--run", method, "--to", "glora", "--output", "as-glora", "--device", "cpu",
                    "--json",
                ],
                in: folder
            ).json()
            #expect(try converted.number("maxLogitDifference") < 1e-5)
            #expect(converted["comparedImages"]?.integerValue == 12)
            try Glora.succeed(
                ["merge", "--run", method, "--output", "merged.safetensors", "--device", "cpu"], in: folder)
            let scores = try [
                ["--run", method], ["--model", "model", "--adapter", "as-glora"],
                ["--model", "model", "--adapter", method + "/adapter"],
                ["--model", "merged.safetensors", "--normalize", "imagenet"],
            ].map {
                try Glora.succeed(
                    ["eval", "--data", "task", "--device", "cpu", "--json"] + $0, in: folder
                ).json().number("loss")
            }
            #expect(scores.allSatisfy { abs($0 - scores[0]) < 1e-5 }, "\(scores)")
        }
    }

    @Test("What no path and no weight can stand for is refused with the reason")
    func refuses() throws {
        try Fixture.withFolder { folder in
            try Glora.succeed(trained("vpt-shallow", "--lr", "0.01"), in: folder)
            let run = ["--run", "vpt-shallow", "--device", "cpu"]
            for command in [["merge", "--output", "m.safetensors"], ["convert", "--output", "c"]] {
                try Glora.refuse(
                    [command[0]] + run + command.dropFirst(), in: folder, saying: ["VPT's prompts"])
            }
            #expect(!folder.exists("m.safetensors") && !folder.exists("c"))
            try Glora.refuse(
                ["search", "--max-params", "1k"] + run, in: folder, saying: ["a run of vpt-shallow"])
            try Glora.refuse(
                ["eval", "--path", "full"] + run, in: folder, saying: ["vpt-shallow", "no paths"])
            try Glora.refuse(
                Fixture.train("x", "--method", "lora", "--path", "full"), in: folder, code: 64,
                saying: ["--path"])
            try Glora.refuse(
                Fixture.train("x", "--method", "ssf", "--rank", "3"), in: folder,
                saying: ["ssf doesn't use --rank"])
            #expect(!folder.exists("x"))
        }
    }

    @Test("inspect counts per layer and per tensor, for GLoRA and for other methods")
    func inspects() throws {
        try Fixture.withFolder { folder in
            let glora = try Glora.succeed(["inspect", "--run", "run", "--json"], in: folder).json()
            let total = try #require(glora["parameters"]?.integerValue)
            func sum(_ key: String, _ json: JSONValue) -> Int {
                json[key]?.objectValue?.values.compactMap(\.integerValue).reduce(0, +) ?? -1
            }
            #expect(sum("tensors", glora) == total && sum("layers", glora) == total)
            #expect(glora["layers"]?.objectValue?.count == 8)
            // fc1 [32, 16] at rank 4: A and B 4 · 48, C 4 · 17, D and E 32.
            #expect(glora["layers"]?["blocks.0.mlp.fc1"]?.integerValue == 2 * 192 + 68 + 64)
            #expect(glora["forms"]?["blocks.0.mlp.fc1"]?["A"]?.stringValue == "LoRA_4")
            let contained = glora["contains"]?.arrayValue?.compactMap(\.stringValue) ?? []
            #expect(contained.count == 5 && contained[0].contains("LoRA of rank up to 4"))

            try Glora.succeed(trained("adapter", "--width", "3"), in: folder)
            let adapter = try Glora.succeed(["inspect", "--run", "adapter", "--json"], in: folder).json()
            #expect(adapter["parameters"]?.integerValue == 2 * (2 * 16 * 3 + 3 + 16))
            #expect(sum("tensors", adapter) == adapter["parameters"]?.integerValue)
            #expect(sum("layers", adapter) == adapter["parameters"]?.integerValue)
            #expect(adapter["contains"]?.arrayValue?.isEmpty == true)
        }
    }

    /// PEFT's own LORA file, written here by hand: alpha, patterns, rank-stabilised scaling.
    @Test("PEFT's LoRA adapters are read with their scales")
    func peft() throws {
        try Fixture.withFolder { folder in
            let adapter = folder.appendingPathComponent("peft")
            try FileManager.default.createDirectory(at: adapter, withIntermediateDirectories: true)
            func values(_ shape: [Int], _ seed: Int) -> HostTensor {
                var random = Random(seed, "peft")
                return HostTensor(
                    shape: shape, values: (0..<shape.reduce(1, *)).map { _ in Float(random.normal()) })
            }
            let (qkv, fc2) = ("blocks.0.attn.qkv", "blocks.1.mlp.fc2")
            let tensors = [
                "base_model.model.\(qkv).lora_A.weight": values([4, 16], 1),
                "base_model.model.\(qkv).lora_B.weight": values([48, 4], 2),
                "base_model.model.\(fc2).lora_A.weight": values([2, 32], 3),
                "base_model.model.\(fc2).lora_B.weight": values([16, 2], 4),
                "base_model.model.head.weight": values([3, 16], 5),
                "base_model.model.head.bias": values([3], 6),
            ]
            try writeSafetensors(
                tensors, to: adapter.appendingPathComponent("adapter_model.safetensors"), metadata: [:])
            func loss(_ config: String) throws -> Double {
                try AtomicFile.write(config, to: adapter.appendingPathComponent("adapter_config.json"))
                return try Glora.succeed(
                    [
                        "eval", "--model", "model", "--adapter", "peft", "--data", "task", "--device", "cpu",
                        "--json",
                    ], in: folder
                ).json().number("loss")
            }
            let common =
                #""peft_type": "LORA", "bias": "none", "rank_pattern": {"fc2": 2}, "#
                + "\"target_modules\": [\"\(qkv)\", \"\(fc2)\"]"
            // alpha / r: 8 / 4 for qkv; fc2 has rank 2 and an alpha of its own.
            let plain = try loss(
                "{\(common), \"r\": 4, \"lora_alpha\": 8, \"alpha_pattern\": {\"fc2\": 4}}"
            )
            let rooted = try loss(
                "{\(common), \"r\": 4, \"lora_alpha\": 4, \"use_rslora\": true, \"alpha_pattern\": {\"mlp.fc2\": 2.8284271247}}"
            )
            #expect(abs(plain - rooted) < 1e-5)
            let weaker = try loss("{\(common), \"r\": 4, \"lora_alpha\": 2}")
            #expect(abs(plain - weaker) > 1e-3)
            for (config, words) in [
                ("{\(common), \"use_dora\": true}", "use_dora"),
                ("{\(common.replacingOccurrences(of: "none", with: "all"))}", "bias"),
            ] {
                try AtomicFile.write(config, to: adapter.appendingPathComponent("adapter_config.json"))
                try Glora.refuse(
                    [
                        "eval", "--model", "model", "--adapter", "peft", "--data", "task", "--device", "cpu",
                    ],
                    in: folder, saying: [words])
            }
        }
    }
}
