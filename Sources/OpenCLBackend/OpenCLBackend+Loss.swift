import TensorCore

// loss = −log softmax(z)[label],  dz = (softmax(z) − onehot) / B (Loss.cl).

extension OpenCLBackend {
    /// losses [B] and, unless nil, dLogits [B, K] from logits [B, K] and labels [B] int32.
    ///
    /// A label outside 0..<K makes its loss a NaN, which ends a training run.
    public func softmaxCrossEntropy(_ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ labels: Tensor)
    {
        let (n, k) = (logits.rows, logits.columns)
        require(
            losses.count == n && labels.count == n && labels.elementType == .int32
                && (dLogits?.count ?? n * k) == n * k, "softmaxCrossEntropy",
            "losses \(losses.shape), logits \(logits.shape) and labels \(labels.shape) don't fit")
        launch(
            "softmax_cross_entropy", (rowGroups(n), 1, 1), losses, dLogits, logits, labels, n, k)
    }
}
