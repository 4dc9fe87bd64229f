/// What an operation has to do, stated once for the benchmark and its tests: multiplications and additions, and the bytes that
/// it must read and write when nothing is left in a cache.
public struct OperationCost: Equatable, Sendable {
    /// Floating-point operations; a multiply-add is two.
    public var flops: Double
    /// Bytes of tensors read and written, each once.
    public var bytes: Double

    public init(flops: Double, bytes: Double) {
        (self.flops, self.bytes) = (flops, bytes)
    }

    /// Both, one after the other.
    public static func + (a: OperationCost, b: OperationCost) -> OperationCost {
        OperationCost(flops: a.flops + b.flops, bytes: a.bytes + b.bytes)
    }

    /// The same so many times.
    public static func * (count: Int, cost: OperationCost) -> OperationCost {
        OperationCost(flops: Double(count) * cost.flops, bytes: Double(count) * cost.bytes)
    }

    /// out ← x, n elements.
    public static func copy(_ n: Int) -> OperationCost { OperationCost(flops: 0, bytes: 8 * Double(n)) }

    /// [m, n] ← [m, k] · [k, n].
    public static func product(m: Int, n: Int, k: Int) -> OperationCost {
        OperationCost(flops: Double(2 * m * n * k), bytes: Double(4 * (m * n + m * k + n * k)))
    }

    /// W = W₀ ⊙ (1 + A) + B [outputs, inputs] with factors of these ranks.
    public static func gloraWeight(outputs: Int, inputs: Int, rankA: Int, rankB: Int) -> OperationCost {
        let count = outputs * inputs
        let factors = (rankA + rankB) * (outputs + inputs)
        return OperationCost(
            flops: Double(count * (2 * (rankA + rankB) + 3)), bytes: Double(4 * (2 * count + factors)))
    }

    /// `Backend.attention` of [B, T, 3·D] with Q query tokens: two products, and a softmax of 5 operations an element.
    public static func attention(batch: Int, tokens: Int, queries: Int, width: Int, heads: Int)
        -> OperationCost
    {
        let scores = batch * heads * queries * tokens
        let elements = batch * (tokens * 3 * width + queries * width + heads * queries)
        return OperationCost(flops: Double(scores * (4 * (width / heads) + 5)), bytes: Double(4 * elements))
    }

    /// `Backend.attentionBackward`: five products, one of them S again.
    public static func attentionBackward(
        batch: Int, tokens: Int, queries: Int, width: Int, heads: Int
    ) -> OperationCost {
        let scores = batch * heads * queries * tokens
        let elements = batch * (tokens * 6 * width + queries * 2 * width + heads * queries)
        return OperationCost(flops: Double(scores * (10 * (width / heads) + 6)), bytes: Double(4 * elements))
    }

    /// `Backend.layerNorm` of [n, d].
    public static func layerNorm(rows n: Int, width d: Int) -> OperationCost {
        OperationCost(flops: Double(8 * n * d), bytes: Double(4 * (2 * n * d + 2 * n + 2 * d)))
    }

    /// `Backend.layerNormBackward` of [n, d] with a frozen weight, added to the residual stream's gradient.
    public static func layerNormBackward(rows n: Int, width d: Int) -> OperationCost {
        OperationCost(flops: Double(12 * n * d), bytes: Double(4 * (4 * n * d + 2 * n + d)))
    }

    /// `Backend.rmsNorm` of [n, d].
    public static func rmsNorm(rows n: Int, width d: Int) -> OperationCost {
        OperationCost(flops: Double(4 * n * d), bytes: Double(4 * (2 * n * d + n + d)))
    }

    /// `Backend.rmsNormBackward` of [n, d] with a frozen weight, added to the residual stream's gradient.
    public static func rmsNormBackward(rows n: Int, width d: Int) -> OperationCost {
        OperationCost(flops: Double(9 * n * d), bytes: Double(4 * (4 * n * d + n + d)))
    }

    /// `Backend.rotate` of n rows of which d numbers are in pairs, with a row of cosines and sines for each: a pair is read and
    /// written, with 6 operations.
    public static func rotate(rows n: Int, width d: Int, pairs: Int) -> OperationCost {
        OperationCost(flops: Double(3 * n * d), bytes: Double(4 * (2 * n * d + n * (2 * pairs + 1))))
    }

    /// `Backend.gate` of [n, d], counting an activation as 10 operations.
    public static func gate(rows n: Int, width d: Int) -> OperationCost {
        OperationCost(flops: Double(11 * n * d), bytes: Double(4 * 3 * n * d))
    }

    /// `Backend.gateBackward`.
    public static func gateBackward(rows n: Int, width d: Int) -> OperationCost {
        OperationCost(flops: Double(15 * n * d), bytes: Double(4 * 5 * n * d))
    }
}
