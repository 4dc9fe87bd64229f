import CLoops
import TensorCore

//     θ ← θ (1 − λη);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − η · c₁ · m / (√v · c₂ + ε)
//
// Source: Loshchilov and Hutter, arXiv 1711.05101; the order of operations is PyTorch's.

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
        let decay = Float(1 - settings.weightDecay * settings.learningRate)
        let epsilon = Float(settings.epsilon)
        forEachBlock(blocks, segmentOfBlock, segments, "adamW") { at, segment in
            let step = Float(settings.learningRate * Double(segment[1]))
            adamw_step(
                theta + at, m + at, v + at, g + at, beta1, rest1, beta2, rest2, decay, step, segment[2],
                epsilon, viewAlignment)
        }
    }

    /// Calls `body` with the first element of each block that is to be updated, and its segment's row.
    func forEachBlock(
        _ blocks: Int, _ segmentOfBlock: Tensor, _ segments: Tensor, _ operation: String,
        _ body: (Int, Floats) -> Void
    ) {
        let segmentCount = segments.rows
        let segmentOfBlock = integers(segmentOfBlock)  // [n / viewAlignment]
        let segments = floats(segments)  // [count, 3]
        parallel(blocks, grain: elementGrain / viewAlignment) { range in
            for block in range {
                let segment = Int(segmentOfBlock[block])
                require(
                    (0..<segmentCount).contains(segment), operation, "block \(block) names segment \(segment)"
                )
                if segments[3 * segment] != 0 { body(block * viewAlignment, segments + 3 * segment) }
            }
        }
    }
}
