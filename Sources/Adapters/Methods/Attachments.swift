import TensorCore

/// What a method puts at the places of a transformer:
///
///     z ← patches · Wᵖ                      SSF:        z ⊙ γ + β
///     x ← [class; z] + positions            VPT, NOAH:  prompt tokens in the sequence, at each block's beginning
///     block: n ← LN₁ x                      SSF:        n ⊙ γ + β
///            y ← Linear(n)                  RepAdapter: before it, n + f(n)
///                                           LoRA, FacT: beside it, y + f(n)
///                                           SSF:        behind it, y ⊙ γ + β
///            x ← x + MLP                    AdaptFormer, Adapter, NOAH: a bottleneck beside the MLP or behind it
///     LN x                                  SSF:        n ⊙ γ + β
///
/// A method fills the places that it needs; the transformer knows the places and not the methods.
public struct Attachments {
    /// Behind the patch embedding.
    public var patches: ScaleShift?
    /// One for each block.
    public var blocks: [Block]
    /// Behind the final LayerNorm.
    public var norm: ScaleShift?
    /// Makes what several places share, before a forward; nil when there is nothing.
    public var begin: (() -> Void)?
    /// Brings the gradients of what is shared to the parameters, after a backward.
    public var end: (() -> Void)?

    /// What one block has.
    public struct Block {
        /// Changes the token sequence before anything else.
        public var tokens: TokenEdit?
        /// Behind LN₁ and LN₂.
        public var norms: [ScaleShift?] = [nil, nil]
        /// Of qkv, proj, fc1 and fc2.
        public var linears = [LinearPlaces](repeating: LinearPlaces(), count: 4)
        /// Beside the MLP: its input is the residual stream, its output is added to it.
        public var besideMLP: (any Update)?
        /// Behind the MLP, before the residual: m + f(m).
        public var behindMLP: (any Update)?

        /// Nothing.
        public init() {}
    }

    /// The places of one Linear.
    public struct LinearPlaces {
        /// z ← z + f(z) before it.
        public var before: (any Update)?
        /// y ← y + f(z) beside it.
        public var beside: (any Update)?
        /// y ← y ⊙ γ + β behind it.
        public var behind: ScaleShift?

        /// Whether there is anything.
        public var isEmpty: Bool { before == nil && beside == nil && behind == nil }

        /// Nothing.
        public init() {}
    }

    /// Nothing anywhere, in `depth` blocks.
    public init(depth: Int) { blocks = Array(repeating: Block(), count: depth) }

    /// The tokens that each block works on when `count` come out of the embedding.
    public func tokenCounts(_ count: Int) -> [Int] {
        var count = count
        return blocks.map { block in
            if let edit = block.tokens { count += edit.count - edit.replaced(of: count).count }
            return count
        }
    }
}

/// y = x ⊙ γ + β.
public struct ScaleShift {
    /// γ [d].
    public let scale: Parameter
    /// β [d].
    public let shift: Parameter

    /// γ and β out of a store; traps when they aren't there.
    public init(_ store: ParameterStore, scale: String, shift: String) {
        self.scale = store[scale]!
        self.shift = store[shift]!
    }
}

/// Prompt tokens in the place of some tokens of the sequence, or between them.
public struct TokenEdit {
    /// The prompts, [count · D] of it from `offset` on.
    public let prompts: Parameter
    /// The first element of this edit's prompts.
    public let offset: Int
    /// How many tokens come in.
    public let count: Int
    /// How many go.
    public let removed: Int
    /// Where they come in: this many tokens from the front, or behind all that stay.
    public let front: Int?
    /// Dropout of the prompts while training.
    public let dropout: Double

    /// The tokens of `count` that are replaced.
    public func replaced(of count: Int) -> Range<Int> {
        front.map { $0..<$0 + removed } ?? count - removed..<count
    }
}

/// A term f(x) that is added somewhere, with parameters of its own.
///
/// `kept` is memory for one place of a plan, of `keptShapes`: what a forward leaves there its backward reads. `noise` seeds the
/// dropout; nil in evaluation. Every tensor is float32, also in a model whose activations aren't.
public protocol Update: AnyObject {
    /// The shapes of what a forward over `rows` rows keeps.
    func keptShapes(rows: Int) -> [[Int]]
    /// y ← y + f(x). y may be x only if no backward follows.
    func add(to y: Tensor, _ x: Tensor, _ kept: [Tensor], noise: UInt64?)
    /// dx ← dx + f'(x)ᵀ · dy, and the parameters' gradients accumulate. dx may be dy.
    func backward(_ dx: Tensor?, _ dy: Tensor, _ x: Tensor, _ kept: [Tensor], noise: UInt64?)
    /// f(x) = x · (down [h, in])ᵀ · (up [out, h])ᵀ + bias [out], or nil where f isn't linear. Without dropout.
    func factors() -> LinearFactors?
}

/// An update that is linear, on the host.
public struct LinearFactors {
    /// [h, in].
    public var down: HostTensor
    /// [out, h], with the scale in it.
    public var up: HostTensor
    /// [out].
    public var bias: HostTensor?

    /// up · down, [out, in], summed in double.
    public var product: HostTensor { up.product(down) }
}

extension HostTensor {
    /// This [m, k] times another [k, n], summed in double.
    public func product(_ other: HostTensor) -> HostTensor {
        let (m, k, n) = (shape[0], shape[1], other.shape[1])
        precondition(other.shape[0] == k)
        var result = [Float](repeating: 0, count: m * n)
        var row = [Double](repeating: 0, count: n)
        for i in 0..<m {
            for j in 0..<n { row[j] = 0 }
            for l in 0..<k {
                let a = Double(values[i * k + l])
                for j in 0..<n { row[j] += a * Double(other.values[l * n + j]) }
            }
            for j in 0..<n { result[i * n + j] = Float(row[j]) }
        }
        return HostTensor(shape: [m, n], values: result)
    }
}

/// The sizes of a transformer that methods ask for.
public struct TransformerShape: Equatable, Sendable {
    /// D.
    public var width: Int
    /// F, the MLP's hidden width.
    public var hiddenWidth: Int
    /// The number of blocks.
    public var depth: Int
    /// Pixels on each side of a patch.
    public var patchSize: Int
    /// Whether token 0 is the class token.
    public var hasClassToken: Bool

    /// A transformer of these sizes.
    public init(width: Int, hiddenWidth: Int, depth: Int, patchSize: Int, hasClassToken: Bool) {
        self.width = width
        self.hiddenWidth = hiddenWidth
        self.depth = depth
        self.patchSize = patchSize
        self.hasClassToken = hasClassToken
    }

    /// Of qkv, proj, fc1 and fc2: the name in a block, the inputs and the outputs.
    public var linears: [(name: String, inputs: Int, outputs: Int)] {
        [
            ("attn.qkv", width, 3 * width), ("attn.proj", width, width), ("mlp.fc1", width, hiddenWidth),
            ("mlp.fc2", hiddenWidth, width),
        ]
    }
}

/// A method that isn't GLoRA: what it trains, and where it attaches.
public protocol TuningMethod {
    /// The tensors that it adds, with the authors' names, shapes and first values.
    func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration]
    /// Its places, over tensors of a store. `arena` gives memory for what is computed from them. Throws
    /// `BackendError.outOfMemory`.
    func attachments(
        _ shape: TransformerShape, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws -> Attachments
    /// Whether it trains a tensor of the pretrained model.
    func trains(_ name: String) -> Bool
    /// The added tensors that reach the output; those that don't get no gradient.
    func isUsed(_ name: String) -> Bool
    /// The added parameters that reach the output: what a comparison counts.
    func parameterCount(_ shape: TransformerShape) -> Int
    /// Why the result can't be folded into the pretrained weights; nil when it can.
    var unmergeable: String? { get }
}

extension TuningMethod {
    /// Nothing by default.
    public func trains(_ name: String) -> Bool { false }
    /// All by default.
    public func isUsed(_ name: String) -> Bool { true }
    /// By default all that are declared and used.
    public func parameterCount(_ shape: TransformerShape) -> Int {
        declarations(shape, seed: 0).filter { isUsed($0.name) }
            .reduce(0) { $0 + $1.shape.reduce(1, *) }
    }
    /// Mergeable by default.
    public var unmergeable: String? { nil }
}
