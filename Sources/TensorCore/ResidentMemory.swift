import Foundation

/// The process's resident memory, from Linux.
package enum ResidentMemory {
    /// Bytes now.
    package static var current: Int { value("VmRSS:") }
    /// The most bytes so far.
    package static var peak: Int { value("VmHWM:") }

    /// Lets the peak begin anew at what is resident now. Where Linux doesn't allow that, it stays the process's.
    package static func resetPeak() {
        guard let file = FileHandle(forWritingAtPath: "/proc/self/clear_refs") else { return }
        try? file.write(contentsOf: Data("5".utf8))
        try? file.close()
    }

    private static func value(_ key: String) -> Int {
        guard let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8),
            let line = status.split(separator: "\n").first(where: { $0.hasPrefix(key) }),
            let kilobytes = line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap({ Int($0) })
        else { return 0 }
        return kilobytes << 10
    }
}
