import TensorCore
import TestSupport
import Testing

/// Token sequences: B images, N patches, width D.
struct TokenSize: Sendable, CustomStringConvertible {
    let images: Int
    let patches: Int
    let width: Int
    var description: String { "\(images)×\(patches)×\(width)" }

    init(_ images: Int, _ patches: Int, _ width: Int) {
        (self.images, self.patches, self.width) = (images, patches, width)
    }

    static let all = testSizes(
        [
            TokenSize(1, 1, 1), TokenSize(3, 16, 31), TokenSize(2, 63, 64), TokenSize(65, 4, 65),
            TokenSize(1, 256, 63),
            TokenSize(2, 9, 768),
        ], small: [TokenSize(1, 1, 1), TokenSize(3, 4, 5), TokenSize(2, 9, 33)])
}

@Suite("Images to patches, tokens and a pooled vector") struct TokenTests {
    @Test(
        "Images are cut into patches in raster order, each flattened by channel, row and column",
        arguments: TestDevice.all,
        testSizes(
            [
                ([1, 1, 1, 1], 1), ([2, 3, 32, 32], 8), ([3, 1, 6, 9], 3), ([1, 3, 64, 32], 16),
                ([2, 2, 7, 5], 1),
            ],
            small: [([1, 1, 1, 1], 1), ([2, 3, 8, 12], 4)]))
    func extractPatches(device: TestDevice, images: (shape: [Int], patchSize: Int)) throws {
        let (shape, p) = images
        let values = randomValues(shape.reduce(1, *), seed: 1)
        let expected = Reference.extractPatches(doubles(values), shape: shape, patchSize: p)
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let patches = try guarded.output(
                [shape[0], shape[2] / p * (shape[3] / p), shape[1] * p * p], "patches")
            backend.extractPatches(patches, try guarded.input(values, shape, "images"), patchSize: p)
            expectIdentical(
                backend.values(patches), expected.map { Float($0) }, "extractPatches \(shape) by \(p)")
            guarded.expectIntact("extractPatches")
        }
    }

    /// What positions are of.
    enum Positions: CaseIterable { case all, patches, none }

    @Test(
        "Tokens are a prefix and patches with positions of all, of the patches or none, and the gradients sum over the batch",
        arguments: TestDevice.all, TokenSize.all)
    func embedTokens(device: TestDevice, size: TokenSize) throws {
        for prefixCount in [0, 1, 5] {
            for positions in Positions.allCases { try embed(device, size, prefixCount, positions) }
        }
    }

    private func embed(
        _ device: TestDevice, _ size: TokenSize, _ p: Int, _ kind: Positions
    ) throws {
        let (b, n, d) = (size.images, size.patches, size.width)
        let t = p + n
        let positioned = kind == .patches ? p : 0
        let positionCount = kind == .none ? 0 : (t - positioned) * d
        let projected = randomValues(b * n * d, seed: 1)
        let (prefix, positions) = (randomValues(p * d, seed: 2), randomValues(positionCount, seed: 3))
        let dTokens = randomValues(b * t * d, seed: 4)
        let (dPrefix0, dPositions0) = (randomValues(p * d, seed: 5), randomValues(positionCount, seed: 6))
        var (expected, dProjected): ([Double], [Float]) = ([], [])
        var (dPrefix, dPositions) = (doubles(dPrefix0), doubles(dPositions0))
        for image in 0..<b {
            for token in 0..<t {
                for i in 0..<d {
                    let gradient = dTokens[(image * t + token) * d + i]
                    var value: Float
                    if token < p {
                        value = prefix[token * d + i]
                        dPrefix[token * d + i] += Double(gradient)
                    } else {
                        value = projected[(image * n + token - p) * d + i]
                        dProjected.append(gradient)
                    }
                    if kind != .none, token >= positioned {
                        value += positions[(token - positioned) * d + i]
                        dPositions[(token - positioned) * d + i] += Double(gradient)
                    }
                    expected.append(Double(value))
                }
            }
        }
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let what = "embedTokens \(size), prefix \(p), positions of \(kind)"
            let shape = [t - positioned, d]
            let tokens = try guarded.output([b, t, d], "tokens")
            backend.embedTokens(
                tokens, try guarded.input(projected, [b, n, d], "projected"),
                p > 0 ? try guarded.input(prefix, [p, d], "prefix") : nil,
                kind == .none ? nil : try guarded.input(positions, shape, "positions"))
            expectIdentical(backend.values(tokens), expected.map { Float($0) }, what)

            let gradient = try guarded.input(dTokens, [b, t, d], "dTokens")
            for isFrozen in [false, true] {
                let dx = try guarded.output([b, n, d], "dProjected")
                let dp = p > 0 && !isFrozen ? try guarded.inOut(dPrefix0, [p, d], "dPrefix") : nil
                let dPos =
                    kind == .none || isFrozen ? nil : try guarded.inOut(dPositions0, shape, "dPositions")
                backend.embedTokensBackward(dx, dp, dPos, gradient)
                expectIdentical(backend.values(dx), dProjected, "\(what), dProjected")
                if let dPos { expectClose(backend.values(dPos), dPositions, "\(what), dPositions") }
                if let dp { expectClose(backend.values(dp), dPrefix, "\(what), dPrefix") }
            }
            guarded.expectIntact(what)
        }
    }

    @Test(
        "Tokens of a range are averaged, and the gradient is zero outside it", arguments: TestDevice.all,
        TokenSize.all)
    func poolTokens(device: TestDevice, size: TokenSize) throws {
        let (b, t, d) = (size.images, size.patches, size.width)
        let (tokens, dOut) = (randomValues(b * t * d, seed: 1), randomValues(b * d, seed: 2))
        for range in [0..<1, 0..<t, t / 2..<t] {
            let share = 1 / Double(range.count)
            var expected = [Double](repeating: 0, count: b * d)
            var gradient = [Double](repeating: 0, count: b * t * d)
            for image in 0..<b {
                for token in range {
                    for i in 0..<d {
                        let index = (image * t + token) * d + i
                        expected[image * d + i] += Double(tokens[index]) * share
                        gradient[index] = Double(dOut[image * d + i]) * share
                    }
                }
            }
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let out = try guarded.output([b, d], "out")
                backend.poolTokens(out, try guarded.input(tokens, [b, t, d], "tokens"), range: range)
                expectClose(backend.values(out), expected, "poolTokens \(size) in \(range)")
                let dTokens = try guarded.output([b, t, d], "dTokens")
                backend.poolTokensBackward(dTokens, try guarded.input(dOut, [b, d], "dOut"), range: range)
                expectClose(backend.values(dTokens), gradient, "poolTokensBackward \(size) in \(range)")
                guarded.expectIntact("poolTokens")
            }
        }
    }
}
