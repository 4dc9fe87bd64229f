/// From an image of any size to the model's input: resize, then (v / 255 − mean) / std per channel.
public struct Preprocessing: Sendable, Equatable {
    /// How an image is brought to S × S.
    public enum Mode: Sendable, Equatable, Codable {
        /// Resized to S × S whatever its proportions (VTAB-1K).
        case squash
        /// The shorter side resized to `resizeTo` ≥ S, the longer in proportion (truncated), then the centre cut out;
        /// sizes and offsets are torchvision's `Resize` and `CenterCrop`.
        case centreCrop(resizeTo: Int)
    }

    /// S, the side of the model's input in pixels.
    public let imageSize: Int
    /// [3], in units of 1, not of 255.
    public let mean: [Float]
    /// [3], in units of 1, not of 255.
    public let std: [Float]
    /// How an image is brought to S × S.
    public let mode: Mode
    /// [3, 256] what each value of a channel becomes.
    private let table: [Float]

    /// Throws `DatasetError` when the size is not positive, when there are not three means and three positive
    /// deviations, or when a crop is larger than what it is cut from.
    public init(imageSize: Int, mean: [Float], std: [Float], mode: Mode = .squash) throws {
        guard (1...16384).contains(imageSize) else {
            throw DatasetError(
                "the image size \(imageSize) is not in 1...16384; give the model's input size.")
        }
        guard mean.count == 3, std.count == 3, mean.allSatisfy(\.isFinite),
            std.allSatisfy({ $0 > 0 && $0.isFinite })
        else {
            throw DatasetError(
                "the normalisation mean \(mean), std \(std) is not three numbers each, with std above 0.")
        }
        if case .centreCrop(let resizeTo) = mode, resizeTo < imageSize || resizeTo > 65536 {
            throw DatasetError(
                "an image resized to \(resizeTo) can't be cropped to \(imageSize); resize to at least \(imageSize) "
                    + "and at most 65536.")
        }
        self.imageSize = imageSize
        self.mean = mean
        self.std = std
        self.mode = mode
        table = (0..<3).flatMap { channel in
            (0..<256).map { (Float($0) / 255 - mean[channel]) / std[channel] }
        }
    }

    /// The image at S × S, 8 bits: what the loader keeps in memory.
    public func resized(_ image: RGBImage) -> RGBImage {
        guard case .centreCrop(let shorter) = mode else {
            return image.resized(width: imageSize, height: imageSize)
        }
        let (width, height) = (image.width, image.height)
        let longer = Int(Double(shorter * max(width, height)) / Double(min(width, height)))
        let newWidth = width <= height ? shorter : longer
        let newHeight = width <= height ? longer : shorter
        return image.resized(
            width: newWidth, height: newHeight, columns: centre(of: newWidth), rows: centre(of: newHeight))
    }

    /// The S in the middle of `count`; a half goes to the even side, as Python's `round` has it.
    private func centre(of count: Int) -> Range<Int> {
        let first = Int((Double(count - imageSize) / 2).rounded(.toNearestOrEven))
        return first..<first + imageSize
    }

    /// out [3, S, S] ← (v / 255 − mean) / std of an image of S × S. Traps on another size.
    public func normalise(_ out: UnsafeMutableBufferPointer<Float>, _ image: RGBImage) {
        let count = imageSize * imageSize
        precondition(
            image.width == imageSize && image.height == imageSize && out.count == 3 * count,
            "normalise: an image of \(image.width)x\(image.height) for a size of \(imageSize)")
        image.pixels.withUnsafeBufferPointer { pixels in
            table.withUnsafeBufferPointer { table in
                var source = pixels.baseAddress!
                let red = out.baseAddress!
                let (green, blue) = (red + count, red + 2 * count)
                let entries = table.baseAddress!
                for i in 0..<count {
                    red[i] = entries[Int(source[0])]
                    green[i] = entries[256 + Int(source[1])]
                    blue[i] = entries[512 + Int(source[2])]
                    source += 3
                }
            }
        }
    }

    /// [3, S, S] from an image of any size.
    public func callAsFunction(_ image: RGBImage) -> [Float] {
        [Float](unsafeUninitializedCapacity: 3 * imageSize * imageSize) { buffer, count in
            normalise(buffer, resized(image))
            count = buffer.count
        }
    }
}
