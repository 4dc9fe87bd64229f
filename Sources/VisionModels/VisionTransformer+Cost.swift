import Adapters
import TensorCore

extension VisionTransformer {
    /// The products and attentions of a forward over `batch` images, which are all but a few percent of it.
    public func forwardCost(batch: Int) -> OperationCost {
        let ends =
            OperationCost.product(
                m: batch * configuration.patchCount, n: configuration.width,
                k: configuration.channels * configuration.patchSize * configuration.patchSize)
            + .product(m: batch, n: configuration.classCount, k: configuration.width)
        return (0..<configuration.depth).reduce(ends) { cost, block in
            let asking = askingTokens(block)
            return (0..<4).reduce(
                cost
                    + .attention(
                        batch: batch, tokens: configuration.tokenCount, queries: asking,
                        width: configuration.width, heads: configuration.heads)
            ) { $0 + product(4 * block + $1, batch: batch) }
        }
    }

    /// The same for a training step on `paths`: the forward, and in the backward dx of every Linear above the lowest that is
    /// trained, and dW where the path's formulation needs it.
    public func stepCost(batch: Int, paths: [GLoRAPath]) -> OperationCost {
        let lowest = paths.firstIndex { $0 != .none } ?? linears.count
        var cost = forwardCost(batch: batch)
        for index in lowest..<linears.count {
            let rows = batch * rowsPerImage(index)
            if index > lowest { cost = cost + product(index, batch: batch) }
            if paths[index].changesWeight, linears[index].formulation(paths[index], rows: rows) == .weight {
                cost = cost + product(index, batch: batch)
            }
            if index % 4 == 0 {
                cost =
                    cost
                    + .attentionBackward(
                        batch: batch, tokens: configuration.tokenCount, queries: askingTokens(index / 4),
                        width: configuration.width, heads: configuration.heads)
            }
        }
        return cost
    }

    private func product(_ index: Int, batch: Int) -> OperationCost {
        .product(
            m: batch * rowsPerImage(index), n: linears[index].outputs, k: linears[index].inputs)
    }

    /// The tokens that a Linear sees: qkv all of them, the others those that go on behind the attention.
    private func rowsPerImage(_ index: Int) -> Int {
        index % 4 == 0 ? configuration.tokenCount : askingTokens(index / 4)
    }

    private func askingTokens(_ block: Int) -> Int {
        block + 1 == configuration.depth && configuration.pooling == .classToken
            ? 1 : configuration.tokenCount
    }
}
