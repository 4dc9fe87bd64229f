// What a training needs beside a model: losses and optimizers.

extension Backend {
    /// losses [B] ← −log softmax(logits [B, K])[label], with labels [B] int32 in 0..<K.
    /// dLogits [B, K] ← (softmax − onehot) / B unless it is nil.
    public func softmaxCrossEntropy(_ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ labels: Tensor)
    {
        let (batch, count) = (logits.rows, logits.count)
        require(
            "softmaxCrossEntropy",
            floats: ["losses": (losses, batch), "dLogits": (dLogits, count), "logits": (logits, count)],
            integers: ["labels": (labels, batch)])
        softmaxCrossEntropy(losses, dLogits, logits, labels, batch: batch, classes: logits.columns)
    }

    /// losses [B] of logits and targets [B, K], and unless it is nil dLogits [B, K], the gradient of their mean. `weights` [K] are those
    /// of what is so, nil for 1; only `sigmoid` has them.
    public func targetLoss(
        _ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ targets: Tensor, weights: Tensor? = nil,
        _ kind: TargetLoss
    ) {
        let (batch, count) = (logits.rows, logits.count)
        require(
            "targetLoss", weights == nil || kind == .sigmoid,
            floats: [
                "losses": (losses, batch), "dLogits": (dLogits, count), "logits": (logits, count),
                "targets": (targets, count), "weights": (weights, logits.columns),
            ], " for \(kind)")
        targetLoss(
            losses, dLogits, logits, targets, weights, kind, batch: batch, outputs: logits.columns)
    }

    /// One AdamW step over flat tensors [n] that hold many parameters, each a segment of whole blocks of
    /// `viewAlignment` elements:
    ///
    ///     θ ← θ (1 − dλ·rη);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − rη · c₁ · m / (√v · c₂ + ε)
    ///
    /// `segmentOfBlock` [n / viewAlignment] int32 says which segment a block belongs to; `segments` [count, 4] holds for
    /// each: r, its share of the rate, or 0 to leave it and its moments alone; c₁ = 1/(1−β₁ᵗ); c₂ = 1/√(1−β₂ᵗ); d, its share of
    /// the decay. Each segment has a step count t of its own.
    public func adamW(
        _ values: Tensor, _ firstMoments: Tensor, _ secondMoments: Tensor,
        _ gradients: Tensor, _ segmentOfBlock: Tensor, _ segments: Tensor, _ settings: AdamWSettings
    ) {
        let n = values.count
        require(
            "adamW", n % viewAlignment == 0 && segments.columns == 4,
            floats: [
                "θ": (values, n), "m": (firstMoments, n), "v": (secondMoments, n), "g": (gradients, n),
                "segments": (segments, segments.count),
            ], integers: ["blocks": (segmentOfBlock, n / viewAlignment)])
        adamW(
            values, firstMoments, secondMoments, gradients, segmentOfBlock, segments, settings,
            blocks: n / viewAlignment)
    }

    /// One step of SGD with momentum over flat tensors [n], in segments as `adamW` has them:
    ///
    ///     g ← g + dλθ;  v ← μv + g;  θ ← θ − rηv, with Nesterov's look ahead θ − rη(g + μv)
    ///
    /// Of `segments` [count, 4] the first and last column count, r and d. A velocity of zeros is what PyTorch starts from: its first
    /// v is g + dλθ.
    public func sgd(
        _ values: Tensor, _ velocity: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: SGDSettings
    ) {
        let n = values.count
        require(
            "sgd", n % viewAlignment == 0 && segments.columns == 4,
            floats: [
                "θ": (values, n), "v": (velocity, n), "g": (gradients, n),
                "segments": (segments, segments.count),
            ], integers: ["blocks": (segmentOfBlock, n / viewAlignment)])
        sgd(values, velocity, gradients, segmentOfBlock, segments, settings, blocks: n / viewAlignment)
    }

    /// One step of Lion over flat tensors [n], in segments as `adamW` has them (Chen et al., arXiv 2302.06675):
    ///
    ///     θ ← θ (1 − dλ·rη) − rη sign(β₁m + (1−β₁)g);  m ← β₂m + (1−β₂)g
    ///
    /// Of `segments` [count, 4] the first and last column count, r and d. The sign of 0 is 0.
    public func lion(
        _ values: Tensor, _ moments: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: LionSettings
    ) {
        let n = values.count
        require(
            "lion", n % viewAlignment == 0 && segments.columns == 4,
            floats: [
                "θ": (values, n), "m": (moments, n), "g": (gradients, n),
                "segments": (segments, segments.count),
            ], integers: ["blocks": (segmentOfBlock, n / viewAlignment)])
        lion(values, moments, gradients, segmentOfBlock, segments, settings, blocks: n / viewAlignment)
    }
}
