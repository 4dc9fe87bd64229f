#include "Loops.h"

//     AdamW   m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ · decay − step · m / (√v · rootScale + ε)
//     SGD     v ← μv + (g + λθ);  θ ← θ − ηv, or with Nesterov's look ahead θ − η((g + λθ) + μv)
//     Lion    θ ← θ · decay − η sign(β₁m + (1−β₁)g);  m ← β₂m + (1−β₂)g

CLONES void adamw_step(
    float *restrict theta, float *restrict m, float *restrict v, const float *restrict g, float beta1,
    float rest1, float beta2, float rest2, float decay, float step, float rootScale, float epsilon, long n) {
    for (long i = 0; i < n; i++) {
        m[i] = beta1 * m[i] + rest1 * g[i];
        v[i] = beta2 * v[i] + rest2 * g[i] * g[i];
        theta[i] = theta[i] * decay - step * m[i] / (__builtin_elementwise_sqrt(v[i]) * rootScale + epsilon);
    }
}

CLONES void sgd_step(
    float *restrict theta, float *restrict v, const float *restrict g, float eta, float lambda, float mu, int nesterov,
    long n) {
    for (long i = 0; i < n; i++) {
        float slope = g[i] + lambda * theta[i];
        v[i] = mu * v[i] + slope;
        theta[i] -= eta * (nesterov ? slope + mu * v[i] : v[i]);
    }
}

CLONES void lion_step(
    float *restrict theta, float *restrict m, const float *restrict g, float beta1, float rest1, float beta2,
    float rest2, float decay, float eta, long n) {
    for (long i = 0; i < n; i++) {
        float direction = beta1 * m[i] + rest1 * g[i];
        // A NaN stays one.
        float sign = direction > 0 ? 1 : direction < 0 ? -1 : direction;
        theta[i] = theta[i] * decay - eta * sign;
        m[i] = beta2 * m[i] + rest2 * g[i];
    }
}
