import Foundation

/// Which images of a task: the four that every task may have, or a list file by name.
public enum Split: Equatable, Sendable, CustomStringConvertible {
    /// `train800`, an ImageFolder's `train`.
    case train
    /// `val200`, an ImageFolder's `val`.
    case validation
    /// `train800val200`: both of the above.
    case trainAndValidation
    /// `test`.
    case test
    /// A list file of the task's folder, without or with `.txt`.
    case named(String)

    /// From what a user writes: `train`, `train800`, `val`, `val200`, `validation`, `trainval`, `train800val200`,
    /// `test`, or the name of a list file.
    public init(_ name: String) {
        switch name {
        case "train", "train800": self = .train
        case "val", "val200", "validation": self = .validation
        case "trainval", "train800val200": self = .trainAndValidation
        case "test": self = .test
        default: self = .named(name)
        }
    }

    /// VTAB-1K's name.
    public var description: String {
        switch self {
        case .train: "train800"
        case .validation: "val200"
        case .trainAndValidation: "train800val200"
        case .test: "test"
        case .named(let name): name
        }
    }
}

/// A folder with a task: VTAB-1K's list files, any list files, or an ImageFolder.
///
/// - Lists: `train800.txt`, `val200.txt`, `train800val200.txt`, `test.txt` (or `train.txt`, `val.txt`), or any other `.txt`;
///   lines `path label`, paths relative to the folder; an optional `classes.txt` with a name per line.
/// - ImageFolder: `train/<class>/…`, `val/<class>/…`, `test/<class>/…`; a class's number is its rank by name.
public struct TaskFolder: Sendable {
    /// The folder.
    public let url: URL
    /// The folder's name.
    public let name: String
    /// The number of classes: of names if there are any, else the largest label of all lists + 1.
    public let classCount: Int
    /// [classCount] the classes' names, if the task says them.
    public let classNames: [String]?
    /// The list files or the folders of splits that are there, by name.
    public let splitNames: [String]
    private let isImageFolder: Bool

    private static let listNames = ["train800", "val200", "train800val200", "train", "val", "test"]
    private static let folderNames = ["train", "val", "test"]

    /// Recognises the layout and counts the classes. Throws `DatasetError` when the folder is none of the layouts
    /// or a list can't be read; images are looked for when a split is opened.
    public static func open(_ url: URL) throws -> TaskFolder {
        guard let entries = try? FileManager.default.contentsOfDirectory(atPath: url.path) else {
            throw DatasetError("there is no folder \(url.path) to read a task from; check --data.")
        }
        let lists = entries.filter { $0.hasSuffix(".txt") && $0 != "classes.txt" }
            .map { String($0.dropLast(4)) }.sorted()
        if listNames.contains(where: lists.contains) { return try TaskFolder(lists: lists, in: url) }
        let folders = folderNames.filter { isFolder(url.path + "/" + $0) }
        if !folders.isEmpty { return try TaskFolder(folders: folders, in: url) }
        if !lists.isEmpty { return try TaskFolder(lists: lists, in: url) }
        throw DatasetError(
            "\(url.path) holds no task: neither list files such as train800.txt nor folders such as "
                + "train/<class>/.")
    }

    private init(lists: [String], in url: URL) throws {
        let classFile = url.appendingPathComponent("classes.txt")
        if FileManager.default.fileExists(atPath: classFile.path) {
            guard let text = try? String(contentsOf: classFile, encoding: .utf8) else {
                throw DatasetError(
                    "\(classFile.path) can't be read as UTF-8 text; write a class name per line.")
            }
            let names = text.split(whereSeparator: \.isNewline)
                .map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
            guard !names.isEmpty else {
                throw DatasetError(
                    "\(classFile.path) names no classes; write one per line or remove the file.")
            }
            classNames = names
            classCount = names.count
        } else {
            // Further lists may be about something else, so they count only when there are none of the usual names.
            let usual = lists.filter { TaskFolder.listNames.contains($0) }
            classNames = nil
            classCount = try (usual.isEmpty ? lists : usual).reduce(0) { most, list in
                let lines = try ListFile(url.appendingPathComponent(list + ".txt")).lines
                return lines.reduce(most) { max($0, $1.label + 1) }
            }
        }
        self.url = url
        name = url.standardizedFileURL.lastPathComponent
        splitNames = lists
        isImageFolder = false
    }

    private init(folders: [String], in url: URL) throws {
        // The training split says what the classes are, if it is there.
        let deciding = folders.contains("train") ? ["train"] : folders
        let names = Set(try deciding.flatMap { try TaskFolder.classFolders(url.path + "/" + $0) })
        guard !names.isEmpty else {
            throw DatasetError(
                "\(url.path)/\(deciding[0]) has no class folders; put images in \(deciding[0])/<class>/.")
        }
        self.url = url
        name = url.standardizedFileURL.lastPathComponent
        classNames = names.sorted(by: TaskFolder.precedes)
        classCount = names.count
        splitNames = folders
        isImageFolder = true
    }

    // MARK: Splits

    /// Opens a split by the name that a user gives (see `Split.init`).
    public func split(_ name: String) throws -> ImageList { try split(Split(name)) }

    /// Opens a split: every image is looked for, none is decoded.
    ///
    /// Throws `DatasetError` when the split isn't there (with the names of those that are), is empty, lists an image that
    /// doesn't exist or a label out of range.
    public func split(_ split: Split) throws -> ImageList {
        isImageFolder ? try openFolders(split) : try openLists(split)
    }

    private func openLists(_ split: Split) throws -> ImageList {
        let candidates: [[String]] =
            switch split {
            case .train: [["train800"], ["train"]]
            case .validation: [["val200"], ["val"]]
            case .trainAndValidation: [["train800val200"], ["train800", "val200"], ["train", "val"]]
            case .test: [["test"]]
            case .named(let name): [[name.hasSuffix(".txt") ? String(name.dropLast(4)) : name]]
            }
        guard let chosen = candidates.first(where: { $0.allSatisfy(splitNames.contains) }) else {
            throw missing(split)
        }
        let entries = try chosen.flatMap { list in
            let file = url.appendingPathComponent(list + ".txt")
            return try ListFile(file).lines.map {
                ImageList.Entry(path: $0.path, label: $0.label, origin: "\(file.path), line \($0.number)")
            }
        }
        return try list(entries, split, chosen.map { "\(url.path)/\($0).txt" })
    }

    private func openFolders(_ split: Split) throws -> ImageList {
        let chosen: [String] =
            switch split {
            case .train: ["train"]
            case .validation: ["val"]
            case .trainAndValidation: ["train", "val"]
            case .test: ["test"]
            case .named(let name): [name]
            }
        guard chosen.allSatisfy(splitNames.contains) else { throw missing(split) }
        let entries = try chosen.flatMap { folder in
            try TaskFolder.classFolders("\(url.path)/\(folder)").flatMap { className in
                guard let label = classNames?.firstIndex(of: className) else {
                    throw DatasetError(
                        "\(url.path)/\(folder)/\(className) is not one of the \(classCount) classes of "
                            + "\(url.path)/train; rename or remove it.")
                }
                return try files("\(folder)/\(className)").map { path in
                    ImageList.Entry(path: path, label: label, origin: "\(url.path)/\(folder)")
                }
            }
        }
        return try list(entries, split, chosen.map { "\(url.path)/\($0)" })
    }

    private func list(_ entries: [ImageList.Entry], _ split: Split, _ origins: [String]) throws -> ImageList {
        try ImageList(
            entries: entries, folder: url, name: "\(name) \(split)",
            emptySplit: origins.joined(separator: " with "), classCount: classCount, classNames: classNames)
    }

    private func missing(_ split: Split) -> DatasetError {
        DatasetError(
            "\(url.path) has no split \(split); there are: \(splitNames.joined(separator: ", ")).")
    }

    // MARK: Folders

    /// The images below a class folder, at any depth, by path relative to the task. A file that begins neither
    /// as a JPEG nor as a PNG is an error here rather than in the middle of an epoch.
    private func files(_ folder: String) throws -> [String] {
        let names = FileManager.default.subpaths(atPath: "\(url.path)/\(folder)") ?? []
        let visible = names.filter { name in
            !name.split(separator: "/").contains { $0.hasPrefix(".") }
                && !TaskFolder.isFolder("\(url.path)/\(folder)/\(name)")
        }
        return try visible.sorted(by: TaskFolder.precedes).map { name in
            let path = "\(url.path)/\(folder)/\(name)"
            let handle = FileHandle(forReadingAtPath: path)
            defer { try? handle?.close() }
            guard let start = try? handle?.read(upToCount: 8),
                start.withUnsafeBytes({ RGBImage.Format(firstBytes: $0) }) != nil
            else { throw DatasetError("\(path) is neither a JPEG nor a PNG; convert or remove it.") }
            return "\(folder)/\(name)"
        }
    }

    private static func classFolders(_ path: String) throws -> [String] {
        guard let entries = try? FileManager.default.contentsOfDirectory(atPath: path) else {
            throw DatasetError("the folder \(path) can't be read; check its permissions.")
        }
        return entries.filter { !$0.hasPrefix(".") && isFolder("\(path)/\($0)") }.sorted(by: precedes)
    }

    private static func isFolder(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// By code point, which is Python's order and torchvision's; Swift's own compares normalised characters.
    private static func precedes(_ a: String, _ b: String) -> Bool {
        a.utf8.lexicographicallyPrecedes(b.utf8)
    }
}
