import Datasets

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
