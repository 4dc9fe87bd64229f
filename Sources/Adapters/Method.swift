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
    /// The biases of the Linears and LayerNorms. `BitFit.swift`.
    case bitfit
    /// The head alone.
    case linear
    /// Every tensor.
    case full
}

/// What a method can be told; nil for what its authors do. What a method has no use for is refused by it.
public struct MethodSettings: Equatable, Hashable, Sendable {
    /// LoRA's and FacT's rank.
    public var rank: Int?
    /// LoRA's alpha: the update is scaled by alpha / rank.
    public var alpha: Double?
    /// The constant s of AdaptFormer, FacT and RepAdapter.
    public var scale: Double?
    /// The hidden width of AdaptFormer, RepAdapter and Adapter.
    public var width: Int?
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

    /// The authors' settings.
    public init() {}
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
