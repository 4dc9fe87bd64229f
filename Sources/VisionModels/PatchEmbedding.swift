import Adapters
import TensorCore
import Transformers

/// Patches, the tokens in front of them, positions, and a LayerNorm where a model has one:
///
///     x [B, T, D] ← [class; registers; patches · Wᵖ] + positions        positions of all tokens, or of the patches alone
///     x ← LN x
struct PatchEmbedding {
    let projection: PlainLinear
    let prefix: Prefix?  // nil without a class token and registers
    let positions: Parameter?  // [T, D], or of the patches alone [N, D]; nil where none are learned
    let behind: ScaleShift?  // of the projected patches
    let norm: Norm?  // before the blocks
    let patchSize: Int

    /// The tokens in front of the patches, P of them.
    struct Prefix {
        /// The class token [D] and the registers [R, D], those that there are, in this order.
        let parts: [Parameter]
        /// [P, D] all of them, where there is more than one part; the part itself where there is one.
        let value: Tensor
        /// [P, D] their gradient, where it isn't the part's own.
        let gradient: Tensor?

        /// One part as it is, or several in memory of their own. Throws `BackendError.outOfMemory`.
        init?(_ parts: [Parameter], width: Int, _ arena: Arena, _ backend: any Backend) throws {
            guard let first = parts.first else { return nil }
            self.parts = parts
            guard parts.count > 1 else {
                (value, gradient) = (first.value, first.gradient)
                return
            }
            let count = parts.reduce(0) { $0 + $1.value.count } / width
            value = try arena.take([count, width])
            gradient = parts.contains { $0.gradient != nil } ? try arena.take([count, width]) : nil
            collect(backend)
        }

        /// Brings values that were trained together, before a pass.
        func collect(_ backend: any Backend) {
            eachPart { part, offset in
                backend.copyBlock(
                    MatrixBlock(value, offset: offset, stride: part.value.count),
                    MatrixBlock(part.value, stride: part.value.count), rows: 1, columns: part.value.count,
                    accumulate: false)
            }
        }

        /// Adds the gradient to the parts'.
        func distribute(_ backend: any Backend) {
            eachPart { part, offset in
                guard let own = part.gradient, let gradient else { return }
                backend.copyBlock(
                    MatrixBlock(own, stride: own.count),
                    MatrixBlock(gradient, offset: offset, stride: own.count), rows: 1, columns: own.count,
                    accumulate: true)
            }
        }

        private func eachPart(_ body: (Parameter, Int) -> Void) {
            guard parts.count > 1 else { return }
            var offset = 0
            for part in parts {
                body(part, offset)
                offset += part.value.count
            }
        }
    }

    /// What one pass keeps.
    struct Memory {
        let images: Tensor  // [B, 3, S, S] normalised pixels
        let patches: Tensor  // [B, N, 3·p·p]
        let projected: Tensor  // [B, N, D]
        let pass: any LinearPass
        let unscaled: Tensor?  // [B, N, D] what the scale reads
        let unnormed: Tensor?  // [B, T, D] what the norm reads
        let norm: Norm.Memory?
        let gradient: Tensor?  // [B, N, D] of the projected patches
        let unnormedGradient: Tensor?  // [B, T, D]
    }

    /// Whether a step trains anything here.
    var isTrained: Bool {
        positions?.gradient != nil || behind != nil || norm?.isTrained == true || projection.isTrained
            || prefix?.parts.contains { $0.gradient != nil } == true
    }

    func memory(batch b: Int, imageSize: Int, channels: Int, tokens t: Int, _ workspace: Workspace) throws
        -> Memory
    {
        let grid = imageSize / patchSize
        let (n, d, stored) = (grid * grid, projection.base.outputs, workspace.stored)
        let hasGradient = workspace.isForTraining && isTrained
        return Memory(
            images: try workspace.own([b, channels, imageSize, imageSize]),
            patches: try workspace.own([b, n, projection.base.inputs], stored),
            projected: try workspace.own([b, n, d], stored),
            pass: projection.pass(rows: b * n, product: nil, in: workspace),
            unscaled: hasGradient && behind != nil ? try workspace.own([b, n, d], stored) : nil,
            unnormed: norm == nil ? nil : try workspace.own([b, t, d]),
            norm: try norm?.memory(rows: b * t, .float32, "first norm", workspace),
            gradient: hasGradient ? try workspace.own([b, n, d], stored) : nil,
            unnormedGradient: hasGradient && norm != nil ? try workspace.own([b, t, d]) : nil)
    }

    /// `stream` [B, T, D] from the images.
    func forward(_ m: Memory, into stream: Tensor, _ backend: any Backend) {
        backend.extractPatches(m.patches, m.images, patchSize: patchSize)
        m.pass.forward(m.projected, m.patches, activated: nil, dropoutSeed: nil)
        behind?.forward(m.projected, m.projected, keeping: m.unscaled)
        backend.embedTokens(m.unnormed ?? stream, m.projected, prefix?.value, positions?.value)
        if let norm, let unnormed = m.unnormed, let memory = m.norm { norm.forward(stream, unnormed, memory) }
    }

    /// The gradients of what is trained here, from that of the stream.
    func backward(_ m: Memory, _ dStream: Tensor, _ backend: any Backend) {
        guard let dProjected = m.gradient else { return }
        var dTokens = dStream
        if let norm, let memory = m.norm, let unnormed = m.unnormed, let gradient = m.unnormedGradient {
            norm.backward(gradient, dStream, unnormed, memory, accumulate: false)
            dTokens = gradient
        }
        let isCollected = prefix.map { $0.parts.count > 1 } ?? false
        if isCollected, let gradient = prefix?.gradient { backend.fill(gradient, 0) }
        backend.embedTokensBackward(dProjected, prefix?.gradient, positions?.gradient, dTokens)
        if isCollected { prefix?.distribute(backend) }
        if let behind, let unscaled = m.unscaled { behind.backward(dProjected, unscaled) }
        if projection.isTrained { m.pass.backward(nil, dProjected, m.patches, dropoutSeed: nil) }
    }
}
