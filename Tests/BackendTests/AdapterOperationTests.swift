import Foundation
import TensorCore
import TestSupport
import Testing

/// What other methods than GLoRA need, against doubles; the backwards against central differences of the forwards in
/// doubles.
@Suite("Operations that other methods than GLoRA need") struct AdapterOperationTests {
    /// Off every vector, strip and block; 1,000 and 4,097 rows are summed in parts, and 20,000 columns are more than one
    /// block of the CPU backend.
    static let sizes = testSizes(
        [
            RowSize(1, 1), RowSize(3, 5), RowSize(37, 129), RowSize(1000, 48), RowSize(4097, 17),
            RowSize(1, 20_000),
        ], small: [RowSize(1, 1), RowSize(3, 5), RowSize(70, 3)])

    // MARK: Blocks

    /// A block of a tensor of `count` elements.
    struct Block: Sendable {
        var count: Int
        var offset: Int
        var stride: Int

        init(_ count: Int, _ offset: Int, _ stride: Int) {
            (self.count, self.offset, self.stride) = (count, offset, stride)
        }

        /// The index of element (i, j).
        func index(_ i: Int, _ j: Int) -> Int { offset + i * stride + j }
    }

    struct BlockCopy: Sendable, CustomStringConvertible {
        var size: RowSize
        var out: Block
        var x: Block
        var description: String {
            "\(size) to \(out.offset) on every \(out.stride), from \(x.offset) on every \(x.stride)"
        }

        init(_ rows: Int, _ columns: Int, _ out: Block, _ x: Block) {
            (size, self.out, self.x) = (RowSize(rows, columns), out, x)
        }

        static let all =
            testSizes(
                [
                    BlockCopy(37, 129, Block(37 * 129, 0, 129), Block(37 * 129, 0, 129)),
                    BlockCopy(1000, 48, Block(200_000, 7, 199), Block(60_000, 11, 50)),
                    // 1,500 columns are more than one block of OpenCL's kernel, 20,000 more than one of the CPU's.
                    BlockCopy(5, 1500, Block(9000, 100, 1601), Block(7600, 1, 1501)),
                    BlockCopy(1, 20_000, Block(20_010, 3, 0), Block(20_001, 1, 0)),
                ], small: [])
            + [
                BlockCopy(1, 1, Block(1, 0, 1), Block(3, 2, 1)),
                BlockCopy(3, 5, Block(40, 4, 13), Block(30, 1, 6)),
                // One row, repeated; and windows that overlap.
                BlockCopy(9, 17, Block(200, 10, 20), Block(20, 3, 0)),
                BlockCopy(4, 6, Block(24, 0, 6), Block(12, 0, 2)),
                // To the last element of each.
                BlockCopy(3, 5, Block(31, 0, 13), Block(19, 0, 7)),
                BlockCopy(0, 5, Block(10, 10, 5), Block(10, 10, 5)),
                BlockCopy(5, 0, Block(10, 10, 5), Block(10, 10, 5)),
            ]
    }

    @Test(
        "A block of a tensor is copied to a block of another, and nothing around it changes",
        arguments: TestDevice.all, BlockCopy.all)
    func copyBlock(device: TestDevice, copy: BlockCopy) throws {
        let (rows, columns) = (copy.size.rows, copy.size.columns)
        let x = randomValues(copy.x.count, seed: 1)
        var initial = randomValues(copy.out.count, seed: 2)
        var expected = initial
        for i in 0..<rows {
            for j in 0..<columns {
                initial[copy.out.index(i, j)] = .nan
                expected[copy.out.index(i, j)] = x[copy.x.index(i, j)]
            }
        }
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let out = try guarded.inOut(initial, [copy.out.count], "out")
            let source = try guarded.input(x, [copy.x.count], "x")
            backend.copyBlock(
                MatrixBlock(out, offset: copy.out.offset, stride: copy.out.stride),
                MatrixBlock(source, offset: copy.x.offset, stride: copy.x.stride), rows: rows,
                columns: columns, accumulate: false)
            expectIdentical(backend.values(out), expected, "copyBlock \(copy)")
            guarded.expectIntact("copyBlock \(copy)")
        }
    }

    @Test(
        "Adding a block once more is as much again, and what lies between the rows stays as it is",
        arguments: TestDevice.all, BlockCopy.all)
    func copyBlockAccumulates(device: TestDevice, copy: BlockCopy) throws {
        let (rows, columns) = (copy.size.rows, copy.size.columns)
        let x = randomValues(copy.x.count, seed: 1)
        var initial = [Float](repeating: .nan, count: copy.out.count)
        for i in 0..<rows {
            for j in 0..<columns { initial[copy.out.index(i, j)] = Float(i - j) }
        }
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let out = try guarded.inOut(initial, [copy.out.count], "out")
            let source = try guarded.input(x, [copy.x.count], "x")
            for times in 1...2 {
                backend.copyBlock(
                    MatrixBlock(out, offset: copy.out.offset, stride: copy.out.stride),
                    MatrixBlock(source, offset: copy.x.offset, stride: copy.x.stride), rows: rows,
                    columns: columns, accumulate: true)
                var (actual, expected): ([Float], [Double]) = ([], [])
                var others = backend.values(out)
                for i in 0..<rows {
                    for j in 0..<columns {
                        let index = copy.out.index(i, j)
                        actual.append(others[index])
                        expected.append(Double(i - j) + Double(times) * Double(x[copy.x.index(i, j)]))
                        others[index] = .nan
                    }
                }
                expectClose(actual, expected, "copyBlock \(copy), \(times) times", limit: 1e-14)
                #expect(others.allSatisfy { $0.isNaN }, "copyBlock \(copy) wrote between the rows")
            }
            guarded.expectIntact("copyBlock \(copy)")
        }
    }

    @Test(
        "The first columns of each row are copied behind the last ones of the same tensor",
        arguments: TestDevice.all)
    func copyBlockInsideATensor(device: TestDevice) throws {
        let (n, d) = (13, 21)
        let values = randomValues(n * d, seed: 1)
        let expected = values.indices.map { $0 % d < 12 ? values[$0] : values[$0 - 12] }
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let tensor = try guarded.inOut(values, [n, d], "tensor")
            backend.copyBlock(
                MatrixBlock(tensor, offset: 12, stride: d), MatrixBlock(tensor, stride: d), rows: n,
                columns: 9, accumulate: false)
            expectIdentical(backend.values(tensor), expected, "copyBlock inside a tensor")
            guarded.expectIntact("copyBlock")
        }
    }

    // MARK: Activations

    /// (f(x + h) − f(x − h)) / 2h, good to some 1e-9.
    private func slope(_ f: (Double) -> Double, at x: Double) -> Double {
        let h = 1e-5
        return (f(x + h) - f(x - h)) / (2 * h)
    }

    /// Off relu's bend, where there is no central difference.
    private func inputs(_ count: Int) -> [Float] {
        randomValues(count, seed: 1, scale: 2).map { abs($0) < 1e-3 ? 0.5 : $0 }
    }

    @Test(
        "Every activation gives what its formula gives in double, in place too", arguments: TestDevice.all,
        elementCounts)
    func activate(device: TestDevice, count: Int) throws {
        let x = inputs(count)
        for activation in Activation.allCases {
            let expected = x.map { Reference.activation(activation, Double($0)) }
            let what = "activate \(activation) \(count)"
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let y = try guarded.output([count], "y")
                backend.activate(y, try guarded.input(x, [count], "x"), activation)
                expectClose(backend.values(y), expected, what)
                let inPlace = try guarded.inOut(x, [count], "x in place")
                backend.activate(inPlace, inPlace, activation)
                expectClose(backend.values(inPlace), expected, "\(what) in place")
                guarded.expectIntact(what)
            }
        }
    }

    @Test(
        "An activation's backward is dy times the slope of its formula, in place too",
        arguments: TestDevice.all, elementCounts)
    func activateBackward(device: TestDevice, count: Int) throws {
        let (x, dy) = (inputs(count), randomValues(count, seed: 2))
        for activation in Activation.allCases {
            let expected = zip(dy, x).map { dy, x in
                Double(dy) * slope({ Reference.activation(activation, $0) }, at: Double(x))
            }
            let what = "activateBackward \(activation) \(count)"
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let tx = try guarded.input(x, [count], "x")
                let dx = try guarded.output([count], "dx")
                backend.activateBackward(dx, try guarded.input(dy, [count], "dy"), tx, activation)
                expectClose(backend.values(dx), expected, what)
                let inPlace = try guarded.inOut(dy, [count], "dy in place")
                backend.activateBackward(inPlace, inPlace, tx, activation)
                expectClose(backend.values(inPlace), expected, "\(what) in place")
                guarded.expectIntact(what)
            }
        }
    }

    @Test(
        "At relu's bend and in the tails where a sigmoid overflows the values are the limits, and a NaN stays one",
        arguments: TestDevice.all)
    func activationEdges(device: TestDevice) throws {
        let x: [Float] = [0, -0.0, 100, -100, 1e30, -1e30, .nan]
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let tx = try guarded.input(x, [x.count], "x")
            let (y, dx) = (try guarded.output([x.count], "y"), try guarded.output([x.count], "dx"))
            let dy = try guarded.input(x.map { _ in 3 }, [x.count], "dy")
            let expected: [(Activation, y: [Float], dx: [Float])] = [
                (.identity, [0, 0, 100, -100, 1e30, -1e30], [3, 3, 3, 3, 3, 3]),
                (.relu, [0, 0, 100, 0, 1e30, 0], [0, 0, 3, 0, 3, 0]),
                (.gelu, [0, 0, 100, 0, 1e30, 0], [1.5, 1.5, 3, 0, 3, 0]),
                (.quickGELU, [0, 0, 100, 0, 1e30, 0], [1.5, 1.5, 3, 0, 3, 0]),
                (.geluTanh, [0, 0, 100, 0, 1e30, 0], [1.5, 1.5, 3, 0, 3, 0]),
                (.silu, [0, 0, 100, 0, 1e30, 0], [1.5, 1.5, 3, 0, 3, 0]),
            ]
            #expect(expected.count == Activation.allCases.count)
            for (activation, expectedY, expectedDx) in expected {
                backend.fill(y, 7)
                backend.activate(y, tx, activation)
                backend.fill(dx, 7)
                backend.activateBackward(dx, dy, tx, activation)
                // 100 e⁻¹⁰⁰, which one of the backends may have, is as good as nothing.
                let values = (backend.values(y), backend.values(dx))
                #expect(zip(values.0, expectedY).allSatisfy { abs($0 - $1) < 1e-30 }, "\(activation)")
                #expect(zip(values.1, expectedDx).allSatisfy { abs($0 - $1) < 1e-30 }, "\(activation)")
                #expect(values.0[6].isNaN && (values.1[6].isNaN || activation.isLinear), "\(activation)")
            }
            guarded.expectIntact("activate")
        }
    }

    @Test(
        "Activations of 16 bits are those of the rounded numbers, rounded once, in place too",
        arguments: [Precision.bfloat16, .float16])
    func storedActivations(precision: Precision) throws {
        let count = TestDevice.onlySmall ? 33 : 1100
        let (x, dy) = (
            inputs(count).map(precision.rounded), randomValues(count, seed: 2).map(precision.rounded)
        )
        try TestDevice.withOpenCL(precision) { backend in
            func stored(_ values: [Float]) throws -> Tensor {
                let tensor = try backend.allocate([count], precision.stored)
                backend.upload(tensor, values)
                return tensor
            }
            let nothing = [Float](repeating: .nan, count: count)
            for activation in Activation.allCases {
                let expected = [
                    x.map { Reference.activation(activation, Double($0)) },
                    zip(dy, x).map { dy, x in
                        Double(dy) * slope({ Reference.activation(activation, $0) }, at: Double(x))
                    },
                ]
                let (y, dx, tx) = (try stored(nothing), try stored(nothing), try stored(x))
                let (inPlace, dInPlace) = (try stored(x), try stored(dy))
                backend.activate(y, tx, activation)
                backend.activateBackward(dx, try stored(dy), tx, activation)
                backend.activate(inPlace, inPlace, activation)
                backend.activateBackward(dInPlace, dInPlace, tx, activation)
                for (tensor, expected) in zip([y, dx, inPlace, dInPlace], expected + expected) {
                    // Half a unit in the last place, and what is below float16's least.
                    let wrong = zip(backend.values(tensor), expected).filter {
                        !(abs(Double($0) - $1) <= 1.001 * precision.roundoff * abs($1) + 1e-6)
                    }
                    #expect(wrong.isEmpty, "\(activation): \(wrong.prefix(3))")
                }
            }
        }
    }

    // MARK: Scale and shift

    @Test(
        "Scaling and shifting columns gives what it gives in double, in place too", arguments: TestDevice.all,
        sizes)
    func scaleShift(device: TestDevice, size: RowSize) throws {
        let (n, d) = (size.rows, size.columns)
        let (x, scale, shift) = (
            randomValues(n * d, seed: 1), randomValues(d, seed: 2), randomValues(d, seed: 3)
        )
        for isShifted in [true, false] {
            let expected = x.indices.map {
                Double(x[$0]) * Double(scale[$0 % d]) + (isShifted ? Double(shift[$0 % d]) : 0)
            }
            let what = "scaleShift \(size), shifted \(isShifted)"
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let tScale = try guarded.input(scale, [d], "scale")
                let tShift = isShifted ? try guarded.input(shift, [d], "shift") : nil
                let y = try guarded.output([n, d], "y")
                backend.scaleShift(y, try guarded.input(x, [n, d], "x"), tScale, tShift)
                expectClose(backend.values(y), expected, what)
                let inPlace = try guarded.inOut(x, [n, d], "x in place")
                backend.scaleShift(inPlace, inPlace, tScale, tShift)
                expectClose(backend.values(inPlace), expected, "\(what) in place")
                guarded.expectIntact(what)
            }
        }
    }

    @Test(
        "The gradients of a scale and a shift accumulate, and dx is overwritten, each only where it is wanted",
        arguments: TestDevice.all, sizes)
    func scaleShiftBackward(device: TestDevice, size: RowSize) throws {
        let (n, d) = (size.rows, size.columns)
        // A mean in both, so that the sums are larger than what is left of their terms' signs.
        let (x, dy) = (randomValues(n * d, seed: 1, mean: 1), randomValues(n * d, seed: 2, mean: 0.5))
        let (scale, shift) = (randomValues(d, seed: 3), randomValues(d, seed: 4))
        let (dScale0, dShift0) = (randomValues(d, seed: 5), randomValues(d, seed: 6))
        /// Σₙ dy ⊙ y of a column, as a function of its scale and its shift.
        func loss(_ column: Int, _ scale: Double, _ shift: Double) -> Double {
            stride(from: column, to: n * d, by: d).reduce(0) {
                $0 + Double(dy[$1]) * (Double(x[$1]) * scale + shift)
            }
        }
        let dScale = (0..<d).map { j in
            Double(dScale0[j]) + slope({ loss(j, $0, Double(shift[j])) }, at: Double(scale[j]))
        }
        let dShift = (0..<d).map { j in
            Double(dShift0[j]) + slope({ loss(j, Double(scale[j]), $0) }, at: Double(shift[j]))
        }
        let dx = x.indices.map { i in
            slope(
                { Double(dy[i]) * ($0 * Double(scale[i % d]) + Double(shift[i % d])) }, at: Double(x[i]))
        }
        for wanted in 0..<8 {
            for isInPlace in wanted & 1 == 0 ? [false] : [false, true] {
                try device.withBackend { backend in
                    let guarded = GuardedTensors(backend)
                    let what = "scaleShiftBackward \(size), wanted \(wanted), in place \(isInPlace)"
                    let tdy =
                        try isInPlace ? guarded.inOut(dy, [n, d], "dy") : guarded.input(dy, [n, d], "dy")
                    let tdx = try isInPlace ? tdy : wanted & 1 == 0 ? nil : guarded.output([n, d], "dx")
                    let tdScale = try wanted & 2 == 0 ? nil : guarded.inOut(dScale0, [d], "dScale")
                    let tdShift = try wanted & 4 == 0 ? nil : guarded.inOut(dShift0, [d], "dShift")
                    backend.scaleShiftBackward(
                        tdx, tdScale, tdShift, tdy, try guarded.input(x, [n, d], "x"),
                        try guarded.input(scale, [d], "scale"))
                    if let tdx { expectClose(backend.values(tdx), dx, "\(what) dx") }
                    if let tdScale { expectClose(backend.values(tdScale), dScale, "\(what) dScale") }
                    if let tdShift { expectClose(backend.values(tdShift), dShift, "\(what) dShift") }
                    guarded.expectIntact(what)
                }
            }
        }
    }

    @Test("A scaled tensor is added to another", arguments: TestDevice.all, elementCounts)
    func addScaled(device: TestDevice, count: Int) throws {
        let (x, y) = (randomValues(count, seed: 1), randomValues(count, seed: 2))
        for factor: Float in [1, -0.3, 0] {
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let sum = try guarded.inOut(y, [count], "y")
                backend.addScaled(sum, try guarded.input(x, [count], "x"), factor)
                expectClose(
                    backend.values(sum), zip(y, x).map { Double($0) + Double(factor) * Double($1) },
                    "addScaled \(count) by \(factor)")
                guarded.expectIntact("addScaled")
            }
        }
    }

    // MARK: Dropout

    /// The mask once more, from its definition.
    private func isKept(_ i: Int, rate: Double, seed: UInt64) -> Bool {
        var z = seed &+ 0x9e37_79b9_7f4a_7c15
        for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9), (27, 0x94d0_49bb_1331_11eb)] as [(Int, UInt64)] {
            z = (z ^ (z >> UInt64(shift))) &* factor
        }
        z ^= z >> 31
        func mix(_ word: UInt64) -> UInt64 {
            var h = word
            for (shift, factor) in [(16, 0x7feb_352d), (15, 0x846c_a68b)] as [(UInt64, UInt64)] {
                h = (h ^ (h >> shift)) &* factor & 0xffff_ffff
            }
            return h ^ (h >> 16)
        }
        let hash = mix(mix(UInt64(i) ^ (z & 0xffff_ffff)) ^ (z >> 32))
        return Double(hash) >= (rate * 0x1p32).rounded()
    }

    @Test(
        "Dropout keeps, bit for bit, the elements that its definition keeps on every backend",
        arguments: TestDevice.all, elementCounts)
    func dropout(device: TestDevice, count: Int) throws {
        let x = randomValues(count, seed: 1)
        for (rate, seed) in [(0.1, 0), (0.5, 1), (0.9, .max), (0, 3)] as [(Double, UInt64)] {
            let expected = x.indices.map {
                isKept($0, rate: rate, seed: seed) ? Float(1 / (1 - rate)) * x[$0] : 0
            }
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let y = try guarded.output([count], "y")
                backend.dropout(y, try guarded.input(x, [count], "x"), rate: rate, seed: seed)
                expectIdentical(backend.values(y), expected, "dropout \(count) at \(rate)")
                let inPlace = try guarded.inOut(x, [count], "x in place")
                backend.dropout(inPlace, inPlace, rate: rate, seed: seed)
                expectIdentical(backend.values(inPlace), expected, "dropout \(count) at \(rate) in place")
                guarded.expectIntact("dropout")
            }
        }
    }

    @Test("A dropout of rate 0 changes no bit", arguments: TestDevice.all)
    func dropoutOfNothing(device: TestDevice) throws {
        let x: [Float] = [1, -0.0, .infinity, .leastNormalMagnitude, -3, 0.1, .greatestFiniteMagnitude]
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let y = try guarded.output([x.count], "y")
            backend.dropout(y, try guarded.input(x, [x.count], "x"), rate: 0, seed: 1)
            expectIdentical(backend.values(y), x, "dropout at a rate of 0")
        }
    }

    /// The share and the mean within four standard deviations; masks of other seeds agree as often as chance has it, also
    /// when one is moved along the other.
    @Test(
        "Dropout drops its share, keeps the mean, and masks of different seeds agree no more than chance has it",
        arguments: TestDevice.all, [0.1, 0.5, 0.9])
    func dropoutStatistics(device: TestDevice, rate: Double) throws {
        let count = TestDevice.onlySmall ? 512 : 100_000
        let x = randomValues(count, seed: 1, mean: 2)
        // Neighbours, the same lower half, the same upper half.
        let seeds: [UInt64] = [7, 8, 7 + 1 << 32, 7 | 1 << 63]
        let masks = try device.withBackend { backend in
            try seeds.map { seed in
                let y = try backend.allocate([count], .float32)
                backend.fill(y, .nan)
                backend.dropout(
                    y, try backend.tensor(HostTensor(shape: [count], values: x)), rate: rate, seed: seed)
                let values = backend.values(y)
                // Σ y − Σ x has the variance Σ x² · rate / (1 − rate).
                let (sum, expected) = (doubles(values).reduce(0, +), doubles(x).reduce(0, +))
                let variance = doubles(x).reduce(0) { $0 + $1 * $1 } * rate / (1 - rate)
                #expect(abs(sum - expected) < 4 * variance.squareRoot(), "mean at \(rate), seed \(seed)")
                return values.map { $0 != 0 }
            }
        }
        func expectShare(_ hits: Int, of count: Int, _ share: Double, _ what: String) {
            let sigma = (share * (1 - share) / Double(count)).squareRoot()
            #expect(abs(Double(hits) / Double(count) - share) < 4 * sigma, "\(what) at \(rate)")
        }
        let agreement = rate * rate + (1 - rate) * (1 - rate)
        for (index, mask) in masks.enumerated() {
            expectShare(mask.count { $0 }, of: count, 1 - rate, "kept, seed \(seeds[index])")
            for (next, other) in masks.enumerated() {
                // A mask with itself only when moved.
                for shift in next == index ? [1, 2, 64] : [0, 1] {
                    let pairs = zip(mask, other.dropFirst(shift))
                    expectShare(
                        pairs.count { $0 == $1 }, of: count - shift, agreement,
                        "seeds \(seeds[index]) and \(seeds[next]), moved by \(shift)")
                }
                for bit in next == index ? [] : [1, 2, 15] {
                    let hits = (0..<count).count { $0 ^ bit < count && mask[$0] == other[$0 ^ bit] }
                    expectShare(
                        hits, of: (0..<count).count { $0 ^ bit < count }, agreement,
                        "seeds \(seeds[index]) and \(seeds[next]), crossed by \(bit)")
                }
            }
        }
    }
}

extension Activation {
    /// Whether the slope doesn't depend on a number's size, so that a NaN may have one.
    fileprivate var isLinear: Bool { self == .identity || self == .relu }
}
