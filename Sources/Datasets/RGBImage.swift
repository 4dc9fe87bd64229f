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

    /// The most pixels that are decoded: Pillow's limit against decompression bombs.
    public static let largestPixelCount = 178_956_970

    /// Traps unless there are height × width × 3 values.
    public init(width: Int, height: Int, pixels: [UInt8]) {
        precondition(
            width > 0 && height > 0 && pixels.count == width * height * 3,
            "an image of \(width)x\(height) does not hold \(pixels.count) values")
        self.width = width
        self.height = height
        self.pixels = pixels
    }

    /// Reads a JPEG or PNG file; which of them, its first bytes say and not its name.
    /// Throws `DatasetError` with the path when the file can't be read, is damaged or truncated, or is too large.
    public init(contentsOf path: String) throws {
        let data: Data
        do {
            data = try Data(contentsOf: URL(fileURLWithPath: path))
        } catch {
            throw DatasetError("\(path) can't be read; check that it exists and may be read.")
        }
        self = try data.withUnsafeBytes { try RGBImage.decode($0, name: path) }
    }

    /// Decodes a JPEG or PNG in memory. Throws `DatasetError`, which calls the image `name`.
    public static func decode(_ bytes: UnsafeRawBufferPointer, name: String) throws -> RGBImage {
        switch Format(firstBytes: bytes) {
        case .png: try decodePNG(bytes, name)
        case .jpeg: try decodeJPEG(bytes, name)
        case nil: throw DatasetError("\(name) is neither a JPEG nor a PNG; convert it to one of them.")
        }
    }

    /// The file formats that are read, recognised by their first bytes.
    enum Format {
        case jpeg, png

        init?(firstBytes bytes: UnsafeRawBufferPointer) {
            if bytes.starts(with: [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]) {
                self = .png
            } else if bytes.starts(with: [0xff, 0xd8, 0xff]) {
                self = .jpeg
            } else {
                return nil
            }
        }
    }

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
        let count = width * height * 3
        let pixels = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialised in
            status = image_shim_decode_png(
                buffer.baseAddress, bytes.bindMemory(to: UInt8.self).baseAddress, bytes.count,
                UInt32(width), UInt32(height), &message)
            initialised = status == 0 ? count : 0
        }
        guard status == 0 else { throw damaged(name, text(message)) }
        return RGBImage(width: width, height: height, pixels: pixels)
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

    private static func text(_ message: [CChar]) -> String {
        String(decoding: message.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
