import TensorCore

// W = W₀ ⊙ (1 + A) + B,  b = b₀ ⊙ (1 + D) + E + W₀ · C, and their gradients (GLoRA.cl, Reductions.cl).
//
// Source: arXiv 2306.07967 §3.

extension OpenCLBackend {
    /// W = W₀ ⊙ (1 + A) + B, all [out, in], in one pass.
    public func gloraWeight(_ weight: Tensor, _ frozen: Tensor, _ a: MatrixTerm, _ b: MatrixTerm) {
        require(
            weight.count == frozen.count, "gloraWeight", "W \(weight.shape) and W₀ \(frozen.shape) differ")
        for term in [a, b] { requireFit(term, frozen, "gloraWeight") }
        launch(
            "glora_weight_forward", stored: stored(weight, frozen, operation: "gloraWeight"),
            (rowGroups(frozen.rows), 1, 1), weight, frozen, a.down.value,
            a.up.value, b.down.value, b.up.value, frozen.rows, frozen.columns, a.form.code, a.form.rank,
            a.down.value.columns, b.form.code, b.form.rank, b.down.value.columns)
    }

    /// Accumulates ∂A = dW ⊙ W₀ and ∂B = dW, with dW = dyᵀ · x, into the factors' gradients. On CPU devices dW is
    /// contracted as it is computed; elsewhere it is written, and read once more for each factor.
    public func gloraWeightBackward(
        _ a: MatrixTerm, _ b: MatrixTerm, _ scratch: Tensor, _ dy: Tensor, _ x: Tensor, _ frozen: Tensor
    ) {
        require(
            scratch.count == frozen.count && dy.columns == frozen.rows && x.columns == frozen.columns
                && dy.rows == x.rows, "gloraWeightBackward",
            "dy \(dy.shape), x \(x.shape), scratch \(scratch.shape) and W₀ \(frozen.shape) don't fit")
        for term in [a, b] { requireFit(term, frozen, "gloraWeightBackward") }
        guard a.form != .none || b.form != .none, x.rows > 0 else { return }
        let kernel = kernel(
            m: frozen.rows, n: frozen.columns, k: x.rows, transposeA: true, transposeB: false,
            stored: stored(dy, x, frozen, operation: "gloraWeightBackward"))
        if kernel.readsPanels { return contractPanels(a, b, dy, x, frozen, by: kernel) }
        let dWeight = scratch.leading(frozen.shape, frozen.elementType)
        matmul(dWeight, dy, x, transposeA: true, transposeB: false, accumulate: false)
        termBackward(a, dWeight, factor: frozen, frozen)
        termBackward(b, dWeight, factor: nil, frozen)
    }

    /// t [n, r] ← x · Bu[:r]ᵀ, or Σᵢ x.
    public func gloraProject(_ t: Tensor, _ x: Tensor, _ b: MatrixTerm) {
        require(
            t.rows == x.rows && t.columns == b.form.projectionRank && b.up.value.columns == x.columns,
            "gloraProject",
            "t \(t.shape), x \(x.shape) and Bu \(b.up.value.shape) in the form \(b.form) don't fit")
        rowDots(
            t, x, up: b.form.isLowRank ? b.up.value : nil, rows: x.rows, columns: x.columns,
            outputs: t.columns,
            outStride: t.columns, accumulate: false)
    }

    /// dBias ← Σ dy, and the sums with z and t into the gradients of a and Bd: one pass over dy.
    public func gloraOutputBackward(
        _ dBias: Tensor, _ a: MatrixTerm?, _ b: MatrixTerm?, _ dy: Tensor, _ z: Tensor?, _ t: Tensor?
    ) {
        let (rows, columns, rank) = (dy.rows, dy.columns, t?.columns ?? 0)
        require(
            dBias.count == columns && (z?.count ?? dy.count) == dy.count && (t?.rows ?? rows) == rows
                && rank == b?.form.projectionRank ?? 0, "gloraOutputBackward",
            "db \(dBias.shape), dy \(dy.shape), z \(z?.shape ?? []) and t \(t?.shape ?? []) don't fit")
        let size = (2 + rank) * columns
        require(
            size <= OpenCLBackend.scratchCount, "gloraOutputBackward",
            "\(columns) columns at rank \(rank) are more than the scratch holds")
        let parts = parts(rows: rows, size: size)
        launch(
            "output_sums", stored: stored(dy, z, floats: dBias, t, operation: "gloraOutputBackward"),
            (strips(columns), parts, 1), self.scratch, dy, z, t, rows, columns, rank)
        sumParts(dBias, size: columns, stride: size, parts: parts, accumulate: false)
        func add(_ term: MatrixTerm?, at offset: Int, rank: Int) {
            guard let term, let gradient = term.down.gradient, term.form != .none else { return }
            if term.form == .constant {
                sumPartsTotal(gradient, size: columns, stride: size, offset: offset, parts: parts)
            } else {
                sumPartsColumns(
                    gradient, size: columns, rank: rank, out: (0, term.down.value.columns, 1),
                    from: (offset, 1, columns), stride: size, parts: parts)
            }
        }
        add(a, at: columns, rank: 1)
        add(b, at: 2 * columns, rank: rank)
    }

    /// u [n, r] ← dy · Bd, and ∂Bu += uᵀ · x.
    public func gloraProjectBackward(_ u: Tensor, _ b: MatrixTerm, _ dy: Tensor, _ x: Tensor) {
        let (columns, rank) = (dy.columns, b.form.projectionRank)
        require(
            u.rows == dy.rows && u.columns == rank && b.down.value.rows == columns && x.rows == dy.rows
                && (2 + rank) * columns <= OpenCLBackend.tableCount, "gloraProjectBackward",
            "u \(u.shape), dy \(dy.shape), x \(x.shape) and Bd \(b.down.value.shape) in the form \(b.form) don't fit"
        )
        // Bd's columns as rows, with the other rows of an epilogue's table before them.
        launch(
            "epilogue_table", (itemGroups(columns), 1, 1), table, nil as Tensor?, nil as Tensor?,
            b.down.value,
            columns, 0, 1, b.form.code, rank, b.down.value.columns)
        rowDots(
            u, dy, up: table, upOffset: 2 * columns, rows: dy.rows, columns: columns, outputs: rank,
            outStride: rank,
            accumulate: false)
        if b.form.isLowRank, let gradient = b.up.gradient {
            columnSums(
                gradient, x, weights: u, rows: x.rows, columns: x.columns, outputs: rank, weightStride: rank,
                accumulate: true)
        }
    }

    /// ∂X = dW ⊙ factor into the term's factors.
    private func termBackward(_ term: MatrixTerm, _ dWeight: Tensor, factor: Tensor?, _ frozen: Tensor) {
        requireFit(term, frozen, "gloraWeightBackward")
        let (outputs, inputs) = (frozen.rows, frozen.columns)
        let stride = term.down.value.columns
        switch term.form {
        case .none: break
        case .constant:
            guard let gradient = term.down.gradient else { return }
            require(
                outputs <= OpenCLBackend.scratchCount, "gloraWeightBackward", "\(outputs) rows are too many")
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
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm
    ) {
        requireFit(bias, prompt, frozen, frozenBias, c, d, e, "gloraBias")
        let (outputs, inputs) = (frozen.rows, frozen.columns)
        if c.form == .none {
            fill(prompt, 0)
        } else {
            launch(
                "glora_prompt", (itemGroups(inputs), 1, 1), prompt, c.down.value,
                c.form == .vector ? nil : c.up.value, inputs, c.down.value.columns, c.form.rank)
            rowDots(bias, frozen, up: prompt, rows: outputs, columns: inputs, accumulate: false)
        }
        launch(
            "glora_bias_forward", (itemGroups(outputs), 1, 1), bias, frozenBias, d.values.value,
            e.values.value, outputs, d.form.code, e.form.code, c.form != .none)
    }

    /// Accumulates ∂C = W₀ᵀ · db, ∂D = db ⊙ b₀ and ∂E = db into the terms' gradients.
    public func gloraBiasBackward(
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm,
        _ dPrompt: Tensor, _ dBias: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?
    ) {
        requireFit(dBias, dPrompt, frozen, frozenBias, c, d, e, "gloraBiasBackward")
        let (outputs, inputs) = (frozen.rows, frozen.columns)
        if let frozenBias { scaleBackward(d, dBias, factor: frozenBias) }
        scaleBackward(e, dBias, factor: nil)
        guard c.form != .none, c.down.gradient != nil || c.up.gradient != nil else { return }
        let (rank, stride) = (c.form.rank, c.down.value.columns)
        columnSums(
            dPrompt, frozen, weights: dBias, rows: outputs, columns: inputs, accumulate: false)
        if let gradient = c.down.gradient {
            launch(
                "glora_prompt_backward", (itemGroups(inputs), 1, 1), gradient, dPrompt,
                c.form == .vector ? nil : c.up.value, inputs, stride, max(rank, 1))
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
                "add_product", (elementGroups(dBias.count), 1, 1), gradient, dBias, factor, dBias.count)
        }
    }

    func requireFit(_ term: MatrixTerm, _ frozen: Tensor, _ operation: String) {
        let (down, up) = (term.down.value, term.up.value)
        require(
            down.rows == frozen.rows && up.columns == frozen.columns && up.rows == down.columns
                && term.form.rank <= down.columns, operation,
            "Xd \(down.shape) and Xu \(up.shape) in the form \(term.form) don't fit W₀ \(frozen.shape)")
    }

    private func requireFit(
        _ bias: Tensor, _ prompt: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?,
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm, _ operation: String
    ) {
        let (outputs, down) = (frozen.rows, c.down.value)
        require(
            bias.count == outputs && prompt.count == frozen.columns
                && (frozenBias?.count ?? outputs) == outputs && d.values.value.count == outputs
                && e.values.value.count == outputs && down.rows == frozen.columns
                && c.up.value.count == down.columns && c.form.rank <= down.columns, operation,
            "b \(bias.shape), C \(prompt.shape), Cd \(down.shape) and W₀ \(frozen.shape) don't fit")
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

    var isLowRank: Bool { rank > 0 }
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
