import Datasets
import ModelConfiguration

// timm's `pretrained_cfg`, as its `resolve_data_config` and `transforms_imagenet_eval` obey it (timm 1.0.31):
//
//     side = ⌊S / crop_pct⌋; center: the shorter side to it, squash: both; then the centre S × S
//
// test_input_size and test_crop_pct are for its --use-test-size alone.

extension Preprocessing {
    /// What timm does when a configuration says nothing: 7/8 of the shorter side, bicubic, ImageNet's numbers.
    static func timmDefault(imageSize: Int) -> Preprocessing {
        Preprocessing(resize: .shorterSide, side: Double(imageSize) / 0.875, crop: .rounded)
    }

    /// The keys that `init(timm:)` reads.
    static let timmKeys: Set<String> = ["interpolation", "crop_pct", "crop_mode", "mean", "std"]

    /// Reads the `pretrained_cfg` of the file at `path` for a model whose input has `imageSize` pixels a side.
    /// Throws `CheckpointError` naming the key that can't be obeyed.
    init(timm settings: JSONValue, imageSize: Int, path: String) throws {
        func failure(_ key: String, _ value: JSONValue, _ what: String) -> CheckpointError {
            CheckpointError("\(path): config.json says \(key) = \(value.text()), \(what)")
        }
        /// timm takes an empty or zero setting for none.
        func setting(_ key: String) -> JSONValue? { settings[key]?.isOff == false ? settings[key] : nil }
        func numbers(_ key: String) throws -> [Float]? {
            guard let value = setting(key) else { return nil }
            guard let numbers = value.channels else {
                throw failure(key, value, "which is not three numbers")
            }
            return numbers
        }
        self = .timmDefault(imageSize: imageSize)
        mean = try numbers("mean") ?? mean
        std = try numbers("std") ?? std
        if let value = setting("interpolation") {
            guard let filter = value.stringValue.flatMap(Filter.init) else {
                throw failure(
                    "interpolation", value,
                    "which can't be obeyed; it must be nearest, box, bilinear, hamming, bicubic or lanczos")
            }
            self.filter = filter
        }
        if let value = setting("crop_mode") {
            guard let resize = ["center": Resize.shorterSide, "squash": .squash][value.stringValue] else {
                throw failure(
                    "crop_mode", value, "which can't be obeyed; only center and squash are supported")
            }
            self.resize = resize
        }
        if let value = setting("crop_pct") {
            guard let part = value.numberValue, part > 0, part <= 1 else {
                throw failure("crop_pct", value, "which is no part of the image between 0 and 1")
            }
            side = Double(imageSize) / part
        }
        if side == Double(imageSize) { side = nil }
    }

    /// The same as members of a `pretrained_cfg`. Throws `CheckpointError` when timm can't do it.
    func timm(imageSize: Int) throws -> [String: JSONValue] {
        guard resize != .none else {
            throw CheckpointError(
                "the model's images aren't resized, which timm's configuration can't say; write Hugging Face's form"
            )
        }
        // timm multiplies by 1/255: (v · r − m) / s = (v / 255 − m / 255r) / (s / 255r).
        let factor = abs(rescale * 255 - 1) < 1e-9 ? 1 : Float(rescale * 255)
        let (mean, std) = (mean.map { $0 / factor }, std.map { $0 / factor })
        guard mean.allSatisfy(\.isFinite), std.allSatisfy({ $0 > 0 && $0.isFinite }) else {
            throw CheckpointError(
                "the model's pixels are multiplied by \(rescale), which timm's configuration can't say; write Hugging "
                    + "Face's form")
        }
        return [
            "interpolation": .string(filter.rawValue),
            "crop_mode": resize == .squash ? "squash" : "center",
            "crop_pct": .number(cropPart(imageSize)),
            "mean": .numbers(mean), "std": .numbers(std),
        ]
    }

    /// The crop_pct that `init(timm:)` reads as this side, or at least as its whole pixels: 0.9 rather than
    /// 0.9000000000000001.
    private func cropPart(_ imageSize: Int) -> Double {
        guard let side else { return 1 }
        let S = Double(imageSize)
        let part = S / side
        let candidates = [(part * 1e6).rounded() / 1e6, part, part.nextDown, part.nextUp]
        return candidates.first { S / $0 == side } ?? candidates.first { Int(S / $0) == Int(side) }!
    }
}

extension [String: Preprocessing.Resize] {
    fileprivate subscript(key: String?) -> Preprocessing.Resize? { key.flatMap { self[$0] } }
}

extension TimmFormat {
    /// The members of `pretrained_cfg` that change no pixel and no logit.
    private static let harmlessMembers: Set<String> = [
        "url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag",
        "custom_load",
        "input_size", "test_input_size", "min_input_size", "fixed_input_size", "test_crop_pct", "num_classes",
        "label_names", "labels", "label_descriptions", "pool_size", "test_pool_size", "first_conv",
        "classifier",
        "license", "description", "origin_url", "paper_name", "paper_ids", "notes",
    ]

    /// Whether the file says anything of it; timm's defaults where it doesn't.
    static func readPreprocessing(
        _ config: JSONValue, into configuration: inout ViTConfiguration, path: String, notes: inout [String]
    ) throws -> Bool {
        // Older files have the members of pretrained_cfg at the top.
        let settings = config["pretrained_cfg"] ?? config
        if let members = config["pretrained_cfg"]?.objectValue {
            let known = harmlessMembers.union(Preprocessing.timmKeys)
            if let (key, value) = members.filter({ !known.contains($0.key) && !$0.value.isOff })
                .min(by: { $0.key < $1.key })
            {
                throw CheckpointError(
                    "\(path): config.json's pretrained_cfg says \(key) = \(value.text()), which is not supported"
                )
            }
        }
        let size = configuration.imageSize
        // Where both are given, timm itself lets the model's arguments win over a fixed input size.
        let isSizeStated = config["model_args"]?["img_size"] != nil && settings["fixed_input_size"] == true
        let input: JSONValue = [.integer(configuration.channels), .integer(size), .integer(size)]
        if let stated = settings["input_size"], stated != input, !isSizeStated {
            throw CheckpointError(
                "\(path): config.json says input_size = \(stated.text()), but the tensors say \(input.text()); only "
                    + "square images of that size are supported")
        }
        configuration.preprocessing = try Preprocessing(timm: settings, imageSize: size, path: path)
        let given = Preprocessing.timmKeys.filter { settings[$0] != nil }
        if given.isEmpty {
            notes.append(
                "config.json says nothing of the preprocessing: timm's defaults are assumed (the centre 7/8 of the "
                    + "shorter side, bicubic, ImageNet's mean and std)")
        } else if !given.isSuperset(of: ["mean", "std"]) {
            notes.append("config.json gives no mean and std: ImageNet's are assumed, as timm does")
        }
        return !given.isEmpty
    }
}
