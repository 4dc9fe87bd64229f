import TensorCore

/// Methods that add nothing and train tensors of the pretrained model.
///
/// - linear: none of them; the head alone.
/// - bitfit: the biases of the blocks' Linears and LayerNorms and of the final LayerNorm (arXiv 2106.10199). The patch
///   embedding's bias stays: it is the one that no GLoRA path can stand for.
/// - full: every tensor.
enum Backbone: TuningMethod {
    case nothing, biases, everything

    func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] { [] }

    func attachments(
        _ shape: TransformerShape, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws -> Attachments { Attachments(depth: shape.depth) }

    func trains(_ name: String) -> Bool {
        switch self {
        case .nothing: false
        case .biases: name.hasSuffix(".bias") && !name.hasPrefix("patch_embed")
        case .everything: true
        }
    }
}
