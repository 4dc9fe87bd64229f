/// How images of any size become the input of a model, as the model's own files say it:
///
///     [h, w, 3] of 0…255 → resized → the centre, S × S → (v · rescale − mean) / std per channel
///
/// S, the side of the input in pixels, is the model's.
public struct Preprocessing: Codable, Hashable, Sendable {
    /// How an image is resized.
    public enum Resize: String, Codable, CaseIterable, Sendable {
        /// It isn't.
        case none
        /// To `side` × `side` whatever its proportions (VTAB-1K).
        case squash
        /// The shorter side to `side`, the longer in proportion (truncated).
        case shorterSide
    }

    /// How S × S is cut out of what resizing made. What is smaller lies in the middle of black, half a pixel to the upper left,
    /// as torchvision and transformers' processors on it pad.
    public enum Crop: String, Codable, CaseIterable, Sendable {
        /// It isn't: an image that isn't S × S by then is an error.
        case none
        /// The centre; half a pixel goes to the even side, as torchvision and timm round.
        case rounded
        /// The centre; half a pixel goes to the upper left, as transformers truncates.
        case truncated
    }

    /// Pillow's filters, by their names in timm.
    public enum Filter: String, Codable, CaseIterable, Sendable {
        case nearest, box, bilinear, hamming, bicubic, lanczos
    }

    /// How an image is resized.
    public var resize = Resize.squash
    /// What it is resized to, rounded down: in pixels; nil for S. (timm's S / crop_pct is no whole number.)
    public var side: Double?
    /// How S × S is cut out of that.
    public var crop = Crop.rounded
    /// What it is resized with.
    public var filter = Filter.bicubic
    /// What a value of 0…255 is multiplied by.
    public var rescale = 1.0 / 255
    /// [3] what is subtracted after that, per channel.
    public var mean: [Float]
    /// [3] what the difference is divided by.
    public var std: [Float]

    /// Squashed by the bicubic filter, with ImageNet's mean and deviation where nothing else is given.
    public init(
        resize: Resize = .squash, side: Double? = nil, crop: Crop = .rounded, filter: Filter = .bicubic,
        rescale: Double = 1.0 / 255, mean: [Float] = imagenet.mean, std: [Float] = imagenet.std
    ) {
        (self.resize, self.side, self.crop, self.filter, self.rescale) = (resize, side, crop, filter, rescale)
        (self.mean, self.std) = (mean, std)
    }

    /// ImageNet's mean and standard deviation.
    public static let imagenet: (mean: [Float], std: [Float]) = (
        [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    /// Mean and standard deviation 0.5: pixels of −1…1, as Google's models take them.
    public static let inception: (mean: [Float], std: [Float]) = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])

    /// The same for a model whose input is `factor` times as large.
    public func scaled(by factor: Double) -> Preprocessing {
        var scaled = self
        // A whole number stays one: 256 · (384 / 224) is not 438 to the last bit.
        scaled.side = side.map { ($0 * factor * 4096).rounded() / 4096 }
        return scaled
    }
}

/// `side` and `rescale` are written as text: YAML's writer rounds a Double to 15 digits, which could move a size by a pixel.
extension Preprocessing {
    private enum CodingKeys: String, CodingKey {
        case resize, side, crop, filter, rescale, mean, std
    }

    /// Reads what `encode` wrote. Throws `DecodingError`.
    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        func number(_ key: CodingKeys) throws -> Double? {
            guard let text = try values.decodeIfPresent(String.self, forKey: key) else { return nil }
            guard let number = Double(text) else {
                throw DecodingError.dataCorruptedError(
                    forKey: key, in: values, debugDescription: "'\(text)' is not a number")
            }
            return number
        }
        self.init(
            resize: try values.decode(Resize.self, forKey: .resize), side: try number(.side),
            crop: try values.decode(Crop.self, forKey: .crop),
            filter: try values.decode(Filter.self, forKey: .filter),
            rescale: try number(.rescale) ?? 1.0 / 255,
            mean: try values.decode([Float].self, forKey: .mean),
            std: try values.decode([Float].self, forKey: .std))
    }

    /// Writes every member by its name. Throws `EncodingError`.
    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(resize, forKey: .resize)
        try values.encodeIfPresent(side.map { "\($0)" }, forKey: .side)
        try values.encode(crop, forKey: .crop)
        try values.encode(filter, forKey: .filter)
        try values.encode("\(rescale)", forKey: .rescale)
        try values.encode(mean, forKey: .mean)
        try values.encode(std, forKey: .std)
    }
}

/// `Preprocessing` for one input size, ready to be applied.
public struct Preprocessor: Sendable {
    /// The most that a model's input may have a side in pixels: more would be decoded from no image (`RGBImage.largestPixelCount`).
    public static let largestSide = 16384

    /// The most that an image may be resized to before the input is cut out of it.
    public static let largestResize = 65536

    /// S, the side of the model's input in pixels.
    public let imageSize: Int
    /// What is done.
    public let preprocessing: Preprocessing
    /// `preprocessing.side` in whole pixels.
    private let side: Int
    /// [3, 256] what each value of a channel becomes.
    private let table: [Float]

    /// Throws `DatasetError` when the size is not positive, when there are not three means and three positive
    /// deviations, or when a crop is larger than what it is cut from.
    public init(_ preprocessing: Preprocessing, imageSize: Int) throws {
        guard (1...Preprocessor.largestSide).contains(imageSize) else {
            throw DatasetError(
                "the image size \(imageSize) is not in 1...\(Preprocessor.largestSide); give the model's input size."
            )
        }
        let (mean, std) = (preprocessing.mean, preprocessing.std)
        guard mean.count == 3, std.count == 3, mean.allSatisfy(\.isFinite),
            std.allSatisfy({ $0 > 0 && $0.isFinite }), preprocessing.rescale.isFinite
        else {
            throw DatasetError(
                "the normalisation mean \(mean), std \(std), rescale \(preprocessing.rescale) is not three numbers "
                    + "each, with std above 0.")
        }
        let side = preprocessing.side ?? Double(imageSize)
        guard
            preprocessing.resize == .none
                || side >= Double(imageSize)
                    && side <= Double(Preprocessor.largestResize)
        else {
            throw DatasetError(
                "an image resized to \(side) can't be cropped to \(imageSize); resize to at least \(imageSize) "
                    + "and at most \(Preprocessor.largestResize).")
        }
        (self.imageSize, self.preprocessing) = (imageSize, preprocessing)
        self.side = preprocessing.resize == .none ? imageSize : Int(side)
        table = (0..<3).flatMap { channel in
            (0..<256).map { value in
                let scaled = Float(Double(value) * preprocessing.rescale)
                return (scaled - mean[channel]) / std[channel]
            }
        }
    }

    /// The image at S × S, 8 bits: what the loader keeps in memory. Throws as `check`.
    public func resized(_ image: RGBImage, name: String = "the image") throws -> RGBImage {
        let (width, height) = try check(image, name: name)
        let (columns, rows) = (centre(of: width), centre(of: height))
        let cut = image.resized(
            width: width, height: height, columns: columns.clamped(to: 0..<width),
            rows: rows.clamped(to: 0..<height), preprocessing.filter)
        return cut.onBlack(side: imageSize, left: max(0, -columns.lowerBound), top: max(0, -rows.lowerBound))
    }

    /// The size that an image has before S × S is cut out. Throws `DatasetError` for one, called `name`, that can't be brought to
    /// S × S.
    @discardableResult
    func check(_ image: RGBImage, name: String) throws -> (width: Int, height: Int) {
        let (width, height) = (image.width, image.height)
        let size =
            switch preprocessing.resize {
            case .none: (width, height)
            case .squash: (side, side)
            case .shorterSide:
                (
                    width <= height ? side : Int(Double(side * width) / Double(height)),
                    height <= width ? side : Int(Double(side * height) / Double(width))
                )
            }
        // Pillow would have to make it, and refuses none of these; a line of pixels would be billions wide.
        guard max(size.0, size.1) <= 16 * Preprocessor.largestResize else {
            throw DatasetError(
                "\(name) of \(width)x\(height) pixels would be \(size.0)x\(size.1) when its shorter side is \(side); "
                    + "cut it or remove it.")
        }
        guard preprocessing.crop != .none || size == (imageSize, imageSize) else {
            throw DatasetError(
                "\(name) is \(size.0)x\(size.1) pixels where the model takes \(imageSize)x\(imageSize) and its "
                    + "preprocessing doesn't crop; prepare the images so, or choose `crop`.")
        }
        return size
    }

    /// The S in the middle of `count`, or what has `count` in its middle.
    private func centre(of count: Int) -> Range<Int> {
        let half = Double(count - imageSize) / 2
        let isCut = count >= imageSize && preprocessing.crop != .truncated
        let first = Int(half.rounded(isCut ? .toNearestOrEven : .towardZero))
        return first..<first + imageSize
    }

    /// out [3, S, S] ← (v · rescale − mean) / std of an image of S × S. Traps on another size.
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

    /// The image of normalised values [3, S, S], rounded and clipped to 8 bits: what `normalise` was given, or what became of it since.
    /// Traps on another size.
    public func image(of values: UnsafeBufferPointer<Float>) -> RGBImage {
        let count = imageSize * imageSize
        precondition(values.count == 3 * count, "\(values.count) values for a size of \(imageSize)")
        var pixels = [UInt8](repeating: 0, count: 3 * count)
        for channel in 0..<3 {
            let (mean, std) = (preprocessing.mean[channel], preprocessing.std[channel])
            for i in 0..<count {
                let value = Double(values[channel * count + i] * std + mean) / preprocessing.rescale
                pixels[3 * i + channel] = value.isNaN ? 0 : UInt8(max(0, min(255, value.rounded())))
            }
        }
        return RGBImage(width: imageSize, height: imageSize, pixels: pixels)
    }

    /// [3, S, S] from an image of any size. Throws as `resized`.
    public func callAsFunction(_ image: RGBImage) throws -> [Float] {
        let resized = try resized(image)
        return [Float](unsafeUninitializedCapacity: 3 * imageSize * imageSize) { buffer, count in
            normalise(buffer, resized)
            count = buffer.count
        }
    }
}

extension Preprocessor: CustomStringConvertible {
    /// What is done, as words behind "images": `resized to 224 × 224 whatever their proportions (bicubic), normalised by …`.
    public var description: String {
        func list(_ numbers: [Float]) -> String { numbers.map { "\($0)" }.joined(separator: ", ") }
        let (filter, S) = (preprocessing.filter.rawValue, imageSize)
        let resize =
            switch preprocessing.resize {
            case .none: "not resized"
            case .squash: "resized to \(side) × \(side) whatever their proportions (\(filter))"
            case .shorterSide: "their shorter side resized to \(side) (\(filter))"
            }
        let isWhole = preprocessing.crop == .none || preprocessing.resize == .squash && side == S
        let scale =
            abs(preprocessing.rescale * 255 - 1) < 1e-6 ? "" : "multiplied by \(preprocessing.rescale), "
        return resize + (isWhole ? "" : ", the centre \(S) × \(S) cut out")
            + ", \(scale)normalised by mean (\(list(preprocessing.mean))) and deviation (\(list(preprocessing.std)))"
    }
}
