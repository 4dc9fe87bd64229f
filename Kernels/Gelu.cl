// y = x Φ(x), dx = dy (Φ(x) + x φ(x)),  Φ(x) = (1 + erf(x/√2)) / 2,  φ(x) = exp(−x²/2) / √(2π): the exact
// GELU.

// Φ(x), and e = exp(−x²/2).
//
// Φ(−|x|) = e · g(u) with u = (|x| − 3) / (|x| + 3) in [−1, 1). g is exp(x²/2) Φ(−|x|) on |x| ≤ 14 as a
// minimax polynomial of degree 9 (relative error 8e-9 in double precision); in float32 Φ's relative error is
// below 5e-7 for x > −5 and GELU's absolute error below 4e-7 on [−10, 10]. The CPU backend has the same one.
INLINE lanes normal_distribution(lanes *e, lanes x) {
    *e = exponential(-0.5f * x * x);
    lanes u = 1.0f - 6.0f / (fabs(x) + 3.0f);
    lanes u2 = u * u;
    lanes u4 = u2 * u2;
    lanes low = (0.12151395f - 0.20640261f * u) + u2 * (0.12322503f - 0.04621329f * u);
    lanes middle = (0.006132071f + 0.0029045565f * u) - u2 * (0.00098375883f + 0.00033948556f * u);
    lanes g = low + u4 * (middle + u4 * (0.000115544172f + 5.3672349e-05f * u));
    lanes tail = *e * g;
    return select(1.0f - tail, tail, x < 0.0f);
}

// y [n] from x [n].
__kernel GROUP void gelu_forward(__global stored *y, __global const stored *x, int n) {
    FOR_ELEMENTS (i, n) {
        WITH_LANES(
            n - i, lanes value = stored_lanes(x + i, lanes_); lanes e;
            store_stored(value * normal_distribution(&e, value), y + i, lanes_);)
    }
}

// dx [n] from dy [n] and x [n]. dx may be dy.
__kernel GROUP void gelu_backward(
    __global stored *dx, __global const stored *dy, __global const stored *x, int n) {
    FOR_ELEMENTS (i, n) {
        WITH_LANES(
            n - i, lanes value = stored_lanes(x + i, lanes_); lanes e; lanes phi = normal_distribution(&e, value);
            store_stored(stored_lanes(dy + i, lanes_) * (phi + value * (0.3989422804f * e)), dx + i, lanes_);)
    }
}
