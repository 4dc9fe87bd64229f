import Foundation

/// A folder with a task: VTAB-1K's list files, any list files, tables, or an ImageFolder.
///
/// - Lists: `train800.txt`, `val200.txt`, `train800val200.txt`, `test.txt` (or `train.txt`, `val.txt`), or any other `.txt`;
///   lines `path label`, paths relative to the folder; an optional `classes.txt` with a name per line.
/// - Tables: `train.csv`, `val.csv`, `test.csv`, paths relative to the folder; what else their columns are, `LearningTask` and
///   FileFormats say. `train.csv` defines the classes, labels or values, and has all of their names.
/// - ImageFolder: `train/<class>/…`, `val/<class>/…`, `test/<class>/…`; a class is a folder with a file in it, its number its
///   rank by name.
///
/// `valid` and `validation` are other names for `val`; a folder with two of them is refused. Links are followed, but for those
/// that lead back; hidden files and what systems leave behind (`Thumbs.db`, `__MACOSX`) are not there.
public struct TaskFolder: Sendable {
    /// The folder.
    public let url: URL
    /// The folder's name.
    public let name: String
    /// What is to be learnt of the images; lists and class folders are for classes.
    public let task: LearningTask
    /// The number of classes: of names if there are any, else the largest label of all lists + 1. Of other tasks, the number of
    /// labels or values.
    public let classCount: Int
    /// [classCount] the names of the classes, labels or values, if the task says them. Bytes that are no UTF-8 read `\xb9`.
    public let classNames: [String]?
    /// The list files, tables or folders of splits that are there, by name.
    public let splitNames: [String]
    private let isImageFolder: Bool
    /// What tables define; nil for the other layouts.
    private let definition: TargetDefinition?
    private let path: FilePath
    /// Where the list or table of a name is.
    private let lists: [String: FilePath]

    private static let validationNames = ["val", "valid", "validation"]
    private static let listNames =
        ["train800", "val200", "train800val200", "train", "test"] + validationNames
    private static let folderNames = ["train"] + validationNames + ["test"]

    /// Recognises the layout and counts the classes. Throws `DatasetError` when the folder is none of the layouts,
    /// a list or table can't be read, or is for another task than `task`, where nil allows any; images are looked for when a split
    /// is opened.
    public static func open(_ url: URL, for task: LearningTask? = .classes) throws -> TaskFolder {
        let path = FilePath(url)
        var entries: [FilePath] = []
        let problem = { (_: FilePath, problem: FileProblem) in
            DatasetError(
                problem.code == ENOENT || problem.code == ENOTDIR
                    ? "there is no folder \(url.path) to read a task from; check `data`."
                    : "the folder \(url.path) can't be read: \(problem.reason).")
        }
        try path.forEachEntry(orThrow: problem) { name, _ in
            entries.append(name)
            return true
        }
        func files(_ ending: String) -> [String: FilePath] {
            let found = entries.filter { name in
                let text = "\(name)"
                return text.hasSuffix(ending) && !text.hasPrefix(".") && text != "classes.txt"
            }
            return Dictionary(found.map { (String("\($0)".dropLast(4)), path / $0) }) { first, _ in first }
        }
        let (lists, tables) = (files(".txt"), files(".csv"))
        let hasUsualLists = listNames.contains(where: lists.keys.contains)
        if folderNames.contains(where: tables.keys.contains), !hasUsualLists {
            return try TaskFolder(tables: tables, in: url, for: task)
        }
        if let task, task != .classes {
            throw DatasetError(
                "\(url.path) holds no tables that say \(task) of images, such as train.csv; lists and class folders say a "
                    + "class of each.")
        }
        if hasUsualLists { return try TaskFolder(lists: lists, in: url) }
        let folders = try folderNames.filter { name in
            guard entries.contains(FilePath(name.utf8)) else { return false }
            do throws(FileProblem) { return try (path / name).status().isFolder } catch {
                throw DatasetError("\(path / name) can't be read: \(error.reason); mend or remove it.")
            }
        }
        if !folders.isEmpty { return try TaskFolder(folders: folders, in: url) }
        if !lists.isEmpty { return try TaskFolder(lists: lists, in: url) }
        throw DatasetError(
            "\(url.path) holds no task: neither list files such as train800.txt nor tables such as train.csv nor "
                + "folders such as train/<class>/.")
    }

    private init(tables: [String: FilePath], in url: URL, for asked: LearningTask?) throws {
        path = FilePath(url)
        self.url = url
        name = url.standardizedFileURL.lastPathComponent
        splitNames = tables.keys.sorted()
        isImageFolder = false
        lists = tables
        try TaskFolder.refuseTwoValidations(tables)
        let usual = TaskFolder.folderNames.filter(tables.keys.contains)
        let defining = usual.contains("train") ? ["train"] : usual
        let definition = try TargetDefinition(
            defining.compactMap { tables[$0] }.map(TargetTable.init), for: asked,
            order: try TaskFolder.classNames(path / "classes.txt"))
        (task, classCount, classNames) = (definition.task, definition.count, definition.names)
        self.definition = definition
    }

    private init(lists: [String: FilePath], in url: URL) throws {
        path = FilePath(url)
        self.url = url
        name = url.standardizedFileURL.lastPathComponent
        splitNames = lists.keys.sorted()
        isImageFolder = false
        definition = nil
        task = .classes
        self.lists = lists
        try TaskFolder.refuseTwoValidations(lists)
        if let names = try TaskFolder.classNames(path / "classes.txt") {
            classNames = names
            classCount = names.count
        } else {
            // Further lists may be about something else, so they count only when there are none of the usual names.
            let usual = lists.filter { TaskFolder.listNames.contains($0.key) }
            classNames = nil
            classCount = try (usual.isEmpty ? lists : usual).values.reduce(0) { most, list in
                try ListFile(list).lines.reduce(most) { max($0, $1.label + 1) }
            }
        }
    }

    private init(folders: [String], in url: URL) throws {
        path = FilePath(url)
        self.url = url
        name = url.standardizedFileURL.lastPathComponent
        splitNames = folders
        isImageFolder = true
        definition = nil
        task = .classes
        lists = [:]
        try TaskFolder.refuseTwoValidations(
            Dictionary(uniqueKeysWithValues: folders.map { [path] in ($0, path / $0) }))
        // The training split says what the classes are, if it has any.
        var classes: [FilePath] = []
        if folders.contains("train") { classes = try TaskFolder.classes(in: path / "train") }
        if classes.isEmpty {
            classes = try folders.flatMap { [path] in try TaskFolder.classes(in: path / $0) }
        }
        guard !classes.isEmpty else {
            let first = path / folders[0]
            throw DatasetError(
                try Folder(first).contents().folders.isEmpty
                    ? "\(first) has no class folders; put images in \(folders[0])/<class>/."
                    : "\(first) lists no images: all class folders are empty; put images in them.")
        }
        var seen: Set<String> = []
        classNames = classes.sorted(by: FilePath.precedes).map(\.description).filter {
            seen.insert($0).inserted
        }
        classCount = classNames!.count
    }

    /// Two folders or lists of validation images may be one in two forms, or two parts of one; only their owner knows.
    private static func refuseTwoValidations(_ splits: [String: FilePath]) throws {
        let found = validationNames.compactMap { splits[$0]?.description }
        guard found.count < 2 else {
            throw DatasetError(
                "\(found.joined(separator: " and ")) all say that they are the validation images; keep one.")
        }
    }

    /// classes.txt, or nil where there is none.
    static func classNames(_ file: FilePath) throws -> [String]? {
        if file.isAbsent { return nil }
        var bytes: [UInt8]
        do throws(FileProblem) { bytes = try file.read() } catch {
            throw DatasetError("\(file) can't be read: \(error.reason).")
        }
        try refuseUTF16(bytes, file)
        if bytes.starts(with: byteOrderMark) { bytes.removeFirst(byteOrderMark.count) }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw DatasetError("\(file) can't be read as UTF-8 text; write a class name per line.")
        }
        let names = text.split(whereSeparator: \.isNewline)
            .map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
        guard !names.isEmpty else {
            throw DatasetError("\(file) names no classes; write one per line or remove the file.")
        }
        return names
    }

    /// Whether the folder is laid out as a task of the VTAB-1K benchmark.
    public var isVTAB: Bool { splitNames.contains("train800") }

    // MARK: Splits

    /// Opens a split by the name that a user gives (see `Split.init`).
    public func split(_ name: String) throws -> ImageList { try split(Split(name)) }

    /// Opens a split: every image is looked for, none is decoded.
    ///
    /// Throws `DatasetError` when the split isn't there (with the names of those that are), is empty, lists an image that
    /// doesn't exist or a label out of range, or has images of a class that the training images lack.
    public func split(_ split: Split) throws -> ImageList {
        isImageFolder ? try openFolders(split) : try openLists(split)
    }

    /// Opens a split in a model's classes, as `ImageList.matched` says. By name, folders may be classes that the training
    /// images here lack, when the model knows them.
    public func split(
        _ split: Split, matchedTo names: [String]?, classCount: Int, by way: ClassMatching? = nil,
        of owner: String = "the model"
    ) throws -> ImageList {
        let list =
            isImageFolder && names != nil && way != .number
            ? try openFolders(split, addsClasses: true) : try self.split(split)
        return try list.matched(to: names, classCount: classCount, by: way, of: owner)
    }

    private func openLists(_ split: Split) throws -> ImageList {
        let validation = validationName ?? "val"
        let candidates: [[String]] =
            switch split {
            case .train: [["train800"], ["train"]]
            case .validation: [["val200"], [validation]]
            case .trainAndValidation: [["train800val200"], ["train800", "val200"], ["train", validation]]
            case .test: [["test"]]
            case .named(let name):
                [[[".txt", ".csv"].contains(name.suffix(4)) ? String(name.dropLast(4)) : name]]
            }
        guard let chosen = candidates.first(where: { $0.allSatisfy(splitNames.contains) }) else {
            throw missing(split)
        }
        let files = chosen.map { lists[$0]! }
        guard let definition else {
            return try list(
                try files.flatMap { try ListFile($0).lines }, split, files, classNames, classCount)
        }
        let tables = try files.map { try definition.read(TargetTable($0)) }
        return try list(
            tables.flatMap(\.entries), split, files, classNames, classCount, tables.flatMap(\.targets))
    }

    private func openFolders(_ split: Split, addsClasses: Bool = false) throws -> ImageList {
        let chosen: [String] =
            switch split {
            case .train: ["train"]
            case .validation: [validationName ?? "val"]
            case .trainAndValidation: ["train", validationName ?? "val"]
            case .test: ["test"]
            case .named(let name): [name]
            }
        guard chosen.allSatisfy(splitNames.contains) else { throw missing(split) }
        var names = classNames ?? []
        var labels = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($0.element, $0.offset) })
        var entries: [ImageList.Entry] = []
        for folder in chosen {
            for name in try TaskFolder.classes(in: path / folder) {
                if labels["\(name)"] == nil {
                    guard addsClasses else {
                        throw DatasetError(
                            "\(path / folder / name) is not one of the \(classCount) classes that \(path / "train") "
                                + "has images of; rename or remove it, or add such images.")
                    }
                    labels["\(name)"] = names.count
                    names.append("\(name)")
                }
                entries += try images(in: FilePath(folder.utf8) / name, label: labels["\(name)"]!)
            }
        }
        return try list(entries, split, chosen.map { path / $0 }, names, names.count)
    }

    private var validationName: String? { splitNames.first(where: TaskFolder.validationNames.contains) }

    private func list(
        _ entries: [ImageList.Entry], _ split: Split, _ origins: [FilePath], _ names: [String]?, _ count: Int,
        _ targets: [Float] = []
    ) throws -> ImageList {
        try ImageList(
            entries: entries, folder: path, name: "\(name) \(split)",
            emptySplit: origins.map(\.description).joined(separator: " with "), classCount: count,
            classNames: names, task: task, targets: targets)
    }

    private func missing(_ split: Split) -> DatasetError {
        DatasetError(
            "\(url.path) has no split \(split); there are: \(splitNames.joined(separator: ", ")).")
    }

    // MARK: Folders

    /// The images below a class folder, at any depth, by path relative to the task. A file that begins neither
    /// as a JPEG nor as a PNG is an error here rather than in the middle of an epoch.
    private func images(in folder: FilePath, label: Int) throws -> [ImageList.Entry] {
        let origin = ImageList.Origin(place: path / folder)
        return try Folder(path / folder).files().map { name in
            try RGBImage.checkFormat(of: path / folder / name)
            return ImageList.Entry(path: folder / name, label: label, origin: origin)
        }
    }

    /// What lies in the folders of splits and is no class.
    func folderNotes() throws -> [String] {
        guard isImageFolder else { return [] }
        return try splitNames.flatMap { name -> [String] in
            let (folders, files) = try Folder(path / name).contents()
            let others = Set(folders).subtracting(try TaskFolder.classes(in: path / name))
            var notes: [String] = []
            if !others.isEmpty {
                let names = others.sorted(by: FilePath.precedes).map(\.description)
                notes.append(
                    "\(path / name) has folders without images, which are no classes: \(enumeration(names)).")
            }
            if !files.isEmpty {
                notes.append(
                    "\(files.count) \(files.count == 1 ? "file is" : "files are") in \(path / name) and in no class "
                        + "folder, and not used: "
                        + "\(enumeration(files.map(\.description), atMost: 3)).")
            }
            return notes
        }
    }

    /// The class folders of a split that have a file in them, by bytes.
    private static func classes(in split: FilePath) throws -> [FilePath] {
        let folder = Folder(split)
        let (folders, files) = try folder.contents()
        for name in files {
            // So git and archives leave symbolic links where there can be none; a class would be missed without a word.
            guard let text = try? (split / name).read(atMost: 4096), !text.isEmpty, !text.contains(0),
                let target = try? (split / FilePath(text)).status(), target.isFolder
            else { continue }
            throw DatasetError(
                "\(split / name) is a symbolic link that was written as text (\(FilePath(text))); make it a link "
                    + "again.")
        }
        let names = try folders.filter { name in
            guard let inside = try folder.folder(name) else { return false }
            return try !inside.isEmpty()
        }
        // Two names can read alike: one accent in two encodings, or bytes and what they are shown as.
        var seen: [String: FilePath] = [:]
        for name in names {
            if seen.updateValue(name, forKey: "\(name)") != nil {
                throw DatasetError(
                    "\(split) has two class folders whose names read alike, '\(name)'; rename one of them.")
            }
        }
        return names
    }
}
