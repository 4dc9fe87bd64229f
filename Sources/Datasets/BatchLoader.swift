import Foundation
import TensorCore

/// Decodes, resizes and normalises batches on other threads, ahead of who asks for them.
///
/// The caller decides the order: `start` with the batches of an epoch, each a list of indices, then `next` until nil. What
/// comes out doesn't depend on the number of threads. Resized images are kept as 8-bit values when the whole source fits
/// into `cacheByteLimit`, so that from the second epoch on nothing is decoded (1,000 images at 224×224 are 150 MB).
///
/// An augmentation that crops needs the images as they were decoded. Those are kept as long as they fit, in the order in which
/// they come, and what doesn't fit is decoded again each time: how many bytes all of them take is known when all were
/// decoded, and each that is kept saves its own decoding (1,000 of 300×200 are 180 MB).
///
/// A loader is used from one thread at a time.
public final class BatchLoader {
    private let queue: BatchQueue
    /// How images are prepared.
    let preprocessor: Preprocessor

    /// A loader of these images, prepared so.
    ///
    /// - `threads`: how many decode; by default one per processor, at most 8. With 0, or where the system
    ///   allows none, the caller does.
    /// - `batchesAhead`: how many batches may be ready or in work before they are asked for.
    /// - `augmentation`: how images are changed in the epochs that are started with draws; one that `check` lets pass.
    /// - `cacheByteLimit`: bytes of memory that kept images may take; 0 keeps none. By default 1 GiB, or a quarter of what the
    ///   process may take.
    public init(
        _ source: any ImageSource, _ preprocessing: Preprocessor, augmentation: Augmentation = .none,
        threads: Int? = nil, batchesAhead: Int = 2,
        cacheByteLimit: Int = min(1 << 30, BatchLoader.memoryByteCount / 4)
    ) {
        precondition(batchesAhead > 0 && threads ?? 0 >= 0, "a loader needs a batch ahead")
        preprocessor = preprocessing
        let queue = BatchQueue(
            source, Augmenter(augmentation, preprocessing), batchesAhead, cacheByteLimit)
        self.queue = queue
        let count = threads ?? min(8, ProcessLimits.processorCount)
        queue.hasThreads = (0..<count).prefix { _ in startThread(queue.work) }.count > 0
    }

    /// What the process may take; asked once, as it doesn't change in a run.
    public static let memoryByteCount = ProcessLimits.memoryByteCount

    deinit { queue.stop() }

    /// Begins an epoch of these batches of indices; what is left of an earlier one is dropped. Traps when a batch
    /// is empty or an index is not in the source.
    ///
    /// With `draws` the images are augmented. What becomes of an image depends on them and its index alone: not on the
    /// threads, its batch or its place in it. Mixing pairs the images of a batch, by draws of the batch's step.
    public func start(_ batches: [[Int]], augmented draws: TrainingDraws? = nil) {
        queue.start(batches, draws)
    }

    /// Decodes every image once, so that a bad one is found before a run begins and not hours later. What fits the cache
    /// stays there, and a first epoch decodes nothing; nothing else is kept. Drops what is left of an epoch.
    ///
    /// Both closures are called on the caller's thread about ten times a second or oftener: `onProgress` with the number of
    /// images that are done, at the end with all; `shouldStop` to return without the rest.
    ///
    /// Returns what a person would want to know of the images. Throws the `DatasetError` of an image that can't be used, or
    /// one with the number of them and the first few.
    @discardableResult
    public func checkAll(onProgress: (Int) -> Void = { _ in }, shouldStop: () -> Bool = { false }) throws
        -> [String]
    { try queue.checkAll(onProgress, shouldStop) }

    /// What a person would want to know of the images that were decoded so far.
    public var notes: [String] { queue.notes }

    /// The next batch, or nil after the last. Waits until it is ready. Throws the `DatasetError` of the batch's first
    /// image that can't be read; the epoch is then over.
    public func next() throws -> Batch? { try queue.next() }
}

/// What the loader shares with its threads; `condition` guards every `var`.
private final class BatchQueue: @unchecked Sendable {
    private let source: any ImageSource
    private let preprocessing: Preprocessor
    private let augmenter: Augmenter
    private let batchesAhead: Int
    private let pool = MemoryPool()
    private let condition = NSCondition()
    private var pending: ArraySlice<[Int]> = []
    /// Of the epoch, when it is augmented; `step` is that of the first pending batch.
    private var draws: TrainingDraws?
    /// Batches in work or ready, in the order of delivery.
    private var jobs: [BatchJob] = []
    private let cacheIsUsed: Bool
    /// By index in the source; empty when nothing is kept. Decoded images where the augmentation crops, else resized ones.
    private var cache: [RGBImage?]
    /// Bytes that may still be kept.
    private var cacheRoom: Int
    /// When all images are looked at; epochs wait.
    private var check: ImageCheck?
    /// The used bits of those 16-bit grey images whose high bytes are dark, by index in the source.
    private var greyBits: [Int: Int] = [:]
    private var isStopped = false
    /// Whether there are threads that work; set before any work comes.
    var hasThreads = false

    init(
        _ source: any ImageSource, _ augmenter: Augmenter, _ batchesAhead: Int, _ cacheByteLimit: Int
    ) {
        (self.source, self.augmenter, self.batchesAhead) = (source, augmenter, batchesAhead)
        preprocessing = augmenter.preprocessor
        let bytes = source.count * preprocessing.imageSize * preprocessing.imageSize * 3
        cacheIsUsed = augmenter.readsOriginals ? cacheByteLimit > 0 : bytes <= cacheByteLimit
        cacheRoom = cacheByteLimit
        cache = cacheIsUsed ? Array(repeating: nil, count: source.count) : []
    }

    func stop() {
        condition.withLock {
            isStopped = true
            condition.broadcast()
        }
    }

    func start(_ batches: [[Int]], _ draws: TrainingDraws?) {
        precondition(
            batches.allSatisfy { batch in
                !batch.isEmpty && batch.allSatisfy { (0..<source.count).contains($0) }
            }, "\(source.name): a batch is empty or has an index outside of \(source.count) images")
        condition.withLock {
            jobs = []
            pending = batches[...]
            self.draws = draws
            schedule()
        }
    }

    func next() throws -> Batch? {
        try condition.withLock {
            guard let job = jobs.first else { return nil }
            while job.unfinished > 0 { if hasThreads || !workOnce() { condition.wait() } }
            jobs.removeFirst()
            if let failure = job.failure {
                jobs = []
                pending = []
                throw failure.error
            }
            schedule()
            return Batch(
                indices: job.indices, labels: job.indices.map { Int32(source.label(at: $0)) },
                shape: [job.indices.count, 3, preprocessing.imageSize, preprocessing.imageSize],
                mix: job.mixing.map { mixing in
                    LabelMix(
                        lambda: mixing.lambda(side: preprocessing.imageSize),
                        partners: job.indices.reversed().map { Int32(source.label(at: $0)) })
                },
                memory: job.memory)
        }
    }

    func checkAll(_ onProgress: (Int) -> Void, _ shouldStop: () -> Bool) throws -> [String] {
        let check = ImageCheck(count: source.count)
        condition.lock()
        defer {
            self.check = nil
            condition.unlock()
        }
        jobs = []
        pending = []
        self.check = check
        condition.broadcast()
        var finished = 0
        while finished < check.count {
            // The last images may have been finished while the lock was given back.
            if check.finished < check.count, hasThreads || !workOnce() {
                _ = condition.wait(until: Date(timeIntervalSinceNow: 0.1))
            }
            finished = check.finished
            condition.unlock()
            onProgress(finished)
            let stops = shouldStop()
            condition.lock()
            if stops, finished < check.count { return [] }
        }
        try check.throwFailures()
        return greyNotes
    }

    var notes: [String] { condition.withLock { greyNotes } }

    private var greyNotes: [String] {
        guard let bits = greyBits.values.max() else { return [] }
        let (images, their) = greyBits.count == 1 ? ("image is", "its") : ("images are", "their")
        return [
            "\(greyBits.count) \(images) 16-bit grey of which \(bits) bits are used; \(their) high bytes are read, "
                + "which are dark: scale the values to 16 bits, or convert to 8."
        ]
    }

    /// Looks at one image; called with the lock held, which is not held while the image is read.
    private func look(_ check: ImageCheck) {
        let index = check.started
        check.started += 1
        let isKept = !cache.isEmpty && cache[index] != nil
        condition.unlock()
        var kept: RGBImage?
        var bits: Int?
        let result = Result {
            if isKept { return }
            let image = try source.image(at: index)
            bits = image.greyBits
            // Where nothing is kept, resizing would cost a third of the time and tell nothing.
            if augmenter.readsOriginals {
                kept = image
            } else if cacheIsUsed {
                kept = try preprocessing.resized(image, name: source.imageName(at: index))
            } else {
                try preprocessing.check(image, name: source.imageName(at: index))
            }
        }
        condition.lock()
        if let kept { keep(kept, index) }
        if let bits { greyBits[index] = bits }
        check.finish(index, result)
        condition.broadcast()
    }

    /// Puts batches into work up to the limit; called with the lock held.
    private func schedule() {
        while jobs.count < batchesAhead, let indices = pending.popFirst() {
            jobs.append(BatchJob(indices, BatchMemory(pool, count: indices.count * imageCount), draws))
            if let draws {
                var random = Random(draws.seed, "augmentation/mixing", draws.batch)
                jobs.last?.mixing = augmenter.augmentation.mixing.draw(
                    side: preprocessing.imageSize, &random)
                self.draws?.batch += 1
            }
        }
        condition.broadcast()
    }

    /// Keeps the image for later epochs if it fits; called with the lock held.
    private func keep(_ image: RGBImage, _ index: Int) {
        guard cacheIsUsed, cache[index] == nil, image.pixels.count <= cacheRoom else { return }
        cacheRoom -= image.pixels.count
        cache[index] = image
    }

    /// The values of one image, 3 · S · S.
    private var imageCount: Int { 3 * preprocessing.imageSize * preprocessing.imageSize }

    /// A thread's life.
    func work() {
        condition.withLock {
            while !isStopped { if !workOnce() { condition.wait() } }
        }
    }

    /// Takes the next image of a check, or of the earliest batch that has one left; false when there is none. Called with the lock held,
    /// which is not held while the image is read.
    private func workOnce() -> Bool {
        if let check, check.started < check.count {
            look(check)
            return true
        }
        guard let job = jobs.first(where: { $0.started < $0.indices.count }) else { return false }
        let slot = job.started
        let index = job.indices[slot]
        job.started += 1
        let kept = cache.isEmpty ? nil : cache[index]
        condition.unlock()
        let result = Result { try prepare(job, slot, kept, index) }
        condition.lock()
        switch result {
        case .success(let (image, bits)):
            keep(image, index)
            if let bits { greyBits[index] = bits }
        case .failure(let error):
            if job.failure.map({ slot < $0.slot }) ?? true { job.failure = (slot, error) }
        }
        if job.unfinished == 1, let mixing = job.mixing, job.failure == nil {
            // The last one: all images are there, and the batch is still waited for.
            condition.unlock()
            BatchMixing.mix(
                job.memory.values, count: job.indices.count, side: preprocessing.imageSize, mixing)
            condition.lock()
        }
        job.unfinished -= 1
        if job.unfinished == 0 { condition.broadcast() }
        return true
    }

    /// job.memory [slot, 3, S, S] ← the image, which is returned for the cache, with its `greyBits`; runs without the lock, and
    /// no other thread has this slot.
    private func prepare(
        _ job: BatchJob, _ slot: Int, _ kept: RGBImage?, _ index: Int
    ) throws -> (RGBImage, greyBits: Int?) {
        // A JPEG's decoder could halve what is cropped to half its size or less. That moved pixels of four photographs of
        // 640×427 to 720×477 by 1 to 6 of 255 on average, at edges by up to 66, and saved 2 of 8 ms.
        let decoded = try kept ?? source.image(at: index)
        func resized() throws -> RGBImage {
            try preprocessing.resized(decoded, name: source.imageName(at: index))
        }
        let image = try kept ?? (augmenter.readsOriginals ? decoded : resized())
        let start = slot * imageCount
        let out = UnsafeMutableBufferPointer(rebasing: job.memory.values[start..<start + imageCount])
        if let draws = job.draws {
            augmenter(out, image, draws, index: index)
        } else {
            preprocessing.normalise(out, try augmenter.readsOriginals ? resized() : image)
        }
        return (image, kept == nil ? decoded.greyBits : nil)
    }
}

/// A batch in work; guarded by the queue's condition, but for `memory`, whose slots belong to one thread each.
private final class BatchJob {
    let indices: [Int]
    let memory: BatchMemory
    /// Of the epoch, when it is augmented.
    let draws: TrainingDraws?
    /// How the images are mixed when all are there; set before any is in work.
    var mixing: BatchMixing.Draw?
    var started = 0
    var unfinished: Int
    /// Of the earliest slot that failed, so that the error doesn't depend on the threads.
    var failure: (slot: Int, error: any Error)?

    init(_ indices: [Int], _ memory: BatchMemory, _ draws: TrainingDraws?) {
        (self.indices, self.memory, self.draws) = (indices, memory, draws)
        unfinished = indices.count
    }
}
