import CLoops
import TensorCore

// y = x̂ ⊙ w + b with x̂ = (x − mean) · rstd over the last dimension, rstd = 1 / √(var + ε), var
// biased.
//
// With g = dy ⊙ w:  dx = rstd · (g − mean(g) − x̂ · mean(g ⊙ x̂)),  dw = Σₙ dy ⊙ x̂,  db
// = Σₙ dy.

extension CPUBackend {
    /// y [n, d], mean [n], rstd [n] from x [n, d].
    public func layerNorm(
        _ y: Tensor, _ mean: Tensor, _ rstd: Tensor,
        _ x: Tensor, _ weight: Tensor, _ bias: Tensor, epsilon: Float
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            y.count == x.count && mean.count == n && rstd.count == n && weight.count == d && bias.count == d,
            "layerNorm",
            "y \(y.shape), mean \(mean.shape), rstd \(rstd.shape), x \(x.shape), weight \(weight.shape)")
        let (y, x) = (floats(y, "layerNorm"), floats(x, "layerNorm"))  // [n, d]
        let (mean, rstd) = (floats(mean, "layerNorm"), floats(rstd, "layerNorm"))  // [n]
        let (w, b) = (floats(weight, "layerNorm"), floats(bias, "layerNorm"))  // [d]
        parallel(n, grain: rowGrain(d)) { range in
            let row = range.lowerBound
            layer_norm_forward(
                y + row * d, mean + row, rstd + row, x + row * d, w, b, range.count, d, epsilon)
        }
    }

    /// dx [n, d], or dx + … with `accumulate`; dWeight and dBias [d] accumulate. One pass over dy and x.
    public func layerNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dBias: Tensor?,
        _ dy: Tensor, _ x: Tensor, _ mean: Tensor, _ rstd: Tensor, _ weight: Tensor, accumulate: Bool
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            dx.count == x.count && dy.count == x.count && mean.count == n && rstd.count == n
                && weight.count == d && (dWeight?.count ?? d) == d && (dBias?.count ?? d) == d,
            "layerNormBackward",
            "dx \(dx.shape), dy \(dy.shape), x \(x.shape), mean \(mean.shape), weight \(weight.shape)")
        let dx = floats(dx, "layerNormBackward")  // [n, d]
        let (dy, x) = (floats(dy, "layerNormBackward"), floats(x, "layerNormBackward"))  // [n, d]
        let (mean, rstd) = (floats(mean, "layerNormBackward"), floats(rstd, "layerNormBackward"))  // [n]
        let w = floats(weight, "layerNormBackward")  // [d]
        func rows(_ range: Range<Int>, _ sums: Floats?) {
            let (row, at) = (range.lowerBound, range.lowerBound * d)
            layer_norm_backward(
                dx + at, sums, dy + at, x + at, mean + row, rstd + row, w, range.count, d,
                accumulate ? 1 : 0)
        }
        guard dWeight != nil || dBias != nil else {
            return parallel(n, grain: rowGrain(d)) { rows($0, nil) }
        }
        sumOfBlocks(n, columns: d, size: 2 * d) { range, sums in
            rows(range, sums)
        } use: { sums in
            if let dWeight { add_to(floats(dWeight, "layerNormBackward"), sums, d) }
            if let dBias { add_to(floats(dBias, "layerNormBackward"), sums + d, d) }
        }
    }
}
