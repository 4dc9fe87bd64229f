// What a setting is for is said once, by its help.

/// What a method can be told; nil for what its authors do. What a method doesn't use is refused by it.
public struct MethodSettings: SettingGroup {
    @Setting("rank", "LoRA's rank (default: 8), FacT's (tt 16, tk 32)", .within(1...largestSize))
    public var rank: Int? = nil
    @Setting("alpha", "LoRA's alpha; its update is scaled by alpha / rank", default: "the rank", .number)
    public var alpha: Double? = nil
    @Setting("scale", "The factor of AdaptFormer (0.1), FacT (1) and RepAdapter (1)", .number)
    public var scale: Double? = nil
    @Setting(
        "width", "The hidden width of AdaptFormer (64), RepAdapter (8) and Adapter (8)",
        .within(1...largestSize))
    public var width: Int? = nil
    /// Each feeds its own share of the outputs.
    @Setting("groups", "RepAdapter's groups (2)", .within(1...largestSize)) public var groups: Int? = nil
    @Setting("prompts", "VPT's prompt tokens (5)", .within(1...largestSize)) public var prompts: Int? = nil
    /// Of a bottleneck's hidden values, or VPT's prompts.
    @Setting(
        "dropout", "Dropout while training: 0.1 in AdaptFormer, FacT and RepAdapter, else 0", .probability)
    public var dropout: Double? = nil
    @Setting(
        "targets", "Where: LoRA's qv or all, RepAdapter's block or attention, SSF's all or linears")
    public var targets: String? = nil
    @Setting(
        "placement", "AdaptFormer's parallel (default) or sequential", .one(of: "parallel", "sequential"))
    public var placement: String? = nil
    @Setting(
        "adapter-norm", "AdaptFormer's LayerNorm: none (default), in or out", .one(of: "none", "in", "out"))
    public var adapterNorm: String? = nil
    @Setting("learnable-scale", "Train AdaptFormer's scale, from 1") public var learnableScale: Bool? = nil
    /// A triple for each block, `5:8:8,0:8:8,…`, or one for all alike.
    @Setting("dims", "NOAH's prompts:rank:width for every block, or one for each, with commas (5:8:8)")
    public var dims: String? = nil

    /// The most that a rank, a width or a number of prompts may be: as wide as the widest published ViT's tokens (ViT-G/14's 1,664,
    /// ViT-e's 1,792), twice over, so that no product of two of them is more than a model's own matrix.
    public static let largestSize = 4096

    /// The authors' settings.
    public init() {}

    /// Throws `MethodError` for a rank that the Linears of a model of this width have no use for: a product through more columns
    /// than its smaller side is every matrix already. 64 are let pass in any model, for small ones under the authors' own ranks.
    public static func checkRank(_ rank: Int, setting: String, modelWidth width: Int) throws {
        let most = max(width, 64)
        guard rank <= most else {
            throw MethodError(
                "`\(setting) \(rank)` is more than the model's width of \(width) has a use for; give at most \(most)"
            )
        }
    }

    /// Throws `MethodError` for a setting that method `name` doesn't use, and for an invalid one. `targets` are the words that it
    /// has for them.
    func allow(_ name: String, _ used: [any AnySetting] = [], targets words: [String] = []) throws {
        let used = used.map(\.name) + (words.isEmpty ? [] : [$targets.name])
        for setting in settings where setting.text != nil && !used.contains(setting.name) {
            throw MethodError("\(name) doesn't use `\(setting.name)`; leave it out")
        }
        if let fault { throw MethodError(fault) }
        if let targets, !words.contains(targets) {
            throw MethodError("`targets` is \(words.joined(separator: " or ")), not \(targets)")
        }
    }
}
