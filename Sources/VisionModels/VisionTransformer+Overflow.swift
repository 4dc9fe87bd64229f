import TensorCore
import Transformers

extension VisionTransformer {
    public func firstOverflow(_ plan: Plan) -> String? {
        func isFinite(_ tensor: Tensor) -> Bool { backend.values(tensor).allSatisfy(\.isFinite) }
        beginPass()
        embed(plan)
        var found = isFinite(plan.stream(into: 0)) ? nil : "the embedding"
        forward(plan, fromBlock: 0, .evaluation) { next in
            if found == nil, !isFinite(plan.stream(into: next)) { found = "block \(next - 1)" }
        }
        if found == nil, !isFinite(plan.head.output) { found = "block \(configuration.depth - 1)" }
        if found == nil, !isFinite(plan.logits) { found = "the head" }
        return found
    }
}
