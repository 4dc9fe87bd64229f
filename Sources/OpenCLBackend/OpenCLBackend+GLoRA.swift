import TensorCore

// W = W₀ ⊙ (1 + A) + B,  b = b₀ ⊙ (1 + D) + E + W₀ · C, and their gradients (GLoRA.cl, Reductions.cl).
//
// Source: arXiv 2306.07967 §3.

extension OpenCLBackend {
    /// W = W₀ ⊙ (1 + A) + B, all [out, in], in one pass.
    public func gloraWeight(
        _ weight: Tensor, _ frozen: Tensor, _ a: MatrixTerm, _ b: MatrixTerm, outputs: Int, inputs: Int
    ) {
        launch(
            "glora_weight_forward", stored: frozen.elementType, (rowGroups(outputs), 1, 1), to: weight,
            from: frozen, a.factors, b.factors, with: outputs, inputs, a.constants, b.constants)
    }

    /// Accumulates ∂A = dW ⊙ W₀ and ∂B = dW, with dW = dyᵀ · x, into the factors' gradients. On CPU devices dW is
    /// contracted as it is computed; elsewhere it is written, and read once more for each factor.
    public func gloraWeightBackward(
        _ a: MatrixTerm, _ b: MatrixTerm, _ scratch: Tensor, _ dy: Tensor, _ x: Tensor, _ frozen: Tensor,
        rows: Int, outputs: Int, inputs: Int
    ) {
        guard a.form != .none || b.form != .none, rows > 0 else { return }
        let kernel = choice.kernel(
            m: outputs, n: inputs, k: rows, transposeA: true, transposeB: false, stored: frozen.elementType)
        if kernel.readsPanels { return contractPanels(a, b, dy, x, frozen, by: kernel) }
        let dWeight = scratch.leading(frozen.shape, frozen.elementType)
        matmul(dWeight, dy, x, transposeA: true, transposeB: false, accumulate: false)
        termBackward(a, dWeight, factor: frozen, frozen)
        termBackward(b, dWeight, factor: nil, frozen)
    }

    /// t [n, r] ← x · Bu[:r]ᵀ, or Σᵢ x.
    public func gloraProject(_ t: Tensor, _ x: Tensor, _ b: MatrixTerm, rows: Int, inputs: Int) {
        rowDots(
            t, x, up: b.form.isLowRank ? b.up.value : nil, rows: rows, columns: inputs, outputs: t.columns,
            outStride: t.columns, accumulate: false)
    }

    /// dBias ← Σ dy, and the sums with z and t into the gradients of a and Bd: one pass over dy.
    public func gloraOutputBackward(
        _ dBias: Tensor, _ a: MatrixTerm?, _ b: MatrixTerm?, _ dy: Tensor, _ z: Tensor?, _ t: Tensor?,
        rows: Int, outputs columns: Int
    ) {
        let rank = t?.columns ?? 0
        let size = (2 + rank) * columns
        requireScratch(size, "gloraOutputBackward")
        let parts = parts(rows: rows, size: size)
        launch(
            "output_sums", stored: dy.elementType, (strips(columns), parts, 1), to: scratch, from: dy, z, t,
            with: rows, columns, rank)
        sumParts(dBias, size: columns, stride: size, parts: parts, accumulate: false)
        func add(_ term: MatrixTerm?, at offset: Int, rank: Int) {
            guard let term, let gradient = term.down.gradient, term.form != .none else { return }
            if term.form == .constant {
                sumPartsTotal(gradient, size: columns, stride: size, offset: offset, parts: parts)
            } else {
                sumPartsColumns(
                    gradient, size: columns, rank: rank,
                    to: ElementPlaces(offset: 0, row: term.down.value.columns, column: 1),
                    from: ElementPlaces(offset: offset, row: 1, column: columns), stride: size, parts: parts)
            }
        }
        add(a, at: columns, rank: 1)
        add(b, at: 2 * columns, rank: rank)
    }

    /// u [n, r] ← dy · Bd, and ∂Bu += uᵀ · x.
    public func gloraProjectBackward(
        _ u: Tensor, _ b: MatrixTerm, _ dy: Tensor, _ x: Tensor, rows: Int, outputs: Int, inputs: Int
    ) {
        let rank = b.form.columnCount
        // Bd's columns as rows, with the other rows of an epilogue's table before them.
        makeTable(Epilogue(b: b), columns: outputs, "gloraProjectBackward")
        rowDots(
            u, dy, up: table, upOffset: 2 * outputs, rows: rows, columns: outputs, outputs: rank,
            outStride: rank, accumulate: false)
        if b.form.isLowRank, let gradient = b.up.gradient {
            columnSums(
                gradient, x, weights: u, rows: rows, columns: inputs, outputs: rank, weightStride: rank,
                accumulate: true)
        }
    }

    /// ∂X = dW ⊙ factor into the term's factors.
    private func termBackward(_ term: MatrixTerm, _ dWeight: Tensor, factor: Tensor?, _ frozen: Tensor) {
        let (outputs, inputs) = (frozen.rows, frozen.columns)
        let stride = term.down.value.columns
        switch term.form {
        case .none: break
        case .constant:
            guard let gradient = term.down.gradient else { return }
            requireScratch(outputs, "gloraWeightBackward")
            rowDots(scratch, dWeight, factor: factor, rows: outputs, columns: inputs, accumulate: false)
            rowDots(gradient, scratch, rows: 1, columns: outputs, accumulate: true)
        case .vector:
            guard let gradient = term.down.gradient else { return }
            rowDots(
                gradient, dWeight, factor: factor, rows: outputs, columns: inputs, outStride: stride,
                accumulate: true)
        case .lowRank(let rank):
            if let gradient = term.down.gradient {
                rowDots(
                    gradient, dWeight, factor: factor, up: term.up.value, rows: outputs, columns: inputs,
                    outputs: rank, outStride: stride, accumulate: true)
            }
            if let gradient = term.up.gradient {
                columnSums(
                    gradient, dWeight, factor: factor, weights: term.down.value, rows: outputs,
                    columns: inputs, outputs: rank, weightStride: stride, accumulate: true)
            }
        }
    }

    /// b = b₀ ⊙ (1 + D) + E + W₀ · C, and C into `prompt`.
    public func gloraBias(
        _ bias: Tensor, _ prompt: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?,
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm, outputs: Int, inputs: Int
    ) {
        if c.form == .none {
            fill(prompt, 0)
        } else {
            launch(
                "glora_prompt", (itemGroups(inputs), 1, 1), to: prompt,
                from: c.down.value, c.form == .vector ? nil : c.up.value,
                with: inputs, c.down.value.columns, c.form.rank)
            rowDots(bias, frozen, up: prompt, rows: outputs, columns: inputs, accumulate: false)
        }
        launch(
            "glora_bias_forward", (itemGroups(outputs), 1, 1), to: bias,
            from: frozenBias, d.values.value, e.values.value,
            with: outputs, d.form.code, e.form.code, c.form != .none)
    }

    /// Accumulates ∂C = W₀ᵀ · db, ∂D = db ⊙ b₀ and ∂E = db into the terms' gradients.
    public func gloraBiasBackward(
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm,
        _ dPrompt: Tensor, _ dBias: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?, outputs: Int, inputs: Int
    ) {
        if let frozenBias { scaleBackward(d, dBias, factor: frozenBias) }
        scaleBackward(e, dBias, factor: nil)
        guard c.form != .none, c.down.gradient != nil || c.up.gradient != nil else { return }
        let (rank, stride) = (c.form.rank, c.down.value.columns)
        columnSums(
            dPrompt, frozen, weights: dBias, rows: outputs, columns: inputs, accumulate: false)
        if let gradient = c.down.gradient {
            launch(
                "glora_prompt_backward", (itemGroups(inputs), 1, 1), to: gradient,
                from: dPrompt, c.form == .vector ? nil : c.up.value, with: inputs, stride, max(rank, 1))
        }
        if rank > 0, let gradient = c.up.gradient {
            columnSums(
                gradient, c.down.value, weights: dPrompt, rows: inputs, columns: rank, xStride: stride,
                accumulate: true)
        }
    }

    /// db ⊙ factor into the term's gradient: as it is, or its sum.
    private func scaleBackward(_ term: ScaleTerm, _ dBias: Tensor, factor: Tensor?) {
        guard let gradient = term.values.gradient else { return }
        switch term.form {
        case .none: break
        case .constant:
            rowDots(gradient, dBias, factor: factor, rows: 1, columns: dBias.count, accumulate: true)
        case .vector:
            launch(
                "add_product", (elementGroups(dBias.count), 1, 1), to: gradient, from: dBias, factor,
                with: dBias.count)
        }
    }
}

// The forms as GLoRA.cl has them.

extension MatrixForm {
    var code: Int {
        switch self {
        case .none: 0
        case .constant: 1
        case .vector: 2
        case .lowRank: 3
        }
    }

    /// Columns of the factors that count; 0 unless there are two.
    var rank: Int { if case .lowRank(let rank) = self { rank } else { 0 } }
}

extension MatrixTerm {
    /// Xd and Xu as kernels take them.
    var factors: Arguments<Tensor, Tensor> { Arguments(down.value, up.value) }

    /// The form, its rank and the row length of Xd, as kernels take them.
    var constants: Arguments<Int, Int, Int> { Arguments(form.code, form.rank, down.value.columns) }
}

extension PromptForm {
    fileprivate var rank: Int { if case .lowRank(let rank) = self { rank } else { 0 } }
}

extension ScaleForm {
    fileprivate var code: Int {
        switch self {
        case .none: 0
        case .constant: 1
        case .vector: 2
        }
    }
}
