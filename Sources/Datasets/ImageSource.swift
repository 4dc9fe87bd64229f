import TensorCore

/// Labelled images by index: a split on disk (`ImageList`) or images made in memory (`InMemoryImages`).
public protocol ImageSource: Sendable {
    /// What the user reads in messages: the task and the split.
    var name: String { get }
    /// The number of images.
    var count: Int { get }
    /// What is to be learnt of them; classes unless a source says otherwise.
    var task: LearningTask { get }
    /// The number of classes K of the task; it may be more than occur here. Of other tasks, the number of labels or values.
    var classCount: Int { get }
    /// [classCount] the names of the classes, labels or values, where they are known.
    var classNames: [String]? { get }
    /// A hash of what is in here, by which a resumed run recognises its data. FNV-1a, 64 bits: it notices
    /// mistakes, not forgery.
    var contentHash: UInt64 { get }
    /// The class of an image, in 0..<classCount; 0 where the task is another.
    func label(at index: Int) -> Int
    /// [targetCount] what is to be said of an image: for classes and labels 1 where one holds and 0 elsewhere, or its values.
    func targets(at index: Int) -> [Float]
    /// What the image is called in messages: its path, where it has one.
    func imageName(at index: Int) -> String
    /// The image; called from several threads at once. Throws `DatasetError` with the path.
    func image(at index: Int) throws -> RGBImage
}

extension ImageSource {
    public var classNames: [String]? { nil }

    public var task: LearningTask { .classes }

    /// K: an output of the head for each class, label or value.
    public var targetCount: Int { classCount }

    /// The one of K that `label(at:)` says.
    public func targets(at index: Int) -> [Float] { oneOf(targetCount, label(at: index)) }

    /// The image's number and the source's name.
    public func imageName(at index: Int) -> String { "image \(index) of \(name)" }
}

/// Images that are already in memory: generated tasks, tests.
public struct InMemoryImages: ImageSource {
    /// What the user reads in messages.
    public let name: String
    /// The number of classes.
    public let classCount: Int
    /// Over pixels and labels.
    public let contentHash: UInt64
    /// What is to be learnt of them.
    public let task: LearningTask
    private let images: [RGBImage]
    private let labels: [Int]
    /// [count][classCount] for other tasks than classes.
    private let targets: [[Float]]

    /// Traps unless there is one label in 0..<classCount for each image.
    public init(name: String, images: [RGBImage], labels: [Int], classCount: Int) {
        precondition(
            images.count == labels.count && labels.allSatisfy { (0..<classCount).contains($0) },
            "\(name): \(images.count) images do not fit \(labels.count) labels in \(classCount) classes")
        (self.name, self.images, self.labels, self.classCount) = (name, images, labels, classCount)
        (task, targets) = (.classes, [])
        var hash = ContentHash()
        for (image, label) in zip(images, labels) {
            hash.add(image.pixels)
            hash.add(label)
        }
        contentHash = hash.value
    }

    /// Images for another task than classes, with the targets of each. Traps unless there are [count][targetCount] of them.
    public init(name: String, images: [RGBImage], targets: [[Float]], targetCount: Int, task: LearningTask) {
        precondition(
            images.count == targets.count && targets.allSatisfy { $0.count == targetCount }
                && task != .classes,
            "\(name): \(images.count) images do not fit \(targets.count) rows of \(targetCount) \(task)")
        (self.name, self.images, self.targets, self.task) = (name, images, targets, task)
        (labels, classCount) = ([Int](repeating: 0, count: images.count), targetCount)
        var hash = ContentHash()
        for (image, row) in zip(images, targets) {
            hash.add(image.pixels)
            hash.add(row, of: task)
        }
        contentHash = hash.value
    }

    /// The number of images.
    public var count: Int { images.count }

    /// The class of an image; 0 where the task is another.
    public func label(at index: Int) -> Int { labels[index] }

    /// [targetCount] of an image.
    public func targets(at index: Int) -> [Float] {
        task == .classes ? oneOf(classCount, labels[index]) : targets[index]
    }

    /// The image itself.
    public func image(at index: Int) -> RGBImage { images[index] }
}

/// [count] zeros, but 1 at `index`.
func oneOf(_ count: Int, _ index: Int) -> [Float] {
    var targets = [Float](repeating: 0, count: count)
    targets[index] = 1
    return targets
}

extension ContentHash {
    /// Goes on with targets of a task.
    mutating func add(_ targets: some Sequence<Float>, of task: LearningTask) {
        add(task.rawValue.utf8)
        for target in targets { add(Int(target.bitPattern)) }
    }
}
