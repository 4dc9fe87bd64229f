import TensorCore
import TestSupport

@testable import Checkpoints

/// Logits [images, classes] of `images` [images, 3, S, S] in double precision.
func referenceLogits(_ checkpoint: ViTCheckpoint, _ images: HostTensor) -> [Double] {
    ReferenceViT(
        configuration: checkpoint.configuration, tensors: checkpoint.tensors.mapValues { doubles($0.values) }
    ).logits(doubles(images.values), batch: images.shape[0])
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
