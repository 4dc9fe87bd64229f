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
        requireScratch(columns, "columnSums")
        guard columns > 0 else { return }
        let most = OpenCLBackend.scratchCount / columns
        for first in stride(from: 0, to: outputs, by: most) {
            let outputs = min(most, outputs - first)
            let size = outputs * columns
            let parts = parts(rows: rows, size: size)
            launch(
                "column_sums", stored: x.elementType, (strips(columns), parts, 1), to: scratch,
                from: x, factor, weights, with: rows, columns, xStride ?? columns, outputs, first,
                weightStride)
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
            "sum_parts", (elementGroups(size), 1, 1), to: out, from: scratch,
            with: size, stride ?? size, offset, firstOutput, parts, accumulate)
    }

    /// outs[k] [size] += Σₚ scratch[p, k, :], each where it is wanted; scratch is [parts, outs, size].
    func sumParts(_ outs: [Tensor?], size: Int, parts: Int) {
        for (k, out) in outs.enumerated() {
            guard let out else { continue }
            sumParts(
                out, size: size, stride: outs.count * size, offset: k * size, parts: parts, accumulate: true)
        }
    }

    /// out[i, k] += Σₚ scratch[p, i, k] for i < size and k < rank, each in its place; scratch is [parts, stride].
    func sumPartsColumns(
        _ out: Tensor, size: Int, rank: Int, to target: ElementPlaces, from source: ElementPlaces,
        stride: Int,
        parts: Int
    ) {
        launch(
            "sum_parts_columns", (itemGroups(size), 1, 1), to: out, from: scratch,
            with: size, rank, target.constants, source.constants, stride, parts)
    }

    /// out[0] += Σₚ Σᵢ scratch[p, offset + i] for i < size.
    func sumPartsTotal(_ out: Tensor, size: Int, stride: Int, offset: Int, parts: Int) {
        launch("sum_parts_total", (1, 1, 1), to: out, from: scratch, with: size, stride, offset, parts)
    }

    /// out[n, k] ← Σⱼ x[n, j] · factor[n, j] · up[k, j], or out + …, with x [rows, columns]; factor and up
    /// may be none.
    func rowDots(
        _ out: Tensor, _ x: Tensor, factor: Tensor? = nil, up: Tensor? = nil, upOffset: Int = 0, rows: Int,
        columns: Int, outputs: Int = 1, outStride: Int = 1, accumulate: Bool
    ) {
        launch(
            "row_dots", stored: x.elementType, (rowGroups(rows), 1, 1), to: out, from: x, factor, up,
            with: upOffset, rows, columns, outputs, outStride, accumulate)
    }

    /// Stops the program when sums of so many columns don't fit into the scratch.
    func requireScratch(_ size: Int, _ operation: String) {
        require(
            size <= OpenCLBackend.scratchCount, operation, "\(size) sums are more than the scratch holds")
    }
}

/// Where element (i, k) lies: at offset + i · row + k · column.
struct ElementPlaces {
    let offset, row, column: Int

    var constants: Arguments<Int, Int, Int> { Arguments(offset, row, column) }
}
