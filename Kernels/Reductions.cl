// Sums over the rows and over the columns of a matrix, which several operations share.
//
// A sum over rows is taken in parts, by groups [strips of columns, parts], and the parts are summed by a
// second kernel: parallel over both directions, in a fixed order, and with the rounding error of a short sum. The parts' own
// errors average out; what is left is that of summing them, so that is done eight by eight: 10,000 rows of one sign are then off
// by 0.7 · 2⁻²⁴ in the mean square instead of 1.6.

// The vectors of a row that a sum over rows takes together: on a CPU device four, whole cache lines that the
// prefetcher likes, in registers for four outputs.
#define TOGETHER (LOCAL == 1 ? 4 : 1)

// partials [parts, outputs, d] ← Σₙ weights[n, k] · x[n, j] · factor[n, j] over each part of the n rows, for
// k in 0..<outputs. x is [n, xStride], factor like x or null (1), weights [n, weightStride] or null (1).
__kernel GROUP void column_sums(
    __global float *partials, __global const stored *x, __global const stored *factor,
    __global const float *weights, int n, int d, int xStride, int outputs, int firstOutput,
    int weightStride) {
    int part = get_group_id(1), parts = get_num_groups(1);
    int first = (int)((long)n * part / parts), last = (int)((long)n * (part + 1) / parts);
    int end = min(d, (int)(get_group_id(0) + 1) * STRIP);
    for (int j = (int)get_group_id(0) * STRIP + (int)get_local_id(0) * WIDTH; j < end;
         j += LOCAL * TOGETHER * WIDTH)
        // Four outputs at a time, which stay in registers.
        for (int k = 0; k < outputs; k += 4) {
            const int columns = end - j, several = outputs > k + 1;
            lanes sums[4][TOGETHER];
#pragma unroll
            for (int q = 0; q < 4; q++)
#pragma unroll
                for (int v = 0; v < TOGETHER; v++) sums[q][v] = 0.0f;
#define ADD_ROWS(lanes_)                                                                                \
    for (int row = first; row < last; row++) {                                                          \
        float weight[4];                                                                                \
        _Pragma("unroll") for (int q = 0; q < 4; q++) weight[q] = k + q >= outputs ? 0.0f               \
            : weights ? weights[(size_t)row * weightStride + firstOutput + k + q]                       \
                      : 1.0f;                                                                           \
        size_t i = (size_t)row * xStride + j;                                                           \
        _Pragma("unroll") for (int v = 0; v < TOGETHER; v++) {                                          \
            if ((lanes_) <= 0) continue;                                                                \
            lanes value = stored_lanes(x + i + v * WIDTH, lanes_);                                      \
            if (factor) value *= stored_lanes(factor + i + v * WIDTH, lanes_);                          \
            sums[0][v] = MULTIPLY_ADD(value, (lanes)(weight[0]), sums[0][v]);                           \
            if (several) {                                                                              \
                _Pragma("unroll") for (int q = 1; q < 4; q++) sums[q][v] =                              \
                    MULTIPLY_ADD(value, (lanes)(weight[q]), sums[q][v]);                                \
            }                                                                                           \
        }                                                                                               \
    }
            if (columns >= TOGETHER * WIDTH) {
                ADD_ROWS(WIDTH)
            } else {
                ADD_ROWS(columns - v * WIDTH)
            }
#undef ADD_ROWS
#pragma unroll
            for (int q = 0; q < 4; q++)
#pragma unroll
                for (int v = 0; v < TOGETHER; v++)
                    if (k + q < outputs && columns > v * WIDTH)
                        store_lanes(
                            sums[q][v], partials + ((size_t)part * outputs + k + q) * d + j + v * WIDTH,
                            columns - v * WIDTH);
        }
}

// out [firstOutput + i] ← Σₚ partials[p, offset + i] for i in 0..<n, or out + … when accumulate; partials is
// [parts, stride].
__kernel GROUP void sum_parts(
    __global float *out, __global const float *partials, int n, int stride, int offset, int firstOutput,
    int parts, int accumulate) {
    FOR_ELEMENTS (i, n) {
        lanes sum = 0.0f;
        for (int first = 0; first < parts; first += 8) {
            lanes eight = 0.0f;
            for (int p = first; p < min(first + 8, parts); p++)
                eight += load_lanes(partials + (size_t)p * stride + offset + i, n - i);
            sum += eight;
        }
        if (accumulate) sum += load_lanes(out + firstOutput + i, n - i);
        store_lanes(sum, out + firstOutput + i, n - i);
    }
}

// out[outOffset + i · outRow + k · outColumn] += Σₚ partials[p, offset + i · rowStep + k · columnStep] for i in 0..<n,
// k in 0..<rank; partials is [parts, stride].
__kernel GROUP void sum_parts_columns(
    __global float *out, __global const float *partials, int n, int rank, int outOffset, int outRow, int outColumn,
    int offset, int rowStep, int columnStep, int stride, int parts) {
    FOR_ROWS (block, (n + LOCAL - 1) / LOCAL) {
        int i = block * LOCAL + (int)get_local_id(0);
        if (i >= n) continue;
        for (int k = 0; k < rank; k++) {
            float sum = 0.0f;
            for (int first = 0; first < parts; first += 8) {
                float eight = 0.0f;
                for (int p = first; p < min(first + 8, parts); p++)
                    eight += partials[(size_t)p * stride + offset + (size_t)i * rowStep + (size_t)k * columnStep];
                sum += eight;
            }
            out[outOffset + (size_t)i * outRow + (size_t)k * outColumn] += sum;
        }
    }
}

// out[0] += Σₚ Σᵢ partials[p, offset + i] for i in 0..<n: one group; partials is [parts, stride].
__kernel GROUP void sum_parts_total(
    __global float *out, __global const float *partials, int n, int stride, int offset, int parts) {
    SHARED(shared)
    float total = 0.0f;
    for (int first = 0; first < parts; first += 8) {
        float eight = 0.0f;
        for (int p = first; p < min(first + 8, parts); p++) {
            lanes sum = 0.0f;
            FOR_COLUMNS (i, n) sum += load_lanes(partials + (size_t)p * stride + offset + i, n - i);
            eight += group_sum(sum, shared);
        }
        total += eight;
    }
    if (get_local_id(0) == 0) out[0] += total;
}

// partials [parts, 2 + rank, d] ← Σ x, Σ x ⊙ z and Σ x · t[n, k] over each part of the n rows; x is [n, d], z like x or
// null (its sum is left out), t [n, rank] or null. All in one pass over x.
__kernel GROUP void output_sums(
    __global float *partials, __global const stored *x, __global const stored *z, __global const float *t, int n,
    int d, int rank) {
    int part = get_group_id(1), parts = get_num_groups(1);
    int first = (int)((long)n * part / parts), last = (int)((long)n * (part + 1) / parts);
    int end = min(d, (int)(get_group_id(0) + 1) * STRIP);
    __global float *out = partials + (size_t)part * (2 + rank) * d;
    for (int j = (int)get_group_id(0) * STRIP + (int)get_local_id(0) * WIDTH; j < end;
         j += LOCAL * TOGETHER * WIDTH)
        // Four columns of t at a time, which stay in registers.
        for (int k = 0; k == 0 || k < rank; k += 4) {
            lanes sum[TOGETHER], product[TOGETHER], weighted[4][TOGETHER];
#pragma unroll
            for (int v = 0; v < TOGETHER; v++) {
                sum[v] = product[v] = 0.0f;
#pragma unroll
                for (int q = 0; q < 4; q++) weighted[q][v] = 0.0f;
            }
            const int columns = end - j;
#define ADD_ROWS(lanes_)                                                                                \
    for (int row = first; row < last; row++) {                                                          \
        float weight[4];                                                                                \
        _Pragma("unroll") for (int q = 0; q < 4; q++) weight[q] =                                       \
            k + q < rank ? t[(size_t)row * rank + k + q] : 0.0f;                                        \
        size_t i = (size_t)row * d + j;                                                                 \
        _Pragma("unroll") for (int v = 0; v < TOGETHER; v++) {                                          \
            if ((lanes_) <= 0) continue;                                                                \
            lanes value = stored_lanes(x + i + v * WIDTH, lanes_);                                      \
            sum[v] += value;                                                                            \
            if (z) product[v] = MULTIPLY_ADD(value, stored_lanes(z + i + v * WIDTH, lanes_), product[v]); \
            if (rank > 0) {                                                                             \
                _Pragma("unroll") for (int q = 0; q < 4; q++) weighted[q][v] =                          \
                    MULTIPLY_ADD(value, (lanes)(weight[q]), weighted[q][v]);                            \
            }                                                                                           \
        }                                                                                               \
    }
            if (columns >= TOGETHER * WIDTH) {
                ADD_ROWS(WIDTH)
            } else {
                ADD_ROWS(columns - v * WIDTH)
            }
#undef ADD_ROWS
#pragma unroll
            for (int v = 0; v < TOGETHER; v++) {
                __global float *to = out + j + v * WIDTH;
                const int count = columns - v * WIDTH;
                if (count <= 0) continue;
                if (k == 0) {
                    store_lanes(sum[v], to, count);
                    store_lanes(product[v], to + d, count);
                }
#pragma unroll
                for (int q = 0; q < 4; q++)
                    if (k + q < rank) store_lanes(weighted[q][v], to + (size_t)(2 + k + q) * d, count);
            }
        }
}

// out[n, k] ← Σⱼ x[n, j] · factor[n, j] · up[k, j], or out + … when accumulate, for k in 0..<outputs. x is
// [n, d], factor [n, d] or null (1), up [outputs, d], from upOffset on, or null (1), out
// [n, outStride].
__kernel GROUP void row_dots(
    __global float *out, __global const stored *x, __global const stored *factor, __global const float *up,
    int upOffset, int n, int d, int outputs, int outStride, int accumulate) {
    SHARED(shared)
    FOR_ROWS (row, n) {
        // Four outputs at a time: x and factor are read once for all of them.
        for (int k = 0; k < outputs; k += 4) {
            lanes sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            // The last output again instead of one behind it: its sum is dropped.
            __global const float *rows[4];
#pragma unroll
            for (int q = 0; q < 4; q++)
                rows[q] = up ? up + upOffset + (size_t)min(k + q, outputs - 1) * d : up;
            const int several = outputs > k + 1;
            FOR_COLUMNS (j, d)
                WITH_LANES(
                    d - j, lanes value = stored_lanes(x + (size_t)row * d + j, lanes_);
                    if (factor) value *= stored_lanes(factor + (size_t)row * d + j, lanes_);
                    if (!up) {
                        sums[0] += value;
                    } else {
                        sums[0] = MULTIPLY_ADD(value, load_lanes(rows[0] + j, lanes_), sums[0]);
                        if (several) {
                            sums[1] = MULTIPLY_ADD(value, load_lanes(rows[1] + j, lanes_), sums[1]);
                            sums[2] = MULTIPLY_ADD(value, load_lanes(rows[2] + j, lanes_), sums[2]);
                            sums[3] = MULTIPLY_ADD(value, load_lanes(rows[3] + j, lanes_), sums[3]);
                        }
                    })
            for (int q = 0; q < min(4, outputs - k); q++) {
                float sum = group_sum(sums[q], shared);
                __global float *target = out + (size_t)row * outStride + k + q;
                if (get_local_id(0) == 0) *target = accumulate ? *target + sum : sum;
            }
        }
    }
}
