import Foundation
import TensorCore

/// Runs this program's own commands, each as a process of its own, so that a driver that dies or hangs costs a part of the report.
struct PartRunner {
    /// Why there is no result: `died of signal 11 (Segmentation fault) after 2 s`.
    struct Failure: Error, CustomStringConvertible { let description: String }

    /// When the time of the whole examination is up.
    let end: ContinuousClock.Instant

    /// A command's result, and what it noted beside. It has `limit` seconds at most. Throws `Failure`.
    func run<Result: Decodable>(
        _ arguments: [String], as type: Result.Type, within limit: Double, variables: [String: String] = [:]
    ) throws -> (result: Result, notes: [String]) {
        if Interrupt.wasRequested { throw Failure(description: "left out: stopped") }
        let seconds = min(limit, (end - ContinuousClock.now) / .seconds(1))
        guard seconds > 1 else { throw Failure(description: "left out: the time is up") }
        guard let (output, errors) = files() else {
            throw Failure(description: "can't be started: there is no room for temporary files")
        }
        defer { for file in [output, errors] { fclose(file) } }
        let process: ChildProcess
        // Without the runtime's pages on a crash, the last line is the driver's or the command's.
        do {
            process = try ChildProcess(
                "/proc/self/exe", arguments + ["--json"], streams: (fileno(output), fileno(errors)),
                variables: variables.merging(["SWIFT_BACKTRACE": "enable=no"]) { $1 })
        } catch { throw Failure(description: "can't be started: \(error)") }
        let began = ContinuousClock.now
        var ending = process.wait(seconds: 0.1)
        while ending == nil, began.secondsPassed < seconds, !Interrupt.wasRequested {
            ending = process.wait(seconds: 0.1)
        }
        // A process that has ended may have left others behind, which try a driver.
        kill(-process.id, SIGKILL)
        if ending == nil {
            // What hangs in a driver of the system's kernel can't be killed.
            let hasEnded = process.wait(seconds: 5) != nil
            let passed = began.secondsPassed.duration
            throw Failure(
                description: Interrupt.wasRequested
                    ? "stopped after \(passed)"
                    : "not done after \(passed), and \(hasEnded ? "ended" : "not to be ended")")
        }
        let lines = text(errors).split(separator: "\n").map { String($0).withoutNames }
        // A self-test with failures ends with status 1 and has its result.
        if case .exit(0...1) = ending, let last = text(output).split(separator: "\n").last,
            let object = try? JSONSerialization.jsonObject(with: Data(last.utf8)),
            let named = try? JSONSerialization.data(withJSONObject: withoutNames(object)),
            let result = try? JSONDecoder().decode(type, from: named)
        {
            return (result, lines.filter { $0.hasPrefix("note: ") }.map { String($0.dropFirst(6)) })
        }
        throw Failure(description: reason(ending!, after: began.secondsPassed, lines))
    }

    /// The same object with every string `withoutNames`.
    private func withoutNames(_ object: Any) -> Any {
        switch object {
        case let text as String: text.withoutNames
        case let list as [Any]: list.map(withoutNames)
        case let members as [String: Any]: members.mapValues(withoutNames)
        default: object
        }
    }

    private func reason(
        _ ending: ChildProcess.Ending, after seconds: Double, _ lines: [String]
    ) -> String {
        let last = lines.last { !$0.hasPrefix("note: ") }.map { "; its last line: \($0.prefix(300))" } ?? ""
        switch ending {
        case .signal(let signal):
            return
                "died of signal \(signal) (\(String(cString: strsignal(signal)))) after \(seconds.duration)"
                + (signal == SIGKILL ? ", as Linux does when memory runs out" : "") + last
        case .exit(let status):
            if let error = lines.first(where: { $0.hasPrefix("Error: ") }) {
                return "failed: \(error.dropFirst(7).prefix(1000))"
            }
            return "ended with status \(status) and without a result" + last
        }
    }

    private func files() -> (FilePointer, FilePointer)? {
        guard let output = tmpfile() else { return nil }
        guard let errors = tmpfile() else {
            fclose(output)
            return nil
        }
        return (output, errors)
    }

    private typealias FilePointer = UnsafeMutablePointer<FILE>

    /// The end of what was written to the file: some drivers write without end.
    private func text(_ file: FilePointer) -> String {
        let limit = 4 << 20
        let size = Int(lseek(fileno(file), 0, SEEK_END))
        lseek(fileno(file), off_t(max(0, size - limit)), SEEK_SET)
        var bytes = [UInt8](repeating: 0, count: min(size, limit))
        var count = 0
        while count < bytes.count {
            let read = bytes.withUnsafeMutableBytes {
                Foundation.read(fileno(file), $0.baseAddress! + count, $0.count - count)
            }
            guard read > 0 else { break }
            count += read
        }
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}

extension String {
    /// The text without what names a person, a machine or its folders: a report is for strangers.
    var withoutNames: String {
        var host = [CChar](repeating: 0, count: 256)
        gethostname(&host, host.count - 1)
        let name = String(decoding: host.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let names = [NSUserName(), name, name.split(separator: ".").first.map(String.init) ?? ""]
        return names.filter { !$0.isEmpty }.reduce(withoutPaths) { text, name in
            text.replacingOccurrences(
                of: "\\b" + NSRegularExpression.escapedPattern(for: name) + "\\b", with: "…",
                options: .regularExpression)
        }
    }

    /// The text with `/…` in place of each path but the system's own.
    private var withoutPaths: String {
        var text = self
        // These may have spaces in them.
        for folder in [
            NSHomeDirectory(), FileManager.default.currentDirectoryPath, NSTemporaryDirectory(),
        ] {
            let folder = folder.hasSuffix("/") ? String(folder.dropLast()) : folder
            if !folder.isEmpty { text = text.replacingOccurrences(of: folder, with: "/…") }
        }
        // "GB/s" is none, nor is what begins with "~/".
        return text.replacingOccurrences(
            of: #"(?<![\w)~…])/(?!(etc|usr/lib|usr/share|dev|proc|sys)/)[^\s:;,'"`()]+"#, with: "/…",
            options: .regularExpression)
    }
}
