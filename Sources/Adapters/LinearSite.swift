/// What a Linear does in its block. The words are the last part of timm's names, which the setting `linears` and run folders take.
public enum LinearRole: String, Codable, CaseIterable, Hashable, Sendable {
    /// Queries, keys and values in one, [3·D, D].
    case fusedQKV = "qkv"
    /// Queries alone.
    case query = "q"
    /// Keys alone.
    case key = "k"
    /// Values alone.
    case value = "v"
    /// Behind the attention.
    case output = "proj"
    /// Into the hidden width of the feed-forward layer.
    case up = "fc1"
    /// What the hidden values are multiplied by.
    case gate
    /// Back to the width.
    case down = "fc2"

    /// Whether it reads every token of a block, and not only those that go on behind its attention.
    public var readsEveryToken: Bool { [.fusedQKV, .key, .value].contains(self) }
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
    /// Whether queries, keys and values have biases.
    public var qkvBias: Bool

    /// A transformer of these sizes.
    public init(
        width: Int, hiddenWidth: Int, depth: Int, patchSize: Int, hasClassToken: Bool, qkvBias: Bool = true
    ) {
        (self.width, self.hiddenWidth, self.depth, self.patchSize) = (width, hiddenWidth, depth, patchSize)
        (self.hasClassToken, self.qkvBias) = (hasClassToken, qkvBias)
    }

    /// The Linears of a block, in the order of the forward pass.
    public var sites: [LinearSite] {
        [
            LinearSite(
                role: .fusedQKV, name: "attn.qkv", inputs: width, outputs: 3 * width, hasBias: qkvBias),
            LinearSite(role: .output, name: "attn.proj", inputs: width, outputs: width, hasBias: true),
            LinearSite(role: .up, name: "mlp.fc1", inputs: width, outputs: hiddenWidth, hasBias: true),
            LinearSite(role: .down, name: "mlp.fc2", inputs: hiddenWidth, outputs: width, hasBias: true),
        ]
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
