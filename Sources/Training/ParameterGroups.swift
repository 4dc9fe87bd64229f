import Adapters
import TensorCore

/// What each trained tensor gets of a step's learning rate and weight decay: what PyTorch's parameter groups say, tensor by tensor.
public struct ParameterGroups: Equatable, Sendable {
    /// [segments] what the rate is multiplied by.
    public var rates: [Float]
    /// [segments] what the decay is multiplied by: 1, or 0 for none.
    public var decays: [Float]

    /// The same rate and decay for all.
    public init(_ store: ParameterStore) {
        rates = Array(repeating: 1, count: store.segments.count)
        decays = rates
    }

    /// The shares that settings give to the tensors of a model with so many blocks. Throws `TrainingError.settings` for a factor that
    /// is of no trained tensor.
    public init(_ options: TrainingOptions, _ store: ParameterStore, depth: Int) throws {
        self.init(store)
        let factors = options.additions.learningRateFactors ?? []
        for (number, factor) in factors.enumerated() {
            guard !factors[..<number].contains(where: { $0.group == factor.group }) else {
                throw TrainingError.settings(
                    "`lr-factors` has a factor for '\(factor.group.rawValue)' twice; give one of them")
            }
            let indices = store.segments.indices.filter { factor.group.holds(store.segments[$0].name) }
            guard !indices.isEmpty else {
                throw TrainingError.settings(
                    "`lr-factors` has a factor for '\(factor.group.rawValue)', but nothing that is trained is called so; there are "
                        + ParameterGroups.examples(store))
            }
            for index in indices { rates[index] *= Float(factor.factor) }
        }
        if let decay = options.additions.layerDecay {
            for (index, segment) in store.segments.enumerated() {
                rates[index] *= Float(
                    (0..<depth + 1 - ParameterGroups.level(of: segment.name, depth: depth))
                        .reduce(1.0) { product, _ in product * decay })
            }
        }
        if options.additions.decay == .matrices {
            for (index, segment) in store.segments.enumerated() where !ParameterGroups.isMatrix(segment) {
                decays[index] = 0
            }
        }
    }

    /// The level of a tensor in layer-wise decay, as timm's `group_parameters` counts them: 0 in front of the blocks, i + 1 in
    /// block i, the last block's for the norm behind it, depth + 1 for the head and what is beside it.
    static func level(of name: String, depth: Int) -> Int {
        let parts = name.split(separator: ".")
        if let place = parts.firstIndex(of: "blocks"), place + 1 < parts.count,
            let block = Int(parts[place + 1])
        {
            return block + 1
        }
        let isInFront = ["patch_embed", "pos_embed", "cls_token", "reg_token", "norm_pre"]
            .contains { name.hasPrefix($0) }
        return isInFront ? 0 : name.hasPrefix("norm.") ? depth : depth + 1
    }

    /// Whether a tensor has two directions that are more than one number wide. Biases, norms, scales and GLoRA's vectors have not.
    static func isMatrix(_ segment: ParameterStore.Segment) -> Bool {
        segment.shape.count { $0 > 1 } > 1
            && !["pos_embed", "cls_token", "reg_token"].contains(segment.name)
    }

    /// A few names, for a sentence.
    private static func examples(_ store: ParameterStore) -> String {
        let names = store.segments.map(\.name)
        return names.prefix(2).joined(separator: ", ") + (names.count > 2 ? " … \(names.last!)" : "")
    }
}

/// A factor of the learning rate of some tensors, as `head=10` or `C=0.1`.
public struct LearningRateFactor: SettingText {
    /// Which.
    public let group: Group
    /// What their rate is multiplied by; not negative.
    public let factor: Double

    /// Which tensors a factor is for.
    public enum Group: Hashable, Sendable, RawRepresentable {
        /// The classifier's.
        case head
        /// GLoRA's A, B, C, D or E in every layer.
        case support(Character)
        /// Those whose names contain a text, such as `attn.qkv` or `norm1`.
        case named(String)

        public init?(rawValue: String) {
            switch rawValue {
            case "": return nil
            case "head": self = .head
            case "A", "B", "C", "D", "E": self = .support(rawValue.first!)
            default: self = .named(rawValue)
            }
        }

        public var rawValue: String {
            switch self {
            case .head: "head"
            case .support(let letter): String(letter)
            case .named(let text): text
            }
        }

        /// Whether it is this tensor's.
        func holds(_ name: String) -> Bool {
            switch self {
            case .head: name.hasPrefix("head.")
            case .support(let letter):
                name.split(separator: ".").last.map { last in
                    [String(letter), "\(letter)d", "\(letter)u"].contains(String(last))
                } ?? false
            case .named(let text): name.contains(text)
            }
        }
    }

    /// Reads `group=factor`; nil where that can't be meant.
    public init?(_ description: String) {
        let parts = description.split(separator: "=", omittingEmptySubsequences: false)
        guard parts.count == 2, let group = Group(rawValue: String(parts[0])), let factor = Double(parts[1]),
            factor.isFinite, factor >= 0
        else { return nil }
        (self.group, self.factor) = (group, factor)
    }

    public var description: String { "\(group.rawValue)=\(factor.short)" }
}
