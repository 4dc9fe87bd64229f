import TensorCore

// θ ← θ (1 − λη);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − η · c₁ · m / (√v · c₂ + ε) (AdamW.cl).

extension OpenCLBackend {
    /// One step over flat tensors [n]; a block of `viewAlignment` elements belongs to one segment.
    public func adamW(
        _ values: Tensor, _ firstMoments: Tensor, _ secondMoments: Tensor,
        _ gradients: Tensor, _ segmentOfBlock: Tensor, _ segments: Tensor, _ settings: AdamWSettings,
        blocks: Int
    ) {
        launch(
            "adam_w", (rowGroups(blocks), 1, 1), to: values, firstMoments, secondMoments,
            from: gradients, segmentOfBlock, segments,
            with: blocks, Float(settings.learningRate),
            Float(1 - settings.weightDecay * settings.learningRate),
            Float(settings.beta1), Float(1 - settings.beta1), Float(settings.beta2),
            Float(1 - settings.beta2),
            Float(settings.epsilon))
    }
}
