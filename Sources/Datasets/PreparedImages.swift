/// A split that is ready to be read in batches: its images, how they are prepared, and the loader that keeps them.
public struct PreparedImages {
    /// The images and their classes.
    public let source: any ImageSource
    package let loader: BatchLoader

    /// Reads every image once, so that a damaged one is found now; see `BatchLoader.checkAll`.
    public func checkImages(
        onProgress: (Int) -> Void = { _ in }, shouldStop: () -> Bool = { false }
    ) throws -> [String] {
        try loader.checkAll(onProgress: onProgress, shouldStop: shouldStop)
    }

    /// What a person would want to know of the images that were read so far; see `BatchLoader.notes`.
    public var notes: [String] { loader.notes }

    /// Starts the loader's threads. `cacheByteLimit` bytes of resized images may be kept.
    public init(_ source: any ImageSource, _ preprocessing: Preprocessor, cacheByteLimit: Int = 1 << 30) {
        self.source = source
        loader = BatchLoader(source, preprocessing, cacheByteLimit: cacheByteLimit)
    }
}
