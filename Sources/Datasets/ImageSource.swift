import TensorCore

/// Labelled images by index: a split on disk (`ImageList`) or images made in memory (`InMemoryImages`).
public protocol ImageSource: Sendable {
    /// What the user reads in messages: the task and the split.
    var name: String { get }
    /// The number of images.
    var count: Int { get }
    /// The number of classes K of the task; it may be more than occur here.
    var classCount: Int { get }
    /// [classCount] the classes' names, where they are known.
    var classNames: [String]? { get }
    /// A hash of what is in here, by which a resumed run recognises its data. FNV-1a, 64 bits: it notices
    /// mistakes, not forgery.
    var contentHash: UInt64 { get }
    /// The class of an image, in 0..<classCount.
    func label(at index: Int) -> Int
    /// What the image is called in messages: its path, where it has one.
    func imageName(at index: Int) -> String
    /// The image; called from several threads at once. Throws `DatasetError` with the path.
    func image(at index: Int) throws -> RGBImage
}

extension ImageSource {
    public var classNames: [String]? { nil }

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
    private let images: [RGBImage]
    private let labels: [Int]

    /// Traps unless there is one label in 0..<classCount for each image.
    public init(name: String, images: [RGBImage], labels: [Int], classCount: Int) {
        precondition(
            images.count == labels.count && labels.allSatisfy { (0..<classCount).contains($0) },
            "\(name): \(images.count) images do not fit \(labels.count) labels in \(classCount) classes")
        (self.name, self.images, self.labels, self.classCount) = (name, images, labels, classCount)
        var hash = ContentHash()
        for (image, label) in zip(images, labels) {
            hash.add(image.pixels)
            hash.add(label)
        }
        contentHash = hash.value
    }

    /// The number of images.
    public var count: Int { images.count }

    /// The class of an image.
    public func label(at index: Int) -> Int { labels[index] }

    /// The image itself.
    public func image(at index: Int) -> RGBImage { images[index] }
}
