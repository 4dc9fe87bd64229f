import TensorCore
import TestSupport
import Testing

@testable import OpenCLBackend

/// Sizes at which the kernels of products and attention take other ways, in every layout: off every tile, deeper than a
/// block of depth, and more rows or columns than the packing memory holds. The CPU backend, which the other suites compare
/// with doubles, gives the expected values.
@Suite("Sizes at which products and attention take other ways") struct OpenCLSizeTests {
    static let layouts =
        TestDevice.onlySmall
        ? [KernelLayout(width: 8, local: 1), KernelLayout(width: 4, local: 64)]
        : [(16, 1), (8, 1), (4, 1), (4, 64)].map { KernelLayout(width: $0.0, local: $0.1) }

    /// What the sizes below are chosen for; with other constants they have to be others.
    @Test("The constants are those that the sizes are chosen for") func theConstantsThatTheSizesAreMadeFor() {
        #expect(OpenCLBackend.panelDepth == 1024 && OpenCLBackend.contractionDepth == 4096)
        #expect(OpenCLBackend.panelCount == 3 << 20 && OpenCLBackend.panelRank == 64)
    }

    // MARK: Products

    /// [m, n, k]: off the tiles; one block of depth and two and five; rows and columns that don't fit at once.
    static let products = testSizes(
        [
            ProductSize(1, 1, 1), ProductSize(13, 33, 17), ProductSize(25, 31, 1025), ProductSize(3, 7, 5000),
            ProductSize(5000, 5, 1024), ProductSize(5, 5000, 1024), ProductSize(5000, 3, 2050),
        ], small: [ProductSize(1, 1, 1), ProductSize(13, 33, 17)])

    @Test("Products of these sizes are those of the CPU backend", arguments: layouts, products)
    func product(layout: KernelLayout, size: ProductSize) throws {
        try Recording.expectSame(layout) { try OpenCLSizeTests.products($0, size) }
    }

    @Test(
        "A product whose rows and columns need two blocks each is that of the CPU backend",
        arguments: testSizes([KernelLayout(width: 16, local: 1)], small: []))
    func productInFourBlocks(layout: KernelLayout) throws {
        try Recording.expectSame(layout) { recording in
            let (m, n, k) = (3085, 3099, 1024)
            let c = try recording.empty([m, n])
            recording.backend.matmul(
                c, try recording.random([m, k]), try recording.random([n, k]), transposeA: false,
                transposeB: true, accumulate: false)
            let sums = try recording.empty([n])
            recording.backend.sumRows(sums, c, accumulate: false)
            let rowSums = try recording.empty([m, 1])
            recording.backend.matmul(
                rowSums, c, try recording.random([n, 1]), transposeA: false, transposeB: false,
                accumulate: false)
            recording.take("matmul", sums, rowSums)
        }
    }

    private static func products(_ recording: Recording, _ size: ProductSize) throws {
        let (m, n, k) = (size.m, size.n, size.k)
        for (transposeA, transposeB) in [(false, false), (false, true), (true, false), (true, true)] {
            let a = try recording.random(transposeA ? [k, m] : [m, k])
            let b = try recording.random(transposeB ? [n, k] : [k, n])
            for accumulate in [false, true] {
                let c = try accumulate ? recording.random([m, n]) : recording.empty([m, n])
                recording.backend.matmul(
                    c, a, b, transposeA: transposeA, transposeB: transposeB, accumulate: accumulate)
                recording.take("matmul \(size) \(transposeA) \(transposeB) \(accumulate)", c)
            }
        }
    }

    // MARK: Linears

    /// n rows [n, in] through W [out, in]: as above, and ranks of more than the 64 that W is packed with.
    static let linears = testSizes(
        [
            LinearSize(13, 33, 17, 3), LinearSize(14, 31, 1030, 4), LinearSize(7, 35, 3000, 5),
            LinearSize(5, 5000, 1024, 2), LinearSize(5000, 6, 1024, 2), LinearSize(50, 19, 23, 70),
        ], small: [LinearSize(13, 33, 17, 3)])

    @Test(
        "Linears of these sizes are those of the CPU backend, with every epilogue", arguments: layouts,
        linears)
    func linear(layout: KernelLayout, size: LinearSize) throws {
        try Recording.expectSame(layout) { recording in
            let backend = recording.backend
            let (n, o, i, rank) = (size.rows, size.layer.outputs, size.layer.inputs, size.layer.rank)
            let x = try recording.random([n, i])
            let (frozen, scratch) = (try recording.random([o, i]), try recording.empty([o, i]))
            let bias = try recording.random([o])
            func run(_ name: String, _ weight: LinearWeight, _ epilogue: Epilogue, hasY: Bool = true) throws {
                let y = hasY ? try recording.empty([n, o]) : nil
                backend.linear(y, x, weight, epilogue)
                for (tensor, what) in [(y, "y"), (epilogue.preActivation, "z"), (epilogue.activated, "GELU")]
                {
                    if let tensor { recording.take("linear \(size) \(name) \(what)", tensor) }
                }
            }
            func outputs(_ epilogue: Epilogue, product: Bool, activated: Bool) throws -> Epilogue {
                var epilogue = epilogue
                if product { epilogue.preActivation = try recording.empty([n, o]) }
                if activated { epilogue.activated = try recording.empty([n, o]) }
                return epilogue
            }
            let plain = LinearWeight(frozen)
            try run("plain", plain, Epilogue())
            // In weight space, built at each use and once.
            let forms: [(MatrixForm, MatrixForm)] = [
                (.lowRank(rank), .lowRank(rank)), (.vector, .lowRank(rank)), (.none, .constant),
            ]
            for (a, b) in forms {
                let weight = LinearWeight(
                    frozen, a: try recording.term(a, o, i), b: try recording.term(b, o, i), scratch: scratch)
                let prepared = try backend.prepared(weight)
                let epilogue = try outputs(Epilogue(bias: bias), product: false, activated: true)
                try run("\(a) \(b)", weight, epilogue, hasY: false)
                try run("\(a) \(b) prepared", prepared, epilogue)
            }
            // In activation space.
            for (a, b) in [
                (MatrixForm.vector, MatrixForm.lowRank(rank)), (.constant, .vector), (.none, .constant),
            ] {
                var epilogue = Epilogue(bias: bias)
                if a != .none { epilogue.a = try recording.term(a, o, i) }
                let term = try recording.term(b, o, i)
                let t = try recording.empty([n, b.columnCount])
                backend.gloraProject(t, x, term)
                recording.take("gloraProject \(size) \(b)", t)
                (epilogue.b, epilogue.t) = (term, t)
                try run("\(a) \(b) alone", plain, epilogue)
                try run("\(a) \(b)", plain, try outputs(epilogue, product: true, activated: true))
                try run(
                    "\(a) \(b) activated", plain, try outputs(epilogue, product: false, activated: true),
                    hasY: false)
            }
        }
    }

    /// dx = dy · W: here the outputs are the depth.
    @Test("dx of Linears of these sizes is that of the CPU backend", arguments: layouts, linears)
    func linearBackward(layout: KernelLayout, size: LinearSize) throws {
        try Recording.expectSame(layout) { recording in
            let (n, o, i, rank) = (size.rows, size.layer.inputs, size.layer.outputs, size.layer.rank)
            let dy = try recording.random([n, o])
            let (frozen, scratch) = (try recording.random([o, i]), try recording.empty([o, i]))
            let dx = try recording.empty([n, i])
            recording.backend.linearBackward(dx, dy, LinearWeight(frozen))
            recording.take("linearBackward \(size)", dx)
            for (a, b) in [(MatrixForm.lowRank(rank), MatrixForm.vector), (.constant, .lowRank(rank))] {
                let weight = LinearWeight(
                    frozen, a: try recording.term(a, o, i), b: try recording.term(b, o, i), scratch: scratch)
                recording.backend.fill(dx, .nan)
                recording.backend.linearBackward(dx, dy, weight)
                recording.take("linearBackward \(size) \(a) \(b)", dx)
            }
        }
    }

    /// dW = dyᵀ · x contracted: more than 4,096 rows are two blocks of depth, 780 outputs or inputs at 4,096 rows are two
    /// blocks of the packing memory, and the ranks of A and B may be more than 64.
    static let contractions = testSizes(
        [
            LinearSize(1, 1, 1, 1), LinearSize(37, 35, 33, 3), LinearSize(5000, 13, 17, 4),
            LinearSize(4096, 780, 9, 2), LinearSize(4096, 9, 780, 2), LinearSize(40, 41, 43, 70),
        ], small: [LinearSize(37, 35, 33, 3)])

    @Test(
        "The gradients of W's factors in these sizes are those of the CPU backend", arguments: layouts,
        contractions)
    func contraction(layout: KernelLayout, size: LinearSize) throws {
        try OpenCLSizeTests.expectSameContraction(layout, size)
    }

    @Test(
        "The gradients of W's factors are those of the CPU backend where outputs and inputs need two blocks each",
        arguments: testSizes([KernelLayout(width: 16, local: 1)], small: []))
    func contractionInFourBlocks(layout: KernelLayout) throws {
        try OpenCLSizeTests.expectSameContraction(layout, LinearSize(4096, 775, 780, 3))
    }

    private static func expectSameContraction(_ layout: KernelLayout, _ size: LinearSize) throws {
        try Recording.expectSame(layout) { recording in
            let (n, o, i, rank) = (size.rows, size.layer.outputs, size.layer.inputs, size.layer.rank)
            let (x, dy) = (try recording.random([n, i]), try recording.random([n, o]))
            let (frozen, scratch) = (try recording.random([o, i]), try recording.empty([o, i]))
            let forms: [(MatrixForm, MatrixForm)] = [
                (.lowRank(rank), .lowRank(rank)), (.vector, .lowRank(rank)), (.lowRank(rank), .none),
                (.none, .constant), (.constant, .vector),
            ]
            // A constant's gradient is one sum over all: of millions of terms, more is lost than the comparison allows.
            for (formA, formB) in n * o * i > 10_000_000 ? Array(forms[..<2]) : forms {
                let (a, b) = (try recording.term(formA, o, i), try recording.term(formB, o, i))
                recording.backend.gloraWeightBackward(a, b, scratch, dy, x, frozen)
                recording.take("gloraWeightBackward \(size) \(formA) \(formB), A", a)
                recording.take("gloraWeightBackward \(size) \(formA) \(formB), B", b)
            }
        }
    }

    @Test(
        "Activation space's sums over the rows in these sizes are those of the CPU backend",
        arguments: layouts, contractions)
    func activationBackward(layout: KernelLayout, size: LinearSize) throws {
        try Recording.expectSame(layout) { recording in
            let (n, o, i, rank) = (size.rows, size.layer.outputs, size.layer.inputs, size.layer.rank)
            let (x, dy) = (try recording.random([n, i]), try recording.random([n, o]))
            let z = try recording.random([n, o])
            let isLong = n > 1000  // as above
            for (formA, formB) in [
                (MatrixForm.vector, MatrixForm.lowRank(rank)), (isLong ? .vector : .constant, .vector),
            ] {
                let (a, b) = (try recording.term(formA, o, i), try recording.term(formB, o, i))
                let t = try recording.random([n, formB.columnCount])
                let dBias = try recording.empty([o])
                recording.backend.gloraOutputBackward(dBias, a, b, dy, z, t)
                recording.backend.gloraProjectBackward(t, b, dy, x)
                recording.take("activation space \(size) \(formA) \(formB)", dBias, t)
                recording.take("activation space \(size) \(formA) \(formB), A", a)
                recording.take("activation space \(size) \(formA) \(formB), B", b)
            }
        }
    }

    // MARK: Attention

    /// Heads and tokens on both sides of the tiles and of a group's 64 work-items; one token asks, some do, all do.
    static let attentions = testSizes(
        [
            AttentionSize(1, 1, 1, 1), AttentionSize(2, 12, 2, 32), AttentionSize(2, 25, 3, 5),
            AttentionSize(1, 65, 2, 33), AttentionSize(3, 130, 1, 16), AttentionSize(1, 64, 1, 64),
        ], small: [AttentionSize(2, 5, 2, 3)])

    @Test(
        "Attention of these sizes and its gradients are those of the CPU backend", arguments: layouts,
        attentions)
    func attention(layout: KernelLayout, size: AttentionSize) throws {
        try Recording.expectSame(layout) { recording in
            let (b, t, d) = (size.images, size.tokens, size.width)
            let qkv = try recording.random([b, t, 3 * d])
            for queries in size.queryCounts {
                let out = try recording.empty([b, queries, d])
                let logSumExp = try recording.empty([b, size.heads, queries])
                recording.backend.attention(out, logSumExp, qkv, heads: size.heads)
                recording.take("attention \(size) \(queries)", out, logSumExp)
                let (dOut, dqkv) = (
                    try recording.random([b, queries, d]), try recording.empty([b, t, 3 * d])
                )
                recording.backend.attentionBackward(dqkv, dOut, out, logSumExp, qkv, heads: size.heads)
                recording.take("attentionBackward \(size) \(queries)", dqkv)
            }
        }
    }
}
