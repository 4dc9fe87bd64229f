import Foundation

/// A folder of a data set with what a person put into it: links are followed, and files that are hidden or that systems leave
/// behind are not there.
struct Folder {
    let path: FilePath
    /// This folder and all that it lies in: a link to one of them would never end.
    private let surroundings: Set<FileStatus.Identity>

    /// What Windows, macOS and network storage put among images, in lower case.
    private static let systemNames: Set = [
        "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin",
        "system volume information", "lost+found",
    ]

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
        for (name, kind) in try entries() {
            switch kind {
            case .folder: folders.append(name)
            case .file: files.append(name)
            }
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

    /// Whether there are no files here and below.
    func isEmpty() throws -> Bool {
        let (folders, files) = try contents()
        return try files.isEmpty && folders.allSatisfy { try folder($0)?.isEmpty() ?? true }
    }

    // MARK: Reading

    private enum Kind { case file, folder }

    private func entries() throws -> [(FilePath, Kind)] {
        try FilePath.entries(of: path, orThrow: unreadable).compactMap { entry -> (FilePath, Kind)? in
            if Folder.isIgnored(entry.name) { return nil }
            switch entry.type {
            case UInt8(DT_REG): return (entry.name, .file)
            case UInt8(DT_DIR): return (entry.name, .folder)
            default: break
            }
            let place = path / entry.name
            let status: FileStatus
            do throws(FileProblem) { status = try place.status() } catch { throw unreadable(place, error) }
            if let kind = status.otherKind {
                throw DatasetError("\(place) is \(kind), neither an image nor a folder; remove it.")
            }
            return (entry.name, status.isFolder ? .folder : .file)
        }
    }

    private static func isIgnored(_ name: FilePath) -> Bool {
        name.bytes.first == UInt8(ascii: ".")
            || systemNames.contains(String(decoding: name.bytes, as: UTF8.self).lowercased())
    }

    private func unreadable(_ path: FilePath, _ problem: FileProblem) -> DatasetError {
        DatasetError("\(path) can't be read: \(problem.reason); mend or remove it.")
    }
}

extension FilePath {
    /// The names in a folder but for `.` and `..`, in no order, with readdir's types.
    static func entries(
        of folder: FilePath, orThrow problem: (FilePath, FileProblem) -> DatasetError
    ) throws -> [(name: FilePath, type: UInt8)] {
        guard let stream = folder.withCString({ opendir($0) }) else {
            throw problem(folder, folder.problem(errno))
        }
        defer { closedir(stream) }
        var entries: [(name: FilePath, type: UInt8)] = []
        errno = 0
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { name in FilePath(name.prefix { $0 != 0 })
            }
            if ![".", ".."].map({ Array($0.utf8) }).contains(name.bytes) {
                entries.append((name, entry.pointee.d_type))
            }
            errno = 0
        }
        guard errno == 0 else { throw problem(folder, folder.problem(errno)) }
        return entries
    }
}
