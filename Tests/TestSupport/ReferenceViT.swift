import Foundation
import ModelConfiguration

/// A vision transformer in double precision, forward only, from the definition; gradients of it are central differences.
///
///     x ← [class; registers; patches · Wᵖ] + positions;   x ← LN x where there is one
///     x ← x + s · γ₁ ⊙ proj(attention(qkv(LN₁ x)));   x ← x + s · γ₂ ⊙ fc2(f(fc1(LN₂ x)))
///         q and k rotated by the place of their patch, fc2 of f(gate) ⊙ up, norms behind both, where a model has that
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
        func add(_ branch: [Double], _ layerScale: String, _ scale: [Double]?) {
            let gamma = tensors["\(layerScale).gamma"]
            for index in x.indices {
                x[index] += branch[index] * (gamma?[index % d] ?? 1) * (scale?[index / (t * d)] ?? 1)
            }
        }
        for index in 0..<configuration.depth {
            let block = "blocks.\(index)"
            var (q, k, v) = projections(norm(x, "\(block).norm1"), block)
            if configuration.queryKeyNorm {
                (q, k) = (norm(q, "\(block).attn.q_norm"), norm(k, "\(block).attn.k_norm"))
            }
            rotate(&q)
            rotate(&k)
            var attended = attention(q, k, v, batch)
            if configuration.attentionNorm { attended = norm(attended, "\(block).attn.norm") }
            add(linear(attended, "\(block).attn.proj", d, d), "\(block).ls1", scales?[2 * index])
            var hidden = hidden(norm(x, "\(block).norm2"), block)
            if configuration.hasHiddenNorm { hidden = norm(hidden, "\(block).mlp.norm") }
            add(linear(hidden, "\(block).mlp.fc2", f, d), "\(block).ls2", scales?[2 * index + 1])
        }
        if configuration.hasFinalNorm, configuration.pooling != .meanBeforeNorm { x = norm(x, "norm") }
        var pooled: [Double] = []
        switch configuration.pooling {
        case .classToken, .classTokenBeforeNorm: pooled = mean(x, batch, 0..<1)
        case .meanAfterNorm, .mean: pooled = mean(x, batch, patchTokens)
        case .meanBeforeNorm: pooled = norm(mean(x, batch, patchTokens), "fc_norm")
        case .classTokenAndMean, .classTokenAndSecond:
            let second = configuration.pooling == .classTokenAndMean ? patchTokens : 1..<2
            let (first, rest) = (mean(x, batch, 0..<1), mean(x, batch, second))
            for b in 0..<batch {
                pooled += first[b * d..<(b + 1) * d]
                pooled += rest[b * d..<(b + 1) * d]
            }
        case .attention: pooled = attentionPooled(x, batch)
        }
        return (x, pooled, linear(pooled, "head", configuration.featureWidth, configuration.classCount))
    }

    private var patchTokens: Range<Int> { configuration.prefixCount..<configuration.tokenCount }

    /// f.
    private func activated(_ x: Double) -> Double {
        switch configuration.feedForward.activation {
        case .identity: return x
        case .relu: return max(0, x)
        case .gelu: return x * 0.5 * (1 + erf(x / 2.0.squareRoot()))
        case .quickGELU: return x / (1 + exp(-1.702 * x))
        case .geluTanh:
            let u: Double = (2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)
            return x / 2 * (1 + tanh(u))
        case .silu: return x / (1 + exp(-x))
        }
    }

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
            let prefix = (tensors["cls_token"] ?? []) + (tensors["reg_token"] ?? [])
            let tokens = prefix + projected[b * n..<(b + 1) * n]
            let positions = tensors["pos_embed"] ?? []
            let unplaced = [Double](repeating: 0, count: tokens.count - positions.count)
            let placed = zip(tokens, unplaced + positions).map { $0 + $1 }
            return configuration.normBeforeBlocks ? norm(placed, "norm_pre") : placed
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
        let weight = tensors["\(name).weight"]!
        let bias = tensors["\(name).bias"]
        let d = weight.count
        var y = x
        for n in 0..<x.count / d {
            let row = x[n * d..<(n + 1) * d]
            // An RMSNorm, which takes no mean away, has no bias.
            let mean = bias == nil ? 0 : row.reduce(0, +) / Double(d)
            let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(d)
            let rstd = 1 / (variance + Double(configuration.layerNormEpsilon)).squareRoot()
            for i in 0..<d { y[n * d + i] = (x[n * d + i] - mean) * rstd * weight[i] + (bias?[i] ?? 0) }
        }
        return y
    }

    /// q, k and v [B · T, D], of one Linear or of three.
    private func projections(_ x: [Double], _ block: String) -> ([Double], [Double], [Double]) {
        let d = configuration.width
        guard configuration.queries == .fused else {
            func part(_ name: String) -> [Double] { linear(x, "\(block).attn.\(name)_proj", d, d) }
            return (part("q"), part("k"), part("v"))
        }
        let qkv = linear(x, "\(block).attn.qkv", d, 3 * d)
        func third(_ index: Int) -> [Double] {
            var part: [Double] = []
            for row in 0..<x.count / d {
                let start = (row * 3 + index) * d
                part += qkv[start..<start + d]
            }
            return part
        }
        return (third(0), third(1), third(2))
    }

    /// f(up x), or f(gate x) ⊙ up x.
    private func hidden(_ x: [Double], _ block: String) -> [Double] {
        let (d, f) = (configuration.width, configuration.hiddenWidth)
        var (gate, up): ([Double], [Double])
        switch configuration.feedForward {
        case .plain: return linear(x, "\(block).mlp.fc1", d, f).map(activated)
        case .gated(_, isPacked: true, _):
            let both = linear(x, "\(block).mlp.fc1", d, 2 * f)
            (gate, up) = ([], [])
            for row in 0..<x.count / d {
                gate += both[row * 2 * f..<row * 2 * f + f]
                up += both[row * 2 * f + f..<(row + 1) * 2 * f]
            }
        case .gated(_, isPacked: false, _):
            (gate, up) = (
                linear(x, "\(block).mlp.fc1_g", d, f), linear(x, "\(block).mlp.fc1_x", d, f)
            )
        }
        for index in up.indices { up[index] *= activated(gate[index]) }
        return up
    }

    /// Each pair of each head of the patches' rows, turned by its coordinate's angle.
    private func rotate(_ x: inout [Double]) {
        guard let rotary = configuration.rotary else { return }
        let (d, t, g) = (configuration.width, configuration.tokenCount, configuration.gridSize)
        let h = d / configuration.heads
        func coordinate(_ i: Int) -> Double {
            switch rotary.coordinates {
            case .centered: return 2 * Double.pi * (2 * (Double(i) + 0.5) / Double(g) - 1)
            case .index(let offset, let reference):
                guard let reference else { return Double(i) + offset }
                return (Double(i) + offset) / Double(g) * Double(reference)
            }
        }
        for row in 0..<x.count / d where row % t >= configuration.prefixCount {
            let patch = row % t - configuration.prefixCount
            let (y, c) = (coordinate(patch / g), coordinate(patch % g))
            for head in 0..<configuration.heads {
                for pair in 0..<h / 2 {
                    let isFirst = pair < h / 4
                    let place = isFirst == rotary.startsWithColumn ? c : y
                    let angle = place / pow(rotary.temperature, Double(4 * (pair % (h / 4))) / Double(h))
                    let start = row * d + head * h
                    let (i, j) =
                        rotary.layout == .halves
                        ? (start + pair, start + pair + h / 2) : (start + 2 * pair, start + 2 * pair + 1)
                    let (a, b) = (x[i], x[j])
                    x[i] = a * cos(angle) - b * sin(angle)
                    x[j] = b * cos(angle) + a * sin(angle)
                }
            }
        }
    }

    /// The attention of the latent query to the patches and what follows it, [B, D].
    private func attentionPooled(_ x: [Double], _ batch: Int) -> [Double] {
        let (d, t, n) = (configuration.width, configuration.tokenCount, configuration.patchCount)
        let (h, first) = (d / configuration.poolingHeads, configuration.prefixCount)
        let query = linear(tensors["attn_pool.latent"]!, "attn_pool.q", d, d)
        let kv = linear(x, "attn_pool.kv", d, 2 * d)
        var attended = [Double](repeating: 0, count: batch * d)
        for b in 0..<batch {
            for head in 0..<configuration.poolingHeads {
                var weights = (0..<n).map { key -> Double in
                    var sum = 0.0
                    for i in head * h..<(head + 1) * h {
                        sum += query[i] * kv[(b * t + first + key) * 2 * d + i]
                    }
                    return exp(sum / Double(h).squareRoot())
                }
                let sum = weights.reduce(0, +)
                for key in 0..<n { weights[key] /= sum }
                for i in head * h..<(head + 1) * h {
                    for key in 0..<n {
                        attended[b * d + i] += weights[key] * kv[(b * t + first + key) * 2 * d + d + i]
                    }
                }
            }
        }
        let pooled = linear(attended, "attn_pool.proj", d, d)
        let f = configuration.hiddenWidth
        let hidden = linear(norm(pooled, "attn_pool.norm"), "attn_pool.mlp.fc1", d, f).map(activated)
        return zip(pooled, linear(hidden, "attn_pool.mlp.fc2", f, d)).map { $0 + $1 }
    }

    private func attention(_ q: [Double], _ k: [Double], _ v: [Double], _ batch: Int) -> [Double] {
        let (d, t, heads) = (configuration.width, configuration.tokenCount, configuration.heads)
        let h = d / heads
        var out = [Double](repeating: 0, count: batch * t * d)
        for b in 0..<batch {
            for head in 0..<heads {
                func at(_ part: [Double], _ token: Int, _ i: Int) -> Double {
                    part[(b * t + token) * d + head * h + i]
                }
                for query in 0..<t {
                    var weights = [Double](repeating: 0, count: t)
                    for key in 0..<t {
                        for i in 0..<h { weights[key] += at(q, query, i) * at(k, key, i) }
                        weights[key] /= Double(h).squareRoot()
                    }
                    let top = weights.max()!
                    for key in 0..<t { weights[key] = exp(weights[key] - top) }
                    let sum = weights.reduce(0, +)
                    for i in 0..<h {
                        for key in 0..<t {
                            out[(b * t + query) * d + head * h + i] += weights[key] / sum * at(v, key, i)
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
