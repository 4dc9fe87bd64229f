import TensorCore

// Operations that handle each element, or each sample's elements, alone (Elementwise.cl, Gelu.cl).

extension OpenCLBackend {
    /// out ← value.
    public func fill(_ out: Tensor, _ value: Float) {
        require(
            out.elementType != .bfloat16 && out.elementType != .float16, "fill", "out is \(out.elementType)")
        launch("fill", (elementGroups(out.count), 1, 1), out, value, out.count)
    }

    /// y = x Φ(x), the exact GELU.
    public func gelu(_ y: Tensor, _ x: Tensor) {
        require(y.count == x.count, "gelu", "y \(y.shape) and x \(x.shape) differ")
        launch(
            "gelu_forward", stored: stored(y, x, operation: "gelu"), (elementGroups(x.count), 1, 1), y, x,
            x.count)
    }

    /// dx = dy ⊙ (Φ(x) + x φ(x)). dx may be dy.
    public func geluBackward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor) {
        require(
            dx.count == x.count && dy.count == x.count, "geluBackward",
            "dx \(dx.shape), dy \(dy.shape) and x \(x.shape) differ")
        launch(
            "gelu_backward", stored: stored(dx, dy, x, operation: "geluBackward"),
            (elementGroups(x.count), 1, 1), dx, dy, x, x.count)
    }

    /// out = x + scale[b] · branch, all [B, …]; without `sampleScale` [B], x + branch. out may be x.
    public func residualAdd(_ out: Tensor, _ x: Tensor, _ branch: Tensor, sampleScale: Tensor?) {
        require(
            out.count == x.count && branch.count == x.count, "residualAdd",
            "out \(out.shape), x \(x.shape) and branch \(branch.shape) differ")
        let (rows, size) = sampleSize(x, sampleScale, "residualAdd")
        launch(
            "residual_add_forward",
            stored: stored(branch, floats: out, x, sampleScale, operation: "residualAdd"),
            (rowGroups(rows), 1, 1), out, x, branch, sampleScale, rows, size)
    }

    /// out = scale[b] · x, both [B, …], sampleScale [B]; without it a copy. out may be x.
    public func scaleSamples(_ out: Tensor, _ x: Tensor, sampleScale: Tensor?) {
        require(out.count == x.count, "scaleSamples", "out \(out.shape) and x \(x.shape) differ")
        let (rows, size) = sampleSize(x, sampleScale, "scaleSamples")
        launch(
            "scale_samples", stored: stored(out, floats: x, sampleScale, operation: "scaleSamples"),
            (rowGroups(rows), 1, 1), out, x, sampleScale, rows, size)
    }

    /// Samples and elements of each; without a scale, the matrix's rows, so that there is work for all.
    private func sampleSize(_ x: Tensor, _ scale: Tensor?, _ operation: String) -> (Int, Int) {
        guard let scale else { return (x.rows, x.columns) }
        require(
            scale.count == x.shape.first ?? 1, operation, "x \(x.shape) and scale \(scale.shape) don't fit")
        return (scale.count, x.count / max(scale.count, 1))
    }
}
