import TensorCore

// Steps of AdamW, SGD and Lion over flat tensors [n]; a block of `viewAlignment` elements belongs to one segment (Optimizers.cl).

extension OpenCLBackend {
    /// One step of AdamW.
    public func adamW(
        _ values: Tensor, _ firstMoments: Tensor, _ secondMoments: Tensor,
        _ gradients: Tensor, _ segmentOfBlock: Tensor, _ segments: Tensor, _ settings: AdamWSettings,
        blocks: Int
    ) {
        launch(
            "adam_w", (rowGroups(blocks), 1, 1), to: values, firstMoments, secondMoments,
            from: gradients, segmentOfBlock, segments,
            with: blocks, Float(settings.learningRate), Float(settings.weightDecay),
            Float(settings.beta1), Float(1 - settings.beta1), Float(settings.beta2),
            Float(1 - settings.beta2), Float(settings.epsilon))
    }

    /// One step of SGD with momentum.
    public func sgd(
        _ values: Tensor, _ velocity: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: SGDSettings, blocks: Int
    ) {
        launch(
            "sgd", (rowGroups(blocks), 1, 1), to: values, velocity, from: gradients, segmentOfBlock, segments,
            with: blocks, Float(settings.learningRate), Float(settings.weightDecay),
            Float(settings.momentum), settings.nesterov)
    }

    /// One step of Lion.
    public func lion(
        _ values: Tensor, _ moments: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: LionSettings, blocks: Int
    ) {
        launch(
            "lion", (rowGroups(blocks), 1, 1), to: values, moments, from: gradients, segmentOfBlock, segments,
            with: blocks, Float(settings.learningRate), Float(settings.weightDecay),
            Float(settings.beta1), Float(1 - settings.beta1), Float(settings.beta2),
            Float(1 - settings.beta2))
    }
}
