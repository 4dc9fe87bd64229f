import CLoops
import TensorCore

// Residual sums and stochastic depth.

extension CPUBackend {
    /// out = x + scale[b] · branch, or x + branch. out may be x.
    public func residualAdd(_ out: Tensor, _ x: Tensor, _ branch: Tensor, sampleScale: Tensor?, count: Int) {
        let (out, x) = (floats(out), floats(x))
        let branch = floats(branch)
        forEachSample(count, sampleScale) { factor, range in
            let first = range.lowerBound
            residual_add(out + first, x + first, branch + first, factor, range.count)
        }
    }

    /// out = scale[b] · x. out may be x.
    public func scaleSamples(_ out: Tensor, _ x: Tensor, sampleScale: Tensor, count: Int) {
        let (out, x) = (floats(out), floats(x))
        forEachSample(count, sampleScale) { factor, range in
            scale_elements(out + range.lowerBound, x + range.lowerBound, factor, range.count)
        }
    }

    /// Calls `body` with parts of 0..<count that lie in one of the equal samples that `scale` [B] has a
    /// factor for each; without it the factor is 1.
    private func forEachSample(
        _ count: Int, _ scale: Tensor?, _ body: (Float, Range<Int>) -> Void
    ) {
        guard count > 0 else { return }
        let samples = scale?.count ?? 1
        let factors = scale.map { floats($0) }  // [B]
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
