import Checkpoints
import Foundation
import TensorCore
import Testing

/// What is printed is safe to print and to paste, and counts only when it could be printed.
@Suite("What is printed is safe to print and to paste")
struct PrintingTests {
    @Test("Characters that would move the cursor are printed as escapes")
    func printable() {
        #expect("plain ä 한국어 👩‍👩‍👧 e\u{301}".printable == "plain ä 한국어 👩‍👩‍👧 e\u{301}")
        #expect(
            "a\nb\t\u{1b}[31m\u{7f}\u{9b}2J\u{202e}x\u{2028}\0".printable
                == "a\\nb\\t\\u{1b}[31m\\u{7f}\\u{9b}2J\\u{202e}x\\u{2028}\\u{0}")
        #expect("a\r\nb".printable == "a\\r\\nb" && "a\nb\u{7}".printableLines == "a\nb\\u{7}")
    }

    @Test(
        "A setting between backquotes is printed as its flag, and nothing else is",
        arguments: [
            ("a smaller `batch-size` or another `device`", "a smaller --batch-size or another --device"),
            ("`lr` must be a number, not nan", "--lr must be a number, not nan"),
            ("train on, or read `checkpoint last`", "train on, or read --checkpoint last"),
            ("`path` my file.json can't be read", "--path my file.json can't be read"),
            ("go on with `glora train --run a --resume`", "go on with `glora train --run a --resume`"),
            ("it's `N` or `2x`, a ` or `", "it's `N` or `2x`, a ` or `"),
            ("a`b has no `heads 3`", "a`b has no --heads 3"),
        ])
    func spelledAsFlags(_ sentence: String, _ printed: String) {
        #expect(sentence.spelledAsFlags == printed)
    }

    @Test(
        "A shell reads a quoted word as it was",
        arguments: [
            "runs/a-1.2", "", "two words", "it's", "$(touch x)`;&|<>*?~!#\"\\", "a\nb", "\u{1b}[31m'\\",
            "ä\u{202e}", "r'\u{301};touch PWNED;#", "\n'\u{301}",
        ])
    func shellQuoted(_ word: String) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/bash")
        process.arguments = ["-c", "printf %s \(word.shellQuoted)"]
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        let read = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        #expect(String(decoding: read, as: UTF8.self) == word)
        #expect(word.shellQuoted == word.shellQuoted.printable)
    }

    /// Nothing but line ends and what can be shown, wherever the name comes from.
    private func expectPrintable(_ outcome: Glora.Outcome, _ what: String) {
        for text in [outcome.output, outcome.errors] { #expect(text == text.printableLines, "\(what)") }
    }

    @Test("Control characters in names are shown, not obeyed")
    func names() throws {
        try Fixture.withFolder { folder in
            let name = "x\u{1b}[2J\u{9b}31m\nnote: all is well\u{202e}"
            let bad = folder.appendingPathComponent(name)
            try FileManager.default.createDirectory(at: bad, withIntermediateDirectories: true)
            // A class of that name; a tensor; a line of a list; a key of a configuration; flags and paths.
            try Fixture.own("folders", in: folder)
            for split in ["train", "val", "test"] {
                let classes = folder.appendingPathComponent("folders/\(split)")
                let first = try FileManager.default.contentsOfDirectory(atPath: classes.path).sorted()[0]
                try FileManager.default.moveItem(
                    at: classes.appendingPathComponent(first), to: classes.appendingPathComponent(name))
            }
            try writeSafetensors(
                [name: HostTensor(shape: [1], values: [1])],
                to: folder.appendingPathComponent("t.safetensors"))
            try "\(name)".write(
                to: folder.appendingPathComponent("list.txt"), atomically: true, encoding: .utf8)
            try "? \"x\\e[2J\\n\\x9bnote: b\"\n: 1\n".write(
                to: folder.appendingPathComponent("c.yaml"), atomically: true, encoding: .utf8)
            let commands: [[String]] = [
                Fixture.train("new") + ["--data", "folders", "--epochs", "1"],
                ["eval", "--run", "new", "--data", "folders", "--device", "cpu", "--json"],
                ["inspect", "--model", "t.safetensors"], ["inspect", "--model", name],
                ["eval", "--run", name, "--data", "task"],
                ["train", "--config", "c.yaml", "--run", "b"], ["train", "--run", name, "--resume"],
                ["train", "--\(name)", "1"], ["train", "--model", "model", "--data", name, "--run", "b"],
                ["eval", "--model", "model", "--data", "list.txt", "--device", name],
                ["report", "--run", "new", "--output", "report.html"],
            ]
            for command in commands {
                expectPrintable(try Glora.run(command, in: folder), "\(command)")
            }
            let page = try String(contentsOf: folder.appendingPathComponent("report.html"), encoding: .utf8)
            #expect(page == page.printableLines)
        }
    }

    @Test("A command that is printed can be pasted")
    func commands() throws {
        try Fixture.withFolder { folder in
            try FileManager.default.copyItem(
                at: try Fixture.shared.get().appendingPathComponent("run"),
                to: folder.appendingPathComponent("my run's"))
            try Glora.succeed(["report", "--run", "my run's", "--output", "report.html"], in: folder)
            let page = try String(contentsOf: folder.appendingPathComponent("report.html"), encoding: .utf8)
            let quoted = (folder.path + "/my run's/config.yaml").shellQuoted
            #expect(page.contains("glora train --config \(quoted) --run again"), "\(quoted)")
        }
    }

    @Test("Standard output that can't be written to is an error; a reader that has left is none")
    func output() throws {
        let folder = FileManager.default.temporaryDirectory
        for arguments in [["devices"], ["--version"], ["train", "--help"], ["devices", "--json"]] {
            let full = try Glora.run(arguments, in: folder, setup: "exec > /dev/full;")
            #expect(full.exitCode == 1 && full.sentence?.contains("No space left") == true, "\(full.errors)")
            let none = try Glora.run(arguments, in: folder, setup: "exec >&-;")
            #expect(
                none.exitCode == 1 && none.sentence?.contains("standard output") == true, "\(none.errors)")
            let closed = try Glora.run(arguments, in: folder, setup: "exec > >(:); wait $!;")
            #expect(closed.exitCode == 0 && closed.sentence == nil, "\(arguments) \(closed.errors)")
        }
    }
}
