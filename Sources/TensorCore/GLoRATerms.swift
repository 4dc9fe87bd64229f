// The forms that the five support tensors of GLoRA take, and one layer's term of each kind as a backend sees it.
// A form that the method doesn't have can't be written: C has no constant, D and E have no lowRank.
//
// Source: arXiv 2306.07967 §3; ViT-Slim/GLoRA/layer.py, whose strings are `LoRA_r`, `vector`, `constant`, `none`.

/// A or B, a matrix of W₀'s shape [out, in].
///
/// All forms read the same storage (they are *entangled*): Xd [out, R] and Xu [R, in].
public enum MatrixForm: Hashable, Sendable {
    /// No term.
    case none
    /// Xd[0, 0] everywhere.
    case constant
    /// Xd[:, 0] as a column: one value per output row.
    case vector
    /// Xd[:, :rank] · Xu[:rank, :].
    case lowRank(Int)

    /// r: how many columns of Xd the form reads, which is how many t and u have in activation space.
    public var columnCount: Int {
        switch self {
        case .none: 0
        case .constant, .vector: 1
        case .lowRank(let rank): rank
        }
    }

    /// Whether Xu counts.
    package var isLowRank: Bool { if case .lowRank(let rank) = self { rank > 0 } else { false } }
}

/// C, a column of length `in` that goes through W₀ into the bias.
public enum PromptForm: Hashable, Sendable {
    /// No term.
    case none
    /// Cd[:, 0].
    case vector
    /// Cd[:, :rank] · Cu[:rank, 0].
    case lowRank(Int)

    /// How many columns of Cd the form reads.
    public var columnCount: Int {
        switch self {
        case .none: 0
        case .vector: 1
        case .lowRank(let rank): rank
        }
    }
}

/// D or E, a vector of length `out`.
public enum ScaleForm: Hashable, Sendable {
    /// No term.
    case none
    /// The first element, everywhere.
    case constant
    /// The whole vector.
    case vector
}

/// A, B or C of one layer in the form in use, over entangled storage of rank R.
public struct FactoredTerm<Form> {
    /// Which part of the storage counts.
    public var form: Form
    /// Xd [out, R]; Cd [in, R].
    public var down: Parameter
    /// Xu [R, in]; Cu [R, 1].
    public var up: Parameter

    /// A term over entangled storage.
    public init(form: Form, down: Parameter, up: Parameter) {
        (self.form, self.down, self.up) = (form, down, up)
    }
}

/// A or B: `down` is Xd [out, R], `up` is Xu [R, in].
public typealias MatrixTerm = FactoredTerm<MatrixForm>
/// C: `down` is Cd [in, R], `up` is Cu [R, 1].
public typealias PromptTerm = FactoredTerm<PromptForm>

/// D or E of one layer in the form in use: `values` is [out].
public struct ScaleTerm {
    /// Which part of the storage counts.
    public var form: ScaleForm
    /// [out].
    public var values: Parameter

    /// A term over entangled storage.
    public init(form: ScaleForm, values: Parameter) {
        (self.form, self.values) = (form, values)
    }
}
