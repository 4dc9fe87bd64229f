import Foundation
import TensorCore

/// A split on disk: paths and labels, in the order of its list.
public struct ImageList: ImageSource {
    /// One image of a split.
    public struct Sample: Equatable, Sendable {
        /// Where the file is.
        public let path: FilePath
        /// Its class, in 0..<classCount; 0 where the task is another.
        public let label: Int
    }

    /// The task's folder and the split.
    public let name: String
    /// The number of classes of the task, or of the model that it was matched with.
    public internal(set) var classCount: Int
    /// [classCount] the classes' names, if the task says them.
    public internal(set) var classNames: [String]?
    /// What is to be learnt of the images: classes, but for tables of labels or values.
    public let task: LearningTask
    /// How the classes were matched with a model's; nil before that.
    public internal(set) var matching: ClassMatching?
    /// The images in order.
    public let samples: [Sample]
    /// Over the labels or targets, the paths relative to the task's folder and the files' sizes, so that it survives a move of the
    /// folder and notices an exchanged image.
    public let contentHash: UInt64
    /// [count] which files these are, and how large.
    let files: [FileStatus]
    /// [count · classCount]; empty for classes.
    private let targets: [Float]

    /// The number of images.
    public var count: Int { samples.count }

    /// The class of an image; 0 where the task is another.
    public func label(at index: Int) -> Int { samples[index].label }

    /// [targetCount] of an image.
    public func targets(at index: Int) -> [Float] {
        task == .classes ? oneOf(classCount, samples[index].label) : Array(targetRow(index))
    }

    /// The same without a copy; empty for classes.
    func targetRow(_ index: Int) -> ArraySlice<Float> {
        task == .classes ? [] : targets[index * classCount..<(index + 1) * classCount]
    }

    /// The file's path.
    public func imageName(at index: Int) -> String { "\(samples[index].path)" }

    /// Reads the file. Throws `DatasetError` with the path.
    public func image(at index: Int) throws -> RGBImage { try RGBImage(contentsOf: samples[index].path) }

    /// Opens a list file of `path label` lines (split at the last blank, since paths hold spaces), with paths relative to
    /// `folder`. Without a class count it is the largest label + 1.
    ///
    /// Throws `DatasetError`, which names the list and the line, when a line has no label, a label is out of
    /// range, an image is missing, or there are no lines at all.
    public init(
        listFile: URL, relativeTo folder: URL, name: String? = nil,
        classCount: Int? = nil, classNames: [String]? = nil
    ) throws {
        try self.init(
            entries: try ListFile(FilePath(listFile)).lines, folder: FilePath(folder),
            name: name ?? listFile.lastPathComponent, emptySplit: listFile.path, classCount: classCount,
            classNames: classNames)
    }

    /// An image before it was looked for.
    struct Entry {
        let path: FilePath
        let label: Int
        let origin: Origin
    }

    /// Where an image is named: a list's line, or a folder.
    struct Origin: CustomStringConvertible {
        let place: FilePath
        var line: Int?
        var description: String { line.map { "\(place), line \($0)" } ?? "\(place)" }
    }

    /// `targets`: [entries · classCount]; empty for classes.
    init(
        entries: [Entry], folder: FilePath, name: String, emptySplit: String, classCount: Int?,
        classNames: [String]?, task: LearningTask = .classes, targets: [Float] = []
    ) throws {
        guard !entries.isEmpty else {
            throw DatasetError("\(emptySplit) lists no images; choose another split or fill it.")
        }
        let classCount = classCount ?? classNames?.count ?? entries.reduce(0) { max($0, $1.label + 1) }
        var hash = ContentHash()
        var files: [FileStatus] = []
        files.reserveCapacity(entries.count)
        samples = try entries.map { entry in
            guard entry.label < classCount else {
                throw DatasetError(
                    "\(entry.origin): the label \(entry.label) is out of range; the task has \(classCount) classes, "
                        + "0 to \(classCount - 1).")
            }
            let path = folder / entry.path
            let status: FileStatus
            do throws(FileProblem) {
                status = try path.fileStatus()
            } catch {
                // What isn't there needs no reason; a dangling link, a folder or a permission does.
                let reason = error.code == ENOENT && path.isAbsent ? "" : " (\(error.reason))"
                throw DatasetError(
                    "\(entry.origin): there is no image file at \(path)\(reason); add it or remove the line.")
            }
            guard status.size > 0 else {
                throw DatasetError("\(entry.origin): the image file \(path) is empty; replace or remove it.")
            }
            hash.add(entry.path.bytes)
            hash.add(entry.label)
            hash.add(status.size)
            files.append(status)
            return Sample(path: path, label: entry.label)
        }
        if task != .classes { hash.add(targets, of: task) }
        (self.name, self.classCount, self.classNames, self.files) = (name, classCount, classNames, files)
        (self.task, self.targets) = (task, targets)
        contentHash = hash.value
    }

    /// `list` with class k as class `labels[k]` of those called `names`. (Of labels and values: column k as that one; others are 0.)
    init(_ list: ImageList, labels: [Int], names: [String]) {
        name = list.name
        task = list.task
        classCount = names.count
        classNames = names
        files = list.files
        samples = list.samples.map {
            Sample(path: $0.path, label: list.task == .classes ? labels[$0.label] : 0)
        }
        var targets = [Float](repeating: 0, count: list.targets.isEmpty ? 0 : list.count * names.count)
        if !targets.isEmpty {
            for row in list.samples.indices {
                for (place, value) in zip(labels, list.targetRow(row)) where place >= 0 {
                    targets[row * names.count + place] = value
                }
            }
        }
        self.targets = targets
        var hash = ContentHash()
        hash.add(Int(bitPattern: UInt(list.contentHash)))
        for label in labels { hash.add(label) }
        contentHash = hash.value
    }
}

extension ImageList {
    /// ImageNet-21k, the largest common set, has 21,843 classes; a label beyond this bound is a mistake that would
    /// otherwise ask for a head of that size.
    public static let largestClassCount = 100_000
}

/// A list file's lines, read but not yet looked up on disk.
struct ListFile {
    static let largestLabel = ImageList.largestClassCount - 1

    /// The lines that aren't blank.
    let lines: [ImageList.Entry]

    /// Paths are taken by bytes, whatever their encoding. Throws `DatasetError` with file and line.
    init(_ file: FilePath) throws {
        lines = try ListFile.rows(of: file).map { number, line in
            let origin = ImageList.Origin(place: file, line: number)
            guard let space = line.lastIndex(where: ListFile.isBlank) else {
                throw DatasetError(
                    "\(origin): \"\(FilePath(line.prefix(80)))\" has no label; write 'path label'.")
            }
            let word = line[(space + 1)...]
            guard let label = Int(String(decoding: word, as: UTF8.self)) else {
                throw DatasetError(
                    "\(origin): the label \"\(FilePath(word.prefix(80)))\" is not an integer; write 'path label'."
                )
            }
            guard (0...ListFile.largestLabel).contains(label) else {
                throw DatasetError(
                    "\(origin): the label \(label) is out of range; labels are 0 to "
                        + "\(ListFile.largestLabel).")
            }
            let path = FilePath(ListFile.trimmed(line[..<space]))
            return ImageList.Entry(path: path, label: label, origin: origin)
        }
    }

    /// The lines that aren't blank, without the blanks around them, and their numbers from 1. Throws `DatasetError`.
    static func rows(of file: FilePath) throws -> [(number: Int, text: ArraySlice<UInt8>)] {
        let bytes: [UInt8]
        do throws(FileProblem) { bytes = try file.read() } catch {
            throw DatasetError(
                "the list \(file) can't be read: \(error.reason); give a list of 'path label' lines.")
        }
        try refuseUTF16(bytes, file)
        // An old Mac's lines end with a return alone.
        let newline = bytes.contains(0x0a) ? 0x0a : 0x0d as UInt8
        return bytes.split(separator: newline, omittingEmptySubsequences: false).enumerated().map {
            ($0 + 1, ListFile.trimmed($1))
        }.filter { !$1.isEmpty }
    }

    static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0d).contains(byte) }

    /// Without blanks at both ends and the byte-order mark of Windows' editors, which files that were joined have inside.
    static func trimmed(_ raw: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var line = raw
        if line.starts(with: byteOrderMark) { line = line.dropFirst(byteOrderMark.count) }
        line = line.drop(while: isBlank)
        while let last = line.last, isBlank(last) { line.removeLast() }
        // No label ends so: it is followed by a blank that is not ASCII, as spreadsheets leave.
        if let last = line.last, last >= 0x80, let text = String(validating: line, as: UTF8.self) {
            let trimmed = text.trimmingCharacters(in: .whitespacesAndNewlines)
            if trimmed != text { return Array(trimmed.utf8)[...] }
        }
        return line
    }
}

/// UTF-8's.
let byteOrderMark: [UInt8] = [0xef, 0xbb, 0xbf]

/// Throws `DatasetError` for text with the zeros of UTF-16, which Windows' editors call Unicode.
func refuseUTF16(_ bytes: [UInt8], _ file: FilePath) throws {
    if bytes.starts(with: [0xff, 0xfe]) || bytes.starts(with: [0xfe, 0xff]) || bytes.contains(0) {
        throw DatasetError("\(file) is UTF-16 or no text at all; save it as UTF-8.")
    }
}
