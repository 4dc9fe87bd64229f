import Adapters
import TensorCore
import Transformers

extension VisionTransformer {
    /// The products and attentions of a forward over `batch` images, which are all but a few percent of it.
    public func forwardCost(batch: Int) -> OperationCost {
        let ends =
            OperationCost.product(
                m: batch * configuration.patchCount, n: configuration.width,
                k: configuration.channels * configuration.patchSize * configuration.patchSize)
            + .product(m: batch, n: configuration.classCount, k: configuration.width)
        return blocks.reduce(ends) { cost, block in
            let attention = OperationCost.attention(
                batch: batch, tokens: configuration.tokenCount, queries: goingOn(block),
                width: configuration.width, heads: configuration.heads)
            return shape.sites.reduce(cost + attention) { $0 + product($1, in: block, batch) }
        }
    }

    /// The same for a training step of GLoRA on `paths`: the forward, and in the backward dx of every Linear above the lowest that
    /// is trained, and dW where the path's formulation needs it.
    public func stepCost(batch: Int, paths: [GLoRAPath]) -> OperationCost {
        var cost = forwardCost(batch: batch)
        var isReached = false
        for (block, paths) in zip(blocks, paths.chunks(of: shape.sites.count)) {
            for (site, path) in zip(shape.sites, paths) {
                if isReached { cost = cost + product(site, in: block, batch) }
                isReached = isReached || path != .none
                guard isReached else { continue }
                let formulation = Formulation.cheaper(
                    path, rows: rows(site, in: block, batch), inputs: site.inputs, outputs: site.outputs)
                if path.changesWeight, formulation == .weight {
                    cost = cost + product(site, in: block, batch)
                }
                guard site.role == .fusedQKV else { continue }
                cost =
                    cost
                    + .attentionBackward(
                        batch: batch, tokens: configuration.tokenCount, queries: goingOn(block),
                        width: configuration.width, heads: configuration.heads)
            }
        }
        return cost
    }

    private func product(_ site: LinearSite, in block: TransformerBlock, _ batch: Int) -> OperationCost {
        .product(m: rows(site, in: block, batch), n: site.outputs, k: site.inputs)
    }

    private func rows(_ site: LinearSite, in block: TransformerBlock, _ batch: Int) -> Int {
        batch * (site.role.readsEveryToken ? configuration.tokenCount : goingOn(block))
    }

    /// The tokens that go on behind a block's attention.
    private func goingOn(_ block: TransformerBlock) -> Int {
        block.index + 1 == configuration.depth && configuration.pooling == .classToken
            ? 1 : configuration.tokenCount
    }
}

extension Array {
    fileprivate func chunks(of count: Int) -> [ArraySlice<Element>] {
        stride(from: 0, to: self.count, by: count).map { self[$0..<Swift.min($0 + count, self.count)] }
    }
}
