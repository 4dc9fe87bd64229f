import TensorCore

// Operations that handle each element, or each sample's elements, alone (Elementwise.cl).

extension OpenCLBackend {
    /// out ← value.
    public func fill(_ out: Tensor, _ value: Float, count: Int) {
        launch("fill", (elementGroups(count), 1, 1), to: out, with: value, count)
    }

    /// out ← x, of the same count; between float32 and a stored type widened or rounded.
    public func copy(_ out: Tensor, _ x: Tensor, count: Int) {
        // Not clEnqueueCopyBuffer: PoCL copies with one thread.
        let (name, stored) =
            out.elementType == x.elementType
            ? ("copy", x.elementType)
            : out.elementType == .float32
                ? ("copy_widened", x.elementType) : ("copy_rounded", out.elementType)
        launch(name, stored: stored, (elementGroups(count), 1, 1), to: out, from: x, with: count)
    }

    /// out = x + scale[b] · branch, all [B, …]; without `sampleScale` [B], x + branch. out may be x.
    public func residualAdd(_ out: Tensor, _ x: Tensor, _ branch: Tensor, sampleScale: Tensor?, count: Int) {
        // Without a scale the matrix's rows, so that there is work for all.
        let rows = sampleScale?.count ?? x.rows
        launch(
            "residual_add_forward", stored: branch.elementType, (rowGroups(rows), 1, 1), to: out,
            from: x, branch, sampleScale, with: rows, count / max(rows, 1))
    }

    /// out = scale[b] · x, both [B, …], sampleScale [B]. out may be x.
    public func scaleSamples(_ out: Tensor, _ x: Tensor, sampleScale: Tensor, count: Int) {
        let rows = sampleScale.count
        launch(
            "scale_samples", stored: out.elementType, (rowGroups(rows), 1, 1), to: out, from: x, sampleScale,
            with: rows, count / max(rows, 1))
    }
}
