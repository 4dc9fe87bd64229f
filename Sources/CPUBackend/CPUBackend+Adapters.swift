import CLoops
import TensorCore

// What other methods than GLoRA put into a transformer: blocks of tensors, bottlenecks, scaled and shifted features,
// dropout; and SGD.
//
//     gelu(x) = x Φ(x),  gelu′(x) = Φ(x) + x φ(x),  φ(x) = exp(−x²/2) / √(2π)
//     y = x ⊙ scale + shift;  dScale = Σₙ dy ⊙ x, dShift = Σₙ dy, dx = dy ⊙ scale
//     v ← μv + (g + λθ);  θ ← θ − ηv

extension CPUBackend {
    /// out ← x, or out + x, rows × columns of each.
    public func copyBlock(
        _ out: MatrixBlock, _ x: MatrixBlock, _ size: (rows: Int, columns: Int), accumulate: Bool
    ) {
        let (rows, columns) = size
        let to = floats(out.tensor) + out.offset
        let from = floats(x.tensor) + x.offset
        let blocks = (columns - 1) / elementGrain + 1  // per row
        parallel(rows * blocks, grain: rowGrain(columns)) { range in
            for index in range {
                let (row, first) = (index / blocks, index % blocks * elementGrain)
                let (target, source) = (to + row * out.stride + first, from + row * x.stride + first)
                let count = min(elementGrain, columns - first)
                if accumulate {
                    add_to(target, source, count)
                } else {
                    target.update(from: source, count: count)
                }
            }
        }
    }

    /// y ← f(x). y may be x.
    public func activate(_ y: Tensor, _ x: Tensor, _ activation: Activation, count: Int) {
        let loop: (Floats, Floats, Int) -> Void =
            switch activation {
            case .identity: { $0.update(from: $1, count: $2) }
            case .gelu: { gelu_forward($0, $1, $2) }
            case .relu: { relu_forward($0, $1, $2) }
            case .quickGELU: { quick_gelu_forward($0, $1, $2) }
            case .geluTanh: { gelu_tanh_forward($0, $1, $2) }
            case .silu: { silu_forward($0, $1, $2) }
            }
        let (y, x) = (floats(y), floats(x))
        parallel(count, grain: elementGrain) { range in
            loop(y + range.lowerBound, x + range.lowerBound, range.count)
        }
    }

    /// dx ← dy ⊙ f′(x). dx may be dy.
    public func activateBackward(
        _ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ activation: Activation, count: Int
    ) {
        let loop: (Floats, Floats, Floats, Int) -> Void =
            switch activation {
            case .identity: { dx, dy, _, count in dx.update(from: dy, count: count) }
            case .gelu: { gelu_backward($0, $1, $2, $3) }
            case .relu: { relu_backward($0, $1, $2, $3) }
            case .quickGELU: { quick_gelu_backward($0, $1, $2, $3) }
            case .geluTanh: { gelu_tanh_backward($0, $1, $2, $3) }
            case .silu: { silu_backward($0, $1, $2, $3) }
            }
        let (dx, dy) = (floats(dx), floats(dy))
        let x = floats(x)
        parallel(count, grain: elementGrain) { range in
            let first = range.lowerBound
            loop(dx + first, dy + first, x + first, range.count)
        }
    }

    /// y [n, d] ← x ⊙ scale [d] + shift [d]. y may be x.
    public func scaleShift(
        _ y: Tensor, _ x: Tensor, _ scale: Tensor, _ shift: Tensor?, rows n: Int, columns d: Int
    ) {
        let (y, x) = (floats(y), floats(x))  // [n, d]
        let (scale, shift) = (floats(scale), shift.map { floats($0) })  // [d]
        parallel(n, grain: rowGrain(d)) { range in
            let first = range.lowerBound * d
            scale_shift_forward(y + first, x + first, scale, shift, range.count, d)
        }
    }

    /// dScale [d] += Σₙ dy ⊙ x, dShift [d] += Σₙ dy, dx [n, d] ← dy ⊙ scale, in one pass. dx may be dy.
    public func scaleShiftBackward(
        _ dx: Tensor?, _ dScale: Tensor?, _ dShift: Tensor?, _ dy: Tensor, _ x: Tensor, _ scale: Tensor,
        rows n: Int, columns d: Int
    ) {
        let dx = dx.map { floats($0) }  // [n, d]
        let (dy, x) = (floats(dy), floats(x))  // [n, d]
        let scale = floats(scale)  // [d]
        guard dScale != nil || dShift != nil else {
            guard let dx else { return }
            return parallel(n, grain: rowGrain(d)) { range in
                let first = range.lowerBound * d
                scale_shift_forward(dx + first, dy + first, scale, nil, range.count, d)
            }
        }
        sumOfBlocks(n, columns: d, size: 2 * d) { range, sums in
            let first = range.lowerBound * d
            scale_shift_backward(dx.map { $0 + first }, sums, dy + first, x + first, scale, range.count, d)
        } use: { sums in
            if let dScale { add_to(floats(dScale), sums, d) }
            if let dShift { add_to(floats(dShift), sums + d, d) }
        }
    }

    /// y ← y + factor · x.
    public func addScaled(_ y: Tensor, _ x: Tensor, _ factor: Float, count: Int) {
        let (y, x) = (floats(y), floats(x))
        parallel(count, grain: elementGrain) { range in
            let first = range.lowerBound
            residual_add(y + first, y + first, x + first, factor, range.count)
        }
    }

    /// yᵢ ← xᵢ · factor where the mask keeps i, else 0. y may be x.
    public func dropout(_ y: Tensor, _ x: Tensor, _ mask: DropoutMask, count: Int) {
        let (y, x) = (floats(y), floats(x))
        parallel(count, grain: elementGrain) { range in
            let first = range.lowerBound
            dropout_forward(
                y + first, x + first, UInt32(truncatingIfNeeded: first), mask.low, mask.high, mask.threshold,
                mask.factor, range.count)
        }
    }
}
