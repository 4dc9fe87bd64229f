#include "Loops.h"

// Rotary position embedding: (a, b) ← (a c − b s, b c + a s).

CLONES void rotate_rows(
    float *x, const int *positions, const float *cosines, const float *sines, float sign, int interleaved, long n,
    long stride, long heads, long h, long pairs) {
    for (long row = 0; row < n; row++) {
        const float *cosine = cosines + positions[row] * pairs, *sine = sines + positions[row] * pairs;
        for (long head = 0; head < heads; head++) {
            float *first = x + row * stride + head * h, *second = first + pairs;
            if (interleaved) {
                ELEMENTWISE
                for (long i = 0; i < pairs; i++) {
                    float a = first[2 * i], b = first[2 * i + 1], s = sign * sine[i];
                    first[2 * i] = a * cosine[i] - b * s;
                    first[2 * i + 1] = b * cosine[i] + a * s;
                }
            } else {
                ELEMENTWISE
                for (long i = 0; i < pairs; i++) {
                    float a = first[i], b = second[i], s = sign * sine[i];
                    first[i] = a * cosine[i] - b * s;
                    second[i] = b * cosine[i] + a * s;
                }
            }
        }
    }
}
