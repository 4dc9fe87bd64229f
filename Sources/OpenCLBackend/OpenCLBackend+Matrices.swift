import CCLBlast
import COpenCL
import TensorCore

// c ← op(a) · op(b), a Linear with its epilogue, and the operations on a matrix's rows.

extension OpenCLBackend {
    /// c [m, n] ← op(a) · op(b), or c + … when `accumulate`. Every product of whole tensors goes through
    /// here.
    public func matmul(
        _ c: Tensor, _ a: Tensor, _ b: Tensor, transposeA: Bool, transposeB: Bool, accumulate: Bool,
        m: Int, n: Int, k: Int
    ) {
        let stored = c.elementType
        guard m > 0, n > 0 else { return }
        guard k > 0 else { return accumulate ? () : fill(c, 0) }
        let kernel = choice.kernel(
            m: m, n: n, k: k, transposeA: transposeA, transposeB: transposeB, stored: stored)
        // The distances between rows and columns of op(a) and op(b).
        let strides = Arguments(
            transposeA ? 1 : k, transposeA ? m : 1, transposeB ? 1 : n, transposeB ? k : 1)
        switch kernel {
        case .engine(let engine) where !engine.isOfCPU:
            let tile = MatrixEngine.groupTile
            launch(
                "multiply_engine", stored: stored, by: kernel,
                ((n + tile.columns - 1) / tile.columns, (m + tile.rows - 1) / tile.rows, 1), to: c, from: a,
                b,
                with: m, n, k, strides, accumulate)
        case .panels, .engine:
            multiplyPanels(
                m: m, n: n, k: k, left: PackedOperand(a, turned: transposeA),
                right: .matrix(PackedOperand(b, turned: transposeB)), by: kernel
            ) { block in
                multiply(
                    block, to: c, from: rightPanels, by: kernel, accumulate: accumulate || !block.isFirst)
            }
        case .tiled:
            // A long stretch of rows pays for turning b's panel; but every core wants several groups.
            let panels = (n + 8 * layout.width - 1) / (8 * layout.width)
            let stretches = max(1, min(32 * device.computeUnits / panels, m / 64))
            let rowStep = layout.local / 8 * 4
            let rows =
                stored == .float32
                ? (((m + stretches - 1) / stretches) + rowStep - 1) / rowStep * rowStep : rowStep
            launch(
                "multiply_tiled", stored: stored, (panels, (m + rows - 1) / rows, 1), to: c, from: a, b,
                with: m, n, k, strides, rows, accumulate)
        case .clblast:
            guard failure == nil else { return }
            var queue: cl_command_queue? = queue
            let status = CLBlastSgemm(
                CLBlastLayoutRowMajor, transposeA ? CLBlastTransposeYes : CLBlastTransposeNo,
                transposeB ? CLBlastTransposeYes : CLBlastTransposeNo, m, n, k, 1,
                a.onDevice.memory, 0, a.columns, b.onDevice.memory, 0, b.columns,
                accumulate ? 1 : 0, c.onDevice.memory, 0, n, &queue, nil)
            guard status != CLBlastSuccess else { return }
            // Only its last launch writes c. Some drivers refuse its work-groups, local memory or scratch; ours need less.
            choice.clblastFails = true
            matmul(c, a, b, transposeA: transposeA, transposeB: transposeB, accumulate: accumulate)
        }
    }

    /// z [n, out] = x [n, in] · Wᵀ, and what the epilogue makes of it. On CPU devices the weight is built straight into
    /// the product's panels, and the epilogue works on the tile in registers.
    public func linear(
        _ y: Tensor?, _ x: Tensor, _ weight: LinearWeight, _ epilogue: Epilogue, rows: Int, outputs: Int,
        inputs: Int
    ) {
        let stored = x.elementType
        guard rows > 0, outputs > 0 else { return }
        let kernel =
            weight.ready == nil
            ? choice.kernel(
                m: rows, n: outputs, k: inputs, transposeA: false, transposeB: true, stored: stored)
            : choice.usual(stored)
        let partial = epilogue.preActivation ?? y ?? epilogue.activated!
        guard kernel.readsPanels, weight.ready?.shape.count != 2, inputs > 0 else {
            matmul(partial, x, matrix(weight), transposeA: false, transposeB: true, accumulate: false)
            var rest = epilogue
            rest.preActivation = nil
            return finish(y, partial, rest)
        }
        makeTable(epilogue, columns: outputs, "linear")
        multiplyPanels(
            m: rows, n: outputs, k: inputs, left: PackedOperand(x),
            right: .weight(packable(weight), turned: true), by: kernel
        ) { block in
            // Prepared panels lie one block of depth after the other.
            let offset =
                weight.ready == nil
                ? 0 : block.tiles.words(block.depth.lowerBound) * block.tiles.paddedColumns(outputs)
            let right = weight.ready ?? rightPanels!
            guard block.depth.upperBound == inputs else {
                return multiply(
                    block, to: partial, from: right, offset, by: kernel, accumulate: !block.isFirst)
            }
            launch(
                "multiply_panels_finish", stored: stored, by: kernel, groups(block),
                to: y, epilogue.preActivation, epilogue.activated,
                from: block.isFirst ? nil : partial, leftPanels, right, table, epilogue.t,
                with: offset, block.constants(outputs), epilogue.t?.columns ?? 0)
        }
    }

    /// dx [n, in] ← dy [n, out] · W.
    public func linearBackward(
        _ dx: Tensor, _ dy: Tensor, _ weight: LinearWeight, rows: Int, outputs: Int, inputs: Int
    ) {
        let kernel = choice.kernel(
            m: rows, n: inputs, k: outputs, transposeA: false, transposeB: false, stored: dy.elementType)
        guard kernel.readsPanels else {
            return matmul(dx, dy, matrix(weight), transposeA: false, transposeB: false, accumulate: false)
        }
        multiplyPanels(
            m: rows, n: inputs, k: outputs, left: PackedOperand(dy),
            right: .weight(packable(weight), turned: false), by: kernel
        ) { block in
            multiply(block, to: dx, from: rightPanels, by: kernel, accumulate: !block.isFirst)
        }
    }

    /// The epilogue alone, of a z [n, out] that is in memory. y may be z.
    public func finish(_ y: Tensor?, _ z: Tensor, _ epilogue: Epilogue, rows: Int, outputs: Int) {
        if epilogue.isEmpty && (y == nil || y!.buffer === z.buffer) { return }
        makeTable(epilogue, columns: outputs, "finish")
        launch(
            "finish", stored: z.elementType, (rowGroups(rows), 1, 1),
            to: y, epilogue.preActivation, epilogue.activated, from: z, table, epilogue.t,
            with: rows, outputs, epilogue.t?.columns ?? 0)
    }

    /// Writes 1 + a, the bias and b's columns as rows [2 + r, columns] into `table`.
    func makeTable(_ epilogue: Epilogue, columns: Int, _ operation: String) {
        let (a, b) = (epilogue.a, epilogue.b)
        let rank = b?.form.columnCount ?? 0
        require(
            (2 + rank) * columns <= OpenCLBackend.tableCount, operation,
            "\(columns) columns at rank \(rank) are more than the table of the epilogue holds")
        launch(
            "epilogue_table", (itemGroups(columns), 1, 1), to: table,
            from: a?.down.value, epilogue.bias, b?.down.value,
            with: columns, a?.form.code ?? 0, a?.down.value.columns ?? 1,
            b?.form.code ?? 0, rank, b?.down.value.columns ?? 1)
    }

    /// The weight as the panels' kernels take it: those that build W have room for so many ranks.
    private func packable(_ weight: LinearWeight) -> LinearWeight {
        guard let terms = weight.terms, max(terms.a.form.rank, terms.b.form.rank) > OpenCLBackend.panelRank
        else { return weight }
        return LinearWeight(matrix(weight))
    }

    /// W, built once: as panels [⌈out / TILE_COLUMNS⌉, words of in, TILE_COLUMNS] (in blocks of depth) for the device's usual
    /// kernel on CPU devices, whatever was tuned; else as rows [out, in]. Throws `BackendError.outOfMemory`.
    public func prepared(_ weight: LinearWeight) throws -> LinearWeight {
        if weight.ready != nil { return weight }
        let (outputs, inputs) = (weight.frozen.rows, weight.frozen.columns)
        let kernel = choice.usual(weight.frozen.elementType)
        guard kernel.readsPanels, choice.forced?.readsPanels ?? true else {
            guard let terms = weight.terms else { return weight }
            let w = try allocate([outputs, inputs], weight.frozen.elementType)
            gloraWeight(w, weight.frozen, terms.a, terms.b)
            return LinearWeight(weight.frozen, ready: w)
        }
        let tiles = PanelTiles(layout, kernel)
        let panels = try allocate(
            [tiles.paddedColumns(outputs) / tiles.columns, tiles.words(inputs), tiles.columns], .float32)
        for depth in depths(inputs, weight.frozen.elementType) {
            packRight(
                panels, .weight(packable(weight), turned: true),
                PanelBlock(rows: 0..<0, columns: 0..<outputs, depth: depth, tiles: tiles),
                offset: tiles.words(depth.lowerBound) * tiles.paddedColumns(outputs))
        }
        return LinearWeight(weight.frozen, ready: panels)
    }

    /// out [d] ← Σₙ x [n, d], or out + Σₙ x when `accumulate`.
    public func sumRows(_ out: Tensor, _ x: Tensor, accumulate: Bool, rows: Int, columns: Int) {
        columnSums(out, x, rows: rows, columns: columns, accumulate: accumulate)
    }
}

extension Epilogue {
    /// Whether y is z.
    fileprivate var isEmpty: Bool {
        bias == nil && a == nil && t == nil && preActivation == nil && activated == nil
    }
}
