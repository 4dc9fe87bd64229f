import Adapters
import ArgumentParser
import Datasets
import Training
import Transformers
import VisionModels

extension MemoryPolicy: ExpressibleByArgument {}
extension LinearRole: ExpressibleByArgument {}
extension SearchSpace.FormName: ExpressibleByArgument {}
extension AdamW.Mode: ExpressibleByArgument {}
extension PathChoice.Recipe: ExpressibleByArgument {}
extension MethodName: ExpressibleByArgument {}
extension HeadKind: ExpressibleByArgument {}
extension TrainingOptions.OptimizerName: ExpressibleByArgument {}
extension TrainingOptions.Normalization: ExpressibleByArgument {}
extension TrainingOptions.Crop: ExpressibleByArgument {}
extension Preprocessing.Filter: ExpressibleByArgument {}

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
    @Option(
        help:
            "squash (resize whatever the proportions) or center (shorter side, then the centre) (default: as the model's files say; squash in trainings on VTAB-1K tasks)."
    )
    var crop: TrainingOptions.Crop?
    @Option(help: "The shorter side before --crop center (default: 8/7 of the input size).")
    var resizeTo: Int?
    @Option(
        help:
            "The filter that resizes images: \(Preprocessing.Filter.allCases.map(\.rawValue).joined(separator: ", ")) (default: as the model's files say)."
    )
    var interpolation: Preprocessing.Filter?

    /// Whether any of the flags says something.
    var isGiven: Bool {
        let defaults = InputFlags.defaults
        return heads != nil || imageSize != nil || resizeTo != nil || normalize != defaults.normalize
            || crop != nil || interpolation != nil
    }

    func apply(to options: inout TrainingOptions) {
        options.heads = heads
        options.imageSize = imageSize
        options.normalize = normalize
        options.crop = crop
        options.resizeTo = resizeTo
        options.interpolation = interpolation
    }
}

/// What a method can be told; see `MethodSettings`.
struct MethodFlags: ParsableArguments {
    @Option(help: "LoRA's rank (default: 8), FacT's (tt 16, tk 32).")
    var rank: Int?
    @Option(help: "LoRA's alpha; its update is scaled by alpha / rank (default: the rank).")
    var alpha: Double?
    @Option(help: "The factor of AdaptFormer (0.1), FacT (1) and RepAdapter (1).")
    var scale: Double?
    @Option(help: "The hidden width of AdaptFormer (64), RepAdapter (8) and Adapter (8).")
    var width: Int?
    @Option(help: "RepAdapter's groups (2).")
    var groups: Int?
    @Option(help: "VPT's prompt tokens (5).")
    var prompts: Int?
    @Option(help: "Dropout while training: 0.1 in AdaptFormer, FacT and RepAdapter, else 0.")
    var dropout: Double?
    @Option(help: "Where: LoRA's qv or all, RepAdapter's block or attention, SSF's all or linears.")
    var targets: String?
    @Option(help: "AdaptFormer's parallel (default) or sequential.")
    var placement: String?
    @Option(help: "AdaptFormer's LayerNorm: none (default), in or out.")
    var adapterNorm: String?
    @Flag(inversion: .prefixedNo, help: "Train AdaptFormer's scale, from 1.")
    var learnableScale: Bool?
    @Option(help: "NOAH's prompts:rank:width for every block, or one for each, with commas (5:8:8).")
    var dims: String?

    func apply(to options: inout TrainingOptions) {
        options.rank = rank
        options.alpha = alpha
        options.scale = scale
        options.width = width
        options.groups = groups
        options.prompts = prompts
        options.dropout = dropout
        options.targets = targets
        options.placement = placement
        options.adapterNorm = adapterNorm
        options.learnableScale = learnableScale
        options.dims = dims
    }
}

/// Throws `ValidationError` for a number of images at a time that can't be meant.
func checkBatchSize(_ size: Int, flag: String = "--batch-size") throws {
    guard (1...TrainingOptions.largestBatch).contains(size) else {
        throw ValidationError("\(flag) must be from 1 to \(TrainingOptions.largestBatch), not \(size)")
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
    @Option(help: "The method; the defaults of what follows are its authors'.")
    var method = defaults.method
    @OptionGroup var methodFlags: MethodFlags
    @Option(help: "GLoRA's supernet, full, none (the linear probe), or a JSON file of paths.")
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
    @Option(help: "linear, batchnorm (AdaptFormer's) or vpt (its first values) (default: the method's).")
    var head: HeadKind?
    @Option(help: "adamw, or sgd with momentum 0.9 (default: the method's).")
    var optimizer: TrainingOptions.OptimizerName?
    @Option(
        name: .customLong("lr"),
        help: "Learning rate after the warm-up (default: the method's; 1e-4 for glora).")
    var learningRate: Double?
    @Option(help: "Weight decay on every trained tensor (default: the method's; 1e-4 for glora).")
    var weightDecay: Double?
    @Option(help: "What AdamW does to tensors off the path: dense (as published) or sparse (PyTorch 2).")
    var adamw = defaults.adamw
    @Option(help: "Images in a step.")
    var batchSize = defaults.batchSize
    @Flag(inversion: .prefixedNo, help: "Leave out an epoch's last, smaller batch.")
    var dropLast = defaults.dropLast
    @Option(help: "Passes over the training split (default: the method's; 500 for glora, else 100).")
    var epochs: Int?
    @Option(help: "Epochs of linear warm-up (default: the method's; 10, for adaptformer 20).")
    var warmupEpochs: Int?
    @Option(name: .customLong("warmup-lr"), help: "The rate of the warm-up's first epoch.")
    var warmupLearningRate = defaults.warmupLearningRate
    @Option(name: .customLong("min-lr"), help: "The rate that the cosine ends at (default: the method's).")
    var minimumLearningRate: Double?
    @Option(help: "Stochastic depth in the last block, growing linearly from 0 (default: the method's).")
    var dropPath: Double?
    @Option(help: "The seed of every draw.")
    var seed = defaults.seed
    @Option(help: "Epochs between validations; the last is always validated.")
    var validateEvery = defaults.validateEvery
    @Option(help: "low, balanced or fast: less memory, or fewer things computed twice.")
    var memory = defaults.memory

    var options: TrainingOptions {
        var options = TrainingOptions(method: method, batchSize: batchSize)
        methodFlags.apply(to: &options)
        options.head = head ?? options.head
        options.optimizer = optimizer ?? options.optimizer
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
        options.learningRate = learningRate ?? options.learningRate
        options.weightDecay = weightDecay ?? options.weightDecay
        options.adamw = adamw
        options.dropLast = dropLast
        options.epochs = epochs ?? options.epochs
        options.warmupEpochs = warmupEpochs ?? options.warmupEpochs
        options.warmupLearningRate = warmupLearningRate
        options.minimumLearningRate = minimumLearningRate ?? options.minimumLearningRate
        options.dropPath = dropPath ?? options.dropPath
        options.seed = seed
        options.validateEvery = validateEvery
        options.memory = memory
        return options
    }
}
