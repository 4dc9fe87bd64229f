import Foundation
import Synchronization

/// The folder on disk that keeps what is made once for a device: compiled programs, verdicts, tunings.
///
/// A program from it is handed to the driver and runs. So the folder and its files count only when they belong to the user and nobody
/// else may write to them: in a cache that several share, a stranger could have put them there.
package struct CacheFolder: Equatable, Sendable {
    /// Hears, once, why something isn't used.
    nonisolated(unsafe) package static var say: @Sendable (String) -> Void = { _ in }
    private static let said = Mutex<Set<String>>([])

    /// Where it lies; it need not be there yet.
    package let url: URL

    package init(_ url: URL) { self.url = url }

    /// `$GLORA_CACHE`, else `$XDG_CACHE_HOME/swift-glora`, else `~/.cache/swift-glora`. As XDG's specification says, a relative
    /// `$XDG_CACHE_HOME` doesn't count.
    package init(environment: [String: String] = ProcessInfo.processInfo.environment) {
        func folder(_ key: String) -> URL? {
            environment[key].flatMap { $0.isEmpty ? nil : URL(fileURLWithPath: $0, isDirectory: true) }
        }
        let isAbsolute = environment["XDG_CACHE_HOME"]?.hasPrefix("/") == true
        url =
            folder("GLORA_CACHE")
            ?? ((isAbsolute ? folder("XDG_CACHE_HOME") : nil)
            ?? FileManager.default.homeDirectoryForCurrentUser.appendingPathComponent(".cache"))
            .appendingPathComponent("swift-glora")
    }

    /// What a file holds; nil when it isn't there, can't be read, or isn't the user's own.
    package func read(_ name: String) -> Data? {
        let path = url.appendingPathComponent(name).path
        guard isTrusted() else { return nil }
        // Opened first and asked then, so that it can't be another one in between; not through a link.
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        let file = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        if let problem = CacheFolder.problem(of: path, status) {
            CacheFolder.sayOnce("\(problem); remove it")
            return nil
        }
        return try? file.readToEnd() ?? Data()
    }

    /// Writes a file, whole or not at all. Returns whether it could: a folder that can't be written to costs the next start its time,
    /// and nothing else.
    @discardableResult
    package func write(_ name: String, _ bytes: Data) -> Bool {
        let manager = FileManager.default
        if !manager.fileExists(atPath: url.path) {
            try? manager.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            mkdir(url.path, 0o700)
        }
        guard isTrusted() else { return false }
        removeLeftovers()
        let temporary = url.appendingPathComponent("tmp-\(getpid())-\(UInt32.random(in: 0...UInt32.max))")
            .path
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return false }
        let file = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        guard (try? file.write(contentsOf: bytes)) != nil,
            rename(temporary, url.appendingPathComponent(name).path) == 0
        else {
            unlink(temporary)
            return false
        }
        return true
    }

    /// Removes what processes that were killed have left.
    private func removeLeftovers() {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: url.path)) ?? [] {
            let parts = name.split(separator: "-")
            guard parts.count == 3, parts[0] == "tmp", let process = pid_t(parts[1]),
                kill(process, 0) != 0, errno == ESRCH
            else { continue }
            unlink(url.appendingPathComponent(name).path)
        }
    }

    /// Whether the folder is there and the user's own; says why not.
    private func isTrusted() -> Bool {
        var status = stat()
        guard stat(url.path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else { return false }
        var link = stat()
        // A link is the user's own too, or the system's; what else stands at its end, a stranger may have chosen.
        let isOwn =
            lstat(url.path, &link) == 0
            && (link.st_mode & S_IFMT != S_IFLNK || [geteuid(), 0].contains(link.st_uid))
        let strange = isOwn ? nil : "\(url.path) is another user's symbolic link and isn't used"
        guard let problem = strange ?? CacheFolder.problem(of: url.path, status) else { return true }
        CacheFolder.sayOnce(
            "\(problem), so kernels are compiled anew at every start; take it back (chown, chmod go-w), or set GLORA_CACHE to a folder "
                + "of your own")
        return false
    }

    private static func problem(of path: String, _ status: stat) -> String? {
        guard status.st_uid == geteuid() else {
            return "\(path) belongs to another user (\(status.st_uid)) and isn't used"
        }
        return status.st_mode & 0o022 == 0 ? nil : "\(path) may be written to by others and isn't used"
    }

    private static func sayOnce(_ line: String) {
        if said.withLock({ $0.insert(line).inserted }) { say(line) }
    }
}
