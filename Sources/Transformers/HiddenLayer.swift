import Adapters
import TensorCore

/// The wide half of a feed-forward layer, from the normed stream n [n, D] to what the last Linear reads [n, F]:
///
///     h = f(up n),   or f(gate n) ⊙ up n, and LN h where there is one
struct HiddenLayer {
    let kind: FeedForward
    let up: any LinearLayer
    let gate: (any LinearLayer)?  // where gate and up are two
    let norm: Norm?
    let backend: any Backend

    /// Whether a step trains anything here.
    var isTrained: Bool { up.isTrained || gate?.isTrained == true || norm?.isTrained == true }

    struct Memory {
        let plain: Plain?
        let gated: Gated?
        let activated: Tensor  // [B, Q, F] behind f, or the product; shared under low and balanced
        let norm: Norm.Memory?
        let output: Tensor  // [B, Q, F] behind the norm; `activated` without one
        let isForTraining: Bool
        /// Whether the blocks share `activated` and `output`: a backward computes them again.
        let isShared: Bool

        /// One Linear, whose output may be built in the memory of f's.
        struct Plain {
            let pass: any LinearPass
            let hidden: Tensor  // [B, Q, F] what f reads, or z where the layer keeps that
        }

        struct Gated {
            let up: Projection  // [B, Q, F], or with the gate's in front [B, Q, 2·F]
            let gate: Projection?  // [B, Q, F]
            let gradients: [Tensor]  // as up and gate; none in evaluation
            let product: Tensor?  // [B, Q, F] gradient of the product, where a norm follows
        }

        var passes: [any LinearPass] {
            [plain?.pass, gated?.up.pass, gated?.gate?.pass].compactMap(\.self)
        }
    }

    /// Memory for [B, Q, D]. Throws what the workspace throws.
    func memory(batch b: Int, tokens q: Int, width f: Int, isShared: Bool, _ workspace: Workspace) throws
        -> Memory
    {
        let (stored, isForTraining) = (workspace.stored, workspace.isForTraining)
        func output(_ name: String) throws -> Tensor {
            isShared
                ? try workspace.shared(name, [b, q, f], stored)
                : try workspace.kept(name, [b, q, f], stored)
        }
        var (plain, gated): (Memory.Plain?, Memory.Gated?)
        if kind.isGated {
            let up = try Projection(self.up, "hidden", shape: [b, q, self.up.base.outputs], workspace)
            let gate = try gate.map { try Projection($0, "gate", shape: [b, q, f], workspace) }
            let names = ["d up"] + (gate == nil ? [] : ["d gate"])
            gated = Memory.Gated(
                up: up, gate: gate,
                gradients: !isForTraining
                    ? []
                    : try names.map {
                        try workspace.shared($0, [b, q, gate == nil ? self.up.base.outputs : f], stored)
                    },
                product: norm != nil && isForTraining
                    ? try workspace.shared("d product", [b, q, f], stored) : nil)
        } else {
            let hidden = try workspace.kept("hidden", [b, q, f], stored)
            let mayKeep = isForTraining && up.mayKeepProduct
            plain = Memory.Plain(
                pass: try up.pass(rows: b * q, product: mayKeep ? hidden : nil, in: workspace),
                hidden: hidden)
        }
        let activated = try output("activated")
        return Memory(
            plain: plain, gated: gated, activated: activated,
            norm: try norm?.memory(rows: b * q, stored, "hidden norm", workspace),
            output: norm == nil ? activated : try output("normed hidden"), isForTraining: isForTraining,
            isShared: isShared)
    }

    /// `memory.output` from x [n, D].
    func forward(_ m: Memory, _ x: Tensor, dropoutSeed: UInt64?) {
        if let plain = m.plain {
            if kind.activation == .gelu {
                // In evaluation nobody reads what is before GELU, and where z is kept the backward rebuilds it.
                let isRead = plain.pass.needsOutput || m.isForTraining && !plain.pass.keepsProduct
                plain.pass.forward(
                    isRead ? plain.hidden : nil, x, activated: m.activated, dropoutSeed: dropoutSeed)
            } else {
                let y = plain.pass.keepsProduct ? m.activated : plain.hidden
                plain.pass.forward(y, x, activated: nil, dropoutSeed: dropoutSeed)
                backend.activate(m.activated, y, kind.activation)
            }
        } else if let gated = m.gated {
            for projection in [gated.gate, gated.up].compactMap(\.self) {
                projection.pass.forward(projection.output, x, activated: nil, dropoutSeed: dropoutSeed)
            }
            multiply(m, gated)
        }
        if let norm, let memory = m.norm { norm.forward(m.output, m.activated, memory) }
    }

    /// The output once more, whose memory other blocks have used; before a backward.
    func restore(_ m: Memory) {
        if let gated = m.gated { for projection in [gated.gate, gated.up] { projection?.rebuild() } }
        guard m.isShared else { return }
        if let plain = m.plain {
            if plain.pass.keepsProduct, kind.activation == .gelu {
                plain.pass.rebuild(nil, activated: m.activated)
            } else {
                backend.activate(m.activated, hidden(plain, m), kind.activation)
            }
        } else if let gated = m.gated {
            multiply(m, gated)
        }
        if let norm, let memory = m.norm { norm.again(m.output, m.activated, memory) }
    }

    /// The gradients of what the Linears gave with their layers and passes, from that of the output, which is overwritten.
    func backward(_ m: Memory, _ dOutput: Tensor) -> [(LinearRole, any LinearPass, Tensor)] {
        if let plain = m.plain {
            backend.activateBackward(dOutput, dOutput, hidden(plain, m), kind.activation)
            return [(.up, plain.pass, dOutput)]
        }
        guard let gated = m.gated else { preconditionFailure("backward: no memory") }
        var dProduct = dOutput
        if let norm, let memory = m.norm, let before = gated.product {
            norm.backward(before, dOutput, m.activated, memory, accumulate: false)
            dProduct = before
        }
        let (a, b) = factors(gated.gate?.output, gated.up.output)
        let (dA, dB) = factors(gated.gate == nil ? nil : gated.gradients[1], gated.gradients[0])
        backend.gateBackward(dA, dB, dProduct, a, b, kind.activation)
        var result: [(LinearRole, any LinearPass, Tensor)] = [(.up, gated.up.pass, gated.gradients[0])]
        if let gate = gated.gate { result.append((.gate, gate.pass, gated.gradients[1])) }
        return result
    }

    private func multiply(_ m: Memory, _ gated: Memory.Gated) {
        let (a, b) = factors(gated.gate?.output, gated.up.output)
        backend.gate(m.activated, a, b, kind.activation)
    }

    /// What f reads and what it is multiplied by: two tensors, or halves of one.
    private func factors(_ gate: Tensor?, _ up: Tensor) -> (MatrixBlock, MatrixBlock) {
        guard let gate else {
            return (
                MatrixBlock(up, stride: up.columns),
                MatrixBlock(up, offset: up.columns / 2, stride: up.columns)
            )
        }
        return (MatrixBlock(gate, stride: gate.columns), MatrixBlock(up, stride: up.columns))
    }

    /// What f reads: where z was kept for it, built in the memory of f's output, which is done with.
    private func hidden(_ plain: Memory.Plain, _ m: Memory) -> Tensor {
        guard plain.pass.keepsProduct else { return plain.hidden }
        plain.pass.rebuild(m.activated, activated: nil)
        return m.activated
    }
}
