import CCLBlast
import COpenCL
import TensorCore

// c ← op(a) · op(b), and the operations on a matrix's rows.

/// Where the elements of a batch of matrices lie: [i, j] of head h of sample b is at
/// offset + i · row + j · column + b · batch + h · head.
struct MatrixLayout {
    var offset = 0
    var row: Int
    var column = 1
    var batch = 0
    var head = 0

    /// The same matrices, transposed.
    var transposed: MatrixLayout {
        MatrixLayout(offset: offset, row: column, column: row, batch: batch, head: head)
    }

    var argument: SIMD8<Int32> {
        SIMD8(Int32(offset), Int32(row), Int32(column), Int32(batch), Int32(head), 0, 0, 0)
    }
}

/// What computes a product of whole tensors.
package enum ProductKernel: Sendable {
    /// CLBlast, whose tiles for GPUs are good without tuning.
    case clblast
    /// `matmul` of Matrices.cl. On a CPU device it is 15 to 100 times as fast as CLBlast without tuning (2
    /// cores of a Cascade Lake, PoCL 3.1, [4160, 128] · [128, 128]: 80–190 GFLOP/s against 0.7–1.4; [1576,
    /// 768] · [768, 3072]: 36 against 2.2), and a process doesn't have to compile CLBlast's kernels first.
    case tiled
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
        guard m > 0, n > 0 else { return }
        guard k > 0 else { return accumulate ? () : fill(c, 0) }
        switch product {
        case .tiled:
            let (whole, left, right) = (
                MatrixLayout(row: n), MatrixLayout(row: a.columns), MatrixLayout(row: b.columns)
            )
            batchedMatmul(
                (c, whole), (a, transposeA ? left.transposed : left),
                (b, transposeB ? right.transposed : right), m: m, n: n, k: k, accumulate: accumulate)
        case .clblast:
            var queue: cl_command_queue? = queue
            let status = CLBlastSgemm(
                CLBlastLayoutRowMajor, transposeA ? CLBlastTransposeYes : CLBlastTransposeNo,
                transposeB ? CLBlastTransposeYes : CLBlastTransposeNo, m, n, k, 1,
                buffer(a, "matmul").memory, 0, a.columns, buffer(b, "matmul").memory, 0, b.columns,
                accumulate ? 1 : 0, buffer(c, "matmul").memory, 0, n, &queue, nil)
            succeed(cl_int(status.rawValue), "matmul by CLBlast")
        }
    }

    /// c ← α · a · b, or c + …, for every sample and head: [m, n] from [m, k] and [k, n], by our own kernel.
    func batchedMatmul(
        _ c: (Tensor, MatrixLayout), _ a: (Tensor, MatrixLayout), _ b: (Tensor, MatrixLayout),
        m: Int, n: Int, k: Int, batch: Int = 1, heads: Int = 1, alpha: Float = 1, accumulate: Bool = false
    ) {
        // The tiles of Matrices.cl.
        let localColumns = min(layout.local, 8)
        let tileRows = layout.local == 1 && layout.width == 16 ? 8 : 4
        let panelColumns = localColumns * layout.width * (layout.local == 1 ? 2 : 1)
        let panels = (n + panelColumns - 1) / panelColumns
        // A long stretch of rows pays for turning b's panel; but every core wants several groups.
        let wantedGroups = layout.local == 1 ? 8 * device.computeUnits : 32 * device.computeUnits
        let stretches = max(1, min(wantedGroups / max(1, panels * batch * heads), m / 64))
        let rowStep = layout.local / localColumns * tileRows
        let rows = (((m + stretches - 1) / stretches) + rowStep - 1) / rowStep * rowStep
        launch(
            "matmul", (panels, (m + rows - 1) / rows, batch * heads), c.0, a.0, b.0, c.1.argument,
            a.1.argument,
            b.1.argument, m, n, k, heads, rows, alpha, accumulate)
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
