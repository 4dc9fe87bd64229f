import Foundation

/// Random numbers that are a function of (seed, purpose, index), and of nothing else.
///
/// Every draw of a run comes from such a stream: the data order of epoch e is `Random(seed, "order", e)`, the paths of
/// step s are `Random(seed, "path", s)`. Nothing has to be saved for an exact resume, and adding a draw in one place moves
/// no other.
///
/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, passes BigCrush.
public struct Random: RandomNumberGenerator, Sendable {
    private var state: UInt64

    /// The stream for a purpose and an index (an epoch, a step, a layer) of a run's seed.
    public init(_ seed: Int, _ purpose: String, _ index: Int = 0) {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325  // FNV-1a over the purpose
        for byte in purpose.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        state = Random.mix(
            Random.mix(UInt64(bitPattern: Int64(seed)) ^ hash)
                &+ UInt64(bitPattern: Int64(index)) &* 0x9e37_79b9_7f4a_7c15)
    }

    private static func mix(_ value: UInt64) -> UInt64 {
        var z = value &+ 0x9e37_79b9_7f4a_7c15
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// 64 random bits.
    public mutating func next() -> UInt64 {
        state = state &+ 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// Leaves out the next `count` numbers of `next`, at once.
    public mutating func skip(_ count: Int) {
        state = state &+ UInt64(bitPattern: Int64(count)) &* 0x9e37_79b9_7f4a_7c15
    }

    /// Uniform in [0, 1), 53 bits.
    public mutating func uniform() -> Double { Double(next() >> 11) * 0x1p-53 }

    /// Uniform in the range.
    public mutating func uniform(in range: ClosedRange<Double>) -> Double {
        range.lowerBound + (range.upperBound - range.lowerBound) * uniform()
    }

    /// Uniform in 0..<bound.
    public mutating func index(below bound: Int) -> Int { Int.random(in: 0..<bound, using: &self) }

    /// Normal with mean 0 and standard deviation 1 (Box–Muller, one of the pair).
    public mutating func normal() -> Double {
        let radius = (-2 * log(1 - uniform())).squareRoot()
        return radius * cos(2 * .pi * uniform())
    }
}
