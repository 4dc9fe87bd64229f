import TensorCore

// What other methods than GLoRA put into a transformer (Adapters.cl, Activations.cl, Gelu.cl, Reductions.cl).

extension OpenCLBackend {
    /// out ← x, or out + x, rows × columns of each.
    public func copyBlock(
        _ out: MatrixBlock, _ x: MatrixBlock, _ size: (rows: Int, columns: Int), accumulate: Bool
    ) {
        let blocks = (size.columns + 1023) / 1024  // BLOCK of Prelude.cl
        launch(
            "copy_block", stored: out.tensor.elementType, (rowGroups(size.rows * blocks), 1, 1),
            to: out.tensor, from: x.tensor, with: out.offset, out.stride, x.offset, x.stride, size.rows,
            size.columns, accumulate)
    }

    /// y ← f(x). y may be x.
    public func activate(_ y: Tensor, _ x: Tensor, _ activation: Activation, count: Int) {
        let groups = (elementGroups(count), 1, 1)
        if activation == .gelu {
            launch("gelu_forward", stored: x.elementType, groups, to: y, from: x, with: count)
        } else {
            launch(
                "activate_forward", stored: x.elementType, groups, to: y, from: x, with: activation.code,
                count)
        }
    }

    /// dx ← dy ⊙ f′(x). dx may be dy.
    public func activateBackward(
        _ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ activation: Activation, count: Int
    ) {
        let groups = (elementGroups(count), 1, 1)
        if activation == .gelu {
            launch("gelu_backward", stored: x.elementType, groups, to: dx, from: dy, x, with: count)
        } else {
            launch(
                "activate_backward", stored: x.elementType, groups, to: dx, from: dy, x,
                with: activation.code, count)
        }
    }

    /// y [n, d] ← x ⊙ scale [d] + shift [d]. y may be x.
    public func scaleShift(
        _ y: Tensor, _ x: Tensor, _ scale: Tensor, _ shift: Tensor?, rows: Int, columns: Int
    ) {
        launch(
            "scale_shift_forward", stored: x.elementType, (rowGroups(rows), 1, 1), to: y, from: x, scale,
            shift,
            with: rows, columns)
    }

    /// dScale [d] += Σₙ dy ⊙ x, dShift [d] += Σₙ dy, dx [n, d] ← dy ⊙ scale. dx may be dy, so it comes last.
    public func scaleShiftBackward(
        _ dx: Tensor?, _ dScale: Tensor?, _ dShift: Tensor?, _ dy: Tensor, _ x: Tensor, _ scale: Tensor,
        rows: Int, columns: Int
    ) {
        if dScale != nil || dShift != nil {
            requireScratch(2 * columns, "scaleShiftBackward")
            let parts = parts(rows: rows, size: 2 * columns)
            launch(
                "output_sums", stored: dy.elementType, (strips(columns), parts, 1), to: scratch,
                from: dy, dScale == nil ? nil : x, nil as Tensor?, with: rows, columns, 0)
            sumParts([dShift, dScale], size: columns, parts: parts)
        }
        if let dx {
            launch(
                "scale_shift_forward", stored: dy.elementType, (rowGroups(rows), 1, 1), to: dx,
                from: dy, scale, nil as Tensor?, with: rows, columns)
        }
    }

    /// y ← y + factor · x.
    public func addScaled(_ y: Tensor, _ x: Tensor, _ factor: Float, count: Int) {
        launch("add_scaled", (elementGroups(count), 1, 1), to: y, from: x, with: factor, count)
    }

    /// yᵢ ← xᵢ · factor where the mask keeps i, else 0. y may be x.
    public func dropout(_ y: Tensor, _ x: Tensor, _ mask: DropoutMask, count: Int) {
        launch(
            "dropout_forward", (elementGroups(count), 1, 1), to: y, from: x,
            with: mask.low, mask.high, mask.threshold, mask.factor, count)
    }
}

extension Activation {
    /// As kernels are told: ACTIVATION_… of Activations.cl.
    var code: Int {
        switch self {
        case .identity: 0
        case .relu: 1
        case .gelu: 2
        case .quickGELU: 3
        case .geluTanh: 4
        case .silu: 5
        }
    }
}
