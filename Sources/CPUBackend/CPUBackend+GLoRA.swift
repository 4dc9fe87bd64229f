import CLoops
import TensorCore

// The weight and the bias of a GLoRA layer and their gradients:
//
//     W = W₀ ⊙ (1 + A) + B,   b = b₀ ⊙ (1 + D) + E + W₀ · C
//
// with A, B [out, in], C [in], D, E [out], each in one of its forms. Down factors are stored [·, R], of
// which a form of rank r ≤ R reads the first r columns; up factors [R, in], of which it reads the first r
// rows.
//
// Source: arXiv 2306.07967 §3; ViT-Slim/GLoRA/layer.py.

extension CPUBackend {
    /// W = W₀ ⊙ (1 + A) + B, in one pass.
    public func gloraWeight(
        _ weight: Tensor, _ frozen: Tensor, _ a: MatrixTerm, _ b: MatrixTerm, outputs: Int, inputs: Int
    ) {
        let weight = floats(weight)  // [out, in]
        let scale = MatrixFactors(self, a, outputs: outputs, inputs: inputs)
        let shift = MatrixFactors(self, b, outputs: outputs, inputs: inputs)
        let w0 = floats(frozen)  // [out, in]
        scale.withUp { scaleUp in
            shift.withUp { shiftUp in
                parallel(outputs, grain: rowGrain(inputs)) { range in
                    let (row, at) = (range.lowerBound, range.lowerBound * inputs)
                    glora_weight(
                        weight + at, w0 + at, scale.down + row * scale.rowLength, scale.rowLength, scaleUp,
                        scale.rank, shift.down + row * shift.rowLength, shift.rowLength, shiftUp, shift.rank,
                        range.count, inputs)
                }
            }
        }
    }

    /// Accumulates ∂A = dW ⊙ W₀ and ∂B = dW, with dW = dyᵀ · x in `scratch`, into the factors' gradients.
    public func gloraWeightBackward(
        _ a: MatrixTerm, _ b: MatrixTerm, _ scratch: Tensor, _ dy: Tensor, _ x: Tensor, _ frozen: Tensor,
        rows: Int, outputs: Int, inputs: Int
    ) {
        let scale = MatrixFactors(self, a, outputs: outputs, inputs: inputs)
        let shift = MatrixFactors(self, b, outputs: outputs, inputs: inputs)
        guard [scale.dDown, scale.dUp, shift.dDown, shift.dUp].contains(where: { $0 != nil }) else { return }
        matmul(
            scratch.leading([outputs, inputs], .float32), dy, x, transposeA: true, transposeB: false,
            accumulate: false)
        let dW = floats(scratch)  // [out, in]
        let w0 = floats(frozen)  // [out, in]
        let scaleSize = scale.dUp == nil ? 0 : scale.rank * factor_length(inputs)
        let shiftSize = shift.dUp == nil ? 0 : shift.rank * factor_length(inputs)
        withScratch(outputs * (scale.rank + shift.rank)) { downSums in  // [out, ra], then [out, rb]
            let shiftSums = downSums + outputs * scale.rank
            scale.withUp { scaleUp in
                shift.withUp { shiftUp in
                    sumOfBlocks(outputs, columns: inputs, size: scaleSize + shiftSize) { range, upSums in
                        let (row, at) = (range.lowerBound, range.lowerBound * inputs)
                        glora_weight_backward(
                            downSums + row * scale.rank, scaleSize > 0 ? upSums : nil,
                            shiftSums + row * shift.rank, shiftSize > 0 ? upSums + scaleSize : nil,
                            dW + at, w0 + at,
                            scale.down + row * scale.rowLength, scale.rowLength, scaleUp, scale.rank,
                            shift.down + row * shift.rowLength, shift.rowLength, shiftUp, shift.rank,
                            range.count, inputs)
                    } use: { upSums in
                        scale.addUp(upSums)
                        shift.addUp(upSums + scaleSize)
                    }
                }
            }
            scale.addDown { downSums[$0 * scale.rank + $1] }
            shift.addDown { shiftSums[$0 * shift.rank + $1] }
        }
    }

    /// t [n, r] ← x [n, in] · Bu[:r]ᵀ.
    public func gloraProject(_ t: Tensor, _ x: Tensor, _ b: MatrixTerm, rows: Int, inputs: Int) {
        let factors = MatrixFactors(self, b, outputs: b.down.value.rows, inputs: inputs)
        let rank = factors.rank
        let t = floats(t)  // [n, r]
        let first = floats(x)  // [n, in]
        factors.withUp { up in
            parallel(rows, grain: rowGrain(inputs)) { range in
                let row = range.lowerBound
                project_rows(t + row * rank, first + row * inputs, up, rank, range.count, inputs)
            }
        }
    }

    /// dBias [out] and the gradients of Ad and Bd, in one pass over dy [n, out] and z [n, out].
    public func gloraOutputBackward(
        _ dBias: Tensor, _ a: MatrixTerm?, _ b: MatrixTerm?, _ dy: Tensor, _ z: Tensor?, _ t: Tensor?,
        rows n: Int, outputs: Int
    ) {
        func factors(_ term: MatrixTerm) -> MatrixFactors {
            MatrixFactors(self, term, outputs: outputs, inputs: term.up.value.columns)
        }
        let (scale, shift) = (a.map(factors), b.map(factors))
        let (hasScale, hasShift) = (scale?.dDown != nil, shift?.dDown != nil)
        let rank = hasShift ? shift!.rank : 0
        let dBias = floats(dBias)  // [out]
        let dy = floats(dy)  // [n, out]
        let z = hasScale ? floats(z!) : nil  // [n, out]
        let t = hasShift ? floats(t!) : nil  // [n, r]
        let length = factor_length(outputs)
        sumOfBlocks(n, columns: outputs, size: (rank + (hasScale ? 2 : 1)) * length) { range, sums in
            let at = range.lowerBound * outputs
            glora_output_backward(
                sums, dy + at, z.map { $0 + at }, t.map { $0 + range.lowerBound * rank }, rank, range.count,
                outputs)
        } use: { sums in
            dBias.update(from: sums, count: outputs)
            if hasShift { shift!.addDown { sums[(1 + $1) * length + $0] } }
            if hasScale { scale!.addDown { o, _ in sums[(1 + rank) * length + o] } }
        }
    }

    /// u [n, r] ← dy [n, out] · Bd, and ∂Bu[:r] += uᵀ · x [n, in].
    public func gloraProjectBackward(
        _ u: Tensor, _ b: MatrixTerm, _ dy: Tensor, _ x: Tensor, rows n: Int, outputs: Int, inputs: Int
    ) {
        let factors = MatrixFactors(self, b, outputs: outputs, inputs: inputs)
        let rank = factors.rank
        let u = floats(u)  // [n, r]
        let dy = floats(dy)  // [n, out]
        let x = floats(x)  // [n, in]
        withScratch(rank * factor_length(outputs)) { down in
            factors.copyDown(down)
            func project(_ range: Range<Int>) {
                let row = range.lowerBound
                project_rows(u + row * rank, dy + row * outputs, down, rank, range.count, outputs)
            }
            guard factors.dUp != nil else {
                return parallel(n, grain: rowGrain(outputs)) { project($0) }
            }
            sumOfBlocks(n, columns: inputs, size: rank * factor_length(inputs)) { range, sums in
                project(range)
                project_backward(
                    sums, u + range.lowerBound * rank, x + range.lowerBound * inputs, rank, range.count,
                    inputs)
            } use: { sums in
                factors.addUp(sums)
            }
        }
    }

    /// b = b₀ ⊙ (1 + D) + E + W₀ · C, and C into `prompt`.
    public func gloraBias(
        _ bias: Tensor, _ prompt: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?,
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm, outputs: Int, inputs: Int
    ) {
        let prompt = floats(prompt)  // [in]
        let down = floats(c.down.value)  // [in, R]
        let up = floats(c.up.value)  // [R, 1]
        let rank = c.down.value.columns
        switch c.form {
        case .none: prompt.update(repeating: 0, count: inputs)
        case .vector: for i in 0..<inputs { prompt[i] = down[i * rank] }
        case .lowRank(let r): for i in 0..<inputs { project_rows(prompt + i, down + i * rank, up, 1, 1, r) }
        }
        let bias = floats(bias)  // [out]
        let b0 = frozenBias.map { floats($0) }  // [out]
        let scale = floats(d.values.value)  // [out]
        let shift = floats(e.values.value)  // [out]
        for o in 0..<outputs {
            var value = b0?[o] ?? 0
            if b0 != nil, d.form != .none { value *= 1 + scale[d.form == .constant ? 0 : o] }
            if e.form != .none { value += shift[e.form == .constant ? 0 : o] }
            bias[o] = value
        }
        guard c.form != .none else { return }
        let w0 = floats(frozen)  // [out, in]
        withScratch(outputs) { products in  // [out] W₀ · C
            parallel(outputs, grain: rowGrain(inputs)) { range in
                let row = range.lowerBound
                project_rows(products + row, w0 + row * inputs, prompt, 1, range.count, inputs)
            }
            add_to(bias, products, outputs)
        }
    }

    /// Accumulates ∂C = W₀ᵀ · db, ∂D = db ⊙ b₀ and ∂E = db into the terms' gradients.
    public func gloraBiasBackward(
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm,
        _ dPrompt: Tensor, _ dBias: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?, outputs: Int, inputs: Int
    ) {
        let db = floats(dBias)  // [out]
        if let frozenBias, let gradient = d.values.gradient {
            let b0 = floats(frozenBias)  // [out]
            let dScale = floats(gradient)  // [out]
            switch d.form {
            case .none: break
            case .constant:
                var sum: Float = 0
                project_rows(&sum, db, b0, 1, 1, outputs)
                dScale[0] += sum
            case .vector: for o in 0..<outputs { dScale[o] += db[o] * b0[o] }
            }
        }
        if let gradient = e.values.gradient {
            let dShift = floats(gradient)  // [out]
            switch e.form {
            case .none: break
            case .constant: dShift[0] += Float((0..<outputs).reduce(0.0) { $0 + Double(db[$1]) })
            case .vector: for o in 0..<outputs { dShift[o] += db[o] }
            }
        }
        guard c.form != .none else { return }
        let dPrompt = floats(dPrompt)  // [in]
        let w0 = floats(frozen)  // [out, in]
        sumOfBlocks(outputs, columns: inputs, size: factor_length(inputs)) { range, sums in
            let row = range.lowerBound
            project_backward(sums, db + row, w0 + row * inputs, 1, range.count, inputs)
        } use: { sums in
            dPrompt.update(from: sums, count: inputs)
        }
        promptBackward(c, dPrompt, inputs)
    }

    /// ∂Cd and ∂Cu from ∂C [in].
    private func promptBackward(
        _ c: PromptTerm, _ dPrompt: UnsafeMutablePointer<Float>, _ inputs: Int
    ) {
        let down = floats(c.down.value)  // [in, R]
        let up = floats(c.up.value)  // [R, 1]
        let rank = c.down.value.columns
        if let gradient = c.down.gradient {
            let dDown = floats(gradient)  // [in, R]
            for i in 0..<inputs {
                switch c.form {
                case .none: break
                case .vector: dDown[i * rank] += dPrompt[i]
                case .lowRank(let r): for j in 0..<r { dDown[i * rank + j] += dPrompt[i] * up[j] }
                }
            }
        }
        if case .lowRank(let r) = c.form, let gradient = c.up.gradient {
            let dUp = floats(gradient)  // [R, 1]
            withScratch(factor_length(rank)) { sums in
                project_backward(sums, dPrompt, down, 1, inputs, rank)
                add_to(dUp, sums, r)
            }
        }
    }
}
