import Checkpoints
import Foundation
import Testing

@Suite("glora doctor")
struct DoctorTests {
    /// A driver that raises SIGABRT in the command DIES_IN, and never answers in HANGS_IN.
    private static let shim = """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <fcntl.h>
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        static int is_in(const char *variable) {
            const char *word = getenv(variable);
            char line[4096] = "";
            int file = open("/proc/self/cmdline", O_RDONLY);
            long count = read(file, line, sizeof line - 1);
            close(file);
            for (long start = 0; word && start < count; start += strlen(line + start) + 1)
                if (strcmp(line + start, word) == 0) return 1;
            return 0;
        }
        int clGetPlatformIDs(unsigned room, void *platforms, unsigned *count) {
            int (*next)(unsigned, void *, unsigned *) = dlsym(RTLD_NEXT, "clGetPlatformIDs");
            int status = next(room, platforms, count);
            if (status == 0 && is_in("DIES_IN")) abort();
            while (status == 0 && is_in("HANGS_IN")) sleep(1);
            return status;
        }

        """

    /// A quick report, as JSON and Markdown, and what was printed.
    private func report(
        _ arguments: [String], in folder: URL, variable: String? = nil, _ command: String = "",
        cache: String? = nil
    ) throws -> (json: JSONValue, markdown: String, outcome: Glora.Outcome) {
        var environment: [String: String] = [:]
        if let variable {
            environment = [
                "LD_PRELOAD": try DriverTests.library(DoctorTests.shim, in: folder), variable: command,
            ]
        }
        environment["GLORA_CACHE"] = cache
        let outcome = try Glora.run(
            ["doctor", "--quick", "--output", "report", "--json"] + arguments, in: folder,
            environment: environment)
        #expect(outcome.exitCode == 0, "signal \(outcome.signal ?? 0)\n\(outcome.errors)")
        let file = try folder.bytes("report.json")
        #expect(try JSONValue(parsing: file) == outcome.json())
        return (try outcome.json(), String(decoding: try folder.bytes("report.md"), as: UTF8.self), outcome)
    }

    /// What is missing in a report: `opencl:0 bench inference in float32`, with the reason.
    private func leftOut(_ json: JSONValue) throws -> [String: String] {
        let entries = try #require(json["leftOut"]?.arrayValue).map { entry in
            (
                (entry["device"]?.stringValue.map { "\($0) " } ?? "") + (entry["part"]?.stringValue ?? ""),
                entry["reason"]?.stringValue ?? ""
            )
        }
        return Dictionary(entries) { first, _ in first }
    }

    @Test("A quick report says what the devices are, that they are right and how fast, and names nobody")
    func quick() throws {
        try Fixture.withFolder { folder in
            let (json, markdown, outcome) = try report(
                ["--device", "cpu", "--device", "opencl:0"], in: folder)
            #expect(outcome.output.hasPrefix("{\"schema\":\"glora.doctor/1\","))
            #expect(json["isFinished"] == .boolean(true))
            let devices = try #require(json["devices"]?.arrayValue)
            #expect(devices.compactMap { $0["device"]?["device"]?.stringValue } == ["opencl:0", "cpu"])
            for device in devices {
                let verdict = try #require(device["verdict"]?.stringValue)
                #expect(
                    verdict.contains("right in float32") && verdict.contains("To train on it"), "\(verdict)")
                #expect(markdown.contains(verdict))
                let measured = try #require(device["precisions"]?.arrayValue)
                #expect(measured.count == 1)
                #expect(try #require(measured[0]["selftest"]).number("failed") == 0)
                for bench in ["step", "inference"] {
                    let speed = try #require(measured[0][bench]).number("imagesPerSecond")
                    #expect(speed > 0 && markdown.contains("| \(String(format: "%.1f", speed)) |"))
                }
                for key in ["gflops", "gbps"] {
                    #expect(try #require(measured[0]["attention"]?["roofs"]).number(key) > 0)
                }
            }
            #expect(markdown.hasPrefix("### glora doctor: ") && markdown.contains("attention backward"))
            #expect(try leftOut(json).values.contains("left out: --quick"))
            expectNoNames([outcome.output, markdown], folder)
        }
    }

    /// Neither the user, the host nor a folder.
    private func expectNoNames(_ texts: [String], _ folder: URL) {
        let names = [NSUserName(), ProcessInfo.processInfo.hostName].filter { !$0.isEmpty }
        for text in texts {
            for path in [NSHomeDirectory(), folder.path, FileManager.default.temporaryDirectory.path] {
                #expect(!text.contains(path), "\(path) in \(text)")
            }
            for name in names {
                let word = "\\b\(NSRegularExpression.escapedPattern(for: name))\\b"
                #expect(text.range(of: word, options: .regularExpression) == nil, "\(name) in \(text)")
            }
        }
    }

    @Test("A driver that dies in a part is a line of the report, and the other parts are there")
    func dyingPart() throws {
        try Fixture.withFolder { folder in
            let (json, markdown, _) = try report(
                ["--device", "opencl:0"], in: folder, variable: "DIES_IN", "inference")
            let reason = try #require(leftOut(json)["opencl:0 bench inference in float32"])
            #expect(reason.hasPrefix("died of signal 6 (Aborted) after"), "\(reason)")
            #expect(markdown.contains("- opencl:0: bench inference in float32: \(reason)"))
            let measured = try #require(json["devices"]?.arrayValue?.first?["precisions"]?.arrayValue?.first)
            #expect(measured["inference"] == nil)
            #expect(try #require(measured["step"]).number("imagesPerSecond") > 0)
        }
    }

    @Test("When a driver dies while its devices are listed, the report says which, and has the CPU backend")
    func dyingListing() throws {
        try Fixture.withFolder { folder in
            let (json, _, _) = try report([], in: folder, variable: "DIES_IN", "devices")
            let missing = try leftOut(json)
            for part in ["devices", "the driver in pocl.icd"] {
                #expect(missing[part]?.hasPrefix("died of signal 6") == true, "\(missing)")
            }
            let devices = try #require(json["devices"]?.arrayValue)
            #expect(devices.compactMap { $0["device"]?["device"]?.stringValue } == ["cpu"])
        }
    }

    @Test(
        "A device whose kernels are wrong at every width is not to be trained on, and the sentence that says so names no folder"
    )
    func failingKernels() throws {
        try Fixture.withFolder { folder in
            // The sentence says where the verdicts are.
            let (json, markdown, outcome) = try report(
                ["--device", "opencl:0"], in: folder, variable: "DIES_IN", "probe",
                cache: folder.appendingPathComponent("cache").path)
            let device = try #require(json["devices"]?.arrayValue?.first)
            #expect(device["precisions"] == .array([]) && device["model"] == nil)
            let verdict = try #require(device["verdict"]?.stringValue)
            #expect(verdict.contains("could not be tried") && verdict.contains("Don't train on it"))
            let missing = try leftOut(json)
            #expect(missing["opencl:0 benchmarks"]?.contains("a training step in float32") == true)
            let reason = missing["opencl:0 selftest in float32"]
            #expect(reason?.contains("failed: the kernels can't be compiled") == true, "\(missing)")
            #expect(reason?.contains("the verdicts are in /…") == true, "\(missing)")
            expectNoNames([outcome.output, markdown], folder)
        }
    }

    @Test("A driver that hangs is ended when the time is up")
    func hanging() throws {
        try Fixture.withFolder { folder in
            let start = ContinuousClock.now
            let (json, _, _) = try report(
                ["--device", "opencl:0", "--minutes", "0.1"], in: folder, variable: "HANGS_IN", "selftest")
            #expect(ContinuousClock.now - start < .seconds(30))
            let reason = try leftOut(json)["opencl:0 selftest in float32"]
            #expect(reason?.hasPrefix("not done after") == true, "\(json)")
        }
    }

    @Test("Ctrl-C ends the part under way and keeps the report of those before")
    func interrupted() throws {
        try Fixture.withFolder { folder in
            let library = try DriverTests.library(DoctorTests.shim, in: folder)
            let running = try Glora.start(
                ["doctor", "--quick", "--device", "opencl:0", "--output", "report"], in: folder,
                environment: ["LD_PRELOAD": library, "HANGS_IN": "step"])
            try running.wait {
                try folder.exists("report.json")
                    && String(decoding: folder.bytes("report.json"), as: UTF8.self).contains("\"passed\"")
            }
            running.send(SIGINT)
            let outcome = try running.outcome()
            #expect(outcome.exitCode == 130, "\(outcome.errors)")
            let json = try JSONValue(parsing: try folder.bytes("report.json"))
            #expect(json["isFinished"] == .boolean(false))
            #expect(json["devices"]?.arrayValue?.first?["precisions"]?.arrayValue?.count == 1)
            let reasons = try leftOut(json).values
            #expect(
                reasons.contains { $0.hasPrefix("stopped after") || $0 == "left out: stopped" }, "\(reasons)")
        }
    }

    @Test("A report never takes another file's place; what can't be is refused before anything is tried")
    func refusals() throws {
        try Fixture.withFolder { folder in
            try folder.write("notes.md", "mine")
            for output in ["notes", "notes.md"] {
                try Glora.refuse(
                    ["doctor", "--output", output], in: folder, code: 64,
                    saying: ["notes.md is there already", "--output"])
            }
            #expect(String(decoding: try folder.bytes("notes.md"), as: UTF8.self) == "mine")
            for (flag, value) in [("--minutes", "0"), ("--device", "gpu"), ("--output", "")] {
                try Glora.refuse(["doctor", flag, value], in: folder, code: 64, saying: [flag])
            }
            try Glora.refuse(
                ["doctor", "--output", "no/such/folder"], in: folder, code: 1,
                saying: ["no/such/folder.md can't be written", "--output"])
        }
    }

    @Test("--version --json says the commit, the build and the precisions")
    func version() throws {
        let folder = FileManager.default.temporaryDirectory
        for arguments in [["--version", "--json"], ["--json", "--version"]] {
            let json = try Glora.succeed(arguments, in: folder).json()
            let plain = try Glora.succeed(["--version"], in: folder).output
            #expect(json["version"]?.stringValue.map { $0 + "\n" } == plain)
            #expect(json["precisions"]?["cpu"] == .array([.string("float32")]))
            #expect(json["precisions"]?["opencl"]?.arrayValue?.contains(.string("bfloat16")) == true)
            #expect(json["build"]?["configuration"]?.stringValue != nil)
            // A checkout without Git has none.
            if let commit = json["commit"]?.stringValue {
                #expect(commit.wholeMatch(of: /[0-9a-f]{40}/) != nil)
            }
        }
    }
}
