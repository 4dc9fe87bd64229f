import Datasets

// Hugging Face's `preprocessor_config.json`, as transformers 5.24 obeys it (image_processing_backends.py). A key that
// is absent or null means the default of the file's `image_processor_type`.

extension Preprocessing {
    /// What transformers' ViTImageProcessor does when no file says anything: bilinear, mean and deviation 0.5.
    static let transformersDefault = Preprocessing(
        filter: .bilinear, mean: inception.mean, std: inception.std)

    /// Reads the settings of the file at `path` for a model whose input has `imageSize` pixels a side. Throws
    /// `CheckpointError` naming the key that can't be obeyed.
    init(huggingFace settings: JSONValue, imageSize: Int, path: String) throws {
        let reader = try ProcessorReader(settings, path: path)
        let processor = reader.processor
        try reader.refuseUnknown()
        self.init(
            resize: .none, crop: .none, filter: try reader.filter(),
            rescale: try reader.isOn("do_rescale", true)
                ? try reader.number("rescale_factor") ?? 1.0 / 255 : 1,
            mean: try reader.isOn("do_normalize", true)
                ? try reader.channels("image_mean") ?? processor.mean : [0, 0, 0],
            std: try reader.isOn("do_normalize", true)
                ? try reader.channels("image_std") ?? processor.std : [1, 1, 1])
        if try reader.isOn("do_resize", true) {
            (resize, side) =
                switch try reader.size() {
                case .square(let side): (.squash, Double(side))
                case .shorterSide(let side): (.shorterSide, Double(side))
                }
        }
        let isCropped = try reader.isOn("do_center_crop", processor.isCropped)
        let result = isCropped ? try reader.cropSize() : side.map { Int($0) } ?? imageSize
        guard result == imageSize else {
            throw CheckpointError(
                "\(path): \(isCropped ? "crop_size" : "size") makes images of \(result) × \(result) pixels, but the "
                    + "model takes \(imageSize) × \(imageSize); correct one of the two")
        }
        crop = isCropped ? .truncated : .none
        if let size = side, Int(size) < imageSize {
            throw CheckpointError(
                "\(path): images of \(Int(size)) pixels would be padded to the crop of \(imageSize), which is not "
                    + "supported; correct size or crop_size")
        }
        if side == Double(imageSize) { side = nil }
        // Nothing is left to cut: one value of the two, so that the formats' readings compare equal.
        if isWhole { crop = .rounded }
    }

    /// Pixels a side of the images that the file makes; nil where it resizes and cuts nothing. Throws as `init(huggingFace:imageSize:path:)`.
    static func outputSize(huggingFace settings: JSONValue, path: String) throws -> Int? {
        let reader = try ProcessorReader(settings, path: path)
        if try reader.isOn("do_center_crop", reader.processor.isCropped) { return try reader.cropSize() }
        guard try reader.isOn("do_resize", true) else { return nil }
        switch try reader.size() {
        case .square(let side), .shorterSide(let side): return side
        }
    }

    /// The same as a `preprocessor_config.json`.
    func huggingFace(imageSize: Int) -> JSONValue {
        let side = JSONValue.integer(side.map { Int($0) } ?? imageSize)
        let S = JSONValue.integer(imageSize)
        var settings: [String: JSONValue] = [
            "image_processor_type": "ViTImageProcessor",
            "do_resize": .boolean(resize != .none), "resample": .integer(pillowNumber),
            "size": resize == .shorterSide ? ["shortest_edge": side] : ["height": side, "width": side],
            "do_rescale": true, "rescale_factor": .number(rescale),
            "do_normalize": true, "image_mean": .numbers(mean), "image_std": .numbers(std),
            "do_center_crop": .boolean(crop != .none && !isWhole),
        ]
        if crop != .none, !isWhole { settings["crop_size"] = ["height": S, "width": S] }
        return .object(settings)
    }

    /// Whether resizing alone makes the input.
    private var isWhole: Bool { resize == .squash && side == nil }

    /// Pillow's number of the filter.
    private var pillowNumber: Int { Preprocessing.pillowFilters.firstIndex(of: filter)! }

    /// The filters by Pillow's numbers 0…5.
    fileprivate static let pillowFilters: [Filter] = [
        .nearest, .lanczos, .bilinear, .bicubic, .box, .hamming,
    ]
}

/// An image processor of transformers: its defaults. Those with steps of their own aren't among them.
private struct Processor {
    var filter: Preprocessing.Filter
    var mean: [Float]
    var std: [Float]
    var size: ProcessorReader.Size
    var crop: Int?
    var isCropped = false
    /// Whether a size that is a lone number means both sides; otherwise the shorter one.
    var isSquare = true

    private static let clip = Processor(
        filter: .bicubic, mean: [0.48145466, 0.4578275, 0.40821073],
        std: [0.26862954, 0.26130258, 0.27577711],
        size: .shorterSide(224), crop: 224, isCropped: true, isSquare: false)
    private static let plain = Processor(
        filter: .bicubic, mean: Preprocessing.inception.mean, std: Preprocessing.inception.std,
        size: .square(224))

    /// Those whose steps are resize, centre crop, rescale and normalise.
    static let all: [String: Processor] = {
        var (vit, deit, beit, siglip, pvt, dinov3) = (plain, plain, plain, plain, plain, plain)
        dinov3.filter = .bilinear
        (dinov3.mean, dinov3.std) = Preprocessing.imagenet
        beit.crop = 224
        vit.filter = .bilinear
        (deit.size, deit.crop, deit.isCropped) = (.square(256), 224, true)
        siglip.isSquare = false
        (pvt.mean, pvt.std) = Preprocessing.imagenet
        return [
            "ViTImageProcessor": vit, "DeiTImageProcessor": deit, "BeitImageProcessor": beit,
            "CLIPImageProcessor": clip, "BitImageProcessor": clip, "SiglipImageProcessor": siglip,
            "PvtImageProcessor": pvt, "DINOv3ViTImageProcessor": dinov3,
        ]
    }()
}

/// The settings of a file, read one by one.
private struct ProcessorReader {
    enum Size {
        case square(Int), shorterSide(Int)
    }

    let settings: JSONValue
    let path: String
    let processor: Processor

    init(_ settings: JSONValue, path: String) throws {
        (self.settings, self.path) = (settings, path)
        // Files of before 2022 speak of feature extractors, some later ones of "fast" processors.
        var type =
            (settings["image_processor_type"] ?? settings["feature_extractor_type"])?.stringValue
            ?? "ViTImageProcessor"
        type = type.replacing("FeatureExtractor", with: "ImageProcessor")
        if type.hasSuffix("Fast") { type.removeLast(4) }
        guard let processor = Processor.all[type] else {
            throw CheckpointError(
                "\(path): images are prepared by \(type), which has steps of its own that this program doesn't know; "
                    + "describe them as a ViTImageProcessor")
        }
        self.processor = processor
    }

    /// What `init(huggingFace:)` reads.
    private static let obeyed: Set<String> = [
        "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor",
        "do_normalize",
        "image_mean", "image_std", "default_to_square", "image_processor_type", "feature_extractor_type",
    ]
    /// What changes no pixel. Images are RGB whatever do_convert_rgb says.
    private static let harmless: Set<String> = [
        "do_convert_rgb", "data_format", "input_data_format", "device", "return_tensors", "disable_grouping",
        "image_seq_length", "processor_class", "auto_map", "model_input_names", "_valid_processor_keys",
        "pad_size",
        "num_channels", "_commit_hash", "transformers_version",
    ]

    func refuseUnknown() throws {
        let known = ProcessorReader.obeyed.union(ProcessorReader.harmless)
        let others = (settings.objectValue ?? [:]).filter { !known.contains($0.key) && !$0.value.isOff }
        guard let (key, value) = others.min(by: { $0.key < $1.key }) else { return }
        throw failure(key, value, "which is not supported")
    }

    func isOn(_ key: String, _ standard: Bool) throws -> Bool {
        guard let value = settings[key] else { return standard }
        guard let isOn = value.booleanValue else {
            throw failure(key, value, "which is neither true nor false")
        }
        return isOn
    }

    func number(_ key: String) throws -> Double? {
        guard let value = settings[key] else { return nil }
        guard let number = value.numberValue, number > 0 else {
            throw failure(key, value, "which is no factor")
        }
        return number
    }

    /// [3] numbers, which may be given as one.
    func channels(_ key: String) throws -> [Float]? {
        guard let value = settings[key] else { return nil }
        guard let values = value.channels else { throw failure(key, value, "which is not three numbers") }
        return values
    }

    func filter() throws -> Preprocessing.Filter {
        guard let value = settings["resample"] else { return processor.filter }
        let filters = Preprocessing.pillowFilters
        guard let number = value.integerValue, filters.indices.contains(number) else {
            throw failure("resample", value, "which is no filter of Pillow (0 to 5)")
        }
        return filters[number]
    }

    func size() throws -> Size {
        guard let value = settings["size"] else { return processor.size }
        if let side = positive(value) {
            return try isOn("default_to_square", processor.isSquare) ? .square(side) : .shorterSide(side)
        }
        if let side = positive(value["shortest_edge"]), members(of: value) == ["shortest_edge"] {
            return .shorterSide(side)
        }
        guard let side = square(value) else {
            throw failure(
                "size", value,
                "which is neither a square nor a shortest_edge alone, of 1 to \(Preprocessor.largestResize) pixels; nothing "
                    + "else is supported")
        }
        return .square(side)
    }

    func cropSize() throws -> Int {
        guard let value = settings["crop_size"] else {
            guard let crop = processor.crop else {
                throw CheckpointError(
                    "\(path): do_center_crop is true, but crop_size isn't given; correct the file")
            }
            return crop
        }
        guard let side = positive(value) ?? square(value) else {
            throw failure(
                "crop_size", value,
                "which is no square of 1 to \(Preprocessor.largestResize) pixels; nothing else is supported")
        }
        return side
    }

    /// The side of {"height": 224, "width": 224} or [224, 224].
    private func square(_ value: JSONValue) -> Int? {
        if let side = positive(value.pair), value.arrayValue?.count == 2 { return side }
        guard members(of: value) == ["height", "width"], value["height"] == value["width"] else { return nil }
        return positive(value["height"])
    }

    /// A side that an image can be resized to.
    private func positive(_ value: JSONValue?) -> Int? {
        value?.integerValue.flatMap { (1...Preprocessor.largestResize).contains($0) ? $0 : nil }
    }

    /// The keys of an object that aren't null.
    private func members(of value: JSONValue) -> Set<String> {
        Set((value.objectValue ?? [:]).filter { $0.value != .null }.keys)
    }

    private func failure(_ key: String, _ value: JSONValue, _ what: String) -> CheckpointError {
        CheckpointError("\(path): \(key) = \(value.text()), \(what); correct the file")
    }
}

extension JSONValue {
    /// [3] the numbers of a list, or one number for all of them.
    var channels: [Float]? {
        let values = numberValue.map { [Float($0)] } ?? floats ?? []
        return values.count == 1 ? Array(repeating: values[0], count: 3) : values.count == 3 ? values : nil
    }

    /// A list of numbers that reads as the floats do: 0.485, not 0.48500001430511475.
    static func numbers(_ values: [Float]) -> JSONValue { .array(values.map { .number(shortest($0)) }) }
}

/// The double that prints as the float does.
func shortest(_ value: Float) -> Double { Double("\(value)")! }
