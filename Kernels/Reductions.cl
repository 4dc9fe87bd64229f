// Sums over the rows and over the columns of a matrix, which several operations share.
//
// A sum over rows is taken in parts, by groups [strips of columns, parts], and the parts are summed by a
// second kernel: parallel over both directions, in a fixed order, and with the rounding error of a short sum.

// partials [parts, outputs, d] ← Σₙ weights[n, k] · x[n, j] · factor[n, j] over each part of the n rows, for
// k in 0..<outputs. x is [n, xStride], factor like x or null (1), weights [n, weightStride] or null (1).
__kernel GROUP void column_sums(
    __global float *partials, __global const float *x, __global const float *factor,
    __global const float *weights, int n, int d, int xStride, int outputs, int firstOutput,
    int weightStride) {
    int part = get_group_id(1), parts = get_num_groups(1);
    int first = (int)((long)n * part / parts), last = (int)((long)n * (part + 1) / parts);
    int end = min(d, (int)(get_group_id(0) + 1) * STRIP);
    // The outputs outermost: a part's strip is read again from the cache.
    for (int k = 0; k < outputs; k++) {
        for (int j = (int)get_group_id(0) * STRIP + (int)get_local_id(0) * WIDTH; j < end;
             j += LOCAL * WIDTH) {
            lanes sum = 0.0f;
            for (int row = first; row < last; row++) {
                lanes value = load_lanes(x + (size_t)row * xStride + j, d - j);
                if (factor) value *= load_lanes(factor + (size_t)row * xStride + j, d - j);
                float weight = weights ? weights[(size_t)row * weightStride + firstOutput + k] : 1.0f;
                sum = MULTIPLY_ADD(value, (lanes)(weight), sum);
            }
            store_lanes(sum, partials + ((size_t)part * outputs + k) * d + j, d - j);
        }
    }
}

// out [firstOutput + i] ← Σₚ partials[p, offset + i] for i in 0..<n, or out + … when accumulate; partials is
// [parts, stride].
__kernel GROUP void sum_parts(
    __global float *out, __global const float *partials, int n, int stride, int offset, int firstOutput,
    int parts, int accumulate) {
    FOR_ELEMENTS (i, n) {
        lanes sum = 0.0f;
        for (int p = 0; p < parts; p++) sum += load_lanes(partials + (size_t)p * stride + offset + i, n - i);
        if (accumulate) sum += load_lanes(out + firstOutput + i, n - i);
        store_lanes(sum, out + firstOutput + i, n - i);
    }
}

// out[n, k] ← Σⱼ x[n, j] · factor[n, j] · up[k, j], or out + … when accumulate, for k in 0..<outputs. x is
// [n, d], factor [n, d] or null (1), up [outputs, d] or null (1), out [n, outStride].
__kernel GROUP void row_dots(
    __global float *out, __global const float *x, __global const float *factor, __global const float *up,
    int n, int d, int outputs, int outStride, int accumulate) {
    SHARED(shared)
    FOR_ROWS (row, n) {
        // Four outputs at a time: x and factor are read once for all of them.
        for (int k = 0; k < outputs; k += 4) {
            lanes sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            FOR_COLUMNS (j, d) {
                lanes value = load_lanes(x + (size_t)row * d + j, d - j);
                if (factor) value *= load_lanes(factor + (size_t)row * d + j, d - j);
                for (int q = 0; q < 4; q++) {
                    if (!up)
                        sums[q] += value;
                    else if (k + q < outputs)
                        sums[q] =
                            MULTIPLY_ADD(value, load_lanes(up + (size_t)(k + q) * d + j, d - j), sums[q]);
                }
            }
            for (int q = 0; q < 4; q++) {
                float sum = group_sum(sums[q], shared);
                __global float *target = out + (size_t)row * outStride + k + q;
                if (get_local_id(0) == 0 && k + q < outputs) *target = accumulate ? *target + sum : sum;
            }
        }
    }
}
