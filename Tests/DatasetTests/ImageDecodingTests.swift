import Datasets
import Foundation
import Testing

@Suite("PNG and JPEG files are decoded as Pillow decodes them")
struct ImageDecodingTests {
    @Test("Pixels are Pillow's", arguments: Fixtures.expected.decoded)
    func equalsPillow(_ expected: Fixtures.Decoded) throws {
        let image = try RGBImage(contentsOf: Fixtures.path(expected.file))
        #expect(image.width == expected.width && image.height == expected.height)
        try #require(image.pixels.count == expected.pixels.count)
        let difference = zip(image.pixels, expected.pixels).map { abs(Int($0) - Int($1)) }.max()
        #expect(difference == 0)
    }

    @Test("Every fixture is compared")
    func everyFixtureIsCompared() throws {
        let images = try FileManager.default.contentsOfDirectory(atPath: Fixtures.folder.path)
            .filter { $0.hasSuffix(".jpg") || $0.hasSuffix(".png") }
        #expect(images.count == Fixtures.expected.decoded.count + 1)  // All but source.png, which is resized.
    }

    @Test("The content decides the format, not the name")
    func theContentDecidesNotTheName() throws {
        let png = try Fixtures.bytes("rgb8.png")
        try withTemporaryFolder(["wrong.jpg": png]) { folder in
            let image = try RGBImage(contentsOf: folder.path + "/wrong.jpg")
            #expect(image == (try decode(png)))
        }
    }

    @Test("A written PNG is read back the same")
    func writesWhatItReads() throws {
        try withTemporaryFolder([:]) { folder in
            for (width, height) in [(1, 1), (5, 3), (64, 17)] {
                let pixels = (0..<width * height * 3).map { UInt8(truncatingIfNeeded: $0 &* 37) }
                let image = RGBImage(width: width, height: height, pixels: pixels)
                let path = folder.path + "/\(width).png"
                try image.writePNG(to: path)
                #expect(try RGBImage(contentsOf: path) == image)
                #expect(!FileManager.default.fileExists(atPath: path + ".part"))
            }
        }
    }

    @Test("Writing into a folder that isn't there names the path")
    func writingToNowhereNamesThePath() {
        let image = RGBImage(width: 1, height: 1, pixels: [1, 2, 3])
        let error = #expect(throws: DatasetError.self) { try image.writePNG(to: "/no/such/folder/a.png") }
        #expect(error?.description.contains("/no/such/folder/a.png") == true)
    }
}

@Suite("Damaged images end in an error, never in a crash")
struct DamagedImageTests {
    static let files = [
        "rgb420.jpg", "progressive.jpg", "restarts.jpg", "cmyk.jpg", "grey.jpg", "rgb8.png", "interlaced.png",
        "palette2.png", "rgba16.png",
    ]

    /// Every proper prefix of every form: never a crash, always an error with the name.
    @Test("A truncated image is an error, wherever it ends", arguments: files)
    func truncated(_ file: String) throws {
        let bytes = try Fixtures.bytes(file)
        for count in bytes.indices {
            let error = #expect(throws: DatasetError.self, "\(count) of \(bytes.count) bytes") {
                try decode(Array(bytes[..<count]))
            }
            #expect(error?.description.hasPrefix("test image") == true)
        }
    }

    @Test("Flipped bits give an image or an error", arguments: files)
    func flippedBits(_ file: String) throws {
        let bytes = try Fixtures.bytes(file)
        var generator = Generator(state: 1)
        var errors = 0
        for _ in 0..<300 {
            var damaged = bytes
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                damaged[Int.random(in: 0..<bytes.count, using: &generator)] ^=
                    1 << UInt8.random(in: 0..<8, using: &generator)
            }
            // A header that claims a large image is obeyed up to the limit; keep the test small.
            guard damaged[..<24].elementsEqual(bytes[..<24]) || file.hasSuffix("jpg") else { continue }
            do {
                let image = try decode(damaged)
                #expect(image.pixels.count == image.width * image.height * 3)
            } catch {
                #expect(error is DatasetError)
                errors += 1
            }
        }
        #expect(errors > 0)
    }

    @Test("What is no image is refused")
    func garbage() {
        for bytes in [[], [0xff], Array("<html>not found</html>".utf8), [UInt8](repeating: 0, count: 4096)] {
            let error = #expect(throws: DatasetError.self) { try decode(bytes) }
            #expect(error?.description.contains("neither a JPEG nor a PNG") == true)
        }
    }

    /// A PNG whose header claims another size, with a correct checksum.
    private func png(claiming width: UInt32, _ height: UInt32) throws -> [UInt8] {
        var bytes = try Fixtures.bytes("rgb8.png")
        for (offset, value) in [(16, width), (20, height)] {
            for byte in 0..<4 {
                bytes[offset + byte] = UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * byte))
            }
        }
        var crc: UInt32 = 0xffff_ffff
        for byte in bytes[12..<29] {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xedb8_8320 : crc >> 1 }
        }
        for byte in 0..<4 { bytes[29 + byte] = UInt8(truncatingIfNeeded: ~crc >> UInt32(24 - 8 * byte)) }
        return bytes
    }

    @Test("A PNG whose header lies is refused")
    func headersThatLie() throws {
        #expect(try decode(png(claiming: 23, 17)) == decode(Fixtures.bytes("rgb8.png")))
        for (width, height, words) in [
            (0, 17, "0x17 pixels"), (23, 0, "23x0 pixels"), (23, 18, "damaged"), (46, 17, "damaged"),
            (65535, 65535, "more than the limit"), (0xffff_ffff, 0xffff_ffff, "more than the limit"),
        ] as [(UInt32, UInt32, String)] {
            let error = #expect(throws: DatasetError.self) { try decode(png(claiming: width, height)) }
            #expect(error?.description.contains(words) == true, "\(width)x\(height)")
        }
    }

    @Test("A JPEG whose header lies is refused")
    func jpegHeadersThatLie() throws {
        let bytes = try Fixtures.bytes("rgb420.jpg")
        let frame = try #require(
            bytes.indices.dropLast().first { bytes[$0] == 0xff && bytes[$0 + 1] == 0xc0 })
        // Height, then width, two bytes each, begin five bytes after the marker.
        for (size, words) in [
            ([0, 17, 0, 0], "damaged"), ([0, 0, 0, 23], "damaged"), ([0xff, 0xff, 0xff, 0xff], "damaged"),
            ([0xff, 0xdc, 0xff, 0xdc], "more than the limit"),
        ] as [([UInt8], String)] {
            var lying = bytes
            lying.replaceSubrange(frame + 5..<frame + 9, with: size)
            let error = #expect(throws: DatasetError.self) { try decode(lying) }
            #expect(error?.description.contains(words) == true, "\(size)")
        }
    }

    /// Pillow, too, reads over stray bytes before a marker, and stops at an unknown marker even after a warning.
    @Test("libjpeg's warnings pass and its errors don't")
    func jpegWarningsPassAndErrorsDoNot() throws {
        let bytes = try Fixtures.bytes("rgb420.jpg")
        let tables = try #require(
            bytes.indices.dropLast().first { bytes[$0] == 0xff && bytes[$0 + 1] == 0xc4 })
        let stray = bytes[..<tables] + [0, 0] + bytes[tables...]
        #expect(try decode(Array(stray)) == decode(bytes))
        let unended = Array(stray.dropLast(2))
        #expect(throws: DatasetError.self) { try decode(unended) }
        #expect(throws: DatasetError.self) { try decode(unended + [0xff, 0x31, 0xff, 0xd9]) }
    }

    @Test("A PNG with a wrong checksum is refused")
    func pngChecksums() throws {
        var bytes = try Fixtures.bytes("rgb8.png")
        // The last byte of the pixels' checksum; the 12 bytes after it are the end chunk.
        bytes[bytes.count - 13] ^= 1
        #expect(throws: DatasetError.self) { try decode(bytes) }
    }

    @Test("An image that can't be read is named by its path")
    func filesNameTheirPath() throws {
        let whole = try Fixtures.bytes("rgb8.png")
        try withTemporaryFolder(["cut off.png": Array(whole[..<100])]) { folder in
            for name in ["cut off.png", "missing.png"] {
                let path = folder.path + "/" + name
                let error = #expect(throws: DatasetError.self) { try RGBImage(contentsOf: path) }
                #expect(error?.description.contains(path) == true)
            }
        }
    }
}

/// Numbers for damage that is the same in every run.
struct Generator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state ^ state >> 32
    }
}
