import Foundation
import Testing

/// What was made on a model goes by that model, whatever becomes of its folder.
@Suite("What was made on a model goes by that model")
struct ChangedModelTests {
    /// The fixture with a model of its own, in which `change` then says four heads and another mean.
    private func withModel(_ body: (_ folder: URL, _ change: () throws -> Void) throws -> Void) throws {
        try Fixture.withFolder { folder in
            try Fixture.own("model", in: folder)
            let config = folder.appendingPathComponent("model/config.json")
            try body(folder) {
                let text = try String(contentsOf: config, encoding: .utf8)
                try #require(text.contains("\"num_heads\": 2") && text.contains("\"mean\": [0.5, 0.5, 0.5]"))
                try text.replacingOccurrences(of: "\"num_heads\": 2", with: "\"num_heads\": 4")
                    .replacingOccurrences(of: "\"mean\": [0.5, 0.5, 0.5]", with: "\"mean\": [0.1, 0.2, 0.3]")
                    .write(to: config, atomically: true, encoding: .utf8)
            }
        }
    }

    @Test("A finetuning keeps to the base of its supernet, which the model's files contradict by now")
    func finetuning() throws {
        try withModel { folder, change in
            try Glora.succeed(
                [
                    "search", "--run", "run", "--max-params", "2k", "--population", "4", "--generations", "1",
                    "--device", "cpu",
                ], in: folder)
            try change()
            let tuned = try Glora.succeed(
                ["finetune", "--run", "run", "--output", "tuned", "--epochs", "1", "--device", "cpu"],
                in: folder)
            #expect(
                tuned.output.contains("heads 4, not 2") || tuned.errors.contains("heads 4, not 2"),
                "\(tuned)")
            #expect(tuned.output.contains("mean (0.5, 0.5, 0.5)"))
            let saved = String(decoding: try folder.bytes("tuned/config.yaml"), as: UTF8.self)
            #expect(saved.contains("heads: 2\n") && !saved.contains("heads: 4"))
        }
    }

    @Test("A conversion keeps to the run's base; the adapter alone is refused on a model that says otherwise")
    func adapters() throws {
        try withModel { folder, change in
            try Glora.succeed(Fixture.train("l", "--method", "lora", "--epochs", "1"), in: folder)
            let adapter = [
                "eval", "--model", "model", "--adapter", "l/adapter", "--data", "task", "--device", "cpu",
            ]
            #expect(try !Glora.succeed(adapter, in: folder).output.contains("note"))
            try change()
            try Glora.succeed(
                ["convert", "--run", "l", "--to", "glora", "--output", "g", "--device", "cpu"], in: folder)
            try Glora.refuse(adapter, in: folder, saying: ["adapter", "heads 4, not 2"])
            try Fixture.checkpoint(seed: 9).saveTimm(to: folder.appendingPathComponent("model"))
            let other = try Glora.succeed(adapter, in: folder)
            #expect((other.output + other.errors).contains("trained on other tensors"))
        }
    }

    @Test("A comparison says how images are prepared, and mixes no cells of a model that changed meanwhile")
    func cells() throws {
        try withModel { folder, change in
            let compare = [
                "compare", "--data", "task", "--model", "model", "--methods", "linear", "--seeds", "1",
                "--epochs", "1", "--warmup-epochs", "0", "--batch-size", "8", "--output", "c", "--device",
                "cpu",
            ]
            let lines = try Glora.succeed(compare, in: folder).output.split(separator: "\n")
            let first = try #require(lines.firstIndex { $0.hasPrefix("[1/1]") })
            #expect(
                lines[..<first].contains {
                    $0.hasPrefix("images: ") && $0.contains("config.json says, but --crop squash")
                })
            try change()
            try Glora.refuse(compare, in: folder, saying: ["c/task", "heads 2, not 4", "--output"])
        }
    }

    @Test("A run whose model is gone says where it was and what to do")
    func gone() throws {
        try withModel { folder, _ in
            try Glora.succeed(Fixture.train("l", "--method", "linear", "--epochs", "1"), in: folder)
            try FileManager.default.removeItem(at: folder.appendingPathComponent("model"))
            try Glora.refuse(
                ["eval", "--run", "l", "--device", "cpu"], in: folder,
                saying: ["the base model of", "l/config.yaml"])
        }
    }

    @Test("A list without names beside a training folder with names goes by number, and shift says so")
    func numberedList() throws {
        try withModel { folder, _ in
            let shift = try Glora.succeed(
                [
                    "shift", "--train", "folders", "--test", "folders,task/test.txt", "--model", "model",
                    "--methods",
                    "linear", "--seeds", "1", "--epochs", "1", "--warmup-epochs", "0", "--batch-size", "8",
                    "--output", "s", "--device", "cpu",
                ], in: folder)
            #expect(
                (shift.output + shift.errors).contains(
                    "test: no names are given, class k is the training images' class k."))
        }
    }
}
