import TensorCore

/// What a Linear does in its block. The words are the last part of timm's names, which the setting `linears` and run folders take.
public enum LinearRole: String, Codable, CaseIterable, Hashable, Sendable {
    /// Queries, keys and values in one, [3·D, D].
    case fusedQKV = "qkv"
    /// Queries alone.
    case query = "q_proj"
    /// Keys alone.
    case key = "k_proj"
    /// Values alone.
    case value = "v_proj"
    /// Behind the attention.
    case output = "proj"
    /// Into the hidden width of the feed-forward layer.
    case up = "fc1"
    /// What the hidden values are multiplied by.
    case gate = "fc1_g"
    /// Back to the width.
    case down = "fc2"

    /// Whether it reads every token of a block, and not only those that go on behind its attention.
    public var readsEveryToken: Bool { [.fusedQKV, .query, .key, .value].contains(self) }
}

/// A Linear of a block: the one list of these that everything follows is `TransformerShape.sites`.
public struct LinearSite: Hashable, Sendable {
    /// What it does.
    public let role: LinearRole
    /// The name in the block: `attn.qkv`.
    public let name: String
    /// The widths.
    public let inputs, outputs: Int
    /// Whether it has a bias.
    public let hasBias: Bool
}

/// How a block makes queries, keys and values.
public enum QueryProjection: String, Codable, Hashable, Sendable {
    /// One Linear, `attn.qkv` [3·D, D].
    case fused
    /// Three: `attn.q_proj`, `attn.k_proj`, `attn.v_proj`.
    case separate
}

/// Which of queries, keys and values have a bias.
public enum QueryBias: Hashable, Sendable {
    case all, none
    /// Queries and values alone: the keys' would add the same to all scores of a query where no rotation comes in between.
    case withoutKeys
}

/// What a block does behind its second norm, with F the hidden width.
public enum FeedForward: Hashable, Sendable {
    /// down(f(up x)), up [F, D].
    case plain(Activation)
    /// down(f(gate x) ⊙ up x), or of the norm of that product; `isPacked`: gate and up are one Linear [2·F, D], the gate's rows first.
    case gated(Activation, isPacked: Bool, hasNorm: Bool)

    /// Whether there is a gate.
    public var isGated: Bool { if case .gated = self { true } else { false } }

    /// f.
    public var activation: Activation {
        switch self {
        case .plain(let activation), .gated(let activation, _, _): activation
        }
    }
}

/// The sizes of a transformer that methods ask for.
public struct TransformerShape: Equatable, Sendable {
    /// D.
    public var width: Int
    /// F, the hidden width of the feed-forward layer: what its last Linear reads.
    public var hiddenWidth: Int
    /// The number of blocks.
    public var depth: Int
    /// Pixels on each side of a patch.
    public var patchSize: Int
    /// Whether token 0 is the class token.
    public var hasClassToken: Bool
    /// Whether queries, keys and values are one Linear.
    public var queries: QueryProjection
    /// Which of them have biases.
    public var queryBias: QueryBias
    /// The feed-forward layer.
    public var feedForward: FeedForward

    /// A transformer of these sizes.
    public init(
        width: Int, hiddenWidth: Int, depth: Int, patchSize: Int, hasClassToken: Bool,
        queries: QueryProjection = .fused, queryBias: QueryBias = .all,
        feedForward: FeedForward = .plain(.gelu)
    ) {
        (self.width, self.hiddenWidth, self.depth, self.patchSize) = (width, hiddenWidth, depth, patchSize)
        (self.hasClassToken, self.queries, self.queryBias) = (hasClassToken, queries, queryBias)
        self.feedForward = feedForward
    }

    /// The Linears of a block, in the order of the forward pass.
    public var sites: [LinearSite] {
        func site(
            _ role: LinearRole, _ name: String, _ inputs: Int, _ outputs: Int, hasBias: Bool = true
        ) -> LinearSite {
            LinearSite(role: role, name: name, inputs: inputs, outputs: outputs, hasBias: hasBias)
        }
        let (d, f) = (width, hiddenWidth)
        let attention =
            switch queries {
            // Where the keys alone have no bias, theirs is zeros.
            case .fused: [site(.fusedQKV, "attn.qkv", d, 3 * d, hasBias: queryBias != .none)]
            case .separate:
                [
                    site(.query, "attn.q_proj", d, d, hasBias: queryBias != .none),
                    site(.key, "attn.k_proj", d, d, hasBias: queryBias == .all),
                    site(.value, "attn.v_proj", d, d, hasBias: queryBias != .none),
                ]
            }
        let up =
            switch feedForward {
            case .plain: [site(.up, "mlp.fc1", d, f)]
            case .gated(_, isPacked: true, _): [site(.up, "mlp.fc1", d, 2 * f)]
            case .gated(_, isPacked: false, _):
                [site(.gate, "mlp.fc1_g", d, f), site(.up, "mlp.fc1_x", d, f)]
            }
        return attention + [site(.output, "attn.proj", d, d)] + up + [site(.down, "mlp.fc2", f, d)]
    }

    /// The roles of these Linears that the blocks have: `qkv` is queries, keys and values also where they are apart, and `fc1` the gate,
    /// too.
    package func roles(meant chosen: [LinearRole]) -> [LinearRole] {
        let own = sites.map(\.role)
        return chosen.flatMap { role -> [LinearRole] in
            switch role {
            case .fusedQKV where queries == .separate: [.query, .key, .value]
            case .up where own.contains(.gate) && !chosen.contains(.gate): [.gate, .up]
            default: [role]
            }
        }
    }

    /// Every Linear of the blocks with its name in the model, in module order: `blocks.0.attn.qkv`, …
    public var linears: [(name: String, site: LinearSite)] {
        (0..<depth).flatMap { block in sites.map { ("blocks.\(block).\($0.name)", $0) } }
    }

    /// The place of a block's Linear among all Linears of the blocks.
    func ordinal(_ block: Int, _ role: LinearRole) -> Int {
        sites.count * block + sites.firstIndex { $0.role == role }!
    }
}
