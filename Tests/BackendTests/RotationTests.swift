import Foundation
import TensorCore
import TestSupport
import Testing

/// The sizes of a rotation: n rows of heads of width h, of which 2 · pairs are rotated; where the rows lie, and P positions.
struct RotationSize: Sendable, CustomStringConvertible {
    let (rows, heads, head, pairs): (Int, Int, Int, Int)
    let (offset, stride, positions): (Int, Int, Int)
    var width: Int { heads * head }
    var count: Int { offset + (rows - 1) * stride + width + 2 }
    var description: String {
        "\(rows) rows of \(heads)×\(head) from \(offset) on every \(stride), \(pairs) pairs"
    }

    init(_ rows: Int, _ heads: Int, _ head: Int, pairs: Int, offset: Int = 0, stride: Int, positions: Int) {
        (self.rows, self.heads, self.head, self.pairs) = (rows, heads, head, pairs)
        (self.offset, self.stride, self.positions) = (offset, stride, positions)
    }

    static let all = testSizes(
        [
            RotationSize(1, 1, 2, pairs: 1, stride: 0, positions: 1),
            RotationSize(13, 3, 31, pairs: 15, stride: 93, positions: 5),
            // The keys of a fused [n, 3·D]; the queries of one that rotates a part of each head.
            RotationSize(70, 12, 64, pairs: 32, offset: 768, stride: 2304, positions: 197),
            RotationSize(37, 2, 80, pairs: 20, offset: 1, stride: 481, positions: 9),
            RotationSize(3, 1, 130, pairs: 65, offset: 5, stride: 131, positions: 70),
        ],
        small: [
            RotationSize(1, 1, 2, pairs: 1, stride: 0, positions: 1),
            RotationSize(3, 2, 13, pairs: 5, offset: 3, stride: 79, positions: 4),
        ])

    /// The indices of the pairs of row r, with the table's column.
    func pairs(_ row: Int, _ layout: RotaryLayout) -> [(first: Int, second: Int, column: Int)] {
        (0..<heads).flatMap { head in
            let start = offset + row * stride + head * self.head
            return (0..<pairs).map {
                switch layout {
                case .halves: (start + $0, start + pairs + $0, $0)
                case .interleaved: (start + 2 * $0, start + 2 * $0 + 1, $0)
                }
            }
        }
    }
}

@Suite("Rotary position embedding") struct RotationTests {
    /// Cosines and sines of angles that grow with the position, [P, pairs] each.
    private func tables(_ size: RotationSize) -> (cosines: [Float], sines: [Float]) {
        let angles = (0..<size.positions * size.pairs).map { index in
            Double(index / size.pairs) * pow(100, -Double(index % size.pairs) / Double(size.pairs))
        }
        return (angles.map { Float(cos($0)) }, angles.map { Float(sin($0)) })
    }

    @Test(
        "Each pair is rotated by its row's position, backwards by the transposed, and nothing else changes",
        arguments: TestDevice.all, RotationSize.all)
    func rotate(device: TestDevice, size: RotationSize) throws {
        let x = randomValues(size.count, seed: 1)
        let (cosines, sines) = tables(size)
        var random = Random(2, "positions")
        let positions = (0..<size.rows).map { _ in Int32(random.next() % UInt64(size.positions)) }
        for layout in RotaryLayout.allCases {
            for inverse in [false, true] {
                var expected = doubles(x)
                var isRotated = [Bool](repeating: false, count: size.count)
                for row in 0..<size.rows {
                    for (i, j, column) in size.pairs(row, layout) {
                        let at = Int(positions[row]) * size.pairs + column
                        let (c, s) = (Double(cosines[at]), Double(sines[at]))
                        func rotated(_ a: Double, _ b: Double) -> (Double, Double) {
                            (a * c - b * s, b * c + a * s)
                        }
                        let (a, b) = (Double(x[i]), Double(x[j]))
                        if inverse {
                            // Of x as the gradient of what `rotated` gives: central differences of their product.
                            func loss(_ p: Double, _ q: Double) -> Double {
                                let y = rotated(p, q)
                                return a * y.0 + b * y.1
                            }
                            expected[i] = (loss(1, 0) - loss(-1, 0)) / 2
                            expected[j] = (loss(0, 1) - loss(0, -1)) / 2
                        } else {
                            (expected[i], expected[j]) = rotated(a, b)
                        }
                        (isRotated[i], isRotated[j]) = (true, true)
                    }
                }
                try device.withBackend { backend in
                    let guarded = GuardedTensors(backend)
                    let what = "rotate \(size), \(layout), inverse \(inverse)"
                    let tensor = try guarded.inOut(x, [size.count], "x")
                    backend.rotate(
                        MatrixBlock(tensor, offset: size.offset, stride: size.stride),
                        positions: try guarded.integers(positions, [size.rows], "positions"),
                        cosines: try guarded.input(cosines, [size.positions, size.pairs], "cosines"),
                        sines: try guarded.input(sines, [size.positions, size.pairs], "sines"),
                        heads: size.heads, headWidth: size.head, layout: layout, inverse: inverse)
                    let values = backend.values(tensor)
                    func part(_ rotated: Bool) -> [Int] { values.indices.filter { isRotated[$0] == rotated } }
                    expectClose(part(true).map { values[$0] }, part(true).map { expected[$0] }, what)
                    expectIdentical(part(false).map { values[$0] }, part(false).map { x[$0] }, what)
                    guarded.expectIntact(what)
                }
            }
        }
    }
}
