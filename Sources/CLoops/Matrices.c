#include "Loops.h"

// What becomes of a product, and sums of rows:
//
//     y = scale ⊙ z + t · down + bias,  activated = gelu(y),  product = z

// bias + t · down for the four rows of `down` that lie ld apart.
INLINE float shift(const float *bias, const float *t, const float *down, long ld, long i) {
    return bias[i] + (t[0] * down[i] + t[1] * down[ld + i])
        + (t[2] * down[2 * ld + i] + t[3] * down[3 * ld + i]);
}

CLONES void epilogue_forward(
    float *y, float *product, float *activated, const float *z, const float *t, const float *rows, long r,
    long n, long d, long ld, long ldRows) {
    ALIGNED float value[TILE];
    for (long row = 0; row < n; row++) {
        float four[4];
        first_four(four, t + row * r, r);
        for (long first = 0; first < d; first += TILE) {
            long m = smaller(TILE, d - first), at = row * ld + first;
            const float *scale = rows + first, *bias = scale + ldRows, *down = bias + ldRows;
            if (r > 4) {
                memcpy(value, bias, m * sizeof(float));
                add_combination(value, t + row * r + 4, down + 4 * ldRows, r - 4, m, ldRows);
                bias = value;
            }
            if (product && product != z) memcpy(product + at, z + at, m * sizeof(float));
            if (!z) {
                ELEMENTWISE
                for (long i = 0; i < m; i++) y[at + i] = shift(bias, four, down, ldRows, i);
            } else if (y && activated) {
                ELEMENTWISE
                for (long i = 0; i < m; i++) {
                    float v = scale[i] * z[at + i] + shift(bias, four, down, ldRows, i);
                    y[at + i] = v;
                    activated[at + i] = gelu(v);
                }
            } else if (activated) {
                ELEMENTWISE
                for (long i = 0; i < m; i++)
                    activated[at + i] = gelu(scale[i] * z[at + i] + shift(bias, four, down, ldRows, i));
            } else if (y) {
                ELEMENTWISE
                for (long i = 0; i < m; i++)
                    y[at + i] = scale[i] * z[at + i] + shift(bias, four, down, ldRows, i);
            }
        }
    }
}

CLONES void sum_rows(float *sums, const float *x, long n, long d, long ldx) {
    memset(sums, 0, d * sizeof(float));
    for (long first = 0; first < d; first += STRIP)
        add_rows(sums + first, x + first, n, smaller(STRIP, d - first), ldx);
}

CLONES void add_to(float *restrict out, const float *restrict x, long n) {
    for (long i = 0; i < n; i++) out[i] += x[i];
}
