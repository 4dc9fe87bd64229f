// x [n], out [n] ← value.
__kernel GROUP void fill(__global float *out, float value, int n) {
    FOR_ELEMENTS (i, n) store_lanes((lanes)(value), out + i, n - i);
}

// out [n] ← x [n]: as it is stored, as floats, and from floats rounded to what is stored.
__kernel GROUP void copy(__global stored *out, __global const stored *x, int n) {
    FOR_ELEMENTS (i, n) WITH_LANES(n - i, store_stored(stored_lanes(x + i, lanes_), out + i, lanes_);)
}
__kernel GROUP void copy_widened(__global float *out, __global const stored *x, int n) {
    FOR_ELEMENTS (i, n) WITH_LANES(n - i, store_lanes(stored_lanes(x + i, lanes_), out + i, lanes_);)
}
__kernel GROUP void copy_rounded(__global stored *out, __global const float *x, int n) {
    FOR_ELEMENTS (i, n) WITH_LANES(n - i, store_stored(load_lanes(x + i, lanes_), out + i, lanes_);)
}

// out = x + scale[b] · branch, all [B, size]; scale [B] may be null (1). out may be x.
__kernel GROUP void residual_add_forward(
    __global float *out, __global const float *x, __global const stored *branch, __global const float *scale,
    int n, int size) {
    FOR_ROWS (row, n) {
        size_t start = (size_t)row * size;
        float s = scale ? scale[row] : 1.0f;
        FOR_COLUMNS (j, size)
            store_lanes(
                MULTIPLY_ADD(
                    (lanes)(s), stored_lanes(branch + start + j, size - j),
                    load_lanes(x + start + j, size - j)),
                out + start + j, size - j);
    }
}

// out = scale[b] · x, both [B, size]; scale [B] may be null (1). out may be x.
__kernel GROUP void scale_samples(
    __global stored *out, __global const float *x, __global const float *scale, int n, int size) {
    FOR_ROWS (row, n) {
        size_t start = (size_t)row * size;
        float s = scale ? scale[row] : 1.0f;
        FOR_COLUMNS (j, size)
            store_stored(s * load_lanes(x + start + j, size - j), out + start + j, size - j);
    }
}

// out [n] ← out + x ⊙ factor, both [n]; factor may be null (1).
__kernel GROUP void add_product(
    __global float *out, __global const float *x, __global const float *factor, int n) {
    FOR_ELEMENTS (i, n) {
        lanes product = load_lanes(x + i, n - i);
        if (factor) product *= load_lanes(factor + i, n - i);
        store_lanes(load_lanes(out + i, n - i) + product, out + i, n - i);
    }
}
