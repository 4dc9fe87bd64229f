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
        var hash = ContentHash()
        hash.add(purpose.utf8)
        state = Random.mix(
            Random.mix(UInt64(bitPattern: Int64(seed)) ^ hash.value)
                &+ UInt64(bitPattern: Int64(index)) &* 0x9e37_79b9_7f4a_7c15)
    }

    /// The number that a state gives, which is also a hash of 64 bits.
    static func mix(_ value: UInt64) -> UInt64 {
        var z = value &+ 0x9e37_79b9_7f4a_7c15
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// 64 random bits.
    public mutating func next() -> UInt64 {
        defer { skip(1) }
        return Random.mix(state)
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

/// FNV-1a over 64 bits (Fowler, Noll, Vo): it notices mistakes, not forgery.
public struct ContentHash {
    /// Of what was added so far.
    public private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

    /// Of nothing yet.
    public init() {}

    /// Goes on with bytes.
    public mutating func add(_ bytes: some Sequence<UInt8>) { for byte in bytes { add(word: UInt64(byte)) } }

    /// Goes on with a number's eight bytes, lowest first, so that what lies next to it can't run into it.
    public mutating func add(_ number: Int) {
        for shift in stride(from: 0, to: 64, by: 8) {
            add(word: UInt64(UInt8(truncatingIfNeeded: number >> shift)))
        }
    }

    /// Goes on with 64 bits in one step, as if they were a byte.
    public mutating func add(word: UInt64) { value = (value ^ word) &* 0x100_0000_01b3 }
}
