import Foundation
import TensorCore

// Every operation once more, in double precision and as plainly as it can be written. The backwards are in
// ReferenceBackward.swift; ReferenceTests.swift holds those to central differences of these.

/// A matrix in double precision, row-major.
struct Matrix {
    var rows: Int
    var columns: Int
    var values: [Double]

    init(_ rows: Int, _ columns: Int, _ values: [Double]) {
        precondition(values.count == rows * columns)
        (self.rows, self.columns, self.values) = (rows, columns, values)
    }

    init(_ rows: Int, _ columns: Int, _ values: [Float]) { self.init(rows, columns, values.map(Double.init)) }

    init(zeros rows: Int, _ columns: Int) {
        self.init(rows, columns, [Double](repeating: 0, count: rows * columns))
    }

    subscript(row: Int, column: Int) -> Double {
        get { values[row * columns + column] }
        set { values[row * columns + column] = newValue }
    }

    var transposed: Matrix {
        var result = Matrix(zeros: columns, rows)
        for i in 0..<rows { for j in 0..<columns { result[j, i] = self[i, j] } }
        return result
    }

    /// The first `count` columns.
    func prefix(columns count: Int) -> Matrix {
        var result = Matrix(zeros: rows, count)
        for i in 0..<rows { for j in 0..<count { result[i, j] = self[i, j] } }
        return result
    }

    /// The first `count` rows.
    func prefix(rows count: Int) -> Matrix { Matrix(count, columns, Array(values[..<(count * columns)])) }

    /// The product, over unsafe pointers so that a debug build can afford it.
    static func * (a: Matrix, b: Matrix) -> Matrix {
        precondition(a.columns == b.rows)
        var result = Matrix(zeros: a.rows, b.columns)
        let (m, n, k) = (a.rows, b.columns, a.columns)
        a.values.withUnsafeBufferPointer { a in
            b.values.withUnsafeBufferPointer { b in
                result.values.withUnsafeMutableBufferPointer { c in
                    for i in 0..<m {
                        for l in 0..<k {
                            let factor = a[i * k + l]
                            var j = 0
                            while j < n {
                                c[i &* n &+ j] += factor * b[l &* n &+ j]
                                j &+= 1
                            }
                        }
                    }
                }
            }
        }
        return result
    }

    /// Elementwise.
    func combined(_ other: Matrix, _ body: (Double, Double) -> Double) -> Matrix {
        precondition(rows == other.rows && columns == other.columns)
        return Matrix(rows, columns, zip(values, other.values).map(body))
    }
}

enum Reference {
    static func normalPhi(_ x: Double) -> Double { 0.5 * erfc(-x / 2.0.squareRoot()) }
    static func gelu(_ x: Double) -> Double { x * normalPhi(x) }

    static func activation(_ activation: Activation, _ x: Double) -> Double {
        switch activation {
        case .identity: x
        case .relu: max(0, x)
        case .gelu: gelu(x)
        case .quickGELU: x / (1 + exp(-1.702 * x))
        case .geluTanh: x / 2 * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
        case .silu: x / (1 + exp(-x))
        }
    }

    static func sumRows(_ x: Matrix) -> [Double] {
        (0..<x.columns).map { column in (0..<x.rows).reduce(0) { $0 + x[$1, column] } }
    }

    /// y, mean and rstd of each row.
    static func layerNorm(
        _ x: Matrix, weight: [Double], bias: [Double], epsilon: Double
    ) -> (y: Matrix, mean: [Double], rstd: [Double]) {
        var (y, mean, rstd) = (x, [Double](), [Double]())
        for i in 0..<x.rows {
            let row = x.values[i * x.columns..<(i + 1) * x.columns]
            let m = row.reduce(0, +) / Double(x.columns)
            let variance = row.reduce(0) { $0 + ($1 - m) * ($1 - m) } / Double(x.columns)
            let r = 1 / (variance + epsilon).squareRoot()
            for j in 0..<x.columns { y[i, j] = (x[i, j] - m) * r * weight[j] + bias[j] }
            mean.append(m)
            rstd.append(r)
        }
        return (y, mean, rstd)
    }

    /// y and rstd of each row.
    static func rmsNorm(_ x: Matrix, weight: [Double], epsilon: Double) -> (y: Matrix, rstd: [Double]) {
        var (y, rstd) = (x, [Double]())
        for i in 0..<x.rows {
            let square = (0..<x.columns).reduce(0) { $0 + x[i, $1] * x[i, $1] } / Double(x.columns)
            rstd.append(1 / (square + epsilon).squareRoot())
            for j in 0..<x.columns { y[i, j] = x[i, j] * rstd[i] * weight[j] }
        }
        return (y, rstd)
    }

    static func softmaxRows(_ x: Matrix) -> Matrix {
        var y = x
        for i in 0..<x.rows {
            let largest = (0..<x.columns).map { x[i, $0] }.max()!
            let exponentials = (0..<x.columns).map { exp(x[i, $0] - largest) }
            let sum = exponentials.reduce(0, +)
            for j in 0..<x.columns { y[i, j] = exponentials[j] / sum }
        }
        return y
    }

    // MARK: Attention

    /// q, k and v [T, h] of one image and head from qkv [B·T, 3·D].
    static func headParts(_ qkv: Matrix, image: Int, head: Int, tokens: Int, heads: Int) -> [Matrix] {
        let (d, h) = (qkv.columns / 3, qkv.columns / 3 / heads)
        return (0..<3).map { third in
            var part = Matrix(zeros: tokens, h)
            for t in 0..<tokens {
                for i in 0..<h { part[t, i] = qkv[image * tokens + t, third * d + head * h + i] }
            }
            return part
        }
    }

    /// out [B·Q, D] and ln Σ exp(S) [B·heads·Q], where the first Q = `queries` tokens ask.
    static func attention(
        _ qkv: Matrix, images: Int, heads: Int, queries: Int
    ) -> (out: Matrix, logSumExp: [Double]) {
        let tokens = qkv.rows / images
        let (d, h) = (qkv.columns / 3, qkv.columns / 3 / heads)
        var out = Matrix(zeros: images * queries, d)
        var logSumExp: [Double] = []
        for image in 0..<images {
            for head in 0..<heads {
                let parts = headParts(qkv, image: image, head: head, tokens: tokens, heads: heads)
                let scores = scores(parts, queries: queries)
                let y = softmaxRows(scores) * parts[2]
                for t in 0..<queries { for i in 0..<h { out[image * queries + t, head * h + i] = y[t, i] } }
                for t in 0..<queries {
                    let row = (0..<tokens).map { scores[t, $0] }
                    let largest = row.max()!
                    logSumExp.append(largest + log(row.reduce(0) { $0 + exp($1 - largest) }))
                }
            }
        }
        return (out, logSumExp)
    }

    /// An image's rows and a head's columns of [B·n, D].
    static func headPart(_ x: Matrix, image: Int, head: Int, images: Int, heads: Int) -> Matrix {
        let (n, h) = (x.rows / images, x.columns / heads)
        var part = Matrix(zeros: n, h)
        for t in 0..<n { for i in 0..<h { part[t, i] = x[image * n + t, head * h + i] } }
        return part
    }

    /// out [B·Q, D] and ln Σ exp(S) [B·heads·Q] of q [B·Q, D], k and v [B·T, D].
    static func attention(
        q: Matrix, k: Matrix, v: Matrix, images: Int, heads: Int
    ) -> (out: Matrix, logSumExp: [Double]) {
        var out = Matrix(zeros: q.rows, q.columns)
        var logSumExp: [Double] = []
        let (queries, h) = (q.rows / images, q.columns / heads)
        for image in 0..<images {
            for head in 0..<heads {
                let parts = [q, k, v].map {
                    headPart($0, image: image, head: head, images: images, heads: heads)
                }
                let scores = scores(parts, queries: queries)
                let y = softmaxRows(scores) * parts[2]
                for t in 0..<queries {
                    for i in 0..<h { out[image * queries + t, head * h + i] = y[t, i] }
                    let row = (0..<scores.columns).map { scores[t, $0] }
                    let largest = row.max()!
                    logSumExp.append(largest + log(row.reduce(0) { $0 + exp($1 - largest) }))
                }
            }
        }
        return (out, logSumExp)
    }

    /// S = q kᵀ / √h [Q, T] of one head.
    static func scores(_ parts: [Matrix], queries: Int) -> Matrix {
        var scores = parts[0].prefix(rows: queries) * parts[1].transposed
        for i in scores.values.indices { scores.values[i] /= Double(parts[0].columns).squareRoot() }
        return scores
    }

    // MARK: GLoRA

    /// A or B [out, in] from its storage.
    static func matrixTerm(_ form: MatrixForm, down: Matrix, up: Matrix) -> Matrix {
        var x = Matrix(zeros: down.rows, up.columns)
        switch form {
        case .none: break
        case .constant: for i in x.values.indices { x.values[i] = down[0, 0] }
        case .vector: for i in 0..<x.rows { for j in 0..<x.columns { x[i, j] = down[i, 0] } }
        case .lowRank(let r): x = down.prefix(columns: r) * up.prefix(rows: r)
        }
        return x
    }

    /// C [in] from its storage.
    static func promptTerm(_ form: PromptForm, down: Matrix, up: Matrix) -> [Double] {
        switch form {
        case .none: [Double](repeating: 0, count: down.rows)
        case .vector: down.prefix(columns: 1).values
        case .lowRank(let r): (down.prefix(columns: r) * up.prefix(rows: r)).values
        }
    }

    /// D or E [out] from its storage.
    static func scaleTerm(_ form: ScaleForm, _ values: [Double]) -> [Double] {
        switch form {
        case .none: values.map { _ in 0 }
        case .constant: values.map { _ in values[0] }
        case .vector: values
        }
    }

    static func gloraWeight(_ w0: Matrix, _ a: Matrix, _ b: Matrix) -> Matrix {
        w0.combined(a) { $0 * (1 + $1) }.combined(b, +)
    }

    static func gloraBias(_ w0: Matrix, _ b0: [Double]?, c: [Double], d: [Double], e: [Double]) -> [Double] {
        var bias = (w0 * Matrix(w0.columns, 1, c)).values
        for o in bias.indices {
            bias[o] += e[o]
            if let b0 { bias[o] += b0[o] * (1 + d[o]) }
        }
        return bias
    }

    // MARK: Tokens, loss, optimizer

    static func extractPatches(_ images: [Double], shape: [Int], patchSize p: Int) -> [Double] {
        let (channels, height, width) = (shape[1], shape[2], shape[3])
        var patches: [Double] = []
        for image in 0..<shape[0] {
            for row in 0..<height / p {
                for column in 0..<width / p {
                    for channel in 0..<channels {
                        for y in 0..<p {
                            for x in 0..<p {
                                let line = (image * channels + channel) * height + row * p + y
                                patches.append(images[line * width + column * p + x])
                            }
                        }
                    }
                }
            }
        }
        return patches
    }

    static func losses(_ logits: Matrix, _ labels: [Int]) -> [Double] {
        let p = softmaxRows(logits)
        return labels.enumerated().map { -log(p[$0, $1]) }
    }

    /// One AdamW step for one element; t is the step count, from 1.
    static func adamW(
        _ theta: Double, _ m: Double, _ v: Double, _ g: Double, t: Int, _ settings: AdamWSettings
    ) -> (theta: Double, m: Double, v: Double) {
        let (beta1, beta2) = (Double(settings.beta1), Double(settings.beta2))
        let rate = Double(settings.learningRate)
        let m = beta1 * m + (1 - beta1) * g
        let v = beta2 * v + (1 - beta2) * g * g
        let corrected = m / (1 - pow(beta1, Double(t)))
        let root = (v / (1 - pow(beta2, Double(t)))).squareRoot()
        let decayed = theta * (1 - rate * Double(settings.weightDecay))
        return (decayed - rate * corrected / (root + Double(settings.epsilon)), m, v)
    }
}
