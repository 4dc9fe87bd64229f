import TensorCore

// What other methods than GLoRA put into a transformer, and SGD (Adapters.cl, Reductions.cl).

extension OpenCLBackend {
    /// out ← x, or out + x, rows × columns of each.
    public func copyBlock(
        _ out: MatrixBlock, _ x: MatrixBlock, rows: Int, columns: Int, accumulate: Bool
    ) {
        require(
            out.holds(rows: rows, columns: columns) && x.holds(rows: rows, columns: columns)
                && (rows <= 1 || out.stride >= columns) && out.tensor.elementType == .float32
                && x.tensor.elementType == .float32, "copyBlock",
            "\(rows) × \(columns) from \(x.offset) on every \(x.stride) of \(x.tensor.shape) to \(out.offset) on "
                + "every \(out.stride) of \(out.tensor.shape)")
        let blocks = (columns + 1023) / 1024  // BLOCK of Prelude.cl
        launch(
            "copy_block", (rowGroups(rows * blocks), 1, 1), out.tensor, x.tensor, out.offset, out.stride,
            x.offset, x.stride, rows, columns, accumulate)
    }

    /// y ← f(x). y may be x.
    public func activate(_ y: Tensor, _ x: Tensor, _ activation: Activation) {
        require(y.count == x.count, "activate", "y \(y.shape) and x \(x.shape) differ")
        requireFloats("activate", [y, x])
        let groups = (elementGroups(x.count), 1, 1)
        switch activation {
        case .identity: if y.buffer !== x.buffer { copy(y, x) }
        case .relu: launch("relu_forward", groups, y, x, x.count)
        case .gelu: gelu(y, x)
        case .quickGELU: launch("quick_gelu_forward", groups, y, x, x.count)
        }
    }

    /// dx ← dy ⊙ f′(x). dx may be dy.
    public func activateBackward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ activation: Activation) {
        require(
            dx.count == x.count && dy.count == x.count, "activateBackward",
            "dx \(dx.shape), dy \(dy.shape) and x \(x.shape) differ")
        requireFloats("activateBackward", [dx, dy, x])
        let groups = (elementGroups(x.count), 1, 1)
        switch activation {
        case .identity: if dx.buffer !== dy.buffer { copy(dx, dy) }
        case .relu: launch("relu_backward", groups, dx, dy, x, x.count)
        case .gelu: geluBackward(dx, dy, x)
        case .quickGELU: launch("quick_gelu_backward", groups, dx, dy, x, x.count)
        }
    }

    /// y [n, d] ← x ⊙ scale [d] + shift [d]. y may be x.
    public func scaleShift(_ y: Tensor, _ x: Tensor, _ scale: Tensor, _ shift: Tensor) {
        require(
            y.count == x.count && scale.count == x.columns && shift.count == x.columns, "scaleShift",
            "y \(y.shape), x \(x.shape), scale \(scale.shape) and shift \(shift.shape) don't fit")
        launch(
            "scale_shift_forward", stored: stored(y, x, floats: scale, shift, operation: "scaleShift"),
            (rowGroups(x.rows), 1, 1), y, x, scale, shift, x.rows, x.columns)
    }

    /// dScale [d] += Σₙ dy ⊙ x, dShift [d] += Σₙ dy, dx [n, d] ← dy ⊙ scale. dx may be dy, so it comes last.
    public func scaleShiftBackward(
        _ dx: Tensor?, _ dScale: Tensor?, _ dShift: Tensor?, _ dy: Tensor, _ x: Tensor, _ scale: Tensor
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            (dx?.count ?? x.count) == x.count && dy.count == x.count && scale.count == d
                && (dScale?.count ?? d) == d && (dShift?.count ?? d) == d
                && 2 * d <= OpenCLBackend.scratchCount, "scaleShiftBackward",
            "dx \(dx?.shape ?? []), dy \(dy.shape), x \(x.shape) and scale \(scale.shape) don't fit")
        let stored = stored(dx, dy, x, floats: dScale, dShift, scale, operation: "scaleShiftBackward")
        if dScale != nil || dShift != nil {
            let parts = parts(rows: n, size: 2 * d)
            launch(
                "output_sums", stored: stored, (strips(d), parts, 1), scratch, dy, dScale == nil ? nil : x,
                nil as Tensor?,
                n, d, 0)
            if let dShift { sumParts(dShift, size: d, stride: 2 * d, parts: parts, accumulate: true) }
            if let dScale {
                sumParts(dScale, size: d, stride: 2 * d, offset: d, parts: parts, accumulate: true)
            }
        }
        if let dx {
            launch(
                "scale_shift_forward", stored: stored, (rowGroups(n), 1, 1), dx, dy, scale, nil as Tensor?, n,
                d)
        }
    }

    /// y ← y + factor · x.
    public func addScaled(_ y: Tensor, _ x: Tensor, _ factor: Float) {
        require(y.count == x.count, "addScaled", "y \(y.shape) and x \(x.shape) differ")
        requireFloats("addScaled", [y, x])
        launch("add_scaled", (elementGroups(x.count), 1, 1), y, x, factor, x.count)
    }

    /// yᵢ ← xᵢ / (1 − rate) where the mask keeps i, else 0. y may be x.
    public func dropout(_ y: Tensor, _ x: Tensor, rate: Double, seed: UInt64) {
        require(
            y.count == x.count && (0..<1).contains(rate), "dropout",
            "y \(y.shape) and x \(x.shape) at a rate of \(rate) don't fit")
        requireFloats("dropout", [y, x])
        let mask = DropoutMask(rate: rate, seed: seed)
        launch(
            "dropout_forward", (elementGroups(x.count), 1, 1), y, x, mask.low, mask.high, mask.threshold,
            mask.factor, x.count)
    }

    /// One step over flat tensors [n]; a block of `viewAlignment` elements belongs to one segment.
    public func sgd(
        _ values: Tensor, _ velocity: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: SGDSettings
    ) {
        let n = values.count
        require(
            n % viewAlignment == 0 && velocity.count == n && gradients.count == n
                && segmentOfBlock.count == n / viewAlignment && segmentOfBlock.elementType == .int32
                && segments.columns == 3, "sgd",
            "θ \(values.shape), v \(velocity.shape), g \(gradients.shape), blocks \(segmentOfBlock.shape) and "
                + "segments \(segments.shape) don't fit")
        let blocks = n / viewAlignment
        launch(
            "sgd", (rowGroups(blocks), 1, 1), values, velocity, gradients, segmentOfBlock, segments, blocks,
            Float(settings.learningRate), Float(settings.weightDecay), Float(settings.momentum))
    }
}
