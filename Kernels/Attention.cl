// The softmax between the two products of attention; the products are `matmul` in Matrices.cl.
//
//     P = softmax(S) over each row,  dS = P ⊙ (dP − Σⱼ dP ⊙ P)

// p [n, t] ← softmax over each row, in place.
__kernel GROUP void softmax_forward(__global float *p, int n, int t) {
    SHARED(shared)
    FOR_ROWS (row, n) {
        __global float *x = p + (size_t)row * t;
        lanes largest = -INFINITY;
        FOR_COLUMNS (j, t) largest = fmax(largest, load_or(x + j, t - j, -INFINITY));
        float shift = group_max(largest, shared);
        lanes sum = 0.0f;
        FOR_COLUMNS (j, t) {
            lanes e = exponential(load_or(x + j, t - j, -INFINITY) - shift);
            sum += e;
            store_lanes(e, x + j, t - j);
        }
        float scale = 1.0f / group_sum(sum, shared);
        FOR_COLUMNS (j, t) store_lanes(scale * load_lanes(x + j, t - j), x + j, t - j);
    }
}

// dp [n, t] ← p ⊙ (dp − Σⱼ dp ⊙ p) over each row, in place.
__kernel GROUP void softmax_backward(__global float *dp, __global const float *p, int n, int t) {
    SHARED(shared)
    FOR_ROWS (row, n) {
        size_t start = (size_t)row * t;
        lanes sum = 0.0f;
        FOR_COLUMNS (j, t)
            sum = MULTIPLY_ADD(load_lanes(dp + start + j, t - j), load_lanes(p + start + j, t - j), sum);
        float dot_ = group_sum(sum, shared);
        FOR_COLUMNS (j, t)
            store_lanes(
                load_lanes(p + start + j, t - j) * (load_lanes(dp + start + j, t - j) - dot_), dp + start + j,
                t - j);
    }
}
