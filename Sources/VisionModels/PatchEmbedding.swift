import Adapters
import TensorCore

/// Patches, class token and positions:
///
///     x [B, T, D] ← [class; patches · Wᵖ] + positions
struct PatchEmbedding {
    let projection: PlainLinear
    let classToken: Parameter?  // [D]
    let positions: Parameter  // [T, D]
    let behind: ScaleShift?  // of the projected patches
    let patchSize: Int

    /// What one pass keeps.
    struct Memory {
        let images: Tensor  // [B, 3, S, S] normalised pixels
        let patches: Tensor  // [B, N, 3·p·p]
        let projected: Tensor  // [B, N, D]
        let pass: any LinearPass
        let unscaled: Tensor?  // [B, N, D] what the scale reads
        let gradient: Tensor?  // [B, N, D] of the projected patches
        // Gradients that nobody reads, where the embeddings are frozen and what is behind the patches isn't.
        let unread: (classToken: Tensor?, positions: Tensor)?  // [D], [T, D]
    }

    /// Whether a step trains anything here.
    var isTrained: Bool { positions.gradient != nil || behind != nil }

    func memory(batch b: Int, imageSize: Int, channels: Int, _ workspace: Workspace) throws -> Memory {
        let grid = imageSize / patchSize
        let (n, d, stored) = (grid * grid, projection.base.outputs, workspace.stored)
        let hasGradient = workspace.isForTraining && isTrained
        return Memory(
            images: try workspace.own([b, channels, imageSize, imageSize]),
            patches: try workspace.own([b, n, projection.base.inputs], stored),
            projected: try workspace.own([b, n, d], stored),
            pass: projection.pass(rows: b * n, product: nil, in: workspace),
            unscaled: hasGradient && behind != nil ? try workspace.own([b, n, d], stored) : nil,
            gradient: hasGradient ? try workspace.own([b, n, d], stored) : nil,
            unread: hasGradient && positions.gradient == nil
                ? (
                    try classToken.map { try workspace.own($0.value.shape) },
                    try workspace.own(positions.value.shape)
                ) : nil)
    }

    /// `stream` [B, T, D] from the images.
    func forward(_ m: Memory, into stream: Tensor, _ backend: any Backend) {
        backend.extractPatches(m.patches, m.images, patchSize: patchSize)
        m.pass.forward(m.projected, m.patches, activated: nil, dropoutSeed: nil)
        behind?.forward(m.projected, m.projected, keeping: m.unscaled)
        backend.embedTokens(stream, m.projected, classToken?.value, positions.value)
    }

    /// The gradients of what is trained here, from that of the stream.
    func backward(_ m: Memory, _ dStream: Tensor, _ backend: any Backend) {
        guard let dProjected = m.gradient, let dPositions = positions.gradient ?? m.unread?.positions else {
            return
        }
        backend.embedTokensBackward(
            dProjected, classToken?.gradient ?? m.unread?.classToken, dPositions, dStream)
        if let behind, let unscaled = m.unscaled { behind.backward(dProjected, unscaled) }
        if projection.isTrained { m.pass.backward(nil, dProjected, m.patches, dropoutSeed: nil) }
    }
}
