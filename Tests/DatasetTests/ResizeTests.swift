import Datasets
import Testing

@Suite("Images are resized as Pillow resizes them")
struct ResizeTests {
    static let source = try? RGBImage(contentsOf: Fixtures.path("source.png"))

    @Test("Resized pixels are Pillow's", arguments: Fixtures.expected.resized)
    func equalsPillow(_ expected: Fixtures.Resized) throws {
        let source = try #require(ResizeTests.source)
        let image = source.resized(width: expected.width, height: expected.height)
        #expect(image.width == expected.width && image.height == expected.height)
        if let pixels = expected.pixels {
            #expect(zip(image.pixels, pixels).map { abs(Int($0) - Int($1)) }.max() == 0)
        }
        #expect(fnv(image.pixels) == expected.hash)
    }

    @Test(
        "Resizing the shorter side and cropping gives torchvision's pixels",
        arguments: Fixtures.expected.cropped)
    func cropEqualsTorchvision(_ expected: Fixtures.Cropped) throws {
        let source = try view(expected.view)
        let preprocessing = try Preprocessor(
            Preprocessing(
                resize: .shorterSide, side: Double(expected.shorter), mean: [0, 0, 0], std: [1, 1, 1]),
            imageSize: expected.side)
        #expect(fnv(try preprocessing.resized(source).pixels) == expected.hash)
    }

    @Test("Every filter gives Pillow's pixels", arguments: Fixtures.expected.filtered)
    func filters(_ expected: Fixtures.Filtered) throws {
        let image = try view(expected.view)
            .resized(width: expected.width, height: expected.height, filter: expected.filter)
        #expect(image.width == expected.width && image.height == expected.height)
        if let pixels = expected.pixels { #expect(image.pixels == [UInt8](pixels)) }
        #expect(fnv(image.pixels) == expected.hash)
    }

    @Test(
        "A preprocessing resizes with the filter that it names, only where it is cut",
        arguments: Preprocessing.Filter.allCases)
    func filterOfPreprocessing(_ filter: Preprocessing.Filter) throws {
        let source = try #require(ResizeTests.source)
        let cut = try Preprocessor(
            Preprocessing(resize: .shorterSide, side: 30, filter: filter), imageSize: 21
        ).resized(source)
        // 61 x 47 becomes 38 x 30; (38 - 21) / 2 = 8.5 goes to 8, (30 - 21) / 2 = 4.5 to 4.
        let whole = source.resized(width: 38, height: 30, filter: filter)
        var expected: [UInt8] = []
        for row in 4..<25 {
            let start = (row * 38 + 8) * 3
            expected += whole.pixels[start..<start + 21 * 3]
        }
        #expect(cut.pixels == expected)
    }

    @Test(
        "The centre is torchvision's or transformers', and a smaller image lies on black",
        arguments: Fixtures.expected.centred)
    func centre(_ expected: Fixtures.Centred) throws {
        let preprocessor = try Preprocessor(
            Preprocessing(resize: .none, crop: expected.crop), imageSize: expected.side)
        #expect(fnv(try preprocessor.resized(view(expected.view)).pixels) == expected.hash)
    }

    @Test("What is neither resized nor cropped is refused by its name and size")
    func unfit() throws {
        let preprocessor = try Preprocessor(Preprocessing(resize: .none, crop: .none), imageSize: 32)
        let error = #expect(throws: DatasetError.self) {
            try preprocessor.resized(view("whole"), name: "a.png")
        }
        #expect(error?.description.hasPrefix("a.png is 61x47 pixels") == true)
    }

    /// The source, its rows as columns, or its first 19 columns, of which more than twice as many rows are lost.
    private func view(_ name: String) throws -> RGBImage {
        let source = try #require(ResizeTests.source)
        if name == "whole" { return source }
        let width = name == "narrow" ? 19 : source.height
        let height = name == "narrow" ? source.height : source.width
        var pixels: [UInt8] = []
        for y in 0..<height {
            for x in 0..<width {
                let start = (name == "narrow" ? y * source.width + x : x * source.width + y) * 3
                pixels += source.pixels[start..<start + 3]
            }
        }
        return RGBImage(width: width, height: height, pixels: pixels)
    }

    @Test("An image of one colour stays so at any size")
    func oneColourStaysOneColour() {
        for value in [0, 1, 127, 254, 255] as [UInt8] {
            let image = RGBImage(width: 9, height: 5, pixels: [UInt8](repeating: value, count: 135))
            for (width, height) in [(1, 1), (4, 31), (100, 2)] {
                #expect(image.resized(width: width, height: height).pixels.allSatisfy { $0 == value })
            }
        }
    }
}

@Suite("From pixels to a model's input")
struct PreprocessingTests {
    @Test("The input is resized and normalised by mean and deviation")
    func normalises() throws {
        let source = try #require(ResizeTests.source)
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        let preprocessing = try Preprocessor(
            Preprocessing(mean: mean.map(Float.init), std: std.map(Float.init)), imageSize: 31)
        let resized = source.resized(width: 31, height: 31)
        let values = try preprocessing(source)
        try #require(values.count == 3 * 31 * 31)
        var error = 0.0
        var total = 0.0
        for channel in 0..<3 {
            for pixel in 0..<31 * 31 {
                let truth = (Double(resized.pixels[3 * pixel + channel]) / 255 - mean[channel]) / std[channel]
                let difference = Double(values[channel * 31 * 31 + pixel]) - truth
                error += difference * difference
                total += truth * truth
            }
        }
        #expect(error / total < 1e-12)
    }

    @Test("Preprocessing that can't be meant is refused")
    func refusesWhatCannotBe() {
        let (zero, one) = ([0, 0, 0] as [Float], [1, 1, 1] as [Float])
        func refuse(_ preprocessing: Preprocessing, imageSize: Int = 8) {
            #expect(throws: DatasetError.self) { try Preprocessor(preprocessing, imageSize: imageSize) }
        }
        refuse(Preprocessing(mean: zero, std: one), imageSize: 0)
        refuse(Preprocessing(mean: zero, std: zero))
        refuse(Preprocessing(mean: [0], std: one))
        refuse(Preprocessing(mean: [.nan, 0, 0], std: one))
        refuse(Preprocessing(resize: .shorterSide, side: 7, mean: zero, std: one))
    }
}
