import ArgumentParser
import Foundation
import Training

/// Where a command prints: with `--json` its result is the last line of standard output, and all else goes to standard error.
struct Console {
    let isJSON: Bool
    private let isTerminal = isatty(2) == 1

    /// A line for the person who runs the command.
    func say(_ line: String) {
        write(line + "\n", to: isJSON ? .standardError : .standardOutput)
    }

    /// A warning or an assumption, always on standard error.
    func note(_ line: String) { write("note: \(line)\n", to: .standardError) }

    /// A line that the next one replaces on a terminal; elsewhere it is left out, `say` marks the milestones.
    func progress(_ line: String) {
        if isTerminal { write("\r\u{1b}[2K\(line)", to: .standardError) }
    }

    /// Clears the progress line.
    func endProgress() {
        if isTerminal { write("\r\u{1b}[2K", to: .standardError) }
    }

    /// The result for machines: one object on one line.
    func result(_ value: some Encodable) throws {
        guard isJSON else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let data: Data
        do { data = try encoder.encode(value) } catch EncodingError.invalidValue(let number, let context) {
            let path = context.codingPath.map(\.stringValue).joined(separator: ".")
            throw TrainingError.run(
                "the result's \(path) is \(number), not a finite number; nothing of it can be used")
        }
        write(String(decoding: data, as: UTF8.self) + "\n", to: .standardOutput)
    }

    private func write(_ text: String, to stream: FileHandle) {
        // A closed pipe (`| head`) is the reader's choice, no error of ours.
        try? stream.write(contentsOf: Data(text.utf8))
    }
}

/// The flags that every command has.
struct CommonFlags: ParsableArguments {
    @Flag(
        help:
            "Print a machine-readable result as the last line of standard output, all else on standard error."
    )
    var json = false

    var console: Console { Console(isJSON: json) }
}

/// Ctrl-C asks for a stop after the step; a second one ends the program at once.
enum Interrupt {
    nonisolated(unsafe) private static var isRequested: sig_atomic_t = 0
    nonisolated(unsafe) private static var child: pid_t = 0

    static func install() {
        signal(SIGINT) { _ in
            Interrupt.request()
            signal(SIGINT, SIG_DFL)
        }
        signal(SIGTERM) { _ in Interrupt.request() }
    }

    static var wasRequested: Bool { isRequested != 0 }

    /// Runs a process of this program to its end; when a stop is asked for, it is asked too. By SIGTERM: a terminal's Ctrl-C
    /// reaches it as well, and SIGINT would be its second.
    static func run(_ process: Process) throws {
        try process.run()
        child = process.processIdentifier
        defer { child = 0 }
        if wasRequested { kill(child, SIGTERM) }
        process.waitUntilExit()
    }

    private static func request() {
        isRequested = 1
        if child != 0 { kill(child, SIGTERM) }
    }
}

extension Double {
    /// The number with this many decimals.
    func fixed(_ decimals: Int) -> String { String(format: "%.\(decimals)f", self) }

    /// Seconds as `1 h 02 min`, `3 min 20 s` or `45 s`.
    var duration: String {
        // What no clock has measured, a file may say.
        guard abs(self) < 1e15 else { return "?" }
        let seconds = Int(self.rounded())
        if seconds >= 3600 { return String(format: "%d h %02d min", seconds / 3600, seconds / 60 % 60) }
        if seconds >= 60 { return String(format: "%d min %02d s", seconds / 60, seconds % 60) }
        return "\(seconds) s"
    }
}

extension Int {
    /// The number with its thousands apart: 1,603,776.
    var grouped: String {
        var digits = String(magnitude)
        var groups: [String] = []
        while digits.count > 3 {
            groups.insert(String(digits.suffix(3)), at: 0)
            digits.removeLast(3)
        }
        groups.insert(digits, at: 0)
        return (self < 0 ? "-" : "") + groups.joined(separator: ",")
    }
}
