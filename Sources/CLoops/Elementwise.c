#include "Loops.h"

// gelu(x) = x Φ(x),  gelu′(x) = Φ(x) + x φ(x),  φ(x) = exp(−x²/2) / √(2π)

CLONES void gelu_forward(float *y, const float *x, long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) y[i] = gelu(x[i]);
}

CLONES void gelu_backward(float *dx, const float *dy, const float *x, long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) {
        float e, z = x[i];
        float phi = normal_distribution(z, &e);
        dx[i] = dy[i] * (phi + z * e * 0.3989422804f);
    }
}

CLONES void residual_add(float *out, const float *x, const float *branch, float scale, long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) out[i] = x[i] + scale * branch[i];
}

CLONES void scale_elements(float *out, const float *x, float scale, long n) {
    ELEMENTWISE
    for (long i = 0; i < n; i++) out[i] = scale * x[i];
}
