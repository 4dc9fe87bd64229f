import Adapters
import TensorCore

/// A change of the token sequence at a block's beginning, with memory for B images:
///
///     [B, T₀, D] → [B, T, D]        T = T₀ − removed + count
struct PlacedEdit {
    private let edit: TokenEdit
    private let block: Int
    private let batch, width: Int
    /// [B, T₀, D] the stream before; its gradient later.
    let incoming: Tensor
    private let prompts: Tensor  // [B, p · D]
    private let sums: Tensor?  // [p · D]

    /// Memory for the edit of a block that gets T₀ tokens. Throws what the workspace throws.
    init(_ edit: TokenEdit, block: Int, batch: Int, tokens: Int, width: Int, _ workspace: Workspace) throws {
        (self.edit, self.block, self.batch, self.width) = (edit, block, batch, width)
        incoming = try workspace.shared("incoming", [batch, tokens, width])
        prompts = try workspace.shared("prompts", [batch, edit.count * width])
        sums = workspace.isForTraining ? try workspace.shared("prompt sums", [edit.count * width]) : nil
    }

    /// Elements of an image where the prompts go.
    private var insertionOffset: Int { edit.replaced(of: incoming.shape[1]).lowerBound * width }

    /// The tokens that stay, as (from, to, count) in elements of an image.
    private var kept: [(from: Int, to: Int, count: Int)] {
        let (count, gone) = (incoming.shape[1], edit.replaced(of: incoming.shape[1]))
        let parts = [
            (from: 0, to: 0, count: gone.lowerBound * width),
            (
                from: gone.upperBound * width, to: (gone.lowerBound + edit.count) * width,
                count: (count - gone.upperBound) * width
            ),
        ]
        return parts.filter { $0.count > 0 }
    }

    /// x [B, T, D] from `incoming`, with the prompts put in.
    func forward(_ x: Tensor, dropoutSeed: UInt64?, _ backend: any Backend) {
        let (outputStride, inputStride) = (x.count / batch, incoming.count / batch)
        let length = edit.count * width
        for part in kept {
            backend.copyBlock(
                MatrixBlock(x, offset: part.to, stride: outputStride),
                MatrixBlock(incoming, offset: part.from, stride: inputStride), rows: batch,
                columns: part.count, accumulate: false)
        }
        backend.copyBlock(
            MatrixBlock(prompts, stride: length),
            MatrixBlock(edit.prompts.value, offset: edit.offset, stride: 0), rows: batch, columns: length,
            accumulate: false)
        drop(dropoutSeed, backend)
        backend.copyBlock(
            MatrixBlock(x, offset: insertionOffset, stride: outputStride),
            MatrixBlock(prompts, stride: length), rows: batch, columns: length, accumulate: false)
    }

    /// The gradient of `incoming`, in the memory of `stream`, from dx [B, T, D] in that same memory; the prompts get theirs.
    func backward(_ stream: Tensor, _ dx: Tensor, dropoutSeed: UInt64?, _ backend: any Backend) {
        let (outputStride, inputStride) = (dx.count / batch, incoming.count / batch)
        let length = edit.count * width
        backend.copyBlock(
            MatrixBlock(prompts, stride: length),
            MatrixBlock(dx, offset: insertionOffset, stride: outputStride), rows: batch, columns: length,
            accumulate: false)
        drop(dropoutSeed, backend)
        backend.sumRows(sums!, prompts, accumulate: false)
        backend.copyBlock(
            MatrixBlock(edit.prompts.gradient!, offset: edit.offset, stride: length),
            MatrixBlock(sums!, stride: length), rows: 1, columns: length, accumulate: true)
        backend.fill(incoming, 0)
        for part in kept {
            backend.copyBlock(
                MatrixBlock(incoming, offset: part.from, stride: inputStride),
                MatrixBlock(dx, offset: part.to, stride: outputStride), rows: batch, columns: part.count,
                accumulate: false)
        }
        backend.copy(stream.leading(incoming.shape), incoming)
    }

    private func drop(_ seed: UInt64?, _ backend: any Backend) {
        guard let seed, edit.dropout > 0 else { return }
        backend.dropout(prompts, prompts, rate: edit.dropout, seed: seed ^ UInt64(block))
    }
}
