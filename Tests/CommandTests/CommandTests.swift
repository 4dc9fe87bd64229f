import Checkpoints
import Foundation
import Testing

@Suite("The command line")
struct CommandTests {
    @Test(
        "Every command has --help with an example that fits a terminal",
        arguments: [
            "train", "eval", "merge", "devices", "selftest", "pretrain", "demo", "bench", "bench step",
            "compare", "shift", "vtab", "fewshot", nil,
        ])
    func help(_ command: String?) throws {
        let outcome = try Glora.succeed(
            (command ?? "").split(separator: " ").map(String.init) + ["--help"],
            in: FileManager.default.temporaryDirectory)
        let lines = outcome.output.split(separator: "\n", omittingEmptySubsequences: false)
        let example = try #require(lines.firstIndex(of: "Example:"))
        #expect(lines[example + 1].hasPrefix("  glora \(command ?? "train")"))
        // A line that the terminal's width broke would have lost its indentation.
        let rest = lines[(example + 1)...].prefix { !$0.isEmpty }
        #expect(rest.allSatisfy { $0.hasPrefix("  glora ") }, "\(rest)")
        #expect(outcome.output.contains("--json") || command == nil || command == "bench")
        #expect(outcome.errors.isEmpty)
    }

    @Test("devices lists the CPU backend first, and each device with the name that --device takes")
    func devices() throws {
        let folder = FileManager.default.temporaryDirectory
        let json = try Glora.succeed(["devices", "--json"], in: folder).json()
        let devices = try #require(json["devices"]?.arrayValue)
        #expect(devices.first?["device"]?.stringValue == "cpu")
        for (index, device) in devices.enumerated() {
            #expect(
                try device.keys().subtracting(index == 0 ? [] : ["details"]) == [
                    "device", "name", "platform", "driver", "kind", "memoryBytes", "computeUnits",
                    "matrixEngines", "untriedEngines", "failedEngines",
                ])
            #expect(try device.number("memoryBytes") > 0 && device.number("computeUnits") > 0)
            if index > 0 { #expect(device["device"]?.stringValue == "opencl:\(index - 1)") }
        }
        #expect(try Glora.succeed(["devices"], in: folder).output.contains("OpenBLAS"))
    }

    @Test("selftest proves the CPU backend by the built-in vectors")
    func selftest() throws {
        let outcome = try Glora.succeed(
            ["selftest", "--device", "cpu", "--json"], in: FileManager.default.temporaryDirectory)
        let json = try outcome.json()
        #expect(try json.keys() == ["schema", "passed", "failed", "failures"])
        #expect(try json.number("passed") >= 10 && json["failed"]?.integerValue == 0)
        let lines = outcome.errors.split(separator: "\n").filter { $0.hasPrefix("pass ") }
        #expect(lines.count == json["passed"]?.integerValue)
    }

    @Test("pretrain writes a model that train takes")
    func pretrain() throws {
        try Fixture.withFolder { folder in
            let json = try Glora.succeed(
                [
                    "pretrain", "--output", "p.safetensors", "--width", "16", "--depth", "1", "--heads", "2",
                    "--hidden-width", "16", "--images", "32", "--epochs", "1", "--batch-size", "32",
                    "--device",
                    "cpu", "--json",
                ], in: folder
            ).json()
            #expect(try json.keys() == ["schema", "output", "bytes", "valAccuracy", "seconds"])
            #expect(json["bytes"]?.integerValue == (try folder.bytes("p.safetensors")).count)
            try Glora.succeed(Fixture.train("a", "--model", "p.safetensors", "--epochs", "1"), in: folder)
        }
    }

    // MARK: eval and merge

    private func score(_ arguments: [String], in folder: URL) throws -> JSONValue {
        let json = try Glora.succeed(["eval", "--device", "cpu", "--json"] + arguments, in: folder).json()
        #expect(
            try json.keys() == [
                "schema", "accuracy", "loss", "count", "correct", "split", "topK", "topKAccuracy", "macroF1",
                "classes", "confusionMatrix", "mostConfused",
            ])
        return json
    }

    @Test("eval scores a run at its best or last state, at another path, on any split, on either layout")
    func evaluates() throws {
        try Fixture.withFolder { folder in
            let test = try score(["--run", "run"], in: folder)
            #expect(test["count"]?.integerValue == 12 && test["split"]?.stringValue == "test")
            let accuracy = try test.number("accuracy")
            #expect(try accuracy == test.number("correct") / 12 && accuracy > 0.8)
            // The same images in another order: on some processors a product rounds by the place in the batch.
            let folders = try score(["--run", "run", "--data", "folders"], in: folder)
            #expect(folders["correct"] == test["correct"] && folders["count"] == test["count"])
            #expect(try abs(folders.number("loss") - test.number("loss")) < 1e-6)
            #expect(
                try score(["--run", "run", "--batch-size", "5"], in: folder)["correct"] == test["correct"])
            let validation = try score(
                ["--run", "run", "--split", "val", "--checkpoint", "last"], in: folder)
            let metrics = String(decoding: try folder.bytes("run/metrics.jsonl"), as: UTF8.self)
            let last = try JSONValue(parsing: #require(metrics.split(separator: "\n").last).utf8)
            #expect(validation["accuracy"]?.numberValue == last["valAccuracy"]?.numberValue)
            #expect(try score(["--run", "run", "--path", "none"], in: folder)["loss"] != test["loss"])
        }
    }

    @Test("A run, its adapter on the base, and its merged model in each form score the same")
    func merges() throws {
        try Fixture.withFolder { folder in
            let expected = try score(["--run", "run"], in: folder)
            func expectSame(_ arguments: [String]) throws {
                let json = try score(arguments + ["--data", "task"], in: folder)
                #expect(json["correct"] == expected["correct"])
                let difference = try json.number("loss") - expected.number("loss")
                #expect(abs(difference) < 1e-4, "\(arguments)")
            }
            try expectSame(["--model", "model", "--adapter", "run/adapter"])
            for (output, flags) in [
                ("merged.safetensors", []), ("merged", []), ("merged-hf", ["--format", "hf"]),
            ] {
                let outcome = try Glora.succeed(
                    ["merge", "--run", "run", "--output", output, "--device", "cpu", "--json"] + flags,
                    in: folder)
                let json = try outcome.json()
                #expect(try json.keys() == ["schema", "output", "maxLogitDifference", "comparedImages"])
                #expect(try json.number("maxLogitDifference") < 1e-3)
                #expect(json["comparedImages"]?.integerValue == 12)
                #expect(outcome.errors.contains("logits differ by at most"))
                try expectSame(["--model", output])
                let merged = try ViTCheckpoint.load(folder.appendingPathComponent(output))
                let base = try ViTCheckpoint.load(folder.appendingPathComponent("model"))
                #expect(merged.withoutHead().configuration == base.configuration)
                #expect(merged.configuration.classCount == 3)
                #expect(
                    merged.tensors["blocks.0.attn.qkv.weight"] != base.tensors["blocks.0.attn.qkv.weight"])
            }
            let config = try JSONValue(contentsOf: folder.appendingPathComponent("merged-hf/config.json"))
            #expect(config["model_type"]?.stringValue == "vit")
            #expect(config["architectures"]?.arrayValue == ["ViTForImageClassification"])
            let adapter = try JSONValue(
                contentsOf: folder.appendingPathComponent("run/adapter/adapter_config.json"))
            #expect(adapter["peft_type"]?.stringValue == "GLORA")
            #expect(adapter["glora_layer_configs"]?["blocks.1.mlp.fc2"]?["A"]?.stringValue == "LoRA_4")
            // An adapter on its base merges to the same bytes as the run.
            try Glora.succeed(
                [
                    "merge", "--model", "model", "--adapter", "run/adapter", "--data", "task", "--output",
                    "other.safetensors", "--device", "cpu",
                ], in: folder)
            #expect(try folder.bytes("other.safetensors") == folder.bytes("merged.safetensors"))
        }
    }

    @Test(
        "merge doesn't write over the model that the run stands on",
        arguments: ["model", "model/model.safetensors"])
    func mergeOntoBase(_ output: String) throws {
        try Fixture.withFolder { folder in
            try Fixture.own("model", in: folder)
            let before = try folder.bytes("model/model.safetensors")
            try Glora.refuse(
                ["merge", "--run", "run", "--output", output, "--device", "cpu"], in: folder, code: 64,
                saying: [output, "base model", "another name"])
            #expect(try folder.bytes("model/model.safetensors") == before)
        }
    }
}
