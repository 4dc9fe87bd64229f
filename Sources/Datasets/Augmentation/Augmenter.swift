import TensorCore

extension TrainingDraws {
    /// The stream of a purpose for an image.
    func random(_ purpose: String, image index: Int) -> Random {
        Random(seed, "augmentation/\(purpose)/epoch \(epoch)", index)
    }
}

/// `Augmentation` for a model's input, ready to be applied.
///
/// From a JPEG to 224 × 224 values a core makes 1,000 a second by `light` and 300 by `fewshot` of 64 × 64 pixels, and 150 and
/// 125 of 640 × 427, of whose time decoding takes half.
struct Augmenter: Sendable {
    let augmentation: Augmentation
    let preprocessor: Preprocessor
    /// [3] what lies beyond an image's border: the mean, which becomes 0 when it is normalised.
    let fill: [UInt8]

    init(_ augmentation: Augmentation, _ preprocessor: Preprocessor) {
        (self.augmentation, self.preprocessor) = (augmentation, preprocessor)
        fill = preprocessor.preprocessing.mean.map { mean in
            let value = Double(mean) / preprocessor.preprocessing.rescale
            return UInt8(clamping: Int(max(0, min(255, value)).rounded(.toNearestOrEven)))
        }
    }

    /// Whether it begins with the image as it was decoded; otherwise with what the preprocessor makes of it.
    var readsOriginals: Bool { augmentation.crop != nil }

    /// What is drawn for one image.
    struct Draw: Hashable, Sendable {
        /// nil for an image that is prepared already.
        var box: RGBImage.Box?
        var isCropCubic = true
        var isFlippedHorizontally = false
        var isFlippedVertically = false
        /// RandAugment's, then the colour jitter's.
        var operations: [Step] = []

        struct Step: Hashable, Sendable {
            var operation: ImageOperation
            var isCubic = true
        }
    }

    /// Draws for an image of this size.
    func draw(width: Int, height: Int, _ draws: TrainingDraws, image index: Int) -> Draw {
        // A stream for each stage: another policy leaves the crops as they are.
        func stream(_ purpose: String) -> Random { draws.random(purpose, image: index) }
        func isCubic(_ random: inout Random) -> Bool {
            let isFirst = random.uniform() < 0.5
            return augmentation.interpolation == .random
                ? isFirst : augmentation.interpolation == .bicubic
        }
        var draw = Draw()
        if let crop = augmentation.crop {
            var random = stream("crop")
            draw.isCropCubic = isCubic(&random)
            draw.box = crop.draw(width: width, height: height, &random)
        }
        var flips = stream("flip")
        draw.isFlippedHorizontally = flips.uniform() < augmentation.horizontalFlip
        draw.isFlippedVertically = flips.uniform() < augmentation.verticalFlip
        if let policy = augmentation.randAugment {
            var random = stream("policy")
            let operations = policy.draw(&random)
            draw.operations = operations.map { Draw.Step(operation: $0, isCubic: isCubic(&random)) }
        }
        if augmentation.colorJitter > 0 {
            var random = stream("jitter")
            let range = max(0, 1 - augmentation.colorJitter)...(1 + augmentation.colorJitter)
            let order = [RGBImage.Enhancement.brightness, .contrast, .colour].shuffled(using: &random)
            draw.operations += order.map {
                Draw.Step(operation: .enhance($0, random.uniform(in: range)))
            }
        }
        return draw
    }

    /// The image at S × S as it was drawn. `image` is the decoded one where there is a box, and otherwise S ×
    /// S.
    func apply(_ draw: Draw, to image: RGBImage) -> RGBImage {
        let S = preprocessor.imageSize
        var image = image
        if let box = draw.box {
            image = image.cropped(to: box)
                .resized(width: S, height: S, filter: draw.isCropCubic ? .bicubic : .bilinear)
        }
        if draw.isFlippedHorizontally { image = image.flippedHorizontally }
        if draw.isFlippedVertically { image = image.flippedVertically }
        return draw.operations.reduce(image) {
            $0.applying($1.operation, cubic: $1.isCubic, fill: fill)
        }
    }

    /// out [3, S, S] ← the image augmented and normalised.
    func callAsFunction(
        _ out: UnsafeMutableBufferPointer<Float>, _ image: RGBImage, _ draws: TrainingDraws,
        index: Int
    ) {
        let draw = draw(width: image.width, height: image.height, draws, image: index)
        preprocessor.normalise(out, apply(draw, to: image))
        if augmentation.erasing.probability > 0 {
            var random = draws.random("erasing", image: index)
            augmentation.erasing(out, side: preprocessor.imageSize, &random)
        }
    }
}
