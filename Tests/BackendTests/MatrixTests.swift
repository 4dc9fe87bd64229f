import TensorCore
import TestSupport
import Testing

/// The sizes of a product [m, k] · [k, n].
struct ProductSize: Sendable, CustomStringConvertible {
    let m: Int
    let n: Int
    let k: Int
    var description: String { "\(m)×\(n)×\(k)" }

    init(_ m: Int, _ n: Int, _ k: Int) { (self.m, self.n, self.k) = (m, n, k) }

    /// Both sides of every tile edge, without all combinations.
    static let all = testSizes(
        [
            ProductSize(1, 1, 1), ProductSize(1, 65, 31), ProductSize(31, 1, 64), ProductSize(63, 64, 65),
            ProductSize(64, 63, 1), ProductSize(65, 257, 64), ProductSize(257, 65, 63),
            ProductSize(64, 64, 768),
            ProductSize(1, 257, 257), ProductSize(31, 768, 65),
        ], small: [ProductSize(1, 1, 1), ProductSize(5, 3, 2), ProductSize(17, 9, 33)])
}

@Suite("Products, and sums over rows") struct MatrixTests {
    @Test(
        "A product with each operand transposed or not, overwriting or added, is that in double",
        arguments: TestDevice.all, ProductSize.all)
    func matmul(device: TestDevice, size: ProductSize) throws {
        let (m, n, k) = (size.m, size.n, size.k)
        let (a, b) = (randomValues(m * k, seed: 1), randomValues(k * n, seed: 2))
        let initial = randomValues(m * n, seed: 3)
        for (transposeA, transposeB) in [(false, false), (false, true), (true, false), (true, true)] {
            let matrixA = transposeA ? Matrix(k, m, a).transposed : Matrix(m, k, a)
            let matrixB = transposeB ? Matrix(n, k, b).transposed : Matrix(k, n, b)
            let product = matrixA * matrixB
            for accumulate in [false, true] {
                try device.withBackend { backend in
                    let guarded = GuardedTensors(backend)
                    let ta = try guarded.input(a, transposeA ? [k, m] : [m, k], "a")
                    let tb = try guarded.input(b, transposeB ? [n, k] : [k, n], "b")
                    let tc =
                        try accumulate ? guarded.inOut(initial, [m, n], "c") : guarded.output([m, n], "c")
                    backend.matmul(
                        tc, ta, tb, transposeA: transposeA, transposeB: transposeB, accumulate: accumulate)
                    let expected = accumulate ? product.combined(Matrix(m, n, initial), +) : product
                    let what =
                        "matmul \(size), transposed \(transposeA) \(transposeB), accumulate \(accumulate)"
                    expectClose(backend.values(tc), expected.values, what)
                    guarded.expectIntact(what)
                }
            }
        }
    }

    @Test(
        "A plain Linear is x · Wᵀ plus its bias, or without one", arguments: TestDevice.all, ProductSize.all)
    func linear(device: TestDevice, size: ProductSize) throws {
        let (n, out, width) = (size.m, size.n, size.k)
        let (x, weight) = (randomValues(n * width, seed: 1), randomValues(out * width, seed: 2))
        let bias = randomValues(out, seed: 3, scale: 10)
        let product = Matrix(n, width, x) * Matrix(out, width, weight).transposed
        for hasBias in [false, true] {
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                // [1, n, in] is read as the matrix [n, in].
                let y = try guarded.output([1, n, out], "y")
                backend.linear(
                    y, try guarded.input(x, [1, n, width], "x"),
                    try guarded.input(weight, [out, width], "weight"),
                    hasBias ? try guarded.input(bias, [out], "bias") : nil)
                var expected = product
                if hasBias { for i in 0..<n { for j in 0..<out { expected[i, j] += Double(bias[j]) } } }
                expectClose(backend.values(y), expected.values, "linear \(size), bias \(hasBias)")
                guarded.expectIntact("linear")
            }
        }
    }

    @Test("A row is added to every row", arguments: TestDevice.all, RowSize.all)
    func addRow(device: TestDevice, size: RowSize) throws {
        let (x, row) = (randomValues(size.count, seed: 1), randomValues(size.columns, seed: 2))
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let tensor = try guarded.inOut(x, [size.rows, size.columns], "x")
            backend.addRow(tensor, try guarded.input(row, [size.columns], "row"))
            let expected = x.indices.map { Double(x[$0]) + Double(row[$0 % size.columns]) }
            expectClose(backend.values(tensor), expected, "addRow \(size)")
            guarded.expectIntact("addRow")
        }
    }

    @Test("Rows are summed, overwriting or added", arguments: TestDevice.all, RowSize.all)
    func sumRows(device: TestDevice, size: RowSize) throws {
        // A mean of 1 makes the sums long: a naive float32 sum loses digits.
        let x = randomValues(size.count, seed: 1, mean: 1)
        let initial = randomValues(size.columns, seed: 2)
        let sums = Reference.sumRows(Matrix(size.rows, size.columns, x))
        for accumulate in [false, true] {
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let input = try guarded.input(x, [size.rows, size.columns], "x")
                let out =
                    try accumulate
                    ? guarded.inOut(initial, [size.columns], "out") : guarded.output([size.columns], "out")
                backend.sumRows(out, input, accumulate: accumulate)
                let expected = accumulate ? zip(sums, initial).map { $0 + Double($1) } : sums
                expectClose(backend.values(out), expected, "sumRows \(size), accumulate \(accumulate)")
                guarded.expectIntact("sumRows")
            }
        }
    }
}

/// A matrix [rows, columns] that an operation goes over by rows.
struct RowSize: Sendable, CustomStringConvertible {
    let rows: Int
    let columns: Int
    var description: String { "\(rows)×\(columns)" }
    var count: Int { rows * columns }

    init(_ rows: Int, _ columns: Int) { (self.rows, self.columns) = (rows, columns) }

    /// Both sides of tile edges in both directions; 4,097 rows make long sums.
    static let all = testSizes(
        [
            RowSize(1, 1), RowSize(31, 63), RowSize(64, 64), RowSize(65, 31), RowSize(1, 257),
            RowSize(257, 1),
            RowSize(63, 65), RowSize(65, 768), RowSize(4097, 17),
        ], small: [RowSize(1, 1), RowSize(3, 5), RowSize(17, 33), RowSize(70, 3)])
}
