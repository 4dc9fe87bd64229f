import Foundation
import Testing

@testable import Datasets

/// Images that are one grey each, by index; notes what is decoded.
private final class GreySource: ImageSource {
    let name = "greys"
    let count: Int
    let classCount = 7
    let contentHash: UInt64 = 0
    let broken: Set<Int>
    private let condition = NSCondition()
    nonisolated(unsafe) private var decodings: [Int] = []

    init(count: Int, broken: Set<Int> = []) {
        self.count = count
        self.broken = broken
    }

    /// The indices that were decoded, in no particular order.
    var decoded: [Int] { decoded(atLeast: 0) }

    /// The same as soon as there are so many, or after a minute.
    func decoded(atLeast count: Int) -> [Int] {
        let deadline = Date() + 60
        return condition.withLock {
            while decodings.count < count, condition.wait(until: deadline) {}
            return decodings
        }
    }

    func label(at index: Int) -> Int { index % 7 }

    func image(at index: Int) throws -> RGBImage {
        condition.withLock {
            decodings.append(index)
            condition.broadcast()
        }
        if broken.contains(index) { throw DatasetError("image \(index) is broken") }
        // Uneven work, so that threads finish out of order.
        let (width, height) = index % 3 == 2 ? (300, 200) : (3, 2)
        return RGBImage(
            width: width, height: height,
            pixels: [UInt8](repeating: UInt8(truncatingIfNeeded: index), count: 3 * width * height))
    }
}

@Suite("The batch loader")
struct BatchLoaderTests {
    private let preprocessing: Preprocessor
    private let batches = [[5, 3, 8], [0, 1, 2], [7], [9, 9, 4, 6]]

    init() throws {
        preprocessing = try Preprocessor(
            Preprocessing(mean: [0, 0, 0], std: [1, 0.5, 0.25]), imageSize: 4)
    }

    /// [count, 3, 4, 4] of greys.
    private func expected(_ indices: [Int]) -> [Float] {
        indices.flatMap { index in
            [1, 0.5, 0.25].flatMap { std in [Float](repeating: Float(index) / 255 / std, count: 16) }
        }
    }

    private func drain(_ loader: BatchLoader) throws -> [Batch] {
        var all: [Batch] = []
        while let batch = try loader.next() { all.append(batch) }
        return all
    }

    @Test(
        "Batches come in their order, whatever the threads and the cache", arguments: [0, 1, 2, 7],
        [0, 1 << 20])
    func deliversInOrder(threads: Int, cacheByteLimit: Int) throws {
        let source = GreySource(count: 10)
        let loader = BatchLoader(source, preprocessing, threads: threads, cacheByteLimit: cacheByteLimit)
        for _ in 0..<3 {
            loader.start(batches)
            let delivered = try drain(loader)
            #expect(delivered.map(\.indices) == batches)
            for batch in delivered {
                #expect(batch.shape == [batch.count, 3, 4, 4])
                #expect(batch.labels == batch.indices.map { Int32($0 % 7) })
                #expect(batch.images == expected(batch.indices))
            }
            #expect(try loader.next() == nil)
        }
    }

    @Test("Resized images are kept as far as the limit allows")
    func keepsResizedImages() throws {
        for (limit, decodings) in [(10 * 48, 10), (10 * 48 - 1, 20)] {
            let source = GreySource(count: 10)
            let loader = BatchLoader(source, preprocessing, threads: 1, cacheByteLimit: limit)
            for _ in 0..<2 {
                loader.start([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
                _ = try drain(loader)
            }
            #expect(source.decoded.count == decodings)
        }
    }

    @Test("Batches are decoded ahead, but not far")
    func decodesAheadButNotFar() throws {
        let count = 300
        let source = GreySource(count: count)
        let loader = BatchLoader(source, preprocessing, threads: 2, batchesAhead: 2, cacheByteLimit: 0)
        loader.start((0..<count).map { [$0] })
        for asked in 0..<count {
            let ahead = min(asked + 2, count)
            // A loader that goes further has done so in some of the rounds by the time that this one looks.
            #expect(source.decoded(atLeast: ahead).sorted() == Array(0..<ahead))
            #expect(try loader.next()?.indices == [asked])
        }
    }

    @Test("An error comes in its batch's place", arguments: [0, 1, 4])
    func errorsComeInTheirPlace(threads: Int) throws {
        let source = GreySource(count: 10, broken: [7, 9])
        let loader = BatchLoader(source, preprocessing, threads: threads)
        loader.start([[0, 1], [2, 9, 3, 7], [4]])
        #expect(try loader.next()?.indices == [0, 1])
        #expect(throws: DatasetError("image 9 is broken")) { try loader.next() }
        #expect(try loader.next() == nil)
        loader.start([[4]])
        #expect(try loader.next()?.images == expected([4]))
    }

    @Test("An epoch can be dropped")
    func anEpochCanBeDropped() throws {
        let loader = BatchLoader(GreySource(count: 10), preprocessing, threads: 3)
        loader.start(batches)
        let first = try loader.next()
        loader.start([[1], [2]])
        #expect(try drain(loader).map(\.indices) == [[1], [2]])
        // A batch that is held keeps its pixels while its loader goes on and goes away.
        #expect(first?.images == expected([5, 3, 8]))
    }

    @Test(
        "A check decodes every image once, and an epoch after it nothing that is kept", arguments: [0, 1, 4])
    func checks(threads: Int) throws {
        for (limit, decodings) in [(10 * 48, 10), (10 * 48 - 1, 20)] {
            let source = GreySource(count: 10)
            let loader = BatchLoader(source, preprocessing, threads: threads, cacheByteLimit: limit)
            loader.start([[1]])  // Dropped.
            var progress: [Int] = []
            #expect(try loader.checkAll(onProgress: { progress.append($0) }) == [])
            #expect(progress.last == 10 && progress == progress.sorted())
            #expect(Set(source.decoded) == Set(0..<10))
            let before = source.decoded.count
            #expect(try loader.next() == nil)
            loader.start(batches)
            let delivered = try drain(loader)
            #expect(delivered.map(\.images) == batches.map(expected))
            // The epoch has image 9 twice.
            #expect(source.decoded.count - before == (decodings == 10 ? 0 : 11))
        }
    }

    @Test("A check says all that is bad, the first in order by name; one bad image keeps its own sentence")
    func checksFindAll() throws {
        func message(_ broken: Set<Int>) -> String? {
            let loader = BatchLoader(GreySource(count: 40, broken: broken), preprocessing, threads: 3)
            return #expect(throws: DatasetError.self) { try loader.checkAll() }?.description
        }
        #expect(message([23]) == "image 23 is broken")
        #expect(message([9, 7]) == "2 of 40 images can't be used: image 7 is broken image 9 is broken")
        let many = try #require(message(Set(10..<25)))
        #expect(
            many.hasPrefix("15 of 40 images can't be used: image 10 is broken image 11 is broken image 12"))
        #expect(many.hasSuffix("image 14 is broken And 10 more."))
    }

    @Test("A check that is told to stop stops, and the loader goes on")
    func checksStop() throws {
        let source = GreySource(count: 10_000)
        let loader = BatchLoader(source, preprocessing, threads: 2, cacheByteLimit: 0)
        try loader.checkAll(shouldStop: { true })
        loader.start([[4]])
        #expect(try drain(loader).map(\.images) == [expected([4])])
        #expect(source.decoded.count < 5_000)
    }

    @Test(
        "A check finds an image that can't be brought to the model's size without resizing one",
        arguments: [0, 1 << 20])
    func checksSizes(cacheByteLimit: Int) throws {
        let unfit = try Preprocessor(Preprocessing(resize: .none, crop: .none), imageSize: 4)
        let loader = BatchLoader(GreySource(count: 1), unfit, cacheByteLimit: cacheByteLimit)
        let error = #expect(throws: DatasetError.self) { try loader.checkAll() }
        #expect(error?.description.contains("image 0 of greys is 3x2 pixels") == true)
    }

    @Test("A check, and a reading, tells of 16-bit grey that uses few of its bits", arguments: [0, 1 << 20])
    func checksGrey(cacheByteLimit: Int) throws {
        let names = ["grey12of16.png", "grey16.png", "grey8.png"]
        let files = try Dictionary(uniqueKeysWithValues: names.map { ($0, try Fixtures.bytes($0)) })
        let lines = names.map { "\($0) 0\n" }.joined()
        try withTemporaryFolder(files.merging(["train.txt": Array(lines.utf8)]) { $1 }) { folder in
            let list = try TaskFolder.open(folder).split(.train)
            let notes = try BatchLoader(list, preprocessing, cacheByteLimit: cacheByteLimit).checkAll()
            try #require(notes.count == 1)
            #expect(notes[0].hasPrefix("1 image is 16-bit grey of which 12 bits are used"))
            // Who reads without a check is told too, and once however often they are read.
            let reader = BatchLoader(list, preprocessing, cacheByteLimit: cacheByteLimit)
            #expect(reader.notes == [])
            for _ in 0..<2 {
                reader.start([[0, 1, 2]])
                _ = try reader.next()
            }
            #expect(reader.notes == notes)
        }
    }

    @Test("Images are read from files and from memory")
    func readsFilesAndMemory() throws {
        let png = try Fixtures.bytes("rgb8.png")
        let lines = Array("a.png 0\nb.png 1".utf8)
        try withTemporaryFolder(["a.png": png, "b.png": Array(png[..<90]), "train.txt": lines]) { folder in
            let list = try TaskFolder.open(folder).split(.train)
            let loader = BatchLoader(list, preprocessing)
            let image = try decode(png)
            loader.start([[0], [1]])
            let values = try preprocessing(image)
            #expect(try loader.next()?.images == values)
            let error = #expect(throws: DatasetError.self) { try loader.next() }
            #expect(error?.description.contains("b.png") == true)

            let memory = InMemoryImages(name: "one", images: [image], labels: [1], classCount: 2)
            let second = BatchLoader(memory, preprocessing)
            second.start([[0, 0]])
            let batch = try second.next()
            #expect(batch?.labels == [1, 1])
            #expect(batch?.images == values + values)
        }
    }

    @Test("The hash of images in memory depends on pixels and labels")
    func memoryHashesKnowPixelsAndLabels() {
        func hash(_ value: UInt8, _ label: Int) -> UInt64 {
            let image = RGBImage(width: 1, height: 1, pixels: [value, 0, 0])
            return InMemoryImages(name: "", images: [image], labels: [label], classCount: 2).contentHash
        }
        #expect(hash(1, 0) == hash(1, 0))
        #expect(Set([hash(1, 0), hash(2, 0), hash(1, 1)]).count == 3)
    }
}
