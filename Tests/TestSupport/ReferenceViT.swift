import Foundation
import ModelConfiguration

/// A vision transformer in double precision, forward only, from the definition; gradients of it are central differences.
///
///     x ← [class; patches · Wᵖ] + positions
///     x ← x + s · proj(attention(qkv(LN₁ x)));   x ← x + s · fc2(GELU(fc1(LN₂ x)))
///     logits = head(pool(LN x))
public struct ReferenceViT {
    let configuration: ViTConfiguration
    /// By timm's names, the head's included.
    public var tensors: [String: [Double]]

    /// A model of these tensors, by timm's names, the head's included.
    public init(configuration: ViTConfiguration, tensors: [String: [Double]]) {
        self.configuration = configuration
        self.tensors = tensors
    }

    /// The mean cross-entropy of images [B, 3, S, S]. `scales` holds [B] for each branch, two for a block.
    public func loss(_ images: [Double], labels: [Int], scales: [[Double]]?) -> Double {
        let k = configuration.classCount
        let logits = logits(images, batch: labels.count, scales: scales)
        var sum = 0.0
        for (b, label) in labels.enumerated() {
            let row = logits[b * k..<(b + 1) * k]
            let top = row.max()!
            sum += top + log(row.reduce(0) { $0 + exp($1 - top) }) - row[b * k + label]
        }
        return sum / Double(labels.count)
    }

    /// [B, K].
    public func logits(_ images: [Double], batch: Int, scales: [[Double]]? = nil) -> [Double] {
        outputs(images, batch: batch, scales: scales).logits
    }

    /// tokens [B, T, D], those of the last block, normed unless their mean is; features [B, D], what the head reads; logits [B, K].
    public func outputs(
        _ images: [Double], batch: Int, scales: [[Double]]? = nil
    ) -> (tokens: [Double], features: [Double], logits: [Double]) {
        let (d, t, f) = (configuration.width, configuration.tokenCount, configuration.hiddenWidth)
        var x = embed(images, batch)  // [B, T, D]
        func add(_ branch: [Double], _ scale: [Double]?) {
            for index in x.indices { x[index] += branch[index] * (scale?[index / (t * d)] ?? 1) }
        }
        for index in 0..<configuration.depth {
            let block = "blocks.\(index)"
            let qkv = linear(norm(x, "\(block).norm1"), "\(block).attn.qkv", d, 3 * d)
            add(linear(attention(qkv, batch), "\(block).attn.proj", d, d), scales?[2 * index])
            var hidden = linear(norm(x, "\(block).norm2"), "\(block).mlp.fc1", d, f)
            for i in hidden.indices { hidden[i] *= 0.5 * (1 + erf(hidden[i] / 2.0.squareRoot())) }
            add(linear(hidden, "\(block).mlp.fc2", f, d), scales?[2 * index + 1])
        }
        if configuration.pooling != .meanBeforeNorm { x = norm(x, "norm") }
        let pooled =
            switch configuration.pooling {
            case .classToken: mean(x, batch, 0..<1)
            case .meanAfterNorm: mean(x, batch, patchTokens)
            case .meanBeforeNorm: norm(mean(x, batch, patchTokens), "fc_norm")
            }
        return (x, pooled, linear(pooled, "head", d, configuration.classCount))
    }

    private var patchTokens: Range<Int> { (configuration.hasClassToken ? 1 : 0)..<configuration.tokenCount }

    private func embed(_ images: [Double], _ batch: Int) -> [Double] {
        let (s, p, g, d) = (
            configuration.imageSize, configuration.patchSize, configuration.gridSize, configuration.width
        )
        var patches: [Double] = []  // [B · N, 3 · p · p]
        for b in 0..<batch {
            for patch in 0..<g * g {
                for c in 0..<3 {
                    for row in 0..<p {
                        let start = ((b * 3 + c) * s + patch / g * p + row) * s + patch % g * p
                        patches += images[start..<start + p]
                    }
                }
            }
        }
        let projected = linear(patches, "patch_embed.proj", 3 * p * p, d)
        let n = g * g * d
        return (0..<batch).flatMap { b in
            let tokens = (tensors["cls_token"] ?? []) + projected[b * n..<(b + 1) * n]
            return zip(tokens, tensors["pos_embed"]!).map { $0 + $1 }
        }
    }

    private func linear(_ x: [Double], _ name: String, _ inputs: Int, _ outputs: Int) -> [Double] {
        let rows = x.count / inputs
        var y: [Double] = []
        y.reserveCapacity(rows * outputs)
        let bias = tensors["\(name).bias"]
        tensors["\(name).weight"]!.withUnsafeBufferPointer { w in
            x.withUnsafeBufferPointer { x in
                for n in 0..<rows {
                    for o in 0..<outputs {
                        var sum = bias?[o] ?? 0
                        for i in 0..<inputs { sum += x[n * inputs + i] * w[o * inputs + i] }
                        y.append(sum)
                    }
                }
            }
        }
        return y
    }

    private func norm(_ x: [Double], _ name: String) -> [Double] {
        let d = configuration.width
        let (weight, bias) = (tensors["\(name).weight"]!, tensors["\(name).bias"]!)
        var y = x
        for n in 0..<x.count / d {
            let row = x[n * d..<(n + 1) * d]
            let mean = row.reduce(0, +) / Double(d)
            let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(d)
            let rstd = 1 / (variance + Double(configuration.layerNormEpsilon)).squareRoot()
            for i in 0..<d { y[n * d + i] = (x[n * d + i] - mean) * rstd * weight[i] + bias[i] }
        }
        return y
    }

    private func attention(_ qkv: [Double], _ batch: Int) -> [Double] {
        let (d, t, heads) = (configuration.width, configuration.tokenCount, configuration.heads)
        let h = d / heads
        var out = [Double](repeating: 0, count: batch * t * d)
        for b in 0..<batch {
            for head in 0..<heads {
                func at(_ part: Int, _ token: Int, _ i: Int) -> Double {
                    qkv[(b * t + token) * 3 * d + part * d + head * h + i]
                }
                for query in 0..<t {
                    var weights = [Double](repeating: 0, count: t)
                    for key in 0..<t {
                        for i in 0..<h { weights[key] += at(0, query, i) * at(1, key, i) }
                        weights[key] /= Double(h).squareRoot()
                    }
                    let top = weights.max()!
                    for key in 0..<t { weights[key] = exp(weights[key] - top) }
                    let sum = weights.reduce(0, +)
                    for i in 0..<h {
                        for key in 0..<t {
                            out[(b * t + query) * d + head * h + i] += weights[key] / sum * at(2, key, i)
                        }
                    }
                }
            }
        }
        return out
    }

    private func mean(_ x: [Double], _ batch: Int, _ range: Range<Int>) -> [Double] {
        let (d, t) = (configuration.width, configuration.tokenCount)
        var out = [Double](repeating: 0, count: batch * d)
        for b in 0..<batch {
            for token in range {
                for i in 0..<d { out[b * d + i] += x[(b * t + token) * d + i] / Double(range.count) }
            }
        }
        return out
    }

    /// The gradient of the loss for every tensor, each element by a central difference. The step 1e-4 leaves 1e-8 of
    /// the gradient; the sum of a float32 backward is compared to 1e-5 of it.
    public func gradients(_ images: [Double], labels: [Int], scales: [[Double]]?) -> [String: [Double]] {
        var model = self
        var gradients: [String: [Double]] = [:]
        for (name, values) in tensors {
            gradients[name] = values.indices.map { index in
                model.tensors[name]![index] = values[index] + 1e-4
                let above = model.loss(images, labels: labels, scales: scales)
                model.tensors[name]![index] = values[index] - 1e-4
                let below = model.loss(images, labels: labels, scales: scales)
                model.tensors[name]![index] = values[index]
                return (above - below) / 2e-4
            }
        }
        return gradients
    }
}
