#ifndef LOOPS_H
#define LOOPS_H

#include <string.h>

#include "CLoops.h"

// What the loops share. The compiler vectorises plain loops; the rules that let it are
//
// - a function is compiled once per generation (CLONES), and what it calls is inlined into it;
// - where an output may be an input, the loop is marked ELEMENTWISE: over pointers that may overlap it would stay scalar;
// - sums are reordered only inside functions that say `reassociate(on)`. The order depends on the sizes and on the
//   processor's generation, never on threads.

#if defined(__x86_64__) && defined(__linux__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
// A cache line: a vector that straddles two takes twice as long.
#define ALIGNED _Alignas(64)
// The loop's iterations touch nothing of each other: an output is an input or apart from it.
#define ELEMENTWISE _Pragma("clang loop vectorize(assume_safety)")
#define INLINE static inline __attribute__((always_inline))

#pragma clang fp contract(fast)

// Elements of a tile: 1 KiB, so that some ten rows of factors lie beside it in the first cache.
#define TILE 256
// Columns of a strip when rows are summed: the sums of 8 rows of factors are 16 KiB.
#define STRIP 512

INLINE long smaller(long a, long b) { return a < b ? a : b; }

// eˣ for x ≤ 0, to 1 ulp; 0 below −64. No sum beside 1 notices 10⁻²⁸, and the products of smaller numbers would end among
// float32's denormals, each of which costs a hundred cycles.
//
// eˣ = 2ⁿ eʳ with n = round(x / ln 2) and |r| ≤ ln 2 / 2; the polynomial is Cephes' `expf` (Moshier, 1989).
INLINE float exponential(float x) {
    // 1.5 · 2²³: adding it rounds to an integer, which then lies in the low bits.
    const float shifter = 12582912.0f;
    float shifted = x * 1.44269504f + shifter;
    float n = shifted - shifter;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first exact
    // Pairs of terms rather than Horner's chain: a third of the latency, which is what a loop of this waits for.
    float r2 = r * r;
    float p = (5.0000001201e-1f + 1.6666665459e-1f * r)
        + r2 * ((4.1665795894e-2f + 8.3334519073e-3f * r) + r2 * (1.3981999507e-3f + 1.9875691500e-4f * r));
    unsigned bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits << 23) + 0x3f800000u;
    float power;
    memcpy(&power, &bits, 4);
    float value = (p * r2 + r + 1.0f) * power;
    return x < -64.0f ? 0.0f : value;  // a NaN stays one
}

// The normal distribution's Φ(x) = (1 + erf(x/√2)) / 2, and *e = exp(−x²/2).
//
// Φ(−|x|) = e · g(u) with u = (|x| − 3) / (|x| + 3) in [−1, 1). g is exp(x²/2) Φ(−|x|) on |x| ≤ 14 as a minimax polynomial
// of degree 9 (fitted in double precision, relative error 8e-9); with float32 arithmetic Φ's relative error is below 5e-7
// for x > −5 and GELU's absolute error below 4e-7 on [−10, 10].
INLINE float normal_distribution(float x, float *e) {
    *e = exponential(-0.5f * x * x);
    float u = 1.0f - 6.0f / (__builtin_fabsf(x) + 3.0f);
    float u2 = u * u, u4 = u2 * u2;
    float low = (0.12151395f - 0.20640261f * u) + u2 * (0.12322503f - 0.04621329f * u);
    float middle = (0.006132071f + 0.0029045565f * u) - u2 * (0.00098375883f + 0.00033948556f * u);
    float g = low + u4 * (middle + u4 * (0.00011554417f + 5.367234900e-05f * u));
    float tail = *e * g;
    return x < 0.0f ? tail : 1.0f - tail;
}

INLINE float gelu(float x) {
    float e;
    return x * normal_distribution(x, &e);
}

// c[j] for j < r, and zeros up to 4.
INLINE void first_four(float *out, const float *c, long r) {
    for (long j = 0; j < 4; j++) out[j] = j < r ? c[j] : 0.0f;
}

// out [n] ← out + Σⱼ c[j] · rows[j], rows [r, n] with rows of ld. Four rows at a time: one store for four products.
INLINE void add_combination(
    float *restrict out, const float *restrict c, const float *restrict rows, long r, long n, long ld) {
    long j = 0;
    for (; j + 4 <= r; j += 4) {
        const float *p0 = rows + j * ld, *p1 = p0 + ld, *p2 = p1 + ld, *p3 = p2 + ld;
        float c0 = c[j], c1 = c[j + 1], c2 = c[j + 2], c3 = c[j + 3];
        for (long i = 0; i < n; i++) out[i] += c0 * p0[i] + c1 * p1[i] + c2 * p2[i] + c3 * p3[i];
    }
    for (; j < r; j++) {
        const float *p = rows + j * ld;
        float factor = c[j];
        for (long i = 0; i < n; i++) out[i] += factor * p[i];
    }
}

// out[j] ← out[j] + Σᵢ x[i] · rows[j][i], rows [r, n] with rows of ld.
INLINE void add_dots(float *out, const float *x, const float *rows, long r, long n, long ld) {
#pragma clang fp reassociate(on)
    long j = 0;
    for (; j + 4 <= r; j += 4) {
        const float *p0 = rows + j * ld, *p1 = p0 + ld, *p2 = p1 + ld, *p3 = p2 + ld;
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (long i = 0; i < n; i++) {
            s0 += x[i] * p0[i];
            s1 += x[i] * p1[i];
            s2 += x[i] * p2[i];
            s3 += x[i] * p3[i];
        }
        out[j] += s0;
        out[j + 1] += s1;
        out[j + 2] += s2;
        out[j + 3] += s3;
    }
    for (; j < r; j++) {
        const float *p = rows + j * ld;
        float s = 0;
        for (long i = 0; i < n; i++) s += x[i] * p[i];
        out[j] += s;
    }
}

// sums [r, n] with rows of ld ← sums + cᵀ · x, with c [m, r] and x [m, n] with rows of ldx. Four rows of x at a time: the
// sums are loaded and stored once for four products.
INLINE void add_outer(
    float *restrict sums, const float *restrict c, const float *restrict x, long r, long m, long n, long ld,
    long ldc, long ldx) {
    long k = 0;
    for (; k + 4 <= m; k += 4) {
        const float *x0 = x + k * ldx, *x1 = x0 + ldx, *x2 = x1 + ldx, *x3 = x2 + ldx;
        const float *c0 = c + k * ldc, *c1 = c0 + ldc, *c2 = c1 + ldc, *c3 = c2 + ldc;
        for (long j = 0; j < r; j++) {
            float *s = sums + j * ld;
            float f0 = c0[j], f1 = c1[j], f2 = c2[j], f3 = c3[j];
            for (long i = 0; i < n; i++) s[i] += f0 * x0[i] + f1 * x1[i] + f2 * x2[i] + f3 * x3[i];
        }
    }
    for (; k < m; k++) {
        for (long j = 0; j < r; j++) {
            float *s = sums + j * ld;
            float f = c[k * ldc + j];
            for (long i = 0; i < n; i++) s[i] += f * x[k * ldx + i];
        }
    }
}

// sums [n] ← sums + Σₘ x [m, n] with rows of ldx.
INLINE void add_rows(float *restrict sums, const float *restrict x, long m, long n, long ldx) {
    long k = 0;
    for (; k + 4 <= m; k += 4) {
        const float *x0 = x + k * ldx, *x1 = x0 + ldx, *x2 = x1 + ldx, *x3 = x2 + ldx;
        for (long i = 0; i < n; i++) sums[i] += (x0[i] + x1[i]) + (x2[i] + x3[i]);
    }
    for (; k < m; k++)
        for (long i = 0; i < n; i++) sums[i] += x[k * ldx + i];
}

#endif
