import Foundation

/// A folder that one process at a time writes into, for as long as that process has this object.
///
/// An advisory lock (flock) on the file `.glora-lock` in the folder, which says who holds it. The system lets go of it when the
/// process ends, however it does: a file that is left over is no obstacle.
public final class FolderLock {
    /// The lock's file in a folder.
    public static let fileName = ".glora-lock"
    /// A sentence where the file system can't lock: then nothing keeps another process out.
    public let note: String?
    private let path: String
    private var descriptor: Int32
    /// Folders that weren't there before, the innermost first.
    private let made: [String]

    /// Locks the folder, which is made if it isn't there, and sweeps what a killed process has left in it and in `parts`, the folders
    /// within it that are written into too.
    ///
    /// `holder` is who asks, as another process will read it: `glora train`. `setting` is the one that would name another folder.
    /// Throws `CheckpointError` when another process holds the lock (who, and since when), when one of `parts` is a symbolic
    /// link, and when the folder can't be written.
    public init(_ folder: URL, parts: [String] = [], holder: String, orGive setting: String? = nil) throws {
        path = folder.appendingPathComponent(FolderLock.fileName).path
        var missing: [String] = []
        var ancestor = folder
        while !["/", ".."].contains(ancestor.lastPathComponent),
            !FileManager.default.fileExists(atPath: ancestor.path)
        {
            missing.append(ancestor.path)
            ancestor.deleteLastPathComponent()
        }
        made = missing
        var reason: Int32 = 0
        descriptor = -1
        repeat {
            if descriptor >= 0 { close(descriptor) }
            try AtomicFile.createFolder(folder)
            descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o666)
            // What another user has left can be locked, if not written.
            if descriptor < 0, errno == EACCES { descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) }
            // Between the two the folder's holder has removed it.
            if descriptor < 0, errno == ENOENT { continue }
            guard descriptor >= 0 else { throw AtomicFile.failure(path, errno) }
            reason = FolderLock.lock(descriptor, LOCK_EX | LOCK_NB)
            if reason == EWOULDBLOCK {
                let other = FolderLock.read(descriptor)
                close(descriptor)
                descriptor = -1
                throw CheckpointError(
                    "\(folder.path) is in use by \(other); wait for it or stop it"
                        + (setting.map { ", or give another `\($0)`" } ?? ""))
            }
            // A holder removes the file at its end: who opened it before has locked what no one will find.
        } while !FolderLock.isNamed(path, descriptor)
        note =
            reason == 0
            ? nil
            : "\(folder.path) can't be locked (\(String(cString: strerror(reason)))); see that no other command writes into it"
        let text = Array(
            "process \(getpid()) (\(holder)) on \(FolderLock.host) since \(FolderLock.wallClock)\n".utf8)
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_nlink < 2 else {
            close(descriptor)
            descriptor = -1
            throw CheckpointError("\(path) is not a lock's file, but another one by a second name; remove it")
        }
        // On a full disk the next file says so.
        if ftruncate(descriptor, 0) == 0 { _ = pwrite(descriptor, text, text.count, 0) }
        for part in parts {
            let url = folder.appendingPathComponent(part)
            try FolderLock.refuseLink(url, out: folder)
            AtomicFile.sweep(url)
        }
        AtomicFile.sweep(folder)
    }

    deinit { release() }

    /// Who writes into the folder now, as that process says: `process 4711 (glora train) on HOST since …`; nil for nobody.
    public static func currentHolder(of folder: URL) -> String? {
        let descriptor = open(
            folder.appendingPathComponent(fileName).path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        // A shared lock, so that others who ask at the same time aren't taken for a holder; closing lets go of it.
        return lock(descriptor, LOCK_SH | LOCK_NB) == EWOULDBLOCK ? read(descriptor) : nil
    }

    /// Removes the file and unlocks the folder. Folders that were made for the lock and hold nothing are removed too: a command that
    /// failed before it wrote leaves none.
    public func release() {
        guard descriptor >= 0 else { return }
        if FolderLock.isNamed(path, descriptor) { unlink(path) }
        close(descriptor)
        descriptor = -1
        for folder in made where rmdir(folder) != 0 { break }
    }

    /// Throws `CheckpointError` where `url`, which is to be written into, is a symbolic link out of `folder`.
    public static func refuseLink(_ url: URL, out folder: URL) throws {
        var status = stat()
        if lstat(url.path, &status) == 0, status.st_mode & S_IFMT == S_IFLNK {
            throw CheckpointError(
                "\(url.path) is a symbolic link, which would lead what is written out of \(folder.path); put a folder in its place"
            )
        }
    }

    /// flock, through signals. Returns the reason why not, or 0.
    static func lock(_ descriptor: Int32, _ operation: Int32) -> Int32 {
        while flock(descriptor, operation) != 0 {
            if errno != EINTR { return errno }
        }
        return 0
    }

    /// Whether `path` still is the open file.
    private static func isNamed(_ path: String, _ descriptor: Int32) -> Bool {
        var (open, named) = (stat(), stat())
        return fstat(descriptor, &open) == 0 && lstat(path, &named) == 0 && open.st_ino == named.st_ino
            && open.st_dev == named.st_dev
    }

    /// What the holder wrote.
    private static func read(_ descriptor: Int32) -> String {
        var bytes = [UInt8](repeating: 0, count: 300)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        let line = bytes.prefix(max(count, 0)).prefix { $0 >= UInt8(ascii: " ") }
        return line.isEmpty ? "another process" : String(decoding: line, as: UTF8.self)
    }

    private static var host: String {
        var bytes = [UInt8](repeating: 0, count: 256)
        let isKnown = bytes.withUnsafeMutableBytes {
            gethostname($0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count - 1) == 0
        }
        return isKnown ? String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self) : "an unknown host"
    }

    /// Of this place: 2026-11-29 08:15.
    private static var wallClock: String {
        var (now, parts) = (time(nil), tm())
        localtime_r(&now, &parts)
        return String(
            format: "%04d-%02d-%02d %02d:%02d", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
            parts.tm_hour, parts.tm_min)
    }
}
