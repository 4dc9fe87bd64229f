// Functions and reductions that the operations' inner loops are made of.
//
// The functions are branchless scalar code, which the compiler vectorises inside a loop (a call of Glibc's
// `erff` would not be). The compiler never reorders a floating-point sum, so the reductions keep 16 partial
// sums of their own: four independent SSE registers, and a rounding error that grows with n/16.

private typealias Vector = SIMD16<Float>

/// eˣ for x ≤ 0, to 1 ulp; 0 below −87, where float32 soon ends.
///
/// eˣ = 2ⁿ eʳ with n = round(x / ln 2) and |r| ≤ ln 2 / 2; the polynomial is Cephes' `expf` (Moshier, 1989).
@inline(__always)
func exponential(_ x: Float) -> Float {
    // 1.5 · 2²³: adding it rounds to an integer, which then lies in the low bits.
    let shifter: Float = 12_582_912
    let shifted = x * 1.442_695_04 + shifter
    let n = shifted - shifter
    let r = (x - n * 0.693_359_375) + n * 2.121_944_40e-4  // ln 2 in two parts, the first exact
    // Pairs of terms rather than Horner's chain: a third of the latency, which is what a loop of this waits for.
    let r2 = r * r
    let p =
        (5.000_000_120_1e-1 + 1.666_666_545_9e-1 * r)
        + r2
        * ((4.166_579_589_4e-2 + 8.333_451_907_3e-3 * r) + r2 * (1.398_199_950_7e-3 + 1.987_569_150_0e-4 * r))
    let power = Float(bitPattern: (shifted.bitPattern &<< 23) &+ 0x3f80_0000)
    let value = (p * r2 + r + 1) * power
    return x < -87 ? 0 : value  // a NaN stays one
}

/// The normal distribution's Φ(x) = (1 + erf(x/√2)) / 2 and e = exp(−x²/2).
///
/// Φ(−|x|) = e · g(u) with u = (|x| − 3) / (|x| + 3) in [−1, 1). g is exp(x²/2) Φ(−|x|) on |x|
/// ≤ 14 as a minimax polynomial of degree 9 (fitted in double precision, relative error 8e-9); with
/// float32 arithmetic Φ's relative error is below 5e-7 for x > −5 and GELU's absolute error below 4e-7
/// on [−10, 10].
@inline(__always)
func normalDistribution(_ x: Float) -> (phi: Float, e: Float) {
    let e = exponential(-0.5 * x * x)
    let u = 1 - 6 / (x.magnitude + 3)
    let u2 = u * u
    let u4 = u2 * u2
    let low = (0.121_513_95 - 0.206_402_61 * u) + u2 * (0.123_225_03 - 0.046_213_29 * u)
    let middle = (0.006_132_071 + 0.002_904_556_5 * u) - u2 * (0.000_983_758_83 + 0.000_339_485_56 * u)
    let g = low + u4 * (middle + u4 * (0.000_115_544_17 + 5.367_234_9e-05 * u))
    let tail = e * g
    return (x < 0 ? tail : 1 - tail, e)
}

@inline(__always)
private func load(_ x: UnsafePointer<Float>, _ i: Int) -> Vector {
    UnsafeRawPointer(x + i).loadUnaligned(as: Vector.self)
}

/// The sum of value(i) for i in 0..<n; `vector(i)` is value(i), …, value(i + 15).
@inline(__always)
private func total(_ n: Int, vector: (Int) -> Vector, value: (Int) -> Float) -> Float {
    var partial = Vector.zero
    var i = 0
    while i &+ 16 <= n {
        partial += vector(i)
        i &+= 16
    }
    var rest: Float = 0
    while i < n {
        rest += value(i)
        i &+= 1
    }
    let eight = partial.lowHalf + partial.highHalf
    let four = eight.lowHalf + eight.highHalf
    return (four[0] + four[2]) + (four[1] + four[3]) + rest
}

/// Σ x[i].
func sum(_ x: UnsafePointer<Float>, _ n: Int) -> Float {
    total(n, vector: { load(x, $0) }, value: { x[$0] })
}

/// Σ x[i] y[i].
func dot(_ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, _ n: Int) -> Float {
    total(n, vector: { load(x, $0) * load(y, $0) }, value: { x[$0] * y[$0] })
}

/// Σ x[i] y[i] z[i].
func dot(_ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, _ z: UnsafePointer<Float>, _ n: Int) -> Float {
    total(n, vector: { load(x, $0) * load(y, $0) * load(z, $0) }, value: { x[$0] * y[$0] * z[$0] })
}

/// Σ (x[i] − mean)².
func squaredDeviation(_ x: UnsafePointer<Float>, from mean: Float, _ n: Int) -> Float {
    total(
        n,
        vector: {
            let d = load(x, $0) - mean
            return d * d
        }, value: { (x[$0] - mean) * (x[$0] - mean) })
}

/// Σ (x[i] − mean) y[i] z[i].
func deviationDot(
    _ x: UnsafePointer<Float>, from mean: Float, _ y: UnsafePointer<Float>, _ z: UnsafePointer<Float>,
    _ n: Int
) -> Float {
    total(
        n, vector: { (load(x, $0) - mean) * (load(y, $0) * load(z, $0)) },
        value: { (x[$0] - mean) * (y[$0] * z[$0]) })
}

/// The largest of x[0..<n], without regard to NaNs; −∞ when n is 0.
func maximum(_ x: UnsafePointer<Float>, _ n: Int) -> Float {
    var largest = Vector(repeating: -.infinity)
    var i = 0
    while i &+ 16 <= n {
        let next = load(x, i)
        largest.replace(with: next, where: next .> largest)
        i &+= 16
    }
    var value = largest.max()
    while i < n {
        value = x[i] > value ? x[i] : value
        i &+= 1
    }
    return value
}

/// y ← softmax(x) over n elements; y may be x. Returns the largest x and Σ exp(x − largest).
@discardableResult
func softmax(_ y: UnsafeMutablePointer<Float>, _ x: UnsafePointer<Float>, _ n: Int) -> (
    largest: Float, sum: Float
) {
    let largest = maximum(x, n)
    if UnsafePointer(y) != x { y.update(from: x, count: n) }
    for i in 0..<n { y[i] = exponential(y[i] - largest) }
    let denominator = sum(y, n)
    let factor = 1 / denominator
    for i in 0..<n { y[i] *= factor }
    return (largest, denominator)
}
