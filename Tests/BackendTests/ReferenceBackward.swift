import Foundation
import TensorCore

// The derivatives of Reference.swift's functions, in double precision.

extension Reference {
    static func geluSlope(_ x: Double) -> Double {
        normalPhi(x) + x * exp(-x * x / 2) / (2 * Double.pi).squareRoot()
    }

    /// dx, dWeight and dBias.
    static func layerNormBackward(
        _ dy: Matrix, _ x: Matrix, weight: [Double], epsilon: Double
    ) -> (dx: Matrix, dWeight: [Double], dBias: [Double]) {
        let d = x.columns
        let (_, mean, rstd) = layerNorm(x, weight: weight, bias: weight, epsilon: epsilon)
        var dx = x
        var dWeight = [Double](repeating: 0, count: d)
        for i in 0..<x.rows {
            let normal = (0..<d).map { (x[i, $0] - mean[i]) * rstd[i] }
            let g = (0..<d).map { dy[i, $0] * weight[$0] }
            let meanG = g.reduce(0, +) / Double(d)
            let slope = zip(g, normal).reduce(0) { $0 + $1.0 * $1.1 } / Double(d)
            for j in 0..<d {
                dx[i, j] = rstd[i] * (g[j] - meanG - normal[j] * slope)
                dWeight[j] += dy[i, j] * normal[j]
            }
        }
        return (dx, dWeight, sumRows(dy))
    }

    /// dx and dWeight.
    static func rmsNormBackward(
        _ dy: Matrix, _ x: Matrix, weight: [Double], epsilon: Double
    ) -> (dx: Matrix, dWeight: [Double]) {
        let d = x.columns
        let rstd = rmsNorm(x, weight: weight, epsilon: epsilon).rstd
        var (dx, dWeight) = (x, [Double](repeating: 0, count: d))
        for i in 0..<x.rows {
            let normal = (0..<d).map { x[i, $0] * rstd[i] }
            let slope = (0..<d).reduce(0) { $0 + dy[i, $1] * weight[$1] * normal[$1] } / Double(d)
            for j in 0..<d {
                dx[i, j] = rstd[i] * (dy[i, j] * weight[j] - normal[j] * slope)
                dWeight[j] += dy[i, j] * normal[j]
            }
        }
        return (dx, dWeight)
    }

    /// dqkv [B·T, 3·D] from dOut [B·Q, D].
    static func attentionBackward(
        _ dOut: Matrix, _ qkv: Matrix, images: Int, heads: Int, queries: Int
    ) -> Matrix {
        let tokens = qkv.rows / images
        let (d, h) = (qkv.columns / 3, qkv.columns / 3 / heads)
        let scale = 1 / Double(h).squareRoot()
        var dqkv = Matrix(zeros: qkv.rows, qkv.columns)
        for image in 0..<images {
            for head in 0..<heads {
                let parts = headParts(qkv, image: image, head: head, tokens: tokens, heads: heads)
                let p = softmaxRows(scores(parts, queries: queries))  // [Q, T]
                var dy = Matrix(zeros: queries, h)
                for t in 0..<queries { for i in 0..<h { dy[t, i] = dOut[image * queries + t, head * h + i] } }
                var dScores = dy * parts[2].transposed
                for row in 0..<queries {
                    let mean = (0..<tokens).reduce(0) { $0 + p[row, $1] * dScores[row, $1] }
                    for j in 0..<tokens { dScores[row, j] = scale * p[row, j] * (dScores[row, j] - mean) }
                }
                let gradients = [
                    dScores * parts[1], dScores.transposed * parts[0].prefix(rows: queries),
                    p.transposed * dy,
                ]
                for (third, gradient) in gradients.enumerated() {
                    for t in 0..<gradient.rows {
                        for i in 0..<h { dqkv[image * tokens + t, third * d + head * h + i] = gradient[t, i] }
                    }
                }
            }
        }
        return dqkv
    }

    /// dq [B·Q, D], dk and dv [B·T, D] of attention from dOut [B·Q, D].
    static func attentionBackward(
        _ dOut: Matrix, q: Matrix, k: Matrix, v: Matrix, images: Int, heads: Int
    ) -> [Matrix] {
        let (queries, tokens, h) = (q.rows / images, k.rows / images, q.columns / heads)
        var gradients = [q, k, v].map { Matrix(zeros: $0.rows, $0.columns) }
        for image in 0..<images {
            for head in 0..<heads {
                let parts = [q, k, v, dOut].map {
                    headPart($0, image: image, head: head, images: images, heads: heads)
                }
                let p = softmaxRows(scores(parts, queries: queries))  // [Q, T]
                var dScores = parts[3] * parts[2].transposed
                for row in 0..<queries {
                    let mean = (0..<tokens).reduce(0) { $0 + p[row, $1] * dScores[row, $1] }
                    for j in 0..<tokens {
                        dScores[row, j] *= p[row, j]
                        dScores[row, j] = (dScores[row, j] - p[row, j] * mean) / Double(h).squareRoot()
                    }
                }
                let parted = [
                    dScores * parts[1], dScores.transposed * parts[0], p.transposed * parts[3],
                ]
                for (index, part) in parted.enumerated() {
                    for t in 0..<part.rows {
                        for i in 0..<h {
                            gradients[index][image * part.rows + t, head * h + i] = part[t, i]
                        }
                    }
                }
            }
        }
        return gradients
    }

    /// The gradients of A's or B's storage from ∂X [out, in]; zero where the form doesn't read.
    static func matrixTermBackward(
        _ form: MatrixForm, _ dX: Matrix, down: Matrix, up: Matrix
    ) -> (dDown: Matrix, dUp: Matrix) {
        var dDown = Matrix(zeros: down.rows, down.columns)
        var dUp = Matrix(zeros: up.rows, up.columns)
        switch form {
        case .none: break
        case .constant: dDown[0, 0] = dX.values.reduce(0, +)
        case .vector:
            for i in 0..<dX.rows { dDown[i, 0] = (0..<dX.columns).reduce(0) { $0 + dX[i, $1] } }
        case .lowRank(let r):
            let forDown = dX * up.prefix(rows: r).transposed
            let forUp = down.prefix(columns: r).transposed * dX
            for i in 0..<down.rows { for j in 0..<r { dDown[i, j] = forDown[i, j] } }
            dUp.values.replaceSubrange(..<forUp.values.count, with: forUp.values)
        }
        return (dDown, dUp)
    }

    /// The gradients of C's storage from db [out] through W₀.
    static func promptTermBackward(
        _ form: PromptForm, _ w0: Matrix, _ dBias: [Double], down: Matrix, up: Matrix
    ) -> (dDown: Matrix, dUp: Matrix) {
        let dC = w0.transposed * Matrix(w0.rows, 1, dBias)  // [in, 1]
        switch form {
        case .none: return matrixTermBackward(.none, dC, down: down, up: up)
        case .vector: return matrixTermBackward(.vector, dC, down: down, up: up)
        case .lowRank(let r): return matrixTermBackward(.lowRank(r), dC, down: down, up: up)
        }
    }

    /// The gradient of D's or E's storage from that of the vector [out].
    static func scaleTermBackward(_ form: ScaleForm, _ gradient: [Double]) -> [Double] {
        switch form {
        case .none: gradient.map { _ in 0 }
        case .constant: [gradient.reduce(0, +)] + gradient.dropFirst().map { _ in 0 }
        case .vector: gradient
        }
    }

    /// The gradient of the mean loss.
    static func lossGradient(_ logits: Matrix, _ labels: [Int]) -> Matrix {
        var gradient = softmaxRows(logits)
        for (row, label) in labels.enumerated() { gradient[row, label] -= 1 }
        for i in gradient.values.indices { gradient.values[i] /= Double(logits.rows) }
        return gradient
    }
}
