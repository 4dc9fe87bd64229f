import ArgumentParser
import Foundation
import TensorCore
import Training

/// Where a command prints: with `--json` its result is the last line of standard output, and all else goes to standard error.
struct Console {
    let isJSON: Bool
    private let isTerminal = isatty(2) == 1

    /// A line for the person who runs the command.
    func say(_ line: String) { Console.write(line.printable + "\n", to: isJSON ? 2 : 1) }

    /// A warning or an assumption, always on standard error.
    func note(_ line: String) { Console.write("note: \(line.printable)\n", to: 2) }

    /// A line that the next one replaces on a terminal; elsewhere it is left out, `say` marks the milestones.
    func progress(_ line: String) {
        if isTerminal { Console.write("\r\u{1b}[2K\(line.printable)", to: 2) }
    }

    /// Clears the progress line.
    func endProgress() {
        if isTerminal { Console.write("\r\u{1b}[2K", to: 2) }
    }

    /// The result for machines: one object on one line. Its first key is the name of its `schema`: `glora.train/1` is described by
    /// glora.docc/Resources/schemas/train.schema.json, and a key that changes its meaning or goes makes it `/2`.
    func result(_ value: some Encodable, schema: String) throws {
        guard isJSON else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let data: Data
        do { data = try encoder.encode(value) } catch EncodingError.invalidValue(let number, let context) {
            let path = context.codingPath.map(\.stringValue).joined(separator: ".")
            throw TrainingError.run(
                "the result's \(path) is \(number), not a finite number; nothing of it can be used")
        }
        // What the encoder leaves of control characters stands inside strings, where JSON has its own escapes for them.
        let text = String(decoding: data, as: UTF8.self).dropFirst().unicodeScalars.reduce(
            into: "{\"schema\":\"\(schema)\","
        ) { text, scalar in
            guard String(scalar).printable != String(scalar) else {
                return text.unicodeScalars.append(scalar)
            }
            let digits = String(scalar.value, radix: 16)
            text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        }
        Console.write(text + "\n", to: 1)
    }

    // MARK: Streams

    /// Why standard output couldn't be written to, if it couldn't. A closed pipe (`| head`) is the reader's choice, no error of ours.
    nonisolated(unsafe) private static var outputFailure: Int32?

    /// Whether there was no standard output at the start.
    nonisolated(unsafe) private static var outputWasClosed = false

    /// Whether a failure to write is the program's; a comparison's cells leave it to the comparison.
    nonisolated(unsafe) static var outputCounts = true

    /// Opens what is closed of the three streams to nowhere: else the next file that is opened would receive what is printed.
    static func openClosedStreams() {
        for stream: Int32 in 0...2 where fcntl(stream, F_GETFD) < 0 {
            if stream == 1 { outputWasClosed = true }
            _ = open("/dev/null", stream == 0 ? O_RDONLY : O_WRONLY)
        }
    }

    /// Writes text to standard output (1) or standard error (2) as it is.
    private static func write(_ text: String, to stream: Int32) {
        if stream == 1, outputWasClosed { outputFailure = EBADF }
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Foundation.write(stream, $0.baseAddress, $0.count) }
            if count >= 0 {
                rest = rest.dropFirst(count)
            } else if errno == EAGAIN {
                usleep(1000)  // a terminal that another program has made non-blocking
            } else if errno != EINTR {
                if stream == 1, errno != EPIPE, outputFailure == nil { outputFailure = errno }
                return
            }
        }
    }

    /// Ends the program as `error` says, or well without one. A result that could not be printed is no success.
    static func exit(_ error: (any Error)?) -> Never {
        var code = error.map { Glora.exitCode(for: $0).rawValue } ?? 0
        if let error, !(error is ExitCode) {
            // A name in an error may be a whole file of a stranger's.
            let whole = Glora.fullMessage(for: printable(error))
            let isShort = code == 0 || whole.utf8.count <= 10_000
            let message = isShort ? whole : "\(whole.prefix(2000)) […] \(whole.suffix(500))"
            if !message.isEmpty { write(message.printableLines + "\n", to: code == 0 ? 1 : 2) }
        }
        if let failure = outputFailure, outputCounts, code == 0 {
            write(
                "Error: standard output can't be written to: \(String(cString: strerror(failure)))\n", to: 2)
            code = 1
        }
        Foundation.exit(code)
    }

    /// The error with its sentence on one line: names in it are strangers'. Of more lines are only usages, and drivers' logs.
    private static func printable(_ error: any Error) -> any Error {
        if let error = error as? ValidationError { return ValidationError(error.message.printable) }
        if error is BackendError || Glora.exitCode(for: error) != .failure { return error }
        return Sentence(description: Glora.message(for: error).printable)
    }

    private struct Sentence: Error, CustomStringConvertible { let description: String }
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

/// Ctrl-C asks for a stop after the step, as do SIGTERM and a terminal that is closed; a second Ctrl-C ends the program at once.
enum Interrupt {
    nonisolated(unsafe) private static var isRequested: sig_atomic_t = 0
    nonisolated(unsafe) private static var child: pid_t = 0

    static func install() {
        signal(SIGINT) { _ in
            Interrupt.request()
            signal(SIGINT, SIG_DFL)
        }
        signal(SIGTERM) { _ in Interrupt.request() }
        let before = signal(SIGHUP) { _ in Interrupt.request() }
        // nohup has it ignored, and so it stays.
        if unsafeBitCast(before, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self) {
            signal(SIGHUP, SIG_IGN)
        }
    }

    static var wasRequested: Bool { isRequested != 0 }

    /// Runs a process of this program to its end; when a stop is asked for, it is asked too. By SIGTERM: a terminal's Ctrl-C
    /// reaches it as well, and SIGINT would be its second.
    static func run(_ start: () throws -> ChildProcess) throws -> ChildProcess.Ending {
        let process = try start()
        child = process.id
        defer { child = 0 }
        if wasRequested { kill(child, SIGTERM) }
        return process.wait()
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
