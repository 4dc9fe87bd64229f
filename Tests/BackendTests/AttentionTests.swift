import TensorCore
import TestSupport
import Testing

/// The sizes of an attention: B images, T tokens, heads of width h.
struct AttentionSize: Sendable, CustomStringConvertible {
    let images: Int
    let tokens: Int
    let heads: Int
    let headWidth: Int
    var width: Int { heads * headWidth }
    var description: String { "\(images) images, \(tokens) tokens, \(heads)×\(headWidth)" }

    init(_ images: Int, _ tokens: Int, _ heads: Int, _ headWidth: Int) {
        (self.images, self.tokens, self.heads, self.headWidth) = (images, tokens, heads, headWidth)
    }

    static let all = testSizes(
        [
            AttentionSize(1, 2, 1, 3), AttentionSize(2, 17, 3, 31), AttentionSize(1, 63, 2, 32),
            AttentionSize(2, 64, 1, 64), AttentionSize(1, 65, 12, 64), AttentionSize(1, 257, 1, 33),
        ], small: [AttentionSize(1, 2, 1, 3), AttentionSize(2, 5, 2, 4), AttentionSize(1, 17, 1, 9)])
}

@Suite struct AttentionTests {
    @Test(arguments: TestDevice.all, AttentionSize.all)
    func attention(device: TestDevice, size: AttentionSize) throws {
        let (b, t, d) = (size.images, size.tokens, size.width)
        let qkv = randomValues(b * t * 3 * d, seed: 1)
        let dOut = randomValues(b * t * d, seed: 2)
        let matrix = Matrix(b * t, 3 * d, qkv)
        let expected = Reference.attention(matrix, images: b, heads: size.heads)
        let gradient = Reference.attentionBackward(
            Matrix(b * t, d, dOut), matrix, images: b, heads: size.heads)
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let input = try guarded.input(qkv, [b, t, 3 * d], "qkv")
            let out = try guarded.output([b, t, d], "out")
            let square = [b, size.heads, t, t]
            let probabilities = try guarded.output(square, "probabilities")
            backend.attention(out, probabilities, input, heads: size.heads)
            expectClose(backend.values(probabilities), expected.probabilities.values, "attention \(size) P")
            expectClose(backend.values(out), expected.out.values, "attention \(size) out")

            let dqkv = try guarded.output([b, t, 3 * d], "dqkv")
            let p = try guarded.input(backend.values(probabilities), square, "P of the forward")
            backend.attentionBackward(
                dqkv, try guarded.output(square, "dProbabilities"),
                try guarded.input(dOut, [b, t, d], "dOut"),
                input, p, heads: size.heads)
            let values = Matrix(b * t, 3 * d, backend.values(dqkv))
            for (third, name) in ["dq", "dk", "dv"].enumerated() {
                expectClose(
                    values.third(third).map { Float($0) }, gradient.third(third),
                    "attentionBackward \(size) \(name)")
            }
            guarded.expectIntact("attention")
        }
    }

    /// One token attends to itself only: out = v, and q and k have no gradient.
    @Test(arguments: TestDevice.all)
    func oneToken(device: TestDevice) throws {
        let (heads, d) = (2, 6)
        let (qkv, dOut) = (randomValues(3 * d, seed: 1), randomValues(d, seed: 2))
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let input = try guarded.input(qkv, [1, 1, 3 * d], "qkv")
            let (out, dqkv) = (try guarded.output([1, 1, d]), try guarded.output([1, 1, 3 * d]))
            let (p, dp) = (try guarded.output([1, heads, 1, 1]), try guarded.output([1, heads, 1, 1]))
            backend.attention(out, p, input, heads: heads)
            backend.attentionBackward(
                dqkv, dp, try guarded.input(dOut, [1, 1, d], "dOut"), input, p, heads: heads)
            #expect(backend.values(p) == [1, 1] && backend.values(out) == Array(qkv[(2 * d)...]))
            let gradient = backend.values(dqkv)
            #expect(gradient[..<(2 * d)].allSatisfy { abs($0) < 1e-6 } && Array(gradient[(2 * d)...]) == dOut)
            guarded.expectIntact("attention")
        }
    }

    /// Scores of ±1,000 overflow an exponential that isn't taken relative to the row's largest.
    @Test(arguments: TestDevice.all)
    func largeScores(device: TestDevice) throws {
        let (t, d) = (5, 4)
        let qkv = randomValues(t * 3 * d, seed: 3, scale: 30)
        let expected = Reference.attention(Matrix(t, 3 * d, qkv), images: 1, heads: 1)
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let (out, p) = (try guarded.output([1, t, d]), try guarded.output([1, 1, t, t]))
            backend.attention(out, p, try guarded.input(qkv, [1, t, 3 * d]), heads: 1)
            expectClose(backend.values(p), expected.probabilities.values, "P", limit: 1e-8)
            expectClose(backend.values(out), expected.out.values, "out", limit: 1e-8)
        }
    }
}

extension Matrix {
    /// A third of the columns: the gradient of q, k or v.
    fileprivate func third(_ index: Int) -> [Double] {
        let d = columns / 3
        return (0..<rows).flatMap { row in (0..<d).map { self[row, index * d + $0] } }
    }
}
