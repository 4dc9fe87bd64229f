import Foundation
import TensorCore
import Testing

@testable import Datasets

/// Noise of several sizes, by index; counts what is decoded.
private final class NoiseSource: ImageSource {
    let name = "noise"
    let count = 6
    let classCount = 3
    let contentHash: UInt64 = 0
    private let lock = NSLock()
    nonisolated(unsafe) private var decodingCount = 0

    var decodings: Int { lock.withLock { decodingCount } }

    func label(at index: Int) -> Int { index % 3 }

    func image(at index: Int) -> RGBImage {
        lock.withLock { decodingCount += 1 }
        let (width, height) = (20 + index, 31 - index)
        var random = Random(5, "noise", index)
        return RGBImage(
            width: width, height: height,
            pixels: (0..<width * height * 3).map { _ in UInt8(truncatingIfNeeded: random.next() >> 40) })
    }
}

@Suite("The batch loader augments")
struct AugmentedLoaderTests {
    private let preprocessing: Preprocessor
    private let draws = TrainingDraws(seed: 3, epoch: 2, batch: 10)

    init() throws {
        preprocessing = try Preprocessor(Preprocessing(), imageSize: 16)
    }

    /// The batches of an epoch; `draws` nil for one without augmentation.
    private func epoch(
        _ text: String, _ batches: [[Int]], threads: Int = 1, cache: Int = 1 << 20,
        _ draws: TrainingDraws?
    ) throws -> [Batch] {
        let loader = BatchLoader(
            NoiseSource(), preprocessing, augmentation: try Augmentation(text), threads: threads,
            cacheByteLimit: cache)
        loader.start(batches, augmented: draws)
        var all: [Batch] = []
        while let batch = try loader.next() { all.append(batch) }
        return all
    }

    /// Each image's values by its index.
    private func byIndex(_ batches: [Batch]) -> [Int: [Float]] {
        var values: [Int: [Float]] = [:]
        for batch in batches {
            let size = batch.images.count / batch.count
            for (slot, index) in batch.indices.enumerated() {
                values[index] = Array(batch.images[slot * size..<(slot + 1) * size])
            }
        }
        return values
    }

    @Test(
        "An image depends on seed, epoch and its index, not on threads, cache, batch or place",
        arguments: [
            "light", "fewshot,mixup=0,cutmix=0", "none,hflip=0.5,reprob=1,remode=rand", "rand-n4,jitter=0.4",
        ])
    func independence(_ text: String) throws {
        let reference = byIndex(try epoch(text, [[0, 1, 2, 3, 4, 5]], draws))
        #expect(reference.count == 6)
        for threads in [0, 1, 3] {
            for cache in [0, 4000, 1 << 20] {
                let batches = try epoch(
                    text, [[5], [3, 1], [0, 4, 2]], threads: threads, cache: cache, draws)
                #expect(byIndex(batches) == reference)
            }
        }
        var later = draws
        later.batch += 7
        #expect(byIndex(try epoch(text, [[0, 1, 2, 3, 4, 5]], later)) == reference)
        for other in [
            TrainingDraws(seed: 4, epoch: 2, batch: 10), TrainingDraws(seed: 3, epoch: 3, batch: 10),
        ] {
            #expect(byIndex(try epoch(text, [[0, 1, 2, 3, 4, 5]], other)) != reference)
        }
    }

    @Test(
        "Without draws, and with none, images are as in evaluation", arguments: ["none", "light", "fewshot"])
    func evaluation(_ text: String) throws {
        let source = NoiseSource()
        let batches = try epoch(text, [[2, 0], [5]], nil)
        #expect(batches.allSatisfy { $0.mix == nil })
        #expect(
            batches.map(\.images)
                == [
                    try preprocessing(source.image(at: 2)) + preprocessing(source.image(at: 0)),
                    try preprocessing(source.image(at: 5)),
                ])
        let augmented = try epoch(text, [[2, 0], [5]], draws)
        #expect((augmented.map(\.images) == batches.map(\.images)) == (text == "none"))
    }

    @Test("Decoded images are kept as far as they fit")
    func cache() throws {
        // 20 x 31 to 25 x 26 pixels: 1,860, 1,890, 1,914, 1,932, 1,944 and 1,950 bytes.
        for (limit, decodings) in [(0, 12), (1859, 12), (3750, 10), (11490, 6), (11489, 7)] {
            let source = NoiseSource()
            let loader = BatchLoader(
                source, preprocessing, augmentation: .light, threads: 1, cacheByteLimit: limit)
            for _ in 0..<2 {
                loader.start([[0, 1, 2], [3, 4, 5]], augmented: draws)
                while try loader.next() != nil {}
            }
            #expect(source.decodings == decodings, "\(limit)")
        }
        let source = NoiseSource()
        let loader = BatchLoader(source, preprocessing, augmentation: .light, threads: 2)
        try loader.checkAll()
        loader.start([[0, 1, 2, 3, 4, 5]], augmented: draws)
        _ = try loader.next()
        #expect(source.decodings == 6)
    }

    @Test("A mixed batch says with what", arguments: ["none,mixup=0.8", "none,cutmix=1"], [0, 1, 4])
    func mixing(_ text: String, threads: Int) throws {
        let batches = [[0, 1, 2, 4], [3, 5, 1], [2, 3]]
        let plain = try epoch("none", batches, draws)
        let mixed = try epoch(text, batches, threads: threads, draws)
        for (batch, before) in zip(mixed, plain) {
            let mix = try #require(batch.mix)
            #expect(batch.labels == before.labels)
            #expect(mix.partners == batch.labels.reversed())
            let (size, own, other) = (3 * 16 * 16, Float(mix.lambda), Float(1 - mix.lambda))
            let last = batch.count - 1
            var kept = 0
            for image in 0..<batch.count {
                for k in 0..<size {
                    let (a, b) = (before.images[image * size + k], before.images[(last - image) * size + k])
                    let value = batch.images[image * size + k]
                    if text.contains("mixup") {
                        if value == a * own + b * other { kept += 1 }
                    } else {
                        #expect(value == a || value == b)
                        if value == a, image * 2 < last { kept += 1 }
                    }
                }
            }
            let all = Double(text.contains("mixup") ? batch.count * size : batch.count / 2 * size)
            // Values that are equal in both images count as kept.
            #expect(abs(Double(kept) / all - (text.contains("mixup") ? 1 : mix.lambda)) < 0.02)
        }
        #expect(Set(mixed.map { $0.mix?.lambda }).count == 3)
        // A run that goes on in the middle of an epoch mixes as it would have.
        var later = draws
        later.batch += 1
        let rest = try epoch(text, Array(batches.dropFirst()), later)
        #expect(rest.map(\.images) == mixed.dropFirst().map(\.images))
    }

    @Test("A sheet has a row of each image: as in evaluation, then as in epochs of training")
    func sheet() throws {
        let images = PreparedImages(NoiseSource(), preprocessing, augmentation: .light)
        let sheet = try images.sheet(of: [4, 1], views: 2, seed: 3)
        let source = NoiseSource()
        let augmenter = Augmenter(.light, preprocessing)
        let expected = try [4, 1].flatMap { index in
            let image = source.image(at: index)
            let views = (0..<2).map { epoch in
                let draws = TrainingDraws(seed: 3, epoch: epoch, batch: 0)
                return augmenter.apply(
                    augmenter.draw(width: image.width, height: image.height, draws, image: index), to: image)
            }
            return [try preprocessing.resized(image)] + views
        }
        #expect(sheet == RGBImage.sheet(images: expected, columns: 3))
        #expect(Set(expected.map { fnv($0.pixels) }).count == 6)
    }

    @Test("Prepared images pass it on")
    func prepared() throws {
        let images = PreparedImages(NoiseSource(), preprocessing, augmentation: .light)
        images.start([[1, 4]], augmented: draws)
        let batch = try images.loader.next()
        #expect(try batch?.images == epoch("light", [[1, 4]], draws).first?.images)
    }
}

@Suite("Draws of augmentation have timm's distributions")
struct AugmentationDrawTests {
    private let count = 20_000

    /// The mean and the variance of what is drawn.
    private func moments(_ draw: (inout Random) -> Double) -> (mean: Double, variance: Double) {
        var random = Random(1, "moments")
        let values = (0..<count).map { _ in draw(&random) }
        let mean = values.reduce(0, +) / Double(count)
        return (mean, values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(count))
    }

    @Test("λ is Beta(α, α)", arguments: [0.001, 0.1, 0.2, 0.8, 1, 4, 1000])
    func beta(_ alpha: Double) {
        let (mean, variance) = moments { $0.beta(alpha) }
        let expected = 1 / (4 * (2 * alpha + 1))
        #expect(abs(mean - 0.5) < 5 * (expected / Double(count)).squareRoot())
        #expect(abs(variance / expected - 1) < 0.05)
    }

    @Test("Operations are drawn evenly, done half of the time, at levels about m")
    func policy() throws {
        var random = Random(2, "policy")
        let policy = try RandAugment("rand-m5-mstd0.5-n1")
        var counts: [String: Int] = [:]
        var angles: [Double] = []
        for _ in 0..<count {
            for operation in policy.draw(&random) {
                counts[name(operation), default: 0] += 1
                if case .rotate(let degrees) = operation { angles.append(degrees) }
            }
        }
        #expect(counts.count == 15)
        let share = Double(count) / 30
        for (_, times) in counts { #expect(abs(Double(times) - share) < 5 * share.squareRoot()) }
        let positive = angles.filter { $0 > 0 }
        #expect(abs(Double(positive.count) / Double(angles.count) - 0.5) < 0.1)
        let mean = positive.reduce(0, +) / Double(positive.count)
        let variance = positive.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(positive.count)
        #expect(abs(mean - 15) < 0.3 && abs(variance.squareRoot() - 1.5) < 0.2)
    }

    /// The operation without its number.
    private func name(_ operation: ImageOperation) -> String {
        if case .enhance(let enhancement, _) = operation { return "\(enhancement)" }
        return String("\(operation)".prefix { $0 != "(" })
    }

    @Test("A level is uniform for mstd above 100, and clipped at mmax")
    func levels() throws {
        func angles(_ text: String) throws -> [Double] {
            var random = Random(2, "levels")
            let policy = try RandAugment(text)
            return (0..<count).flatMap { _ in policy.draw(&random) }.compactMap { operation in
                if case .rotate(let degrees) = operation { return abs(degrees) }
                return nil
            }
        }
        let uniform = try angles("rand-m9-mstd101")
        #expect(uniform.allSatisfy { $0 <= 27 })
        #expect(abs(uniform.reduce(0, +) / Double(uniform.count) - 13.5) < 0.6)
        #expect(try angles("rand-m9-mstd5-mmax12").max() == 36)
        #expect(try angles("rand-m9").allSatisfy { $0 == 27 })
        #expect(try angles("rand-m20").allSatisfy { $0 == 30 })
    }

    @Test("Weighted operations come by their weights, none twice")
    func weights() throws {
        var random = Random(2, "weights")
        let policy = try RandAugment("rand-p1-n15-tweights")
        #expect(policy.draw(&random).count == 15)
        let one = try RandAugment("rand-p1-n1-tweights")
        let rotations = (0..<count).filter { _ in
            if case .rotate = one.draw(&random)[0] { return true }
            return false
        }.count
        let total = RandAugment.Kind.allCases.reduce(0) { $0 + $1.weight }
        #expect(abs(Double(rotations) / Double(count) - 3 / total) < 0.02)
    }

    @Test("A crop's area and proportions are as asked for, and it lies anywhere")
    func crops() {
        let crop = RandomResizedCrop(scale: 0.1...0.5)
        var random = Random(2, "crops")
        let boxes = (0..<count).map { _ in crop.draw(width: 300, height: 300, &random) }
        let parts = boxes.map { Double($0.width * $0.height) / 90_000 }
        #expect(abs(parts.reduce(0, +) / Double(count) - 0.3) < 0.01)
        #expect(parts.min()! > 0.098 && parts.max()! < 0.503)
        let ratios = boxes.map { Double($0.width) / Double($0.height) }
        #expect(ratios.min()! > 0.74 && ratios.max()! < 1.35)
        #expect(abs(ratios.map(log).reduce(0, +) / Double(count)) < 0.01)
        let places = boxes.map { Double($0.left) / Double(300 - $0.width) }
        #expect(abs(places.reduce(0, +) / Double(count) - 0.5) < 0.02)
        #expect(boxes.contains { $0.left + $0.width == 300 } && boxes.contains { $0.top == 0 })
    }

    @Test("Flips, interpolation and colour jitter are drawn as asked for")
    func stages() throws {
        let augmenter = Augmenter(
            try Augmentation("light,hflip=0.25,vflip=0.75,interpolation=random,jitter=0.4"),
            try Preprocessor(Preprocessing(), imageSize: 16))
        let draws = TrainingDraws(seed: 2, epoch: 0, batch: 0)
        let images = (0..<count).map { augmenter.draw(width: 30, height: 20, draws, image: $0) }
        func share(_ isSo: (Augmenter.Draw) -> Bool) -> Double {
            Double(images.filter(isSo).count) / Double(count)
        }
        #expect(abs(share(\.isFlippedHorizontally) - 0.25) < 0.02)
        #expect(abs(share(\.isFlippedVertically) - 0.75) < 0.02)
        #expect(abs(share(\.isCropCubic) - 0.5) < 0.02)
        var orders: [String: Int] = [:]
        var factors: [Double] = []
        for image in images {
            orders[image.operations.map { name($0.operation) }.joined(), default: 0] += 1
            for step in image.operations {
                if case .enhance(_, let factor) = step.operation { factors.append(factor) }
            }
        }
        #expect(
            orders.count == 6 && orders.values.allSatisfy { abs(Double($0 * 6) / Double(count) - 1) < 0.1 })
        #expect(factors.count == 3 * count && factors.allSatisfy { (0.6...1.4).contains($0) })
        let variance = factors.reduce(0) { $0 + ($1 - 1) * ($1 - 1) } / Double(factors.count)
        #expect(abs(variance / (0.64 / 12) - 1) < 0.03)
    }

    @Test("Batches are mixed as often as asked for, by cutmix as often as asked for")
    func mixing() {
        let mixing = BatchMixing(mixup: 0.8, cutmix: 1, probability: 0.6, switchProbability: 0.25)
        var (mixups, cutmixes) = (0, 0)
        var random = Random(2, "mixing")
        for _ in 0..<count {
            switch mixing.draw(side: 32, &random) {
            case .mixup: mixups += 1
            case .cutmix: cutmixes += 1
            case nil: break
            }
        }
        #expect(abs(Double(mixups) / Double(count) - 0.45) < 0.02)
        #expect(abs(Double(cutmixes) / Double(count) - 0.15) < 0.02)
        #expect(BatchMixing().draw(side: 32, &random) == nil)
    }

    @Test("Erasing is as often, as large and as many as asked for")
    func erasing() {
        var random = Random(2, "erasing")
        let erasing = RandomErasing(probability: 0.25, mode: .pixel, count: 3)
        let draws = (0..<count).map { _ in erasing.draw(side: 100, &random) }
        let done = draws.filter { !$0.isEmpty }
        #expect(abs(Double(done.count) / Double(count) - 0.25) < 0.02)
        for times in 1...3 {
            let share = Double(done.filter { $0.count == times }.count) / Double(done.count)
            #expect(abs(share - 1.0 / 3) < 0.03)
        }
        let single = done.filter { $0.count == 1 }.map { Double($0[0].width * $0[0].height) / 10_000 }
        #expect(abs(single.reduce(0, +) / Double(single.count) - 0.1766) < 0.01)
        // Values are normal.
        var values = [Float](repeating: 9, count: 3 * 100 * 100)
        values.withUnsafeMutableBufferPointer {
            RandomErasing(probability: 1, mode: .pixel)($0, side: 100, &random)
        }
        let erased = values.filter { $0 != 9 }.map(Double.init)
        let mean = erased.reduce(0, +) / Double(erased.count)
        let variance = erased.reduce(0) { $0 + $1 * $1 } / Double(erased.count)
        #expect(erased.count > 500 && abs(mean) < 0.15 && abs(variance - 1) < 0.15)
    }
}
