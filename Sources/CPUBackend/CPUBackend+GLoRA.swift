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
    /// W = W₀ ⊙ (1 + A) + B, in one pass over tiles of 256 columns that stay in the first cache.
    public func gloraWeight(_ weight: Tensor, _ frozen: Tensor, _ a: MatrixTerm, _ b: MatrixTerm) {
        let operation: StaticString = "gloraWeight"
        let inputs = frozen.columns
        require(weight.count == frozen.count, operation, "W \(weight.shape) and W₀ \(frozen.shape) differ")
        let weight = floats(weight, operation)  // [out, in]
        let scale = MatrixFactors(self, a, outputs: frozen.rows, inputs: inputs, operation)
        let shift = MatrixFactors(self, b, outputs: frozen.rows, inputs: inputs, operation)
        let w0 = floats(frozen, operation)  // [out, in]
        let width = 256
        parallel(frozen.rows, grain: rowGrain(inputs)) { range in
            withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * width) { scratch in
                let tileA = scratch.baseAddress!  // [width]
                let tileB = tileA + width  // [width]
                for o in range {
                    for first in stride(from: 0, to: inputs, by: width) {
                        let n = min(width, inputs - first)
                        scale.write(tileA, row: o, from: first, n)
                        shift.write(tileB, row: o, from: first, n)
                        let w = weight + o * inputs + first
                        let frozen = w0 + o * inputs + first
                        for i in 0..<n { w[i] = frozen[i] * (1 + tileA[i]) + tileB[i] }
                    }
                }
            }
        }
    }

    /// Accumulates ∂A = dW ⊙ W₀ and ∂B = dW into the factors' gradients.
    public func gloraWeightBackward(_ a: MatrixTerm, _ b: MatrixTerm, _ dWeight: Tensor, _ frozen: Tensor) {
        let operation: StaticString = "gloraWeightBackward"
        let (outputs, inputs) = (frozen.rows, frozen.columns)
        require(dWeight.count == frozen.count, operation, "dW \(dWeight.shape) and W₀ \(frozen.shape) differ")
        let dW = floats(dWeight, operation)  // [out, in]
        let w0 = floats(frozen, operation)  // [out, in]
        for (term, factor) in [(a, w0), (b, nil)] {
            let factors = MatrixFactors(self, term, outputs: outputs, inputs: inputs, operation)
            switch term.form {
            case .none: continue
            case .constant: constantBackward(factors, dW, factor, outputs, inputs)
            case .vector:
                guard let dDown = factors.dDown else { continue }
                parallel(outputs, grain: rowGrain(inputs)) { range in
                    for o in range {
                        dDown[o * factors.rank] += rowDot(dW, factor, nil, o, inputs)
                    }
                }
            case .lowRank(let r): lowRankBackward(factors, r, dW, factor, outputs, inputs)
            }
        }
    }

    /// Σᵢ dW[o, i] · W₀[o, i] · up[i], without the factors that are nil.
    @inline(__always)
    private func rowDot(
        _ dW: UnsafeMutablePointer<Float>, _ w0: UnsafeMutablePointer<Float>?,
        _ up: UnsafeMutablePointer<Float>?,
        _ o: Int, _ inputs: Int
    ) -> Float {
        let row = dW + o * inputs
        switch (w0, up) {
        case (let w0?, let up?): return dot(row, w0 + o * inputs, up, inputs)
        case (let w0?, nil): return dot(row, w0 + o * inputs, inputs)
        case (nil, let up?): return dot(row, up, inputs)
        case (nil, nil): return sum(row, inputs)
        }
    }

    /// ∂Xd[0, 0] += Σ ∂X: a sum per row, then the sum of those, in double because they nearly cancel at times.
    private func constantBackward(
        _ factors: MatrixFactors, _ dW: UnsafeMutablePointer<Float>, _ w0: UnsafeMutablePointer<Float>?,
        _ outputs: Int, _ inputs: Int
    ) {
        guard let dDown = factors.dDown else { return }
        withUnsafeTemporaryAllocation(of: Float.self, capacity: outputs) { scratch in
            let rowSums = scratch.baseAddress!  // [out]
            parallel(outputs, grain: rowGrain(inputs)) { range in
                for o in range { rowSums[o] = rowDot(dW, w0, nil, o, inputs) }
            }
            dDown[0] += Float(scratch.reduce(0.0) { $0 + Double($1) })
        }
    }

    /// ∂Xd[:, :r] += ∂X · Xu[:r]ᵀ by rows, ∂Xu[:r] += Xd[:, :r]ᵀ · ∂X by columns.
    private func lowRankBackward(
        _ factors: MatrixFactors, _ r: Int, _ dW: UnsafeMutablePointer<Float>,
        _ w0: UnsafeMutablePointer<Float>?,
        _ outputs: Int, _ inputs: Int
    ) {
        if let dDown = factors.dDown {
            parallel(outputs, grain: rowGrain(inputs)) { range in
                for o in range {
                    for j in 0..<r {
                        dDown[o * factors.rank + j] += rowDot(dW, w0, factors.up + j * inputs, o, inputs)
                    }
                }
            }
        }
        guard let dUp = factors.dUp else { return }
        columnSums(dUp, outputs: r, rows: outputs, columns: inputs, accumulate: true) { o, columns, block in
            let n = columns.count
            let row = dW + o * inputs + columns.lowerBound
            for j in 0..<r {
                let down = factors.down[o * factors.rank + j]
                let sums = block + j * n
                if let w0 {
                    let frozen = w0 + o * inputs + columns.lowerBound
                    for i in 0..<n { sums[i] += down * (row[i] * frozen[i]) }
                } else {
                    for i in 0..<n { sums[i] += down * row[i] }
                }
            }
        }
    }

    /// b = b₀ ⊙ (1 + D) + E + W₀ · C, and C into `prompt`.
    public func gloraBias(
        _ bias: Tensor, _ prompt: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?,
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm
    ) {
        let operation: StaticString = "gloraBias"
        let (outputs, inputs) = (frozen.rows, frozen.columns)
        require(
            bias.count == outputs && prompt.count == inputs && (frozenBias?.count ?? outputs) == outputs,
            operation,
            "b \(bias.shape), C \(prompt.shape) and W₀ \(frozen.shape) don't fit")
        let prompt = floats(prompt, operation)  // [in]
        let down = floats(c.down.value, operation)  // [in, R]
        let up = floats(c.up.value, operation)  // [R, 1]
        let rank = c.down.value.columns
        require(c.form.columns <= rank, operation, "C's rank \(c.form.columns) exceeds its storage's \(rank)")
        switch c.form {
        case .none: prompt.update(repeating: 0, count: inputs)
        case .vector: for i in 0..<inputs { prompt[i] = down[i * rank] }
        case .lowRank(let r): for i in 0..<inputs { prompt[i] = dot(down + i * rank, up, r) }
        }
        let bias = floats(bias, operation)  // [out]
        let b0 = frozenBias.map { floats($0, operation) }  // [out]
        let scale = floats(d.values.value, operation)  // [out]
        let shift = floats(e.values.value, operation)  // [out]
        for o in 0..<outputs {
            var value: Float = 0
            if let b0 {
                switch d.form {
                case .none: value = b0[o]
                case .constant: value = b0[o] * (1 + scale[0])
                case .vector: value = b0[o] * (1 + scale[o])
                }
            }
            switch e.form {
            case .none: break
            case .constant: value += shift[0]
            case .vector: value += shift[o]
            }
            bias[o] = value
        }
        guard c.form != .none else { return }
        let w0 = floats(frozen, operation)  // [out, in]
        parallel(outputs, grain: rowGrain(inputs)) { range in
            for o in range { bias[o] += dot(w0 + o * inputs, prompt, inputs) }
        }
    }

    /// Accumulates ∂C = W₀ᵀ · db, ∂D = db ⊙ b₀ and ∂E = db into the terms' gradients.
    public func gloraBiasBackward(
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm,
        _ dPrompt: Tensor, _ dBias: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?
    ) {
        let operation: StaticString = "gloraBiasBackward"
        let (outputs, inputs) = (frozen.rows, frozen.columns)
        require(
            dBias.count == outputs && dPrompt.count == inputs && (frozenBias?.count ?? outputs) == outputs,
            operation,
            "db \(dBias.shape), dC \(dPrompt.shape) and W₀ \(frozen.shape) don't fit")
        let db = floats(dBias, operation)  // [out]
        if let frozenBias, let gradient = d.values.gradient {
            let b0 = floats(frozenBias, operation)  // [out]
            let dScale = floats(gradient, operation)  // [out]
            switch d.form {
            case .none: break
            case .constant: dScale[0] += dot(db, b0, outputs)
            case .vector: for o in 0..<outputs { dScale[o] += db[o] * b0[o] }
            }
        }
        if let gradient = e.values.gradient {
            let dShift = floats(gradient, operation)  // [out]
            switch e.form {
            case .none: break
            case .constant: dShift[0] += sum(db, outputs)
            case .vector: for o in 0..<outputs { dShift[o] += db[o] }
            }
        }
        guard c.form != .none else { return }
        let dPrompt = floats(dPrompt, operation)  // [in]
        let w0 = floats(frozen, operation)  // [out, in]
        columnSums(dPrompt, outputs: 1, rows: outputs, columns: inputs, accumulate: false) {
            o, columns, block in
            let row = w0 + o * inputs + columns.lowerBound
            let factor = db[o]
            for i in 0..<columns.count { block[i] += factor * row[i] }
        }
        promptBackward(c, dPrompt, inputs, operation)
    }

    /// ∂Cd and ∂Cu from ∂C [in].
    private func promptBackward(
        _ c: PromptTerm, _ dPrompt: UnsafeMutablePointer<Float>, _ inputs: Int, _ operation: StaticString
    ) {
        let down = floats(c.down.value, operation)  // [in, R]
        let up = floats(c.up.value, operation)  // [R, 1]
        let rank = c.down.value.columns
        require(c.form.columns <= rank, operation, "C's rank \(c.form.columns) exceeds its storage's \(rank)")
        if let gradient = c.down.gradient {
            let dDown = floats(gradient, operation)  // [in, R]
            for i in 0..<inputs {
                switch c.form {
                case .none: break
                case .vector: dDown[i * rank] += dPrompt[i]
                case .lowRank(let r): for j in 0..<r { dDown[i * rank + j] += dPrompt[i] * up[j] }
                }
            }
        }
        if case .lowRank(let r) = c.form, let gradient = c.up.gradient {
            columnSums(floats(gradient, operation), outputs: 1, rows: inputs, columns: r, accumulate: true) {
                i, columns, block in
                for j in columns { block[j - columns.lowerBound] += down[i * rank + j] * dPrompt[i] }
            }
        }
    }
}

extension PromptForm {
    /// How many columns of Cd the form reads.
    fileprivate var columns: Int {
        switch self {
        case .none: 0
        case .vector: 1
        case .lowRank(let r): r
        }
    }
}

/// A or B as pointers.
private struct MatrixFactors {
    let form: MatrixForm
    let rank: Int  // R, the storage's
    let inputs: Int
    let down: UnsafeMutablePointer<Float>  // [out, R]
    let up: UnsafeMutablePointer<Float>  // [R, in]
    let dDown: UnsafeMutablePointer<Float>?  // [out, R]
    let dUp: UnsafeMutablePointer<Float>?  // [R, in]

    init(_ backend: CPUBackend, _ term: MatrixTerm, outputs: Int, inputs: Int, _ operation: StaticString) {
        form = term.form
        rank = term.down.value.columns
        self.inputs = inputs
        require(
            term.down.value.count == outputs * rank && term.up.value.count == rank * inputs, operation,
            "\(term.down.name) \(term.down.value.shape) and \(term.up.name) \(term.up.value.shape) are no factors of "
                + "[\(outputs), \(inputs)]")
        if case .lowRank(let r) = form {
            require(
                r <= rank, operation, "rank \(r) exceeds that of \(term.down.name) \(term.down.value.shape)")
        }
        down = backend.floats(term.down.value, operation)
        up = backend.floats(term.up.value, operation)
        dDown = term.down.gradient.map { backend.floats($0, operation) }
        dUp = term.up.gradient.map { backend.floats($0, operation) }
    }

    /// tile [n] ← X[row, first...].
    @inline(__always)
    func write(_ tile: UnsafeMutablePointer<Float>, row: Int, from first: Int, _ n: Int) {
        switch form {
        case .none: tile.update(repeating: 0, count: n)
        case .constant: tile.update(repeating: down[0], count: n)
        case .vector: tile.update(repeating: down[row * rank], count: n)
        case .lowRank(let r):
            tile.update(repeating: 0, count: n)
            for j in 0..<r {
                let factor = down[row * rank + j]
                let up = up + j * inputs + first
                for i in 0..<n { tile[i] += factor * up[i] }
            }
        }
    }
}
