import Foundation
import TensorCore
import TestSupport
import Testing

@Suite("What every backend checks of an operation") struct ContractTests {
    /// A call that doesn't fit, with what the program says when it stops.
    enum Mistake: String, CaseIterable, Codable {
        case addScaled = "addScaled: y [2, 3], x [2, 2] don't fit"
        case matmul = "matmul: c [2, 3], a [2, 3], b [2, 2], b transposed don't fit"
        case sumRows = "sumRows: x [2, 3] is int32, not float32"
        case attention =
            "attention: out [2, 3], qkv [2, 2], logSumExp [2, 2] and 2 heads don't fit"
        case attentionToOthers =
            "attention: out [1, 2, 3], queries [2, 3], keys [2, 3], values [2, 2], logSumExp [2, 2], 2 tokens and 1 heads, samples [6, 6, 6] and tokens [3, 3, 3] apart from [0, 0, 0], don't fit"
        case embedTokens =
            "embedTokens: tokens [1, 2, 3] and projected [1, 1, 3] leave 1 tokens to a prefix"
        case gate =
            "gate: y [2, 3], a [2, 2], b [2, 3]: a from 0 on every 3, b from 0 on every 3 don't fit"
        case rmsNorm = "rmsNorm: x [2, 3] is int32, not float32"
        case rotate =
            "rotate: x [2, 3], cosines [2, 2], sines [2, 2], positions [2]: 2 rows of 1 heads of 3 from 0 on every 3 don't fit"
        case upload = "upload: 28 bytes for shape [2, 3]"
        case view = "view: [1] at 128 is not inside a tensor of shape [2, 3]"
    }

    @Test(
        "A tensor that doesn't fit stops the program, which names the operation and all its shapes",
        .disabled(
            if: TestDevice.onlySmall,
            "a simulator would start anew for each, and what stops the program runs on the host"),
        arguments: TestDevice.all, Mistake.allCases)
    func mistakes(device: TestDevice, mistake: Mistake) async throws {
        let name = device.description
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            [name = name as String, mistake = mistake as Mistake] in
            try TestDevice(description: name).withBackend { backend in
                let (a, b) = (
                    try backend.allocate([2, 3], .float32), try backend.allocate([2, 2], .float32)
                )
                switch mistake {
                case .addScaled: backend.addScaled(a, b, 1)
                case .matmul: backend.matmul(a, a, b, transposeA: false, transposeB: true, accumulate: false)
                case .sumRows:
                    backend.sumRows(
                        try backend.allocate([3], .float32), a.leading([2, 3], .int32), accumulate: false)
                case .attention: backend.attention(a, b, b, heads: 2)
                case .attentionToOthers:
                    let (x, y) = (
                        TokenBlock(a, stride: 3, sampleStride: 6), TokenBlock(b, stride: 3, sampleStride: 6)
                    )
                    backend.attention(
                        a.reshaped([1, 2, 3]), b, queries: x, keys: x, values: y, tokens: 2, heads: 1)
                case .embedTokens:
                    backend.embedTokens(a.reshaped([1, 2, 3]), a.leading([1, 1, 3]), nil, nil)
                case .gate:
                    backend.gate(a, MatrixBlock(b, stride: 3), MatrixBlock(a, stride: 3), .silu)
                case .rmsNorm:
                    backend.rmsNorm(a, b.leading([2]), a.leading([2, 3], .int32), b.leading([3]), epsilon: 1)
                case .rotate:
                    backend.rotate(
                        MatrixBlock(a, stride: 3), positions: a.leading([2], .int32), cosines: b, sines: b,
                        heads: 1, headWidth: 3, layout: .halves, inverse: false)
                case .upload: [Float](repeating: 0, count: 7).withUnsafeBytes { backend.upload(a, $0) }
                case .view: _ = try backend.view(a, at: viewAlignment, [1])
                }
            }
        }
        let said = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
        #expect(said.contains(mistake.rawValue), "\(said.prefix(300))")
    }
}
