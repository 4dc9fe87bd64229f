import Foundation
import TensorCore

/// Images without classes: files as they are given, all that lies in folders, and what lists name.
///
/// A folder's images are those at any depth below it, in the order of their paths' bytes; its `.txt` and `.csv` files are lists and the
/// like, and no images. A `.txt` file that is given is a list: a path a line, relative to the list's folder, with or without a label behind it.
public struct ImageFiles: ImageSource {
    /// What was given.
    public let name: String
    /// Where the images are: relative where they were given so.
    public let paths: [FilePath]
    /// Over the paths and the files' sizes.
    public let contentHash: UInt64
    /// What folders hold that is passed over, a sentence each.
    public let notes: [String]

    /// The number of images.
    public var count: Int { paths.count }
    /// One, as there is no telling them apart.
    public var classCount: Int { 1 }

    /// The one class.
    public func label(at index: Int) -> Int { 0 }

    /// The file's path.
    public func imageName(at index: Int) -> String { "\(paths[index])" }

    /// Reads the file. Throws `DatasetError` with the path.
    public func image(at index: Int) throws -> RGBImage { try RGBImage(contentsOf: paths[index]) }

    /// Looks for what is given, files, folders and lists, and decodes nothing.
    ///
    /// Throws `DatasetError` for a path where nothing is, a file that begins neither as a JPEG nor as a PNG, a list's line without
    /// an image, a folder or a list without images, and where nothing is given.
    public init(_ given: [String]) throws {
        guard !given.isEmpty else {
            throw DatasetError("no images are given; name files, folders or lists.")
        }
        name = given.count == 1 ? given[0] : "\(given[0]) and \(given.count - 1) more"
        var notes: [String] = []
        var paths: [FilePath] = []
        var hash = ContentHash()
        for text in given {
            let path = FilePath(text.utf8).withoutSlashesAtEnd
            let status: FileStatus
            do throws(FileProblem) { status = try path.status() } catch {
                throw DatasetError("\(path) can't be read: \(error.reason); give images, folders or lists.")
            }
            let isList = !status.isFolder && path.isText
            let found =
                status.isFolder
                ? try ImageFiles.images(below: path, &notes)
                : isList ? try ImageFiles.images(listedIn: path) : [(path, "")]
            guard !found.isEmpty else {
                throw DatasetError(
                    "\(path) \(isList ? "lists" : "holds") no images; fill it, or give another.")
            }
            for (image, origin) in found {
                let status: FileStatus
                do throws(FileProblem) { status = try image.fileStatus() } catch {
                    throw DatasetError(
                        "\(origin)there is no image file at \(image) (\(error.reason)); add it, or leave it out."
                    )
                }
                guard status.size > 0 else {
                    throw DatasetError("\(origin)the image file \(image) is empty; replace or remove it.")
                }
                try RGBImage.checkFormat(of: image)
                hash.add(image.bytes)
                hash.add(status.size)
                paths.append(image)
            }
        }
        (self.paths, self.notes, contentHash) = (paths, notes, hash.value)
    }

    private static func images(
        below folder: FilePath, _ notes: inout [String]
    ) throws -> [(FilePath, origin: String)] {
        let files = try Folder(folder).files()
        let texts = files.filter { $0.isText || $0.isTable }
        if !texts.isEmpty {
            notes.append(
                "\(texts.count) text \(texts.count == 1 ? "file" : "files") in \(folder) "
                    + "\(texts.count == 1 ? "is" : "are") no images: "
                    + "\(enumeration(texts.map(\.description), atMost: 3)).")
        }
        return files.filter { !$0.isText && !$0.isTable }.map { (folder / $0, "") }
    }

    private static func images(listedIn list: FilePath) throws -> [(FilePath, origin: String)] {
        let slash = list.bytes.lastIndex(of: UInt8(ascii: "/"))
        func place(_ name: FilePath) -> FilePath {
            // A list in the root has its name behind an empty folder's slash.
            slash.map { FilePath(list.bytes[..<$0]) / name } ?? name
        }
        return try ListFile.rows(of: list).map { number, row in
            // A label is a number behind the last blank, unless the path ends so: `image 5`.
            let whole = place(FilePath(row))
            guard let space = row.lastIndex(where: ListFile.isBlank),
                Int(String(decoding: row[(space + 1)...], as: UTF8.self)) != nil, whole.isAbsent
            else { return (whole, "\(list), line \(number): ") }
            return (place(FilePath(ListFile.trimmed(row[..<space]))), "\(list), line \(number): ")
        }
    }
}

extension FilePath {
    /// The path as text, to be opened by: as `description`, but with its control characters where it is UTF-8.
    public var text: String { String(validating: bytes, as: UTF8.self) ?? description }

    fileprivate var isText: Bool { bytes.suffix(4).elementsEqual(".txt".utf8) }

    fileprivate var isTable: Bool { bytes.suffix(4).elementsEqual(".csv".utf8) }

    fileprivate var withoutSlashesAtEnd: FilePath {
        var bytes = bytes
        while bytes.count > 1, bytes.last == UInt8(ascii: "/") { bytes.removeLast() }
        return FilePath(bytes)
    }
}
