import Adapters
import TensorCore

/// A block's attention, from its normed input n [B, T, D] to what the output's Linear reads [B, Q, D]:
///
///     q, k, v = qkv(n), or query(n), key(n), value(n)
///     q, k ← R q, R k                          R: the rotation by a token's place, where there is one
///     a = softmax(q kᵀ/√h) v per head;   a ← LN a where there is one
///
/// The queries are the first Q of the T tokens.
struct SelfAttention {
    let layers: [(role: LinearRole, layer: any LinearLayer)]  // [3·D, D], or three of [D, D]
    let rotation: Rotation?
    let norm: Norm?
    let width, heads: Int
    let backend: any Backend

    /// Whether a step trains anything here.
    var isTrained: Bool { layers.contains { $0.layer.isTrained } || norm?.isTrained == true }

    struct Memory {
        let projections: [Projection]  // as `layers`
        let places: Tensor?  // [B · T] int32 for the rotation
        let logSumExp: Tensor  // [B, H, Q]
        let attended: Tensor  // [B, Q, D] out of the attention
        let norm: Norm.Memory?
        let output: Tensor  // [B, Q, D] behind the norm; `attended` without one
        let gradients: Gradients?  // nil in evaluation

        struct Gradients {
            let projections: [Tensor]  // as `layers`
            let attended: Tensor?  // [B, Q, D] before the norm, where there is one
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
        let logSumExp = try workspace.kept("logSumExp", [b, heads, q])
        let attended = try workspace.kept("attended", [b, q, width], stored)
        var gradients: Memory.Gradients?
        if workspace.isForTraining {
            gradients = Memory.Gradients(
                projections: try layers.map { role, layer in
                    try workspace.shared("d \(role.rawValue)", [b, t, layer.base.outputs], stored)
                },
                attended: norm == nil ? nil : try workspace.shared("d attended", [b, q, width], stored))
        }
        return Memory(
            projections: projections, places: rotation == nil ? nil : places, logSumExp: logSumExp,
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
        rotate(outputs, m.places, inverse: false)
        if outputs.count == 1 {
            backend.attention(m.attended, m.logSumExp, outputs[0], heads: heads)
        } else {
            let blocks = outputs.map { TokenBlock($0) }
            backend.attention(
                m.attended, m.logSumExp, queries: blocks[0], keys: blocks[1], values: blocks[2],
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
        // What was kept is rotated already.
        rotate(outputs, m.places, inverse: false, only: wasBuilt)
        if outputs.count == 1 {
            backend.attentionBackward(
                g.projections[0], dAttended, m.attended, m.logSumExp, outputs[0], heads: heads)
        } else {
            // Tokens that are no queries get nothing.
            let (q, t) = (m.attended.shape[1], outputs[0].shape[1])
            if q < t { backend.clear(g.projections[0]) }
            let (x, dx) = (outputs.map { TokenBlock($0) }, g.projections.map { TokenBlock($0) })
            backend.attentionBackward(
                dx[0], dx[1], dx[2], dAttended, m.attended, m.logSumExp, queries: x[0], keys: x[1],
                values: x[2], tokens: t, heads: heads)
        }
        rotate(g.projections, m.places, inverse: true)
        return g.projections
    }

    /// Queries and keys, which are the first two thirds of one tensor or two tensors; those of `only` where it says so.
    private func rotate(_ outputs: [Tensor], _ places: Tensor?, inverse: Bool, only: [Bool]? = nil) {
        guard let rotation, let places else { return }
        for index in 0..<2 {
            let tensor = outputs.count == 1 ? 0 : index
            guard only?[tensor] ?? true else { continue }
            rotation.apply(
                MatrixBlock(
                    outputs[tensor], offset: outputs.count == 1 ? index * width : 0,
                    stride: outputs[tensor].columns),
                places: places, inverse: inverse)
        }
    }
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
