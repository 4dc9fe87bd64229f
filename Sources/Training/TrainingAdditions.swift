// What a setting is for is said once, by its help.

import Adapters
import Datasets
import Foundation

/// What practitioners ask of a training beyond what its method's authors do, by the names that they know from timm, PyTorch and Keras. What is
/// left out changes nothing.
public struct TrainingAdditions: SettingGroup {
    @Setting(
        "augment",
        "How training images are changed: none, light, fewshot (NOAH's), timm's rand-m9-mstd0.5-inc1, and what differs: light,mixup=0.2",
        default: "none")
    public var augment: String? = nil
    @Setting(
        "task",
        "What is learnt: classes, labels (of which any number holds) or values (regression), of tables such as train.csv",
        default: "classes")
    public var task: LearningTask? = nil
    @Setting(
        "label-smoothing", "What of each label is spread over all classes", default: "0", .probability)
    public var labelSmoothing: Double? = nil
    @Setting(
        "class-weights",
        "Weights of the classes' losses: balanced (by 1 / their number), or a file with a line for each class, its name and its weight",
        default: "none")
    public var classWeights: String? = nil
    @Setting(
        "sampler", "shuffle (each image once an epoch), or balanced (each class as often as the others)",
        default: "shuffle")
    public var sampler: Sampler? = nil
    @Setting(
        "accumulate", "Batches whose gradients make one step, as of one large batch", default: "1",
        .within(1...65536))
    public var accumulate: Int? = nil
    @Setting(
        "clip-norm", "The largest norm of a step's gradients; longer ones are shortened to it",
        default: "none", .positive)
    public var clipNorm: Double? = nil
    @Setting(
        "decay", "What weight decay is on: all, or matrices (neither biases, norms, scales nor vectors)",
        default: "all")
    public var decay: Decay? = nil
    @Setting(
        "lr-factors",
        "Factors of the learning rate, with commas: head=10, GLoRA's C=0.1, or a part of a tensor's name, norm1=0.5",
        default: "none")
    public var learningRateFactors: [LearningRateFactor]? = nil
    @Setting(
        "layer-decay", "The rate of each block is that of the one behind it times this", default: "1",
        .positive)
    public var layerDecay: Double? = nil
    @Setting(
        "schedule",
        "The learning rate's course: original (a cosine by epoch), or by step cosine, linear, constant, one-cycle",
        default: "cosine; original with `recipe original`")
    public var schedule: LearningRateSchedule.Kind? = nil
    @Setting(
        "warmup-steps", "Steps of linear warm-up, with a schedule by step", default: "as warmup-epochs say",
        .init("must be 0 or more") { $0 >= 0 })
    public var warmupSteps: Int? = nil
    @Setting(
        "ema", "The decay of a moving average of what is trained, which is validated and kept",
        default: "none", .probability)
    public var ema: Double? = nil
    @Setting("beta1", "AdamW's and Lion's first beta", default: "0.9", .probability)
    public var beta1: Double? = nil
    @Setting(
        "beta2", "AdamW's (0.999) and Lion's (0.99) second beta", default: "the optimizer's", .probability)
    public var beta2: Double? = nil
    @Setting("epsilon", "AdamW's epsilon", default: "1e-8", .positive) public var epsilon: Double? = nil
    @Setting("momentum", "SGD's momentum", default: "0.9", .probability) public var momentum: Double? = nil
    @Setting("nesterov", "SGD's look ahead along its velocity", default: "false")
    public var nesterov: Bool? = nil
    @Setting(
        "patience", "Validations without a better one after which the training ends", default: "none",
        .within(1...1_000_000))
    public var patience: Int? = nil
    @Setting(
        "time-limit", "When to stop: 90s, 30m or 1h30m after the beginning", default: "none")
    public var timeLimit: TimeLimit? = nil
    @Setting(
        "checkpoint-every", "Steps between saved states", default: "an epoch", .within(1...1_000_000_000))
    public var checkpointEvery: Int? = nil
    @Setting(
        "keep", "How many of the latest saved states stay, in checkpoints/", default: "none",
        .within(1...10000))
    public var keep: Int? = nil
    @Setting(
        "log-dir", "Where event files for TensorBoard go, in a folder of the run's name", default: "none")
    public var logDirectory: String? = nil

    /// Nothing.
    public init() {}

    /// How an epoch's images are chosen.
    public enum Sampler: String, SettingChoice {
        /// Each once, in random order.
        case shuffle
        /// As many draws as there are images, each of a random class and of a random image in it: PyTorch's
        /// `WeightedRandomSampler` with 1 / the class's number.
        case balanced
    }

    /// What weight decay is on.
    public enum Decay: String, SettingChoice {
        case all, matrices
    }

    /// How training images are changed. Throws `DatasetError` for a text that can't be read.
    public var augmentation: Augmentation { get throws { try augment.map { try Augmentation($0) } ?? .none } }

    /// What else than classes is learnt of images; nil for nothing.
    private var otherTask: LearningTask? { task == .classes ? nil : task }

    /// What can't be meant beside the other settings, as a sentence; nil for nothing.
    func mistake(_ options: TrainingOptions) -> String? {
        let optimizer = options.optimizer
        do { _ = try augmentation } catch { return "`augment`: \(error)" }
        if optimizer != .adamw, epsilon != nil {
            return "`epsilon` is AdamW's; leave it out with `optimizer \(optimizer)`"
        }
        if optimizer == .sgd, beta1 != nil || beta2 != nil {
            return "`beta1` and `beta2` are AdamW's and Lion's; leave them out with `optimizer sgd`"
        }
        if optimizer != .sgd, momentum != nil || nesterov != nil {
            return "`momentum` and `nesterov` are SGD's; leave them out with `optimizer \(optimizer)`"
        }
        if nesterov == true, momentum == 0 {
            return "`nesterov` looks ahead along a velocity, which `momentum 0` hasn't; leave one of them out"
        }
        if warmupSteps != nil, [nil, .original, .oneCycle].contains(schedule) {
            return schedule == .oneCycle
                ? "`schedule one-cycle` rises over 30 % of the steps; leave `warmup-steps` out"
                : "`warmup-steps` go with a schedule by step; give `schedule cosine`, or `warmup-epochs`"
        }
        if let task = otherTask {
            let ofClasses: [(String, Bool)] = [
                ("label-smoothing", labelSmoothing != nil), ("class-weights", classWeights != nil),
                ("sampler balanced", sampler == .balanced),
                ("augment with mixup or cutmix", (try? augmentation.mixing.isOn) == true),
            ]
            if let name = ofClasses.first(where: \.1)?.0 {
                return "`\(name)` is for classes; leave it out with `task \(task.rawValue)`"
            }
            if options.method == .glora, options.path == "supernet" {
                return
                    "a supernet is searched by its accuracy on classes; give another `path` with `task \(task.rawValue)`"
            }
        }
        if sampler == .balanced, classWeights == "balanced" {
            return
                "`sampler balanced` and `class-weights balanced` would count what is rare twice; give one of them"
        }
        return nil
    }
}

extension TrainingOptions {
    /// Throws `TrainingError.settings` for a setting of a new run that another leaves without effect: whoever gave it meant something.
    /// What has its recipe's default counts as left out, so that a run's `config.yaml` trains it again.
    public func refuseWithoutEffect() throws {
        let own = TrainingOptions(recipe, method: method, batchSize: batchSize)
        let schedule = additions.schedule ?? .original
        let isHeadAlone = method == .linear || method == .glora && path == "none"
        func differs<Value: Equatable>(_ setting: KeyPath<TrainingOptions, Value>) -> Bool {
            self[keyPath: setting] != own[keyPath: setting]
        }
        let mistakes: [(Bool, String)] = [
            (
                [.constant, .oneCycle].contains(schedule) && differs(\.minimumLearningRate),
                "`min-lr` is where a cosine or a line ends; leave it out with `schedule \(schedule.rawValue)`"
            ),
            (
                differs(\.minimumLearningRate) && minimumLearningRate > learningRate,
                "`min-lr` \(minimumLearningRate.short), where the schedule ends, is above `lr` \(learningRate.short)"
            ),
            (
                schedule == .oneCycle && (differs(\.warmupEpochs) || differs(\.warmupLearningRate)),
                "`schedule one-cycle` rises over 30 % of the steps; leave `warmup-epochs` and `warmup-lr` out"
            ),
            (
                additions.warmupSteps != nil && differs(\.warmupEpochs),
                "`warmup-epochs` and `warmup-steps` say the same; give one of them"
            ),
            (
                optimizer != .adamw && differs(\.adamw),
                "`adamw` is AdamW's; leave it out with `optimizer \(optimizer)`"
            ),
            (
                additions.layerDecay != nil && isHeadAlone,
                "`layer-decay` is for the blocks, of which nothing is trained; leave it out"
            ),
            (
                (try? additions.augmentation.mixing.isOn) == true && batchSize == 1,
                "mixup and cutmix mix the images of a batch; give a larger `batch-size` than 1"
            ),
        ]
        if let mistake = mistakes.first(where: \.0)?.1 { throw TrainingError.settings(mistake) }
    }
}

/// Hours, minutes and seconds, as `1h30m`, `90s` or `45m`.
public struct TimeLimit: SettingText {
    /// Seconds, more than none.
    public let seconds: Int

    /// Reads numbers with the units h, m and s, each at most once and in that order; nil where that can't be meant.
    public init?(_ description: String) {
        var rest = description[...]
        var (sum, units) = (0, [("h", 3600), ("m", 60), ("s", 1)][...])
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isASCII && $0.isNumber }
            rest = rest.dropFirst(digits.count)
            guard digits.count < 9, let number = Int(digits), let unit = rest.popFirst(),
                let place = units.firstIndex(where: { $0.0 == String(unit) })
            else { return nil }
            sum += number * units[place].1
            units = units[(place + 1)...]
        }
        guard sum > 0 else { return nil }
        seconds = sum
    }

    public var description: String {
        [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")]
            .compactMap { $0.0 > 0 ? "\($0.0)\($0.1)" : nil }.joined()
    }
}
