#include "Loops.h"

// The scale and shift of columns, and dropout by a hash.

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
