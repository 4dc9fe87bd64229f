import Foundation

/// Where a file is, as the system keeps it: bytes, which need not be UTF-8. (An archive made on Windows can unpack to names
/// in GBK or Latin-1; as a `String` they would be other names, and no file.)
public struct FilePath: Hashable, Sendable, CustomStringConvertible {
    /// The bytes, without the zero that ends them in C.
    public let bytes: [UInt8]

    init(_ bytes: some Sequence<UInt8>) { self.bytes = Array(bytes) }

    /// The path of `url`.
    public init(_ url: URL) { bytes = Array(url.path.utf8) }

    /// For messages: bytes that are no UTF-8, and control characters, as `\xb9`.
    public var description: String {
        func isShown(_ scalar: Unicode.Scalar) -> Bool { scalar.value >= 0x20 && scalar.value != 0x7f }
        if let text = String(validating: bytes, as: UTF8.self), text.unicodeScalars.allSatisfy(isShown) {
            return text
        }
        var text = ""
        var rest = bytes[...]
        while let first = rest.first {
            let scalar = (1...4).lazy.compactMap { String(validating: rest.prefix($0), as: UTF8.self) }.first?
                .unicodeScalars.first
            if let scalar, isShown(scalar) {
                text.unicodeScalars.append(scalar)
                rest = rest.dropFirst(UTF8.width(scalar))
            } else {
                text += "\\x" + (first < 16 ? "0" : "") + String(first, radix: 16)
                rest = rest.dropFirst()
            }
        }
        return text
    }

    /// What lies at `name` in this folder; an absolute name stays what it is.
    static func / (folder: FilePath, name: FilePath) -> FilePath {
        name.bytes.first == UInt8(ascii: "/")
            ? name : FilePath(folder.bytes + [UInt8(ascii: "/")] + name.bytes)
    }

    static func / (folder: FilePath, name: String) -> FilePath { folder / FilePath(name.utf8) }

    /// By bytes: for UTF-8 this is Python's order of strings, and torchvision's of classes.
    static func precedes(_ a: FilePath, _ b: FilePath) -> Bool { a.bytes.lexicographicallyPrecedes(b.bytes) }

    func withCString<Result>(_ body: (UnsafePointer<CChar>) throws -> Result) rethrows -> Result {
        try withUnsafeTemporaryAllocation(of: CChar.self, capacity: bytes.count + 1) { text in
            for (index, byte) in bytes.enumerated() { text[index] = CChar(bitPattern: byte) }
            text[bytes.count] = 0
            return try body(text.baseAddress!)
        }
    }
}

/// Why a file or folder can't be used: words to put into a sentence.
struct FileProblem: Error {
    /// errno; 0 for what is there but of another kind.
    let code: Int32
    /// `No such file or directory`, `it is a FIFO`.
    let reason: String
}

/// What lies at a path, links followed.
struct FileStatus {
    /// Which file it is, whatever it is called.
    struct Identity: Hashable {
        let device: UInt64
        let number: UInt64
    }

    let identity: Identity
    let size: Int
    /// nil for a file or a folder.
    let otherKind: String?
    let isFolder: Bool

    init(_ status: stat) {
        identity = Identity(
            device: UInt64(truncatingIfNeeded: status.st_dev),
            number: UInt64(truncatingIfNeeded: status.st_ino))
        size = Int(status.st_size)
        let kind = status.st_mode & S_IFMT
        isFolder = kind == S_IFDIR
        otherKind =
            switch kind {
            case S_IFREG, S_IFDIR: nil
            case S_IFIFO: "a FIFO"
            case S_IFSOCK: "a socket"
            default: "a device"
            }
    }

    /// Throws unless this is a file.
    func requireFile() throws(FileProblem) {
        if let kind = isFolder ? "a folder" : otherKind {
            throw FileProblem(code: 0, reason: "it is \(kind)")
        }
    }
}

extension FilePath {
    /// What lies here.
    func status() throws(FileProblem) -> FileStatus {
        var status = stat()
        guard withCString({ stat($0, &status) }) == 0 else { throw problem(errno) }
        return FileStatus(status)
    }

    /// The same of a file. Nothing is opened, so a FIFO does not wait for its writer.
    func fileStatus() throws(FileProblem) -> FileStatus {
        let status = try status()
        try status.requireFile()
        return status
    }

    /// Whether nothing lies here, not even a link that leads nowhere.
    var isAbsent: Bool {
        var status = stat()
        return withCString { lstat($0, &status) } != 0 && errno == ENOENT
    }

    /// What errno says of this path.
    func problem(_ code: Int32) -> FileProblem {
        var target = [UInt8](repeating: 0, count: Int(PATH_MAX))
        let length = withCString { path in
            target.withUnsafeMutableBytes {
                readlink(path, $0.bindMemory(to: CChar.self).baseAddress!, $0.count)
            }
        }
        if code == ENOENT, length > 0 {
            return FileProblem(
                code: code,
                reason: "it is a symbolic link to \(FilePath(target[..<length])), which isn't there")
        }
        return FileProblem(code: code, reason: String(cString: strerror(code)))
    }

    /// Calls `body` with an open descriptor of the file and its size.
    private func withFile<Result>(_ body: (Int32, Int) -> Result?) throws(FileProblem) -> Result {
        // A FIFO that took the file's place is opened without waiting, and refused.
        let descriptor = withCString { open($0, O_RDONLY | O_NONBLOCK | O_CLOEXEC) }
        guard descriptor >= 0 else { throw problem(errno) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw problem(errno) }
        try FileStatus(status).requireFile()
        guard let result = body(descriptor, Int(status.st_size)) else { throw problem(errno) }
        return result
    }

    /// The file's bytes.
    ///
    /// At most 256 MiB: lists of four million images, and no photograph.
    func read() throws(FileProblem) -> [UInt8] {
        try withFile { descriptor, size in
            if size > 256 << 20 {
                errno = EFBIG
                return nil
            }
            return FilePath.read(descriptor, from: 0, count: size)
        }
    }

    /// At most `count` of the file's bytes: the first, or those in its middle.
    func read(atMost count: Int, fromMiddle: Bool = false) throws(FileProblem) -> [UInt8] {
        try withFile { descriptor, size in
            let count = min(count, size)
            return FilePath.read(descriptor, from: fromMiddle ? (size - count) / 2 : 0, count: count)
        }
    }

    /// Fewer than `count` bytes where the file has become shorter; nil for an error, which errno says.
    private static func read(_ descriptor: Int32, from start: Int, count: Int) -> [UInt8]? {
        var failed = false
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialised in
            while initialised < count {
                let some = pread(
                    descriptor, buffer.baseAddress! + initialised, count - initialised,
                    off_t(start + initialised))
                if some < 0, errno == EINTR { continue }
                failed = some < 0
                guard some > 0 else { break }
                initialised += some
            }
        }
        return failed ? nil : bytes
    }
}
