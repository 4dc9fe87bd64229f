import Foundation

/// A split on disk: paths and labels, in the order of its list.
public struct ImageList: ImageSource {
    /// One image of a split.
    public struct Sample: Equatable, Sendable {
        /// Where the file is.
        public let path: String
        /// Its class, in 0..<classCount.
        public let label: Int
    }

    /// The task's folder and the split.
    public let name: String
    /// The number of classes of the task.
    public let classCount: Int
    /// [classCount] the classes' names, if the task says them.
    public let classNames: [String]?
    /// The images in order.
    public let samples: [Sample]
    /// Over the labels, the paths relative to the task's folder and the files' sizes, so that it survives a move of the
    /// folder and notices an exchanged image.
    public let contentHash: UInt64

    /// The number of images.
    public var count: Int { samples.count }

    /// The class of an image.
    public func label(at index: Int) -> Int { samples[index].label }

    /// The file's path.
    public func imageName(at index: Int) -> String { samples[index].path }

    /// Reads the file. Throws `DatasetError` with the path.
    public func image(at index: Int) throws -> RGBImage { try RGBImage(contentsOf: samples[index].path) }

    /// Opens a list file of `path label` lines (split at the last space, since paths hold spaces), with paths relative to
    /// `folder`. Without a class count it is the largest label + 1.
    ///
    /// Throws `DatasetError`, which names the list and the line, when a line has no label, a label is out of
    /// range, an image is missing, or there are no lines at all.
    public init(
        listFile: URL, relativeTo folder: URL, name: String? = nil,
        classCount: Int? = nil, classNames: [String]? = nil
    ) throws {
        let lines = try ListFile(listFile).lines
        try self.init(
            entries: lines.map { line in
                Entry(path: line.path, label: line.label, origin: "\(listFile.path), line \(line.number)")
            },
            folder: folder, name: name ?? listFile.lastPathComponent, emptySplit: listFile.path,
            classCount: classCount, classNames: classNames)
    }

    /// An image before it was looked for; `origin` is where it is named.
    struct Entry {
        let path: String
        let label: Int
        let origin: String
    }

    init(
        entries: [Entry], folder: URL, name: String, emptySplit: String, classCount: Int?,
        classNames: [String]?
    ) throws {
        guard !entries.isEmpty else {
            throw DatasetError("\(emptySplit) lists no images; choose another split or fill it.")
        }
        let classCount = classCount ?? entries.reduce(0) { max($0, $1.label + 1) }
        var hash = ContentHash()
        samples = try entries.map { entry in
            guard entry.label < classCount else {
                throw DatasetError(
                    "\(entry.origin): the label \(entry.label) is out of range; the task has \(classCount) classes, "
                        + "0 to \(classCount - 1).")
            }
            let path = entry.path.hasPrefix("/") ? entry.path : folder.path + "/" + entry.path
            var status = stat()
            guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
                throw DatasetError(
                    "\(entry.origin): there is no image file at \(path); add it or remove the line.")
            }
            guard status.st_size > 0 else {
                throw DatasetError("\(entry.origin): the image file \(path) is empty; replace or remove it.")
            }
            hash.add(entry.path.utf8)
            hash.add(entry.label)
            hash.add(Int(status.st_size))
            return Sample(path: path, label: entry.label)
        }
        self.name = name
        self.classCount = classCount
        self.classNames = classNames
        contentHash = hash.value
    }

    /// `list` with class k as class `labels[k]` of those called `names`.
    init(_ list: ImageList, labels: [Int], names: [String]) {
        name = list.name
        classCount = names.count
        classNames = names
        samples = list.samples.map { Sample(path: $0.path, label: labels[$0.label]) }
        var hash = ContentHash()
        hash.add(Int(bitPattern: UInt(list.contentHash)))
        for label in labels { hash.add(label) }
        contentHash = hash.value
    }
}

/// A list file's lines, read but not yet looked up on disk.
struct ListFile {
    /// One line that isn't blank.
    struct Line {
        let number: Int
        let path: String
        let label: Int
    }

    /// ImageNet-21k, the largest common set, has 21,843 classes; a label beyond this bound is a mistake that would
    /// otherwise ask for a head of that size.
    static let largestLabel = 99_999

    let lines: [Line]

    /// Throws `DatasetError` with file and line.
    init(_ url: URL) throws {
        guard let data = try? Data(contentsOf: url) else {
            throw DatasetError("the list \(url.path) can't be read; check that it exists and may be read.")
        }
        var lines: [Line] = []
        for (index, bytes) in data.split(separator: 0x0a, omittingEmptySubsequences: false).enumerated() {
            let origin = "\(url.path), line \(index + 1)"
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw DatasetError("\(origin): this is not UTF-8 text; give a list of `path label` lines.")
            }
            let line = text.trimmingCharacters(in: .whitespaces.union(.newlines))
            if line.isEmpty { continue }
            guard let space = line.lastIndex(where: { $0 == " " || $0 == "\t" }) else {
                throw DatasetError("\(origin): \"\(line.prefix(80))\" has no label; write `path label`.")
            }
            let word = line[line.index(after: space)...]
            guard let label = Int(word) else {
                throw DatasetError(
                    "\(origin): the label \"\(word.prefix(80))\" is not an integer; write `path label`.")
            }
            guard (0...ListFile.largestLabel).contains(label) else {
                throw DatasetError(
                    "\(origin): the label \(label) is out of range; labels are 0 to "
                        + "\(ListFile.largestLabel).")
            }
            let path = line[..<space].trimmingCharacters(in: .whitespaces)
            lines.append(Line(number: index + 1, path: path, label: label))
        }
        self.lines = lines
    }
}
