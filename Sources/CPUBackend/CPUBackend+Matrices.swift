import CLoops
import COpenBLAS
import TensorCore

// c = op(a) · op(b), by OpenBLAS, one thread per call. A large product is cut into tiles of c, one for each thread.

/// c ← alpha · op(a) · op(b) + beta · c, row-major with row lengths lda, ldb and ldc; beta 0
/// overwrites even a NaN.
@inline(__always)
func gemm(
    _ c: Floats, ldc: Int, _ a: UnsafePointer<Float>, lda: Int,
    _ b: UnsafePointer<Float>, ldb: Int, m: Int, n: Int, k: Int,
    transposeA: Bool = false, transposeB: Bool = false, alpha: Float = 1, beta: Float = 0
) {
    openblas_sgemm(
        CblasRowMajor, transposeA ? CblasTrans : CblasNoTrans, transposeB ? CblasTrans : CblasNoTrans,
        Int32(m), Int32(n), Int32(k), alpha, a, Int32(lda), b, Int32(ldb), beta, c, Int32(ldc))
}

extension CPUBackend {
    /// c [m, n] ← op(a) · op(b), or c + op(a) · op(b) when `accumulate`.
    public func matmul(
        _ c: Tensor, _ a: Tensor, _ b: Tensor, transposeA: Bool, transposeB: Bool, accumulate: Bool,
        m: Int, n: Int, k: Int
    ) {
        let c = floats(c)  // [m, n]
        let a = floats(a)  // [m, k] or [k, m]
        let b = floats(b)  // [k, n] or [n, k]
        forEachTile(m: m, n: n, k: k) { rows, columns, _ in
            gemm(
                c + rows.lowerBound * n + columns.lowerBound, ldc: n,
                a + rows.lowerBound * (transposeA ? 1 : k), lda: transposeA ? m : k,
                b + columns.lowerBound * (transposeB ? k : 1), ldb: transposeB ? k : n,
                m: rows.count, n: columns.count, k: k, transposeA: transposeA, transposeB: transposeB,
                beta: accumulate ? 1 : 0)
        }
    }

    /// Calls `body` with the rows and columns of tiles of c [m, n], a product over k, and with `scratch`
    /// elements of memory.
    func forEachTile(
        m: Int, n: Int, k: Int, scratch: Int = 0, _ body: (Range<Int>, Range<Int>, Floats) -> Void
    ) {
        let grid = tileGrid(m: m, n: n, k: k)
        parallel(grid.rows * grid.columns, grain: 1, scratch: scratch) { tiles, scratch in
            for tile in tiles {
                let rows = part(tile / grid.columns, of: grid.rows, m)
                let columns = part(tile % grid.columns, of: grid.columns, n)
                if !rows.isEmpty && !columns.isEmpty { body(rows, columns, scratch) }
            }
        }
    }

    /// How to cut c [m, n]: into at most `parts` tiles, none smaller than 2¹⁸ multiplications (some 10
    /// µs, what waking a thread costs), and of all such grids the one whose tiles have the shortest edges,
    /// since they are what is packed.
    private func tileGrid(m: Int, n: Int, k: Int) -> (rows: Int, columns: Int) {
        let tiles = max(1, min(parts, m * n / 262_144 * k + m * n % 262_144 * k / 262_144))
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

    /// out [d] ← Σₙ x [n, d], or out + Σₙ x when `accumulate`.
    public func sumRows(_ out: Tensor, _ x: Tensor, accumulate: Bool, rows: Int, columns d: Int) {
        let first = floats(x)  // [n, d]
        let out = floats(out)  // [d]
        sumOfBlocks(rows, columns: d, size: d) { range, sums in
            sum_rows(sums, first + range.lowerBound * d, range.count, d, d)
        } use: { sums in
            if accumulate { add_to(out, sums, d) } else { out.update(from: sums, count: d) }
        }
    }
}
