import Foundation
import TensorCore
import TestSupport
import Testing

/// Holds the analytic derivatives of the reference to central differences of its functions: (f(x + h) −
/// f(x − h)) / 2h.
@Suite("The reference's derivatives are its functions' slopes") struct ReferenceTests {
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

    @Test("The slope of GELU is its central difference") func gelu() {
        let (x, w) = (random(40, 1).map { 3 * $0 }, random(40, 2))
        expectGradient(zip(w, x).map { $0 * Reference.geluSlope($1) }, at: x, weights: w, "gelu") {
            $0.map(Reference.gelu)
        }
    }

    @Test("LayerNorm's gradients are central differences of its output") func layerNorm() {
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

    @Test("RMSNorm's gradients are central differences of its output") func rmsNorm() {
        let (n, d) = (3, 7)
        let (x, dy, weight) = (random(n * d, 1), random(n * d, 2), random(d, 3))
        let result = Reference.rmsNormBackward(
            Matrix(n, d, dy), Matrix(n, d, x), weight: weight, epsilon: 1e-3)
        expectGradient(result.dx.values, at: x, weights: dy, "dx") {
            Reference.rmsNorm(Matrix(n, d, $0), weight: weight, epsilon: 1e-3).y.values
        }
        expectGradient(result.dWeight, at: weight, weights: dy, "dWeight") {
            Reference.rmsNorm(Matrix(n, d, x), weight: $0, epsilon: 1e-3).y.values
        }
    }

    @Test("Attention's gradients are central differences of its output", arguments: 1...3)
    func attention(queries: Int) {
        let (images, tokens, heads, d) = (2, 3, 2, 4)
        let qkv = random(images * tokens * 3 * d, 1)
        let dOut = random(images * queries * d, 2)
        let gradient = Reference.attentionBackward(
            Matrix(images * queries, d, dOut), Matrix(images * tokens, 3 * d, qkv), images: images,
            heads: heads, queries: queries)
        expectGradient(gradient.values, at: qkv, weights: dOut, "dqkv") {
            Reference.attention(
                Matrix(images * tokens, 3 * d, $0), images: images, heads: heads, queries: queries
            ).out.values
        }
    }

    @Test("Gradients of attention to other tokens are central differences of its output", arguments: [1, 5])
    func attentionToOthers(queries: Int) {
        let (images, tokens, heads, d) = (2, 3, 2, 4)
        let (q, k, v) = (
            random(images * queries * d, 1), random(images * tokens * d, 2), random(images * tokens * d, 3)
        )
        let dOut = random(images * queries * d, 4)
        func out(_ q: [Double], _ k: [Double], _ v: [Double]) -> [Double] {
            Reference.attention(
                q: Matrix(images * queries, d, q), k: Matrix(images * tokens, d, k),
                v: Matrix(images * tokens, d, v), images: images, heads: heads
            ).out.values
        }
        let gradients = Reference.attentionBackward(
            Matrix(images * queries, d, dOut), q: Matrix(images * queries, d, q),
            k: Matrix(images * tokens, d, k), v: Matrix(images * tokens, d, v), images: images, heads: heads)
        expectGradient(gradients[0].values, at: q, weights: dOut, "dq") { out($0, k, v) }
        expectGradient(gradients[1].values, at: k, weights: dOut, "dk") { out(q, $0, v) }
        expectGradient(gradients[2].values, at: v, weights: dOut, "dv") { out(q, k, $0) }
    }

    @Test("logSumExp is what its definition gives, for scores that an exponential can hold") func logSumExp()
    {
        let (tokens, d) = (3, 4)
        let qkv = Matrix(tokens, 3 * d, random(tokens * 3 * d, 1))
        let parts = Reference.headParts(qkv, image: 0, head: 0, tokens: tokens, heads: 1)
        let result = Reference.attention(qkv, images: 1, heads: 1, queries: 2).logSumExp
        #expect(result.count == 2)
        for (row, value) in result.enumerated() {
            var sum = 0.0
            for j in 0..<tokens {
                var product = 0.0
                for i in 0..<d { product += parts[0][row, i] * parts[1][j, i] }
                sum += exp(product / 2)
            }
            #expect(abs(value - log(sum)) < 1e-12)
        }
    }

    @Test("The losses' gradient is their central difference") func losses() {
        let (b, k) = (4, 5)
        let (logits, labels) = (random(b * k, 1), [0, 4, 2, 2])
        let weights = [Double](repeating: 1 / Double(b), count: b)
        let gradient = Reference.lossGradient(Matrix(b, k, logits), labels)
        expectGradient(gradient.values, at: logits, weights: weights, "dLogits") {
            Reference.losses(Matrix(b, k, $0), labels)
        }
    }

    @Test(
        "The gradients of A and B are central differences of W",
        arguments: [MatrixForm.constant, .vector, .lowRank(2), .lowRank(3)])
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

    @Test(
        "Activation space has the output of weight space, and the gradients of that output",
        arguments: [MatrixForm.none, .constant, .vector],
        [MatrixForm.none, .constant, .vector, .lowRank(2), .lowRank(3)])
    func gloraActivation(formA: MatrixForm, formB: MatrixForm) {
        let (n, o, i, rank) = (3, 5, 4, 3)
        let (x, w0) = (Matrix(n, i, random(n * i, 1)), Matrix(o, i, random(o * i, 2)))
        let (bias, dy) = (random(o, 3), random(n * o, 4))
        let values = [random(o * rank, 5), random(o * rank, 6), random(rank * i, 7)]  // Ad, Bd, Bu
        let up = Matrix(rank, i, random(rank * i, 8))  // Au, which no form here reads
        func output(_ values: [[Double]], _ bias: [Double]) -> [Double] {
            let a = Reference.matrixTerm(formA, down: Matrix(o, rank, values[0]), up: up)
            let b = Reference.matrixTerm(
                formB, down: Matrix(o, rank, values[1]), up: Matrix(rank, i, values[2]))
            let product = x * Reference.gloraWeight(w0, a, b).transposed
            return Reference.adding(bias, to: product).values
        }
        let layer = ActivationReference(
            x: x, w0: w0, formA, formB, aDown: Matrix(o, rank, values[0]), bDown: Matrix(o, rank, values[1]),
            bUp: Matrix(rank, i, values[2]), bias: bias)
        let difference = zip(layer.y.values, output(values, bias)).map { abs($0 - $1) }.max()!
        #expect(difference < 1e-12)
        let gradients = layer.backward(Matrix(n, o, dy))
        for (index, gradient) in [gradients.aDown, gradients.bDown, gradients.bUp].enumerated() {
            let isRead: Bool =
                switch (index, formA, formB) {
                case (0, .none, _), (1, _, .none): false
                case (2, _, .lowRank): true
                case (2, _, _): false
                default: true
                }
            guard isRead else {
                #expect(gradient.values.allSatisfy { $0 == 0 })
                continue
            }
            expectGradient(gradient.values, at: values[index], weights: dy, "\(formA) \(formB) \(index)") {
                var changed = values
                changed[index] = $0
                return output(changed, bias)
            }
        }
        expectGradient(gradients.bias, at: bias, weights: dy, "bias") { output(values, $0) }
    }

    @Test(
        "The gradients of C are central differences of the bias",
        arguments: [PromptForm.vector, .lowRank(2), .lowRank(3)])
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

    @Test(
        "The gradients of D and E are central differences of the bias",
        arguments: [ScaleForm.constant, .vector])
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
