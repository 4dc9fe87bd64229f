import Foundation

/// A file open for reading at any offset.
///
/// `pread` rather than `mmap`: when another program truncates the file, a read fails with an error where a mapping
/// would kill the process; and the copy goes straight into the array that is wanted anyway.
final class FileReader: Sendable {
    let path: String
    /// The size in bytes when it was opened.
    let size: Int
    private let descriptor: Int32

    init(_ url: URL) throws {
        path = url.path
        var status = stat()
        guard stat(path, &status) == 0 else {
            throw CheckpointError("cannot open \(path): \(String(cString: strerror(errno))); check the path")
        }
        // Asked before opening: opening a pipe would wait for its writer.
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw CheckpointError("\(path) is not a file; give the path of a file")
        }
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw CheckpointError(
                "cannot open \(path): \(String(cString: strerror(errno))); check its permissions")
        }
        size = Int(status.st_size)
    }

    deinit { close(descriptor) }

    /// Fills `buffer` from `offset` on.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws {
        var done = 0
        while done < buffer.count {
            let count = pread(
                descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset + done))
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else {
                throw CheckpointError(
                    "cannot read \(path): \(String(cString: strerror(errno))); check the disk")
            }
            guard count > 0 else {
                throw CheckpointError(
                    "\(path) ends at byte \(offset + done) while it is being read; write it again")
            }
            done += count
        }
    }

    /// `count` elements from `offset` on, which must lie in the file.
    func elements<Element: BitwiseCopyable>(_ type: Element.Type, count: Int, at offset: Int) throws
        -> [Element]
    {
        try Array(unsafeUninitializedCapacity: count) { buffer, initialized in
            let bytes = UnsafeMutableRawBufferPointer(
                start: buffer.baseAddress, count: count * MemoryLayout<Element>.stride)
            try read(into: bytes, at: offset)
            initialized = count
        }
    }
}

/// The bytes of a small file: settings, or with a larger `limit` a journal. Throws `CheckpointError` for what is no file, which a
/// FIFO isn't, and above `limit` bytes.
package func fileContents(of url: URL, limit: Int = JSONValue.largestText) throws -> [UInt8] {
    let reader = try FileReader(url)
    guard reader.size <= limit else {
        throw CheckpointError(
            "\(reader.path) has \(reader.size) bytes, more than the \(limit) expected; check the path")
    }
    return try reader.elements(UInt8.self, count: reader.size, at: 0)
}

/// Calls `body` with every line of a file that isn't empty, without its end. However long the file is, little of it is held at a time.
/// Throws `CheckpointError`, also for a line of more than a megabyte, and what `body` throws.
package func forEachLine(of url: URL, _ body: (UnsafeRawBufferPointer) throws -> Void) throws {
    let reader = try FileReader(url)
    let newline = UInt8(ascii: "\n")
    var rest: [UInt8] = []  // the beginning of a line that goes on
    func checkLength() throws {
        guard rest.count <= 1 << 20 else {
            throw CheckpointError(
                "\(reader.path) has a line of more than a megabyte, which is none of a journal's; remove it")
        }
    }
    for start in stride(from: 0, to: reader.size, by: 1 << 20) {
        let part = try reader.elements(UInt8.self, count: min(1 << 20, reader.size - start), at: start)
        try part.withUnsafeBytes { part in
            var line = part[...]
            while let end = line.firstIndex(of: newline) {
                if rest.isEmpty {
                    if end > line.startIndex { try body(UnsafeRawBufferPointer(rebasing: line[..<end])) }
                } else {
                    rest += line[..<end]
                    try checkLength()
                    try rest.withUnsafeBytes(body)
                    rest.removeAll(keepingCapacity: true)
                }
                line = line[(end + 1)...]
            }
            rest += line
        }
        try checkLength()
    }
    if !rest.isEmpty { try rest.withUnsafeBytes(body) }
}

extension JSONValue {
    /// Reads a JSON file. Throws `CheckpointError` with the path.
    public init(contentsOf url: URL) throws { self = try JSONValue.withMemberKeys(contentsOf: url).value }

    /// Reads a JSON file; `keys` are those of the objects that its own object holds, in the file's order.
    static func withMemberKeys(contentsOf url: URL) throws -> (value: JSONValue, keys: [String: [String]]) {
        var parser = try JSONParser(bytes: fileContents(of: url))
        do {
            return (try parser.document(), parser.memberKeys)
        } catch let error as CheckpointError {
            throw CheckpointError("\(url.path): \(error.description); correct the file or write it again")
        }
    }
}
