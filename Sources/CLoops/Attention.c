#include "Loops.h"

// Softmax over rows and its backward:  P = exp(S − max) / Σ exp(S − max) = exp(S − logSumExp),  dS = P ⊙ (dP − D) with
// D = Σ P ⊙ dP over the row, which is Σ dout ⊙ out.

// The largest of x [n], without regard to NaNs. Sixteen lanes of its own: the compiler doesn't reorder a maximum.
INLINE float maximum(const float *x, long n) {
    float lanes[16];
    for (int l = 0; l < 16; l++) lanes[l] = -__builtin_inff();
    long i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
    float largest = lanes[0];
    for (int l = 1; l < 16; l++) largest = lanes[l] > largest ? lanes[l] : largest;
    for (; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

// x [n] ← exp(x − largest). Returns the sum.
INLINE float exponential_sum(float *x, float largest, long n) {
#pragma clang fp reassociate(on)
    float s = 0;
    for (long i = 0; i < n; i++) {
        x[i] = exponential(x[i] - largest);
        s += x[i];
    }
    return s;
}

CLONES void softmax_exponentials(
    float *restrict s, float *restrict sums, float *restrict largest, long n, long d) {
    for (long row = 0; row < n; row++) {
        largest[row] = maximum(s + row * d, d);
        sums[row] = exponential_sum(s + row * d, largest[row], d);
    }
}

CLONES void divide_rows(float *restrict x, const float *restrict divisors, long n, long d, long ldx) {
    for (long row = 0; row < n; row++) {
        float factor = 1.0f / divisors[row];
        for (long i = 0; i < d; i++) x[row * ldx + i] *= factor;
    }
}

CLONES void attention_scores_backward(
    float *restrict p, float *restrict dp, const float *restrict logSumExp, const float *restrict dout,
    const float *restrict out, long n, long d, long h, long ldOut) {
    for (long row = 0; row < n; row++) {
        float mean = 0, shift = logSumExp[row];
        add_dots(&mean, dout + row * ldOut, out + row * ldOut, 1, h, ldOut);
        for (long i = 0; i < d; i++) {
            // Rounding may leave S a little above its logSumExp, where `exponential` is good for some ulps more.
            float value = exponential(p[row * d + i] - shift);
            p[row * d + i] = value;
            dp[row * d + i] = value * (dp[row * d + i] - mean);
        }
    }
}
