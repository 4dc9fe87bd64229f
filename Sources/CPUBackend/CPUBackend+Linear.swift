import CLoops
import TensorCore

// A Linear with the weight of a GLoRA layer, in either formulation:
//
//     z = x · Wᵀ,  y = (1 + a) ⊙ z + t · Bd[:, :r]ᵀ + bias,  activated = gelu(y)
//     dx = dy · W
//
// What is added to a product goes into its tile first, and OpenBLAS adds to that: it costs no more than the zeros that it
// would write. Only a vector a, or a z that is to be kept, need a pass of their own over z.

extension CPUBackend {
    /// z [n, out] = x [n, in] · Wᵀ and what the epilogue makes of it.
    public func linear(
        _ y: Tensor?, _ x: Tensor, _ weight: LinearWeight, _ epilogue: Epilogue, rows n: Int, outputs: Int,
        inputs: Int
    ) {
        let z = epilogue.preActivation ?? y ?? epilogue.activated!
        let w = floats(matrix(weight))  // [out, in]
        let product = floats(z)  // [n, out]
        let input = floats(x)  // [n, in]
        let alpha = epilogue.preActivation == nil ? factor(epilogue.a) : nil
        withEpilogue(epilogue, outputs: outputs) { rows in
            forEachTile(m: n, n: outputs, k: inputs) { range, columns, _ in
                let tile = product + range.lowerBound * outputs + columns.lowerBound
                if alpha != nil && rows.isShifted {
                    rows.write(tile, nil, nil, z: nil, range, columns)
                }
                gemm(
                    tile, ldc: outputs, input + range.lowerBound * inputs, lda: inputs,
                    w + columns.lowerBound * inputs, ldb: inputs, m: range.count, n: columns.count,
                    k: inputs, transposeB: true, alpha: alpha ?? 1,
                    beta: alpha != nil && rows.isShifted ? 1 : 0)
            }
        }
        if alpha == nil {
            if y != nil || epilogue.activated != nil { finish(y, z, epilogue) }
        } else if epilogue.activated != nil {
            var rest = Epilogue()
            rest.activated = epilogue.activated
            finish(nil, z, rest)
        }
    }

    /// The epilogue of a z [n, out] that is in memory. y, and any other output, may be z.
    public func finish(_ y: Tensor?, _ z: Tensor, _ epilogue: Epilogue, rows n: Int, outputs: Int) {
        let z = floats(z)  // [n, out], as are the outputs
        let y = y.map { floats($0) }
        let product = epilogue.preActivation.map { floats($0) }
        let activated = epilogue.activated.map { floats($0) }
        withEpilogue(epilogue, outputs: outputs) { rows in
            parallel(n, grain: rowGrain(outputs)) { range in
                let at = range.lowerBound * outputs
                rows.write(
                    y.map { $0 + at }, product.map { $0 + at }, activated.map { $0 + at }, z: z + at,
                    range, 0..<outputs)
            }
        }
    }

    /// 1 + a where that is one number, nil for a vector.
    private func factor(_ a: MatrixTerm?) -> Float? {
        switch a?.form ?? .none {
        case .none: return 1
        case .constant: return 1 + floats(a!.down.value)[0]
        case .vector, .lowRank: return nil
        }
    }

    /// The epilogue's rows for the body: 1 + a, the bias and Bdᵀ.
    private func withEpilogue(
        _ epilogue: Epilogue, outputs: Int, _ body: (EpilogueRows) -> Void
    ) {
        func factors(_ term: MatrixTerm?) -> MatrixFactors? {
            guard let term, term.form != .none else { return nil }
            return MatrixFactors(self, term, outputs: outputs, inputs: term.up.value.columns)
        }
        let (scale, shift) = (factors(epilogue.a), factors(epilogue.b))
        let rank = shift?.rank ?? 0
        let length = factor_length(outputs)
        withScratch((2 + paddedRank(rank)) * length) { rows in
            for o in 0..<outputs { rows[o] = 1 + (scale.map { $0.down[o * $0.rowLength] } ?? 0) }
            if let bias = epilogue.bias {
                (rows + length).update(from: floats(bias), count: outputs)
            } else {
                (rows + length).update(repeating: 0, count: outputs)
            }
            let down = rows + 2 * length
            shift?.copyDown(down)
            (down + rank * length).update(repeating: 0, count: (paddedRank(rank) - rank) * length)
            body(
                EpilogueRows(
                    outputs: outputs, rank: rank, isShifted: epilogue.bias != nil || rank > 0, rows: rows,
                    t: rank > 0 ? floats(epilogue.t!) : rows))
        }
    }
}

/// An epilogue as rows of `out` elements.
private struct EpilogueRows {
    let outputs: Int
    let rank: Int  // r
    /// Whether something is added to the product.
    let isShifted: Bool
    let rows: Floats  // [2 + r, out] with rows of `factor_length`: 1 + a, the bias, Bdᵀ
    let t: Floats  // [n, r]

    /// Writes the outputs of some rows and columns, whose first elements the pointers point at; without z, what is
    /// added to a product.
    func write(
        _ y: Floats?, _ product: Floats?, _ activated: Floats?, z: Floats?, _ range: Range<Int>,
        _ columns: Range<Int>
    ) {
        epilogue_forward(
            y, product, activated, z, t + range.lowerBound * rank, rows + columns.lowerBound, rank,
            range.count, columns.count, outputs, factor_length(outputs))
    }
}
