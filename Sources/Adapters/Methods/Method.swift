/// A method of fine-tuning, by its name on the command line.
public enum MethodName: String, Codable, CaseIterable, Hashable, Sendable {
    /// GLoRA: `--path` says whether a supernet or one path. `GLoRALinear.swift`.
    case glora
    /// Low-rank updates of Linears. `LoRA.swift`.
    case lora
    /// A scale and a shift behind every operation. `SSF.swift`.
    case ssf
    /// Prompt tokens at the first block, or at each. `VPT.swift`.
    case vptShallow = "vpt-shallow"
    /// See `vptShallow`.
    case vptDeep = "vpt-deep"
    /// A ReLU bottleneck beside or behind the MLP. `AdaptFormer.swift`.
    case adaptformer
    /// Updates from factors that all Linears share: tensor train, or Tucker. `FacT.swift`.
    case factTT = "fact-tt"
    /// See `factTT`.
    case factTK = "fact-tk"
    /// A linear bottleneck before Linears. `RepAdapter.swift`.
    case repadapter
    /// A GELU bottleneck behind the MLP. `Adapter.swift`.
    case adapter
    /// Prompts, LoRA and adapters of another size in each block. `NOAH.swift`.
    case noah
    /// The biases of the Linears and LayerNorms. `Backbone.swift`.
    case bitfit
    /// The head alone.
    case linear
    /// Every tensor.
    case full
}

/// What a method can be told; nil for what its authors do. What a method has no use for is refused by it.
public struct MethodSettings: Codable, Equatable, Hashable, Sendable {
    /// LoRA's and FacT's rank.
    public var rank: Int?
    /// LoRA's alpha: the update is scaled by alpha / rank.
    public var alpha: Double?
    /// The constant s of AdaptFormer, FacT and RepAdapter.
    public var scale: Double?
    /// The hidden width of AdaptFormer, RepAdapter and Adapter.
    public var width: Int?
    /// RepAdapter's groups.
    public var groups: Int?
    /// VPT's prompt tokens.
    public var prompts: Int?
    /// Of a bottleneck's hidden values, or VPT's prompts, while training.
    public var dropout: Double?
    /// Where: LoRA's `qv` or `all`, RepAdapter's `block` or `attention`, SSF's `all` or `linears`.
    public var targets: String?
    /// AdaptFormer's `parallel` or `sequential`.
    public var placement: String?
    /// AdaptFormer's LayerNorm: `none`, `in` or `out`.
    public var adapterNorm: String?
    /// Whether AdaptFormer's scale is trained.
    public var learnableScale: Bool?
    /// NOAH's sizes: for each block prompts, LoRA rank and adapter width, as `5:8:8,0:8:8,…`; one triple for all blocks alike.
    public var dims: String?

    /// The most that a rank, a width or a number of prompts may be: as wide as the widest published ViT's tokens (ViT-G/14's 1,664,
    /// ViT-e's 1,792), twice over, so that no product of two of them is more than a model's own matrix.
    static let largestSize = 4096

    /// The authors' settings.
    public init() {}

    /// Throws `MethodError` for a rank that the Linears of a model of this width have no use for: a product through more columns
    /// than its smaller side is every matrix already. 64 are let pass in any model, for small ones under the authors' own ranks.
    public static func checkRank(_ rank: Int, flag: String, modelWidth width: Int) throws {
        let most = max(width, 64)
        guard rank <= most else {
            throw MethodError(
                "\(flag) \(rank) is more than the model's width of \(width) has a use for; give at most \(most)"
            )
        }
    }

    /// Throws `MethodError` for a setting that method `name` has no use for, or a number that can't be meant.
    func allow(
        _ name: String, rank: Bool = false, alpha: Bool = false, scale: Bool = false, width: Bool = false,
        groups: Bool = false, prompts: Bool = false, dropout: Bool = false, targets: [String] = [],
        placement: Bool = false,
        adapterNorm: Bool = false, learnableScale: Bool = false, dims: Bool = false
    ) throws {
        for (flag, isGiven, isAllowed) in [
            ("--rank", self.rank != nil, rank), ("--alpha", self.alpha != nil, alpha),
            ("--scale", self.scale != nil, scale), ("--width", self.width != nil, width),
            ("--groups", self.groups != nil, groups), ("--prompts", self.prompts != nil, prompts),
            ("--dropout", self.dropout != nil, dropout),
            ("--targets", self.targets != nil, !targets.isEmpty),
            ("--placement", self.placement != nil, placement),
            ("--adapter-norm", self.adapterNorm != nil, adapterNorm),
            ("--learnable-scale", self.learnableScale != nil, learnableScale),
            ("--dims", self.dims != nil, dims),
        ] where isGiven && !isAllowed { throw MethodError("\(flag) says nothing to \(name); leave it out") }
        for (flag, value) in [
            ("--rank", self.rank), ("--width", self.width), ("--groups", self.groups),
            ("--prompts", self.prompts),
        ] {
            guard let value, !(1...MethodSettings.largestSize).contains(value) else { continue }
            throw MethodError("\(flag) must be from 1 to \(MethodSettings.largestSize), not \(value)")
        }
        for (flag, value) in [("--alpha", self.alpha), ("--scale", self.scale)] {
            guard let value, !value.isFinite else { continue }
            throw MethodError("\(flag) must be a number, not \(value)")
        }
        if let value = self.dropout, !(0..<1).contains(value) {
            throw MethodError("--dropout must be at least 0 and below 1, not \(value)")
        }
        if !targets.isEmpty { _ = try choice("--targets", self.targets, targets) }
    }

    /// The place of `value` among `choices`; 0 for nil. Throws `MethodError`.
    func choice(_ flag: String, _ value: String?, _ choices: [String]) throws -> Int {
        guard let value else { return 0 }
        guard let index = choices.firstIndex(of: value) else {
            throw MethodError("\(flag) is \(choices.joined(separator: " or ")), not \(value)")
        }
        return index
    }
}

extension MethodName {
    /// The method with these settings for a transformer of these sizes. GLoRA is the supernet of
    /// `space`; its choice of paths may be set afterwards. Throws `MethodError`.
    public func method(
        _ settings: MethodSettings, for shape: TransformerShape, space: @autoclosure () throws -> SearchSpace = try SearchSpace()
    ) throws -> any TuningMethod {
        if let rank = settings.rank, self != .glora {
            try MethodSettings.checkRank(rank, flag: "--rank", modelWidth: shape.width)
        }
        switch self {
        case .glora:
            try settings.allow("glora")
            let space = try space()
            try MethodSettings.checkRank(space.largestRank, flag: "--ranks", modelWidth: shape.width)
            return GLoRA(rank: space.largestRank, roles: space.sites, .supernet(space, .original))
        case .lora: return try LoRA(settings)
        case .ssf: return try SSF(settings)
        case .vptShallow: return try VPT(isDeep: false, settings)
        case .vptDeep: return try VPT(isDeep: true, settings)
        case .adaptformer: return try AdaptFormer(settings)
        case .factTT: return try FacT(isTucker: false, settings, shape)
        case .factTK: return try FacT(isTucker: true, settings, shape)
        case .repadapter: return try RepAdapter(settings, shape)
        case .adapter: return try Adapter(settings)
        case .noah: return try NOAH(settings, depth: shape.depth)
        case .bitfit:
            try settings.allow("bitfit")
            return Backbone.biases
        case .linear:
            try settings.allow("linear")
            return Backbone.frozen
        case .full:
            try settings.allow("full")
            return Backbone.everything
        }
    }
}

/// A setting that a method can't mean; one sentence.
public struct MethodError: Error, CustomStringConvertible, Equatable {
    /// What is wrong and what may be.
    public let description: String

    init(_ description: String) { self.description = description }
}

/// What stands between the pooled features and the logits.
public enum HeadKind: String, Codable, CaseIterable, Hashable, Sendable {
    /// A Linear with PyTorch's first values, U(±1/√D).
    case linear
    /// A batch norm without weights (eps 1e-6), then a Linear N(0, 0.01²). Source: AdaptFormer, main_image.py.
    case batchNorm = "batchnorm"
    /// A Linear, Kaiming normal over its outputs, with every bias −log 99. Source: vpt, mlp.py, `special_bias`.
    case vpt
}
