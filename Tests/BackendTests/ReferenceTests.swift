import TensorCore
import TestSupport
import Testing

/// Holds the analytic derivatives of the reference to central differences of its functions: (f(x + h) −
/// f(x − h)) / 2h.
@Suite struct ReferenceTests {
    /// Checks `gradient` of Σ weights ⊙ f(x) at every coordinate of x. With h = 1e-5 the differences are
    /// good to some 1e-9.
    private func expectGradient(
        _ gradient: [Double], at x: [Double], weights: [Double], _ what: String, of f: ([Double]) -> [Double]
    ) {
        let h = 1e-5
        func value(_ x: [Double]) -> Double { zip(weights, f(x)).reduce(0) { $0 + $1.0 * $1.1 } }
        var (difference, scale) = (0.0, 0.0)
        for i in x.indices {
            var (above, below) = (x, x)
            above[i] += h
            below[i] -= h
            let expected = (value(above) - value(below)) / (2 * h)
            difference += (gradient[i] - expected) * (gradient[i] - expected)
            scale += expected * expected
        }
        #expect(x.count == gradient.count && scale > 0 && difference / scale < 1e-14, "\(what)")
    }

    private func random(_ count: Int, _ seed: Int) -> [Double] { doubles(randomValues(count, seed: seed)) }

    @Test func gelu() {
        let (x, w) = (random(40, 1).map { 3 * $0 }, random(40, 2))
        expectGradient(zip(w, x).map { $0 * Reference.geluSlope($1) }, at: x, weights: w, "gelu") {
            $0.map(Reference.gelu)
        }
    }

    @Test func layerNorm() {
        let (n, d) = (3, 7)
        let (x, dy, weight, bias) = (random(n * d, 1), random(n * d, 2), random(d, 3), random(d, 4))
        let dyMatrix = Matrix(n, d, dy)
        let result = Reference.layerNormBackward(dyMatrix, Matrix(n, d, x), weight: weight, epsilon: 1e-3)
        expectGradient(result.dx.values, at: x, weights: dy, "dx") {
            Reference.layerNorm(Matrix(n, d, $0), weight: weight, bias: bias, epsilon: 1e-3).y.values
        }
        expectGradient(result.dWeight, at: weight, weights: dy, "dWeight") {
            Reference.layerNorm(Matrix(n, d, x), weight: $0, bias: bias, epsilon: 1e-3).y.values
        }
        expectGradient(result.dBias, at: bias, weights: dy, "dBias") {
            Reference.layerNorm(Matrix(n, d, x), weight: weight, bias: $0, epsilon: 1e-3).y.values
        }
    }

    @Test func attention() {
        let (images, tokens, heads, d) = (2, 3, 2, 4)
        let qkv = random(images * tokens * 3 * d, 1)
        let dOut = random(images * tokens * d, 2)
        let gradient = Reference.attentionBackward(
            Matrix(images * tokens, d, dOut), Matrix(images * tokens, 3 * d, qkv), images: images,
            heads: heads)
        expectGradient(gradient.values, at: qkv, weights: dOut, "dqkv") {
            Reference.attention(Matrix(images * tokens, 3 * d, $0), images: images, heads: heads).out.values
        }
    }

    @Test func losses() {
        let (b, k) = (4, 5)
        let (logits, labels) = (random(b * k, 1), [0, 4, 2, 2])
        let weights = [Double](repeating: 1 / Double(b), count: b)
        let gradient = Reference.lossGradient(Matrix(b, k, logits), labels)
        expectGradient(gradient.values, at: logits, weights: weights, "dLogits") {
            Reference.losses(Matrix(b, k, $0), labels)
        }
    }

    @Test(arguments: [MatrixForm.constant, .vector, .lowRank(2), .lowRank(3)])
    func gloraWeight(form: MatrixForm) {
        let (o, i, rank) = (5, 4, 3)
        let w0 = Matrix(o, i, random(o * i, 1))
        let dW = random(o * i, 2)
        let (down, up) = (random(o * rank, 3), random(rank * i, 4))
        let other = Matrix(o, i, random(o * i, 5))
        for isScale in [true, false] {
            func weight(_ down: [Double], _ up: [Double]) -> [Double] {
                let term = Reference.matrixTerm(form, down: Matrix(o, rank, down), up: Matrix(rank, i, up))
                return Reference.gloraWeight(w0, isScale ? term : other, isScale ? other : term).values
            }
            let dX = isScale ? Matrix(o, i, dW).combined(w0, *) : Matrix(o, i, dW)
            let result = Reference.matrixTermBackward(
                form, dX, down: Matrix(o, rank, down), up: Matrix(rank, i, up))
            expectGradient(result.dDown.values, at: down, weights: dW, "\(form) dDown") { weight($0, up) }
            guard case .lowRank = form else {
                #expect(result.dUp.values.allSatisfy { $0 == 0 })
                continue
            }
            expectGradient(result.dUp.values, at: up, weights: dW, "\(form) dUp") { weight(down, $0) }
        }
    }

    @Test(arguments: [PromptForm.vector, .lowRank(2), .lowRank(3)])
    func gloraPrompt(form: PromptForm) {
        let (o, i, rank) = (5, 4, 3)
        let w0 = Matrix(o, i, random(o * i, 1))
        let (db, zeros) = (random(o, 2), [Double](repeating: 0, count: o))
        let (down, up) = (random(i * rank, 3), random(rank, 4))
        func bias(_ down: [Double], _ up: [Double]) -> [Double] {
            let c = Reference.promptTerm(form, down: Matrix(i, rank, down), up: Matrix(rank, 1, up))
            return Reference.gloraBias(w0, nil, c: c, d: zeros, e: zeros)
        }
        let result = Reference.promptTermBackward(
            form, w0, db, down: Matrix(i, rank, down), up: Matrix(rank, 1, up))
        expectGradient(result.dDown.values, at: down, weights: db, "\(form) dDown") { bias($0, up) }
        guard case .lowRank = form else { return }
        expectGradient(result.dUp.values, at: up, weights: db, "\(form) dUp") { bias(down, $0) }
    }

    @Test(arguments: [ScaleForm.constant, .vector])
    func gloraScale(form: ScaleForm) {
        let o = 5
        let w0 = Matrix(o, 1, random(o, 1))
        let (b0, db, values) = (random(o, 2), random(o, 3), random(o, 4))
        let zeros = [Double](repeating: 0, count: o)
        let dScale = Reference.scaleTermBackward(form, zip(db, b0).map { $0 * $1 })
        expectGradient(dScale, at: values, weights: db, "D \(form)") {
            Reference.gloraBias(w0, b0, c: [0], d: Reference.scaleTerm(form, $0), e: zeros)
        }
        expectGradient(Reference.scaleTermBackward(form, db), at: values, weights: db, "E \(form)") {
            Reference.gloraBias(w0, b0, c: [0], d: zeros, e: Reference.scaleTerm(form, $0))
        }
    }
}
