import CCLBlast
import COpenCL
import TensorCore

// c ← op(a) · op(b), a Linear with its epilogue, and the operations on a matrix's rows.

/// What computes a product of whole tensors.
package enum ProductKernel: Hashable, Codable, Sendable, RawRepresentable {
    /// CLBlast, whose tiles for GPUs are good without tuning.
    case clblast
    /// `multiply_tiled` of Matrices.cl, for GPUs.
    case tiled
    /// Panels.cl, for CPU devices. On 2 cores of a Cascade Lake with PoCL 3.1 it is as fast as MKL (147 GFLOP/s against
    /// 141, the geometric mean over a ViT-B block's products and their gradients at batch 8) where CLBlast untuned
    /// reaches 1–3.
    case panels
    /// A device's matrix engine, for other precisions than float32.
    case engine(MatrixEngine)

    private static let byName: [String: ProductKernel] = Dictionary(
        uniqueKeysWithValues: ([.clblast, .tiled, .panels] + MatrixEngine.allCases.map { .engine($0) })
            .map { ($0.rawValue, $0) })

    package init?(rawValue: String) {
        guard let kernel = ProductKernel.byName[rawValue] else { return nil }
        self = kernel
    }

    /// As it is called in a tuning's file.
    package var rawValue: String {
        switch self {
        case .clblast: "clblast"
        case .tiled: "tiled"
        case .panels: "panels"
        case .engine(let engine): "\(engine)"
        }
    }

    /// Its engine, if it has one.
    var engine: MatrixEngine? { if case .engine(let engine) = self { engine } else { nil } }

    /// Whether it reads operands from packed panels.
    var readsPanels: Bool { self == .panels || engine?.isOfCPU == true }
}

extension OpenCLBackend {
    /// c [m, n] ← op(a) · op(b), or c + … when `accumulate`. Every product of whole tensors goes through
    /// here.
    public func matmul(
        _ c: Tensor, _ a: Tensor, _ b: Tensor, transposeA: Bool, transposeB: Bool, accumulate: Bool
    ) {
        let (m, n) = (c.rows, c.columns)
        let k = transposeA ? a.rows : a.columns
        require(
            (transposeA ? a.columns : a.rows) == m && (transposeB ? b.rows : b.columns) == n
                && (transposeB ? b.columns : b.rows) == k, "matmul",
            "c \(c.shape), a \(a.shape)\(transposeA ? "ᵀ" : "") and b \(b.shape)\(transposeB ? "ᵀ" : "") don't fit"
        )
        let stored = stored(c, a, b, operation: "matmul")
        guard m > 0, n > 0 else { return }
        guard k > 0 else { return accumulate ? () : fill(c, 0) }
        let kernel = kernel(m: m, n: n, k: k, transposeA: transposeA, transposeB: transposeB, stored: stored)
        switch kernel {
        case .engine(let engine) where !engine.isOfCPU:
            let tile = MatrixEngine.groupTile
            launch(
                "multiply_engine", stored: stored, by: kernel,
                ((n + tile.columns - 1) / tile.columns, (m + tile.rows - 1) / tile.rows, 1), c, a, b, m, n, k,
                transposeA ? 1 : k, transposeA ? m : 1, transposeB ? 1 : n, transposeB ? k : 1, accumulate)
        case .panels, .engine:
            multiplyPanels(
                m: m, n: n, k: k, left: PackedOperand(a, turned: transposeA),
                right: .matrix(PackedOperand(b, turned: transposeB)), by: kernel
            ) { block in
                launch(
                    "multiply_panels", stored: stored, by: kernel, groups(block), c, leftPanels, rightPanels,
                    0,
                    block.rows.lowerBound,
                    block.columns.lowerBound, block.rows.count, n, block.depth.count,
                    accumulate || block.depth.lowerBound > 0)
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
                "multiply_tiled", stored: stored, (panels, (m + rows - 1) / rows, 1), c, a, b, m, n, k,
                transposeA ? 1 : k, transposeA ? m : 1, transposeB ? 1 : n, transposeB ? k : 1, rows,
                accumulate)
        case .clblast:
            guard failure == nil else { return }
            var queue: cl_command_queue? = queue
            let status = CLBlastSgemm(
                CLBlastLayoutRowMajor, transposeA ? CLBlastTransposeYes : CLBlastTransposeNo,
                transposeB ? CLBlastTransposeYes : CLBlastTransposeNo, m, n, k, 1,
                buffer(a, "matmul").memory, 0, a.columns, buffer(b, "matmul").memory, 0, b.columns,
                accumulate ? 1 : 0, buffer(c, "matmul").memory, 0, n, &queue, nil)
            guard status != CLBlastSuccess else { return }
            // Only its last launch writes c. Some drivers refuse its work-groups, local memory or scratch; ours need less.
            clblastFails = true
            matmul(c, a, b, transposeA: transposeA, transposeB: transposeB, accumulate: accumulate)
        }
    }

    /// z [n, out] = x [n, in] · Wᵀ, and what the epilogue makes of it. On CPU devices the weight is built straight into
    /// the product's panels, and the epilogue works on the tile in registers.
    public func linear(_ y: Tensor?, _ x: Tensor, _ weight: LinearWeight, _ epilogue: Epilogue) {
        let (rows, inputs, outputs) = (x.rows, weight.frozen.columns, weight.frozen.rows)
        require(
            x.columns == inputs, "linear",
            "x \(x.shape) and a weight of shape \(weight.frozen.shape) don't fit")
        let stored = stored(
            y, x, weight.frozen, epilogue.product, epilogue.activated, floats: epilogue.bias, epilogue.t,
            operation: "linear")
        guard rows > 0, outputs > 0 else { return }
        let kernel =
            weight.ready == nil
            ? kernel(m: rows, n: outputs, k: inputs, transposeA: false, transposeB: true, stored: stored)
            : usualKernel(stored)
        guard kernel.readsPanels, weight.ready?.shape.count != 2, inputs > 0 else {
            let w = weightMatrix(weight)
            guard let z = epilogue.product ?? y ?? epilogue.activated else { return }
            matmul(z, x, w, transposeA: false, transposeB: true, accumulate: false)
            var rest = epilogue
            rest.product = nil
            return finish(y, z, rest)
        }
        guard let partial = epilogue.product ?? y ?? epilogue.activated else { return }
        let table = epilogueTable(y, epilogue, rows: rows, columns: outputs, "linear")
        multiplyPanels(
            m: rows, n: outputs, k: inputs, left: PackedOperand(x),
            right: .weight(packable(weight), turned: true), by: kernel
        ) { block in
            // Prepared panels lie one block of depth after the other.
            let offset =
                weight.ready == nil
                ? 0 : block.tiles.words(block.depth.lowerBound) * block.tiles.paddedColumns(outputs)
            let right = weight.ready ?? rightPanels!
            let isFirst = block.depth.lowerBound == 0
            guard block.depth.upperBound == inputs else {
                return launch(
                    "multiply_panels", stored: stored, by: kernel, groups(block), partial, leftPanels, right,
                    offset,
                    block.rows.lowerBound,
                    block.columns.lowerBound, block.rows.count, outputs, block.depth.count, !isFirst)
            }
            launch(
                "multiply_panels_finish", stored: stored, by: kernel, groups(block), y, epilogue.product,
                epilogue.activated,
                isFirst ? nil : partial, leftPanels, right, table, epilogue.t, offset, block.rows.lowerBound,
                block.columns.lowerBound, block.rows.count, outputs, block.depth.count,
                epilogue.t?.columns ?? 0)
        }
    }

    /// dx [n, in] ← dy [n, out] · W.
    public func linearBackward(_ dx: Tensor, _ dy: Tensor, _ weight: LinearWeight) {
        let (rows, inputs, outputs) = (dy.rows, weight.frozen.columns, weight.frozen.rows)
        require(
            dx.rows == rows && dx.columns == inputs && dy.columns == outputs, "linearBackward",
            "dx \(dx.shape), dy \(dy.shape) and a weight of shape \(weight.frozen.shape) don't fit")
        require(weight.ready == nil, "linearBackward", "a prepared weight is for the forward alone")
        let stored = stored(dx, dy, weight.frozen, operation: "linearBackward")
        let kernel = kernel(
            m: rows, n: inputs, k: outputs, transposeA: false, transposeB: false, stored: stored)
        guard kernel.readsPanels else {
            return matmul(
                dx, dy, weightMatrix(weight), transposeA: false, transposeB: false, accumulate: false)
        }
        multiplyPanels(
            m: rows, n: inputs, k: outputs, left: PackedOperand(dy),
            right: .weight(packable(weight), turned: false), by: kernel
        ) { block in
            launch(
                "multiply_panels", stored: stored, by: kernel, groups(block), dx, leftPanels, rightPanels, 0,
                block.rows.lowerBound,
                block.columns.lowerBound, block.rows.count, inputs, block.depth.count,
                block.depth.lowerBound > 0)
        }
    }

    /// The epilogue alone, of a z [n, out] that is in memory. y may be z.
    public func finish(_ y: Tensor?, _ z: Tensor, _ epilogue: Epilogue) {
        let (rows, columns) = (z.rows, z.columns)
        if epilogue.isEmpty && (y == nil || y!.buffer === z.buffer) { return }
        let stored = stored(
            y, z, epilogue.product, epilogue.activated, floats: epilogue.bias, epilogue.t,
            operation: "finish")
        let table = epilogueTable(y, epilogue, rows: rows, columns: columns, "finish")
        launch(
            "finish", stored: stored, (rowGroups(rows), 1, 1), y, epilogue.product, epilogue.activated, z,
            table, epilogue.t,
            rows,
            columns, epilogue.t?.columns ?? 0)
    }

    /// 1 + a, the bias and b's columns as rows [2 + r, columns], and a check that the epilogue's tensors fit.
    private func epilogueTable(
        _ y: Tensor?, _ epilogue: Epilogue, rows: Int, columns: Int, _ operation: String
    ) -> Tensor {
        let rank = epilogue.t?.columns ?? 0
        for out in [y, epilogue.product, epilogue.activated] {
            require(
                out.map { $0.rows == rows && $0.columns == columns } ?? true, operation,
                "an output of shape \(out?.shape ?? []) for a product of [\(rows), \(columns)]")
        }
        require(
            (epilogue.t?.rows ?? rows) == rows && (epilogue.b?.form.projectionRank ?? 0) == rank, operation,
            "t \(epilogue.t?.shape ?? []) and b \(epilogue.b?.form ?? .none) don't fit \(rows) rows")
        require(
            (epilogue.bias?.count ?? columns) == columns
                && (epilogue.a?.down.value.rows ?? columns) == columns
                && (epilogue.b?.down.value.rows ?? columns) == columns, operation,
            "the epilogue's terms don't fit \(columns) columns")
        if case .lowRank? = epilogue.a?.form {
            require(false, operation, "a lowRank A needs weight space")
        }
        require(
            (2 + rank) * columns <= OpenCLBackend.tableCount, operation,
            "\(columns) columns at rank \(rank) are more than the table of the epilogue holds")
        launch(
            "epilogue_table", (itemGroups(columns), 1, 1), table, epilogue.a?.down.value, epilogue.bias,
            epilogue.b?.down.value, columns, epilogue.a?.form.code ?? 0, epilogue.a?.down.value.columns ?? 1,
            epilogue.b?.form.code ?? 0, rank, epilogue.b?.down.value.columns ?? 1)
        return table
    }

    /// W in memory, row by row: W₀ itself, or built in the scratch that comes with it.
    private func weightMatrix(_ weight: LinearWeight) -> Tensor {
        if let ready = weight.ready { return ready }
        guard let terms = weight.terms, let scratch = weight.scratch else { return weight.frozen }
        let w = scratch.leading(weight.frozen.shape, weight.frozen.elementType)
        gloraWeight(w, weight.frozen, terms.a, terms.b)
        return w
    }

    /// The weight as the panels' kernels take it: those that build W have room for so many ranks.
    private func packable(_ weight: LinearWeight) -> LinearWeight {
        guard let terms = weight.terms, max(terms.a.form.rank, terms.b.form.rank) > OpenCLBackend.panelRank
        else { return weight }
        return LinearWeight(weightMatrix(weight))
    }

    /// W, built once: as panels [⌈out / TILE_COLUMNS⌉, words of in, TILE_COLUMNS] (in blocks of depth) for the device's usual
    /// kernel on CPU devices, whatever was tuned; else as rows [out, in]. Throws `BackendError.outOfMemory`.
    public func prepared(_ weight: LinearWeight) throws -> LinearWeight {
        if weight.ready != nil { return weight }
        let (outputs, inputs) = (weight.frozen.rows, weight.frozen.columns)
        let kernel = usualKernel(weight.frozen.elementType)
        guard kernel.readsPanels, product?.readsPanels ?? true else {
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

    /// x [n, d] ← x + row [d] in every row.
    public func addRow(_ x: Tensor, _ row: Tensor) {
        require(x.columns == row.count, "addRow", "x \(x.shape) and row \(row.shape) don't fit")
        launch("add_row", (rowGroups(x.rows), 1, 1), x, row, x.rows, x.columns)
    }

    /// out [d] ← Σₙ x [n, d], or out + Σₙ x when `accumulate`.
    public func sumRows(_ out: Tensor, _ x: Tensor, accumulate: Bool) {
        require(x.columns == out.count, "sumRows", "out \(out.shape) and x \(x.shape) don't fit")
        columnSums(out, x, rows: x.rows, columns: x.columns, accumulate: accumulate)
    }
}

extension Epilogue {
    /// Whether y is z.
    fileprivate var isEmpty: Bool {
        bias == nil && a == nil && t == nil && product == nil && activated == nil
    }
}
