import TensorCore

// y = (x − mean) · rstd ⊙ weight + bias over the last dimension, its backward, and RMSNorm, which is without mean and bias
// (LayerNorm.cl).

extension OpenCLBackend {
    /// y [n, d], mean and rstd [n] from x [n, d], weight and bias [d].
    public func layerNorm(
        _ y: Tensor, _ mean: Tensor, _ rstd: Tensor, _ x: Tensor, _ weight: Tensor, _ bias: Tensor,
        epsilon: Float, rows: Int, columns: Int
    ) {
        norm(y, mean, rstd, x, weight, bias, epsilon, rows, columns)
    }

    /// dx [n, d] is overwritten or added to; dWeight and dBias [d] accumulate.
    public func layerNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dBias: Tensor?, _ dy: Tensor, _ x: Tensor, _ mean: Tensor,
        _ rstd: Tensor, _ weight: Tensor, accumulate: Bool, rows: Int, columns: Int
    ) {
        normBackward(dx, dWeight, dBias, dy, x, mean, rstd, weight, accumulate, rows, columns)
    }

    /// y [n, d], rstd [n] from x [n, d], weight [d].
    public func rmsNorm(
        _ y: Tensor, _ rstd: Tensor, _ x: Tensor, _ weight: Tensor, epsilon: Float, rows: Int, columns: Int
    ) {
        norm(y, nil, rstd, x, weight, nil, epsilon, rows, columns)
    }

    /// dx [n, d] is overwritten or added to; dWeight [d] accumulates.
    public func rmsNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dy: Tensor, _ x: Tensor, _ rstd: Tensor, _ weight: Tensor,
        accumulate: Bool, rows: Int, columns: Int
    ) {
        normBackward(dx, dWeight, nil, dy, x, nil, rstd, weight, accumulate, rows, columns)
    }

    private func norm(
        _ y: Tensor, _ mean: Tensor?, _ rstd: Tensor, _ x: Tensor, _ weight: Tensor, _ bias: Tensor?,
        _ epsilon: Float, _ rows: Int, _ columns: Int
    ) {
        launch(
            "layer_norm_forward", stored: y.elementType, (rowGroups(rows), 1, 1), to: y, mean, rstd,
            from: x, weight, bias, with: rows, columns, epsilon, x.elementType != .float32)
    }

    private func normBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dBias: Tensor?, _ dy: Tensor, _ x: Tensor, _ mean: Tensor?,
        _ rstd: Tensor, _ weight: Tensor, _ accumulate: Bool, _ rows: Int, _ columns: Int
    ) {
        let isStored = x.elementType != .float32
        let centred: Float = mean == nil ? 0 : 1
        if dWeight != nil || dBias != nil {
            let parts = parts(rows: rows, size: 2 * columns)
            launch(
                "layer_norm_backward_parameters", stored: dy.elementType, (strips(columns), parts, 1),
                to: scratch, from: dy, x, mean ?? rstd, rstd, with: rows, columns, isStored, centred)
            sumParts([dWeight, dBias], size: columns, parts: parts)
        }
        launch(
            "layer_norm_backward", stored: dy.elementType, (rowGroups(rows), 1, 1), to: dx,
            from: dy, x, mean ?? rstd, rstd, weight, with: rows, columns, accumulate, isStored, centred)
    }
}
