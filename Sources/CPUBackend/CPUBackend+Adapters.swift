import CLoops
import TensorCore

// What other methods than GLoRA put into a transformer: blocks of tensors, bottlenecks, scaled and shifted features,
// dropout; and SGD.
//
//     y = x ⊙ scale + shift;  dScale = Σₙ dy ⊙ x, dShift = Σₙ dy, dx = dy ⊙ scale
//     v ← μv + (g + λθ);  θ ← θ − ηv

extension CPUBackend {
    /// out ← x, or out + x, rows × columns of each.
    public func copyBlock(
        _ out: MatrixBlock, _ x: MatrixBlock, rows: Int, columns: Int, accumulate: Bool
    ) {
        require(
            out.holds(rows: rows, columns: columns) && x.holds(rows: rows, columns: columns)
                && (rows <= 1 || out.stride >= columns), "copyBlock",
            "\(rows) × \(columns) from \(x.offset) on every \(x.stride) of \(x.tensor.shape) to \(out.offset) on "
                + "every \(out.stride) of \(out.tensor.shape)")
        guard rows > 0, columns > 0 else { return }
        let to = floats(out.tensor, "copyBlock") + out.offset
        let from = floats(x.tensor, "copyBlock") + x.offset
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
    public func activate(_ y: Tensor, _ x: Tensor, _ activation: Activation) {
        require(y.count == x.count, "activate", "from shape \(x.shape) to \(y.shape)")
        let loop: (Floats, Floats, Int) -> Void
        switch activation {
        case .identity: return y.buffer === x.buffer ? () : copy(y, x)
        case .gelu: return gelu(y, x)
        case .relu: loop = { relu_forward($0, $1, $2) }
        case .quickGELU: loop = { quick_gelu_forward($0, $1, $2) }
        }
        let (y, x, count) = (floats(y, "activate"), floats(x, "activate"), x.count)
        parallel(count, grain: elementGrain) { range in
            loop(y + range.lowerBound, x + range.lowerBound, range.count)
        }
    }

    /// dx ← dy ⊙ f′(x). dx may be dy.
    public func activateBackward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ activation: Activation) {
        require(
            dx.count == x.count && dy.count == x.count, "activateBackward",
            "dx \(dx.shape), dy \(dy.shape) and x \(x.shape) differ")
        let loop: (Floats, Floats, Floats, Int) -> Void
        switch activation {
        case .identity: return dx.buffer === dy.buffer ? () : copy(dx, dy)
        case .gelu: return geluBackward(dx, dy, x)
        case .relu: loop = { relu_backward($0, $1, $2, $3) }
        case .quickGELU: loop = { quick_gelu_backward($0, $1, $2, $3) }
        }
        let count = x.count
        let (dx, dy) = (floats(dx, "activateBackward"), floats(dy, "activateBackward"))
        let x = floats(x, "activateBackward")
        parallel(count, grain: elementGrain) { range in
            let first = range.lowerBound
            loop(dx + first, dy + first, x + first, range.count)
        }
    }

    /// y [n, d] ← x ⊙ scale [d] + shift [d]. y may be x.
    public func scaleShift(_ y: Tensor, _ x: Tensor, _ scale: Tensor, _ shift: Tensor) {
        let (n, d) = (x.rows, x.columns)
        require(
            y.count == x.count && scale.count == d && shift.count == d, "scaleShift",
            "y \(y.shape), x \(x.shape), scale \(scale.shape) and shift \(shift.shape) don't fit")
        let (y, x) = (floats(y, "scaleShift"), floats(x, "scaleShift"))  // [n, d]
        let (scale, shift) = (floats(scale, "scaleShift"), floats(shift, "scaleShift"))  // [d]
        parallel(n, grain: rowGrain(d)) { range in
            let first = range.lowerBound * d
            scale_shift_forward(y + first, x + first, scale, shift, range.count, d)
        }
    }

    /// dScale [d] += Σₙ dy ⊙ x, dShift [d] += Σₙ dy, dx [n, d] ← dy ⊙ scale, in one pass. dx may be dy.
    public func scaleShiftBackward(
        _ dx: Tensor?, _ dScale: Tensor?, _ dShift: Tensor?, _ dy: Tensor, _ x: Tensor, _ scale: Tensor
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            (dx?.count ?? x.count) == x.count && dy.count == x.count && scale.count == d
                && (dScale?.count ?? d) == d && (dShift?.count ?? d) == d, "scaleShiftBackward",
            "dx \(dx?.shape ?? []), dy \(dy.shape), x \(x.shape) and scale \(scale.shape) don't fit")
        let dx = dx.map { floats($0, "scaleShiftBackward") }  // [n, d]
        let (dy, x) = (floats(dy, "scaleShiftBackward"), floats(x, "scaleShiftBackward"))  // [n, d]
        let scale = floats(scale, "scaleShiftBackward")  // [d]
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
            if let dScale { add_to(floats(dScale, "scaleShiftBackward"), sums, d) }
            if let dShift { add_to(floats(dShift, "scaleShiftBackward"), sums + d, d) }
        }
    }

    /// y ← y + factor · x.
    public func addScaled(_ y: Tensor, _ x: Tensor, _ factor: Float) {
        require(y.count == x.count, "addScaled", "y \(y.shape) and x \(x.shape) differ")
        let (y, x, count) = (floats(y, "addScaled"), floats(x, "addScaled"), x.count)
        parallel(count, grain: elementGrain) { range in
            let first = range.lowerBound
            residual_add(y + first, y + first, x + first, factor, range.count)
        }
    }

    /// yᵢ ← xᵢ / (1 − rate) where the mask keeps i, else 0. y may be x.
    public func dropout(_ y: Tensor, _ x: Tensor, rate: Double, seed: UInt64) {
        require(
            y.count == x.count && (0..<1).contains(rate), "dropout",
            "from shape \(x.shape) to \(y.shape) at a rate of \(rate)")
        let mask = DropoutMask(rate: rate, seed: seed)
        let (y, x, count) = (floats(y, "dropout"), floats(x, "dropout"), x.count)
        parallel(count, grain: elementGrain) { range in
            let first = range.lowerBound
            dropout_forward(
                y + first, x + first, UInt32(truncatingIfNeeded: first), mask.low, mask.high, mask.threshold,
                mask.factor, range.count)
        }
    }

    /// One step over flat tensors [n]; a block of `viewAlignment` elements belongs to one segment.
    public func sgd(
        _ values: Tensor, _ velocity: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: SGDSettings
    ) {
        let n = values.count
        require(
            n % viewAlignment == 0 && velocity.count == n && gradients.count == n
                && segmentOfBlock.count == n / viewAlignment && segments.columns == 3, "sgd",
            "θ \(values.shape), v \(velocity.shape), g \(gradients.shape), blocks \(segmentOfBlock.shape) and "
                + "segments \(segments.shape) don't fit")
        let segmentCount = segments.rows
        let (theta, v) = (floats(values, "sgd"), floats(velocity, "sgd"))  // [n]
        let g = floats(gradients, "sgd")  // [n]
        let segmentOfBlock = integers(segmentOfBlock, "sgd")  // [n / viewAlignment]
        let segments = floats(segments, "sgd")  // [count, 3]
        parallel(n / viewAlignment, grain: elementGrain / viewAlignment) { range in
            for block in range {
                let segment = Int(segmentOfBlock[block])
                require(
                    (0..<segmentCount).contains(segment), "sgd", "block \(block) names segment \(segment)")
                guard segments[3 * segment] != 0 else { continue }
                let offset = block * viewAlignment
                sgd_step(
                    theta + offset, v + offset, g + offset, Float(settings.learningRate),
                    Float(settings.weightDecay), Float(settings.momentum), viewAlignment)
            }
        }
    }
}
