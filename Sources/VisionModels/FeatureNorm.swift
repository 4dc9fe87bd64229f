import TensorCore

/// A batch norm of features [B, D] without weights (eps 1e-6), as AdaptFormer has it before its head. Over the batch it is a LayerNorm
/// of the transpose, whose statistics go into the running ones with momentum 0.1; in evaluation the running statistics count.
/// Source: AdaptFormer, main_image.py.
struct FeatureNorm {
    let runningMean, runningVariance: Parameter  // [D]
    let backend: any Backend

    struct Memory {
        let transposed, normed, gradient: Tensor  // [D, B]
        let mean, rstd: Tensor  // [D]
        let ones, zeros: Tensor  // [B]
        let identity: Tensor  // [B, B]
        let scale, shift: Tensor  // [D], in evaluation
        let output: Tensor  // [B, D]
    }

    func memory(batch b: Int, _ workspace: Workspace) throws -> Memory {
        let d = runningMean.value.count
        func own(_ shape: Int...) throws -> Tensor { try workspace.own(shape) }
        return Memory(
            transposed: try own(d, b), normed: try own(d, b), gradient: try own(d, b), mean: try own(d),
            rstd: try own(d), ones: try own(b), zeros: try own(b), identity: try own(b, b),
            scale: try own(d), shift: try own(d), output: try own(b, d))
    }

    /// `m.output` [B, D] from the features.
    func forward(_ m: Memory, _ features: Tensor, isTraining: Bool) {
        let (b, d) = (features.shape[0], features.shape[1])
        var (mean, variance) = (backend.values(runningMean.value), backend.values(runningVariance.value))
        guard isTraining, b > 1 else {
            let rstd = variance.map { 1 / ($0 + 1e-6).squareRoot() }
            backend.upload(m.scale, rstd)
            backend.upload(m.shift, zip(mean, rstd).map { -$0 * $1 })
            return backend.scaleShift(m.output, features, m.scale, m.shift)
        }
        backend.fill(m.ones, 1)
        backend.fill(m.zeros, 0)
        backend.upload(m.identity, (0..<b * b).map { $0 / b == $0 % b ? 1 : 0 as Float })
        transpose(m.transposed, features, m)
        backend.layerNorm(m.normed, m.mean, m.rstd, m.transposed, m.ones, m.zeros, epsilon: 1e-6)
        transposeBack(m.output, m.normed, m)
        let (batchMean, batchRstd) = (backend.values(m.mean), backend.values(m.rstd))
        let unbiased = Float(b) / Float(b - 1)
        for index in 0..<d {
            let batchVariance = max(1 / (batchRstd[index] * batchRstd[index]) - 1e-6, 0) * unbiased
            mean[index] += 0.1 * (batchMean[index] - mean[index])
            variance[index] += 0.1 * (batchVariance - variance[index])
        }
        backend.upload(runningMean.value, mean)
        backend.upload(runningVariance.value, variance)
    }

    /// dy [B, D] from that of the output to that of the features.
    func backward(_ dy: Tensor, _ m: Memory, _ features: Tensor, isTraining: Bool) {
        guard isTraining, features.shape[0] > 1 else {
            return backend.scaleShiftBackward(dy, nil, nil, dy, features, m.scale)
        }
        transpose(m.gradient, dy, m)
        backend.layerNormBackward(
            m.normed, nil, nil, m.gradient, m.transposed, m.mean, m.rstd, m.ones, accumulate: false)
        transposeBack(dy, m.normed, m)
    }

    /// head((x − μ) · rstd) as one Linear: folds the running statistics into the head's weight and bias.
    func fold(into tensors: inout [String: HostTensor]) {
        guard let weight = tensors["head.weight"], let bias = tensors["head.bias"] else { return }
        let (mean, variance) = (backend.values(runningMean.value), backend.values(runningVariance.value))
        let width = mean.count
        let folded = weight.values.enumerated().map { index, value in
            value / (variance[index % width] + 1e-6).squareRoot()
        }
        tensors["head.weight"]!.values = folded
        tensors["head.bias"]!.values = bias.values.enumerated().map { row, value in
            value
                - Float(
                    (0..<width).reduce(0.0) { $0 + Double(folded[row * width + $1]) * Double(mean[$1]) })
        }
    }

    // A product with the identity: exact (but in tf32, which rounds its operands), and two of them a step are nothing.
    private func transpose(_ out: Tensor, _ x: Tensor, _ m: Memory) {
        backend.matmul(out, x, m.identity, transposeA: true, transposeB: false, accumulate: false)
    }

    private func transposeBack(_ out: Tensor, _ x: Tensor, _ m: Memory) {
        backend.matmul(out, m.identity, x, transposeA: false, transposeB: true, accumulate: false)
    }
}
