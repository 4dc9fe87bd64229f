import TensorCore

// θ ← θ (1 − λη);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − η · c₁ · m / (√v · c₂ + ε) (AdamW.cl).

extension OpenCLBackend {
    /// One step over flat tensors [n]; a block of `viewAlignment` elements belongs to one segment.
    public func adamW(
        _ values: Tensor, _ firstMoments: Tensor, _ secondMoments: Tensor,
        _ gradients: Tensor, _ segmentOfBlock: Tensor, _ segments: Tensor, _ settings: AdamWSettings
    ) {
        let n = values.count
        require(
            n % viewAlignment == 0 && firstMoments.count == n && secondMoments.count == n
                && gradients.count == n && segmentOfBlock.count == n / viewAlignment
                && segmentOfBlock.elementType == .int32 && segments.columns == 3, "adamW",
            "θ \(values.shape), m \(firstMoments.shape), v \(secondMoments.shape), g \(gradients.shape), "
                + "blocks \(segmentOfBlock.shape) and segments \(segments.shape) don't fit")
        let blocks = n / viewAlignment
        launch(
            "adam_w", (rowGroups(blocks), 1, 1), values, firstMoments, secondMoments, gradients,
            segmentOfBlock, segments, blocks, Float(settings.learningRate),
            Float(1 - settings.weightDecay * settings.learningRate), Float(settings.beta1),
            Float(1 - settings.beta1), Float(settings.beta2), Float(1 - settings.beta2),
            Float(settings.epsilon))
    }
}
