import TensorCore

// loss = −log softmax(z)[label],  dz = (softmax(z) − onehot) / B (Loss.cl).

extension OpenCLBackend {
    /// losses [B] and, unless nil, dLogits [B, K] from logits [B, K] and labels [B] int32.
    ///
    /// A label outside 0..<K makes its loss a NaN, which ends a training run.
    public func softmaxCrossEntropy(
        _ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ labels: Tensor, batch: Int, classes: Int
    ) {
        launch(
            "softmax_cross_entropy", (rowGroups(batch), 1, 1), to: losses, dLogits, from: logits, labels,
            with: batch, classes)
    }

    /// losses [B] and, unless nil, dLogits [B, K] from logits and targets [B, K].
    public func targetLoss(
        _ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ targets: Tensor, _ weights: Tensor?,
        _ kind: TargetLoss, batch: Int, outputs: Int
    ) {
        let groups = (rowGroups(batch), 1, 1)
        switch kind {
        case .softmax:
            launch(
                "soft_cross_entropy", groups, to: losses, dLogits, from: logits, targets,
                with: batch, outputs)
        case .sigmoid:
            launch(
                "binary_cross_entropy", groups, to: losses, dLogits, from: logits, targets, weights,
                with: batch, outputs)
        case .squared:
            launch(
                "squared_error", groups, to: losses, dLogits, from: logits, targets, with: batch, outputs)
        }
    }
}
