// y = (x − mean) · rstd ⊙ weight + bias over each row, rstd = 1 / √(var + ε) with the biased variance.
//
//     g = dy ⊙ weight,  x̂ = (x − mean) · rstd
//     dx = rstd (g − mean(g) − x̂ · mean(g ⊙ x̂)),  dWeight += Σₙ dy ⊙ x̂,  dBias += Σₙ dy
//
// RMSNorm is the same without mean and bias, which are then null pointers; in a backward mean is any numbers and `centred` 0 instead
// of 1, since PoCL 6.0's compiler gives up at a choice there: x̂ = x · rstd, rstd = 1 / √(mean(x²) + ε),
//
//     dx = rstd (g − x̂ · mean(g ⊙ x̂))
//
// x and dx are floats, or stored when xIsStored.

// y [n, d], mean [n], rstd [n] from x [n, d], weight [d], bias [d].
__kernel GROUP void layer_norm_forward(
    __global stored *y, __global float *mean, __global float *rstd, __global const void *x,
    __global const float *weight, __global const float *bias, int n, int d, float epsilon, int xIsStored) {
    SHARED(shared)
    FOR_ROWS (row, n) {
        const size_t start = (size_t)row * d;
        __global stored *out = y + start;
        float m = 0.0f;
        if (mean) {
            lanes sum = 0.0f;
            FOR_COLUMNS (j, d) sum += either_lanes(x, start + j, d - j, xIsStored);
            m = group_sum(sum, shared) / d;
        }
        // A second pass over the row, which is in the cache: E[x²] − mean² would cancel.
        lanes squares = 0.0f;
        FOR_COLUMNS (j, d) {
            lanes deviation = either_or(x, start + j, d - j, m, xIsStored) - m;
            squares = MULTIPLY_ADD(deviation, deviation, squares);
        }
        float variance = group_sum(squares, shared) / d;
        // 1 / √∞ is 0: a row whose squares overflow would come out as the bias.
        float r = isinf(variance) ? NAN : 1.0f / sqrt(variance + epsilon);
        FOR_COLUMNS (j, d) {
            lanes normal = (either_lanes(x, start + j, d - j, xIsStored) - m) * r;
            lanes w = load_lanes(weight + j, d - j);
            store_stored(bias ? MULTIPLY_ADD(normal, w, load_lanes(bias + j, d - j)) : normal * w, out + j, d - j);
        }
        if (get_local_id(0) == 0) {
            if (mean) mean[row] = m;
            rstd[row] = r;
        }
    }
}

// dx [n, d], or dx + … when accumulate, from dy [n, d], x [n, d], mean [n], rstd [n], weight [d].
__kernel GROUP void layer_norm_backward(
    __global void *dx, __global const stored *dy, __global const void *x, __global const float *mean,
    __global const float *rstd, __global const float *weight, int n, int d, int accumulate, int xIsStored,
    float centred) {
    SHARED(shared)
    FOR_ROWS (row, n) {
        size_t start = (size_t)row * d;
        float m = centred * mean[row], r = rstd[row];
        lanes sum = 0.0f, product = 0.0f;
        FOR_COLUMNS (j, d) {
            lanes g = stored_lanes(dy + start + j, d - j) * load_lanes(weight + j, d - j);
            sum += g;
            product = MULTIPLY_ADD(g, (either_lanes(x, start + j, d - j, xIsStored) - m) * r, product);
        }
        float meanG = centred * (group_sum(sum, shared) / d);
        float meanProduct = group_sum(product, shared) / d;
        FOR_COLUMNS (j, d) {
            lanes g = stored_lanes(dy + start + j, d - j) * load_lanes(weight + j, d - j);
            lanes normal = (either_lanes(x, start + j, d - j, xIsStored) - m) * r;
            lanes value = r * (g - meanG - normal * meanProduct);
            if (accumulate) value += either_lanes(dx, start + j, d - j, xIsStored);
            store_either(value, dx, start + j, d - j, xIsStored);
        }
    }
}

// partials [parts, 2, d] ← Σ dy ⊙ x̂ and Σ dy over each part of the n rows; groups are [strips of columns,
// parts].
__kernel GROUP void layer_norm_backward_parameters(
    __global float *partials, __global const stored *dy, __global const void *x, __global const float *mean,
    __global const float *rstd, int n, int d, int xIsStored, float centred) {
    int part = get_group_id(1), parts = get_num_groups(1);
    int first = (int)((long)n * part / parts), last = (int)((long)n * (part + 1) / parts);
    int end = min(d, (int)(get_group_id(0) + 1) * STRIP);
    for (int j = (int)get_group_id(0) * STRIP + (int)get_local_id(0) * WIDTH; j < end; j += LOCAL * WIDTH) {
        lanes weightSum = 0.0f, biasSum = 0.0f;
        for (int row = first; row < last; row++) {
            lanes g = stored_lanes(dy + (size_t)row * d + j, d - j);
            float m = centred * mean[row];
            lanes normal = (either_lanes(x, (size_t)row * d + j, d - j, xIsStored) - m) * rstd[row];
            weightSum = MULTIPLY_ADD(g, normal, weightSum);
            biasSum += g;
        }
        store_lanes(weightSum, partials + (size_t)(2 * part) * d + j, d - j);
        store_lanes(biasSum, partials + (size_t)(2 * part + 1) * d + j, d - j);
    }
}
