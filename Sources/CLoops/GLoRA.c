#include "Loops.h"

// The weight of a GLoRA layer, W = W₀ ⊙ (1 + A) + B with A = ca · a and B = cb · b of low rank, its gradient contracted with
// the factors, and the skinny products of activation space. Each matrix is read once.

// One row of W for ranks up to 4, in registers. A factor's rows end in zeros up to a multiple of 4.
INLINE void glora_weight_row(
    float *restrict w, const float *restrict w0, const float *restrict ca, const float *restrict a,
    const float *restrict cb, const float *restrict b, long d, long ld) {
    const float *a1 = a + ld, *a2 = a1 + ld, *a3 = a2 + ld, *b1 = b + ld, *b2 = b1 + ld, *b3 = b2 + ld;
    float p0 = ca[0], p1 = ca[1], p2 = ca[2], p3 = ca[3], q0 = cb[0], q1 = cb[1], q2 = cb[2], q3 = cb[3];
    for (long i = 0; i < d; i++) {
        float scale = 1.0f + (p0 * a[i] + p1 * a1[i]) + (p2 * a2[i] + p3 * a3[i]);
        w[i] = w0[i] * scale + ((q0 * b[i] + q1 * b1[i]) + (q2 * b2[i] + q3 * b3[i]));
    }
}

CLONES void glora_weight(
    float *restrict w, const float *restrict w0, const float *ca, long ldca, const float *a, long ra,
    const float *cb, long ldcb, const float *b, long rb, long n, long d) {
    ALIGNED float scale[TILE];
    ALIGNED float shift[TILE];
    float fourA[4], fourB[4];
    long ld = factor_length(d);
    for (long row = 0; row < n; row++) {
        if (ra <= 4 && rb <= 4) {
            first_four(fourA, ca + row * ldca, ra);
            first_four(fourB, cb + row * ldcb, rb);
            glora_weight_row(w + row * d, w0 + row * d, fourA, a, fourB, b, d, ld);
            continue;
        }
        for (long first = 0; first < d; first += TILE) {
            long m = smaller(TILE, d - first), at = row * d + first;
            for (long i = 0; i < m; i++) scale[i] = 1.0f;
            memset(shift, 0, m * sizeof(float));
            add_combination(scale, ca + row * ldca, a + first, ra, m, ld);
            add_combination(shift, cb + row * ldcb, b + first, rb, m, ld);
            for (long i = 0; i < m; i++) w[at + i] = w0[at + i] * scale[i] + shift[i];
        }
    }
}

CLONES void glora_weight_backward(
    float *dca, float *da, float *dcb, float *db, const float *dw, const float *w0, const float *ca,
    long ldca, const float *a, long ra, const float *cb, long ldcb, const float *b, long rb, long n, long d) {
    ALIGNED float product[4 * TILE];  // [4, TILE] of p
    long ld = factor_length(d);
    memset(dca, 0, n * ra * sizeof(float));
    memset(dcb, 0, n * rb * sizeof(float));
    if (da) memset(da, 0, ra * ld * sizeof(float));
    if (db) memset(db, 0, rb * ld * sizeof(float));
    for (long row = 0; row < n; row += 4) {
        long rows = smaller(4, n - row);
        for (long first = 0; first < d; first += TILE) {
            long m = smaller(TILE, d - first), at = row * d + first;
            if (ra > 0) {
                for (long k = 0; k < rows; k++) {
                    for (long i = 0; i < m; i++)
                        product[k * TILE + i] = dw[at + k * d + i] * w0[at + k * d + i];
                    add_dots(dca + (row + k) * ra, product + k * TILE, a + first, ra, m, ld);
                }
                if (da) add_outer(da + first, ca + row * ldca, product, ra, rows, m, ld, ldca, TILE);
            }
            for (long k = 0; k < rows; k++)
                add_dots(dcb + (row + k) * rb, dw + at + k * d, b + first, rb, m, ld);
            if (db) add_outer(db + first, cb + row * ldcb, dw + at, rb, rows, m, ld, ldcb, d);
        }
    }
}

CLONES void project_rows(float *t, const float *x, const float *rows, long r, long n, long d) {
    memset(t, 0, n * r * sizeof(float));
    for (long row = 0; row < n; row++) add_dots(t + row * r, x + row * d, rows, r, d, factor_length(d));
}

CLONES void project_backward(float *du, const float *u, const float *x, long r, long n, long d) {
    long ld = factor_length(d);
    memset(du, 0, r * ld * sizeof(float));
    for (long first = 0; first < d; first += STRIP)
        add_outer(du + first, u, x + first, r, n, smaller(STRIP, d - first), ld, r, d);
}

// sums [n] ← sums + Σₘ x ⊙ y, with x and y [m, n] with rows of ldx.
INLINE void add_row_products(
    float *restrict sums, const float *restrict x, const float *restrict y, long m, long n, long ldx) {
    long k = 0;
    for (; k + 4 <= m; k += 4) {
        const float *x0 = x + k * ldx, *x1 = x0 + ldx, *x2 = x1 + ldx, *x3 = x2 + ldx;
        const float *y0 = y + k * ldx, *y1 = y0 + ldx, *y2 = y1 + ldx, *y3 = y2 + ldx;
        for (long i = 0; i < n; i++)
            sums[i] += (x0[i] * y0[i] + x1[i] * y1[i]) + (x2[i] * y2[i] + x3[i] * y3[i]);
    }
    for (; k < m; k++)
        for (long i = 0; i < n; i++) sums[i] += x[k * ldx + i] * y[k * ldx + i];
}

CLONES void glora_output_backward(
    float *sums, const float *dy, const float *z, const float *t, long r, long n, long d) {
    long ld = factor_length(d);
    memset(sums, 0, (z ? r + 2 : r + 1) * ld * sizeof(float));
    for (long first = 0; first < d; first += STRIP) {
        long m = smaller(STRIP, d - first);
        for (long row = 0; row < n; row += 4) {
            long rows = smaller(4, n - row), at = row * d + first;
            if (z) add_row_products(sums + (r + 1) * ld + first, dy + at, z + at, rows, m, d);
            add_rows(sums + first, dy + at, rows, m, d);
            add_outer(sums + ld + first, t + row * r, dy + at, r, rows, m, ld, r, d);
        }
    }
}
