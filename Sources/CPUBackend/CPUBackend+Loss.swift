import CLoops
import Foundation
import TensorCore

// loss = −log softmax(z)[label] = log Σ exp(z − max) + max − z[label],  dz = (softmax(z) − onehot)
// / B.

extension CPUBackend {
    /// losses [B] and, unless nil, dLogits [B, K] from logits [B, K] and labels [B] int32.
    public func softmaxCrossEntropy(
        _ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ labels: Tensor, batch b: Int, classes k: Int
    ) {
        let losses = floats(losses)  // [B]
        let gradient = dLogits.map { floats($0) }  // [B, K]
        let logits = floats(logits)  // [B, K]
        let labels = integers(labels)  // [B]
        parallel(b, grain: rowGrain(k), scratch: k) { range, scratch in
            for row in range {
                let z = logits + row * k
                let label = Int(labels[row])
                require(
                    (0..<k).contains(label), "softmaxCrossEntropy",
                    "label \(label) of sample \(row) is not in 0..<\(k)")
                let dz = gradient.map { $0 + row * k } ?? scratch
                var (sum, largest): (Float, Float) = (0, 0)
                dz.update(from: z, count: k)
                softmax_exponentials(dz, &sum, &largest, 1, k)
                losses[row] = Float(log(Double(sum))) + (largest - z[label])
                guard gradient != nil else { continue }
                scale_elements(dz, dz, 1 / (sum * Float(b)), k)
                dz[label] -= 1 / Float(b)
            }
        }
    }
}
