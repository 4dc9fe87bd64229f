import Checkpoints
import Foundation
import TensorCore
import Testing

/// The built program, run as a user runs it.
enum Glora {
    /// How a run of the program ended.
    struct Outcome {
        /// The exit code, or nil when a signal ended the program.
        let exitCode: Int32?
        /// The signal that ended the program.
        let signal: Int32?
        let output: String
        let errors: String

        /// The object on the last line of standard output, which `--json` promises to be the only one.
        func json() throws -> JSONValue {
            let lines = output.split(separator: "\n")
            #expect(lines.count == 1, "standard output should hold the result alone:\n\(output)")
            return try JSONValue(parsing: try #require(lines.last, "\(errors)").utf8)
        }

        /// The sentence after `Error: `.
        var sentence: String? {
            errors.split(separator: "\n").first { $0.hasPrefix("Error: ") }.map { String($0.dropFirst(7)) }
        }
    }

    /// A program that is under way.
    struct Running {
        let process: Process
        fileprivate let files: URL

        func send(_ signal: Int32) { kill(process.processIdentifier, signal) }

        /// Waits until a condition holds, the program has ended or half a minute has passed.
        func wait(until holds: () throws -> Bool) rethrows {
            let deadline = Date() + 30
            while try !holds(), process.isRunning, Date() < deadline { usleep(500) }
        }

        /// The processes that it has started and that run.
        func children() throws -> [pid_t] {
            try FileManager.default.contentsOfDirectory(atPath: "/proc").compactMap { pid_t($0) }.filter {
                pid in
                // "PID (NAME) STATE PARENT …"; one that has ended meanwhile has no such file.
                let status = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)
                let fields = status?.split(separator: ")").last?.split(separator: " ")
                return fields?.dropFirst().first.flatMap { pid_t($0) } == process.processIdentifier
            }
        }

        /// Waits for the end; a program that hangs is killed after two minutes and so fails its test. The slowest, a short demo,
        /// took 33 s on 2 cores with six others' work beside it.
        func outcome() throws -> Outcome {
            let deadline = Date() + 120
            while process.isRunning, Date() < deadline { usleep(2_000) }
            if process.isRunning { send(SIGKILL) }
            process.waitUntilExit()
            defer { try? FileManager.default.removeItem(at: files) }
            let isSignal = process.terminationReason == .uncaughtSignal
            return Outcome(
                exitCode: isSignal ? nil : process.terminationStatus,
                signal: isSignal ? process.terminationStatus : nil,
                output: try String(contentsOf: files.appendingPathComponent("out"), encoding: .utf8),
                errors: try String(contentsOf: files.appendingPathComponent("err"), encoding: .utf8))
        }
    }

    /// `GLORA_BINARY`, or what was built beside this test bundle: the same package in the same configuration.
    static let binary: URL = {
        if let path = ProcessInfo.processInfo.environment["GLORA_BINARY"] {
            return URL(fileURLWithPath: path)
        }
        let manager = FileManager.default
        let package = URL(fileURLWithPath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        // The bundle is PRODUCTS/….xctest; Swift's test helper is given its path as an argument.
        let bundles = CommandLine.arguments.filter { $0.contains(".xctest") }.map { path in
            URL(fileURLWithPath: String(path[..<path.range(of: ".xctest")!.lowerBound]))
                .deletingLastPathComponent()
        }
        let folders =
            bundles
            + [".build/testing/release", ".build/release", ".build/debug"].map(package.appendingPathComponent)
        return folders.map { $0.appendingPathComponent("glora") }
            .first { manager.isExecutableFile(atPath: $0.path) } ?? folders[0].appendingPathComponent("glora")
    }()

    /// Starts the program in `folder`. `setup` are bash's commands before it, each with its semicolon: `ulimit -f 40;` limits the size
    /// of every file that is written, in KiB, as a full disk would; `prefix` is a program that starts it.
    static func start(
        _ arguments: [String], in folder: URL, environment: [String: String] = [:], setup: String = "",
        prefix: String = ""
    ) throws -> Running {
        let files = FileManager.default.temporaryDirectory
            .appendingPathComponent("glora-output-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: files, withIntermediateDirectories: true)
        func stream(_ name: String) throws -> FileHandle {
            let url = files.appendingPathComponent(name)
            try Data().write(to: url)
            return try FileHandle(forWritingTo: url)
        }
        let process = Process()
        process.executableURL = binary
        process.arguments = arguments
        if setup + prefix != "" {
            process.executableURL = URL(fileURLWithPath: "/bin/bash")
            let script = "ulimit -c 0; \(setup) exec \(prefix) \"$0\" \"$@\""
            process.arguments = ["-c", script, binary.path] + arguments
        }
        process.currentDirectoryURL = folder
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = try stream("out")
        process.standardError = try stream("err")
        // A child inherits its thread's blocked signals, and the threads that tests run on block Ctrl-C.
        var (none, before) = (sigset_t(), sigset_t())
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        try process.run()
        return Running(process: process, files: files)
    }

    /// Runs the program to its end.
    static func run(
        _ arguments: [String], in folder: URL, environment: [String: String] = [:], setup: String = "",
        prefix: String = ""
    ) throws -> Outcome {
        try start(arguments, in: folder, environment: environment, setup: setup, prefix: prefix).outcome()
    }

    /// Runs the program and expects success.
    @discardableResult
    static func succeed(_ arguments: [String], in folder: URL, environment: [String: String] = [:]) throws
        -> Outcome
    {
        let outcome = try run(arguments, in: folder, environment: environment)
        #expect(outcome.exitCode == 0, "\(arguments): signal \(outcome.signal ?? 0)\n\(outcome.errors)")
        return outcome
    }

    /// Runs the program and expects that it declines: exit code 1, or 64 for a wrong command line; one sentence that says all of
    /// `words`; nothing half-written left in `folder`.
    @discardableResult
    static func refuse(
        _ arguments: [String], in folder: URL, code: Int32 = 1, saying words: [String],
        environment: [String: String] = [:], setup: String = ""
    ) throws -> Outcome {
        let outcome = try run(arguments, in: folder, environment: environment, setup: setup)
        #expect(outcome.exitCode == code, "\(arguments): signal \(outcome.signal ?? 0)\n\(outcome.errors)")
        let lines = outcome.errors.split(separator: "\n").filter { !$0.hasPrefix("note: ") }
        #expect(lines.filter { $0.hasPrefix("Error: ") }.count == 1, "\(outcome.errors)")
        // A wrong command line is answered with the usage besides, and --json puts progress here; otherwise the sentence is alone.
        if code == 1, !arguments.contains("--json") { #expect(lines.count == 1, "\(outcome.errors)") }
        #expect(outcome.sentence?.spelledAsFlags == outcome.sentence, "a setting isn't spelled as its flag")
        for word in words {
            #expect(outcome.sentence?.contains(word) == true, "'\(word)' isn't in: \(outcome.errors)")
        }
        let left = FileManager.default.subpaths(atPath: folder.path) ?? []
        #expect(!left.contains { $0.hasSuffix(".tmp") || $0.hasSuffix(".part") }, "\(left)")
        return outcome
    }
}
