import TensorCore
import Testing

@Suite("What operations cost") struct CostTests {
    /// By hand, in numbers of 4 bytes: [3, 5] is 15 of them.
    @Test("Norms, rotations and gates cost what their tensors hold and their formulas say") func costs() {
        // x, y, rstd and the weight; dy, x, dx twice, rstd and the weight.
        #expect(OperationCost.rmsNorm(rows: 3, width: 5) == OperationCost(flops: 60, bytes: 4 * 38))
        #expect(OperationCost.rmsNormBackward(rows: 3, width: 5) == OperationCost(flops: 135, bytes: 4 * 68))
        // Two heads of 4 numbers in 2 pairs: 12 pairs of 6 operations, and for each row 2 cosines, 2 sines and a position.
        #expect(
            OperationCost.rotate(rows: 3, width: 8, pairs: 2)
                == OperationCost(flops: 72, bytes: 4 * (48 + 15)))
        // a, b and y; dy, a, b, dA and dB.
        #expect(OperationCost.gate(rows: 3, width: 5) == OperationCost(flops: 165, bytes: 4 * 45))
        #expect(OperationCost.gateBackward(rows: 3, width: 5) == OperationCost(flops: 225, bytes: 4 * 75))
    }
}
