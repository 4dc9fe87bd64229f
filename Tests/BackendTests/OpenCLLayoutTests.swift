import CPUBackend
import Foundation
import TensorCore
import TestSupport
import Testing

@testable import OpenCLBackend

/// Every operation in every layout of the kernels: a machine with only a CPU device runs what GPUs will run,
/// and the other way round. The CPU backend, which the other suites compare with doubles, gives the expected
/// values.
@Suite struct OpenCLLayoutTests {
    // Oclgrind runs the two tests in processes of their own: with two programs in one context its
    // --uninitialized gives false alarms. It does so for 16 lanes too, since it takes a shuffle's twelfth
    // lane for an undefined one.

    /// One work-item a group, as on CPU devices.
    @Test(arguments: TestDevice.onlySmall ? [8] : [16, 8])
    func cpuLayout(width: Int) throws { try everyOperation(KernelLayout(width: width, local: 1)) }

    /// Many work-items a group, as on GPUs.
    @Test(arguments: TestDevice.onlySmall ? [64] : [64, 4])
    func gpuLayout(local: Int) throws { try everyOperation(KernelLayout(width: 4, local: local)) }

    private func everyOperation(_ layout: KernelLayout) throws {
        let expected = try results(CPUBackend())
        let found = try OneThread.run {
            try OpenCLTests.withDevice { device in
                let backend = try OpenCLBackend(device: device, layout: layout)
                backend.product = .tiled
                return try results(backend)
            }
        }
        #expect(found.map(\.name) == expected.map(\.name))
        for (a, b) in zip(found, expected) {
            expectClose(a.values, doubles(b.values), "\(a.name), \(layout)")
        }
    }

    /// What each operation writes, from the same inputs, in sizes that are no multiples of anything.
    private func results(_ backend: any Backend) throws -> [(name: String, values: [Float])] {
        var results: [(name: String, values: [Float])] = []
        let (batch, tokens, heads, head) = TestDevice.onlySmall ? (2, 5, 2, 3) : (3, 37, 2, 21)
        let (d, n) = (heads * head, batch * tokens)
        var seed = 0
        func random(_ shape: [Int], mean: Double = 0) throws -> Tensor {
            seed += 1
            return try backend.tensor(
                HostTensor(
                    shape: shape, values: randomValues(shape.reduce(1, *), seed: seed, mean: mean)))
        }
        func empty(_ shape: [Int]) throws -> Tensor {
            let tensor = try backend.allocate(shape, .float32)
            backend.fill(tensor, .nan)
            return tensor
        }
        func take(_ name: String, _ tensors: Tensor...) {
            for (i, tensor) in tensors.enumerated() {
                results.append(("\(name) \(i)", backend.values(tensor)))
            }
        }

        let (x, dy, weight, bias) = (
            try random([batch, tokens, d], mean: 1), try random([batch, tokens, d]), try random([d]),
            try random([d])
        )
        let (y, mean, rstd) = (try empty([batch, tokens, d]), try empty([n]), try empty([n]))
        backend.layerNorm(y, mean, rstd, x, weight, bias, epsilon: 1e-5)
        take("layerNorm", y, mean, rstd)
        let (dx, dWeight, dBias) = (try random([batch, tokens, d]), try random([d]), try random([d]))
        backend.layerNormBackward(dx, dWeight, dBias, dy, x, mean, rstd, weight, accumulate: true)
        take("layerNormBackward", dx, dWeight, dBias)

        let qkv = try random([batch, tokens, 3 * d])
        let (out, p) = (try empty([batch, tokens, d]), try empty([batch, heads, tokens, tokens]))
        backend.attention(out, p, qkv, heads: heads)
        take("attention", out, p)
        let (dqkv, dp) = (try empty([batch, tokens, 3 * d]), try empty([batch, heads, tokens, tokens]))
        backend.attentionBackward(dqkv, dp, dy, qkv, p, heads: heads)
        take("attentionBackward", dqkv)

        backend.gelu(y, x)
        take("gelu", y)
        backend.geluBackward(dx, dy, x)
        take("geluBackward", dx)
        let scale = try random([batch])
        backend.residualAdd(y, x, dy, sampleScale: scale)
        take("residualAdd", y)
        backend.scaleSamples(y, x, sampleScale: scale)
        backend.addRow(y, bias)
        let sum = try random([d])
        backend.sumRows(sum, y, accumulate: true)
        take("scaleSamples, addRow, sumRows", y, sum)
        let (wide, product) = (try random([2 * d, d]), try empty([n, 2 * d]))
        backend.linear(product, x, wide, nil)
        take("linear", product)
        backend.matmul(
            dqkv.reshaped([3 * n, d]), try random([tokens, 3 * n]), try random([tokens, d]),
            transposeA: true, transposeB: false, accumulate: true)
        take("matmul", dqkv)

        let images = try random([2, 3, 6, 4])
        let patches = try empty([2, 6, 12])
        backend.extractPatches(patches, images, patchSize: 2)
        take("extractPatches", patches)
        let projected = try random([batch, tokens - 1, d])
        let (positions, classToken) = (try random([tokens, d]), try random([d]))
        backend.embedTokens(y, projected, classToken, positions)
        take("embedTokens", y)
        backend.embedTokensBackward(projected, classToken, positions, dy)
        take("embedTokensBackward", projected, classToken, positions)
        let pooled = try empty([batch, d])
        backend.poolTokens(pooled, x, range: 1..<tokens)
        take("poolTokens", pooled)
        backend.poolTokensBackward(dx, pooled, range: 1..<tokens)
        take("poolTokensBackward", dx)

        let labels = try backend.allocate([batch], .int32)
        backend.upload(labels, (0..<Int32(batch)).map { $0 * 2 })
        let (losses, logits, dLogits) = (try empty([batch]), try random([batch, d]), try empty([batch, d]))
        backend.softmaxCrossEntropy(losses, dLogits, logits, labels)
        take("softmaxCrossEntropy", losses, dLogits)
        let blocks = try backend.allocate([3], .int32)
        backend.upload(blocks, [1, 0, 1] as [Int32])
        let segments = try backend.tensor(HostTensor(shape: [2, 3], values: [0, 1, 1, 1, 10, 31]))
        let state = try (0..<4).map { _ in try random([3 * viewAlignment]) }
        backend.gelu(state[2], state[2])
        backend.residualAdd(state[2], state[2], try random([3 * viewAlignment], mean: 9), sampleScale: nil)
        backend.adamW(
            state[0], state[1], state[2], state[3], blocks, segments,
            AdamWSettings(learningRate: 1e-2, weightDecay: 0.1))
        take("adamW", state[0], state[1], state[2])
        try glora(backend, d, random: { try random($0) }, take: { take($0, $1) })
        return results
    }

    /// All pairs of forms that take different ways through the kernels.
    private func glora(
        _ backend: any Backend, _ d: Int, random: ([Int]) throws -> Tensor, take: (String, Tensor) -> Void
    ) throws {
        let (out, rank) = (2 * d + 1, 6)
        func parameter(_ shape: [Int]) throws -> Parameter {
            Parameter(name: "", value: try random(shape), gradient: try random(shape))
        }
        let frozen = try random([out, d])
        let (weight, dWeight) = (try random([out, d]), try random([out, d]))
        let forms: [(MatrixForm, MatrixForm)] = [
            (.lowRank(rank), .constant), (.vector, .lowRank(3)), (.constant, .vector), (.none, .none),
        ]
        for (formA, formB) in forms {
            let a = MatrixTerm(form: formA, down: try parameter([out, rank]), up: try parameter([rank, d]))
            let b = MatrixTerm(form: formB, down: try parameter([out, rank]), up: try parameter([rank, d]))
            backend.gloraWeight(weight, frozen, a, b)
            take("gloraWeight \(formA) \(formB)", weight)
            backend.gloraWeightBackward(a, b, dWeight, frozen)
            for parameter in [a.down, a.up, b.down, b.up] {
                take("gloraWeightBackward \(formA) \(formB)", parameter.gradient!)
            }
        }
        let (frozenBias, bias, prompt) = (try random([out]), try random([out]), try random([d]))
        let promptForms: [(PromptForm, ScaleForm, ScaleForm)] = [
            (.lowRank(5), .vector, .constant), (.vector, .constant, .vector), (.none, .none, .none),
        ]
        for (formC, formD, formE) in promptForms {
            let c = PromptTerm(form: formC, down: try parameter([d, rank]), up: try parameter([rank, 1]))
            let scale = ScaleTerm(form: formD, values: try parameter([out]))
            let shift = ScaleTerm(form: formE, values: try parameter([out]))
            backend.gloraBias(bias, prompt, frozen, frozenBias, c, scale, shift)
            take("gloraBias \(formC)", bias)
            backend.gloraBiasBackward(c, scale, shift, prompt, try random([out]), frozen, frozenBias)
            for parameter in [c.down, c.up, scale.values, shift.values] {
                take("gloraBiasBackward \(formC)", parameter.gradient!)
            }
        }
    }
}

/// Runs pieces of work on one thread, the same for the whole process. Swift Testing changes threads from test
/// to test, and Oclgrind's `--uninitialized` crashes when another thread than the one that made the context
/// copies memory.
private enum OneThread {
    private static let condition = NSCondition()
    nonisolated(unsafe) private static var work: (() -> Void)?  // guarded by the condition
    private static let start: Void = Thread {
        condition.lock()
        while true {
            while work == nil { condition.wait() }
            work?()
            work = nil
            condition.broadcast()
        }
    }.start()

    /// Waits for the result of `body`, which must not record issues: they belong to the test's own thread.
    static func run<Result>(_ body: @escaping () throws -> Result) throws -> Result {
        start
        condition.lock()
        defer { condition.unlock() }
        nonisolated(unsafe) var result: Swift.Result<Result, any Error>?
        while work != nil { condition.wait() }
        work = { result = Swift.Result { try body() } }
        condition.broadcast()
        while result == nil { condition.wait() }
        return try result!.get()
    }
}
