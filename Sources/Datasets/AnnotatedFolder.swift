import Foundation

/// A data set whose lists lie in `annotations/`, without an extension, as NOAH lays out few-shot and shifted data:
///
///     annotations/train_meta.list.num_shot_16.seed_0, val_meta.list, test_meta.list      lines `path label`
///     images/                                                                            or beside annotations/
///
/// Paths are relative to `images/` or, as Stanford Cars' `cars_train/`, to the data set's folder: the first image decides.
public struct AnnotatedFolder: Sendable {
    /// The folder.
    public let url: URL
    /// The folder's name.
    public let name: String
    private let annotations: URL

    /// The folder at `url`, if it has annotations.
    public init?(_ url: URL) {
        annotations = url.appendingPathComponent("annotations")
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: annotations.path, isDirectory: &isFolder),
            isFolder.boolValue
        else { return nil }
        self.url = url
        name = url.standardizedFileURL.lastPathComponent
    }

    /// Where the training images of a number of shots and a draw are listed.
    public func trainingList(shots: Int, seed: Int) -> URL {
        annotations.appendingPathComponent("train_meta.list.num_shot_\(shots).seed_\(seed)")
    }

    /// `val_meta.list`.
    public var validationList: URL { annotations.appendingPathComponent("val_meta.list") }

    /// `test_meta.list`, or where there is none, as in ImageNet and its shifted siblings, `val_meta.list`.
    public var testList: URL {
        let test = annotations.appendingPathComponent("test_meta.list")
        return FileManager.default.fileExists(atPath: test.path) ? test : validationList
    }
}

extension ImageList {
    /// Opens a list file wherever it lies: paths are relative to its folder, or for a list in `annotations/` as
    /// `AnnotatedFolder` says. A `classes.txt` beside it names the classes, and counts them; without one `classCount` does, or the
    /// largest label + 1. Throws as the other initializer.
    public init(listFile: URL, classCount: Int? = nil) throws {
        let folder = listFile.deletingLastPathComponent()
        let names = try ImageList.classNames(beside: listFile)
        try self.init(
            listFile: listFile, relativeTo: try ImageList.imageFolder(of: listFile),
            name: "\(folder.lastPathComponent)/\(listFile.lastPathComponent)",
            classCount: names?.count ?? classCount, classNames: names)
    }

    private static func classNames(beside list: URL) throws -> [String]? {
        try TaskFolder.classNames(
            FilePath(list.deletingLastPathComponent().appendingPathComponent("classes.txt")))
    }

    /// The number of classes of these lists together: of the names beside the first, or the largest label + 1. Throws
    /// `DatasetError`.
    public static func classCount(ofLists lists: [URL]) throws -> Int {
        if let names = try lists.first.flatMap({ try classNames(beside: $0) }) { return names.count }
        return try lists.flatMap { try ListFile(FilePath($0)).lines }.reduce(0) { max($0, $1.label + 1) }
    }

    private static func imageFolder(of list: URL) throws -> URL {
        let folder = list.deletingLastPathComponent()
        guard folder.lastPathComponent == "annotations" else { return folder }
        let root = folder.deletingLastPathComponent()
        let images = root.appendingPathComponent("images")
        let first = try ListFile(FilePath(list)).lines.first?.path
        func holds(_ url: URL) -> Bool { first.map { !(FilePath(url) / $0).isAbsent } ?? true }
        return holds(images) || !holds(root) ? images : root
    }
}
