import CLoops
import TensorCore

// Gates: y = f(a) ⊙ b;  dA = dy ⊙ b ⊙ f′(a),  dB = dy ⊙ f(a).

extension CPUBackend {
    /// y [n, d] from the blocks a and b.
    public func gate(
        _ y: Tensor, _ a: MatrixBlock, _ b: MatrixBlock, _ activation: Activation, rows n: Int,
        columns d: Int
    ) {
        let loop: (Floats, Floats, Floats, Int) -> Void =
            switch activation {
            case .identity: { identity_gate_forward($0, $1, $2, $3) }
            case .relu: { relu_gate_forward($0, $1, $2, $3) }
            case .gelu: { gelu_gate_forward($0, $1, $2, $3) }
            case .quickGELU: { quick_gelu_gate_forward($0, $1, $2, $3) }
            case .geluTanh: { gelu_tanh_gate_forward($0, $1, $2, $3) }
            case .silu: { silu_gate_forward($0, $1, $2, $3) }
            }
        let y = floats(y)  // [n, d]
        parallel(n, grain: rowGrain(d)) { range in
            for row in range { loop(y + row * d, rows(a, from: row), rows(b, from: row), d) }
        }
    }

    /// The blocks dA and dB from dy [n, d], a and b. dA may be a, dB may be b.
    public func gateBackward(
        _ dA: MatrixBlock, _ dB: MatrixBlock, _ dy: Tensor, _ a: MatrixBlock, _ b: MatrixBlock,
        _ activation: Activation, rows n: Int, columns d: Int
    ) {
        let loop: (Floats, Floats, Floats, Floats, Floats, Int) -> Void =
            switch activation {
            case .identity: { identity_gate_backward($0, $1, $2, $3, $4, $5) }
            case .relu: { relu_gate_backward($0, $1, $2, $3, $4, $5) }
            case .gelu: { gelu_gate_backward($0, $1, $2, $3, $4, $5) }
            case .quickGELU: { quick_gelu_gate_backward($0, $1, $2, $3, $4, $5) }
            case .geluTanh: { gelu_tanh_gate_backward($0, $1, $2, $3, $4, $5) }
            case .silu: { silu_gate_backward($0, $1, $2, $3, $4, $5) }
            }
        let dy = floats(dy)  // [n, d]
        parallel(n, grain: rowGrain(d)) { range in
            for row in range {
                loop(
                    rows(dA, from: row), rows(dB, from: row), dy + row * d, rows(a, from: row),
                    rows(b, from: row), d)
            }
        }
    }

    /// A block's rows from one on.
    private func rows(_ block: MatrixBlock, from row: Int) -> Floats {
        floats(block.tensor) + block.offset + row * block.stride
    }
}
