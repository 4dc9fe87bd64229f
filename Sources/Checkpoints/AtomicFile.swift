import Foundation

/// Files that are either the old ones or the new ones, whole, whatever happens in between.
///
/// The bytes go to a temporary name in the same folder, are synced to the disk, and take the final name by a rename;
/// the folder is synced last, so that the new name survives a power cut. A symbolic link of that name is replaced, never
/// written through: it may have come with the folder. Who was given the name by the user resolves it first.
package enum AtomicFile {
    /// Writes `data` as the file at `url`. Throws `CheckpointError` with the path and the system's reason, and
    /// leaves what was there before.
    package static func write(_ data: some ContiguousBytes, to url: URL) throws {
        try write(to: url) { writer in try data.withUnsafeBytes { try writer.write($0) } }
    }

    /// Writes `text` in UTF-8 as the file at `url`; errors as above.
    package static func write(_ text: String, to url: URL) throws {
        try write(Array(text.utf8), to: url)
    }

    /// Writes what `body` writes as the file at `url`; errors as above, and those of `body`.
    package static func write(to url: URL, _ body: (Writer) throws -> Void) throws {
        var status = stat()
        if lstat(url.path, &status) == 0, ![S_IFREG, S_IFLNK].contains(status.st_mode & S_IFMT) {
            throw CheckpointError("cannot write \(url.path): it is not a file; choose another name")
        }
        let folder = url.deletingLastPathComponent()
        sweep(folder, of: url.lastPathComponent)
        let (descriptor, temporary) = try openTemporary(for: url)
        // It stays locked until it has its name.
        let lock = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
        defer { if lock >= 0 { close(lock) } }
        var isOpen = true
        do {
            try body(Writer(descriptor: descriptor, path: url.path))
            guard fsync(descriptor) == 0 else { throw failure(url.path, errno) }
            isOpen = false
            // Network file systems report a full disk only here.
            guard close(descriptor) == 0 else { throw failure(url.path, errno) }
            guard rename(temporary, url.path) == 0 else { throw failure(url.path, errno) }
        } catch {
            if isOpen { close(descriptor) }
            unlink(temporary)
            throw error
        }
        try sync(folder: folder)
    }

    /// Appends `text` to the file at `url`, which is made if it isn't there, but never through a symbolic link. What a process that
    /// dies has appended may end in the middle. Errors as above.
    package static func append(_ text: String, to url: URL) throws {
        let descriptor = open(url.path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw failure(url.path, errno) }
        defer { close(descriptor) }
        try Array(text.utf8).withUnsafeBytes { try Writer(descriptor: descriptor, path: url.path).write($0) }
    }

    /// A value as JSON with sorted keys and a newline at its end: on one line, or `indented` over many.
    package static func json(_ value: some Encodable, indented: Bool = false) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        if indented { encoder.outputFormatting.insert(.prettyPrinted) }
        return String(decoding: try encoder.encode(value), as: UTF8.self) + "\n"
    }

    /// Makes the folder at `url` and those above it. Throws `CheckpointError`; a folder that exists is no error.
    package static func createFolder(_ url: URL) throws {
        do {
            try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        } catch {
            throw CheckpointError(
                "cannot make the folder \(url.path); check its parent's permissions and that no file has its name"
            )
        }
    }

    /// Removes the temporaries that killed processes have left in a folder, of one file or of all: those that nobody has locked.
    static func sweep(_ folder: URL, of name: String? = nil) {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        for temporary in names {
            // A folder may hold hundreds of thousands of others.
            guard temporary.utf8.first == UInt8(ascii: "."), temporary.hasSuffix(".tmp"),
                let match = temporary.wholeMatch(of: /\.(.+)\.\d+\.[0-9a-f]+\.tmp/),
                name == nil || match.1 == name!
            else { continue }
            let path = folder.appendingPathComponent(temporary).path
            let descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
            guard descriptor >= 0 else { continue }
            if FolderLock.lock(descriptor, LOCK_EX | LOCK_NB) == 0 { unlink(path) }
            close(descriptor)
        }
    }

    /// A new file beside `url`, locked for as long as it is open, for `sweep`.
    private static func openTemporary(for url: URL) throws -> (descriptor: Int32, path: String) {
        while true {
            let suffix = String(UInt32.random(in: .min ... .max), radix: 16)
            let path = url.deletingLastPathComponent()
                .appendingPathComponent(".\(url.lastPathComponent).\(getpid()).\(suffix).tmp").path
            let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
            guard descriptor >= 0 else { throw failure(url.path, errno) }
            // Where files can't be locked, none is swept.
            _ = FolderLock.lock(descriptor, LOCK_EX)
            var status = stat()
            if fstat(descriptor, &status) != 0 || status.st_nlink > 0 { return (descriptor, path) }
            // It was swept before it was locked.
            close(descriptor)
        }
    }

    private static func sync(folder: URL) throws {
        let descriptor = open(folder.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(folder.path, errno) }
        defer { close(descriptor) }
        // Some file systems can't sync a folder and say EINVAL; the rename is all they offer.
        guard fsync(descriptor) == 0 || errno == EINVAL else { throw failure(folder.path, errno) }
    }

    static func failure(_ path: String, _ code: Int32) -> CheckpointError {
        let remedy =
            switch code {
            case ENOSPC, EDQUOT: "free some space or choose another disk"
            case ENOENT, ENOTDIR: "make its folder first"
            case ELOOP: "it is a symbolic link, remove it"
            case EACCES, EPERM, EROFS: "check the permissions or choose another folder"
            default: "choose another folder"
            }
        return CheckpointError("cannot write \(path): \(String(cString: strerror(code))); \(remedy)")
    }

    /// The open temporary file.
    package struct Writer {
        let descriptor: Int32
        let path: String

        /// Appends bytes. Throws `CheckpointError`, for instance when the disk is full.
        package func write(_ bytes: UnsafeRawBufferPointer) throws {
            var done = 0
            while done < bytes.count {
                let count = Foundation.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else { throw AtomicFile.failure(path, count < 0 ? errno : EIO) }
                done += count
            }
        }
    }
}
