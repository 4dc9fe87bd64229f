import TensorCore

// y = x̂ ⊙ w + b with x̂ = (x − mean) · rstd over the last dimension, rstd = 1 / √(var + ε), var
// biased.
//
// With g = dy ⊙ w:  dx = rstd · (g − mean(g) − x̂ · mean(g ⊙ x̂)),  dw = Σₙ dy ⊙ x̂,  db
// = Σₙ dy.

extension CPUBackend {
    /// The variance is taken around the mean in a second pass: E[x²] − mean² loses all digits when the
    /// mean is large.
    public func layerNorm(
        _ y: Tensor, _ mean: Tensor, _ rstd: Tensor,
        _ x: Tensor, _ weight: Tensor, _ bias: Tensor, epsilon: Float
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            y.count == x.count && mean.count == n && rstd.count == n && weight.count == d && bias.count == d,
            "layerNorm",
            "y \(y.shape), mean \(mean.shape), rstd \(rstd.shape), x \(x.shape), weight \(weight.shape)")
        let (firstY, firstX) = (floats(y, "layerNorm"), floats(x, "layerNorm"))  // [n, d]
        let (mean, rstd) = (floats(mean, "layerNorm"), floats(rstd, "layerNorm"))  // [n]
        let (w, b) = (floats(weight, "layerNorm"), floats(bias, "layerNorm"))  // [d]
        parallel(n, grain: rowGrain(d)) { range in
            for row in range {
                let x = firstX + row * d
                let y = firstY + row * d
                let m = sum(x, d) / Float(d)
                let r = 1 / (squaredDeviation(x, from: m, d) / Float(d) + epsilon).squareRoot()
                for i in 0..<d { y[i] = (x[i] - m) * r * w[i] + b[i] }
                mean[row] = m
                rstd[row] = r
            }
        }
    }

    /// dx [n, d], or dx + … with `accumulate`; dWeight and dBias [d] accumulate.
    public func layerNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dBias: Tensor?,
        _ dy: Tensor, _ x: Tensor, _ mean: Tensor, _ rstd: Tensor, _ weight: Tensor, accumulate: Bool
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            dx.count == x.count && dy.count == x.count && mean.count == n && rstd.count == n
                && weight.count == d,
            "layerNormBackward",
            "dx \(dx.shape), dy \(dy.shape), x \(x.shape), mean \(mean.shape), weight \(weight.shape)")
        let firstDx = floats(dx, "layerNormBackward")  // [n, d]
        let (firstDy, firstX) = (floats(dy, "layerNormBackward"), floats(x, "layerNormBackward"))  // [n, d]
        let (mean, rstd) = (floats(mean, "layerNormBackward"), floats(rstd, "layerNormBackward"))  // [n]
        let w = floats(weight, "layerNormBackward")  // [d]
        if let dWeight {
            require(dWeight.count == d, "layerNormBackward", "dWeight \(dWeight.shape) for rows of \(d)")
            let out = floats(dWeight, "layerNormBackward")
            columnSums(out, outputs: 1, rows: n, columns: d, accumulate: true) { row, columns, block in
                let x = firstX + row * d + columns.lowerBound
                let dy = firstDy + row * d + columns.lowerBound
                let (m, r) = (mean[row], rstd[row])
                for i in 0..<columns.count { block[i] += dy[i] * ((x[i] - m) * r) }
            }
        }
        if let dBias { sumRows(dBias, dy.reshaped([n, d]), accumulate: true) }
        parallel(n, grain: rowGrain(d)) { range in
            for row in range {
                let x = firstX + row * d
                let dy = firstDy + row * d
                let dx = firstDx + row * d
                let (m, r) = (mean[row], rstd[row])
                let meanG = dot(dy, w, d) / Float(d)
                let slope = deviationDot(x, from: m, dy, w, d) * r / Float(d) * r
                if accumulate {
                    for i in 0..<d { dx[i] += r * (dy[i] * w[i] - meanG - (x[i] - m) * slope) }
                } else {
                    for i in 0..<d { dx[i] = r * (dy[i] * w[i] - meanG - (x[i] - m) * slope) }
                }
            }
        }
    }
}
