import TensorCore
import TestSupport
import Testing

@testable import OpenCLBackend

/// Every operation in every layout of the kernels: a machine with only a CPU device runs what GPUs will run,
/// and the other way round. The CPU backend, which the other suites compare with doubles, gives the expected
/// values.
@Suite("Every operation in every layout of the kernels") struct OpenCLLayoutTests {
    // Oclgrind runs the three tests in processes of their own: with two programs in one context its
    // --uninitialized gives false alarms. It does so for 16 lanes too, since it takes a shuffle's twelfth
    // lane for an undefined one.

    @Test(
        "With one work-item a group, as on CPU devices, every operation gives what the CPU backend gives",
        arguments: TestDevice.onlySmall ? [8] : [16, 8, 4])
    func cpuLayout(width: Int) throws { try everyOperation(KernelLayout(width: width, local: 1)) }

    @Test("With 64 work-items a group, as on GPUs, every operation gives what the CPU backend gives")
    func gpuLayout() throws { try everyOperation(KernelLayout(width: 4, local: 64)) }

    @Test(
        "With fewer, as on GPUs whose drivers can't run all kernels with 64, every operation gives what the CPU backend gives",
        arguments: TestDevice.onlySmall ? [8] : [32, 8])
    func smallGroups(local: Int) throws { try everyOperation(KernelLayout(width: 4, local: local)) }

    private func everyOperation(_ layout: KernelLayout) throws {
        try Recording.expectSame(layout) { try everyOperation($0) }
    }

    /// What each operation writes, from the same inputs, in sizes that are no multiples of anything.
    private func everyOperation(_ recording: Recording) throws {
        let backend = recording.backend
        let (batch, tokens, heads, head) = TestDevice.onlySmall ? (2, 5, 2, 3) : (3, 37, 2, 21)
        let (d, n) = (heads * head, batch * tokens)
        let (x, dy, weight, bias) = (
            try recording.random([batch, tokens, d], mean: 1), try recording.random([batch, tokens, d]),
            try recording.random([d]),
            try recording.random([d])
        )
        let (y, mean, rstd) = (
            try recording.empty([batch, tokens, d]), try recording.empty([n]), try recording.empty([n])
        )
        backend.layerNorm(y, mean, rstd, x, weight, bias, epsilon: 1e-5)
        recording.take("layerNorm", y, mean, rstd)
        let (dx, dWeight, dBias) = (
            try recording.random([batch, tokens, d]), try recording.random([d]), try recording.random([d])
        )
        backend.layerNormBackward(dx, dWeight, dBias, dy, x, mean, rstd, weight, accumulate: true)
        recording.take("layerNormBackward", dx, dWeight, dBias)

        backend.rmsNorm(y, rstd, x, weight, epsilon: 1e-5)
        recording.take("rmsNorm", y, rstd)
        backend.rmsNormBackward(dx, dWeight, dy, x, rstd, weight, accumulate: true)
        recording.take("rmsNormBackward", dx, dWeight)
        try rotationsAndGates(recording, tokens: n, heads: heads, head: head)

        let qkv = try recording.random([batch, tokens, 3 * d])
        let dqkv = try recording.empty([batch, tokens, 3 * d])
        for queries in [1, tokens / 2, tokens] {
            let (out, logSumExp) = (
                try recording.empty([batch, queries, d]), try recording.empty([batch, heads, queries])
            )
            backend.attention(out, logSumExp, qkv, heads: heads)
            recording.take("attention of \(queries)", out, logSumExp)
            backend.fill(dqkv, .nan)
            backend.attentionBackward(
                dqkv, try recording.random([batch, queries, d]), out, logSumExp, qkv, heads: heads)
            recording.take("attentionBackward of \(queries)", dqkv)
        }

        try attentionToOthers(recording)

        backend.gelu(y, x)
        recording.take("gelu", y)
        backend.geluBackward(dx, dy, x)
        recording.take("geluBackward", dx)
        let scale = try recording.random([batch])
        backend.residualAdd(y, x, dy, sampleScale: scale)
        recording.take("residualAdd", y)
        backend.scaleSamples(y, x, sampleScale: scale)
        backend.addRow(y, bias)
        let sum = try recording.random([d])
        backend.sumRows(sum, y, accumulate: true)
        recording.take("scaleSamples, addRow, sumRows", y, sum)
        let (wide, product) = (try recording.random([2 * d, d]), try recording.empty([n, 2 * d]))
        backend.linear(product, x, wide, nil)
        recording.take("linear", product)
        backend.matmul(
            dqkv.reshaped([3 * n, d]), try recording.random([tokens, 3 * n]),
            try recording.random([tokens, d]),
            transposeA: true, transposeB: false, accumulate: true)
        recording.take("matmul", dqkv)

        let images = try recording.random([2, 3, 6, 4])
        let patches = try recording.empty([2, 6, 12])
        backend.extractPatches(patches, images, patchSize: 2)
        recording.take("extractPatches", patches)
        let projected = try recording.random([batch, tokens - 1, d])
        let (positions, classToken) = (try recording.random([tokens, d]), try recording.random([d]))
        backend.embedTokens(y, projected, classToken, positions)
        recording.take("embedTokens", y)
        backend.embedTokensBackward(projected, classToken, positions, dy)
        recording.take("embedTokensBackward", projected, classToken, positions)
        let (prefix, rest) = (try recording.random([3, d]), try recording.random([batch, tokens - 3, d]))
        let patchPositions = try recording.random([tokens - 3, d])
        backend.embedTokens(y, rest, prefix, patchPositions)
        recording.take("embedTokens of a prefix", y)
        backend.embedTokensBackward(rest, prefix, patchPositions, dy)
        recording.take("embedTokensBackward of a prefix", rest, prefix, patchPositions)
        let pooled = try recording.empty([batch, d])
        backend.poolTokens(pooled, x, range: 1..<tokens)
        recording.take("poolTokens", pooled)
        backend.poolTokensBackward(dx, pooled, range: 1..<tokens)
        recording.take("poolTokensBackward", dx)

        let labels = try backend.allocate([batch], .int32)
        backend.upload(labels, (0..<Int32(batch)).map { $0 * 2 })
        let (losses, logits, dLogits) = (
            try recording.empty([batch]), try recording.random([batch, d]), try recording.empty([batch, d])
        )
        backend.softmaxCrossEntropy(losses, dLogits, logits, labels)
        recording.take("softmaxCrossEntropy", losses, dLogits)
        let targets = try recording.random([batch, d])
        for kind in TargetLoss.allCases {
            backend.targetLoss(
                losses, dLogits, logits, targets,
                weights: kind == .sigmoid ? try recording.random([d], mean: 2) : nil, kind)
            recording.take("targetLoss \(kind)", losses, dLogits)
        }
        let blocks = try backend.allocate([3], .int32)
        backend.upload(blocks, [1, 0, 1] as [Int32])
        let segments = try backend.tensor(HostTensor(shape: [2, 4], values: [0, 1, 1, 1, 1, 10, 31, 1]))
        let state = try (0..<4).map { _ in try recording.random([3 * viewAlignment]) }
        backend.gelu(state[2], state[2])
        backend.residualAdd(
            state[2], state[2], try recording.random([3 * viewAlignment], mean: 9), sampleScale: nil)
        backend.adamW(
            state[0], state[1], state[2], state[3], blocks, segments,
            AdamWSettings(learningRate: 1e-2, weightDecay: 0.1))
        recording.take("adamW", state[0], state[1], state[2])
        backend.sgd(
            state[0], state[1], state[3], blocks, segments, SGDSettings(learningRate: 0.1, weightDecay: 0.1))
        recording.take("sgd", state[0], state[1])
        backend.lion(
            state[0], state[1], state[3], blocks, segments, LionSettings(learningRate: 0.1, weightDecay: 0.1))
        recording.take("lion", state[0], state[1])
        try adapters(recording, x, dy)
        try glora(recording, d)
    }

    /// A latent query that all samples share, and more queries than tokens.
    private func attentionToOthers(_ recording: Recording) throws {
        let backend = recording.backend
        let (batch, tokens, heads, head) = TestDevice.onlySmall ? (2, 5, 2, 3) : (3, 37, 2, 21)
        let d = heads * head
        for queries in [1, tokens + 4] {
            let latent = TokenBlock(try recording.random([queries, d]), stride: d, sampleStride: 0)
            let k = TokenBlock(try recording.random([batch, tokens, 2 * d]))
            var v = k
            v.offset = d
            let (out, logs) = (
                try recording.empty([batch, queries, d]), try recording.empty([batch, heads, queries])
            )
            backend.attention(out, logs, queries: latent, keys: k, values: v, tokens: tokens, heads: heads)
            recording.take("attention of \(queries) to others", out, logs)
            let (dq, dk, dv) = (
                try recording.empty([batch, queries, d]), try recording.empty([batch, tokens, d]),
                try recording.empty([batch, tokens, d])
            )
            backend.attentionBackward(
                TokenBlock(dq), TokenBlock(dk), TokenBlock(dv),
                try recording.random([batch, queries, d]), out, logs, queries: latent, keys: k, values: v,
                tokens: tokens, heads: heads)
            recording.take("attentionBackward of \(queries) to others", dq, dk, dv)
        }
    }

    /// Keys of a fused [n, 3·D] rotated by both layouts, and gates of two of its thirds.
    private func rotationsAndGates(
        _ recording: Recording, tokens n: Int, heads: Int, head: Int
    ) throws {
        let (backend, d) = (recording.backend, heads * head)
        let (qkv, y) = (try recording.random([n, 3 * d]), try recording.empty([n, d]))
        let thirds = (0..<3).map { MatrixBlock(qkv, offset: $0 * d, stride: 3 * d) }
        let positions = try backend.allocate([n], .int32)
        backend.upload(positions, (0..<Int32(n)).map { $0 * 3 % 7 })
        for (layout, pairs) in [(RotaryLayout.halves, head / 2), (.interleaved, head / 3)] {
            let (cosines, sines) = (try recording.random([7, pairs]), try recording.random([7, pairs]))
            for inverse in [false, true] {
                backend.rotate(
                    thirds[1], positions: positions, cosines: cosines, sines: sines, heads: heads,
                    headWidth: head, layout: layout, inverse: inverse)
                recording.take("rotate \(layout), inverse \(inverse)", qkv)
            }
        }
        for activation in Activation.allCases {
            backend.gate(y, thirds[2], thirds[0], activation)
            recording.take("gate \(activation)", y)
            let gradients = try recording.empty([n, 3 * d])
            backend.fill(gradients, 0)
            backend.gateBackward(
                MatrixBlock(gradients, offset: 2 * d, stride: 3 * d), MatrixBlock(gradients, stride: 3 * d),
                y, thirds[2], thirds[0], activation)
            recording.take("gateBackward \(activation)", gradients)
        }
    }

    /// What other methods than GLoRA need, with x and dy [B, T, D].
    private func adapters(_ recording: Recording, _ x: Tensor, _ dy: Tensor) throws {
        let (backend, d) = (recording.backend, x.columns)
        let out = try recording.empty(x.shape)
        for activation in Activation.allCases {
            backend.activate(out, x, activation)
            recording.take("activate \(activation)", out)
            backend.activateBackward(out, dy, x, activation)
            recording.take("activateBackward \(activation)", out)
        }
        let (scale, shift) = (try recording.random([d]), try recording.random([d]))
        backend.scaleShift(out, x, scale, shift)
        recording.take("scaleShift", out)
        backend.scaleShift(out, x, scale, nil)
        recording.take("scaleShift without a shift", out)
        let (dScale, dShift) = (try recording.random([d]), try recording.random([d]))
        backend.scaleShiftBackward(out, dScale, dShift, dy, x, scale)
        recording.take("scaleShiftBackward", out, dScale, dShift)
        backend.addScaled(out, x, -0.7)
        recording.take("addScaled", out)
        backend.copyBlock(
            MatrixBlock(out, offset: 1, stride: d), MatrixBlock(dy, offset: 2, stride: 2 * d),
            rows: x.rows / 2, columns: d - 1, accumulate: false)
        recording.take("copyBlock", out)
        backend.dropout(out, x, rate: 0.3, seed: 5)
        recording.take("dropout", out)
    }

    /// All pairs of forms that take different ways through the kernels.
    private func glora(_ recording: Recording, _ d: Int) throws {
        let backend = recording.backend
        let (out, rank) = (2 * d + 1, 6)
        func parameter(_ shape: [Int]) throws -> Parameter {
            Parameter(name: "", value: try recording.random(shape), gradient: try recording.random(shape))
        }
        let frozen = try recording.random([out, d])
        let weight = try recording.random([out, d])
        let (rows, x) = (53, try recording.random([53, d]))
        let dy = try recording.random([rows, out])
        let forms: [(MatrixForm, MatrixForm)] = [
            (.lowRank(rank), .constant), (.vector, .lowRank(3)), (.constant, .vector), (.none, .none),
        ]
        for (formA, formB) in forms {
            let a = MatrixTerm(form: formA, down: try parameter([out, rank]), up: try parameter([rank, d]))
            let b = MatrixTerm(form: formB, down: try parameter([out, rank]), up: try parameter([rank, d]))
            backend.gloraWeight(weight, frozen, a, b)
            recording.take("gloraWeight \(formA) \(formB)", weight)
            backend.gloraWeightBackward(a, b, weight, dy, x, frozen)
            for parameter in [a.down, a.up, b.down, b.up] {
                recording.take("gloraWeightBackward \(formA) \(formB)", parameter.gradient!)
            }
        }
        let (frozenBias, bias, prompt) = (
            try recording.random([out]), try recording.random([out]), try recording.random([d])
        )
        let promptForms: [(PromptForm, ScaleForm, ScaleForm)] = [
            (.lowRank(5), .vector, .constant), (.vector, .constant, .vector), (.none, .none, .none),
        ]
        for (formC, formD, formE) in promptForms {
            let c = PromptTerm(form: formC, down: try parameter([d, rank]), up: try parameter([rank, 1]))
            let scale = ScaleTerm(form: formD, values: try parameter([out]))
            let shift = ScaleTerm(form: formE, values: try parameter([out]))
            backend.gloraBias(bias, prompt, frozen, frozenBias, c, scale, shift)
            recording.take("gloraBias \(formC)", bias)
            backend.gloraBiasBackward(
                c, scale, shift, prompt, try recording.random([out]), frozen, frozenBias)
            for parameter in [c.down, c.up, scale.values, shift.values] {
                recording.take("gloraBiasBackward \(formC)", parameter.gradient!)
            }
        }
    }
}
