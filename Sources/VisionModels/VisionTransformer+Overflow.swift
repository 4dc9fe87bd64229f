import Adapters
import Checkpoints
import TensorCore

/// A part of the forward pass.
public enum ForwardPart: Equatable, Sendable, CustomStringConvertible {
    /// Patches, class token and positions.
    case embedding
    /// A block, from 0.
    case block(Int)
    /// The final LayerNorm, the pooling and the head.
    case head

    /// As a sentence has it: `block 3`.
    public var description: String {
        switch self {
        case .embedding: "the embedding"
        case .block(let index): "block \(index)"
        case .head: "the head"
        }
    }
}

extension VisionTransformer {
    /// The first part of the forward pass from `plan.images` on `paths` that gives something else than finite numbers; nil when
    /// every part's output and the logits are finite. Runs the pass once more and reads every block's output back.
    public func firstOverflow(_ plan: ViTPlan, paths: [GLoRAPath]) -> ForwardPart? {
        func isFinite(_ tensor: Tensor) -> Bool { backend.values(tensor).allSatisfy(\.isFinite) }
        loadWeights()
        attachments?.begin?()
        embed(plan)
        var found: ForwardPart? = isFinite(destination(0, plan)) ? nil : .embedding
        forward(plan, fromBlock: 0, paths: paths) { next in
            if found == nil, !isFinite(destination(next, plan)) { found = .block(next - 1) }
        }
        if found == nil, !isFinite(plan.output) { found = .block(configuration.depth - 1) }
        if found == nil, !isFinite(plan.logits) { found = .head }
        return found
    }
}
