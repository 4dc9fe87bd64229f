import Checkpoints
import Foundation
import Testing

/// The program against its documentation, `Sources/glora/glora.docc`.
@Suite("What the documentation says of the commands is so")
struct DocumentationTests {
    private static let package = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    private static let catalog = package.appendingPathComponent("Sources/glora/glora.docc")
    private static let schemas = catalog.appendingPathComponent("Resources/schemas")

    private static func page(_ name: String) throws -> String {
        try String(contentsOf: catalog.appendingPathComponent(name + ".md"), encoding: .utf8)
    }

    /// The first cells of the rows of a page's table, its head left out.
    private static func firstCells(_ page: String) throws -> [String] {
        try self.page(page).split(separator: "\n").filter { $0.hasPrefix("| ") && !$0.hasPrefix("| ---") }
            .dropFirst().map { $0.split(separator: "|")[0].trimmingCharacters(in: [" ", "`"]) }
    }

    /// The command lines in the fenced blocks of Commands.md, as words without `glora`.
    private static func examples() throws -> [[String]] {
        let parts = try page("Commands").components(separatedBy: "```")
        return try stride(from: 1, to: parts.count, by: 2).flatMap { index -> [[String]] in
            guard parts[index].hasPrefix("sh\n") else { return [] }
            return try parts[index].split(separator: "\n").dropFirst().map { line in
                let words = line.split(separator: " ").map(String.init)
                try #require(words.first == "glora", "\(line)")
                return Array(words.dropFirst())
            }
        }
    }

    /// Whether a command takes --device, for each that --help lists and that has no commands of its own.
    private static func commands() throws -> [String: Bool] {
        let help = try Glora.succeed(
            ["--experimental-dump-help"], in: FileManager.default.temporaryDirectory)
        var found: [String: Bool] = [:]
        func visit(_ command: JSONValue, _ names: [String]) throws {
            guard command["shouldDisplay"]?.booleanValue != false else { return }
            let commands = command["subcommands"]?.arrayValue ?? []
            for command in commands {
                let name = try #require(command["commandName"]?.stringValue)
                if name != "help" { try visit(command, names + [name]) }
            }
            guard commands.isEmpty else { return }
            let arguments = command["arguments"]?.arrayValue ?? []
            found[names.joined(separator: " ")] = arguments.contains { argument in
                argument["names"]?.arrayValue?.contains { $0["name"]?.stringValue == "device" } == true
            }
        }
        try visit(try #require(try JSONValue(parsing: help.output.utf8)["command"]), [])
        return found
    }

    /// Compares results, a line each, with the schemas that they name, or with one that they don't.
    static func expectValid(_ results: String, as schema: String? = nil, in folder: URL) throws {
        try folder.write("results.jsonl", results)
        let process = Process()
        // Debian's own, for which Scripts/setup installs jsonschema; the first on the PATH may be another.
        process.executableURL = URL(fileURLWithPath: "/usr/bin/python3")
        process.arguments = [
            package.appendingPathComponent("Scripts/check_results.py").path, schemas.path,
        ]
        if let schema { process.arguments?.append(schema) }
        process.standardInput = try FileHandle(
            forReadingFrom: folder.appendingPathComponent("results.jsonl"))
        let pipe = Pipe()
        process.standardError = pipe
        try process.run()
        let wrong = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(wrong)")
    }

    /// What the page of commands says that the folder of its examples holds.
    private func fill(_ folder: URL) throws {
        try FileManager.default.createDirectory(
            at: folder.appendingPathComponent("vtab-1k"), withIntermediateDirectories: true)
        for (name, part) in [
            ("vit", "model"), ("shifted", "task"), ("vtab-1k/cifar", "task"), ("vtab-1k/dtd", "task"),
        ] {
            try FileManager.default.createSymbolicLink(
                at: folder.appendingPathComponent(name),
                withDestinationURL: folder.appendingPathComponent(part))
        }
        try Fixture.writeAnnotated("few-shot/food101", images: "images/", in: folder)
        try folder.write(
            "sweep.yaml",
            "model: vit\ndata: task\nwarmup-epochs: 1\nsweep: {method: [lora, linear], lr: {log: [1e-3, 1e-1]}}\n"
                + "search: random\ntrials: 3\nseeds: [0, 1]\nhalving: {epochs: [1, 3], keep: 0.333}\ntest: true\n"
        )
    }

    @Test("Every example of the page of commands runs, and its result is what its schema says")
    func examples() throws {
        let takesDevice = try Self.commands()
        try Fixture.withFolder { folder in
            try fill(folder)
            var results = ""
            for words in try Self.examples() {
                let names = [2, 1].map { words.prefix($0).joined(separator: " ") }
                let name = try #require(names.first { takesDevice[$0] != nil }, "\(words)")
                let namesDevice = takesDevice[name] == false || words.contains("--device")
                let arguments = words + ["--json"] + (namesDevice ? [] : ["--device", "cpu"])
                // What tune finds in a moment is no tuning for others.
                let outcome = try Glora.succeed(
                    arguments, in: folder, environment: ["GLORA_CACHE": folder.path + "/cache"])
                let schema = "glora.\(name.replacing(" ", with: "."))/"
                #expect(try outcome.json()["schema"]?.stringValue?.hasPrefix(schema) == true, "\(words)")
                results += outcome.output
            }
            results += try Glora.succeed(["--version", "--json"], in: folder).output
            try Self.expectValid(results, in: folder)
            for run in ["a", "b", "c"] {
                let metrics = folder.appendingPathComponent("runs/\(run)/metrics.jsonl")
                let lines = try String(contentsOf: metrics, encoding: .utf8)
                #expect(lines.split(separator: "\n").count > 4)
                try Self.expectValid(lines, as: "glora.metrics/1", in: folder)
            }
        }
    }

    @Test("Every command has an example, a schema and a line in the table of schemas; there are no others")
    func complete() throws {
        let commands = try Set(Self.commands().keys)
        #expect(commands.count > 20)
        let examples = try Self.examples()
        for command in commands {
            let words = command.split(separator: " ").map(String.init)
            #expect(examples.contains { $0.starts(with: words) }, "\(command) has no example")
        }
        // --version is no command, but has a result; a run's metrics are a file.
        let names = Set(commands.map { $0.replacing(" ", with: ".") }).union(["version", "metrics"])
        let files = try FileManager.default.contentsOfDirectory(atPath: Self.schemas.path)
        #expect(Set(files) == Set(names.map { $0 + ".schema.json" }))
        let titles = try files.map { file in
            let schema = try JSONValue(contentsOf: Self.schemas.appendingPathComponent(file))
            return try #require(schema["title"]?.stringValue, "\(file)")
        }
        #expect(try Set(titles) == Set(Self.firstCells("MachineReadable")))
    }

    @Test("The program ends with the codes of the table, and a result says when it was stopped")
    func exitCodes() throws {
        try Fixture.withFolder { folder in
            func stop(_ arguments: [String], whenTraining run: String) throws -> Glora.Outcome {
                let running = try Glora.start(
                    arguments + ["--epochs", "100000", "--json"], in: folder)
                running.wait { (try? folder.bytes(run + "/metrics.jsonl"))?.isEmpty == false }
                running.send(SIGINT)
                return try running.outcome()
            }
            let stopped = [
                try stop(Fixture.train("long"), whenTraining: "long"),
                try stop(
                    [
                        "compare", "--data", "task", "--model", "model", "--methods", "linear", "--device",
                        "cpu", "--output", "out",
                    ], whenTraining: "out/task/linear/lr-1e-3/seed-0"),
            ]
            for outcome in stopped {
                #expect(try outcome.json()["finished"]?.booleanValue == false)
                #expect(outcome.exitCode == 130)
            }
            try Self.expectValid(stopped.map(\.output).joined(), in: folder)
            var codes = stopped.map(\.exitCode)
            codes.append(try Glora.run(["devices"], in: folder).exitCode)
            for arguments in [["inspect", "--run", "nowhere"], ["devices", "--colour"]] {
                let outcome = try Glora.run(arguments + ["--json"], in: folder)
                #expect(outcome.output.isEmpty && outcome.sentence != nil, "\(outcome.errors)")
                codes.append(outcome.exitCode)
            }
            #expect(try Set(codes) == Set(Self.firstCells("ExitCodes").map { Int32($0) }))
        }
    }
}
