import TensorCore

// GLoRA in activation space, in double precision:
//
//     z = x · W₀ᵀ,  t = x · Buᵀ,  y = (1 + a) ⊙ z + t · Bdᵀ + bias,  u = dy · Bd
//
// where Bu is a row of ones and Bd a column unless B is of low rank.

struct ActivationReference {
    let x: Matrix  // [n, in]
    let formA: MatrixForm
    let formB: MatrixForm
    let aDown: Matrix  // Ad [out, R]
    let bDown: Matrix  // Bd [out, R]
    let bUp: Matrix  // Bu [R, in]
    let z: Matrix  // [n, out]
    let t: Matrix  // [n, r]
    let y: Matrix  // [n, out]
    let factors: (down: Matrix, up: Matrix)  // [out, r], [r, in]

    init(
        x: Matrix, w0: Matrix, _ formA: MatrixForm, _ formB: MatrixForm, aDown: Matrix, bDown: Matrix,
        bUp: Matrix, bias: [Double]
    ) {
        self.x = x
        (self.formA, self.formB) = (formA, formB)
        (self.aDown, self.bDown, self.bUp) = (aDown, bDown, bUp)
        factors = Reference.factors(formB, down: bDown, up: bUp)
        z = x * w0.transposed
        t = x * factors.up.transposed
        let a = Reference.factors(formA, down: aDown, up: aDown.transposed).down
        var y = z.combined(t * factors.down.transposed, +)
        if a.columns > 0 {
            for i in 0..<y.rows { for j in 0..<y.columns { y[i, j] += a[j, 0] * z[i, j] } }
        }
        self.y = Reference.adding(bias, to: y)
    }

    /// u [n, r].
    func projection(_ dy: Matrix) -> Matrix { dy * factors.down }

    /// The gradients, zero where the forms don't read.
    func backward(_ dy: Matrix) -> (bias: [Double], aDown: Matrix, bDown: Matrix, bUp: Matrix) {
        let scale = Reference.sumRows(dy.combined(z, *))
        var aDown = Matrix(zeros: self.aDown.rows, self.aDown.columns)
        switch formA {
        case .none, .lowRank: break
        case .constant: aDown[0, 0] = scale.reduce(0, +)
        case .vector: for o in scale.indices { aDown[o, 0] = scale[o] }
        }
        let products = dy.transposed * t  // [out, r]
        var (bDown, bUp) = (
            Matrix(zeros: self.bDown.rows, self.bDown.columns), Matrix(zeros: self.bUp.rows, x.columns)
        )
        if formB == .constant {
            bDown[0, 0] = products.values.reduce(0, +)
        } else {
            for o in 0..<products.rows { for j in 0..<products.columns { bDown[o, j] = products[o, j] } }
        }
        if case .lowRank = formB {
            let sums = (projection(dy).transposed * x).values
            bUp.values.replaceSubrange(..<sums.count, with: sums)
        }
        return (Reference.sumRows(dy), aDown, bDown, bUp)
    }
}

extension Reference {
    /// Xd [out, r] and Xu [r, in] whose product is the term.
    static func factors(_ form: MatrixForm, down: Matrix, up: Matrix) -> (down: Matrix, up: Matrix) {
        let ones = Matrix(1, up.columns, [Double](repeating: 1, count: up.columns))
        switch form {
        case .none: return (Matrix(zeros: down.rows, 0), Matrix(zeros: 0, up.columns))
        case .constant:
            return (Matrix(down.rows, 1, [Double](repeating: down[0, 0], count: down.rows)), ones)
        case .vector: return (down.prefix(columns: 1), ones)
        case .lowRank(let r): return (down.prefix(columns: r), up.prefix(rows: r))
        }
    }

    /// x [n, d] with row [d] added to every row.
    static func adding(_ row: [Double], to x: Matrix) -> Matrix {
        var y = x
        for i in 0..<y.rows { for j in 0..<y.columns { y[i, j] += row[j] } }
        return y
    }
}
