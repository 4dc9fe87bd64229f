import Checkpoints
import Foundation
import Testing

/// Who may write into a run's folder, and what is written there.
@Suite("Who may write into a run's folder, and what")
struct RunFolderTests {
    private static let resume = ["train", "--run", "run", "--resume", "--device", "cpu"]
    private static let compare = [
        "compare", "--data", "task", "--model", "model", "--methods", "linear", "--seeds", "1", "--device",
        "cpu", "--epochs", "1", "--warmup-epochs", "0", "--lr", "1e-3", "--output", "out",
    ]

    /// The files below, each with its bytes.
    private func files(_ folder: URL) throws -> [String: Data] {
        let names = try #require(FileManager.default.subpaths(atPath: folder.path))
        return try Dictionary(
            uniqueKeysWithValues: names.filter { $0.contains(".") }.map { ($0, try folder.bytes($0)) })
    }

    // MARK: The lock

    @Test(
        "A folder that is in use is left alone by every command that writes into it",
        arguments: [
            ("new", Fixture.train("new"), "--run"), ("run", resume, "--run"),
            ("run", ["search", "--run", "run", "--max-params", "2k", "--device", "cpu"], nil),
            ("run", ["ablate", "--run", "run", "--device", "cpu"], nil),
            ("out", ["finetune", "--run", "run", "--output", "out", "--device", "cpu"], "--output"),
            ("out", ["merge", "--run", "run", "--output", "out", "--device", "cpu"], "--output"),
            ("out", ["convert", "--run", "run", "--output", "out", "--device", "cpu"], "--output"),
            ("out", compare, "--output"), ("out/task/linear/lr-1e-3/seed-0", compare, nil),
        ] as [(String, [String], String?)])
    func locked(_ name: String, _ arguments: [String], _ flag: String?) throws {
        try Fixture.withFolder { folder in
            let held = try FolderLock(folder.appendingPathComponent(name), holder: "glora test")
            let before = try files(folder.appendingPathComponent(name))
            let outcome = try Glora.run(arguments, in: folder)
            #expect(outcome.exitCode == 1, "\(outcome.errors)")
            for word in [name, "in use by process \(getpid()) (glora test)", "wait"]
                + [flag].compactMap(\.self)
            {
                #expect(outcome.sentence?.contains(word) == true, "'\(word)' isn't in: \(outcome.errors)")
            }
            #expect(try files(folder.appendingPathComponent(name)) == before)
            held.release()
        }
    }

    @Test("Of two trainings into one folder the second says who holds it; a killed one is no obstacle")
    func twoTrainings() throws {
        try Fixture.withFolder { folder in
            let running = try Glora.start(Fixture.train("a", "--epochs", "100000"), in: folder)
            running.wait { folder.exists("a/config.yaml") }
            let again = ["train", "--run", "a", "--resume", "--device", "cpu"]
            for arguments in [Fixture.train("a"), again] {
                let outcome = try Glora.run(arguments, in: folder)
                let holder = "a is in use by process \(running.process.processIdentifier) (glora train) on "
                #expect(
                    outcome.exitCode == 1 && outcome.sentence?.contains(holder) == true, "\(outcome.errors)")
            }
            running.send(SIGKILL)
            #expect(try running.outcome().signal == SIGKILL)
            #expect(folder.exists("a/.glora-lock"))
            let before = try folder.bytes("a/last.safetensors")
            let resumed = try Glora.start(again, in: folder)
            try resumed.wait { try folder.bytes("a/last.safetensors") != before }
            resumed.send(SIGTERM)
            let outcome = try resumed.outcome()
            #expect(outcome.exitCode == 130, "\(outcome.errors)")
            #expect(!folder.exists("a/.glora-lock"))
        }
    }

    @Test("Of two trainings that begin at once one is refused, and the other's run is whole")
    func atOnce() throws {
        try Fixture.withFolder { folder in
            let running = try ["1", "2"].map {
                try Glora.start(Fixture.train("a", "--path", "full", "--seed", $0), in: folder)
            }
            let outcomes = try running.map { try $0.outcome() }
            #expect(outcomes.map(\.exitCode).sorted { ($0 ?? 9) < ($1 ?? 9) } == [0, 1])
            try Glora.succeed(["train", "--run", "a", "--resume", "--device", "cpu"], in: folder)
            let steps = try folder.bytes("a/metrics.jsonl").split(separator: 10).count
            #expect(steps == 3 * (4 + 2))
        }
    }

    // MARK: Links

    @Test("What a run's files link to is never written")
    func links() throws {
        try Fixture.withFolder { folder in
            let names = [
                "metrics.jsonl", "last.safetensors", "best.safetensors", "summary.json",
                "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "search/search.jsonl",
            ]
            let search = [
                "search", "--run", "run", "--max-params", "2k", "--population", "4", "--generations", "1",
                "--device", "cpu",
            ]
            try Glora.succeed(search, in: folder)
            let longer = String(decoding: try folder.bytes("run/config.yaml"), as: UTF8.self)
                .replacing("epochs: 3", with: "epochs: 4")
            try folder.write("run/config.yaml", longer)
            for name in names {
                try folder.write("outside/\(name)", try folder.bytes("run/\(name)"))
                let url = folder.appendingPathComponent("run/\(name)")
                try FileManager.default.removeItem(at: url)
                try FileManager.default.createSymbolicLink(
                    at: url, withDestinationURL: folder.appendingPathComponent("outside/\(name)"))
            }
            let before = try files(folder.appendingPathComponent("outside"))
            try Glora.succeed(search + ["--resume"], in: folder)
            try Glora.succeed(Self.resume, in: folder)
            #expect(try files(folder.appendingPathComponent("outside")) == before)
            for name in ["metrics.jsonl", "last.safetensors", "search/search.jsonl"] {
                let url = folder.appendingPathComponent("run/\(name)")
                #expect(
                    try url.resourceValues(forKeys: [.isSymbolicLinkKey]).isSymbolicLink == false, "\(name)")
            }
            // So is a folder; but the run itself, and a file that the user names, may be links.
            let adapter = folder.appendingPathComponent("run/adapter")
            try FileManager.default.removeItem(at: adapter)
            try FileManager.default.createSymbolicLink(
                at: adapter, withDestinationURL: folder.appendingPathComponent("outside/adapter"))
            try Glora.refuse(Self.resume, in: folder, saying: ["run/adapter", "symbolic link"])
            #expect(try files(folder.appendingPathComponent("outside")) == before)
            try FileManager.default.removeItem(at: adapter)
            try folder.write("target.safetensors", "old")
            for (link, target) in [("link", "run"), ("m.safetensors", "target.safetensors")] {
                try FileManager.default.createSymbolicLink(
                    at: folder.appendingPathComponent(link),
                    withDestinationURL: folder.appendingPathComponent(target))
            }
            try Glora.succeed(
                ["merge", "--run", "link", "--output", "m.safetensors", "--device", "cpu"], in: folder)
            #expect(try folder.bytes("target.safetensors").count > 100)
            try Glora.succeed(["train", "--run", "link", "--resume", "--device", "cpu"], in: folder)
        }
    }

    // MARK: What is written

    @Test("What a killed process left is swept when the run goes on")
    func sweeping() throws {
        try Fixture.withFolder { folder in
            let left = [
                "run/.last.safetensors.1.5a.tmp", "run/adapter/.adapter_model.safetensors.99.0.tmp",
                "run/search/adapter/.adapter_config.json.7.ffff.tmp",
            ]
            for path in left { try folder.write(path, "half") }
            try Glora.succeed(Self.resume, in: folder)
            for path in left { #expect(!folder.exists(path), "\(path)") }
        }
    }

    @Test("Equal settings give equal bytes of every file but the seconds")
    func equalBytes() throws {
        try Fixture.withFolder { folder in
            let path = #"{"A": "vector", "B": "LoRA_4", "C": "none", "D": "constant", "E": "vector"}"#
            try folder.write("path.json", path)
            let runs = try ["a", "b", "c"].map { name in
                try Glora.succeed(Fixture.train(name, "--path", "path.json"), in: folder)
                return try files(folder.appendingPathComponent(name)).filter { $0.key != "summary.json" }
            }
            #expect(runs[0].count == 6)
            #expect(runs[0] == runs[1] && runs[0] == runs[2])
        }
    }

    @Test("A run without metrics.jsonl goes on with a new one and says so")
    func missingMetrics() throws {
        try Fixture.withFolder { folder in
            let config = String(decoding: try folder.bytes("run/config.yaml"), as: UTF8.self)
            try folder.write("run/config.yaml", config.replacing("epochs: 3", with: "epochs: 4"))
            try FileManager.default.removeItem(at: folder.appendingPathComponent("run/metrics.jsonl"))
            let outcome = try Glora.succeed(Self.resume, in: folder)
            #expect(outcome.errors.contains("metrics.jsonl was missing; a new one begins here"))
            #expect(try folder.bytes("run/metrics.jsonl").split(separator: 10).count == 4 + 2)
        }
    }

    @Test("A comparison whose cell outgrows the disk says that the same command goes on")
    func fullCell() throws {
        try Fixture.withFolder { folder in
            let flags = ["--epochs", "200", "--validate-every", "100", "--batch-size", "8"]
            let outcome = try Glora.run(Self.compare + flags, in: folder, setup: "ulimit -f 12;")
            let sentence = try #require(outcome.sentence, "\(outcome.errors)")
            #expect(outcome.exitCode == 1 && sentence.contains("metrics.jsonl"), "\(sentence)")
            #expect(sentence.contains("the same command goes on from it"), "\(sentence)")
            #expect(!sentence.contains("--resume"), "\(sentence)")
        }
    }

    @Test("A flipped bit in a run's states or its adapter is said by the commands that read them")
    func flippedBits() throws {
        try Fixture.withFolder { folder in
            for (name, arguments) in [
                ("last.safetensors", Self.resume), ("best.safetensors", ["eval", "--run", "run"]),
                (
                    "adapter/adapter_model.safetensors",
                    ["eval", "--model", "model", "--adapter", "run/adapter", "--data", "task"]
                ),
            ] {
                let whole = try folder.bytes("run/\(name)")
                var bytes = whole
                bytes[bytes.count - 5] ^= 2
                try folder.write("run/\(name)", bytes)
                try Glora.refuse(arguments, in: folder, saying: [name, "damaged", "copy"])
                try folder.write("run/\(name)", whole)
            }
        }
    }

    /// A file by another name is not emptied, a stale lock that can't be written doesn't keep its folder, and what is printed without a
    /// standard output doesn't go into the lock's file.
    @Test("A lock's file is only that")
    func lockFile() throws {
        try Fixture.withFolder { folder in
            let (mine, lock) = (
                folder.appendingPathComponent("mine"), folder.appendingPathComponent("run/.glora-lock")
            )
            try "precious".write(to: mine, atomically: true, encoding: .utf8)
            try FileManager.default.linkItem(at: mine, to: lock)
            let resume = ["train", "--run", "run", "--resume", "--device", "cpu"]
            try Glora.refuse(resume, in: folder, saying: [".glora-lock", "remove it"])
            #expect(try String(contentsOf: mine, encoding: .utf8) == "precious")
            try FileManager.default.removeItem(at: lock)
            let outcome = try Glora.run(Fixture.train("new"), in: folder, setup: "exec >&-;")
            #expect(outcome.exitCode == 1 && outcome.sentence?.contains("standard output") == true)
            #expect(folder.exists("new/best.safetensors"))
        }
    }

    @Test("A cell's folder may not lead out of the comparison's, a merged file not take a state's place")
    func places() throws {
        try Fixture.withFolder { folder in
            for name in ["out", "compared"] {
                try FileManager.default.createDirectory(
                    at: folder.appendingPathComponent(name), withIntermediateDirectories: true)
            }
            try FileManager.default.createSymbolicLink(
                at: folder.appendingPathComponent("compared/task"),
                withDestinationURL: folder.appendingPathComponent("out"))
            let outcome = try Glora.run(
                [
                    "compare", "--model", "model", "--data", "task", "--methods", "linear", "--seeds", "1",
                    "--epochs", "1", "--device", "cpu", "--output", "compared",
                ], in: folder)
            #expect(
                outcome.exitCode == 1 && outcome.sentence?.contains("symbolic link") == true,
                "\(outcome.errors)")
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path + "/out") == [])
            let before = try folder.bytes("run/last.safetensors")
            let merge = ["merge", "--run", "run", "--device", "cpu", "--output", "run/last.safetensors"]
            try Glora.refuse(merge, in: folder, code: 64, saying: ["state of the run"])
            #expect(try folder.bytes("run/last.safetensors") == before)
        }
    }
}
