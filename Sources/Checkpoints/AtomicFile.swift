import Foundation

/// Files that are either the old ones or the new ones, whole, whatever happens in between.
///
/// The bytes go to a temporary name in the same folder, are synced to the disk, and take the final name by a rename;
/// the folder is synced last, so that the new name survives a power cut.
public enum AtomicFile {
    /// Writes `data` as the file at `url`. Throws `CheckpointError` with the path and the system's reason, and
    /// leaves what was there before.
    public static func write(_ data: some ContiguousBytes, to url: URL) throws {
        try write(to: url) { writer in try data.withUnsafeBytes { try writer.write($0) } }
    }

    /// Writes `text` in UTF-8 as the file at `url`; errors as above.
    public static func write(_ text: String, to url: URL) throws {
        try write(Array(text.utf8), to: url)
    }

    /// Writes what `body` writes as the file at `url`; errors as above, and those of `body`.
    public static func write(to url: URL, _ body: (Writer) throws -> Void) throws {
        // A link stays a link: its target is what is replaced.
        let target = url.resolvingSymlinksInPath()
        var status = stat()
        if stat(target.path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            throw CheckpointError("cannot write \(url.path): it is not a file; choose another name")
        }
        let folder = target.deletingLastPathComponent()
        let suffix = String(UInt32.random(in: .min ... .max), radix: 16)
        let temporary = folder.appendingPathComponent(
            ".\(target.lastPathComponent).\(getpid()).\(suffix).tmp"
        ).path
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw failure(url.path, errno) }
        var isOpen = true
        do {
            try body(Writer(descriptor: descriptor, path: url.path))
            guard fsync(descriptor) == 0 else { throw failure(url.path, errno) }
            isOpen = false
            // Network file systems report a full disk only here.
            guard close(descriptor) == 0 else { throw failure(url.path, errno) }
            guard rename(temporary, target.path) == 0 else { throw failure(url.path, errno) }
        } catch {
            if isOpen { close(descriptor) }
            unlink(temporary)
            throw error
        }
        try sync(folder: folder)
    }

    /// Makes the folder at `url` and those above it. Throws `CheckpointError`; a folder that exists is no error.
    public static func createFolder(_ url: URL) throws {
        do {
            try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        } catch {
            throw CheckpointError(
                "cannot make the folder \(url.path); check its parent's permissions and that no file has its name"
            )
        }
    }

    private static func sync(folder: URL) throws {
        let descriptor = open(folder.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(folder.path, errno) }
        defer { close(descriptor) }
        // Some file systems can't sync a folder and say EINVAL; the rename is all they offer.
        guard fsync(descriptor) == 0 || errno == EINVAL else { throw failure(folder.path, errno) }
    }

    fileprivate static func failure(_ path: String, _ code: Int32) -> CheckpointError {
        let remedy =
            switch code {
            case ENOSPC, EDQUOT: "free some space or choose another disk"
            case ENOENT, ENOTDIR: "make its folder first"
            case EACCES, EPERM, EROFS: "check the permissions or choose another folder"
            default: "choose another folder"
            }
        return CheckpointError("cannot write \(path): \(String(cString: strerror(code))); \(remedy)")
    }

    /// The open temporary file.
    public struct Writer {
        let descriptor: Int32
        let path: String

        /// Appends bytes. Throws `CheckpointError`, for instance when the disk is full.
        public func write(_ bytes: UnsafeRawBufferPointer) throws {
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
