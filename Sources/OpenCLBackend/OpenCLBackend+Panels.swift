import TensorCore

// Products from packed panels (Panels.cl): what is packed, and how a product is cut so that its panels fit.

/// A matrix as a product's operand: its rows, or its columns, are the product's.
struct PackedOperand {
    let tensor: Tensor
    /// Whether the tensor holds the operand's transpose.
    let turned: Bool

    init(_ tensor: Tensor, turned: Bool = false) {
        (self.tensor, self.turned) = (tensor, turned)
    }

    /// The place in the tensor of the operand's element (i, j).
    func index(_ i: Int, _ j: Int) -> Int { (turned ? j : i) * tensor.columns + (turned ? i : j) }
}

/// The right operand: a matrix, or a Linear's weight W [out, in], built while it is packed.
enum PackedRight {
    case matrix(PackedOperand)
    /// Turned, the operand is Wᵀ: the forward.
    case weight(LinearWeight, turned: Bool)
}

/// A part of a product whose panels fit into the packing memory.
struct PanelBlock {
    let rows: Range<Int>
    let columns: Range<Int>
    let depth: Range<Int>
    let tiles: PanelTiles

    /// Whether it is the first of the depth, which has nothing to add to.
    var isFirst: Bool { depth.lowerBound == 0 }

    /// Where it lies in a result with rows of `width`, and its sizes, as the kernels that multiply take them.
    func constants(_ width: Int) -> Arguments<Int, Int, Int, Int, Int> {
        Arguments(rows.lowerBound, columns.lowerBound, rows.count, width, depth.count)
    }
}

/// TILE_ROWS and TILE_COLUMNS of Panels.cl, or what an engine has in their place.
struct PanelTiles {
    /// What reads the panels.
    let kernel: ProductKernel
    let rows: Int
    let columns: Int

    init(_ layout: KernelLayout, _ kernel: ProductKernel = .panels) {
        self.kernel = kernel
        rows = kernel.engine?.rows ?? (layout.width == 16 ? 12 : 6)
        columns = 2 * layout.width
    }

    /// Words of 4 bytes that a row, or a column, of a panel takes.
    func words(_ depth: Int) -> Int { kernel.engine?.words(depth) ?? depth }

    func paddedRows(_ count: Int) -> Int { (count + rows - 1) / rows * rows }
    func paddedColumns(_ count: Int) -> Int { (count + columns - 1) / columns * columns }
}

extension OpenCLBackend {
    /// The deepest panels: 32 columns of 1,024 floats are 128 KiB, of which a second cache of 1 MiB holds those of two
    /// threads and what streams by. At [1576, 3072] · [3072, 768], 5 % faster than the whole depth at once.
    static let panelDepth = 1024
    /// The deepest where the result is of 16 bits: all of it, since the sum of one block would be rounded before the next.
    static let storedDepth = 1 << 15
    /// The deepest where dW is contracted, which costs a tenth of a tile of 1,024.
    static let contractionDepth = 4096
    /// Floats that each operand's packing memory holds, 12 MiB: 3,072 rows of that depth.
    static let panelCount = 3 << 20

    /// MOST_RANKS of Panels.cl.
    static let panelRank = 64

    /// Packs the operands of a product [m, n] over k, block by block, and calls `multiply` after each: it launches the
    /// product of what `leftPanels` and `rightPanels` hold. Every block of depth after the first adds to the result.
    func multiplyPanels(
        m: Int, n: Int, k: Int, left: PackedOperand, right: PackedRight, deepest: Int? = nil,
        by kernel: ProductKernel, multiply: (PanelBlock) -> Void
    ) {
        let tiles = PanelTiles(layout, kernel)
        let depths = depths(k, left.tensor.elementType, deepest)
        let words = tiles.words(depths.first!.count)
        var columnBlocks = blocks(n, of: OpenCLBackend.panelCount / words, multiple: tiles.columns)
        if case .weight(let weight, _) = right, weight.ready != nil { columnBlocks = [0..<n] }
        let rowBlocks = blocks(m, of: OpenCLBackend.panelCount / words, multiple: tiles.rows)
        for depth in depths {
            for columns in columnBlocks {
                packRight(
                    rightPanels, right,
                    PanelBlock(rows: 0..<0, columns: columns, depth: depth, tiles: tiles))
                for rows in rowBlocks {
                    let block = PanelBlock(rows: rows, columns: columns, depth: depth, tiles: tiles)
                    if columns.lowerBound == 0 || rowBlocks.count > 1 { packLeft(left, block) }
                    multiply(block)
                }
            }
        }
    }

    /// A product's depth in blocks; those of 16 bits begin at whole steps of every engine.
    func depths(_ k: Int, _ stored: ElementType, _ deepest: Int? = nil) -> [Range<Int>] {
        stored == .float32
            ? blocks(k, of: deepest ?? OpenCLBackend.panelDepth, multiple: 1)
            : blocks(k, of: deepest ?? OpenCLBackend.storedDepth, multiple: 32)
    }

    /// 0..<count in equal blocks of at most `most`, cut at multiples of `multiple`.
    func blocks(_ count: Int, of most: Int, multiple: Int) -> [Range<Int>] {
        let parts = (count + most - 1) / most
        var size = (count + parts - 1) / parts
        size = min((size + multiple - 1) / multiple * multiple, max(most / multiple * multiple, multiple))
        return stride(from: 0, to: count, by: size).map { $0..<min(count, $0 + size) }
    }

    private func packLeft(_ operand: PackedOperand, _ block: PanelBlock) {
        let (rows, depth, tiles) = (block.rows, block.depth, block.tiles)
        let groups = operand.turned ? (depth.count + 7) / 8 : tiles.paddedRows(rows.count) / tiles.rows
        launch(
            operand.turned ? "pack_left_turned" : "pack_left", stored: operand.tensor.elementType,
            by: tiles.kernel, (rowGroups(groups), 1, 1), to: leftPanels, from: operand.tensor,
            with: rows.count, depth.count, operand.tensor.columns,
            operand.index(rows.lowerBound, depth.lowerBound))
    }

    /// The block's columns and depth of the right operand into `panels`.
    func packRight(_ panels: Tensor, _ right: PackedRight, _ block: PanelBlock, offset: Int = 0) {
        let (columns, depth) = (block.columns, block.depth)
        switch right {
        case .matrix(let operand):
            packMatrix(panels, offset, operand, block)
        case .weight(let weight, let turned):
            guard weight.ready == nil else { return }
            guard let terms = weight.terms else {
                return packMatrix(panels, offset, PackedOperand(weight.frozen, turned: turned), block)
            }
            let (a, b) = terms
            let groups = turned ? (columns.count + layout.width - 1) / layout.width : (depth.count + 7) / 8
            launch(
                turned ? "pack_right_weight_turned" : "pack_right_weight",
                stored: weight.frozen.elementType, by: block.tiles.kernel, (rowGroups(groups), 1, 1),
                to: panels, from: weight.frozen, a.factors, b.factors,
                with: offset, columns.count, depth.count, columns.lowerBound, depth.lowerBound,
                weight.frozen.columns, a.constants, b.constants)
        }
    }

    /// For the benchmark: builds W in the packing memory, as `linear` does. Nil where products read rows, or where W takes
    /// more than one block.
    package func packing(_ weight: LinearWeight) -> (() -> Void)? {
        let (outputs, inputs) = (weight.frozen.rows, weight.frozen.columns)
        let tiles = PanelTiles(layout, choice.usual(weight.frozen.elementType))
        guard tiles.kernel.readsPanels,
            tiles.paddedColumns(outputs) * tiles.words(inputs) <= OpenCLBackend.panelCount
        else { return nil }
        let whole = PanelBlock(rows: 0..<0, columns: 0..<outputs, depth: 0..<inputs, tiles: tiles)
        return { self.packRight(self.rightPanels, .weight(weight, turned: true), whole) }
    }

    private func packMatrix(
        _ panels: Tensor, _ panelOffset: Int, _ operand: PackedOperand, _ block: PanelBlock
    ) {
        let (columns, depth, tiles) = (block.columns, block.depth, block.tiles)
        let groups =
            operand.turned ? tiles.paddedColumns(columns.count) / tiles.columns : (depth.count + 7) / 8
        launch(
            operand.turned ? "pack_right_turned" : "pack_right", stored: operand.tensor.elementType,
            by: tiles.kernel, (rowGroups(groups), 1, 1), to: panels, from: operand.tensor,
            with: panelOffset, columns.count, depth.count, operand.tensor.columns,
            operand.index(depth.lowerBound, columns.lowerBound))
    }

    /// c's block ← the product of the left panels and of those in `right` from `offset` on, or c + … when `accumulate`.
    func multiply(
        _ block: PanelBlock, to c: Tensor, from right: Tensor, _ offset: Int = 0, by kernel: ProductKernel,
        accumulate: Bool
    ) {
        launch(
            "multiply_panels", stored: c.elementType, by: kernel, groups(block), to: c, from: leftPanels,
            right,
            with: offset, block.constants(c.columns), accumulate)
    }

    /// Groups of a product of panels: one for each panel of the right and stretch of the left. Four stretches keep the
    /// right panel in the second cache for long enough; more give work to many cores when there are few columns.
    func groups(_ block: PanelBlock) -> (Int, Int, Int) {
        let tiles = block.tiles
        let panels = tiles.paddedColumns(block.columns.count) / tiles.columns
        let stretches = max(4, 4 * device.computeUnits / panels)
        return (panels, min(stretches, tiles.paddedRows(block.rows.count) / tiles.rows), 1)
    }

    /// dW = dyᵀ · x contracted with the factors of a and b as it is computed. A form without a lowRank is one column
    /// whose row factor is ones.
    func contractPanels(
        _ a: MatrixTerm, _ b: MatrixTerm, _ dy: Tensor, _ x: Tensor, _ frozen: Tensor,
        by kernel: ProductKernel
    ) {
        let (m, n, k) = (frozen.rows, frozen.columns, dy.rows)
        let rank = a.form.columnCount + b.form.columnCount
        multiplyPanels(
            m: m, n: n, k: k, left: PackedOperand(dy, turned: true), right: .matrix(PackedOperand(x)),
            deepest: OpenCLBackend.contractionDepth, by: kernel
        ) { block in
            let (rows, columns, tiles) = (block.rows.count, block.columns.count, block.tiles)
            let (panelsOfRows, panelsOfColumns) = (
                tiles.paddedRows(rows) / tiles.rows, tiles.paddedColumns(columns) / tiles.columns
            )
            let capacity = OpenCLBackend.scratchCount / rank
            let rowStretches = max(1, min(4, panelsOfRows, capacity / 2 / columns))
            let columnStretches = max(
                1, min(max(4, device.computeUnits), panelsOfColumns, capacity / 2 / rows))
            let downOffset = rowStretches * rank * columns
            require(
                downOffset + columnStretches * rank * rows <= OpenCLBackend.scratchCount,
                "gloraWeightBackward",
                "rank \(rank) is too large for a layer of shape \(frozen.shape)")
            fill(scratch.leading([downOffset]), 0)
            launch(
                "contract_panels", stored: frozen.elementType, by: kernel, (columnStretches, rowStretches, 1),
                to: scratch, from: leftPanels, rightPanels, frozen, a.columnFactors, b.columnFactors,
                with: downOffset, block.rows.lowerBound, block.columns.lowerBound, rows, columns, n,
                block.depth.count, a.columnConstants, b.columnConstants)
            var (down, up) = (downOffset, 0)
            for term in [a, b] where term.form != .none {
                let rankOfTerm = term.form.columnCount
                if let gradient = term.down.gradient {
                    if term.form == .constant {
                        sumPartsTotal(
                            gradient, size: rows, stride: rank * rows, offset: down, parts: columnStretches)
                    } else {
                        let width = term.down.value.columns
                        sumPartsColumns(
                            gradient, size: rows, rank: rankOfTerm,
                            to: ElementPlaces(offset: block.rows.lowerBound * width, row: width, column: 1),
                            from: ElementPlaces(offset: down, row: rankOfTerm, column: 1),
                            stride: rank * rows, parts: columnStretches)
                    }
                }
                if term.form.isLowRank, let gradient = term.up.gradient {
                    sumPartsColumns(
                        gradient, size: columns, rank: rankOfTerm,
                        to: ElementPlaces(offset: block.columns.lowerBound, row: 1, column: n),
                        from: ElementPlaces(offset: up, row: 1, column: columns), stride: rank * columns,
                        parts: rowStretches)
                }
                down += rankOfTerm * rows
                up += rankOfTerm * columns
            }
        }
    }
}

extension MatrixTerm {
    /// Xd and Xu of any form as a product of low rank, where no Xu is a row of ones.
    fileprivate var columnFactors: Arguments<Tensor, Tensor?> {
        Arguments(down.value, form.isLowRank ? up.value : nil)
    }

    /// The columns in use and the row length of Xd.
    fileprivate var columnConstants: Arguments<Int, Int> { Arguments(form.columnCount, down.value.columns) }
}
