/// How the images of a training set are changed anew each time that they are read, in the order of timm's
/// `transforms_imagenet_train`:
///
///     crop, resized to S × S → horizontal flip → vertical flip → RandAugment → colour jitter
///     → normalised → erasing → mixup or cutmix within the batch
///
/// Without a crop an image is first prepared as for evaluation. All that is done is in the members: where
/// timm leaves something out when something else is on (the colour jitter with RandAugment), it is left out
/// of the named ones here.
public struct Augmentation: Hashable, Sendable {
    /// How a crop is resized, and what RandAugment interpolates with.
    public enum Interpolation: String, CaseIterable, Sendable {
        case bilinear, bicubic
        /// One of both, drawn for every crop and every operation.
        case random
    }

    /// What is cut out.
    public var crop: RandomResizedCrop?
    /// How a crop is resized, and what RandAugment interpolates with.
    public var interpolation = Interpolation.bicubic
    /// The probability that left and right are exchanged.
    public var horizontalFlip = 0.0
    /// The probability that top and bottom are exchanged.
    public var verticalFlip = 0.0
    /// The policy by which images are changed in form and colour.
    public var randAugment: RandAugment?
    /// How far brightness, contrast and saturation go from 1 (torchvision's `ColorJitter`): uniform in 1 ±
    /// this, not below 0, and in an order that is drawn; 0 for none.
    public var colorJitter = 0.0
    /// What is erased of the normalised image.
    public var erasing = RandomErasing()
    /// How images are mixed in a batch.
    public var mixing = BatchMixing()

    /// None: images are as in evaluation.
    public init() {}

    /// Images as in evaluation.
    public static let none = Augmentation()

    /// Crops of at least half of the image, and mirrored images.
    ///
    /// ImageNet's crops go down to 8 % of the image, which a model learns to live with in hundreds of epochs.
    /// Fine-tuning a few parameters on 1,000 images is short, and such a crop often lacks what the label
    /// says; of half of the area and more, an object that fills the image keeps most of itself, at up to 1.4
    /// times its size.
    public static let light: Augmentation = {
        var light = Augmentation()
        light.crop = RandomResizedCrop(scale: 0.5...1)
        light.horizontalFlip = 0.5
        return light
    }()

    /// What NOAH's few-shot runs train with (supernet_train_prompt.py's defaults, lib/datasets.py,
    /// `build_transform`), which its scripts leave as they are: timm's crop and flip, RandAugment, erasing by
    /// pixels, mixup and cutmix. It hands a colour jitter of 0.4 to timm as well, which leaves it out beside
    /// RandAugment. Its labels are smoothed by 0.1, too.
    public static let fewshot: Augmentation = {
        var fewshot = Augmentation()
        fewshot.crop = RandomResizedCrop()
        fewshot.horizontalFlip = 0.5
        fewshot.randAugment = RandAugment()
        fewshot.randAugment?.magnitude = 9
        fewshot.randAugment?.deviation = 0.5
        fewshot.randAugment?.increases = true
        fewshot.erasing = RandomErasing(probability: 0.25, mode: .pixel)
        fewshot.mixing = BatchMixing(mixup: 0.8, cutmix: 1)
        return fewshot
    }()

    /// timm's crop and flip about a policy, with the interpolation that timm's training takes by default.
    public static func policy(_ policy: RandAugment) -> Augmentation {
        var augmentation = Augmentation()
        augmentation.crop = RandomResizedCrop()
        augmentation.interpolation = .random
        augmentation.horizontalFlip = 0.5
        augmentation.randAugment = policy
        return augmentation
    }

    /// Throws `DatasetError` for a member outside of its range, by its name.
    public func check() throws {
        func need(_ isFine: Bool, _ name: String, _ value: Any, _ range: String) throws {
            if !isFine { throw DatasetError("the augmentation's \(name) is \(value); it must be \(range).") }
        }
        func probability(_ value: Double, _ name: String) throws {
            try need((0...1).contains(value), name, value, "a probability of 0...1")
        }
        if let crop {
            let (scale, ratio) = (crop.scale, crop.ratio)
            try need(scale.lowerBound > 0 && scale.upperBound <= 1, "scale", scale, "above 0 and at most 1")
            try need(
                ratio.lowerBound > 0 && ratio.upperBound.isFinite, "ratio", ratio, "above 0 and finite")
        }
        if let policy = randAugment {
            try need((1...15).contains(policy.layers), "n", policy.layers, "1...15")
            try need((0...100).contains(policy.magnitude), "m", policy.magnitude, "0...100")
            try need((1...100).contains(policy.largest), "mmax", policy.largest, "1...100")
            try need(
                policy.deviation >= 0 && policy.deviation.isFinite, "mstd", policy.deviation, "0 or more")
            try probability(policy.probability, "p")
        }
        try probability(horizontalFlip, "hflip")
        try probability(verticalFlip, "vflip")
        try need(colorJitter >= 0 && colorJitter.isFinite, "jitter", colorJitter, "0 or more")
        try probability(erasing.probability, "reprob")
        try need((1...100).contains(erasing.count), "recount", erasing.count, "1...100")
        for (alpha, name) in [(mixing.mixup, "mixup"), (mixing.cutmix, "cutmix")] {
            try need(alpha == 0 || (1e-3...1e3).contains(alpha), name, alpha, "0 or 0.001...1000")
        }
        try probability(mixing.probability, "mixprob")
        try probability(mixing.switchProbability, "mixswitch")
    }
}
