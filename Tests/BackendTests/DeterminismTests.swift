import TensorCore
import TestSupport
import Testing

/// Two runs on one device give the same bits, which exact resumption stands on. The operations that reduce
/// are those where the order of threads could show.
@Suite("One device, the same bits") struct DeterminismTests {
    @Test("A second run of every operation that reduces gives the same bits", arguments: TestDevice.all)
    func reductions(device: TestDevice) throws {
        let first = try device.withBackend { try results($0) }
        for _ in 0..<(TestDevice.onlySmall ? 1 : 4) {
            let next = try device.withBackend { try results($0) }
            for (a, b) in zip(first, next) {
                expectIdentical(b.values, a.values, "a second run of \(a.name)")
            }
        }
        #expect(first.count == 23)
    }

    private func results(_ backend: any Backend) throws -> [(name: String, values: [Float])] {
        let (b, t, heads, d) = TestDevice.onlySmall ? (2, 5, 2, 16) : (8, 65, 4, 128)
        let (n, rank) = (b * t, 4)
        var seed = 0
        func random(_ shape: [Int]) throws -> Tensor {
            seed += 1
            return try backend.tensor(
                HostTensor(shape: shape, values: randomValues(shape.reduce(1, *), seed: seed)))
        }
        func parameter(_ shape: [Int]) throws -> Parameter {
            Parameter(name: "p", value: try random(shape), gradient: try random(shape))
        }
        let (x, weight, bias) = (try random([b, t, d]), try random([3 * d, d]), try random([3 * d]))
        let (qkv, out) = (try random([b, t, 3 * d]), try random([b, t, d]))
        let logSumExp = try random([b, heads, t])
        backend.linear(qkv, x, weight, bias)
        backend.attention(out, logSumExp, qkv, heads: heads)
        let dqkv = try random([b, t, 3 * d])
        backend.attentionBackward(dqkv, x, out, logSumExp, qkv, heads: heads)
        let dWeight = try random([3 * d, d])
        backend.matmul(dWeight, dqkv, x, transposeA: true, transposeB: false, accumulate: true)
        let sums = try random([3 * d])
        backend.sumRows(sums, dqkv, accumulate: true)
        let (mean, rstd, y, dx) = (try random([n]), try random([n]), try random([n, d]), try random([n, d]))
        let (w, dw, db) = (try random([d]), try random([d]), try random([d]))
        backend.layerNorm(y, mean, rstd, x, w, w, epsilon: 1e-6)
        backend.layerNormBackward(dx, dw, db, out, x, mean, rstd, w, accumulate: false)
        let (rms, rmsRstd, dRMS, dwRMS) = (
            try random([n, d]), try random([n]), try random([n, d]), try random([d])
        )
        backend.rmsNorm(rms, rmsRstd, x, w, epsilon: 1e-6)
        backend.rmsNormBackward(dRMS, dwRMS, out, x, rmsRstd, w, accumulate: false)
        let a = MatrixTerm(
            form: .lowRank(rank), down: try parameter([3 * d, rank]), up: try parameter([rank, d]))
        let constant = MatrixTerm(
            form: .constant, down: try parameter([3 * d, rank]), up: try parameter([rank, d]))
        backend.gloraWeightBackward(a, constant, try random([3 * d, d]), dqkv, x, weight)
        let (vector, b4) = (
            MatrixTerm(form: .vector, down: try parameter([3 * d, rank]), up: try parameter([rank, d])),
            MatrixTerm(
                form: .lowRank(rank), down: try parameter([3 * d, rank]), up: try parameter([rank, d]))
        )
        let (projected, u, dBias) = (try random([n, rank]), try random([n, rank]), try random([3 * d]))
        backend.gloraProject(projected, x, b4)
        backend.gloraOutputBackward(dBias, vector, b4, dqkv, qkv, projected)
        backend.gloraProjectBackward(u, b4, dqkv, x)
        let c = PromptTerm(
            form: .lowRank(rank), down: try parameter([d, rank]), up: try parameter([rank, 1]))
        let scale = ScaleTerm(form: .constant, values: try parameter([3 * d]))
        let dPrompt = try random([d])
        backend.gloraBiasBackward(c, scale, scale, dPrompt, sums, weight, bias)
        let (dScale, dShift) = (try random([3 * d]), try random([3 * d]))
        backend.scaleShiftBackward(nil, dScale, dShift, dqkv, qkv, bias)
        let named: [(String, Tensor)] = [
            ("attention", out), ("attentionBackward", dqkv), ("matmul", dWeight), ("sumRows", sums),
            ("layerNorm", y), ("layerNormBackward dx", dx), ("layerNormBackward dWeight", dw),
            ("rmsNorm", rms), ("rmsNormBackward dx", dRMS), ("rmsNormBackward dWeight", dwRMS),
            ("gloraWeightBackward down", a.down.gradient!), ("gloraWeightBackward up", a.up.gradient!),
            ("gloraWeightBackward constant", constant.down.gradient!),
            ("gloraProject", projected), ("gloraOutputBackward dBias", dBias),
            ("gloraOutputBackward a", vector.down.gradient!), ("gloraOutputBackward b", b4.down.gradient!),
            ("gloraProjectBackward u", u), ("gloraProjectBackward up", b4.up.gradient!),
            ("gloraBiasBackward down", c.down.gradient!),
            ("gloraBiasBackward constant", scale.values.gradient!),
            ("scaleShiftBackward dScale", dScale), ("scaleShiftBackward dShift", dShift),
        ]
        return named.map { ($0.0, backend.values($0.1)) }
    }
}
