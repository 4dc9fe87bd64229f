import Adapters
import Foundation
import TensorCore

@testable import Checkpoints

// A vision transformer in doubles and plain loops, for models of a few thousand numbers:
//
//     x ← [cls; patches] + positions;  x ← x + Attn(LN₁ x);  x ← x + fc2(GELU(fc1(LN₂ x)));  logits = head(pool(x))

typealias Rows = [[Double]]

/// Logits [images, classes] of `images` [images, 3, S, S].
func referenceLogits(_ checkpoint: ViTCheckpoint, _ images: HostTensor) -> [Double] {
    let c = checkpoint.configuration
    let size = 3 * c.imageSize * c.imageSize
    return (0..<images.shape[0]).flatMap { index in
        logits(checkpoint, images.values[index * size..<(index + 1) * size].map { Double($0) })
    }
}

private func logits(_ checkpoint: ViTCheckpoint, _ image: [Double]) -> [Double] {
    let c = checkpoint.configuration
    let (S, P, D, G) = (c.imageSize, c.patchSize, c.width, c.gridSize)
    func tensor(_ name: String) -> [Double] { checkpoint.tensors[name]?.values.map { Double($0) } ?? [] }
    func linear(_ x: Rows, _ name: String) -> Rows {
        let (weight, bias) = (tensor(name + ".weight"), tensor(name + ".bias"))
        return x.map { row in
            var y = bias.isEmpty ? [Double](repeating: 0, count: weight.count / row.count) : bias
            for output in y.indices {
                for input in row.indices { y[output] += weight[output * row.count + input] * row[input] }
            }
            return y
        }
    }
    func norm(_ x: Rows, _ name: String) -> Rows {
        let (weight, bias) = (tensor(name + ".weight"), tensor(name + ".bias"))
        return x.map { row in
            let mean = row.reduce(0, +) / Double(D)
            let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(D)
            let scale = 1 / (variance + Double(c.layerNormEpsilon)).squareRoot()
            return (0..<D).map { (row[$0] - mean) * scale * weight[$0] + bias[$0] }
        }
    }
    func add(_ x: Rows, _ y: Rows) -> Rows { zip(x, y).map { zip($0, $1).map { $0 + $1 } } }

    var patches: Rows = []
    for row in 0..<G {
        for column in 0..<G {
            patches.append(
                (0..<3 * P * P).map { index in
                    let (channel, y, x) = (index / (P * P), index / P % P, index % P)
                    return image[(channel * S + row * P + y) * S + column * P + x]
                })
        }
    }
    var x = linear(patches, "patch_embed.proj")
    if c.hasClassToken { x.insert(tensor("cls_token"), at: 0) }
    let positions = tensor("pos_embed")
    x = add(x, (0..<c.tokenCount).map { Array(positions[$0 * D..<($0 + 1) * D]) })

    let (T, W) = (c.tokenCount, D / c.heads)
    for block in 0..<c.depth {
        let name = "blocks.\(block)."
        let qkv = linear(norm(x, name + "norm1"), name + "attn.qkv")
        var attended = Rows(repeating: [Double](repeating: 0, count: D), count: T)
        for head in 0..<c.heads {
            for token in 0..<T {
                let scores = (0..<T).map { other in
                    (0..<W).reduce(0.0) { $0 + qkv[token][head * W + $1] * qkv[other][D + head * W + $1] }
                        / Double(W).squareRoot()
                }
                let exponentials = scores.map { exp($0 - scores.max()!) }
                let total = exponentials.reduce(0, +)
                for other in 0..<T {
                    for column in head * W..<(head + 1) * W {
                        attended[token][column] += exponentials[other] / total * qkv[other][2 * D + column]
                    }
                }
            }
        }
        x = add(x, linear(attended, name + "attn.proj"))
        let hidden = linear(norm(x, name + "norm2"), name + "mlp.fc1").map {
            $0.map { 0.5 * $0 * (1 + erf($0 / 2.0.squareRoot())) }
        }
        x = add(x, linear(hidden, name + "mlp.fc2"))
    }
    func mean(_ x: Rows) -> Rows {
        let rows = c.hasClassToken ? Array(x.dropFirst()) : x
        return [(0..<D).map { column in rows.reduce(0) { $0 + $1[column] } / Double(rows.count) }]
    }
    let pooled =
        switch c.pooling {
        case .classToken: [norm(x, "norm")[0]]
        case .meanAfterNorm: mean(norm(x, "norm"))
        case .meanBeforeNorm: norm(mean(x), "fc_norm")
        }
    return linear(pooled, "head")[0]
}

/// The model with the adapter merged: W = W₀ ⊙ (1 + A) + B, b = b₀ ⊙ (1 + D) + E + W₀ · C.
func merged(_ checkpoint: ViTCheckpoint, _ adapter: GLoRAAdapter) -> ViTCheckpoint {
    var checkpoint = checkpoint
    for (path, layer) in adapter.layers {
        let (weight, bias) = (checkpoint.tensors[path + ".weight"]!, checkpoint.tensors[path + ".bias"]!)
        let (outputs, inputs, R) = (weight.shape[0], weight.shape[1], adapter.rank)
        func value(_ name: String, _ index: Int) -> Double { Double(layer.tensors[name]!.values[index]) }
        func product(_ letter: String, _ row: Int, _ column: Int, _ width: Int, rank: Int) -> Double {
            (0..<rank).reduce(0) {
                $0 + value(letter + "d", row * R + $1) * value(letter + "u", $1 * width + column)
            }
        }
        func matrix(_ form: MatrixForm, _ letter: String, _ row: Int, _ column: Int) -> Double {
            switch form {
            case .none: 0
            case .constant: value(letter + "d", 0)
            case .vector: value(letter + "d", row * R)
            case .lowRank(let rank): product(letter, row, column, inputs, rank: rank)
            }
        }
        func scale(_ form: ScaleForm, _ letter: String, _ row: Int) -> Double {
            switch form {
            case .none: 0
            case .constant: value(letter, 0)
            case .vector: value(letter, row)
            }
        }
        let prompt = (0..<inputs).map { column -> Double in
            switch layer.path.c {
            case .none: 0
            case .vector: value("Cd", column * R)
            case .lowRank(let rank): product("C", column, 0, 1, rank: rank)
            }
        }
        var (newWeight, newBias) = (weight, bias)
        for row in 0..<outputs {
            var shift = 0.0
            for column in 0..<inputs {
                let old = Double(weight.values[row * inputs + column])
                let (a, b) = (matrix(layer.path.a, "A", row, column), matrix(layer.path.b, "B", row, column))
                newWeight.values[row * inputs + column] = Float(old * (1 + a) + b)
                shift += old * prompt[column]
            }
            let (d, e) = (scale(layer.path.d, "D", row), scale(layer.path.e, "E", row))
            newBias.values[row] = Float(Double(bias.values[row]) * (1 + d) + e + shift)
        }
        checkpoint.tensors[path + ".weight"] = newWeight
        checkpoint.tensors[path + ".bias"] = newBias
    }
    if let weight = adapter.head["head.weight"], let bias = adapter.head["head.bias"] {
        checkpoint = checkpoint.withHead(weight: weight, bias: bias)
    }
    return checkpoint
}
