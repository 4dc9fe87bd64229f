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

    /// Q: one token is a query, some are, all are.
    var queryCounts: [Int] { Set([1, (tokens + 1) / 2, tokens]).sorted() }

    static let all = testSizes(
        [
            AttentionSize(1, 2, 1, 3), AttentionSize(2, 17, 3, 31), AttentionSize(1, 63, 2, 32),
            AttentionSize(2, 64, 1, 64), AttentionSize(1, 65, 12, 64), AttentionSize(1, 257, 1, 33),
            AttentionSize(1, 197, 2, 16),
        ], small: [AttentionSize(1, 2, 1, 3), AttentionSize(2, 5, 2, 4), AttentionSize(1, 17, 1, 9)])
}

/// The sizes of an attention to other tokens: Q queries to T keys and values.
struct OtherAttentionSize: Sendable, CustomStringConvertible {
    let images, queries, tokens, heads, headWidth: Int
    var width: Int { heads * headWidth }
    var description: String {
        "\(images) images, \(queries) queries to \(tokens) tokens, \(heads)×\(headWidth)"
    }

    init(_ images: Int, _ queries: Int, _ tokens: Int, _ heads: Int, _ headWidth: Int) {
        (self.images, self.queries, self.tokens) = (images, queries, tokens)
        (self.heads, self.headWidth) = (heads, headWidth)
    }

    /// Fewer queries than tokens and more; one latent query, as attention pooling has.
    static let all = testSizes(
        [
            OtherAttentionSize(1, 3, 2, 1, 3), OtherAttentionSize(3, 1, 197, 2, 64),
            OtherAttentionSize(2, 65, 17, 3, 31), OtherAttentionSize(2, 16, 257, 1, 33),
        ], small: [OtherAttentionSize(2, 1, 5, 2, 4), OtherAttentionSize(2, 9, 2, 1, 5)])
}

@Suite("Attention and its backward") struct AttentionTests {
    @Test(
        "Attention of all or the first tokens and its gradients are those in double",
        arguments: TestDevice.all, AttentionSize.all)
    func attention(device: TestDevice, size: AttentionSize) throws {
        for queries in size.queryCounts { try check(device, size, queries) }
    }

    private func check(_ device: TestDevice, _ size: AttentionSize, _ queries: Int) throws {
        let (b, t, d) = (size.images, size.tokens, size.width)
        let qkv = randomValues(b * t * 3 * d, seed: 1)
        let dOut = randomValues(b * queries * d, seed: 2)
        let matrix = Matrix(b * t, 3 * d, qkv)
        let expected = Reference.attention(matrix, images: b, heads: size.heads, queries: queries)
        let gradient = Reference.attentionBackward(
            Matrix(b * queries, d, dOut), matrix, images: b, heads: size.heads, queries: queries)
        let what = "\(size), \(queries) ask"
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let input = try guarded.input(qkv, [b, t, 3 * d], "qkv")
            let out = try guarded.output([b, queries, d], "out")
            let logSumExp = try guarded.output([b, size.heads, queries], "logSumExp")
            backend.attention(out, logSumExp, input, heads: size.heads)
            expectClose(backend.values(logSumExp), expected.logSumExp, "attention \(what) logSumExp")
            expectClose(backend.values(out), expected.out.values, "attention \(what) out")

            let dqkv = try guarded.output([b, t, 3 * d], "dqkv")
            backend.attentionBackward(
                dqkv, try guarded.input(dOut, [b, queries, d], "dOut"),
                try guarded.input(backend.values(out), [b, queries, d], "out of the forward"),
                try guarded.input(backend.values(logSumExp), [b, size.heads, queries], "its logSumExp"),
                input, heads: size.heads)
            let values = Matrix(b * t, 3 * d, backend.values(dqkv))
            for (third, name) in ["dq", "dk", "dv"].enumerated() {
                expectClose(
                    values.third(third).map { Float($0) }, gradient.third(third),
                    "attentionBackward \(what) \(name)")
            }
            for image in 0..<b {
                for token in queries..<t {
                    let dq = (0..<d).map { values[image * t + token, $0] }
                    #expect(dq.allSatisfy { $0 == 0 }, "dq of token \(token), \(what)")
                }
            }
            guarded.expectIntact("attention")
        }
    }

    /// q apart, in rows with something between them; k and v halves of one tensor; dk and dv one behind the other.
    @Test(
        "Attention to other tokens, by queries of each sample's own or shared, and its gradients are those in double",
        arguments: TestDevice.all, OtherAttentionSize.all)
    func attentionToOthers(device: TestDevice, size: OtherAttentionSize) throws {
        let (b, q, t, heads, d) = (size.images, size.queries, size.tokens, size.heads, size.width)
        let (gap, d2) = (3, 2 * d)
        for isShared in [false, true] {
            let rows = isShared ? q : b * q
            let queries = randomValues(rows * d, seed: 1)
            let (k, v, dOut) = (
                randomValues(b * t * d, seed: 2), randomValues(b * t * d, seed: 3),
                randomValues(b * q * d, seed: 4)
            )
            let allQueries = isShared ? (0..<b).flatMap { _ in queries } : queries
            let matrices = (Matrix(b * q, d, allQueries), Matrix(b * t, d, k), Matrix(b * t, d, v))
            let expected = Reference.attention(
                q: matrices.0, k: matrices.1, v: matrices.2, images: b, heads: heads)
            let gradients = Reference.attentionBackward(
                Matrix(b * q, d, dOut), q: matrices.0, k: matrices.1, v: matrices.2, images: b, heads: heads)
            var spread = [Float](repeating: .nan, count: rows * (d + gap))
            for i in queries.indices { spread[i / d * (d + gap) + i % d] = queries[i] }
            let packed = besides(k, v, columns: d)
            let what = "\(size), shared \(isShared)"
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let tq = TokenBlock(
                    try guarded.input(spread, [rows, d + gap], "queries"), stride: d + gap,
                    sampleStride: isShared ? 0 : q * (d + gap))
                var tk = TokenBlock(try guarded.input(packed, [b, t, d2], "keys and values"))
                var tv = tk
                (tk.offset, tv.offset) = (0, d)
                let out = try guarded.output([b, q, d], "out")
                let logSumExp = try guarded.output([b, heads, q], "logSumExp")
                backend.attention(
                    out, logSumExp, queries: tq, keys: tk, values: tv, tokens: t, heads: heads)
                expectClose(backend.values(logSumExp), expected.logSumExp, "attention \(what) logSumExp")
                expectClose(backend.values(out), expected.out.values, "attention \(what) out")

                let dq = try guarded.inOut(
                    [Float](repeating: 7, count: b * q * (d + gap)), [b * q, d + gap], "dq")
                let dkv = try guarded.output([2, b, t, d], "dk and dv")
                var dk = TokenBlock(dkv, stride: d, sampleStride: t * d)
                let first = dk
                dk.offset = b * t * d
                backend.attentionBackward(
                    TokenBlock(dq, stride: d + gap, sampleStride: q * (d + gap)), first, dk,
                    try guarded.input(dOut, [b, q, d], "dOut"), out, logSumExp, queries: tq, keys: tk,
                    values: tv, tokens: t, heads: heads)
                let found = Matrix(b * q, d + gap, backend.values(dq))
                expectClose(
                    found.prefix(columns: d).values.map { Float($0) }, gradients[0].values,
                    "attentionBackward \(what) dq")
                #expect(
                    (0..<b * q).allSatisfy { row in (d..<d + gap).allSatisfy { found[row, $0] == 7 } },
                    "attentionBackward \(what) wrote between the rows of dq")
                let halves = backend.values(dkv)
                expectClose(
                    Array(halves[..<(b * t * d)]), gradients[1].values, "attentionBackward \(what) dk")
                expectClose(
                    Array(halves[(b * t * d)...]), gradients[2].values, "attentionBackward \(what) dv")
                guarded.expectIntact("attention \(what)")
            }
        }
    }

    @Test(
        "One token attends to itself alone: out is v, and q and k have no gradient", arguments: TestDevice.all
    )
    func oneToken(device: TestDevice) throws {
        let (heads, d) = (2, 6)
        let (qkv, dOut) = (randomValues(3 * d, seed: 1), randomValues(d, seed: 2))
        let scores = Reference.attention(Matrix(1, 3 * d, qkv), images: 1, heads: heads, queries: 1).logSumExp
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let input = try guarded.input(qkv, [1, 1, 3 * d], "qkv")
            let (out, dqkv) = (try guarded.output([1, 1, d]), try guarded.output([1, 1, 3 * d]))
            let logSumExp = try guarded.output([1, heads, 1])
            backend.attention(out, logSumExp, input, heads: heads)
            backend.attentionBackward(
                dqkv, try guarded.input(dOut, [1, 1, d], "dOut"), out, logSumExp, input, heads: heads)
            expectClose(backend.values(logSumExp), scores, "logSumExp")
            expectClose(backend.values(out), doubles(Array(qkv[(2 * d)...])), "out")
            let gradient = backend.values(dqkv)
            #expect(gradient[..<(2 * d)].allSatisfy { abs($0) < 1e-5 })
            expectClose(Array(gradient[(2 * d)...]), doubles(dOut), "dv")
            guarded.expectIntact("attention")
        }
    }

    /// Scores of ±1,000 overflow an exponential that isn't taken relative to the row's largest.
    @Test("Scores of ±1,000 don't overflow", arguments: TestDevice.all)
    func largeScores(device: TestDevice) throws {
        let (t, d) = (5, 4)
        let qkv = randomValues(t * 3 * d, seed: 3, scale: 30)
        let expected = Reference.attention(Matrix(t, 3 * d, qkv), images: 1, heads: 1, queries: t)
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let (out, logSumExp) = (try guarded.output([1, t, d]), try guarded.output([1, 1, t]))
            backend.attention(out, logSumExp, try guarded.input(qkv, [1, t, 3 * d]), heads: 1)
            expectClose(backend.values(logSumExp), expected.logSumExp, "logSumExp", limit: 1e-8)
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
