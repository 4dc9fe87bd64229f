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

// Losses of targets t [n, k] (`TargetLoss`): losses [n], and unless null dLogits [n, k], the gradient of their mean.

// loss = Σ t (log Σ exp z − z),  dz = (Σ t · softmax(z) − t) / n.
__kernel GROUP void soft_cross_entropy(
    __global float *losses, __global float *dLogits, __global const float *logits, __global const float *targets,
    int n, int k) {
    SHARED(shared)
    FOR_ROWS (row, n) {
        __global const float *z = logits + (size_t)row * k, *t = targets + (size_t)row * k;
        lanes largest = -INFINITY;
        FOR_COLUMNS (j, k) largest = fmax(largest, load_or(z + j, k - j, -INFINITY));
        float shift = group_max(largest, shared);
        lanes sum = 0.0f, mass = 0.0f, product = 0.0f;
        FOR_COLUMNS (j, k) {
            lanes x = load_or(z + j, k - j, -INFINITY) - shift, share = load_lanes(t + j, k - j);
            sum += exponential(x);
            mass += share;
            // 0 · ∞ of a class that isn't meant would be no number.
            product += share == 0.0f ? (lanes)(0.0f) : share * x;
        }
        float total = group_sum(sum, shared), all = group_sum(mass, shared);
        float meant = group_sum(product, shared);
        if (get_local_id(0) == 0) losses[row] = all * log(total) - meant;
        if (!dLogits) continue;
        __global float *dz = dLogits + (size_t)row * k;
        FOR_COLUMNS (j, k) {
            lanes e = exponential(load_or(z + j, k - j, -INFINITY) - shift);
            store_lanes((e * (all / total) - load_lanes(t + j, k - j)) / n, dz + j, k - j);
        }
    }
}

// loss = mean(w t log(1 + exp −z) + (1 − t) log(1 + exp z)),  dz = ((1 − t) σ(z) − w t σ(−z)) / (n k); weights [k] may be null (1).
__kernel GROUP void binary_cross_entropy(
    __global float *losses, __global float *dLogits, __global const float *logits, __global const float *targets,
    __global const float *weights, int n, int k) {
    SHARED(shared)
    FOR_ROWS (row, n) {
        __global const float *z = logits + (size_t)row * k, *t = targets + (size_t)row * k;
        lanes sum = 0.0f;
        FOR_COLUMNS (j, k) {
            const int count = k - j;
            // Behind the row's end the loss is 0.
            lanes x = load_or(z + j, count, -1e30f), share = load_lanes(t + j, count);
            lanes positive = weights ? share * load_lanes(weights + j, count) : share, negative = 1.0f - share;
            lanes e = exp(-fabs(x)), rest = log1p(e), larger = 1.0f / (1.0f + e), smaller = e / (1.0f + e);
            lanes loss = positive * (rest + fmax(-x, (lanes)(0.0f))) + negative * (rest + fmax(x, (lanes)(0.0f)));
            // fmax leaves a NaN out.
            sum += isnan(x) ? x : loss;
            if (dLogits)
                store_lanes(
                    (negative * (x >= 0.0f ? larger : smaller) - positive * (x >= 0.0f ? smaller : larger)) / n / k,
                    dLogits + (size_t)row * k + j, count);
        }
        float total = group_sum(sum, shared);
        if (get_local_id(0) == 0) losses[row] = total / k;
    }
}

// loss = mean((z − t)²),  dz = 2 (z − t) / (n k).
__kernel GROUP void squared_error(
    __global float *losses, __global float *dLogits, __global const float *logits, __global const float *targets,
    int n, int k) {
    SHARED(shared)
    FOR_ROWS (row, n) {
        __global const float *z = logits + (size_t)row * k, *t = targets + (size_t)row * k;
        lanes sum = 0.0f;
        FOR_COLUMNS (j, k) {
            lanes difference = load_lanes(z + j, k - j) - load_lanes(t + j, k - j);
            sum = MULTIPLY_ADD(difference, difference, sum);
            if (dLogits) store_lanes(2.0f * difference / n / k, dLogits + (size_t)row * k + j, k - j);
        }
        float total = group_sum(sum, shared);
        if (get_local_id(0) == 0) losses[row] = total / k;
    }
}
