#include "Loops.h"

// y = x̂ ⊙ w + b with x̂ = (x − mean) · rstd over each row, rstd = 1 / √(var + ε), var biased.
//
// With g = dy ⊙ w:  dx = rstd · (g − mean(g) − x̂ · mean(g ⊙ x̂)),  dw = Σₙ dy ⊙ x̂,  db = Σₙ dy.
//
// RMSNorm is the same without mean and bias: x̂ = x · rstd, rstd = 1 / √(mean(x²) + ε),  dx = rstd · (g − x̂ · mean(g ⊙ x̂)).

INLINE float sum(const float *x, long n) {
#pragma clang fp reassociate(on)
    float s = 0;
    for (long i = 0; i < n; i++) s += x[i];
    return s;
}

// Σ (x − mean)²: a second pass over the row, which is in the cache. E[x²] − mean² loses all digits when the mean is large.
INLINE float squared_deviation(const float *x, float mean, long n) {
#pragma clang fp reassociate(on)
    float s = 0;
    for (long i = 0; i < n; i++) {
        float deviation = x[i] - mean;
        s += deviation * deviation;
    }
    return s;
}

CLONES void layer_norm_forward(
    float *restrict y, float *restrict mean, float *restrict rstd, const float *restrict x,
    const float *restrict weight, const float *restrict bias, long n, long d, float epsilon) {
    for (long row = 0; row < n; row++) {
        const float *in = x + row * d;
        float *out = y + row * d;
        float m = sum(in, d) / d;
        float variance = squared_deviation(in, m, d) / d;
        // 1 / √∞ is 0: a row whose squares overflow would come out as the bias.
        float r = __builtin_isinf(variance) ? __builtin_nanf("")
                                            : 1.0f / __builtin_elementwise_sqrt(variance + epsilon);
        for (long i = 0; i < d; i++) out[i] = (in[i] - m) * r * weight[i] + bias[i];
        mean[row] = m;
        rstd[row] = r;
    }
}

// *sumG ← Σ g, *product ← Σ g ⊙ (x − mean).
INLINE void gradient_sums(
    float *sumG, float *product, const float *dy, const float *x, const float *weight, float mean, long n) {
#pragma clang fp reassociate(on)
    float s = 0, p = 0;
    for (long i = 0; i < n; i++) {
        float g = dy[i] * weight[i];
        s += g;
        p += g * (x[i] - mean);
    }
    *sumG = s;
    *product = p;
}

CLONES void layer_norm_backward(
    float *restrict dx, float *restrict sums, const float *restrict dy, const float *restrict x,
    const float *restrict mean, const float *restrict rstd, const float *restrict weight, long n, long d,
    int accumulate) {
    if (sums) memset(sums, 0, 2 * d * sizeof(float));
    for (long row = 0; row < n; row++) {
        const float *in = x + row * d, *dout = dy + row * d;
        float *out = dx + row * d;
        float m = mean[row], r = rstd[row], sumG, product;
        gradient_sums(&sumG, &product, dout, in, weight, m, d);
        float meanG = sumG / d, slope = product * r / d * r;
        if (accumulate) {
            for (long i = 0; i < d; i++)
                out[i] += r * (dout[i] * weight[i] - meanG - (in[i] - m) * slope);
        } else {
            for (long i = 0; i < d; i++) out[i] = r * (dout[i] * weight[i] - meanG - (in[i] - m) * slope);
        }
        if (!sums) continue;
        for (long i = 0; i < d; i++) {
            sums[i] += dout[i] * ((in[i] - m) * r);
            sums[d + i] += dout[i];
        }
    }
}

CLONES void rms_norm_forward(
    float *restrict y, float *restrict rstd, const float *restrict x, const float *restrict weight, long n, long d,
    float epsilon) {
    for (long row = 0; row < n; row++) {
        const float *in = x + row * d;
        float *out = y + row * d;
        float square = squared_deviation(in, 0.0f, d) / d;
        float r = __builtin_isinf(square) ? __builtin_nanf("")
                                          : 1.0f / __builtin_elementwise_sqrt(square + epsilon);
        for (long i = 0; i < d; i++) out[i] = in[i] * r * weight[i];
        rstd[row] = r;
    }
}

CLONES void rms_norm_backward(
    float *restrict dx, float *restrict sums, const float *restrict dy, const float *restrict x,
    const float *restrict rstd, const float *restrict weight, long n, long d, int accumulate) {
    if (sums) memset(sums, 0, d * sizeof(float));
    for (long row = 0; row < n; row++) {
        const float *in = x + row * d, *dout = dy + row * d;
        float *out = dx + row * d;
        float r = rstd[row], sumG, product;
        gradient_sums(&sumG, &product, dout, in, weight, 0.0f, d);
        float slope = product * r / d * r;
        if (accumulate) {
            for (long i = 0; i < d; i++) out[i] += r * (dout[i] * weight[i] - in[i] * slope);
        } else {
            for (long i = 0; i < d; i++) out[i] = r * (dout[i] * weight[i] - in[i] * slope);
        }
        if (!sums) continue;
        for (long i = 0; i < d; i++) sums[i] += dout[i] * (in[i] * r);
    }
}
