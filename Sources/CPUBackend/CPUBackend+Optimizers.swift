import CLoops
import TensorCore

//     AdamW   θ ← θ (1 − λη);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − η · c₁ · m / (√v · c₂ + ε)
//     SGD     g ← g + λθ;  v ← μv + g;  θ ← θ − ηv, or with Nesterov's look ahead θ − η(g + μv)
//     Lion    θ ← θ (1 − λη) − η sign(β₁m + (1−β₁)g);  m ← β₂m + (1−β₂)g
//
// with a segment's own shares of η and λ, which a row of `segments` [count, 4] = (r, c₁, c₂, d) holds.
//
// Sources: Loshchilov and Hutter, arXiv 1711.05101, the order of operations is PyTorch's; `torch.optim.SGD`; Chen et al., arXiv
// 2302.06675.

extension CPUBackend {
    /// One step over flat tensors [n]; a block of `viewAlignment` elements belongs to one segment.
    public func adamW(
        _ values: Tensor, _ firstMoments: Tensor, _ secondMoments: Tensor,
        _ gradients: Tensor, _ segmentOfBlock: Tensor, _ segments: Tensor, _ settings: AdamWSettings,
        blocks: Int
    ) {
        let (theta, g) = (floats(values), floats(gradients))  // [n]
        let (m, v) = (floats(firstMoments), floats(secondMoments))  // [n]
        // In double: 1 − 0.999 in float32 is off by 5e-5, which v would inherit.
        let (beta1, beta2) = (Float(settings.beta1), Float(settings.beta2))
        let (rest1, rest2) = (Float(1 - settings.beta1), Float(1 - settings.beta2))
        let epsilon = Float(settings.epsilon)
        forEachBlock(blocks, segmentOfBlock, segments, "adamW") { at, segment in
            let rate = settings.learningRate * Double(segment[0])
            let decay = Float(1 - settings.weightDecay * Double(segment[3]) * rate)
            adamw_step(
                theta + at, m + at, v + at, g + at, beta1, rest1, beta2, rest2, decay,
                Float(rate * Double(segment[1])), segment[2], epsilon, viewAlignment)
        }
    }

    /// One step over flat tensors [n]; a block of `viewAlignment` elements belongs to one segment.
    public func sgd(
        _ values: Tensor, _ velocity: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: SGDSettings, blocks: Int
    ) {
        let (theta, v, g) = (floats(values), floats(velocity), floats(gradients))  // [n]
        forEachBlock(blocks, segmentOfBlock, segments, "sgd") { at, segment in
            sgd_step(
                theta + at, v + at, g + at, Float(settings.learningRate * Double(segment[0])),
                Float(settings.weightDecay * Double(segment[3])), Float(settings.momentum),
                settings.nesterov ? 1 : 0, viewAlignment)
        }
    }

    /// One step over flat tensors [n]; a block of `viewAlignment` elements belongs to one segment.
    public func lion(
        _ values: Tensor, _ moments: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: LionSettings, blocks: Int
    ) {
        let (theta, m, g) = (floats(values), floats(moments), floats(gradients))  // [n]
        forEachBlock(blocks, segmentOfBlock, segments, "lion") { at, segment in
            let rate = settings.learningRate * Double(segment[0])
            lion_step(
                theta + at, m + at, g + at, Float(settings.beta1), Float(1 - settings.beta1),
                Float(settings.beta2), Float(1 - settings.beta2),
                Float(1 - settings.weightDecay * Double(segment[3]) * rate), Float(rate), viewAlignment)
        }
    }

    /// Calls `body` with the first element of each block that is to be updated, and its segment's row.
    private func forEachBlock(
        _ blocks: Int, _ segmentOfBlock: Tensor, _ segments: Tensor, _ operation: String,
        _ body: (Int, Floats) -> Void
    ) {
        let segmentCount = segments.rows
        let segmentOfBlock = integers(segmentOfBlock)  // [n / viewAlignment]
        let segments = floats(segments)  // [count, 4]
        parallel(blocks, grain: elementGrain / viewAlignment) { range in
            for block in range {
                let segment = Int(segmentOfBlock[block])
                require(
                    (0..<segmentCount).contains(segment), operation, "block \(block) names segment \(segment)"
                )
                if segments[4 * segment] != 0 { body(block * viewAlignment, segments + 4 * segment) }
            }
        }
    }
}
