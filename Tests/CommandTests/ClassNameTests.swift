import Checkpoints
import Foundation
import Testing

/// A model knows what its classes are called, and a data set is scored by name.
@Suite("Data are scored by the names of their classes")
struct ClassNameTests {
    /// `folders` with class folders renamed, and a run on it: red, green, blue are c0, c1, c2.
    private func withNamedRun(_ body: (URL) throws -> Void) throws {
        try Fixture.withFolder { folder in
            try Fixture.own("folders", in: folder)
            for split in ["train", "val", "test"] {
                for (old, new) in [("c0", "red"), ("c1", "green"), ("c2", "blue")] {
                    try FileManager.default.moveItem(
                        at: folder.appendingPathComponent("folders/\(split)/\(old)"),
                        to: folder.appendingPathComponent("folders/\(split)/\(new)"))
                }
            }
            try Glora.succeed(
                Fixture.train("named", "--data", "folders", "--path", "full", "--epochs", "20"), in: folder)
            try body(folder)
        }
    }

    private func score(_ flags: String..., in folder: URL) throws -> JSONValue {
        try Glora.succeed(["eval", "--device", "cpu", "--json"] + flags, in: folder).json()
    }

    @Test(
        "A run, its merged models and its adapter score a folder that lacks a class, or has one more name, by name"
    )
    func subsets() throws {
        try withNamedRun { folder in
            let whole = try score("--run", "named", in: folder)
            #expect(try whole.number("accuracy") == 1)
            try Glora.succeed(
                ["merge", "--run", "named", "--output", "hf", "--format", "hf", "--device", "cpu"], in: folder
            )
            try Glora.succeed(
                ["merge", "--run", "named", "--output", "timm.safetensors", "--device", "cpu"], in: folder)
            let config = try JSONValue(parsing: folder.bytes("hf/config.json"))
            #expect(config["id2label"] == ["0": "blue", "1": "green", "2": "red"])
            #expect(config["label2id"] == ["blue": 0, "green": 1, "red": 2])
            // green and red alone: by number they would be blue and green.
            for name in ["green", "red"] {
                let target = folder.appendingPathComponent("two/test/\(name)")
                try FileManager.default.createDirectory(
                    at: target.deletingLastPathComponent(), withIntermediateDirectories: true)
                try FileManager.default.copyItem(
                    at: folder.appendingPathComponent("folders/test/\(name)"), to: target)
            }
            for source in [
                ["--run", "named"], ["--model", "hf"], ["--model", "timm.safetensors"],
                ["--model", "model", "--adapter", "named/adapter"],
            ] {
                let two = try Glora.succeed(
                    ["eval", "--device", "cpu", "--json", "--data", "two"] + source, in: folder
                ).json()
                #expect(try two.number("correct") == 8 && two.number("count") == 8, "\(source)")
            }
            try FileManager.default.moveItem(
                at: folder.appendingPathComponent("two/test/red"),
                to: folder.appendingPathComponent("two/test/yellow"))
            try Glora.refuse(
                ["eval", "--device", "cpu", "--data", "two", "--model", "hf"], in: folder,
                saying: ["yellow", "blue, green, red", "--match-classes"])
            let numbered = try Glora.succeed(
                ["eval", "--device", "cpu", "--data", "two", "--model", "hf", "--match-classes", "number"],
                in: folder)
            #expect(numbered.output.contains("matched by number"))
        }
    }

    @Test(
        "A model without names refuses a folder with fewer classes than its head, and counts lists by number")
    func noNames() throws {
        try Fixture.withFolder { folder in
            try Glora.succeed(
                ["merge", "--run", "run", "--output", "hf", "--format", "hf", "--device", "cpu"], in: folder)
            let byNumber = try Glora.succeed(
                ["eval", "--device", "cpu", "--model", "hf", "--data", "task"], in: folder)
            #expect(byNumber.output.contains("matched by number"))
            try Fixture.own("folders", in: folder)
            let same = try Glora.succeed(
                ["eval", "--device", "cpu", "--model", "hf", "--data", "folders"], in: folder)
            #expect(same.output.contains("matched by number"))
            for split in ["train", "val", "test"] {
                try FileManager.default.removeItem(at: folder.appendingPathComponent("folders/\(split)/c0"))
            }
            try Glora.refuse(
                ["eval", "--device", "cpu", "--model", "hf", "--data", "folders"], in: folder,
                saying: ["c1, c2", "3"])
        }
    }

    @Test("Commands that read data say first what is there, and how images are prepared")
    func summaries() throws {
        try Fixture.withFolder { folder in
            let train = try Glora.succeed(
                Fixture.train("new", "--method", "lora", "--epochs", "1"), in: folder)
            let lines = train.output.split(separator: "\n")
            #expect(
                lines.first?.contains("32") == true && lines.first?.contains("12") == true, "\(train.output)")
            let images = try #require(lines.first { $0.hasPrefix("images: ") })
            #expect(images.contains("bicubic") && images.contains("config.json"), "\(images)")
            let eval = try Glora.succeed(["eval", "--run", "new", "--device", "cpu"], in: folder)
            #expect(eval.output.contains("the run's own"))
        }
    }
}
