import Foundation
import TensorCore
import TestSupport
import Testing

@testable import OpenCLBackend

/// The operations on stored tensors of 16 bits, in both layouts of the kernels: from rounded inputs they give what the CPU
/// backend gives in float32 from the same numbers, rounded once. Sums in 16 bits would be off by far more.
@Suite("Operations on stored tensors of 16 bits") struct PrecisionTests {
    // A driver takes up to half a minute to compile the kernels of a layout and a type, so not all pairs are here.
    @Test(
        "With one work-item a group, tensors of 16 bits give what float32 gives, rounded once",
        arguments: TestDevice.onlySmall
            ? [(Precision.float16, 8)] : [(.bfloat16, 16), (.float16, 8)])
    func cpuLayout(precision: Precision, width: Int) throws {
        try everyOperation(KernelLayout(width: width, local: 1), precision)
    }

    @Test("With many work-items a group, tensors of 16 bits give what float32 gives, rounded once")
    func gpuLayout() throws {
        try everyOperation(KernelLayout(width: 4, local: 64), .bfloat16)
    }

    /// bfloat16 as a CPU without anything for it computes.
    @Test("A CPU without anything for bfloat16 computes it right") func withoutEngine() throws {
        try everyOperation(
            KernelLayout(width: TestDevice.onlySmall ? 8 : 16, local: 1), .bfloat16, engines: [])
    }

    @Test("The fastest engine of the host is taken, and one whose products are wrong isn't")
    func onlyRightEngines() throws {
        let layout = KernelLayout(width: 16, local: 1)
        #expect(PrecisionTests.withBrokenEngines != KernelSource.whole)
        let engines = try OneThread.run {
            try OpenCLTests.withDevice { device in
                try [KernelSource.whole, PrecisionTests.withBrokenEngines].map { source in
                    try OpenCLBackend(device: device, layout: layout, precision: .bfloat16, source: source)
                        .engine
                } + [MatrixEngine.of(device).first { $0.takes(.bfloat16, layout) }]
            }
        }
        #expect(engines[0] == engines[2])
        #expect(engines[1] == nil)
    }

    /// The kernels with every engine leaving a part of its products out.
    static let withBrokenEngines = KernelSource.whole.replacingOccurrences(
        of: "DOT(first, 0, factor) DOT(second, 1, factor)", with: "DOT(first, 0, factor)"
    ).replacingOccurrences(of: "TILE_DOT(3, 5, 7)", with: "")

    private func everyOperation(
        _ layout: KernelLayout, _ precision: Precision, engines: [MatrixEngine]? = nil
    ) throws {
        try Recording.expectSame(layout, precision, engines: engines) {
            try betweenLayers($0)
            try tokens($0)
            try linears($0)
            try glora($0)
            try adapters($0)
        }
    }

    private let batch = TestDevice.onlySmall ? 2 : 3
    private let tokenCount = TestDevice.onlySmall ? 5 : 37
    private let heads = 2
    private let head = TestDevice.onlySmall ? 3 : 21

    private func betweenLayers(_ recording: Recording) throws {
        let backend = recording.backend
        let (d, n) = (heads * head, batch * tokenCount)
        let shape = [batch, tokenCount, d]
        let (x, stream) = (try recording.random(shape, mean: 1), try recording.random(shape))
        let (mean, rstd) = (try recording.empty([n]), try recording.empty([n]))
        let (weight, bias) = (try recording.random([d]), try recording.random([d]))
        let y = try recording.emptyStored(shape)
        backend.layerNorm(y, mean, rstd, x, weight, bias, epsilon: 1e-5)
        recording.takeStored("layerNorm", y)
        recording.take("layerNorm's statistics", mean, rstd)
        let (dWeight, dBias) = (try recording.random([d]), try recording.random([d]))
        backend.layerNormBackward(
            stream, dWeight, dBias, try recording.stored(shape), x, mean, rstd, weight, accumulate: true)
        recording.take("layerNormBackward", stream, dWeight, dBias)

        // What a norm reads may be stored too, inside an MLP or attention.
        let (hiddenX, dHiddenX) = (try recording.stored(shape, mean: 1), try recording.stored(shape))
        backend.layerNorm(y, mean, rstd, hiddenX, weight, bias, epsilon: 1e-5)
        recording.takeStored("layerNorm of stored numbers", y)
        recording.take("its statistics", mean, rstd)
        let dNorm = try recording.stored(shape)
        backend.layerNormBackward(
            dHiddenX, dWeight, dBias, dNorm, hiddenX, mean, rstd, weight, accumulate: true)
        recording.takeStored("layerNormBackward of stored numbers", dHiddenX)
        recording.take("its parameters", dWeight, dBias)
        for (x, dx) in [(x, stream), (hiddenX, dHiddenX)] {
            let isStream = x.elementType == .float32 && dx.elementType == .float32
            let name = x.buffer === hiddenX.buffer ? "rmsNorm of stored numbers" : "rmsNorm"
            backend.rmsNorm(y, rstd, x, weight, epsilon: 1e-5)
            recording.takeStored(name, y)
            recording.take("\(name), rstd", rstd)
            backend.rmsNormBackward(dx, dWeight, dNorm, x, rstd, weight, accumulate: true)
            recording.take("\(name), dx", roundings: 2, [dx])
            recording.take("\(name), dWeight", dWeight)
            backend.rmsNormBackward(dx, nil, dNorm, x, rstd, weight, accumulate: false)
            recording.take("\(name), dx alone", roundings: isStream ? 0 : 1, [dx])
        }
        try rotationsAndGates(recording)

        let qkv = try recording.stored([batch, tokenCount, 3 * d])
        for queries in [1, tokenCount] {
            let (out, logs) = (
                try recording.emptyStored([batch, queries, d]), try recording.empty([batch, heads, queries])
            )
            backend.attention(out, logs, qkv, heads: heads)
            recording.takeStored("attention of \(queries)", roundings: 2, out)  // P, and out
            recording.take("attention's logarithms", logs)
            let dqkv = try recording.emptyStored(qkv.shape)
            backend.attentionBackward(
                dqkv, try recording.stored(out.shape), try recording.stored(out.shape), logs, qkv,
                heads: heads)
            recording.takeStored("attentionBackward of \(queries)", roundings: 2, dqkv)  // P or dS, and dqkv
        }

        for queries in [1, tokenCount + 4] {
            let latent = TokenBlock(try recording.stored([queries, d]), stride: d, sampleStride: 0)
            let k = TokenBlock(try recording.stored([batch, tokenCount, 2 * d]))
            var v = k
            v.offset = d
            let (out, logs) = (
                try recording.emptyStored([batch, queries, d]), try recording.empty([batch, heads, queries])
            )
            backend.attention(
                out, logs, queries: latent, keys: k, values: v, tokens: tokenCount, heads: heads)
            recording.takeStored("attention of \(queries) to others", roundings: 2, out)
            recording.take("its logarithms", logs)
            let gradients = [
                try recording.emptyStored(out.shape), try recording.emptyStored([batch, tokenCount, d]),
                try recording.emptyStored([batch, tokenCount, d]),
            ]
            backend.attentionBackward(
                TokenBlock(gradients[0]), TokenBlock(gradients[1]), TokenBlock(gradients[2]),
                try recording.stored(out.shape), try recording.stored(out.shape), logs, queries: latent,
                keys: k, values: v, tokens: tokenCount, heads: heads)
            // P or dS, and the gradient; a single query's dq is a sum in which most of them cancel.
            recording.take("attentionBackward of \(queries) to others", roundings: 4, gradients)
        }

        let (hidden, dHidden) = (try recording.stored(shape), try recording.stored(shape))
        let activated = try recording.emptyStored(shape)
        backend.gelu(activated, hidden)
        recording.takeStored("gelu", activated)
        backend.geluBackward(dHidden, dHidden, hidden)
        recording.takeStored("geluBackward", dHidden)

        let dActivated = try recording.stored(shape)
        for activation in Activation.allCases {
            backend.activate(activated, hidden, activation)
            recording.takeStored("activate \(activation)", activated)
            backend.activateBackward(activated, dActivated, hidden, activation)
            recording.takeStored("activateBackward \(activation)", activated)
        }

        let (branch, scale) = (try recording.stored(shape), try recording.random([batch]))
        for scale in [nil, scale] {
            backend.residualAdd(stream, stream, branch, sampleScale: scale)
            recording.take("residualAdd", stream)
            let dBranch = try recording.emptyStored(shape)
            backend.scaleSamples(dBranch, stream, sampleScale: scale)
            recording.takeStored("scaleSamples", dBranch)
        }
        let sum = try recording.random([d])
        backend.sumRows(sum, branch, accumulate: true)
        recording.take("sumRows", sum)
    }

    private func rotationsAndGates(_ recording: Recording) throws {
        let backend = recording.backend
        let (d, n) = (heads * head, batch * tokenCount)
        let (qkv, y) = (try recording.stored([n, 3 * d]), try recording.emptyStored([n, d]))
        let thirds = (0..<3).map { MatrixBlock(qkv, offset: $0 * d, stride: 3 * d) }
        for activation in Activation.allCases {
            backend.gate(y, thirds[2], thirds[0], activation)
            recording.takeStored("gate \(activation)", y)
            let gradients = try recording.stored([n, 2 * d])
            backend.gateBackward(
                MatrixBlock(gradients, stride: 2 * d), MatrixBlock(gradients, offset: d, stride: 2 * d),
                try recording.stored([n, d]), thirds[2], thirds[0], activation)
            recording.takeStored("gateBackward \(activation)", gradients)
        }
        backend.copyBlock(
            MatrixBlock(y, stride: d), thirds[1], rows: n, columns: d, accumulate: false)
        recording.takeStored("copyBlock", y)
        let positions = try backend.allocate([n], .int32)
        backend.upload(positions, (0..<Int32(n)).map { $0 * 3 % 7 })
        for (third, layout) in RotaryLayout.allCases.enumerated() {
            let tables = (try recording.random([7, head / 2]), try recording.random([7, head / 2]))
            for (inverse, third) in [(false, third), (true, third + 1)] {
                backend.rotate(
                    thirds[third], positions: positions, cosines: tables.0, sines: tables.1, heads: heads,
                    headWidth: head, layout: layout, inverse: inverse)
            }
        }
        // The keys are rotated twice.
        recording.takeStored("rotate", roundings: 2, qkv)
    }

    private func adapters(_ recording: Recording) throws {
        let backend = recording.backend
        let (d, n) = (heads * head, batch * tokenCount)
        let (x, floats) = (try recording.stored([n, d]), try recording.random([n, d]))
        let (same, rounded) = (try recording.emptyStored([n, d]), try recording.emptyStored([n, d]))
        let widened = try recording.empty([n, d])
        backend.copy(same, x)
        backend.copy(rounded, floats)
        backend.copy(widened, x)
        recording.takeStored("copy", roundings: 0, same)
        recording.takeStored("copy, rounded", rounded)
        recording.take("copy, widened", widened)

        let (scale, shift) = (try recording.random([d], mean: 1), try recording.random([d]))
        let y = try recording.emptyStored([n, d])
        backend.scaleShift(y, x, scale, shift)
        backend.scaleShift(same, same, scale, shift)
        recording.takeStored("scaleShift", y, same)
        backend.scaleShift(y, x, scale, nil)
        recording.takeStored("scaleShift without a shift", y)
        let (dScale, dShift) = (try recording.random([d]), try recording.random([d]))
        let (dy, dx) = (try recording.stored([n, d]), try recording.emptyStored([n, d]))
        backend.scaleShiftBackward(dx, dScale, dShift, dy, x, scale)
        backend.scaleShiftBackward(dy, dScale, nil, dy, x, scale)
        recording.takeStored("scaleShiftBackward", dx, dy)
        recording.take("scaleShiftBackward", dScale, dShift)
    }

    /// What a copy between the types and a scale come to, against the same in double, element by element: one rounding is off by
    /// half a unit in the last place, u of the number where that isn't denormal, and by no more.
    @Test(
        "A copy between the types and a scale are off by one rounding and no more",
        arguments: [Precision.bfloat16, .float16])
    func copiesAndScales(precision: Precision) throws {
        let u = precision.roundoff
        for (n, d) in testSizes([(1, 1), (3, 31), (5, 64), (2, 257), (70, 768)], small: [(3, 31)]) {
            let (x, dy) = (
                randomValues(n * d, seed: 1).map(precision.rounded),
                randomValues(n * d, seed: 2).map(precision.rounded)
            )
            let (floats, scale, shift) = (
                randomValues(n * d, seed: 3), randomValues(d, seed: 4, mean: 1), randomValues(d, seed: 5)
            )
            var dScale = doubles(shift)
            var dShift = doubles(scale)
            for i in 0..<n * d {
                dScale[i % d] += Double(dy[i]) * Double(x[i])
                dShift[i % d] += Double(dy[i])
            }
            let found = try TestDevice.withOpenCL(precision) { backend in
                func tensor(_ values: [Float], _ shape: [Int], isStored: Bool) throws -> Tensor {
                    let tensor = try backend.allocate(shape, isStored ? precision.stored : .float32)
                    backend.upload(tensor, values)
                    return tensor
                }
                // In memory that is full of NaNs and larger: what is behind the tensor stays as it is.
                var wholes: [Tensor] = []
                func empty(_ shape: [Int], isStored: Bool) throws -> Tensor {
                    let count = shape.reduce(1, *) + 32
                    let whole = try tensor(Array(repeating: .nan, count: count), [count], isStored: isStored)
                    wholes.append(whole)
                    return whole.leading(shape)
                }
                let stored = try tensor(x, [n, d], isStored: true)
                let (scale, shift) = (
                    try tensor(scale, [d], isStored: false), try tensor(shift, [d], isStored: false)
                )
                let outs = try [true, true, false, true, true].map { try empty([n, d], isStored: $0) }
                backend.copy(outs[0], stored)
                backend.copy(outs[1], try tensor(floats, [n, d], isStored: false))
                backend.copy(outs[2], stored)
                backend.scaleShift(outs[3], stored, scale, shift)
                // The gradients of β and γ are added to what is there.
                let sums = (
                    try tensor(backend.values(shift), [d], isStored: false),
                    try tensor(backend.values(scale), [d], isStored: false)
                )
                backend.scaleShiftBackward(
                    outs[4], sums.0, sums.1, try tensor(dy, [n, d], isStored: true), stored, scale)
                let isIntact = wholes.allSatisfy {
                    backend.values($0).dropFirst(n * d).allSatisfy(\.isNaN)
                }
                return (outs + [sums.0, sums.1]).map(backend.values) + [isIntact ? [] : [0]]
            }
            #expect(found[7].isEmpty, "written behind a tensor of \(n) × \(d)")
            expectIdentical(found[0], x, "copy of \(n) × \(d)")
            expectIdentical(found[1], floats.map(precision.rounded), "copy, rounded, of \(n) × \(d)")
            expectIdentical(found[2], x, "copy, widened, of \(n) × \(d)")
            func isRounded(_ value: Float, _ product: Double, _ term: Double) -> Bool {
                // The product and the sum are rounded to float32 each before the result is to 16 bits.
                let limit = u * abs(product + term) + 0x1p-23 * (abs(product) + abs(term)) + 0x1p-25
                return abs(Double(value) - (product + term)) <= limit
            }
            let wrong = (0..<n * d).filter { i in
                let (s, t) = (Double(scale[i % d]), Double(shift[i % d]))
                return !isRounded(found[3][i], Double(x[i]) * s, t)
                    || !isRounded(found[4][i], Double(dy[i]) * s, 0)
            }
            #expect(wrong.isEmpty, "\(wrong.count) of \(n) × \(d), first \(wrong.first ?? 0)")
            expectClose(found[5], dScale, "dScale of \(n) × \(d)")
            expectClose(found[6], dShift, "dShift of \(n) × \(d)")
        }
    }

    @Test(
        "Rounded copies take the even one of a tie, become infinite when too large, and keep a NaN",
        arguments: [Precision.bfloat16, .float16])
    func copyAtTheEdges(precision: Precision) throws {
        let u = Float(precision.roundoff)
        let edges: [Float] = [
            0, -0.0, 1 + u, 1 + 3 * u, -1 - u, 65504, 65519, 65520, -1e30, .greatestFiniteMagnitude,
            .infinity,
            -.infinity, 6e-8, 3e-8, 2e-8, 1e-5, .leastNonzeroMagnitude, .nan,
        ]
        let found = try TestDevice.withOpenCL(precision) { backend in
            let stored = try backend.allocate([edges.count], precision.stored)
            let wide = try backend.allocate([edges.count], .float32)
            backend.copy(stored, try backend.tensor(HostTensor(shape: [edges.count], values: edges)))
            backend.copy(wide, stored)
            return (backend.values(stored), backend.values(wide))
        }
        let expected = edges.map(precision.rounded)
        for found in [found.0, found.1] {
            #expect(found.last!.isNaN)
            expectIdentical(Array(found.dropLast()), Array(expected.dropLast()), "copy at the edges")
        }
    }

    private func tokens(_ recording: Recording) throws {
        let backend = recording.backend
        let d = heads * head
        let patches = try recording.emptyStored([2, 6, 12])
        backend.extractPatches(patches, try recording.random([2, 3, 6, 4]), patchSize: 2)
        recording.takeStored("extractPatches", patches)
        let projected = try recording.stored([batch, tokenCount - 1, d])
        let (positions, classToken) = (try recording.random([tokenCount, d]), try recording.random([d]))
        let stream = try recording.empty([batch, tokenCount, d])
        backend.embedTokens(stream, projected, classToken, positions)
        recording.take("embedTokens", stream)
        backend.embedTokensBackward(projected, classToken, positions, stream)
        recording.takeStored("embedTokensBackward", projected)
        recording.take("embedTokensBackward", classToken, positions)
        let others = try recording.stored(projected.shape)
        backend.embedTokens(stream, others, classToken, nil)
        recording.take("embedTokens without positions", stream)
        backend.embedTokensBackward(others, nil, nil, stream)
        recording.takeStored("embedTokensBackward of what is frozen", others)
        let (normed, pooled) = (try recording.stored(stream.shape), try recording.empty([batch, d]))
        backend.poolTokens(pooled, normed, range: 1..<tokenCount)
        recording.take("poolTokens", pooled)
        backend.poolTokensBackward(normed, pooled, range: 1..<tokenCount)
        recording.takeStored("poolTokensBackward", normed)
    }

    /// Products off every tile, with each epilogue, from W₀ and from a W that is built.
    private func linears(_ recording: Recording) throws {
        let backend = recording.backend
        for (rows, inputs, outputs) in testSizes(
            [(9, 1, 17), (53, 42, 85), (13, 130, 33), (25, 1030, 7), (131, 1101, 70)], small: [(7, 5, 9)])
        {
            let what = "[\(rows), \(inputs)] to \(outputs)"
            let (x, frozen) = (
                try recording.stored([rows, inputs]), try recording.stored([outputs, inputs])
            )
            let (bias, t) = (try recording.random([outputs]), try recording.random([rows, 3]))
            func outs() throws -> [Tensor] {
                try (0..<3).map { _ in try recording.emptyStored([rows, outputs]) }
            }
            let plain = try outs()
            backend.linear(plain[0], x, LinearWeight(frozen), Epilogue(bias: bias))
            recording.takeStored("linear \(what)", roundings: 2, plain[0])
            var epilogue = Epilogue(bias: bias)
            epilogue.a = try recording.term(.vector, outputs, inputs)
            epilogue.b = try recording.term(.lowRank(3), outputs, inputs)
            epilogue.t = t
            (epilogue.preActivation, epilogue.activated) = (plain[1], plain[2])
            backend.linear(plain[0], x, LinearWeight(frozen), epilogue)
            // Elsewhere than in registers, y is made of a product that was rounded.
            recording.takeStored("linear's product \(what)", plain[1])
            recording.takeStored("linear with an epilogue \(what)", roundings: 3, plain[0], plain[2])
            backend.finish(
                plain[0], try recording.stored([rows, outputs]),
                {
                    var rest = epilogue
                    rest.preActivation = nil
                    return rest
                }())
            recording.takeStored("finish \(what)", roundings: 2, plain[0], plain[2])

            let scratch = try recording.empty([outputs, inputs])
            let built = LinearWeight(
                frozen, a: try recording.term(.lowRank(2), outputs, inputs),
                b: try recording.term(.vector, outputs, inputs), scratch: scratch)
            for (name, weight) in [("built", built), ("prepared", try backend.prepared(built))] {
                let y = try recording.emptyStored([rows, outputs])
                backend.linear(y, x, weight, Epilogue(bias: bias))
                recording.takeStored("linear, \(name), \(what)", roundings: 3, y)
            }
            let (dy, dx) = (
                try recording.stored([rows, outputs]), try recording.emptyStored([rows, inputs])
            )
            for (name, weight) in [("frozen", LinearWeight(frozen)), ("built", built)] {
                backend.linearBackward(dx, dy, weight)
                recording.takeStored("linearBackward, \(name), \(what)", roundings: 3, dx)
            }
        }
    }

    private func glora(_ recording: Recording) throws {
        let backend = recording.backend
        let (rows, inputs, outputs) = TestDevice.onlySmall ? (7, 5, 9) : (53, 42, 85)
        let (x, dy, z) = (
            try recording.stored([rows, inputs]), try recording.stored([rows, outputs]),
            try recording.stored([rows, outputs])
        )
        let frozen = try recording.stored([outputs, inputs])
        for (formA, formB) in [
            (MatrixForm.lowRank(3), MatrixForm.constant), (.vector, .lowRank(2)), (.constant, .vector),
        ] {
            let what = "\(formA) \(formB)"
            let (a, b) = (
                try recording.term(formA, outputs, inputs), try recording.term(formB, outputs, inputs)
            )
            let weight = try recording.emptyStored([outputs, inputs])
            backend.gloraWeight(weight, frozen, a, b)
            recording.takeStored("gloraWeight \(what)", weight)
            backend.gloraWeightBackward(a, b, try recording.empty([outputs, inputs]), dy, x, frozen)
            // In the layout of GPUs dW is stored before it is contracted, and a constant's sum of it nearly cancels.
            let roundings = formA == .constant || formB == .constant ? 400 : 20
            for gradient in [a.down.gradient!, a.up.gradient!, b.down.gradient!, b.up.gradient!] {
                recording.take("gloraWeightBackward \(what)", roundings: roundings, [gradient])
            }
            let t = try recording.empty([rows, formB.columnCount])
            backend.gloraProject(t, x, b)
            recording.take("gloraProject \(what)", t)
            let dBias = try recording.empty([outputs])
            if case .lowRank = formA {
                backend.gloraOutputBackward(dBias, nil, b, dy, nil, t)
            } else {
                backend.gloraOutputBackward(dBias, a, b, dy, z, t)
            }
            recording.take("gloraOutputBackward \(what)", dBias)
            // These have gloraWeightBackward's in them.
            recording.take(
                "gloraOutputBackward's gradients \(what)", roundings: roundings,
                [a.down.gradient!, b.down.gradient!])
            backend.gloraProjectBackward(t, b, dy, x)
            recording.take("gloraProjectBackward \(what)", t)
            recording.take("gloraProjectBackward's gradient \(what)", roundings: roundings, [b.up.gradient!])
        }
        let (c, scale, shift) = (
            PromptTerm(
                form: .lowRank(2), down: try recording.parameter([inputs, 3]),
                up: try recording.parameter([3, 1])),
            ScaleTerm(form: .vector, values: try recording.parameter([outputs])),
            ScaleTerm(form: .constant, values: try recording.parameter([outputs]))
        )
        let (bias, prompt, frozenBias) = (
            try recording.empty([outputs]), try recording.empty([inputs]), try recording.random([outputs])
        )
        backend.gloraBias(bias, prompt, frozen, frozenBias, c, scale, shift)
        recording.take("gloraBias", bias)
        backend.gloraBiasBackward(
            c, scale, shift, prompt, try recording.random([outputs]), frozen, frozenBias)
        recording.take(
            "gloraBiasBackward", c.down.gradient!, c.up.gradient!, scale.values.gradient!,
            shift.values.gradient!)
    }
}
