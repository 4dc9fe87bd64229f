import TensorCore

/// A split that is ready to be read in batches: its images, how they are prepared, and the loader that keeps them.
public struct PreparedImages {
    /// The images and their classes.
    public let source: any ImageSource
    /// How they are changed in the epochs that are started with draws.
    public let augmentation: Augmentation
    package let loader: BatchLoader

    /// Reads every image once, so that a damaged one is found now; see `BatchLoader.checkAll`.
    public func checkImages(
        onProgress: (Int) -> Void = { _ in }, shouldStop: () -> Bool = { false }
    ) throws -> [String] {
        try loader.checkAll(onProgress: onProgress, shouldStop: shouldStop)
    }

    /// What a person would want to know of the images that were read so far; see `BatchLoader.notes`.
    public var notes: [String] { loader.notes }

    /// Begins to make batches of these images, changed by the augmentation as it is drawn; see `BatchLoader.start`. Without draws
    /// they are as in evaluation.
    public func start(_ batches: [[Int]], augmented draws: TrainingDraws?) {
        loader.start(batches, augmented: draws)
    }

    /// Starts the loader's threads. `augmentation` is how training reads the images, `cacheByteLimit` how many bytes of them may
    /// be kept.
    public init(
        _ source: any ImageSource, _ preprocessing: Preprocessor, augmentation: Augmentation = .none,
        cacheByteLimit: Int = 1 << 30
    ) {
        self.source = source
        self.augmentation = augmentation
        loader = BatchLoader(
            source, preprocessing, augmentation: augmentation, cacheByteLimit: cacheByteLimit)
    }
}
