import Adapters
import TensorCore

/// A path for every layer, as a search handles it: 5 genes a layer, for A, B, C, D and E, each the index of a choice of its
/// `CandidateSpace`.
public struct Candidate: Hashable, Sendable {
    /// [layers · 5], layer by layer in module order, A to E within.
    public var genes: [UInt8]

    /// A candidate of these genes.
    public init(genes: [UInt8]) { self.genes = genes }
}

extension Candidate: Codable {
    private static let digits = Array("0123456789abcdefghijklmnopqrstuvwxyz")

    /// One digit a gene, in base 36.
    public var text: String { String(genes.map { Candidate.digits[Int($0)] }) }

    /// Reads `text`; nil when a character is no digit.
    public init?(text: String) {
        genes = []
        for character in text {
            guard let digit = Candidate.digits.firstIndex(of: character) else { return nil }
            genes.append(UInt8(digit))
        }
    }

    /// Reads `text`.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let candidate = Candidate(text: try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "no candidate")
        }
        self = candidate
    }

    /// Writes `text`.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(text)
    }
}

/// The candidates of a model: which choices each layer has for A to E, and what each costs.
public struct CandidateSpace: Sendable {
    /// A layer and its choices.
    public struct Layer: Sendable {
        /// `blocks.0.attn.qkv`, …
        public let name: String
        /// The Linear's widths.
        public let inputs, outputs: Int
        let a, b: [MatrixForm]
        let c: [PromptForm]
        let d, e: [ScaleForm]

        /// A layer that takes what `space` offers; without support tensors nothing, without a bias no C, D and E.
        public init(
            name: String, inputs: Int, outputs: Int, hasSupport: Bool, hasBias: Bool, space: SearchSpace
        ) {
            (self.name, self.inputs, self.outputs) = (name, inputs, outputs)
            a = hasSupport ? space.formsOfA : [.none]
            b = hasSupport ? space.formsOfB : [.none]
            c = hasSupport && hasBias ? space.formsOfC : [.none]
            d = hasSupport && hasBias ? space.formsOfD : [.none]
            e = hasSupport && hasBias ? space.formsOfE : [.none]
        }

        /// A layer of these choices, in their order.
        package init(
            name: String, inputs: Int, outputs: Int, a: [MatrixForm], b: [MatrixForm], c: [PromptForm],
            d: [ScaleForm], e: [ScaleForm]
        ) {
            (self.name, self.inputs, self.outputs) = (name, inputs, outputs)
            (self.a, self.b, self.c, self.d, self.e) = (a, b, c, d, e)
        }

        /// Parameters of each choice of each tensor, [5][choices].
        fileprivate var costs: [[Int]] {
            func cost(_ path: GLoRAPath) -> Int { path.parameterCount(inputs: inputs, outputs: outputs) }
            return [
                a.map { cost(GLoRAPath(a: $0)) }, b.map { cost(GLoRAPath(b: $0)) },
                c.map { cost(GLoRAPath(c: $0)) }, d.map { cost(GLoRAPath(d: $0)) },
                e.map { cost(GLoRAPath(e: $0)) },
            ]
        }
    }

    /// The layers, in module order.
    public let layers: [Layer]
    /// Parameters of each choice of each gene, [layers · 5][choices].
    public let costs: [[Int]]

    /// A space of these layers.
    public init(_ layers: [Layer]) {
        self.layers = layers
        costs = layers.flatMap(\.costs)
    }

    /// The parameters on a candidate's paths, as the original counts them, without the head.
    public func parameterCount(_ candidate: Candidate) -> Int {
        zip(costs, candidate.genes).reduce(0) { $0 + $1.0[Int($1.1)] }
    }

    /// The parameters of what was judged; nil when it is no candidate of this space or has others.
    public func parameterCount(of judged: Judged) -> Int? {
        let genes = judged.candidate.genes
        guard genes.count == costs.count, zip(costs, genes).allSatisfy({ $0.indices.contains(Int($1)) }),
            parameterCount(judged.candidate) == judged.parameters
        else { return nil }
        return judged.parameters
    }

    /// The counts of the smallest and the largest candidate.
    public var parameterCounts: ClosedRange<Int> {
        costs.reduce(0) { $0 + $1.min()! }...costs.reduce(0) { $0 + $1.max()! }
    }

    /// A path for each layer.
    public func paths(_ candidate: Candidate) -> [GLoRAPath] {
        layers.indices.map { index in
            let layer = layers[index]
            let genes = candidate.genes[5 * index..<5 * index + 5].map { Int($0) }
            return GLoRAPath(
                a: layer.a[genes[0]], b: layer.b[genes[1]], c: layer.c[genes[2]], d: layer.d[genes[3]],
                e: layer.e[genes[4]])
        }
    }

    /// The candidate of these paths; nil when a layer hasn't the choice.
    public func candidate(_ paths: [GLoRAPath]) -> Candidate? {
        guard paths.count == layers.count else { return nil }
        var genes: [UInt8] = []
        for (layer, path) in zip(layers, paths) {
            guard let a = layer.a.firstIndex(of: path.a), let b = layer.b.firstIndex(of: path.b),
                let c = layer.c.firstIndex(of: path.c), let d = layer.d.firstIndex(of: path.d),
                let e = layer.e.firstIndex(of: path.e)
            else { return nil }
            genes += [a, b, c, d, e].map { UInt8($0) }
        }
        return Candidate(genes: genes)
    }

    /// A candidate whose every gene is drawn alike.
    func random(using random: inout some RandomSource) -> Candidate {
        Candidate(genes: costs.map { UInt8(random.index(below: $0.count)) })
    }
}

/// What a search draws from: our own streams, or a recorded search's draws.
public protocol RandomSource {
    /// Uniform in 0..<bound.
    mutating func index(below bound: Int) -> Int
    /// Uniform in [0, 1).
    mutating func uniform() -> Double
}

extension Random: RandomSource {}
