import Foundation

/// A folder of a data set with what a person put into it: links are followed, and files that are hidden or that systems leave
/// behind are not there.
struct Folder {
    let path: FilePath
    /// This folder and all that it lies in: a link to one of them would never end.
    private let surroundings: Set<FileStatus.Identity>

    /// What Windows, macOS and network storage put among images, in lower case.
    private static let systemNames = [
        "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin",
        "system volume information", "lost+found",
    ].map { Array($0.utf8) }

    init(_ path: FilePath) { self.init(path, around: []) }

    private init(_ path: FilePath, around: Set<FileStatus.Identity>) {
        self.path = path
        var surroundings = around
        var folder = path
        // A folder that is a link lies in two others, that of the link and that of its target, which `..` finds.
        var seen: Set<FileStatus.Identity> = []
        while let status = try? folder.status(), seen.insert(status.identity).inserted {
            folder = folder / ".."
        }
        surroundings.formUnion(seen)
        self.surroundings = surroundings
    }

    /// The names of folders and of files, each by bytes. Throws `DatasetError` when the folder can't be read, or holds what is
    /// neither a file nor a folder or a link that leads nowhere.
    func contents() throws -> (folders: [FilePath], files: [FilePath]) {
        var folders: [FilePath] = []
        var files: [FilePath] = []
        try forEachEntry { name, isFolder in
            if isFolder { folders.append(name) } else { files.append(name) }
            return true
        }
        return (folders.sorted(by: FilePath.precedes), files.sorted(by: FilePath.precedes))
    }

    /// The folder of this name, or nil where it is a link to this one or one around it.
    func folder(_ name: FilePath) throws -> Folder? {
        let status: FileStatus
        do throws(FileProblem) { status = try (path / name).status() } catch {
            throw unreadable(path / name, error)
        }
        return surroundings.contains(status.identity) ? nil : Folder(path / name, around: surroundings)
    }

    /// The files here and in all folders below, by path from here.
    func files() throws -> [FilePath] {
        let (folders, files) = try contents()
        let below = try folders.flatMap { name in
            try folder(name)?.files().map { FilePath(name.bytes) / $0 } ?? []
        }
        return (files + below).sorted(by: FilePath.precedes)
    }

    /// Whether there are no files here and below. Ends at the first, since a class can have many.
    func isEmpty() throws -> Bool {
        var folders: [FilePath] = []
        var isEmpty = true
        try forEachEntry { name, isFolder in
            if isFolder { folders.append(name) } else { isEmpty = false }
            return isEmpty
        }
        return try isEmpty && folders.allSatisfy { try folder($0)?.isEmpty() ?? true }
    }

    // MARK: Reading

    /// Calls `body` with each name and whether it is a folder's, until it returns false.
    private func forEachEntry(_ body: (FilePath, Bool) -> Bool) throws {
        try path.forEachEntry(orThrow: unreadable) { name, type in
            if Folder.isIgnored(name) { return true }
            if type == DT_REG || type == DT_DIR { return body(name, type == DT_DIR) }
            let status: FileStatus
            do throws(FileProblem) { status = try (path / name).status() } catch {
                throw unreadable(path / name, error)
            }
            if let kind = status.otherKind {
                throw DatasetError("\(path / name) is \(kind), neither an image nor a folder; remove it.")
            }
            return body(name, status.isFolder)
        }
    }

    private static func isIgnored(_ name: FilePath) -> Bool {
        func isAlike(_ byte: UInt8, _ small: UInt8) -> Bool {
            (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) ? byte | 0x20 == small : byte == small
        }
        return name.bytes.first == UInt8(ascii: ".")
            || systemNames.contains {
                $0.count == name.bytes.count && name.bytes.elementsEqual($0, by: isAlike)
            }
    }

    private func unreadable(_ path: FilePath, _ problem: FileProblem) -> DatasetError {
        DatasetError("\(path) can't be read: \(problem.reason); mend or remove it.")
    }
}

extension FilePath {
    /// Calls `body` with the names in this folder but for `.` and `..`, in no order, and readdir's types, until it returns false.
    func forEachEntry(
        orThrow problem: (FilePath, FileProblem) -> DatasetError, _ body: (FilePath, Int) throws -> Bool
    ) throws {
        guard let stream = withCString({ opendir($0) }) else { throw problem(self, self.problem(errno)) }
        defer { closedir(stream) }
        while true {
            errno = 0
            guard let entry = readdir(stream) else { break }
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { name in FilePath(name.prefix { $0 != 0 })
            }
            if name.bytes.count <= 2, name.bytes.allSatisfy({ $0 == UInt8(ascii: ".") }) { continue }
            guard try body(name, Int(entry.pointee.d_type)) else { return }
        }
        guard errno == 0 else { throw problem(self, self.problem(errno)) }
    }
}
