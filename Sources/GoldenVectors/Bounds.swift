import TensorCore

/// How far a backend may be from the float64 truth, by what it rounds to: float32, weights and activations stored in 16 bits, or
/// operands in tf32.
///
///     a layer, element by element:        |a−t|  ≤  (6u + √n · v) · t̄     t̄: the layer's formulas on its inputs' magnitudes
///     a transformer, tensor by tensor:    ‖a−t‖  ≤  8 (u + v) · ‖t‖        or by what the authors' float32 was off, see below
///     its loss, of B images:              |a−t|  ≤  √(2/B) · what its logits may be off by
///     a trajectory's losses:              ‖a−t‖  ≤  1 % · ‖t‖              and the logits after it: 5 %, both but in float32
///     the parameters after s steps:       |a−t|  ≤  2s · η
///
/// u is the unit roundoff of what is stored: 2⁻²⁴ in float32, 2⁻⁸ in bfloat16, whose significand has 8 bits, 2⁻¹¹ in float16 and
/// tf32; v = 2⁻²⁴ is that of what is computed.
///
/// A layer's outputs and gradients are sums of products, none with a minus. Where every factor is off by u of itself at most, a
/// sum is off by (1 + u)ʳ − 1 of what it is on magnitudes, with r factors rounded on the way to a product. r is 5 at most: x,
/// W₀, the W made from it, the product that is kept, and dy. The sixth u is for the result. The n additions that a product goes
/// through on its way into the result round too: of terms of one sign, added one after another, the k-th sum is k/n of t̄ and its
/// rounding v/√3 of that in the mean square, at random, so all together √n · v / 3, of which three times is allowed. Terms of
/// both signs and sums in parts come to less. A sum that nearly cancels is held to no more than its terms can give: against t̄,
/// not against itself.
///
/// A transformer is no such sum. Some twenty of its operations round what they store, each by u at most, which is u / √3 in the
/// mean square, at random: √20 · u / √3 = 2.6 u, of which three times is allowed, and as much again for what their sums round.
/// All gradients together are one vector, since the sum that a small one is may cancel: a constant's on a layer before a
/// LayerNorm is zero, and what float32 makes of it is as large as in its neighbours. Where the authors' float32 was off by a
/// part e (of a tensor's length, of the largest gradient), more is allowed: it rounded wherever 16 bits do, so it shows what such
/// roundings come to in this model, and e · u / v is allowed in those. For FacT, whose factors belong to every Linear, they come
/// to 4 to 12 times as much as for AdaptFormer. In float32 e is one draw of the very thing that is bounded, so 4e is allowed.
///
/// AdamW makes steps of ±η from gradients that are smaller than their rounding error, so that trajectories part by as much in
/// float16 as in bfloat16, and u bounds neither: 1 % is what a loss curve may be off by, and 5 % was chosen.
struct Bounds {
    /// u.
    let roundoff: Double
    /// v.
    private let computed = Precision.float32.roundoff

    /// What an element may be off by besides: W₀ and the result are stored to 2⁻²⁵ where float16 has no more than multiples of
    /// 2⁻²⁴, below 2⁻¹⁴.
    let underflow: Double

    init(_ precision: Precision) {
        roundoff = precision.roundoff
        underflow = precision == .float16 ? 0x1p-24 : 0
    }

    /// For an element of a layer's tensor, as a part of its magnitude, where products go through so many additions.
    func element(additions: Int) -> Double { 6 * roundoff + Double(additions).squareRoot() * computed }

    /// For a transformer's tensor, as a part of its length, where the authors' float32 was off by `official` of that.
    func tensor(official: Double) -> Double {
        max(8 * (roundoff + computed), official * (roundoff > computed ? roundoff / computed : 4))
    }

    /// For a trajectory's losses, as a part of their length.
    var losses: Double { 0.01 }
    /// For the logits after a trajectory, as a part of their length.
    var trainedLogits: Double { 0.05 }
}
