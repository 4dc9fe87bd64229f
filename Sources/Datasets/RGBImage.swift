import CImageShim
import CTurboJPEG
import Foundation

/// An image of 8-bit red, green and blue.
///
/// Decoding gives the pixels of Pillow's `Image.open(file).convert("RGB")`: alpha is dropped and not blended, no gamma, no
/// colour profile, no EXIF rotation (neither do torchvision's and timm's loaders). One form differs: of 16-bit grey we
/// take the high byte, where Pillow clips at 255 and nearly every pixel would be white.
public struct RGBImage: Equatable, Sendable {
    /// Columns.
    public let width: Int
    /// Rows.
    public let height: Int
    /// [height, width, 3], row-major.
    public let pixels: [UInt8]
    /// Of a picture in 16-bit grey that uses few of its bits, as cameras and X-rays do with 10 to 14: how many. Its high
    /// bytes, which are what is read, are dark then. nil for all others.
    public private(set) var greyBits: Int?

    /// The most pixels that are decoded: Pillow's limit against decompression bombs.
    public static let largestPixelCount = 178_956_970

    /// Traps unless there are height × width × 3 values.
    public init(width: Int, height: Int, pixels: [UInt8]) {
        precondition(
            width > 0 && height > 0 && pixels.count == width * height * 3,
            "an image of \(width)x\(height) does not hold \(pixels.count) values")
        (self.width, self.height, self.pixels) = (width, height, pixels)
    }

    /// Reads a JPEG or PNG file; which of them, its first bytes say and not its name.
    /// Throws `DatasetError` with the path when the file can't be read, is damaged or truncated, or is too large.
    public init(contentsOf path: FilePath) throws {
        let bytes: [UInt8]
        do throws(FileProblem) { bytes = try path.read() } catch {
            throw DatasetError(
                "\(path) can't be read: \(error.reason); check that it exists and may be read.")
        }
        self = try bytes.withUnsafeBytes { try RGBImage.decode($0, name: "\(path)") }
    }

    /// The same of a path that is text.
    public init(contentsOf path: String) throws { try self.init(contentsOf: FilePath(path.utf8)) }

    /// Decodes a JPEG or PNG in memory. Throws `DatasetError`, which calls the image `name`.
    public static func decode(_ bytes: UnsafeRawBufferPointer, name: String) throws -> RGBImage {
        switch try Format(firstBytes: bytes, name: name) {
        case .png: try decodePNG(bytes, name)
        case .jpeg: try decodeJPEG(bytes, name)
        }
    }

    /// The file formats that are read, recognised by their first bytes.
    enum Format {
        case jpeg, png

        /// Throws `DatasetError`, which says what the file is instead where its first bytes tell.
        init(firstBytes bytes: UnsafeRawBufferPointer, name: String) throws {
            if bytes.starts(with: [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]) {
                self = .png
            } else if bytes.starts(with: [0xff, 0xd8, 0xff]) {
                self = .jpeg
            } else {
                let other = otherFormats.first { bytes.dropFirst($0.offset).starts(with: $0.bytes.utf8) }
                throw DatasetError(
                    "\(name) is neither a JPEG nor a PNG"
                        + (other.map { " but \($0.name); \($0.advice)." } ?? "; convert or remove it."))
            }
        }
    }

    /// Throws `DatasetError` unless the file begins as a JPEG or PNG; nothing is decoded.
    static func checkFormat(of path: FilePath) throws {
        let start: [UInt8]
        do throws(FileProblem) { start = try path.read(atMost: 16) } catch {
            throw DatasetError("\(path) can't be read: \(error.reason); mend or remove it.")
        }
        // That it is empty says the list of images.
        if !start.isEmpty { _ = try start.withUnsafeBytes { try Format(firstBytes: $0, name: "\(path)") } }
    }

    /// What lies among images, and bytes that it begins with from an offset on.
    private static let otherFormats: [(bytes: String, offset: Int, name: String, advice: String)] = {
        let convert = "convert it to one of them"
        return [
            ("GIF8", 0, "a GIF image", convert), ("BM", 0, "a BMP image", convert),
            ("II*\0", 0, "a TIFF image", convert), ("MM\0*", 0, "a TIFF image", convert),
            ("WEBP", 8, "a WebP image", convert), ("ftypavif", 4, "an AVIF image", convert),
            ("ftyphei", 4, "a HEIC image", convert), ("ftypmif1", 4, "a HEIC image", convert),
            ("\0\0\0\u{c}jP  ", 0, "a JPEG 2000 image", convert),
            ("\0\0\0\u{c}JXL ", 0, "a JPEG XL image", convert),
            ("P5", 0, "a PGM image", convert), ("P6", 0, "a PPM image", convert),
            ("8BPS", 0, "a Photoshop image", convert),
            ("<", 0, "HTML or XML, such as a failed download leaves", "replace or remove it"),
            ("version https:/", 0, "a pointer to where Git LFS keeps it", "fetch it with git lfs pull"),
        ]
    }()

    /// Room for width × height × channels bytes, or an error when the header claims nothing or too much.
    private static func checkSize(_ width: Int, _ height: Int, _ name: String) throws {
        guard width > 0, height > 0 else {
            throw DatasetError("\(name) is an image of \(width)x\(height) pixels; replace or remove it.")
        }
        guard width <= largestPixelCount / height else {
            throw DatasetError(
                "\(name) claims \(width)x\(height) pixels, more than the limit of \(largestPixelCount); "
                    + "make it smaller or remove it.")
        }
    }

    private static func damaged(_ name: String, _ reason: String) -> DatasetError {
        DatasetError("\(name) is damaged (\(reason)); replace or remove it.")
    }
}

// MARK: - JPEG

extension RGBImage {
    /// The slow integer DCT and smooth chroma upsampling are libjpeg's defaults and Pillow's.
    /// The limit on scans stops progressive files that would decode for minutes.
    private static func decodeJPEG(_ bytes: UnsafeRawBufferPointer, _ name: String) throws -> RGBImage {
        guard let decoder = tjInitDecompress() else { throw DatasetError("\(name): out of memory.") }
        defer { tjDestroy(decoder) }
        let source = bytes.bindMemory(to: UInt8.self).baseAddress
        let length = UInt(bytes.count)
        var width: Int32 = 0
        var height: Int32 = 0
        var subsampling: Int32 = -1
        var colours: Int32 = -1
        let status = tjDecompressHeader3(
            decoder, source, length, &width, &height, &subsampling, &colours)
        // An unusual chroma subsampling has no name in TurboJPEG, which is an error for it here but not in decoding.
        guard status == 0 || colours >= 0 else { throw damaged(name, reason(decoder)) }
        try checkSize(Int(width), Int(height), name)

        let isCMYK = colours == TJCS_CMYK.rawValue || colours == TJCS_YCCK.rawValue
        let channels = isCMYK ? 4 : 3
        let format = isCMYK ? TJPF_CMYK : TJPF_RGB
        var pixels = [UInt8](repeating: 0, count: Int(width) * Int(height) * channels)
        let result = tjDecompress2(
            decoder, source, length, &pixels, width, 0, height, format.rawValue,
            TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS)
        if result != 0 {
            // As in Pillow, damage that the decoder can step over is let pass, and a file that ends early is not.
            // TurboJPEG keeps the first warning or the error that stopped it, and gives both as warnings when there
            // were both; so the text decides, and the end marker is looked for in case a warning hid its absence.
            let reason = reason(decoder)
            let isHarmless = harmlessWarnings.contains { reason.hasPrefix($0) }
            guard isHarmless, hasEndMarker(bytes) else { throw damaged(name, reason) }
        }
        return RGBImage(
            width: Int(width), height: Int(height), pixels: isCMYK ? rgb(fromInvertedCMYK: pixels) : pixels)
    }

    /// The image as a JPEG file of this quality, 1 to 100. Throws `DatasetError` where it can't be made.
    public func jpeg(quality: Int = 85) throws -> [UInt8] {
        guard let encoder = tjInitCompress() else {
            throw DatasetError("the image can't be written: out of memory.")
        }
        defer { tjDestroy(encoder) }
        var (bytes, count): (UnsafeMutablePointer<UInt8>?, UInt) = (nil, 0)
        let result = tjCompress2(
            encoder, pixels, Int32(width), 0, Int32(height), TJPF_RGB.rawValue, &bytes, &count,
            Int32(TJSAMP_420.rawValue), Int32(quality), TJFLAG_ACCURATEDCT)
        defer { tjFree(bytes) }
        guard result == 0, let bytes else {
            throw DatasetError("the image can't be written as a JPEG (\(RGBImage.reason(encoder))).")
        }
        return Array(UnsafeBufferPointer(start: bytes, count: Int(count)))
    }

    /// How libjpeg's warnings about damage that it steps over begin (jerror.h).
    private static let harmlessWarnings = [
        "Corrupt JPEG data", "Invalid SOS parameters", "Inconsistent progression sequence",
        "Warning: unknown JFIF revision", "Unknown Adobe color transform",
    ]

    private static func reason(_ decoder: tjhandle) -> String { String(cString: tjGetErrorStr2(decoder)) }

    /// Whether an end-of-image marker follows the last scan's header. (Coded data holds no markers but restarts.)
    private static func hasEndMarker(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var index = bytes.count - 2
        while index >= 0 {
            if bytes[index] == 0xff, bytes[index + 1] == 0xd9 { return true }
            if bytes[index] == 0xff, bytes[index + 1] == 0xda { return false }
            index -= 1
        }
        return false
    }

    /// [n, 3] from [n, 4] with Adobe's inverted ink: K' = 255 − k, R = K' − C · K' / 255 rounded as Pillow does.
    private static func rgb(fromInvertedCMYK ink: [UInt8]) -> [UInt8] {
        var pixels = [UInt8](repeating: 0, count: ink.count / 4 * 3)
        for pixel in 0..<ink.count / 4 {
            let black = Int(ink[4 * pixel + 3])
            for channel in 0..<3 {
                let product = (255 - Int(ink[4 * pixel + channel])) * black + 128
                pixels[3 * pixel + channel] = UInt8(max(0, black - ((product >> 8) + product) >> 8))
            }
        }
        return pixels
    }
}

// MARK: - PNG

extension RGBImage {
    private static func decodePNG(_ bytes: UnsafeRawBufferPointer, _ name: String) throws -> RGBImage {
        guard bytes.count >= 24 else { throw damaged(name, "the file ends early") }
        // The header is the first chunk: width and height are big-endian at 16 and 20.
        let width = Int(bytes.loadUnaligned(fromByteOffset: 16, as: UInt32.self).bigEndian)
        let height = Int(bytes.loadUnaligned(fromByteOffset: 20, as: UInt32.self).bigEndian)
        try checkSize(width, height, name)
        var message = [CChar](repeating: 0, count: Int(IMAGE_SHIM_MESSAGE_SIZE))
        var status: Int32 = 0
        var largestGrey: Int32 = -1
        let count = width * height * 3
        let pixels = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialised in
            status = image_shim_decode_png(
                buffer.baseAddress, bytes.bindMemory(to: UInt8.self).baseAddress, bytes.count,
                UInt32(width), UInt32(height), &largestGrey, &message)
            initialised = status == 0 ? count : 0
        }
        guard status == 0 else { throw damaged(name, text(message)) }
        var image = RGBImage(width: width, height: height, pixels: pixels)
        if (0..<1 << 14).contains(largestGrey) {
            image.greyBits = Int32.bitWidth - largestGrey.leadingZeroBitCount
        }
        return image
    }

    /// Writes an 8-bit RGB PNG under a temporary name, then renames it. Throws `DatasetError` with the path.
    public func writePNG(to path: String) throws {
        var message = [CChar](repeating: 0, count: Int(IMAGE_SHIM_MESSAGE_SIZE))
        let temporary = path + ".part"
        guard image_shim_write_png(temporary, pixels, UInt32(width), UInt32(height), &message) == 0 else {
            throw DatasetError(
                "\(path) can't be written (\(RGBImage.text(message))); check the folder and its free space.")
        }
        guard rename(temporary, path) == 0 else {
            unlink(temporary)
            throw DatasetError("\(path) can't be written; check that the folder may be written to.")
        }
    }

    /// The image as an 8-bit RGB PNG file. Throws `DatasetError` where it can't be made.
    public func png() throws -> [UInt8] {
        var message = [CChar](repeating: 0, count: Int(IMAGE_SHIM_MESSAGE_SIZE))
        var (bytes, count): (UnsafeMutablePointer<UInt8>?, Int) = (nil, 0)
        guard image_shim_encode_png(&bytes, &count, pixels, UInt32(width), UInt32(height), &message) == 0
        else {
            throw DatasetError("the image can't be written as a PNG (\(RGBImage.text(message))).")
        }
        defer { free(bytes) }
        return Array(UnsafeBufferPointer(start: bytes, count: count))
    }

    private static func text(_ message: [CChar]) -> String {
        String(decoding: message.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
