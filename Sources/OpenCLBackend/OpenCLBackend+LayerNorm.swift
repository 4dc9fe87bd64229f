import TensorCore

// y = (x − mean) · rstd ⊙ weight + bias over the last dimension, and its backward (LayerNorm.cl).

extension OpenCLBackend {
    /// y [n, d], mean and rstd [n] from x [n, d], weight and bias [d].
    public func layerNorm(
        _ y: Tensor, _ mean: Tensor, _ rstd: Tensor, _ x: Tensor, _ weight: Tensor, _ bias: Tensor,
        epsilon: Float
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            y.count == n * d && mean.count == n && rstd.count == n && weight.count == d && bias.count == d,
            "layerNorm",
            "y \(y.shape), mean \(mean.shape), x \(x.shape) and weight \(weight.shape) don't fit")
        launch(
            "layer_norm_forward",
            stored: stored(y, floats: mean, rstd, x, weight, bias, operation: "layerNorm"),
            (rowGroups(n), 1, 1), y, mean, rstd, x, weight, bias, n, d, epsilon)
    }

    /// dx [n, d] is overwritten or added to; dWeight and dBias [d] accumulate.
    public func layerNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dBias: Tensor?, _ dy: Tensor, _ x: Tensor, _ mean: Tensor,
        _ rstd: Tensor, _ weight: Tensor, accumulate: Bool
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            dx.count == n * d && dy.count == n * d && mean.count == n && rstd.count == n
                && weight.count == d && (dWeight?.count ?? d) == d && (dBias?.count ?? d) == d,
            "layerNormBackward",
            "dx \(dx.shape), dy \(dy.shape), x \(x.shape) and weight \(weight.shape) don't fit")
        let stored = stored(
            dy, floats: dx, dWeight, dBias, x, mean, rstd, weight, operation: "layerNormBackward")
        if dWeight != nil || dBias != nil {
            let parts = parts(rows: n, size: 2 * d)
            launch(
                "layer_norm_backward_parameters", stored: stored, (strips(d), parts, 1), scratch, dy, x, mean,
                rstd, n, d)
            if let dWeight { sumParts(dWeight, size: d, stride: 2 * d, parts: parts, accumulate: true) }
            if let dBias {
                sumParts(dBias, size: d, stride: 2 * d, offset: d, parts: parts, accumulate: true)
            }
        }
        launch(
            "layer_norm_backward", stored: stored, (rowGroups(n), 1, 1), dx, dy, x, mean, rstd, weight, n, d,
            accumulate)
    }
}
