import CLoops
import TensorCore

// y = x̂ ⊙ w + b with x̂ = (x − mean) · rstd over the last dimension, rstd = 1 / √(var + ε), var
// biased.
//
// With g = dy ⊙ w:  dx = rstd · (g − mean(g) − x̂ · mean(g ⊙ x̂)),  dw = Σₙ dy ⊙ x̂,  db
// = Σₙ dy.
//
// RMSNorm is the same without mean and bias: x̂ = x · rstd, rstd = 1 / √(mean(x²) + ε),  dx = rstd · (g − x̂ · mean(g ⊙ x̂)).

extension CPUBackend {
    /// y [n, d], mean [n], rstd [n] from x [n, d].
    public func layerNorm(
        _ y: Tensor, _ mean: Tensor, _ rstd: Tensor,
        _ x: Tensor, _ weight: Tensor, _ bias: Tensor, epsilon: Float, rows n: Int, columns d: Int
    ) {
        let (y, x) = (floats(y), floats(x))  // [n, d]
        let (mean, rstd) = (floats(mean), floats(rstd))  // [n]
        let (w, b) = (floats(weight), floats(bias))  // [d]
        parallel(n, grain: rowGrain(d)) { range in
            let row = range.lowerBound
            layer_norm_forward(
                y + row * d, mean + row, rstd + row, x + row * d, w, b, range.count, d, epsilon)
        }
    }

    /// dx [n, d], or dx + … with `accumulate`; dWeight and dBias [d] accumulate. One pass over dy and x.
    public func layerNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dBias: Tensor?,
        _ dy: Tensor, _ x: Tensor, _ mean: Tensor, _ rstd: Tensor, _ weight: Tensor, accumulate: Bool,
        rows n: Int, columns d: Int
    ) {
        let dx = floats(dx)  // [n, d]
        let (dy, x) = (floats(dy), floats(x))  // [n, d]
        let (mean, rstd) = (floats(mean), floats(rstd))  // [n]
        let w = floats(weight)  // [d]
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
            if let dWeight { add_to(floats(dWeight), sums, d) }
            if let dBias { add_to(floats(dBias), sums + d, d) }
        }
    }

    /// y [n, d], rstd [n] from x [n, d].
    public func rmsNorm(
        _ y: Tensor, _ rstd: Tensor, _ x: Tensor, _ weight: Tensor, epsilon: Float, rows n: Int,
        columns d: Int
    ) {
        let (y, x) = (floats(y), floats(x))  // [n, d]
        let (rstd, w) = (floats(rstd), floats(weight))  // [n], [d]
        parallel(n, grain: rowGrain(d)) { range in
            let row = range.lowerBound
            rms_norm_forward(y + row * d, rstd + row, x + row * d, w, range.count, d, epsilon)
        }
    }

    /// dx [n, d], or dx + … with `accumulate`; dWeight [d] accumulates. One pass over dy and x.
    public func rmsNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dy: Tensor, _ x: Tensor, _ rstd: Tensor, _ weight: Tensor,
        accumulate: Bool, rows n: Int, columns d: Int
    ) {
        let dx = floats(dx)  // [n, d]
        let (dy, x) = (floats(dy), floats(x))  // [n, d]
        let (rstd, w) = (floats(rstd), floats(weight))  // [n], [d]
        func rows(_ range: Range<Int>, _ sums: Floats?) {
            let (row, at) = (range.lowerBound, range.lowerBound * d)
            rms_norm_backward(
                dx + at, sums, dy + at, x + at, rstd + row, w, range.count, d, accumulate ? 1 : 0)
        }
        guard let dWeight else { return parallel(n, grain: rowGrain(d)) { rows($0, nil) } }
        sumOfBlocks(n, columns: d, size: d) { range, sums in
            rows(range, sums)
        } use: { sums in
            add_to(floats(dWeight), sums, d)
        }
    }
}
