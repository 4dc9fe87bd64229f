// What other methods than GLoRA put into a transformer.
//
//     y = x ⊙ scale + shift;  dx = dy ⊙ scale (the sums for dScale and dShift are output_sums of Reductions.cl)

typedef CONCATENATED(uint, WIDTH) uint_lanes;

// out (i, j) ← x (i, j), or out + x when accumulate, for i in 0..<n, j in 0..<d; (i, j) is at offset + i · stride + j. A row
// is cut in blocks, so that one long row is work for all groups.
__kernel GROUP void copy_block(
    __global stored *out, __global const stored *x, int outOffset, int outStride, int xOffset, int xStride, int n,
    int d, int accumulate) {
    const int blocks = (d + BLOCK - 1) / BLOCK;
    FOR_ROWS (index, n * blocks) {
        const int row = index / blocks, first = index % blocks * BLOCK, size = min(BLOCK, d - first);
        __global stored *to = out + outOffset + (size_t)row * outStride + first;
        __global const stored *from = x + xOffset + (size_t)row * xStride + first;
        FOR_COLUMNS (j, size)
            WITH_LANES(
                size - j, lanes value = stored_lanes(from + j, lanes_);
                if (accumulate) value += stored_lanes(to + j, lanes_);
                store_stored(value, to + j, lanes_);)
    }
}

// y [n, d] ← x [n, d] ⊙ scale [d] + shift [d]; shift may be null (0). y may be x.
__kernel GROUP void scale_shift_forward(
    __global stored *y, __global const stored *x, __global const float *scale, __global const float *shift, int n,
    int d) {
    FOR_ROWS (row, n) {
        size_t start = (size_t)row * d;
        FOR_COLUMNS (j, d)
            WITH_LANES(
                d - j, lanes value = stored_lanes(x + start + j, lanes_) * load_lanes(scale + j, lanes_);
                if (shift) value += load_lanes(shift + j, lanes_);
                store_stored(value, y + start + j, lanes_);)
    }
}

// y [n] ← y + factor · x [n].
__kernel GROUP void add_scaled(__global float *y, __global const float *x, float factor, int n) {
    FOR_ELEMENTS (i, n)
        WITH_LANES(
            n - i, lanes sum = MULTIPLY_ADD(
                       (lanes)(factor), load_lanes(x + i, lanes_), load_lanes(y + i, lanes_));
            store_lanes(sum, y + i, lanes_);)
}

// 0, 1, …: an element's place in its vector.
#if WIDTH == 16
#define PLACES ((uint_lanes)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
#elif WIDTH == 8
#define PLACES ((uint_lanes)(0, 1, 2, 3, 4, 5, 6, 7))
#else
#define PLACES ((uint_lanes)(0, 1, 2, 3))
#endif

// lowbias32 (Wellons, 2018), as the CPU backend has it.
INLINE uint_lanes mixed(uint_lanes h) {
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    return h ^ (h >> 16);
}

// yᵢ ← factor · xᵢ, or 0 where the hash of (low, high, i) is below the threshold; x, y [n]. y may be x.
__kernel GROUP void dropout_forward(
    __global float *y, __global const float *x, uint low, uint high, uint threshold, float factor, int n) {
    FOR_ELEMENTS (i, n) {
        uint_lanes hash = mixed(mixed((PLACES + (uint)i) ^ low) ^ high);
        WITH_LANES(
            n - i, lanes value = factor * load_lanes(x + i, lanes_);
            store_lanes(select(value, (lanes)(0.0f), hash < threshold), y + i, lanes_);)
    }
}
