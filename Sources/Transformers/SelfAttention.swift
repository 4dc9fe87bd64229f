import Adapters
import TensorCore

/// A block's attention, from its normed input n [B, T, D] to what the output's Linear reads [B, Q, D]:
///
///     q, k, v = qkv(n), or query(n), key(n), value(n)
///     q, k ← LN_q q, LN_k k                    per head, where there are such norms
///     q, k ← R q, R k                          R: the rotation by a token's place, where there is one
///     a = softmax(q kᵀ/√h) v per head;   a ← LN a where there is one
///
/// The queries are the first Q of the T tokens.
struct SelfAttention {
    let layers: [(role: LinearRole, layer: any LinearLayer)]  // [3·D, D], or three of [D, D]
    let headNorms: [Norm]  // of h numbers: the queries' and the keys'; none where they aren't normed
    let rotation: Rotation?
    let norm: Norm?
    let width, heads: Int
    let backend: any Backend

    /// Whether a step trains anything here.
    var isTrained: Bool {
        layers.contains { $0.layer.isTrained }
            || (headNorms + [norm].compactMap(\.self)).contains(where: \.isTrained)
    }

    struct Memory {
        let projections: [Projection]  // as `layers`
        let normed: [Normed]  // queries and keys, where they are normed
        let places: Tensor?  // [B · T] int32 for the rotation
        let logSumExp: Tensor  // [B, H, Q]
        let attended: Tensor  // [B, Q, D] out of the attention
        let norm: Norm.Memory?
        let output: Tensor  // [B, Q, D] behind the norm; `attended` without one
        let gradients: Gradients?  // nil in evaluation

        struct Gradients {
            let projections: [Tensor]  // as `layers`
            let attended: Tensor?  // [B, Q, D] before the norm, where there is one
            let normed: [Tensor]  // [B, T, D] of queries and keys behind their norms
            let unnormed: Tensor?  // [B, T, D] of either before it, out of what is fused
        }

        /// Queries or keys and their norm.
        struct Normed {
            let input: Tensor?  // [B, T, D] out of what is fused; nil where they have a tensor of their own
            let output: Tensor  // [B, T, D]
            let memory: Norm.Memory
        }
    }

    /// Memory for B samples of T tokens of which Q are queries; `places` [B · T] are the tokens'. Throws what the workspace throws.
    func memory(batch b: Int, tokens t: Int, queries q: Int, places: Tensor?, _ workspace: Workspace) throws
        -> Memory
    {
        let stored = workspace.stored
        let projections = try layers.map { role, layer in
            try Projection(layer, "\(role.rawValue)", shape: [b, t, layer.base.outputs], workspace)
        }
        let isFused = layers.count == 1
        let normed = try zip(headNorms, ["queries", "keys"]).map { norm, name in
            Memory.Normed(
                // One is enough, as either is copied out of the projection when it is needed.
                input: isFused ? try workspace.shared("unnormed", [b, t, width], stored) : nil,
                output: try workspace.kept("normed \(name)", [b, t, width], stored),
                memory: try norm.memory(rows: b * t * heads, stored, "norm of \(name)", workspace))
        }
        let logSumExp = try workspace.kept("logSumExp", [b, heads, q])
        let attended = try workspace.kept("attended", [b, q, width], stored)
        var gradients: Memory.Gradients?
        if workspace.isForTraining {
            gradients = Memory.Gradients(
                projections: try layers.map { role, layer in
                    try workspace.shared("d \(role.rawValue)", [b, t, layer.base.outputs], stored)
                },
                attended: norm == nil ? nil : try workspace.shared("d attended", [b, q, width], stored),
                normed: try zip(headNorms, ["queries", "keys"]).map { _, name in
                    try workspace.shared("d normed \(name)", [b, t, width], stored)
                },
                unnormed: isFused && !headNorms.isEmpty
                    ? try workspace.shared("d unnormed", [b, t, width], stored) : nil)
        }
        return Memory(
            projections: projections, normed: normed, places: rotation == nil ? nil : places,
            logSumExp: logSumExp,
            attended: attended,
            norm: try norm?.memory(rows: b * q, stored, "attention's norm", workspace),
            output: norm == nil ? attended : try workspace.kept("normed attended", [b, q, width], stored),
            gradients: gradients)
    }

    func forward(_ m: Memory, _ x: Tensor, dropoutSeed: UInt64?) {
        for projection in m.projections {
            projection.pass.forward(projection.output, x, activated: nil, dropoutSeed: dropoutSeed)
        }
        let outputs = m.projections.map(\.output)
        for index in m.normed.indices {
            let x = unnormed(index, m, outputs)
            headNorms[index].forward(perHead(m.normed[index].output), x, m.normed[index].memory)
        }
        let x = Parts(outputs, m.normed.map(\.output), width)
        rotate(x, m.places, inverse: false)
        if outputs.count == 1, m.normed.isEmpty {
            backend.attention(m.attended, m.logSumExp, outputs[0], heads: heads)
        } else {
            backend.attention(
                m.attended, m.logSumExp, queries: x[0], keys: x[1], values: x[2],
                tokens: outputs[0].shape[1], heads: heads)
        }
        if let norm, let memory = m.norm { norm.forward(m.output, m.attended, memory) }
    }

    /// The gradients of what the Linears gave, from that of the output [B, Q, D], which is overwritten.
    func backward(_ m: Memory, _ dOutput: Tensor) -> [Tensor] {
        guard let g = m.gradients else { preconditionFailure("backward: memory for evaluation") }
        var dAttended = dOutput
        if let norm, let memory = m.norm, let before = g.attended {
            norm.backward(before, dOutput, m.attended, memory, accumulate: false)
            dAttended = before
        }
        let wasBuilt = m.projections.map { $0.pass.keepsProduct }
        for projection in m.projections { projection.rebuild() }
        let outputs = m.projections.map(\.output)
        let (x, dx) = (
            Parts(outputs, m.normed.map(\.output), width), Parts(g.projections, g.normed, width)
        )
        // What was kept is rotated already.
        if m.normed.isEmpty { rotate(x, m.places, inverse: false, only: wasBuilt) }
        if outputs.count == 1, m.normed.isEmpty {
            backend.attentionBackward(
                g.projections[0], dAttended, m.attended, m.logSumExp, outputs[0], heads: heads)
        } else {
            // Tokens that are no queries get nothing.
            let (q, t) = (m.attended.shape[1], outputs[0].shape[1])
            if q < t { backend.clear(dx.tensors[0]) }
            backend.attentionBackward(
                dx[0], dx[1], dx[2], dAttended, m.attended, m.logSumExp, queries: x[0], keys: x[1],
                values: x[2], tokens: t, heads: heads)
        }
        rotate(dx, m.places, inverse: true)
        for (index, dy) in g.normed.enumerated() {
            let to = g.unnormed ?? g.projections[index]
            headNorms[index].backward(
                perHead(to), perHead(dy), unnormed(index, m, outputs), m.normed[index].memory,
                accumulate: false)
            if g.unnormed != nil {
                copy(third(index, of: g.projections[0]), MatrixBlock(to, stride: width))
            }
        }
        return g.projections
    }

    // MARK: Queries and keys

    /// Queries, keys and values where the attention reads them, or their gradients where it leaves them.
    private struct Parts {
        let tensors: [Tensor]
        let offsets: [Int]

        /// Of what the Linears gave, [B, T, 3·D] or three of [B, T, D], and of queries and keys behind their norms where there
        /// are any.
        init(_ projections: [Tensor], _ normed: [Tensor], _ width: Int) {
            let isFused = projections.count == 1
            tensors = normed + (normed.count..<3).map { projections[isFused ? 0 : $0] }
            offsets = (0..<3).map { isFused && $0 >= normed.count ? $0 * width : 0 }
        }

        subscript(index: Int) -> TokenBlock {
            var block = TokenBlock(tensors[index])
            block.offset = offsets[index]
            return block
        }
    }

    /// Rotates queries and keys; those of the Linears of `only` where it says so.
    private func rotate(_ parts: Parts, _ places: Tensor?, inverse: Bool, only: [Bool]? = nil) {
        guard let rotation, let places else { return }
        for index in 0..<2 where only.map({ $0[$0.count == 1 ? 0 : index] }) ?? true {
            let tensor = parts.tensors[index]
            rotation.apply(
                MatrixBlock(tensor, offset: parts.offsets[index], stride: tensor.columns), places: places,
                inverse: inverse)
        }
    }

    /// [B·T·H, h]: queries or keys before their norm.
    private func unnormed(_ index: Int, _ m: Memory, _ outputs: [Tensor]) -> Tensor {
        guard let own = m.normed[index].input else { return perHead(outputs[index]) }
        copy(MatrixBlock(own, stride: width), third(index, of: outputs[0]))
        return perHead(own)
    }

    /// A third of [B, T, 3·D].
    private func third(_ index: Int, of fused: Tensor) -> MatrixBlock {
        MatrixBlock(fused, offset: index * width, stride: 3 * width)
    }

    private func copy(_ to: MatrixBlock, _ from: MatrixBlock) {
        let rows = from.tensor.count / from.stride
        backend.copyBlock(to, from, rows: rows, columns: width, accumulate: false)
    }

    /// [B, T, D] as [B·T·H, h].
    private func perHead(_ x: Tensor) -> Tensor { x.reshaped([x.count / width * heads, width / heads]) }
}

/// A Linear whose output the block reads once more in the backward.
struct Projection {
    let pass: any LinearPass
    private let kept: Tensor  // y, or z where the layer keeps that
    private let spare: Tensor?  // y where z is kept

    /// `shape` [B, T, out]. Throws what the workspace throws.
    init(_ layer: any LinearLayer, _ name: String, shape: [Int], _ workspace: Workspace) throws {
        kept = try workspace.kept(name, shape, workspace.stored)
        let mayKeep = workspace.isForTraining && layer.mayKeepProduct
        pass = try layer.pass(
            rows: shape.dropLast().reduce(1, *), product: mayKeep ? kept : nil, in: workspace)
        spare = mayKeep ? try workspace.shared("spare \(name)", shape, workspace.stored) : nil
    }

    /// y, which a backward reads after `rebuild`.
    var output: Tensor { pass.keepsProduct ? spare! : kept }

    func rebuild() { if pass.keepsProduct { pass.rebuild(spare, activated: nil) } }
}

extension Backend {
    /// Zeros, of whatever type an even count of elements is stored as.
    package func clear(_ x: Tensor) { fill(x.leading([x.byteCount / 4], .float32), 0) }
}
