import TensorCore

// GELU, residual sums and stochastic depth.
//
//     gelu(x) = x Φ(x),  gelu′(x) = Φ(x) + x φ(x),  φ(x) = exp(−x²/2) / √(2π)
//
// Where an output is the input itself the loop is written with one pointer: the compiler keeps a loop over
// two pointers that overlap scalar.

extension CPUBackend {
    /// y = x/2 · (1 + erf(x/√2)).
    public func gelu(_ y: Tensor, _ x: Tensor) {
        require(y.count == x.count, "gelu", "from shape \(x.shape) to \(y.shape)")
        let (y, x, count) = (floats(y, "gelu"), floats(x, "gelu"), x.count)
        parallel(count, grain: elementGrain) { range in
            for i in range { y[i] = x[i] * normalDistribution(x[i]).phi }
        }
    }

    /// dx = dy ⊙ (Φ(x) + x φ(x)). dx may be dy.
    public func geluBackward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor) {
        require(
            dx.count == x.count && dy.count == x.count, "geluBackward",
            "dx \(dx.shape), dy \(dy.shape) and x \(x.shape) differ")
        let count = x.count
        let (dx, dy) = (floats(dx, "geluBackward"), floats(dy, "geluBackward"))
        let x = floats(x, "geluBackward")
        parallel(count, grain: elementGrain) { range in
            if dx == dy {
                for i in range { dx[i] *= geluSlope(x[i]) }
            } else {
                for i in range { dx[i] = dy[i] * geluSlope(x[i]) }
            }
        }
    }

    /// out = x + scale[b] · branch, or x + branch. out may be x.
    public func residualAdd(_ out: Tensor, _ x: Tensor, _ branch: Tensor, sampleScale: Tensor?) {
        require(
            out.count == x.count && branch.count == x.count, "residualAdd",
            "out \(out.shape), x \(x.shape) and branch \(branch.shape) differ")
        let count = x.count
        let (out, x) = (floats(out, "residualAdd"), floats(x, "residualAdd"))
        let branch = floats(branch, "residualAdd")
        guard let sampleScale else {
            return parallel(count, grain: elementGrain) { range in
                if out == x {
                    for i in range { out[i] += branch[i] }
                } else {
                    for i in range { out[i] = x[i] + branch[i] }
                }
            }
        }
        let scale = floats(sampleScale, "residualAdd")  // [B]
        forEachSample(count, samples: sampleScale.count, "residualAdd") { sample, range in
            let factor = scale[sample]
            if out == x {
                for i in range { out[i] += factor * branch[i] }
            } else {
                for i in range { out[i] = x[i] + factor * branch[i] }
            }
        }
    }

    /// out = scale[b] · x. out may be x.
    public func scaleSamples(_ out: Tensor, _ x: Tensor, sampleScale: Tensor) {
        require(out.count == x.count, "scaleSamples", "from shape \(x.shape) to \(out.shape)")
        let count = x.count
        let (out, x) = (floats(out, "scaleSamples"), floats(x, "scaleSamples"))
        let scale = floats(sampleScale, "scaleSamples")  // [B]
        forEachSample(count, samples: sampleScale.count, "scaleSamples") { sample, range in
            let factor = scale[sample]
            if out == x {
                for i in range { out[i] *= factor }
            } else {
                for i in range { out[i] = factor * x[i] }
            }
        }
    }

    /// Calls `body` with parts of 0..<count that lie in one of `samples` equal samples each.
    private func forEachSample(
        _ count: Int, samples: Int, _ operation: StaticString, _ body: (Int, Range<Int>) -> Void
    ) {
        guard count > 0 else { return }
        require(
            samples > 0 && count % samples == 0, operation,
            "\(count) elements are not \(samples) equal samples")
        let size = count / samples
        let blocks = (size - 1) / elementGrain + 1  // per sample
        parallel(samples * blocks, grain: max(1, elementGrain / size)) { range in
            for index in range {
                let first = index % blocks * elementGrain
                let start = index / blocks * size
                body(index / blocks, start + first..<start + min(size, first + elementGrain))
            }
        }
    }
}

/// gelu′(x) = Φ(x) + x φ(x).
@inline(__always)
private func geluSlope(_ x: Float) -> Float {
    let (phi, e) = normalDistribution(x)
    return phi + x * e * 0.398_942_280_4
}
