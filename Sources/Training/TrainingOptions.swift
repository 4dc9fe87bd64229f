// What a setting is for is said once, by its help.

import Adapters
import Datasets
import Foundation
import TensorCore
import Transformers

extension LinearRole: SettingChoice {}
extension SearchSpace.FormName: SettingChoice {}
extension AdamW.Mode: SettingChoice {}
extension MemoryPolicy: SettingChoice {}
extension Precision: SettingChoice {}
extension Preprocessing.Filter: SettingChoice {}
extension LearningTask: SettingChoice {}

/// Every setting of a training run, with the defaults of its method's authors; `TrainingRecipe` has the others'. The keys are the
/// settings' names, so a run's `config.yaml` is its command line written down.
///
/// Source: ViT-Slim/GLoRA/supernet.py.
public struct TrainingOptions: SettingGroup {
    @Setting(
        "model",
        "The pretrained ViT: timm safetensors (file or folder), Hugging Face folder, or Google's .npz")
    public var model = ""
    @Setting(
        "data",
        "The data set: a VTAB-1K task folder, tables (train.csv, val.csv, test.csv) or an ImageFolder (train/, val/, test/)"
    )
    public var data = ""
    @Setting("heads", "Attention heads, for a checkpoint that doesn't say", default: "width / 64")
    public var heads: Int? = nil
    @Setting(
        "image-size", "Input size in pixels; position embeddings are interpolated",
        default: "the checkpoint's", .within(1...Preprocessor.largestSide))
    public var imageSize: Int? = nil
    @Setting("normalize", "Pixel normalisation: model, imagenet, inception or none")
    public var normalize = Normalization.model
    @Setting(
        "crop",
        "squash (resize whatever the proportions), center (shorter side, then the centre) or squash-center (both)",
        default: "as the model's files say; squash in trainings on VTAB-1K tasks")
    public var crop: Crop? = nil
    @Setting(
        "resize-to", "The shorter side before `crop center`, both sides before `crop squash-center`",
        default: "8/7 of the input size")
    public var resizeTo: Int? = nil
    @Setting(
        "interpolation",
        "The filter that resizes images: \(Preprocessing.Filter.choices.joined(separator: ", "))",
        default: "as the model's files say")
    public var interpolation: Preprocessing.Filter? = nil
    @Setting("train-split", "The split to train on: train800 or train800val200")
    public var trainSplit = "train800"
    @Setting("method", "The method; the defaults of what follows are its authors'")
    public var method = MethodName.glora
    /// The method's own settings.
    public var methodSettings = MethodSettings()
    @Setting(
        "path", "GLoRA's supernet, full, none (the linear probe), or a JSON file of paths",
        default: "full; supernet with `recipe original`")
    public var path = "supernet"
    @Setting(
        "recipe",
        "Whose defaults: standard (a good result soon), original (the authors'), or sandwich (those, but a supernet takes its richest path at every other step)"
    )
    public var recipe = TrainingRecipe.original
    @Setting(
        "ranks", "Ranks that lowRank may mean, each an equally likely choice: 4, or 8,4",
        .within(1...MethodSettings.largestSize))
    public var ranks = [4]
    @Setting("linears", "Linears with support tensors") public var linears = SearchSpace.vitRoles
    @Setting("forms-a", "Forms that A may take")
    public var formsA: [SearchSpace.FormName] = [.lowRank, .vector, .constant, .none]
    @Setting("forms-b", "Forms that B may take")
    public var formsB: [SearchSpace.FormName] = [.lowRank, .vector, .constant, .none]
    @Setting("forms-c", "Forms that C may take (no constant)")
    public var formsC: [SearchSpace.FormName] = [.lowRank, .vector, .none]
    @Setting("forms-d", "Forms that D may take (no lowRank)")
    public var formsD: [SearchSpace.FormName] = [.constant, .none, .vector]
    @Setting("forms-e", "Forms that E may take (no lowRank)")
    public var formsE: [SearchSpace.FormName] = [.constant, .none, .vector]
    @Setting(
        "head", "linear, batchnorm (AdaptFormer's) or vpt (its first values)", default: "the method's")
    public var head = HeadKind.linear
    @Setting("optimizer", "adamw, sgd with momentum, or lion", default: "the method's")
    public var optimizer = OptimizerName.adamw
    @Setting(
        "lr", "Learning rate after the warm-up",
        default: "the method's; for glora 2e-3, with `recipe original` 1e-4", .rate)
    public var learningRate = 1e-4
    /// AdamW's is decoupled, SGD's part of the gradient.
    @Setting(
        "weight-decay", "Weight decay on every trained tensor", default: "the method's; 1e-4 for glora",
        .rate)
    public var weightDecay = 1e-4
    @Setting("adamw", "What AdamW does to tensors off the path: dense (as published) or sparse (PyTorch 2)")
    public var adamw = AdamW.Mode.dense
    @Setting(
        "batch-size", "Images in a step", default: "32; 64 with `recipe original`", .within(1...largestBatch))
    public var batchSize = 64
    @Setting("drop-last", "Leave out an epoch's last, smaller batch") public var dropLast = true
    @Setting(
        "epochs", "Passes over the training split",
        default: "by the number of images; with `recipe original` 500 for glora, else 100",
        .within(1...largestEpochCount))
    public var epochs = 500
    @Setting(
        "warmup-epochs", "Epochs of linear warm-up",
        default: "1; with `recipe original` 10, for adaptformer 20",
        .init("must be 0 or more") { $0 >= 0 })
    public var warmupEpochs = 10
    @Setting("warmup-lr", "The rate of the warm-up's first epoch", .rate) public var warmupLearningRate = 1e-6
    @Setting(
        "min-lr", "The rate that the schedule ends at",
        default: "0; with `recipe original` the method's", .rate)
    public var minimumLearningRate = 1e-5
    /// The probability of leaving out the last block; the first is always there.
    @Setting(
        "drop-path", "Stochastic depth in the last block, growing linearly from 0",
        default: "the method's; for glora 0, with `recipe original` 0.1",
        .probability)
    public var dropPath = 0.1
    /// What is asked of the training beyond what its method's authors do.
    public var additions = TrainingAdditions()
    @Setting("seed", "The seed of every draw") public var seed = 42
    @Setting(
        "validate-every", "Epochs between validations; the last is always validated",
        default: "1; 10 with `recipe original`",
        .init("must be at least 1") { $0 > 0 })
    public var validateEvery = 10
    @Setting(
        "memory",
        "lowest (a block's input alone is kept), low, balanced or fast: less memory, or fewer things computed twice"
    )
    public var memory = MemoryPolicy.balanced
    @Setting(
        "precision",
        "float32, bfloat16 or float16: what frozen weights and activations are stored in, on OpenCL devices; tf32: float32 whose products NVIDIA's tensor cores compute"
    )
    public var precision = Precision.float32

    /// Whether `epochs` wait for the number of images, by `fit`.
    var epochsFollowImages = false

    /// GLoRA's authors' settings.
    public init() {}

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
    public init(method: MethodName, batchSize: Int = 64) {
        (self.method, self.batchSize) = (method, batchSize)
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

    /// What turns gradients into steps.
    public enum OptimizerName: String, SettingChoice {
        /// AdamW with PyTorch's β and ε.
        case adamw
        /// SGD with momentum.
        case sgd
        /// Lion, which steps by signs.
        case lion
    }

    /// How the pixels of an image become numbers.
    public enum Normalization: String, SettingChoice {
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
    public enum Crop: String, SettingChoice {
        /// Resized whatever its proportions, as VTAB-1K does.
        case squash
        /// The shorter side resized, the centre cut out.
        case center
        /// Resized whatever its proportions, the centre cut out, as NOAH's few-shot runs do.
        case squashCenter = "squash-center"
    }

    /// The search space that the forms, ranks and Linears make. Throws `FormError`.
    public func searchSpace() throws -> SearchSpace {
        try SearchSpace(
            a: formsA, b: formsB, c: formsC, d: formsD, e: formsE, ranks: ranks, sites: linears)
    }

    /// The original's learning rate, by epoch.
    public var cosineSchedule: CosineSchedule {
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

    /// Throws `TrainingError.settings` for a setting that can't be meant, with its name and what it may be, and `FormError`.
    public func validate() throws {
        var mistake = fault
        if resizeTo != nil, crop == nil || crop == .squash {
            mistake =
                mistake ?? "`resize-to` is the size before `crop center` or `crop squash-center`; give both"
        }
        if method != .glora, path != "supernet" || recipe == .sandwich {
            mistake =
                mistake ?? "`path` and `recipe sandwich` are GLoRA's; leave them out with `method \(method)`"
        }
        if let mistake = mistake ?? additions.mistake(self) { throw TrainingError.settings(mistake) }
        _ = try searchSpace()
    }

    /// What may differ when a run goes on: where the model and the data lie, as their hashes decide, and what changes no step.
    private static let changeable: Set<String> = [
        "model", "data", "time-limit", "checkpoint-every", "keep", "log-dir",
    ]

    /// In which settings these differ from `others`, as `epochs` "3, not 2", by name, but for those that may.
    public func differences(from others: TrainingOptions) -> [String] {
        func text(_ setting: any AnySetting) -> String {
            (setting.wrappedValue as? Double)?.short ?? setting.text ?? "unset"
        }
        return zip(settings, others.settings).sorted { $0.0.name < $1.0.name }
            .filter { text($0) != text($1) && !TrainingOptions.changeable.contains($0.name) }
            .map { "`\($0.name)` \(text($0)), not \(text($1))" }
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
    /// A folder or a file that lacks what a training or a search leaves there: which, and what would help.
    case missing(String, Remedy)

    /// What to do about what is missing. The command line names its commands instead.
    public enum Remedy: String, Sendable {
        /// The folder of a training is meant.
        case giveRun = "give the `run` of a training"
        /// What a search has found is meant.
        case giveArchitecture = "give the architecture.json of a search"
        /// There is no search to go on with.
        case beginSearch = "begin one without `resume`"
        /// The search was stopped before it wrote this.
        case endSearch = "go on with the search to its end"
    }

    /// One sentence.
    public var description: String {
        switch self {
        case .settings(let message), .run(let message), .overflow(let message): message
        case .missing(let what, let remedy): "\(what); \(remedy.rawValue)"
        case .notANumber(let step, let run):
            "the loss is not a number at step \(step); the last good checkpoint is kept in \(run), "
                + "start another `run` with a lower `lr`"
        }
    }
}

extension Double {
    /// The fewest digits that are this number, with an exponent: 1e-3, 2.5e-1.
    package var short: String {
        for decimals in 0...16 {
            let text = String(format: "%.\(decimals)e", self)
            guard Double(text) == self, let mark = text.firstIndex(of: "e") else { continue }
            return text[..<mark] + "e\(Int(text[text.index(after: mark)...]) ?? 0)"
        }
        return "\(self)"
    }
}
