import Checkpoints
import Foundation
import Testing

@Suite("Training on the command line")
struct TrainTests {
    @Test("A run says what it does, gives its result as one object, and leaves the files that it promises")
    func result() throws {
        try Fixture.withFolder { folder in
            let outcome = try Glora.succeed(Fixture.train("a", "--json"), in: folder)
            let json = try outcome.json()
            #expect(
                try json.keys() == [
                    "schema", "run", "finished", "end", "epochs", "steps", "lastLoss", "valAccuracy",
                    "bestValAccuracy", "adapterParameters", "headParameters", "seconds", "imagesPerSecond",
                ])
            #expect(json["finished"]?.booleanValue == true && json["end"]?.stringValue == "epochs")
            #expect(json["epochs"]?.integerValue == 3 && json["steps"]?.integerValue == 12)
            // Per block at rank 4: 4 (2 · out + 3 · in + 1) + 2 · out over 48×16, 16×16, 32×16 and 16×32; head 3 × 16 + 3.
            #expect(json["adapterParameters"]?.integerValue == 4192)
            #expect(json["headParameters"]?.integerValue == 51)
            #expect((0...1).contains(try json.number("valAccuracy")))
            for words in [
                "device: cpu", "4,192 in the adapter, 51 in the head", "img/s", "epoch 3/3", "loss",
                " left", "validation accuracy",
            ] { #expect(outcome.errors.contains(words), "\(words)") }

            let run = folder.appendingPathComponent("a")
            let files = try FileManager.default.subpathsOfDirectory(atPath: run.path).sorted()
            #expect(
                files == [
                    "adapter", "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
                    "best.safetensors", "config.yaml", "last.safetensors", "metrics.jsonl", "summary.json",
                ])
            let lines = String(decoding: try run.bytes("metrics.jsonl"), as: UTF8.self).split(separator: "\n")
            let metrics = try lines.map { try JSONValue(parsing: $0.utf8) }
            #expect(metrics.compactMap { $0["step"]?.integerValue } == Array(1...12))
            #expect(metrics.filter { $0["valAccuracy"] != nil }.count == 3)
            #expect(metrics.last?["valAccuracy"] == json["valAccuracy"])
            let config = String(decoding: try run.bytes("config.yaml"), as: UTF8.self)
            for words in ["  model: model", "  path: supernet", "  batch-size: 8", "baseHash", "dataHash"] {
                #expect(config.contains(words), "\(words)")
            }
        }
    }

    @Test("Without further flags the richest path is trained alone, for as many epochs as suit the images")
    func standard() throws {
        try Fixture.withFolder { folder in
            let train = ["train", "--model", "model", "--data", "task", "--device", "cpu", "--run"]
            let json = try Glora.succeed(train + ["a", "--json"], in: folder).json()
            // 32 images are one step of 32.
            #expect(json["epochs"]?.integerValue == 50 && json["steps"]?.integerValue == 50)
            let config = String(decoding: try folder.bytes("a/config.yaml"), as: UTF8.self)
            for line in [
                "path: full", "recipe: standard", "epochs: 50", "schedule: cosine", "batch-size: 32",
            ] {
                #expect(config.contains("  \(line)\n"), "\(line)")
            }
            // Learnt, not drawn: three colours that a small model tells apart.
            #expect(try json.number("bestValAccuracy") > 0.7)
            let original = try Glora.succeed(
                train + ["b", "--recipe", "original", "--epochs", "1", "--json"], in: folder)
            #expect(try original.json()["epochs"]?.integerValue == 1)
            let authors = String(decoding: try folder.bytes("b/config.yaml"), as: UTF8.self)
            #expect(authors.contains("  path: supernet\n") && authors.contains("  recipe: original\n"))
        }
    }

    @Test("Without --json everything is said on standard output")
    func plainOutput() throws {
        try Fixture.withFolder { folder in
            let outcome = try Glora.succeed(Fixture.train("a", "--path", "none"), in: folder)
            #expect(outcome.output.contains("validation accuracy") && outcome.output.contains("done: "))
            #expect(outcome.output.contains("trainable parameters: 0 in the adapter, 51 in the head"))
            #expect(outcome.errors.isEmpty)
        }
    }

    @Test("--path reads a file: one path for all layers, or one for each; the run no longer needs the file")
    func pathFile() throws {
        try Fixture.withFolder { folder in
            let paths = [
                // 2 blocks of vectors A (in), C (in) and constants D; by layer, the others are none.
                ("one.json", #"{"A": "vector", "C": "vector", "D": "constant"}"#, nil),
                ("each.json", #"{"blocks.1.mlp.fc2": {"A": "LoRA_2", "E": "vector"}}"#, 2 * (16 + 32) + 16),
            ]
            for (name, text, count) in paths {
                try folder.write(name, text)
                let trained = try Glora.succeed(
                    Fixture.train("run-\(name)", "--path", name, "--json"), in: folder
                ).json()
                if let count { #expect(trained["adapterParameters"]?.integerValue == count) }
                let eval = ["eval", "--run", "run-\(name)", "--device", "cpu", "--json"]
                let before = try Glora.succeed(eval, in: folder).json()
                try folder.write(name, #"{"A": "LoRA_4"}"#)
                #expect(try Glora.succeed(eval, in: folder).json() == before)
                try FileManager.default.removeItem(at: folder.appendingPathComponent(name))
                #expect(try Glora.succeed(eval, in: folder).json() == before)
                try Glora.succeed(
                    ["train", "--run", "run-\(name)", "--resume", "--device", "cpu"], in: folder)
            }
        }
    }

    @Test("--config reads a YAML file of the flags, and flags override it")
    func config() throws {
        try Fixture.withFolder { folder in
            try folder.write(
                "settings.yaml",
                """
                model: model
                data: folders
                path: full
                ranks: [4, 2]
                lr: 1e-2
                epochs: 7
                warmup-epochs: 1
                batch-size: 8
                drop-last: false
                device: cpu
                """)
            try Glora.succeed(
                ["train", "--config", "settings.yaml", "--run", "a", "--epochs", "2", "--ranks=2"], in: folder
            )
            let config = String(decoding: try folder.bytes("a/config.yaml"), as: UTF8.self)
            for words in [
                "path: full", "epochs: 2", "- 2\n", "lr: 1e-2", "drop-last: false", "data: folders",
                "batch-size: 8",
            ] { #expect(config.contains(words), "\(words)") }
            #expect(!config.contains("- 4\n"))
            // The same settings on the same images from the other layout, by the run's own configuration: the same losses, where
            // the list has the order of the folders.
            try Fixture.own("task", in: folder)
            let list = String(decoding: try folder.bytes("task/train800.txt"), as: UTF8.self)
            let lines = list.split(separator: "\n").sorted { one, other in
                let (one, other) = (one.split(separator: " "), other.split(separator: " "))
                return (one.last!, one[2]) < (other.last!, other[2])
            }
            try folder.write("task/train800.txt", lines.joined(separator: "\n"))
            try Glora.succeed(
                ["train", "--config=a/config.yaml", "--run", "b", "--data", "task", "--device", "cpu"],
                in: folder)
            try Glora.succeed(
                ["train", "--config", "a/config.yaml", "--run", "c", "--device", "cpu"], in: folder)
            for file in ["b/best.safetensors", "c/best.safetensors", "c/metrics.jsonl"] {
                let own = "a/" + file.dropFirst(2)
                #expect(try folder.bytes(file) == folder.bytes(own), "\(file)")
            }
            // The validation list has another order, and in OpenBLAS's products for Haswell and Zen what an image gives depends in its
            // last bits on its place in the batch.
            let (own, other) = (try folder.lines("a/metrics.jsonl"), try folder.lines("b/metrics.jsonl"))
            #expect(own.count == other.count && own.count >= 4)
            for (own, other) in zip(own, other) {
                let (own, other) = (try #require(own.objectValue), try #require(other.objectValue))
                #expect(own.keys == other.keys)
                for (key, value) in own {
                    guard key == "valLoss", let number = value.numberValue else {
                        #expect(other[key] == value, "\(key)")
                        continue
                    }
                    #expect(abs(try #require(other[key]?.numberValue) / number - 1) < 1e-6)
                }
            }
        }
    }

    @Test(
        "A loss that is not a number stops the run at a step that is named; the last good state can be read",
        arguments: [8, 16, 32], ["1e30", "1e38"])
    func notANumber(batchSize: Int, rate: String) throws {
        try Fixture.withFolder { folder in
            let steps = 32 / batchSize
            try Glora.refuse(
                Fixture.train(
                    "a", "--warmup-epochs", "0", "--lr", rate, "--batch-size", "\(batchSize)", "--drop-path",
                    "0"),
                in: folder,
                saying: ["not a number at step \(steps == 1 ? 1 : 2);", "last.safetensors", "--lr"])
            let state = try SafetensorsFile(folder.appendingPathComponent("a/last.safetensors"))
            #expect(state.names.contains("head.weight"))
            for name in state.names {
                #expect(try state.tensor(name).values.allSatisfy(\.isFinite), "\(name)")
            }
            let score = try Glora.succeed(
                ["eval", "--run", "a", "--checkpoint", "last", "--device", "cpu", "--json"], in: folder)
            #expect(try score.json().number("loss").isFinite)
        }
    }

    @Test("A reader that leaves doesn't end the run")
    func closedPipe() throws {
        try Fixture.withFolder { folder in
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/bin/bash")
            process.arguments =
                ["-c", "\"$0\" \"$@\" 2>&1 | true; exit ${PIPESTATUS[0]}", Glora.binary.path]
                + Fixture.train("a")
            process.currentDirectoryURL = folder
            try process.run()
            process.waitUntilExit()
            #expect(process.terminationStatus == 0)
            #expect(folder.exists("a/best.safetensors"))
        }
    }
}
