import Foundation
import TensorCore

/// The machine beside its devices, as far as a report needs it.
struct HostSystem: Encodable {
    /// `Debian GNU/Linux 12 (bookworm)`.
    let system: String
    /// `6.1.0`; what else a kernel's name has may be its owner's.
    let kernel: String
    /// `x86_64`.
    let architecture: String
    let processor: String
    /// What this program may use.
    let threads: Int
    let memoryBytes: Int

    init() {
        func lines(_ path: String, _ separator: Character) -> [Substring: String] {
            let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
            let pairs = text.split(separator: "\n").map { $0.split(separator: separator, maxSplits: 1) }
            return Dictionary(
                pairs.filter { $0.count == 2 }.map { pair in
                    let value = pair[1].trimmingCharacters(in: CharacterSet(charactersIn: " \t\""))
                    return (pair[0].drop { $0 == " " }.prefix { $0 != "\t" }, value)
                }, uniquingKeysWith: { first, _ in first })
        }
        func word<Tuple>(_ field: Tuple) -> String {
            withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        }
        var names = utsname()
        uname(&names)
        system = lines("/etc/os-release", "=")["PRETTY_NAME"] ?? word(names.sysname)
        kernel = String(word(names.release).prefix { $0.isNumber || $0 == "." })
        architecture = word(names.machine)
        processor = lines("/proc/cpuinfo", ":")["model name"] ?? word(names.machine)
        threads = ProcessLimits.processorCount
        memoryBytes = ProcessLimits.memoryByteCount
    }
}
