// loss = −log softmax(z)[label] = log Σ exp(z − max) + max − z[label],  dz = (softmax(z) − onehot) / B.

// losses [n] and, unless null, dLogits [n, k] from logits [n, k] and labels [n]. A label outside 0..<k makes
// the loss a NaN: a kernel can't stop the program, and it must not read there.
__kernel GROUP void softmax_cross_entropy(
    __global float *losses, __global float *dLogits, __global const float *logits, __global const int *labels,
    int n, int k) {
    SHARED(shared)
    FOR_ROWS (row, n) {
        __global const float *z = logits + (size_t)row * k;
        int label = labels[row];
        lanes largest = -INFINITY;
        FOR_COLUMNS (j, k) largest = fmax(largest, load_or(z + j, k - j, -INFINITY));
        float shift = group_max(largest, shared);
        lanes sum = 0.0f;
        FOR_COLUMNS (j, k) sum += exponential(load_or(z + j, k - j, -INFINITY) - shift);
        float total = group_sum(sum, shared);
        if (get_local_id(0) == 0)
            losses[row] = label >= 0 && label < k ? log(total) + (shift - z[label]) : NAN;
        if (!dLogits) continue;
        __global float *dz = dLogits + (size_t)row * k;
        FOR_COLUMNS (j, k) {
            float onehot[WIDTH];
            for (int i = 0; i < WIDTH; i++) onehot[i] = j + i == label ? 1.0f : 0.0f;
            lanes e = exponential(load_or(z + j, k - j, -INFINITY) - shift);
            store_lanes((e / total - load_full(0, onehot)) / n, dz + j, k - j);
        }
    }
}
