import CLoops
import TensorCore

// GELU, residual sums and stochastic depth.
//
//     gelu(x) = x Φ(x),  gelu′(x) = Φ(x) + x φ(x),  φ(x) = exp(−x²/2) / √(2π)

extension CPUBackend {
    /// y = x/2 · (1 + erf(x/√2)).
    public func gelu(_ y: Tensor, _ x: Tensor) {
        require(y.count == x.count, "gelu", "from shape \(x.shape) to \(y.shape)")
        let (y, x, count) = (floats(y, "gelu"), floats(x, "gelu"), x.count)
        parallel(count, grain: elementGrain) { range in
            gelu_forward(y + range.lowerBound, x + range.lowerBound, range.count)
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
            let first = range.lowerBound
            gelu_backward(dx + first, dy + first, x + first, range.count)
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
        forEachSample(count, sampleScale, "residualAdd") { factor, range in
            let first = range.lowerBound
            residual_add(out + first, x + first, branch + first, factor, range.count)
        }
    }

    /// out = scale[b] · x, or x. out may be x.
    public func scaleSamples(_ out: Tensor, _ x: Tensor, sampleScale: Tensor?) {
        require(out.count == x.count, "scaleSamples", "from shape \(x.shape) to \(out.shape)")
        let count = x.count
        let (out, x) = (floats(out, "scaleSamples"), floats(x, "scaleSamples"))
        forEachSample(count, sampleScale, "scaleSamples") { factor, range in
            scale_elements(out + range.lowerBound, x + range.lowerBound, factor, range.count)
        }
    }

    /// Calls `body` with parts of 0..<count that lie in one of the equal samples that `scale` [B] has a
    /// factor for each; without it the factor is 1.
    private func forEachSample(
        _ count: Int, _ scale: Tensor?, _ operation: StaticString, _ body: (Float, Range<Int>) -> Void
    ) {
        guard count > 0 else { return }
        let samples = scale?.count ?? 1
        require(
            samples > 0 && count % samples == 0, operation,
            "\(count) elements are not \(samples) equal samples")
        let factors = scale.map { floats($0, operation) }  // [B]
        let size = count / samples
        let blocks = (size - 1) / elementGrain + 1  // per sample
        parallel(samples * blocks, grain: max(1, elementGrain / size)) { range in
            for index in range {
                let first = index % blocks * elementGrain
                let start = index / blocks * size
                body(
                    factors?[index / blocks] ?? 1, start + first..<start + min(size, first + elementGrain))
            }
        }
    }
}
