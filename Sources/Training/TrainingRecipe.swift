import Adapters

/// Whose defaults a training has.
public enum TrainingRecipe: String, SettingChoice {
    /// What works soon on a small data set that nobody has tried before: the richest path alone, or whatever else is asked for, in
    /// batches of 32, at a rate that falls along a cosine by step behind an epoch of warm-up; the rest is the method's.
    case standard
    /// The method's authors'; GLoRA's train a supernet for 500 epochs.
    case original
    /// Those, but a supernet takes its richest path at every other step.
    case sandwich

    /// How a supernet's steps draw.
    public var draws: PathChoice.Recipe { self == .original ? .original : .sandwich }
}

extension TrainingOptions {
    /// The settings of a recipe. Of the standard one, `epochs` are those of 1,000 images until `fit` is told how many there are.
    public init(_ recipe: TrainingRecipe, method: MethodName = .glora, batchSize: Int? = nil) {
        self.init(method: method, batchSize: batchSize ?? (recipe == .standard ? 32 : 64))
        self.recipe = recipe
        guard recipe == .standard else { return }
        if method == .glora { (path, learningRate, dropPath) = ("full", 2e-3, 0) }
        (additions.schedule, warmupEpochs, minimumLearningRate) = (.cosine, 1, 0)
        validateEvery = 1
        epochs = TrainingOptions.standardEpochs(imageCount: 1000)
        epochsFollowImages = true
    }

    /// What a command line gives, and else what `recipe` says, unless that is given too.
    public init(given: [String: any SettingValue], recipe: TrainingRecipe = .original) {
        var own = Self()
        own.recipe = recipe
        own.take(given)
        self.init(own.recipe, method: own.method, batchSize: given["batch-size"].map { _ in own.batchSize })
        take(given)
        epochsFollowImages = own.recipe == .standard && given["epochs"] == nil
    }

    /// Takes the standard recipe's epochs for so many training images, where nothing else says how many.
    public mutating func fit(imageCount: Int) {
        guard epochsFollowImages else { return }
        epochs = TrainingOptions.standardEpochs(imageCount: imageCount)
        epochsFollowImages = false
    }

    /// About 12,000 images in all, from 5 epochs to 50.
    private static func standardEpochs(imageCount: Int) -> Int {
        min(max((12_000 + imageCount / 2) / max(imageCount, 1), 5), 50)
    }
}
