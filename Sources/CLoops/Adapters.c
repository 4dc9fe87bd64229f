#include "Loops.h"

// relu(x) = max(0, x). The others are x σ(t), with the slope σ(t) + x t′ σ(t) (1 − σ(t)):
//
//     quickGELU: t = 1.702 x;   SiLU: t = x;   GELU by tanh: t = 2√(2/π) (x + 0.044715 x³),  x/2 · (1 + tanh(t/2))
//
// The scale and shift of columns, dropout by a hash, and SGD with momentum.

// Asking for x ≤ 0 rather than x > 0, since a NaN has to stay one.
CLONES void relu_forward(float *y, const float *x, long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) y[i] = x[i] <= 0.0f ? 0.0f : x[i];
}

CLONES void relu_backward(float *dx, const float *dy, const float *x, long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) {
        float g = dy[i];
        dx[i] = x[i] <= 0.0f ? 0.0f : g;
    }
}

// σ(t), and *slope = σ(t) (1 − σ(t)): by e^(−|t|), which neither overflows nor leaves 1 − σ to a difference.
INLINE float sigmoid(float t, float *slope) {
    float e = exponential(-__builtin_fabsf(t));
    float inverse = 1.0f / (1.0f + e);
    float other = e * inverse;
    *slope = inverse * other;
    return t < 0.0f ? other : inverse;
}

CLONES void quick_gelu_forward(float *y, const float *x, long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) {
        float slope;
        y[i] = x[i] * sigmoid(1.702f * x[i], &slope);
    }
}

CLONES void quick_gelu_backward(float *dx, const float *dy, const float *x, long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) {
        float t = 1.702f * x[i], slope;
        float value = sigmoid(t, &slope);
        dx[i] = dy[i] * (value + t * slope);
    }
}

// σ(t) of GELU by tanh, and *slope = x t′ σ(t) (1 − σ(t)). Beyond ±16 σ is 0 or 1 and its slope 0, which x³ = ∞ would make a NaN.
INLINE float gelu_tanh_sigmoid(float x, float *slope) {
    float c = x > 16.0f ? 16.0f : x < -16.0f ? -16.0f : x, square = c * c;
    float s, value = sigmoid(1.5957691216f * c * (1.0f + 0.044715f * square), &s);
    *slope = 1.5957691216f * c * (1.0f + 0.134145f * square) * s;
    return value;
}

CLONES void gelu_tanh_forward(float *y, const float *x, long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) {
        float slope;
        y[i] = x[i] * gelu_tanh_sigmoid(x[i], &slope);
    }
}

CLONES void gelu_tanh_backward(float *dx, const float *dy, const float *x, long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) {
        float slope, value = gelu_tanh_sigmoid(x[i], &slope);
        dx[i] = dy[i] * (value + slope);
    }
}

CLONES void silu_forward(float *y, const float *x, long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) {
        float slope;
        y[i] = x[i] * sigmoid(x[i], &slope);
    }
}

CLONES void silu_backward(float *dx, const float *dy, const float *x, long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) {
        float slope, value = sigmoid(x[i], &slope);
        dx[i] = dy[i] * (value + x[i] * slope);
    }
}

CLONES void scale_shift_forward(
    float *y, const float *x, const float *scale, const float *shift, long n, long d) {
    for (long row = 0; row < n; row++) {
        const float *in = x + row * d;
        float *out = y + row * d;
        if (shift) {
            ELEMENTWISE
            for (long i = 0; i < d; i++) out[i] = in[i] * scale[i] + shift[i];
        } else {
            ELEMENTWISE
            for (long i = 0; i < d; i++) out[i] = in[i] * scale[i];
        }
    }
}

CLONES void scale_shift_backward(
    float *dx, float *sums, const float *dy, const float *x, const float *scale, long n, long d) {
    memset(sums, 0, 2 * d * sizeof(float));
    for (long row = 0; row < n; row++) {
        const float *in = x + row * d, *dout = dy + row * d;
        ELEMENTWISE
        for (long i = 0; i < d; i++) {
            sums[i] += dout[i] * in[i];
            sums[d + i] += dout[i];
        }
        if (!dx) continue;
        // After the sums, which read dy: dx may be in its place.
        float *out = dx + row * d;
        ELEMENTWISE
        for (long i = 0; i < d; i++) out[i] = dout[i] * scale[i];
    }
}

// lowbias32 (Wellons, 2018): every bit of the input moves every bit of the output with a probability of ½, to 0.2 %.
INLINE unsigned mixed(unsigned h) {
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    return h ^ (h >> 16);
}

CLONES void dropout_forward(
    float *y, const float *x, unsigned first, unsigned low, unsigned high, unsigned threshold, float factor,
    long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) {
        float value = factor * x[i];
        y[i] = mixed(mixed((first + (unsigned)i) ^ low) ^ high) < threshold ? 0.0f : value;
    }
}

CLONES void sgd_step(
    float *restrict theta, float *restrict v, const float *restrict g, float eta, float lambda, float mu, long n) {
    for (long i = 0; i < n; i++) {
        v[i] = mu * v[i] + (g[i] + lambda * theta[i]);
        theta[i] -= eta * v[i];
    }
}
