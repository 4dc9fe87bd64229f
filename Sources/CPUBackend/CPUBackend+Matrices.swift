import COpenBLAS
import TensorCore

// c = op(a) · op(b), by OpenBLAS, one thread per call. A large product is cut into as many tiles of c as
// there are threads.

/// Keeps OpenBLAS's own threads asleep, for the whole process.
func useSingleThreadedBLAS() { openblas_set_num_threads(1) }

/// c ← alpha · op(a) · op(b) + beta · c, row-major with row lengths lda, ldb and ldc; beta 0
/// overwrites even a NaN.
@inline(__always)
func gemm(
    _ c: UnsafeMutablePointer<Float>, ldc: Int, _ a: UnsafePointer<Float>, lda: Int,
    _ b: UnsafePointer<Float>, ldb: Int, m: Int, n: Int, k: Int,
    transposeA: Bool = false, transposeB: Bool = false, alpha: Float = 1, beta: Float = 0
) {
    cblas_sgemm(
        CblasRowMajor, transposeA ? CblasTrans : CblasNoTrans, transposeB ? CblasTrans : CblasNoTrans,
        Int32(m), Int32(n), Int32(k), alpha, a, Int32(lda), b, Int32(ldb), beta, c, Int32(ldc))
}

extension CPUBackend {
    /// c [m, n] ← op(a) · op(b), or c + op(a) · op(b) when `accumulate`.
    public func matmul(
        _ c: Tensor, _ a: Tensor, _ b: Tensor, transposeA: Bool, transposeB: Bool, accumulate: Bool
    ) {
        product(c, a, b, bias: nil, transposeA: transposeA, transposeB: transposeB, accumulate: accumulate)
    }

    /// y [n, out] ← x [n, in] · weightᵀ + bias. The bias goes into y first and the product is added to
    /// it, which costs no more than the zeros that OpenBLAS would write.
    public func linear(_ y: Tensor, _ x: Tensor, _ weight: Tensor, _ bias: Tensor?) {
        if let bias {
            require(
                bias.count == y.columns, "linear",
                "bias of shape \(bias.shape) for an output of shape \(y.shape)")
        }
        product(
            y, x, weight, bias: bias.map { floats($0, "linear") }, transposeA: false, transposeB: true,
            accumulate: false)
    }

    private func product(
        _ c: Tensor, _ a: Tensor, _ b: Tensor, bias: UnsafeMutablePointer<Float>?,
        transposeA: Bool, transposeB: Bool, accumulate: Bool
    ) {
        let (m, n) = (c.rows, c.columns)
        let k = transposeA ? a.rows : a.columns
        require(
            (transposeA ? a.columns : a.rows) == m && (transposeB ? b.rows : b.columns) == n
                && (transposeB ? b.columns : b.rows) == k, "matmul",
            "c \(c.shape), a \(a.shape)\(transposeA ? "ᵀ" : "") and b \(b.shape)\(transposeB ? "ᵀ" : "") don't fit"
        )
        let c = floats(c, "matmul")  // [m, n]
        let a = floats(a, "matmul")  // [m, k] or [k, m]
        let b = floats(b, "matmul")  // [k, n] or [n, k]
        let (lda, ldb) = (transposeA ? m : k, transposeB ? k : n)
        let grid = tileGrid(m: m, n: n, k: k)
        parallel(grid.rows * grid.columns, grain: 1) { tiles in
            for tile in tiles {
                let rows = part(tile / grid.columns, of: grid.rows, m)
                let columns = part(tile % grid.columns, of: grid.columns, n)
                guard !rows.isEmpty, !columns.isEmpty else { continue }
                let tileC = c + rows.lowerBound * n + columns.lowerBound
                if let bias {
                    for row in 0..<rows.count {
                        (tileC + row * n).update(from: bias + columns.lowerBound, count: columns.count)
                    }
                }
                gemm(
                    tileC, ldc: n,
                    a + rows.lowerBound * (transposeA ? 1 : k), lda: lda,
                    b + columns.lowerBound * (transposeB ? k : 1), ldb: ldb,
                    m: rows.count, n: columns.count, k: k, transposeA: transposeA, transposeB: transposeB,
                    beta: accumulate || bias != nil ? 1 : 0)
            }
        }
    }

    /// How to cut c [m, n]: at most one tile per thread, none smaller than 2¹⁸ multiplications (some 10
    /// µs, what waking a thread costs), and of all such grids the one whose tiles have the shortest edges,
    /// since they are what is packed.
    private func tileGrid(m: Int, n: Int, k: Int) -> (rows: Int, columns: Int) {
        let tiles = max(1, min(threadCount, m * n / 262_144 * k + m * n % 262_144 * k / 262_144))
        var best = (rows: 1, columns: 1)
        var bestEdge = Double.infinity
        for rows in 1...tiles {
            let columns = tiles / rows
            // Grids that leave threads without a tile count as if the others had to do their part.
            let edge =
                (Double(m) / Double(rows) + Double(n) / Double(columns)) * Double(tiles)
                / Double(rows * columns)
            if edge < bestEdge { (best, bestEdge) = ((rows, columns), edge) }
        }
        return best
    }

    /// Part `index` of `parts` equal ones of 0..<count, cut at multiples of 16, a vector of the widest
    /// kernels.
    private func part(_ index: Int, of parts: Int, _ count: Int) -> Range<Int> {
        let units = (count + 15) / 16
        return min(count, units * index / parts * 16)..<min(count, units * (index + 1) / parts * 16)
    }

    /// x [n, d] ← x + row [d] in every row.
    public func addRow(_ x: Tensor, _ row: Tensor) {
        let d = x.columns
        require(row.count == d, "addRow", "a row of shape \(row.shape) for a tensor of shape \(x.shape)")
        let row = floats(row, "addRow")  // [d]
        let first = floats(x, "addRow")  // [n, d]
        parallel(x.rows, grain: rowGrain(d)) { range in
            for n in range {
                let x = first + n * d
                for j in 0..<d { x[j] += row[j] }
            }
        }
    }

    /// out [d] ← Σₙ x [n, d], or out + Σₙ x when `accumulate`.
    public func sumRows(_ out: Tensor, _ x: Tensor, accumulate: Bool) {
        let d = x.columns
        require(out.count == d, "sumRows", "\(out.shape) for the sum of rows of shape \(x.shape)")
        let first = floats(x, "sumRows")  // [n, d]
        columnSums(floats(out, "sumRows"), outputs: 1, rows: x.rows, columns: d, accumulate: accumulate) {
            row, columns, block in
            let x = first + row * d + columns.lowerBound
            for j in 0..<columns.count { block[j] += x[j] }
        }
    }
}
