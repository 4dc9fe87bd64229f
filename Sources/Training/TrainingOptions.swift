import Adapters
import Datasets
import Foundation
import TensorCore
import Transformers

/// Every setting of a training run, with the defaults of its method's authors. The coding keys are the command line's flags, so a run's
/// `config.yaml` is its command line written down.
///
/// Source: ViT-Slim/GLoRA/supernet.py.
public struct TrainingOptions: Codable, Equatable, Sendable {
    /// The pretrained checkpoint: a file or folder.
    public var model = ""
    /// The data set's folder.
    public var data = ""
    /// Attention heads, for a checkpoint that doesn't say.
    public var heads: Int?
    /// The input size in pixels; nil for the checkpoint's own.
    public var imageSize: Int?
    /// How pixels are normalised.
    public var normalize = Normalization.model
    /// How an image is brought to the input size; nil as the model's own files say.
    public var crop: Crop?
    /// The shorter side before a centre crop; nil for 8/7 of the input size (256 for 224).
    public var resizeTo: Int?
    /// The filter that resizes images; nil as the model's own files say.
    public var interpolation: Preprocessing.Filter?
    /// The split that is trained on.
    public var trainSplit = "train800"
    /// What is trained.
    public var method = MethodName.glora
    /// See `MethodSettings`: the method's own settings.
    public var rank: Int?
    /// See `MethodSettings`.
    public var alpha: Double?
    /// See `MethodSettings`.
    public var scale: Double?
    /// See `MethodSettings`.
    public var width: Int?
    /// See `MethodSettings`.
    public var groups: Int?
    /// See `MethodSettings`.
    public var prompts: Int?
    /// See `MethodSettings`.
    public var dropout: Double?
    /// See `MethodSettings`.
    public var targets: String?
    /// See `MethodSettings`.
    public var placement: String?
    /// See `MethodSettings`.
    public var adapterNorm: String?
    /// See `MethodSettings`.
    public var learnableScale: Bool?
    /// See `MethodSettings`.
    public var dims: String?
    /// How the head begins and what is before it.
    public var head = HeadKind.linear
    /// GLoRA's `supernet`, `full`, `none`, or a path file.
    public var path = "supernet"
    /// How a supernet's steps choose their paths.
    public var recipe = PathChoice.Recipe.original
    /// The ranks that lowRank may mean.
    public var ranks = [4]
    /// The Linears with support tensors.
    public var linears = SearchSpace.vitRoles
    /// The forms of A.
    public var formsA: [SearchSpace.FormName] = [.lowRank, .vector, .constant, .none]
    /// The forms of B.
    public var formsB: [SearchSpace.FormName] = [.lowRank, .vector, .constant, .none]
    /// The forms of C.
    public var formsC: [SearchSpace.FormName] = [.lowRank, .vector, .none]
    /// The forms of D.
    public var formsD: [SearchSpace.FormName] = [.constant, .none, .vector]
    /// The forms of E.
    public var formsE: [SearchSpace.FormName] = [.constant, .none, .vector]
    /// What turns gradients into steps.
    public var optimizer = OptimizerName.adamw
    /// The learning rate after the warm-up.
    public var learningRate = 1e-4
    /// Weight decay on every trained tensor: AdamW's is decoupled, SGD's part of the gradient.
    public var weightDecay = 1e-4
    /// What AdamW does to tensors off the path.
    public var adamw = AdamW.Mode.dense
    /// Images in a step.
    public var batchSize = 64
    /// Whether the last, smaller batch of an epoch is left out.
    public var dropLast = true
    /// Passes over the training split.
    public var epochs = 500
    /// Epochs of linear warm-up.
    public var warmupEpochs = 10
    /// The rate of the warm-up's first epoch.
    public var warmupLearningRate = 1e-6
    /// The rate that the cosine ends at.
    public var minimumLearningRate = 1e-5
    /// Drop-path's probability in the last block; it grows linearly from 0.
    public var dropPath = 0.1
    /// The seed of every draw.
    public var seed = 42
    /// Epochs between validations; the last epoch is always validated.
    public var validateEvery = 10
    /// What a step keeps for its backward and what it computes again.
    public var memory = MemoryPolicy.balanced
    /// What the large tensors of a step are stored in.
    public var precision = Precision.float32

    /// The settings of a method's authors; of those that they choose for each task, one in the middle.
    ///
    /// | method | source |
    /// | --- | --- |
    /// | glora | ViT-Slim/GLoRA/supernet.py |
    /// | lora, adapter, noah | NOAH's retraining: lr 1e-3, 100 epochs |
    /// | ssf | SSF's VTAB scripts: lr from 1e-3, weight decay 5e-5 |
    /// | vpt | VPT's solver: lr 1 · batch / 256 of its grid, SGD |
    /// | adaptformer | main_image.py: lr 0.1 · batch / 256, SGD, 20 epochs of warm-up, a batch norm before the head |
    /// | fact, repadapter | their VTAB configs: lr 1e-3, 100 epochs |
    /// | bitfit, linear, full | AdamW like the others; full with a tenth of the rate |
    public init(method: MethodName = .glora, batchSize: Int = 64) {
        self.method = method
        self.batchSize = batchSize
        guard method != .glora else { return }
        epochs = 100
        learningRate = 1e-3
        let share = Double(batchSize) / 256
        switch method {
        case .ssf:
            weightDecay = 5e-5
        case .vptShallow, .vptDeep:
            (optimizer, learningRate, minimumLearningRate, dropPath) = (.sgd, share, 0, 0)
            head = .vpt
        case .adaptformer:
            (optimizer, learningRate, minimumLearningRate, weightDecay) = (.sgd, 0.1 * share, 0, 0)
            (warmupEpochs, dropPath, head) = (20, 0, .batchNorm)
        case .full: learningRate = 1e-4
        case .glora, .lora, .factTT, .factTK, .repadapter, .adapter, .noah, .bitfit, .linear: break
        }
    }

    /// The method's own settings.
    public var methodSettings: MethodSettings {
        var settings = MethodSettings()
        settings.rank = rank
        settings.alpha = alpha
        settings.scale = scale
        settings.width = width
        settings.groups = groups
        settings.prompts = prompts
        settings.dropout = dropout
        settings.targets = targets
        settings.placement = placement
        settings.adapterNorm = adapterNorm
        settings.learnableScale = learnableScale
        settings.dims = dims
        return settings
    }

    /// What turns gradients into steps.
    public enum OptimizerName: String, Codable, CaseIterable, Sendable {
        /// AdamW with PyTorch's β and ε.
        case adamw
        /// SGD with momentum 0.9.
        case sgd
    }

    /// How the pixels of an image become numbers.
    public enum Normalization: String, Codable, CaseIterable, Sendable {
        /// Mean and deviation of the checkpoint's own configuration.
        case model
        /// Mean (0.485, 0.456, 0.406), deviation (0.229, 0.224, 0.225).
        case imagenet
        /// Mean and deviation 0.5.
        case inception
        /// 0…1 as it is.
        case none
    }

    /// How an image is brought to the model's square.
    public enum Crop: String, Codable, CaseIterable, Sendable {
        /// Resized whatever its proportions, as VTAB-1K does.
        case squash
        /// The shorter side resized, the centre cut out.
        case center
    }

    enum CodingKeys: String, CodingKey {
        case model, data, heads, normalize, crop, interpolation, path, recipe, ranks, linears, adamw, epochs,
            seed, memory,
            precision
        case method, rank, alpha, scale, width, groups, prompts, dropout, targets, placement, dims, head,
            optimizer
        case adapterNorm = "adapter-norm"
        case learnableScale = "learnable-scale"
        case imageSize = "image-size"
        case resizeTo = "resize-to"
        case trainSplit = "train-split"
        case formsA = "forms-a"
        case formsB = "forms-b"
        case formsC = "forms-c"
        case formsD = "forms-d"
        case formsE = "forms-e"
        case learningRate = "lr"
        case weightDecay = "weight-decay"
        case batchSize = "batch-size"
        case dropLast = "drop-last"
        case warmupEpochs = "warmup-epochs"
        case warmupLearningRate = "warmup-lr"
        case minimumLearningRate = "min-lr"
        case dropPath = "drop-path"
        case validateEvery = "validate-every"
    }

    /// The search space that the forms, ranks and Linears make. Throws `FormError`.
    public func searchSpace() throws -> SearchSpace {
        try SearchSpace(
            a: formsA, b: formsB, c: formsC, d: formsD, e: formsE, ranks: ranks, sites: linears)
    }

    /// The learning rate by epoch.
    public var schedule: CosineSchedule {
        var schedule = CosineSchedule(
            learningRate: learningRate, epochs: epochs, warmupEpochs: warmupEpochs)
        schedule.warmupLearningRate = warmupLearningRate
        schedule.minimumLearningRate = minimumLearningRate
        return schedule
    }

    /// The most images in a step: the largest batches that anybody has trained on, on many machines. What fits into a device's
    /// memory is less, and asked where the model is known.
    public static let largestBatch = 65536

    /// The most epochs of a run.
    public static let largestEpochCount = 1_000_000

    /// Throws `TrainingError.settings` for a number that can't be meant, with the flag's name and what it may be.
    public func validate() throws {
        func check(_ holds: Bool, _ sentence: String) throws {
            if !holds { throw TrainingError.settings(sentence) }
        }
        try check(
            (1...TrainingOptions.largestEpochCount).contains(epochs),
            "--epochs must be from 1 to \(TrainingOptions.largestEpochCount), not \(epochs)")
        try check(
            (1...TrainingOptions.largestBatch).contains(batchSize),
            "--batch-size must be from 1 to \(TrainingOptions.largestBatch), not \(batchSize)")
        for (flag, number) in [
            ("--lr", learningRate), ("--weight-decay", weightDecay), ("--warmup-lr", warmupLearningRate),
            ("--min-lr", minimumLearningRate),
        ] {
            try check(
                number >= 0 && number.isFinite, "\(flag) must be a number from 0 on, not \(number)")
        }
        try check(warmupEpochs >= 0, "--warmup-epochs must be 0 or more, not \(warmupEpochs)")
        try check((0..<1).contains(dropPath), "--drop-path must be at least 0 and below 1, not \(dropPath)")
        try check(validateEvery > 0, "--validate-every must be at least 1, not \(validateEvery)")
        try check(
            imageSize.map { (1...Preprocessor.largestSide).contains($0) } ?? true,
            "--image-size must be from 1 to \(Preprocessor.largestSide)")
        try check(
            resizeTo == nil || crop == .center,
            "--resize-to is the shorter side before --crop center; give both")
        try check(
            method == .glora || (path == "supernet" && recipe == .original),
            "--path and --recipe are GLoRA's; leave them out with --method \(method.rawValue)")
        _ = try searchSpace()
        try check(ranks.allSatisfy { $0 <= 4096 }, "--ranks must be from 1 to 4096, not \(ranks.max() ?? 0)")
    }
}

/// What ends a run early. Each message says what, where, and what to do.
public enum TrainingError: Error, CustomStringConvertible, Equatable {
    /// A setting that can't be meant.
    case settings(String)
    /// The loss stopped being a number.
    case notANumber(step: Int, run: String)
    /// What a model computes of finite weights and images is not finite.
    case overflow(String)
    /// A run folder that isn't one, is in the way, or doesn't fit.
    case run(String)

    /// One sentence.
    public var description: String {
        switch self {
        case .settings(let message), .run(let message), .overflow(let message): message
        case .notANumber(let step, let run):
            "the loss is not a number at step \(step); the last good checkpoint is kept in \(run), "
                + "start another --run with a lower --lr"
        }
    }
}
