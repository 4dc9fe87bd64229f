import Adapters
import TensorCore

/// A GLoRA Linear in double precision, loops and definitions only:
///
///     W = W₀ ⊙ (1 + A) + B,   b = b₀ ⊙ (1 + D) + E + W₀ · C,   y = x Wᵀ + b
///
/// With dW = dyᵀ x and db = Σₙ dy: ∂A = dW ⊙ W₀, ∂B = dW, ∂C = W₀ᵀ db, ∂D = db ⊙ b₀, ∂E = db, dx = dy W.
struct LayerReference {
    let inputs, outputs, rank: Int
    let weight: [Double]  // W₀ [out, in]
    let bias: [Double]?  // b₀ [out]
    /// Ad, Bd [out, R], Au, Bu [R, in], Cd [in, R], Cu [R, 1], D, E [out].
    var stored: [String: [Double]]

    /// A or B [out, in].
    func matrix(_ form: MatrixForm, _ letter: String) -> [Double] {
        let (down, up) = (stored[letter + "d"]!, stored[letter + "u"]!)
        var matrix = [Double](repeating: 0, count: outputs * inputs)
        for o in 0..<outputs {
            for i in 0..<inputs {
                switch form {
                case .none: break
                case .constant: matrix[o * inputs + i] = down[0]
                case .vector: matrix[o * inputs + i] = down[o * rank]
                case .lowRank(let r):
                    for k in 0..<r { matrix[o * inputs + i] += down[o * rank + k] * up[k * inputs + i] }
                }
            }
        }
        return matrix
    }

    /// C [in].
    func prompt(_ form: PromptForm) -> [Double] {
        let (down, up) = (stored["Cd"]!, stored["Cu"]!)
        return (0..<inputs).map { i in
            switch form {
            case .none: 0
            case .vector: down[i * rank]
            case .lowRank(let r): (0..<r).reduce(0) { $0 + down[i * rank + $1] * up[$1] }
            }
        }
    }

    /// D or E [out].
    func scale(_ form: ScaleForm, _ letter: String) -> [Double] {
        let values = stored[letter]!
        switch form {
        case .none: return Array(repeating: 0, count: outputs)
        case .constant: return Array(repeating: values[0], count: outputs)
        case .vector: return values
        }
    }

    /// W [out, in] and b [out].
    func merged(_ path: GLoRAPath) -> (weight: [Double], bias: [Double]) {
        let (a, b) = (matrix(path.a, "A"), matrix(path.b, "B"))
        let (c, d, e) = (prompt(path.c), scale(path.d, "D"), scale(path.e, "E"))
        let merged = weight.indices.map { weight[$0] * (1 + a[$0]) + b[$0] }
        var shifted = [Double](repeating: 0, count: outputs)
        for o in 0..<outputs {
            if let bias { shifted[o] = bias[o] * (1 + d[o]) }
            shifted[o] += e[o]
            for i in 0..<inputs { shifted[o] += weight[o * inputs + i] * c[i] }
        }
        return (merged, shifted)
    }

    /// y [n, out] of x [n, in].
    func forward(_ x: [Double], _ path: GLoRAPath) -> [Double] {
        let (w, b) = merged(path)
        var y: [Double] = []
        for n in 0..<x.count / inputs {
            for o in 0..<outputs {
                var sum = b[o]
                for i in 0..<inputs { sum += x[n * inputs + i] * w[o * inputs + i] }
                y.append(sum)
            }
        }
        return y
    }

    /// dx [n, in] and the gradient of every stored tensor, zero where the path doesn't read it.
    func backward(
        _ dy: [Double], _ x: [Double], _ path: GLoRAPath
    ) -> (dx: [Double], gradients: [String: [Double]]) {
        let w = merged(path).weight
        var dx = [Double](repeating: 0, count: x.count)
        var dw = [Double](repeating: 0, count: weight.count)
        var db = [Double](repeating: 0, count: outputs)
        for n in 0..<x.count / inputs {
            for o in 0..<outputs {
                let g = dy[n * outputs + o]
                db[o] += g
                for i in 0..<inputs {
                    dx[n * inputs + i] += g * w[o * inputs + i]
                    dw[o * inputs + i] += g * x[n * inputs + i]
                }
            }
        }
        var gradients = stored.mapValues { [Double](repeating: 0, count: $0.count) }
        accumulate(&gradients, "A", path.a, dw.indices.map { dw[$0] * weight[$0] })
        accumulate(&gradients, "B", path.b, dw)
        var dc = [Double](repeating: 0, count: inputs)
        for o in 0..<outputs {
            for i in 0..<inputs { dc[i] += weight[o * inputs + i] * db[o] }
        }
        switch path.c {
        case .none: break
        case .vector: for i in 0..<inputs { gradients["Cd"]![i * rank] += dc[i] }
        case .lowRank(let r):
            for i in 0..<inputs {
                for k in 0..<r {
                    gradients["Cd"]![i * rank + k] += dc[i] * stored["Cu"]![k]
                    gradients["Cu"]![k] += stored["Cd"]![i * rank + k] * dc[i]
                }
            }
        }
        for o in 0..<outputs {
            if path.d != .none, let bias { gradients["D"]![path.d == .constant ? 0 : o] += db[o] * bias[o] }
            if path.e != .none { gradients["E"]![path.e == .constant ? 0 : o] += db[o] }
        }
        return (dx, gradients)
    }

    private func accumulate(
        _ gradients: inout [String: [Double]], _ letter: String, _ form: MatrixForm, _ dm: [Double]
    ) {
        let (down, up) = (letter + "d", letter + "u")
        for o in 0..<outputs {
            for i in 0..<inputs {
                let g = dm[o * inputs + i]
                switch form {
                case .none: break
                case .constant: gradients[down]![0] += g
                case .vector: gradients[down]![o * rank] += g
                case .lowRank(let r):
                    for k in 0..<r {
                        gradients[down]![o * rank + k] += g * stored[up]![k * inputs + i]
                        gradients[up]![k * inputs + i] += stored[down]![o * rank + k] * g
                    }
                }
            }
        }
    }
}
