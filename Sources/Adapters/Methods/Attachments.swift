import TensorCore

/// The parts of a transformer that a method may change:
///
///     z ← patches · Wᵖ                      SSF:        z ⊙ γ + β
///     x ← [class; z] + positions            VPT, NOAH:  prompt tokens in the sequence, at each block's beginning
///     block: n ← LN₁ x                      SSF:        n ⊙ γ + β
///            y ← Linear(n)                  GLoRA:      other weights and biases, by the step's path
///                                           RepAdapter: before it, n + f(n)
///                                           LoRA, FacT: beside it, y + f(n)
///                                           SSF:        behind it, y ⊙ γ + β
///            x ← x + MLP                    AdaptFormer, Adapter, NOAH: a bottleneck beside the MLP or behind it
///     LN x                                  SSF:        n ⊙ γ + β
///
/// A method replaces the layers and fills the places that it needs; the transformer knows these and not the methods.
public struct Attachments {
    /// The sizes of the transformer.
    public let shape: TransformerShape
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
        /// The layers at the block's sites, in their order.
        public private(set) var linears: [any LinearLayer]
        /// Changes the token sequence before anything else.
        public var tokens: TokenEdit?
        /// Behind LN₁ and LN₂.
        public var norms: [ScaleShift?] = [nil, nil]
        /// Beside the MLP: its input is the residual stream, its output is added to it.
        public var besideMLP: (any Update)?
        /// Behind the MLP, before the residual: m + f(m).
        public var behindMLP: (any Update)?
        private let sites: [LinearSite]

        fileprivate init(_ sites: [LinearSite], _ linears: [BaseLinear]) {
            self.sites = sites
            self.linears = linears.map { PlainLinear($0) }
        }

        /// The layer of a role that the block has; stops the program for another.
        public subscript(_ role: LinearRole) -> any LinearLayer {
            get { linears[place(role)] }
            set { linears[place(role)] = newValue }
        }

        private func place(_ role: LinearRole) -> Int {
            guard let place = sites.firstIndex(where: { $0.role == role }) else {
                fatalError("a block has no Linear \(role.rawValue); it has \(sites.map(\.role.rawValue))")
            }
            return place
        }
    }

    /// Nothing but the frozen Linears, those of each block at its sites.
    public init(_ shape: TransformerShape, _ linears: [[BaseLinear]]) {
        self.shape = shape
        blocks = linears.map { Block(shape.sites, $0) }
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

    /// `count` prompts, which take the place of `removed` tokens behind the first `front`, or of the last ones.
    public init(
        prompts: Parameter, offset: Int = 0, count: Int, removed: Int = 0, front: Int?, dropout: Double = 0
    ) {
        (self.prompts, self.offset, self.count, self.removed) = (prompts, offset, count, removed)
        (self.front, self.dropout) = (front, dropout)
    }

    /// The tokens of `count` that are replaced.
    public func replaced(of count: Int) -> Range<Int> {
        front.map { $0..<$0 + removed } ?? count - removed..<count
    }
}
