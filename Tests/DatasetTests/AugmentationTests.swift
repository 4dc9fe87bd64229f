import Foundation
import TensorCore
import Testing

@testable import Datasets

@Suite("Images are augmented as Pillow, torchvision and timm do, draw by draw")
struct AugmentationTests {
    private let expected = AugmentationFixtures.expected
    private let views = AugmentationFixtures.views

    @Test("RandAugment's operations give timm's pixels at every level")
    func operations() throws {
        try #require(expected.operations.count > 300)
        var wrong: [String: Int] = [:]
        for case let record in expected.operations {
            var policy = RandAugment()
            policy.increases = record.name.hasSuffix("Increasing")
            let name = record.name.replacingOccurrences(of: "Increasing", with: "")
            let kind = try #require(RandAugment.Kind(rawValue: name))
            let operation = policy.operation(kind, level: record.level, isNegated: record.negated)
            let image = try #require(views[record.view])
                .applying(operation, cubic: record.cubic, fill: [124, 116, 104])
            if fnv(image.pixels) != record.hash {
                wrong["\(record.name) of \(record.view)", default: 0] += 1
            }
        }
        #expect(wrong.isEmpty)
    }

    @Test("Without a bit an image is black, as in Pillow before 13, which refuses that; with eight it stays")
    func posterised() throws {
        let image = try #require(views["whole"])
        for bits in [0, -2] { #expect(image.posterised(bits: bits).pixels.allSatisfy { $0 == 0 }) }
        for bits in [8, 12] { #expect(image.posterised(bits: bits) == image) }
    }

    @Test("A crop's size follows from timm's draws; the first of ten that fits is taken, else the centre")
    func crops() throws {
        var centres = 0
        for record in expected.crops {
            let crop = RandomResizedCrop(
                scale: record.scale[0]...record.scale[1], ratio: record.ratio[0]...record.ratio[1])
            let sizes = stride(from: 0, to: record.draws.count, by: 2).map {
                RandomResizedCrop.size(
                    part: record.draws[$0], logRatio: record.draws[$0 + 1], ofWidth: record.width,
                    height: record.height)
            }
            let box = RGBImage.Box(record.box)
            if let last = sizes.firstIndex(where: { $0.width <= record.width && $0.height <= record.height })
            {
                #expect(last == sizes.count - 1)
                #expect(sizes[last] == (box.width, box.height))
            } else {
                centres += 1
                #expect(crop.centre(width: record.width, height: record.height) == box)
            }
        }
        #expect(centres > 10)
    }

    @Test("Whole pipelines give timm's pixels, in its order")
    func pipelines() throws {
        try #require(expected.pipelines.count > 20)
        for record in expected.pipelines {
            let mean = record.fill == [128, 128, 128] ? Preprocessing.inception : Preprocessing.imagenet
            let preprocessor = try Preprocessor(
                Preprocessing(mean: mean.mean, std: mean.std), imageSize: 32)
            let augmenter = Augmenter(.fewshot, preprocessor)
            if let fill = record.fill { #expect(augmenter.fill == fill) }
            var draw = Augmenter.Draw(
                box: RGBImage.Box(record.box), isCropCubic: record.cubic,
                isFlippedHorizontally: record.horizontal, isFlippedVertically: record.vertical)
            draw.operations = try record.steps.map { step in
                Augmenter.Draw.Step(operation: try operation(step), isCubic: step.cubic)
            }
            let image = augmenter.apply(draw, to: try #require(views["whole"]))
            #expect(fnv(image.pixels) == record.hash, "\(record.name) \(record.steps)")
        }
    }

    /// timm's operation with its own argument.
    private func operation(_ step: AugmentationFixtures.Pipeline.Step) throws -> ImageOperation {
        let (value, whole) = (step.argument, Int(step.argument))
        switch try #require(RandAugment.Kind(rawValue: step.name)) {
        case .autoContrast: return .stretchContrast
        case .equalize: return .equalise
        case .invert: return .invert
        case .rotate: return .rotate(degrees: value)
        case .posterize: return .posterise(bits: whole)
        case .solarize: return .solarise(from: whole)
        case .solarizeAdd: return .brightenDark(by: whole)
        case .color: return .enhance(.colour, value)
        case .contrast: return .enhance(.contrast, value)
        case .brightness: return .enhance(.brightness, value)
        case .sharpness: return .enhance(.sharpness, value)
        case .shearX: return .shearX(value)
        case .shearY: return .shearY(value)
        case .translateX: return .translateX(value)
        case .translateY: return .translateY(value)
        }
    }

    @Test("Erased boxes have timm's sizes")
    func erasedSizes() {
        for record in expected.erasings where record.side == 224 {
            let sizes = stride(from: 0, to: record.draws.count, by: 2).map {
                RandomErasing.size(
                    part: record.draws[$0], logRatio: record.draws[$0 + 1], side: record.side,
                    count: record.count)
            }.filter { $0.height < record.side && $0.width < record.side }
            #expect(sizes.map { [$0.height, $0.width] } == record.sizes)
        }
    }

    @Test("Erased values are timm's", arguments: RandomErasing.Mode.allCases)
    func erasedValues(_ mode: RandomErasing.Mode) throws {
        let records = expected.erasings.filter { $0.side == 8 && $0.mode == mode.rawValue }
        try #require(!records.isEmpty)
        for record in records {
            let box = RGBImage.Box(try #require(record.box))
            let noise = try #require(record.noise).floats
            var values = (0..<192).map { Float($0) / 64 }
            var next = 0
            values.withUnsafeMutableBufferPointer { values in
                RandomErasing.erase(values, side: 8, box) { channel in
                    defer { next += 1 }
                    return mode == .pixel ? noise[next] : noise[channel]
                }
            }
            #expect(values == record.values?.floats)
        }
    }

    @Test("Mixed batches and their labels are timm's")
    func mixing() throws {
        for record in expected.mixings {
            let draw: BatchMixing.Draw =
                record.cutmix
                ? .cutmix(
                    BatchMixing.box(
                        lambda: record.drawn, centreX: record.centre[0], y: record.centre[1],
                        side: record.side)) : .mixup(lambda: record.drawn)
            var values = record.start.floats
            values.withUnsafeMutableBufferPointer {
                BatchMixing.mix($0, count: record.count, side: record.side, draw)
            }
            #expect(values == record.values.floats)
            let lambda = draw.lambda(side: record.side)
            #expect(lambda == record.weight)
            var targets = [Float](repeating: 0, count: record.count * record.count)
            for image in 0..<record.count {
                targets[image * record.count + image] += Float(lambda)
                targets[image * record.count + record.count - 1 - image] += Float(1 - lambda)
            }
            #expect(targets == record.targets.floats)
        }
        for record in expected.boxes {
            let box = BatchMixing.box(
                lambda: record.drawn, centreX: record.centre[0], y: record.centre[1], side: 224)
            #expect(box == RGBImage.Box(record.box))
        }
    }

    @Test("NOAH's evaluation is a preprocessing")
    func evaluation() throws {
        // 256 of 224, as `crop squash-center` has it.
        let preprocessor = try Preprocessor(Preprocessing(side: 32), imageSize: 28)
        #expect(fnv(try preprocessor.resized(try #require(views["whole"])).pixels) == expected.evaluation)
    }

    @Test("A sheet has the images in rows, on white")
    func sheet() {
        func image(_ value: UInt8, _ width: Int, _ height: Int) -> RGBImage {
            RGBImage(
                width: width, height: height,
                pixels: [UInt8](repeating: value, count: 3 * width * height))
        }
        let sheet = RGBImage.sheet(
            images: [image(1, 2, 1), image(2, 1, 2), image(3, 2, 2)], columns: 2, gap: 1)
        let rows = [[1, 1, 255, 2, 255], [255, 255, 255, 2, 255], [255, 255, 255, 255, 255]]
        let last = [[3, 3, 255, 255, 255], [3, 3, 255, 255, 255]]
        #expect(sheet.width == 5 && sheet.height == 5)
        #expect(sheet.pixels == (rows + last).joined().flatMap { [UInt8](repeating: UInt8($0), count: 3) })
    }
}
