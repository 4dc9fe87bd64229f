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

    @Test(
        "Tokens are positions plus patches behind a class token, or without one, and the gradients sum over the batch",
        arguments: TestDevice.all, TokenSize.all)
    func embedTokens(device: TestDevice, size: TokenSize) throws {
        let (b, n, d) = (size.images, size.patches, size.width)
        for hasClassToken in [true, false] {
            let t = n + (hasClassToken ? 1 : 0)
            let projected = randomValues(b * n * d, seed: 1)
            let (classToken, positions) = (randomValues(d, seed: 2), randomValues(t * d, seed: 3))
            let dTokens = randomValues(b * t * d, seed: 4)
            let (dClass0, dPositions0) = (randomValues(d, seed: 5), randomValues(t * d, seed: 6))
            var expected: [Double] = []
            var (dClass, dPositions) = (doubles(dClass0), doubles(dPositions0))
            var dProjected: [Float] = []
            for image in 0..<b {
                for token in 0..<t {
                    for i in 0..<d {
                        let isClass = hasClassToken && token == 0
                        let patch = (image * n + token - t + n) * d + i
                        expected.append(
                            Double(positions[token * d + i])
                                + Double(isClass ? classToken[i] : projected[patch]))
                        let gradient = dTokens[(image * t + token) * d + i]
                        dPositions[token * d + i] += Double(gradient)
                        if isClass { dClass[i] += Double(gradient) } else { dProjected.append(gradient) }
                    }
                }
            }
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                let what = "embedTokens \(size), class token \(hasClassToken)"
                let tokens = try guarded.output([b, t, d], "tokens")
                backend.embedTokens(
                    tokens, try guarded.input(projected, [b, n, d], "projected"),
                    hasClassToken ? try guarded.input(classToken, [d], "class token") : nil,
                    try guarded.input(positions, [t, d], "positions"))
                expectClose(backend.values(tokens), expected, what)

                let dx = try guarded.output([b, n, d], "dProjected")
                let dc = hasClassToken ? try guarded.inOut(dClass0, [d], "dClassToken") : nil
                let dp = try guarded.inOut(dPositions0, [t, d], "dPositions")
                backend.embedTokensBackward(dx, dc, dp, try guarded.input(dTokens, [b, t, d], "dTokens"))
                expectIdentical(backend.values(dx), dProjected, "\(what), dProjected")
                expectClose(backend.values(dp), dPositions, "\(what), dPositions")
                if let dc { expectClose(backend.values(dc), dClass, "\(what), dClassToken") }
                guarded.expectIntact(what)
            }
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
