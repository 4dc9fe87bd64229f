import Adapters
import ArgumentParser
import Training
import VisionModels

extension MemoryPolicy: ExpressibleByArgument {}
extension SearchSpace.Site: ExpressibleByArgument {}
extension SearchSpace.FormName: ExpressibleByArgument {}
extension AdamW.Mode: ExpressibleByArgument {}
extension PathChoice.Recipe: ExpressibleByArgument {}
extension TrainingOptions.Normalization: ExpressibleByArgument {}
extension TrainingOptions.Crop: ExpressibleByArgument {}

/// A comma-separated list: `8,4`, `qkv,proj`.
struct CommaList<Element: ExpressibleByArgument>: ExpressibleByArgument {
    let elements: [Element]

    init(_ elements: [Element]) { self.elements = elements }

    init?(argument: String) {
        let parts = argument.split(separator: ",").map { Element(argument: String($0)) }
        guard !parts.isEmpty, !parts.contains(where: { $0 == nil }) else { return nil }
        elements = parts.compactMap { $0 }
    }

    var defaultValueDescription: String { elements.map(\.defaultValueDescription).joined(separator: ",") }
}

/// How a checkpoint is read and images are prepared.
struct InputFlags: ParsableArguments {
    private static let defaults = TrainingOptions()

    @Option(help: "Attention heads, for a checkpoint that doesn't say (default: width / 64).")
    var heads: Int?
    @Option(help: "Input size in pixels; position embeddings are interpolated (default: the checkpoint's).")
    var imageSize: Int?
    @Option(help: "Pixel normalisation: model, imagenet, inception or none.")
    var normalize = defaults.normalize
    @Option(help: "squash (resize whatever the proportions) or center (shorter side, then the centre).")
    var crop = defaults.crop
    @Option(help: "The shorter side before --crop center (default: 8/7 of the input size).")
    var resizeTo: Int?

    /// Whether any of the flags says something.
    var isGiven: Bool {
        let defaults = InputFlags.defaults
        return heads != nil || imageSize != nil || resizeTo != nil || normalize != defaults.normalize
            || crop != defaults.crop
    }

    func apply(to options: inout TrainingOptions) {
        options.heads = heads
        options.imageSize = imageSize
        options.normalize = normalize
        options.crop = crop
        options.resizeTo = resizeTo
    }
}

/// The flags of a training run, one for each field of `TrainingOptions`.
struct TrainingFlags: ParsableArguments {
    private static let defaults = TrainingOptions()

    @Option(
        help: "The pretrained ViT: timm safetensors (file or folder), Hugging Face folder, or Google's .npz.")
    var model = defaults.model
    @Option(help: "The data set: a VTAB-1K task folder or an ImageFolder (train/, val/, test/).")
    var data = defaults.data
    @OptionGroup var input: InputFlags
    @Option(help: "The split to train on: train800 or train800val200.")
    var trainSplit = defaults.trainSplit
    @Option(help: "supernet, full, none (the linear probe), or a JSON file of paths.")
    var path = defaults.path
    @Option(
        help: "How a supernet's steps draw: original, or sandwich (every other step the richest path).")
    var recipe = defaults.recipe
    @Option(help: "Ranks that lowRank may mean, each an equally likely choice: 4, or 8,4.")
    var ranks = CommaList(defaults.ranks)
    @Option(help: "Linears with support tensors.")
    var linears = CommaList(defaults.linears)
    @Option(help: "Forms that A may take.")
    var formsA = CommaList(defaults.formsA)
    @Option(help: "Forms that B may take.")
    var formsB = CommaList(defaults.formsB)
    @Option(help: "Forms that C may take (no constant).")
    var formsC = CommaList(defaults.formsC)
    @Option(help: "Forms that D may take (no lowRank).")
    var formsD = CommaList(defaults.formsD)
    @Option(help: "Forms that E may take (no lowRank).")
    var formsE = CommaList(defaults.formsE)
    @Option(name: .customLong("lr"), help: "Learning rate after the warm-up.")
    var learningRate = defaults.learningRate
    @Option(help: "Decoupled weight decay on every trained tensor.")
    var weightDecay = defaults.weightDecay
    @Option(help: "What AdamW does to tensors off the path: dense (as published) or sparse (PyTorch 2).")
    var adamw = defaults.adamw
    @Option(help: "Images in a step.")
    var batchSize = defaults.batchSize
    @Flag(inversion: .prefixedNo, help: "Leave out an epoch's last, smaller batch.")
    var dropLast = defaults.dropLast
    @Option(help: "Passes over the training split.")
    var epochs = defaults.epochs
    @Option(help: "Epochs of linear warm-up.")
    var warmupEpochs = defaults.warmupEpochs
    @Option(name: .customLong("warmup-lr"), help: "The rate of the warm-up's first epoch.")
    var warmupLearningRate = defaults.warmupLearningRate
    @Option(name: .customLong("min-lr"), help: "The rate that the cosine ends at.")
    var minimumLearningRate = defaults.minimumLearningRate
    @Option(help: "Stochastic depth in the last block, growing linearly from 0.")
    var dropPath = defaults.dropPath
    @Option(help: "The seed of every draw.")
    var seed = defaults.seed
    @Option(help: "Epochs between validations; the last is always validated.")
    var validateEvery = defaults.validateEvery
    @Option(help: "low, balanced or fast: less memory, or fewer things computed twice.")
    var memory = defaults.memory

    var options: TrainingOptions {
        var options = TrainingOptions()
        options.model = model
        options.data = data
        input.apply(to: &options)
        options.trainSplit = trainSplit
        options.path = path
        options.recipe = recipe
        options.ranks = ranks.elements
        options.linears = linears.elements
        options.formsA = formsA.elements
        options.formsB = formsB.elements
        options.formsC = formsC.elements
        options.formsD = formsD.elements
        options.formsE = formsE.elements
        options.learningRate = learningRate
        options.weightDecay = weightDecay
        options.adamw = adamw
        options.batchSize = batchSize
        options.dropLast = dropLast
        options.epochs = epochs
        options.warmupEpochs = warmupEpochs
        options.warmupLearningRate = warmupLearningRate
        options.minimumLearningRate = minimumLearningRate
        options.dropPath = dropPath
        options.seed = seed
        options.validateEvery = validateEvery
        options.memory = memory
        return options
    }
}
