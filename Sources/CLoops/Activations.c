#include "Loops.h"

// relu(x) = max(0, x). The others are x σ(t), with the slope σ(t) + x t′ σ(t) (1 − σ(t)):
//
//     quickGELU: t = 1.702 x;   SiLU: t = x;   GELU by tanh: t = 2√(2/π) (x + 0.044715 x³),  x/2 · (1 + tanh(t/2))

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

// Gates: y = f(a) ⊙ b;  dA = dy ⊙ b ⊙ f′(a),  dB = dy ⊙ f(a). The statements make `value` f(x) and `slope` f′(x).
#define GATE(name, ...)                                                                                          \
    CLONES void name##_gate_forward(float *y, const float *a, const float *b, long n) {                          \
        ELEMENTWISE                                                                                              \
        for (long i = 0; i < n; i++) {                                                                           \
            float x = a[i], s, value, slope;                                                                     \
            __VA_ARGS__;                                                                                         \
            (void)slope;                                                                                         \
            y[i] = value * b[i];                                                                                 \
        }                                                                                                        \
    }                                                                                                            \
    CLONES void name##_gate_backward(                                                                            \
        float *da, float *db, const float *dy, const float *a, const float *b, long n) {                         \
        ELEMENTWISE                                                                                              \
        for (long i = 0; i < n; i++) {                                                                           \
            float x = a[i], other = b[i], g = dy[i], s, value, slope;                                            \
            __VA_ARGS__;                                                                                         \
            da[i] = g * other * slope;                                                                           \
            db[i] = g * value;                                                                                   \
        }                                                                                                        \
    }

GATE(identity, (void)s; value = x; slope = 1.0f)
GATE(relu, (void)s; value = x <= 0.0f ? 0.0f : x; slope = x <= 0.0f ? 0.0f : 1.0f)
GATE(gelu, float phi = normal_distribution(x, &s); value = x * phi; slope = phi + x * s * 0.3989422804f)
GATE(quick_gelu, float t = 1.702f * x, sigma = sigmoid(t, &s); value = x * sigma; slope = sigma + t * s)
GATE(gelu_tanh, float sigma = gelu_tanh_sigmoid(x, &s); value = x * sigma; slope = sigma + s)
GATE(silu, float sigma = sigmoid(x, &s); value = x * sigma; slope = sigma + x * s)
