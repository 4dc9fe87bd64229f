#include "Loops.h"

// m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ · decay − step · m / (√v · rootScale + ε)

CLONES void adamw_step(
    float *restrict theta, float *restrict m, float *restrict v, const float *restrict g, float beta1,
    float rest1, float beta2, float rest2, float decay, float step, float rootScale, float epsilon, long n) {
    for (long i = 0; i < n; i++) {
        m[i] = beta1 * m[i] + rest1 * g[i];
        v[i] = beta2 * v[i] + rest2 * g[i] * g[i];
        theta[i] = theta[i] * decay - step * m[i] / (__builtin_elementwise_sqrt(v[i]) * rootScale + epsilon);
    }
}
