import Foundation
import Testing

@Suite("Runs that were stopped or killed go on")
struct ResumeTests {
    private let resume = ["train", "--run", "parts", "--resume", "--device", "cpu"]

    /// The files of the long run when nothing stops it.
    private static let whole: Result<URL, any Error> = Result {
        let fixture = try Fixture.shared.get()
        try Glora.succeed(long("whole"), in: fixture)
        return fixture.appendingPathComponent("whole")
    }

    /// A run of 160 steps, validated now and then.
    private static func long(_ run: String) -> [String] {
        Fixture.train(run, "--epochs", "40", "--validate-every", "7", "--lr", "1e-3")
    }

    /// Starts the long run as `parts`, lets it come to so many lines of metrics, and ends it by `signal`.
    private func interrupt(after lines: Int, by signal: Int32, in folder: URL) throws -> Glora.Outcome {
        let running = try Glora.start(Self.long("parts"), in: folder)
        running.wait {
            guard folder.exists("parts/config.yaml"), let text = try? folder.bytes("parts/metrics.jsonl")
            else { return false }
            return text.count { $0 == UInt8(ascii: "\n") } >= lines
        }
        running.send(signal)
        return try running.outcome()
    }

    private func expectSameFiles(in folder: URL) throws {
        let expected = try Self.whole.get()
        for name in [
            "last.safetensors", "best.safetensors", "metrics.jsonl", "config.yaml",
            "adapter/adapter_model.safetensors", "adapter/adapter_config.json",
        ] {
            let (whole, parts) = (try expected.bytes(name), try folder.bytes("parts/\(name)"))
            #expect(whole == parts && !whole.isEmpty, "\(name)")
        }
    }

    @Test("A run that was killed goes on to the bytes of one that wasn't, wherever it was killed")
    func killed() throws {
        try Fixture.withFolder { folder in
            for lines in [0, 3, 50, 110] {
                let outcome = try interrupt(after: lines, by: SIGKILL, in: folder)
                // On a busy machine the whole run may be over before the signal comes.
                #expect(outcome.signal == SIGKILL || lines >= 50 && outcome.exitCode == 0)
                let resumed = try Glora.succeed(resume, in: folder)
                #expect(lines < 50 || resumed.output.contains("resuming after step"))
                try expectSameFiles(in: folder)
                try FileManager.default.removeItem(at: folder.appendingPathComponent("parts"))
            }
        }
    }

    @Test(
        "Ctrl-C finishes the step, saves, says how to go on; going on gives the same bytes",
        arguments: [SIGINT, SIGTERM, SIGHUP])
    func stopped(by signal: Int32) throws {
        try Fixture.withFolder { folder in
            let outcome = try interrupt(after: 50, by: signal, in: folder)
            #expect(outcome.exitCode == 130, "\(outcome.errors)")
            let run = folder.appendingPathComponent("parts").path
            #expect(outcome.output.contains("stopped after step "))
            #expect(outcome.output.contains("glora train --run \(run) --resume"))
            // Every step that was logged is in the state: the resumed run repeats none.
            let before = try folder.bytes("parts/metrics.jsonl")
            try Glora.succeed(resume, in: folder)
            #expect(try folder.bytes("parts/metrics.jsonl").starts(with: before))
            try expectSameFiles(in: folder)
        }
    }

    @Test("A run that is done stays as it is when it is resumed")
    func done() throws {
        try Fixture.withFolder { folder in
            let before = try folder.bytes("run/last.safetensors")
            try Glora.succeed(["train", "--run", "run", "--resume", "--device", "cpu"], in: folder)
            #expect(try folder.bytes("run/last.safetensors") == before)
        }
    }

    @Test(
        "--resume refuses a flag that says otherwise than the run, in the command line or in --config",
        arguments: [
            ["--lr", "1e-3"], ["--lr=1"], ["--epochs", "500"], ["--no-drop-last"], ["--ranks", "8"],
            ["--path", "supernet"], ["--normalize", "imagenet"], ["--heads", "4"],
            ["--config", "other.yaml"], ["--rank", "4"], ["--precision", "bfloat16"],
            ["--learnable-scale", "--data", "task"],
        ])
    func contradiction(_ flags: [String]) throws {
        try Fixture.withFolder { folder in
            try folder.write("other.yaml", "seed: 1\n")
            let name =
                flags[0] == "--config"
                ? "--seed" : String(flags[0].prefix { $0 != "=" }).replacing("--no-", with: "--")
            try Glora.refuse(
                ["train", "--run", "run", "--resume", "--device", "cpu"] + flags, in: folder, code: 64,
                saying: [name + " differs", "config.yaml", "another --run"])
        }
    }

    /// Its products are cut as before: a sum's last bits go by that.
    @Test("A run goes on as it began on another number of threads")
    func otherThreads() throws {
        try Fixture.withFolder { folder in
            try Glora.succeed(
                Fixture.train("new", "--epochs", "1"), in: folder, environment: ["GLORA_THREADS": "3"])
            let config = String(decoding: try folder.bytes("new/config.yaml"), as: UTF8.self)
            #expect(config.contains("\nproductParts: 3\n"))
            let resumed = try Glora.succeed(
                ["train", "--run", "new", "--resume", "--device", "cpu"], in: folder,
                environment: ["GLORA_THREADS": "1"])
            #expect(resumed.output.contains("cpu (1 thread,"))
            #expect(!resumed.errors.contains("cut into"), "\(resumed.errors)")
        }
    }

    @Test("--resume takes a flag that says the same, and the same model and data from another place")
    func agreement() throws {
        try Fixture.withFolder { folder in
            try FileManager.default.copyItem(
                at: try Fixture.shared.get().appendingPathComponent("task"),
                to: folder.appendingPathComponent("moved"))
            try Glora.succeed(
                [
                    "train", "--run", "run", "--resume", "--device", "cpu", "--lr", "0.01", "--epochs=3",
                    "--data", "moved", "--model", "model/model.safetensors",
                ], in: folder)
        }
    }

    @Test("--resume refuses another frozen base and other data, given or changed in place")
    func changed() throws {
        try Fixture.withFolder { folder in
            let resume = ["train", "--run", "run", "--resume", "--device", "cpu"]
            try Fixture.checkpoint(seed: 2).saveTimm(to: folder.appendingPathComponent("model2"))
            try Glora.refuse(
                resume + ["--model", "model2"], in: folder, saying: ["not the model", "model2", "same file"])
            try Fixture.own("task", in: folder)
            var list = try folder.bytes("task/train800.txt")
            list.append(contentsOf: "train800/an image 0.png 1\n".utf8)
            try folder.write("task/train800.txt", list)
            try Glora.refuse(resume, in: folder, saying: ["not the data", "task", "same splits"])
            try Fixture.own("model", in: folder)
            try Fixture.checkpoint(seed: 2).saveTimm(to: folder.appendingPathComponent("model"))
            try Glora.refuse(resume, in: folder, saying: ["not the model", "same file"])
            try Glora.refuse(
                ["eval", "--run", "run", "--device", "cpu"], in: folder,
                saying: ["has changed", "put the original file back"])
        }
    }

    @Test(
        "A damaged validation image is found before the first step; replaced during a run, it lets the run go on"
    )
    func damagedValidation() throws {
        try Fixture.withFolder { folder in
            try Fixture.own("task", in: folder)
            let image = "task/val200/an image 3.png"
            let whole = try folder.bytes(image)
            try folder.write(image, whole.prefix(whole.count / 2))
            try Glora.refuse(Fixture.train("new"), in: folder, saying: ["an image 3.png", "damaged"])
            #expect(!folder.exists("new"))
            // Unchecked, it is found at the first validation, and the run stays.
            try Glora.refuse(
                Fixture.train("new", "--no-check-images", "--validate-every", "2"), in: folder,
                saying: ["an image 3.png", "damaged"])
            try Glora.refuse(
                ["merge", "--run", "new", "--output", "m.safetensors", "--device", "cpu"], in: folder,
                saying: ["--checkpoint last"])
            try folder.write(image, whole)
            let resumed = try Glora.succeed(
                ["train", "--run", "new", "--resume", "--device", "cpu"], in: folder)
            #expect(resumed.errors.contains("validation images have changed"), "\(resumed.errors)")
            #expect(folder.exists("new/best.safetensors"))
        }
    }

    @Test("A folder with a run isn't overwritten, and one without can't be resumed")
    func folders() throws {
        try Fixture.withFolder { folder in
            try Glora.refuse(
                Fixture.train("run"), in: folder,
                saying: ["already holds a run", "--resume", "another --run"])
            try Glora.refuse(
                ["train", "--run", "nowhere", "--resume"], in: folder,
                saying: ["nowhere holds no run", "config.yaml", "give the --run of a glora train"])
            #expect(!folder.exists("nowhere"))
        }
    }
}
