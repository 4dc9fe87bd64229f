import CLoops
import Foundation
import TensorCore

// loss = −log softmax(z)[label] = log Σ exp(z − max) + max − z[label],  dz = (softmax(z) − onehot)
// / B. Of targets t [B, K] see `TargetLoss`.

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

    /// losses [B] and, unless nil, dLogits [B, K] from logits and targets [B, K].
    public func targetLoss(
        _ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ targets: Tensor, _ weights: Tensor?,
        _ kind: TargetLoss, batch b: Int, outputs k: Int
    ) {
        let losses = floats(losses)  // [B]
        let gradient = dLogits.map { floats($0) }  // [B, K]
        let (logits, targets) = (floats(logits), floats(targets))  // [B, K]
        let weights = weights.map { floats($0) }  // [K]
        parallel(b, grain: rowGrain(k), scratch: k) { range, scratch in
            for row in range {
                let (z, t) = (logits + row * k, targets + row * k)
                let dz = gradient.map { $0 + row * k } ?? scratch
                losses[row] =
                    switch kind {
                    case .softmax: softmaxLoss(dz, z, t, k, 1 / Float(b))
                    case .sigmoid: sigmoidLoss(dz, z, t, weights, k, 1 / Float(b * k))
                    case .squared: squaredLoss(dz, z, t, k, 1 / Float(b * k))
                    }
            }
        }
    }

    private func softmaxLoss(_ dz: Floats, _ z: Floats, _ t: Floats, _ k: Int, _ share: Float) -> Float {
        var (sum, largest): (Float, Float) = (0, 0)
        dz.update(from: z, count: k)
        softmax_exponentials(dz, &sum, &largest, 1, k)
        var (loss, mass) = (0.0, 0.0)
        let logSum = log(Double(sum)) + Double(largest)
        for j in 0..<k {
            // 0 · ∞ of a class that isn't meant would be no number.
            if t[j] != 0 { loss += Double(t[j]) * (logSum - Double(z[j])) }
            mass += Double(t[j])
        }
        let factor = Float(mass) / sum
        for j in 0..<k { dz[j] = (dz[j] * factor - t[j]) * share }
        return Float(loss)
    }

    private func sigmoidLoss(
        _ dz: Floats, _ z: Floats, _ t: Floats, _ weights: Floats?, _ k: Int, _ share: Float
    ) -> Float {
        var loss = 0.0
        for j in 0..<k {
            let (x, w) = (z[j], weights?[j] ?? 1)
            // log(1 + exp −|x|) and σ of both signs without overflow.
            let e = exp(-abs(x))
            let (rest, larger, smaller) = (log1p(e), 1 / (1 + e), e / (1 + e))
            let (of, ofNot) = x >= 0 ? (larger, smaller) : (smaller, larger)  // σ(x), σ(−x)
            let (positive, negative) = (t[j] * w, 1 - t[j])
            loss += Double(positive * (rest + max(-x, 0)) + negative * (rest + max(x, 0)))
            dz[j] = (negative * of - positive * ofNot) * share
        }
        return Float(loss / Double(k))
    }

    private func squaredLoss(_ dz: Floats, _ z: Floats, _ t: Floats, _ k: Int, _ share: Float) -> Float {
        var loss = 0.0
        for j in 0..<k {
            let difference = z[j] - t[j]
            loss += Double(difference) * Double(difference)
            dz[j] = 2 * difference * share
        }
        return Float(loss / Double(k))
    }
}
