/// A method of fine-tuning, by its name on the command line.
public enum MethodName: String, SettingChoice {
    /// GLoRA: `path` says whether a supernet or one path. `GLoRALinear.swift`.
    case glora
    /// Low-rank updates of Linears. `LoRA.swift`.
    case lora
    /// A scale and a shift behind every operation. `SSF.swift`.
    case ssf
    /// Prompt tokens at the first block, or at each. `VPT.swift`.
    case vptShallow = "vpt-shallow"
    case vptDeep = "vpt-deep"
    /// A ReLU bottleneck beside or behind the MLP. `AdaptFormer.swift`.
    case adaptformer
    /// Updates from factors that all Linears share: tensor train, or Tucker. `FacT.swift`.
    case factTT = "fact-tt"
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

extension MethodName {
    /// The method with these settings for a transformer of these sizes. GLoRA is the supernet of
    /// `space`; its choice of paths may be set afterwards. Throws `MethodError`.
    public func method(
        _ settings: MethodSettings, for shape: TransformerShape,
        space: @autoclosure () throws -> SearchSpace = try SearchSpace()
    ) throws -> any TuningMethod {
        if let rank = settings.rank, self != .glora {
            try MethodSettings.checkRank(rank, setting: "rank", modelWidth: shape.width)
        }
        try requireSites(shape)
        switch self {
        case .glora:
            try settings.allow("glora")
            let space = try space()
            let roles = shape.roles(meant: space.sites)
            for role in roles where !shape.sites.contains(where: { $0.role == role }) {
                let own = shape.sites.map(\.role.rawValue).joined(separator: ", ")
                throw MethodError("`linears \(role.rawValue)`: this model's blocks have \(own)")
            }
            try MethodSettings.checkRank(space.largestRank, setting: "ranks", modelWidth: shape.width)
            return GLoRA(rank: space.largestRank, roles: roles, .supernet(space, .original))
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

/// An invalid setting of a method.
public struct MethodError: Error, CustomStringConvertible, Equatable {
    /// One sentence: what is wrong and what may be.
    public let description: String

    /// An error of this sentence.
    public init(_ description: String) { self.description = description }
}

/// What stands between the pooled features and the logits.
public enum HeadKind: String, SettingChoice {
    /// A Linear with PyTorch's first values, U(±1/√D).
    case linear
    /// A batch norm without weights (eps 1e-6), then a Linear N(0, 0.01²). Source: AdaptFormer, main_image.py.
    case batchNorm = "batchnorm"
    /// A Linear, Kaiming normal over its outputs, with every bias −log 99. Source: vpt, mlp.py, `special_bias`.
    case vpt
}

extension MethodName {
    /// Throws `MethodError` for a method that says nothing of Linears as this model's blocks have them.
    private func requireSites(_ shape: TransformerShape) throws {
        let isApart = shape.queries == .separate
        switch self {
        case .ssf, .repadapter:
            guard isApart || shape.sites.contains(where: { $0.role == .gate }) else { return }
            throw MethodError(
                "\(rawValue) is defined on one Linear for queries, keys and values and one into the hidden width; this model's blocks "
                    + "have \(shape.sites.map(\.role.rawValue).joined(separator: ", ")): use glora, lora, adaptformer or adapter"
            )
        case .factTT, .factTK, .noah:
            guard isApart || shape.feedForward.isGated else { return }
            throw MethodError(
                "\(rawValue) is defined on the Linears of a plain block; this model's blocks have "
                    + "\(shape.feedForward.isGated ? "a gated feed-forward layer" : "queries, keys and values apart"): use glora, lora, "
                    + "adaptformer or adapter")
        default: return
        }
    }
}
