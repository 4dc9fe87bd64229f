import TensorCore

// Sums over the rows and the columns of a matrix (Reductions.cl).

extension OpenCLBackend {
    /// The parts that a sum over n rows is taken in: at least 64 rows, at most 64 parts, so that 10,000 rows
    /// make sums of about 160, and no more than the scratch holds of `size` floats each.
    func parts(rows: Int, size: Int) -> Int {
        max(1, min(64, rows / 64, OpenCLBackend.scratchCount / size))
    }

    /// Groups of STRIP columns.
    func strips(_ columns: Int) -> Int {
        let strip = max(128, layout.local * layout.width)
        return (columns + strip - 1) / strip
    }

    /// out [outputs, columns] ← Σₙ weights[n, k] · x[n, j] · factor[n, j], or out + ….
    ///
    /// x and factor are [rows, xStride]; `weights` [rows, weightStride] gives output k its column k, and none
    /// is 1.
    func columnSums(
        _ out: Tensor, _ x: Tensor, factor: Tensor? = nil, weights: Tensor? = nil, rows: Int, columns: Int,
        xStride: Int? = nil, outputs: Int = 1, weightStride: Int = 1, accumulate: Bool
    ) {
        require(
            columns <= OpenCLBackend.scratchCount, "columnSums",
            "a row of \(columns) is more than the scratch")
        guard columns > 0 else { return }
        let stored = stored(x, factor, floats: out, weights, operation: "columnSums")
        let most = OpenCLBackend.scratchCount / columns
        for first in stride(from: 0, to: outputs, by: most) {
            let outputs = min(most, outputs - first)
            let size = outputs * columns
            let parts = parts(rows: rows, size: size)
            launch(
                "column_sums", stored: stored, (strips(columns), parts, 1), scratch, x, factor, weights, rows,
                columns,
                xStride ?? columns, outputs, first, weightStride)
            sumParts(
                out, size: size, firstOutput: first * columns, parts: parts, accumulate: accumulate)
        }
    }

    /// out[firstOutput + i] ← Σₚ scratch[p, offset + i] for i < size, or out + …; scratch is [parts, stride].
    func sumParts(
        _ out: Tensor, size: Int, stride: Int? = nil, offset: Int = 0, firstOutput: Int = 0, parts: Int,
        accumulate: Bool
    ) {
        launch(
            "sum_parts", (elementGroups(size), 1, 1), out, scratch, size, stride ?? size, offset, firstOutput,
            parts, accumulate)
    }

    /// out[o + i · r + k · c] += Σₚ scratch[p, o + i · r + k · c] for i < size and k < rank, with an (o, r, c) each for out
    /// and for the scratch [parts, stride].
    func sumPartsColumns(
        _ out: Tensor, size: Int, rank: Int, out target: (Int, Int, Int), from: (Int, Int, Int), stride: Int,
        parts: Int
    ) {
        launch(
            "sum_parts_columns", (itemGroups(size), 1, 1), out, scratch, size, rank, target.0, target.1,
            target.2,
            from.0, from.1, from.2, stride, parts)
    }

    /// out[0] += Σₚ Σᵢ scratch[p, offset + i] for i < size.
    func sumPartsTotal(_ out: Tensor, size: Int, stride: Int, offset: Int, parts: Int) {
        launch("sum_parts_total", (1, 1, 1), out, scratch, size, stride, offset, parts)
    }

    /// out[n, k] ← Σⱼ x[n, j] · factor[n, j] · up[k, j], or out + …, with x [rows, columns]; factor and up
    /// may be none.
    func rowDots(
        _ out: Tensor, _ x: Tensor, factor: Tensor? = nil, up: Tensor? = nil, upOffset: Int = 0, rows: Int,
        columns: Int, outputs: Int = 1, outStride: Int = 1, accumulate: Bool
    ) {
        launch(
            "row_dots", stored: stored(x, factor, floats: out, up, operation: "rowDots"),
            (rowGroups(rows), 1, 1), out, x, factor, up, upOffset, rows, columns, outputs,
            outStride, accumulate)
    }
}
