/// Methods that add nothing and train tensors of the pretrained model.
///
/// - linear: none of them; the head alone.
/// - bitfit: the biases of the blocks' Linears and LayerNorms and of the final LayerNorm (arXiv 2106.10199). The patch
///   embedding's bias stays: it is the one that no GLoRA path can stand for.
/// - full: every tensor.
public enum Backbone: TuningMethod, Sendable {
    /// The pretrained model as it is.
    case frozen
    /// Its biases.
    case biases
    /// All of it.
    case everything

    public func trains(_ name: String) -> Bool {
        switch self {
        case .frozen: false
        case .biases: name.hasSuffix(".bias") && !name.hasPrefix("patch_embed")
        case .everything: true
        }
    }
}
