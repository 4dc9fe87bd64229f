import TensorCore

/// The forms of A, B, C, D and E in one layer: one of the paths through a GLoRA supernet.
///
///     W = W₀ ⊙ (1 + A) + B,   b = b₀ ⊙ (1 + D) + E + W₀ · C
///
/// Written as the original's strings, `{"A": "LoRA_4", "B": "vector", "C": "none", "D": "constant", "E": "none"}`
/// (ViT-Slim/GLoRA/layer.py).
public struct GLoRAPath: Hashable, Sendable {
    /// Scales W₀ elementwise.
    public var a: MatrixForm
    /// Is added to W₀.
    public var b: MatrixForm
    /// Goes through W₀ into the bias.
    public var c: PromptForm
    /// Scales b₀ elementwise.
    public var d: ScaleForm
    /// Is added to the bias.
    public var e: ScaleForm

    /// A path by its five forms; what isn't given is none.
    public init(
        a: MatrixForm = .none, b: MatrixForm = .none, c: PromptForm = .none, d: ScaleForm = .none,
        e: ScaleForm = .none
    ) {
        (self.a, self.b, self.c, self.d, self.e) = (a, b, c, d, e)
    }

    /// The largest rank that a path or an adapter may name: four times what a training takes (`ranks`), as the adapters of query,
    /// key and value become one of the sum of their ranks.
    public static let largestRank = 16384

    /// The frozen layer itself.
    public static let none = GLoRAPath()

    /// Everything: lowRank A, B and C, vector D and E.
    public static func full(rank: Int) -> GLoRAPath {
        GLoRAPath(a: .lowRank(rank), b: .lowRank(rank), c: .lowRank(rank), d: .vector, e: .vector)
    }

    /// LoRA is the path whose only term is a lowRank B.
    public static func lora(rank: Int) -> GLoRAPath { GLoRAPath(b: .lowRank(rank)) }

    /// Whether W differs from W₀.
    public var changesWeight: Bool { a != .none || b != .none }
    /// Whether b differs from b₀.
    public var changesBias: Bool { c != .none || d != .none || e != .none }
    /// The largest rank that the path reads; 1 for vectors and constants, 0 for nothing.
    public var rank: Int { max(a.columnCount, b.columnCount, c.columnCount) }

    /// The parameters on this path in a layer of the given widths, counted as the original counts them
    /// (ViT-Slim/GLoRA/evolution_utils.py): a vector C has `in` of them, a constant is 1.
    public func parameterCount(inputs: Int, outputs: Int) -> Int {
        func count(_ form: MatrixForm) -> Int {
            switch form {
            case .none: 0
            case .constant: 1
            case .vector: outputs
            case .lowRank(let rank): rank * (inputs + outputs)
            }
        }
        func count(_ form: ScaleForm) -> Int {
            switch form {
            case .none: 0
            case .constant: 1
            case .vector: outputs
            }
        }
        let prompt =
            switch c {
            case .none: 0
            case .vector: inputs
            case .lowRank(let rank): rank * (inputs + 1)
            }
        return count(a) + count(b) + prompt + count(d) + count(e)
    }
}

extension GLoRAPath {
    /// The path with `tensor` (A to E) none.
    public func without(_ tensor: String) -> GLoRAPath {
        GLoRAPath(
            a: tensor == "A" ? .none : a, b: tensor == "B" ? .none : b, c: tensor == "C" ? .none : c,
            d: tensor == "D" ? .none : d, e: tensor == "E" ? .none : e)
    }
}

// MARK: Text

/// A form that a file or a setting names and that the tensor doesn't have.
public struct FormError: Error, CustomStringConvertible {
    /// What is wrong and what would be right.
    public let description: String
}

/// A form that is written as one of the original's words.
protocol TextForm {
    init(text: String) throws
    var text: String { get }
}

private func rank(of text: String) -> Int? {
    for prefix in ["LoRA_", "lowRank_"] where text.hasPrefix(prefix) {
        if let rank = Int(text.dropFirst(prefix.count)), (1...GLoRAPath.largestRank).contains(rank) {
            return rank
        }
    }
    return nil
}

extension MatrixForm: TextForm {
    /// Reads `none`, `constant`, `vector`, or `LoRA_4` (`lowRank_4` too). Throws `FormError`.
    public init(text: String) throws {
        switch (text, Adapters.rank(of: text)) {
        case ("none", _): self = .none
        case ("constant", _): self = .constant
        case ("vector", _): self = .vector
        case (_, let rank?): self = .lowRank(rank)
        default:
            throw FormError(
                description: "'\(text)' is no form of A or B; use none, constant, vector or LoRA_<rank>")
        }
    }

    /// The original's word.
    public var text: String {
        switch self {
        case .none: "none"
        case .constant: "constant"
        case .vector: "vector"
        case .lowRank(let rank): "LoRA_\(rank)"
        }
    }
}

extension PromptForm: TextForm {
    /// Reads `none`, `vector`, or `LoRA_4` (`lowRank_4` too). Throws `FormError`.
    public init(text: String) throws {
        switch (text, Adapters.rank(of: text)) {
        case ("none", _): self = .none
        case ("vector", _): self = .vector
        case (_, let rank?): self = .lowRank(rank)
        default: throw FormError(description: "'\(text)' is no form of C; use none, vector or LoRA_<rank>")
        }
    }

    /// The original's word.
    public var text: String {
        switch self {
        case .none: "none"
        case .vector: "vector"
        case .lowRank(let rank): "LoRA_\(rank)"
        }
    }
}

extension ScaleForm: TextForm {
    /// Reads `none`, `constant` or `vector`. Throws `FormError`.
    public init(text: String) throws {
        switch text {
        case "none": self = .none
        case "constant": self = .constant
        case "vector": self = .vector
        default: throw FormError(description: "'\(text)' is no form of D or E; use none, constant or vector")
        }
    }

    /// The original's word.
    public var text: String {
        switch self {
        case .none: "none"
        case .constant: "constant"
        case .vector: "vector"
        }
    }
}

extension GLoRAPath: Codable {
    /// Reads `{"A": "LoRA_4", …}`; a key that is missing is none. Throws `FormError` for a form or a key that isn't one.
    public init(from decoder: any Decoder) throws {
        let texts = try decoder.singleValueContainer().decode([String: String].self)
        if let stranger = texts.keys.sorted().first(where: { !["A", "B", "C", "D", "E"].contains($0) }) {
            throw FormError(description: "a path has no '\(stranger)'; its keys are A, B, C, D and E")
        }
        func form<Form: TextForm>(_ key: String) throws -> Form { try Form(text: texts[key] ?? "none") }
        self.init(
            a: try form("A"), b: try form("B"), c: try form("C"), d: try form("D"), e: try form("E"))
    }

    /// Writes `{"A": "LoRA_4", …}`, always in this order: two equal runs have equal files.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(a.text, forKey: .a)
        try container.encode(b.text, forKey: .b)
        try container.encode(c.text, forKey: .c)
        try container.encode(d.text, forKey: .d)
        try container.encode(e.text, forKey: .e)
    }

    private enum Key: String, CodingKey {
        case a = "A"
        case b = "B"
        case c = "C"
        case d = "D"
        case e = "E"
    }
}
