import TensorCore

/// What sits at a Linear of a block: the frozen weights alone, or with what a method puts there.
///
///     y = f(x), x [n, in], y [n, out]
///
/// A layer has the parameters; a `LinearPass` of it has the memory for n rows and computes.
public protocol LinearLayer: AnyObject {
    /// W₀ and b₀.
    var base: BaseLinear { get }
    /// Whether a step gives gradients to anything here.
    var isTrained: Bool { get }
    /// Whether a backward may keep z = x W₀ᵀ instead of y, so that there is to be memory for it.
    var mayKeepProduct: Bool { get }
    /// Whether a backward needs memory for dx although nobody below asks for it.
    var needsInputGradient: Bool { get }
    /// Whether a backward overwrites dy.
    var overwritesGradient: Bool { get }
    /// The numbers that are trained here beside the pretrained ones and reach y.
    var parameterCount: Int { get }
    /// Memory for n rows; `product` [n, out] where z may be kept. Throws what the workspace throws.
    func pass(rows: Int, product: Tensor?, in workspace: Workspace) throws -> any LinearPass
    /// Builds what evaluations of many batches read, until `unprepare`. Throws `BackendError.outOfMemory`.
    func prepare() throws
    /// Gives the memory of `prepare` back.
    func unprepare()
    /// W [out, in] and b [out] of the plain Linear that computes the same; nil where none does, or where W₀ and b₀ do.
    func folded() -> (weight: HostTensor, bias: HostTensor?)?
}

extension LinearLayer {
    public var mayKeepProduct: Bool { false }
    public var needsInputGradient: Bool { false }
    public var overwritesGradient: Bool { false }
}

/// A layer's forward and backward over n rows.
public protocol LinearPass: AnyObject {
    /// Chooses how this step is computed, before its forward; what follows reads that choice.
    func begin()
    /// Whether the backward reads z = x W₀ᵀ, so that the forward keeps that and y comes from `rebuild`.
    var keepsProduct: Bool { get }
    /// Whether the forward needs y in memory even where only GELU(y) is read.
    var needsOutput: Bool { get }
    /// y = f(x) and `activated` = GELU(y), each where it is wanted. `dropoutSeed` is nil without dropout.
    func forward(_ y: Tensor?, _ x: Tensor, activated: Tensor?, dropoutSeed: UInt64?)
    /// y and GELU(y) [n, out] once more, from the z that was kept.
    func rebuild(_ y: Tensor?, activated: Tensor?)
    /// dx [n, in] is overwritten where it is wanted; parameters' gradients accumulate.
    func backward(_ dx: Tensor?, _ dy: Tensor, _ x: Tensor, dropoutSeed: UInt64?)
}

extension LinearPass {
    public func begin() {}
    public var keepsProduct: Bool { false }
    public var needsOutput: Bool { false }
    /// Where no product is kept there is nothing to rebuild from.
    public func rebuild(_ y: Tensor?, activated: Tensor?) { preconditionFailure("no product was kept") }
}

/// W₀ [out, in] and b₀ [out] of a Linear on a device, with the memory that one layer at a time works in.
public final class BaseLinear {
    /// The name in the model: `blocks.0.attn.qkv`.
    public let name: String
    /// W₀ [out, in]; has a gradient, which is float32, only where the backbone itself is trained.
    public private(set) var weight: Parameter
    /// b₀ [out], or nil.
    public let bias: Parameter?
    let scratch: LinearScratch
    /// Where the Linear lives.
    public let backend: any Backend
    /// W₀ in the layout that a device reads, where that is all that is kept.
    fileprivate var packed: LinearWeight?

    /// A Linear over parameters that exist.
    public init(
        _ name: String, weight: Parameter, bias: Parameter?, _ scratch: LinearScratch, _ backend: any Backend
    ) {
        (self.name, self.weight, self.bias) = (name, weight, bias)
        (self.scratch, self.backend) = (scratch, backend)
    }

    /// The width of the output.
    public var outputs: Int { weight.value.shape[0] }
    /// The width of the input.
    public var inputs: Int { weight.value.shape[1] }
    /// Whether W₀ or b₀ is trained itself.
    public var isTrained: Bool { weight.gradient != nil || bias?.gradient != nil }

    /// Keeps W₀ only in the layout that the device's products read, where that is another one: the layer only infers from then on.
    /// Throws `BackendError.outOfMemory`.
    public func keepOnlyPacked() throws {
        guard packed == nil, let ready = try backend.prepared(LinearWeight(weight.value)).ready else {
            return
        }
        let (shape, type) = (weight.value.shape, weight.value.elementType)
        weight = Parameter(name: weight.name, value: .withoutMemory(shape, type))
        packed = LinearWeight(weight.value, ready: ready)
    }

    /// The gradients of W₀ and b₀ [out], where they have one: dyᵀ x and Σ dy are added.
    public func accumulateGradients(_ dy: Tensor, _ x: Tensor) {
        if let gradient = weight.gradient {
            if dy.elementType == .float32 {
                backend.matmul(gradient, dy, x, transposeA: true, transposeB: false, accumulate: true)
            } else {
                // A product of 16 bits is rounded to them before it is added to what float32 holds.
                let dw = scratch.weight(gradient.shape, dy.elementType)
                backend.matmul(dw, dy, x, transposeA: true, transposeB: false, accumulate: false)
                backend.residualAdd(gradient, gradient, dw, sampleScale: nil)
            }
        }
        if let gradient = bias?.gradient { backend.sumRows(gradient, dy, accumulate: true) }
    }
}

/// Memory that one Linear at a time works in; large enough for the largest.
public struct LinearScratch {
    private let w, b, c: Tensor

    /// Memory for layers of at most these sizes, from an arena. Throws `BackendError.outOfMemory`.
    public init(_ arena: Arena, weightCount: Int, outputs: Int, inputs: Int) throws {
        w = try arena.take([weightCount])
        b = try arena.take([outputs])
        c = try arena.take([inputs])
    }

    /// W or dW, [out, in].
    func weight(_ shape: [Int], _ type: ElementType = .float32) -> Tensor { w.leading(shape, type) }
    /// b or db, [out].
    func bias(_ outputs: Int) -> Tensor { b.leading([outputs]) }
    /// The column C or its gradient, [in].
    func prompt(_ inputs: Int) -> Tensor { c.leading([inputs]) }
}

/// y = x W₀ᵀ + b₀ with nothing beside it. The pretrained weights may be trained themselves.
public final class PlainLinear: LinearLayer {
    public let base: BaseLinear
    private var prepared: LinearWeight?

    /// The layer of W₀ and b₀ alone.
    public init(_ base: BaseLinear) { self.base = base }

    public var isTrained: Bool { base.isTrained }
    /// None beside the pretrained ones.
    public var parameterCount: Int { 0 }
    public func pass(rows: Int, product: Tensor?, in workspace: Workspace) -> any LinearPass {
        Pass(layer: self, isForTraining: workspace.isForTraining)
    }
    public func prepare() throws {
        if base.packed == nil, prepared == nil {
            prepared = try base.backend.prepared(LinearWeight(base.weight.value))
        }
    }
    public func unprepare() { prepared = nil }
    public func folded() -> (weight: HostTensor, bias: HostTensor?)? { nil }

    private final class Pass: LinearPass {
        private let layer: PlainLinear
        private let isForTraining: Bool
        private var base: BaseLinear { layer.base }

        init(layer: PlainLinear, isForTraining: Bool) {
            (self.layer, self.isForTraining) = (layer, isForTraining)
        }

        func forward(_ y: Tensor?, _ x: Tensor, activated: Tensor?, dropoutSeed: UInt64?) {
            var epilogue = Epilogue(bias: base.bias?.value)
            epilogue.activated = activated
            let prepared = isForTraining ? nil : base.packed ?? layer.prepared
            base.backend.linear(y, x, prepared ?? LinearWeight(base.weight.value), epilogue)
        }

        func backward(_ dx: Tensor?, _ dy: Tensor, _ x: Tensor, dropoutSeed: UInt64?) {
            base.accumulateGradients(dy, x)
            if let dx { base.backend.linearBackward(dx, dy, LinearWeight(base.weight.value)) }
        }
    }
}
