import TensorCore

/// How far a backend that stores weights and activations in 16 bits, or multiplies in tf32, may be from the float64 truth.
///
///     a layer, element by element:        |a−t|  ≤  6u · t̄        t̄: the layer's formulas on its inputs' magnitudes
///     a transformer, tensor by tensor:    ‖a−t‖  ≤  8u · ‖t‖      or what the authors' float32 was off by, times u / 2⁻²⁴
///     a trajectory's losses:              ‖a−t‖  ≤  1 % · ‖t‖      and the logits after it: 5 %
///     the parameters after s steps:       |a−t|  ≤  2s · η
///
/// u is the type's unit roundoff: 2⁻⁸ in bfloat16, whose significand has 8 bits, and 2⁻¹¹ in float16 and tf32.
///
/// A layer's outputs and gradients are sums of products, none with a minus. Where every factor is off by u of itself at most, a
/// sum is off by (1 + u)ʳ − 1 of what it is on magnitudes, with r factors rounded on the way to a product. r is 5 at most: x,
/// W₀, the W made from it, the product that is kept, and dy. The sixth u is for what is computed in float32.
///
/// A transformer is no such sum. Some twenty of its operations round what they store, each by u at most, which is u / √3 in the
/// mean square, at random: √20 · u / √3 = 2.6 u, of which three times is allowed. All gradients together are one vector, since
/// the sum that a small one is may cancel. Where the authors' float32 was off by a part e (of a tensor's length, of the largest
/// gradient), e · u / 2⁻²⁴ is allowed if that is more: float32 rounded wherever 16 bits do, so it shows what such roundings come
/// to in this model. For FacT, whose factors belong to every Linear, they come to 4 to 12 times as much as for AdaptFormer.
///
/// AdamW makes steps of ±η from gradients that are smaller than their rounding error, so that trajectories part by as much in
/// float16 as in bfloat16, and u bounds neither: 1 % is what a loss curve may be off by, and 5 % was chosen.
struct StoredBounds {
    /// u.
    let roundoff: Double

    /// Nil in float32.
    init?(_ precision: Precision) {
        guard precision != .float32 else { return nil }
        roundoff = precision.roundoff
    }

    /// For an element of a layer's tensor, as a part of its magnitude.
    var element: Double { 6 * roundoff }
    /// For a transformer's tensor, as a part of its length, where the authors' float32 was off by `official` of that.
    func tensor(official: Double) -> Double {
        max(8 * roundoff, official * roundoff / Precision.float32.roundoff)
    }
    /// For a trajectory's losses, as a part of their length.
    var losses: Double { 0.01 }
    /// For the logits after a trajectory, as a part of their length.
    var trainedLogits: Double { 0.05 }
}
