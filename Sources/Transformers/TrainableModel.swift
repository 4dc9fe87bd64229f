import Adapters
import TensorCore

/// A model that can be trained, scored and searched: what a trainer, a search and a report know of it. What its examples are, images or
/// tokens, is its own.
///
/// A step: `plan`, `load`, `method.beginStep`, `forward`, `loss`, `backward`.
public protocol TrainableModel: AnyObject {
    /// What it is trained and scored on.
    associatedtype Examples: ExampleSource
    /// The memory of a step.
    associatedtype Plan: StepPlan

    /// Where the model lives.
    var backend: any Backend { get }
    /// The trained tensors.
    var store: ParameterStore { get }
    /// What is trained, and how a step chooses.
    var method: any TuningMethod { get set }
    /// The sizes that methods ask for.
    var shape: TransformerShape { get }
    /// The blocks, first to last.
    var blocks: [TransformerBlock] { get }
    /// The trained parameters that aren't the method's: the head's.
    var headParameterCount: Int { get }

    /// The memory for steps of `batch` examples, made at the first call and kept: plans share one arena, so a larger one should be
    /// asked for first. Throws `BackendError.outOfMemory`.
    func plan(batch: Int, isForTraining: Bool) throws -> Plan
    /// The bytes that training with this batch takes on the device: the tensors and the plan of a step, without the backend's own
    /// working memory. Under another policy than the model's where one is given.
    func plannedByteCount(batch: Int, memory: MemoryPolicy?) -> Int
    /// Puts a batch into a plan.
    func load(_ batch: Examples.Batch, into plan: Plan)
    /// The stream that enters the first block: the same whatever the layers compute.
    func embed(_ plan: Plan)
    /// From the stream that enters block `first` to the outputs. `onBlock` is called before each further block with its number, while
    /// its stream can be read.
    func forward(_ plan: Plan, fromBlock first: Int, _ mode: PassMode, onBlock: (Int) -> Void)
    /// `plan.losses` from the outputs and the labels.
    func loss(_ plan: Plan)
    /// `plan.losses` from the outputs and `targets` [B, K], in a plan for training.
    func loss(_ plan: Plan, _ kind: TargetLoss, _ targets: [Float])
    /// Accumulates the gradients of the mean loss, times `lossScale`, after `forward` and `loss` in the same mode. `plan.losses` is
    /// overwritten where that isn't 1.
    func backward(_ plan: Plan, _ mode: PassMode, lossScale: Float)
    /// What the outputs say of a batch: [B] whether each example is right.
    func isRight(_ outputs: [Float], labels: [Int32]) -> [Bool]
    /// The part of the forward pass that gives something else than finite numbers first; nil when none does. Runs it once more.
    func firstOverflow(_ plan: Plan) -> String?
    /// Makes what every pass needs, before it: weights that are trained in float32 are rounded to what products read, and what a
    /// method's places share is made.
    func beginPass()
}

/// The memory of one step for a batch: taken once, reused by every step of that batch size.
public protocol StepPlan {
    /// Whether a backward can follow: then every block keeps what its backward reads; else all blocks share one set.
    var isForTraining: Bool { get }
    /// Examples.
    var batch: Int { get }
    /// What the model says, a row for each example.
    var logits: Tensor { get }
    /// [B] int32 classes.
    var labels: Tensor { get }
    /// [B] the loss of each example.
    var losses: Tensor { get }
    /// What the blocks keep.
    var blocks: [TransformerBlock.Memory] { get }
    /// [B, T, D]: the residual stream as it enters a block, and behind the last one.
    func stream(into block: Int) -> Tensor
}

/// Examples in batches.
public protocol ExampleSource {
    /// A batch on the host.
    associatedtype Batch: ExampleBatch
    /// Examples.
    var count: Int { get }
    /// What the source is called in a sentence.
    var name: String { get }
    /// What an example is called in a sentence.
    func exampleName(at index: Int) -> String
    /// An example's class.
    func label(at index: Int) -> Int
    /// The loss of what is said of an example where that isn't its class; nil for classes.
    var targetLoss: TargetLoss? { get }
    /// [K] what is to be said of an example where that isn't its class.
    func targets(at index: Int) -> [Float]
    /// The classes' names, where they are known.
    var classNames: [String]? { get }
    /// Begins to make batches of these examples, as they are scored.
    func start(_ batches: [[Int]])
    /// Begins to make batches of these examples as they are trained on, which may be changed by draws.
    func start(_ batches: [[Int]], training draws: TrainingDraws)
    /// The next batch; nil behind the last. Throws for an example that can't be read.
    func next() throws -> Batch?
}

/// A batch on the host.
public protocol ExampleBatch {
    /// Which examples.
    var indices: [Int] { get }
    /// Their classes.
    var labels: [Int32] { get }
    /// What each was mixed with; nil where nothing was.
    var mix: LabelMix? { get }
}

extension ExampleSource {
    public var classNames: [String]? { nil }
    public var targetLoss: TargetLoss? { nil }
    public func targets(at index: Int) -> [Float] { [] }

    /// Unchanged.
    public func start(_ batches: [[Int]], training draws: TrainingDraws) { start(batches) }
}

extension ExampleBatch {
    public var mix: LabelMix? { nil }
}

extension ExampleBatch {
    /// Examples in it.
    public var count: Int { indices.count }
}

extension TrainableModel {
    /// Every Linear of the blocks, in module order.
    public var layers: [any LinearLayer] { blocks.flatMap(\.layers) }

    /// GLoRA's path of each layer; none for other layers.
    public var paths: [GLoRAPath] {
        get { layers.paths }
        set { layers.take(newValue) }
    }

    /// The trained parameters without the head: those that reach the output as the layers are set now.
    public var parameterCount: Int {
        method.parameterCount(shape, layers)
            + store.segments.filter { !$0.name.hasPrefix("head.") && method.trains($0.name) }
            .reduce(0) { $0 + $1.count }
    }

    /// The tensors that get a gradient in a step as the layers are set now.
    public var trainedNames: Set<String> {
        method.trainedNames(
            store.segments.map(\.name).filter { !$0.hasPrefix("head.running_") }, layers)
    }

    /// The bytes that training with this batch takes on the device, under the model's own policy.
    public func plannedByteCount(batch: Int) -> Int { plannedByteCount(batch: batch, memory: nil) }

    /// `plan.logits` from what was loaded.
    public func forward(_ plan: Plan, _ mode: PassMode = .evaluation) {
        beginPass()
        embed(plan)
        forward(plan, fromBlock: 0, mode) { _ in }
    }

    /// Builds the weights that the layers are set to once, for evaluations of many batches; `forward` uses them until `unprepare`.
    /// What was prepared for a layer that is set as before stays. Costs the memory of the Linears once more where a device doesn't
    /// read them as they are. Throws `BackendError.outOfMemory`.
    public func prepare() throws {
        beginPass()
        for layer in layers { try layer.prepare() }
    }

    /// Gives the memory of `prepare` back; needed before the parameters change.
    public func unprepare() { for layer in layers { layer.unprepare() } }
}
