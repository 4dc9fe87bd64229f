// What becomes of a Linear's product z [n, d] before it leaves the registers:
//
//     y = (1 + a) ⊙ z + t · downᵀ + bias,   activated = GELU(y)
//
// The terms come as a table [2 + rank, d], so that a row is read where the product's columns are:
//
//     row 0: 1 + a    row 1: bias, or zeros    rows 2…: down's columns

// table [2 + rank, d] from Ad (or none), bias [d] (may be null) and Bd.
__kernel GROUP void epilogue_table(
    __global float *table, __global const float *downA, __global const float *bias, __global const float *downB,
    int d, int formA, int strideA, int formB, int rank, int strideB) {
    FOR_ROWS (block, (d + LOCAL - 1) / LOCAL) {
        int i = block * LOCAL + (int)get_local_id(0);
        if (i >= d) continue;
        table[i] = 1.0f + plain_part(formA, downA, i, strideA);
        table[d + i] = bias ? bias[i] : 0.0f;
        for (int k = 0; k < rank; k++)
            table[(size_t)(2 + k) * d + i] =
                formB == FORM_CONSTANT ? downB[0] : downB[(size_t)i * strideB + k];
    }
}

// The epilogue of z[row, j ..< j + count]; y, product and activated are [·, d] and may be null; t is [·, rank].
INLINE void finish_lanes(
    lanes z, __global stored *y, __global stored *product, __global stored *activated, __global const float *table,
    __global const float *t, int row, int d, int j, int rank, int count) {
    const size_t i = (size_t)row * d + j;
    if (product) store_stored(z, product + i, count);
    lanes value = MULTIPLY_ADD(z, load_lanes(table + j, count), load_lanes(table + d + j, count));
    for (int k = 0; k < rank; k++)
        value = MULTIPLY_ADD(
            (lanes)(t[(size_t)row * rank + k]), load_lanes(table + (size_t)(2 + k) * d + j, count), value);
    if (y) store_stored(value, y + i, count);
    lanes e;
    if (activated) store_stored(value * normal_distribution(&e, value), activated + i, count);
}

// The epilogue alone, of z [n, d]; y may be z.
__kernel GROUP void finish(
    __global stored *y, __global stored *product, __global stored *activated, __global const stored *z,
    __global const float *table, __global const float *t, int n, int d, int rank) {
    FOR_ROWS (row, n)
        FOR_COLUMNS (j, d)
            WITH_LANES(
                d - j,
                finish_lanes(
                    stored_lanes(z + (size_t)row * d + j, lanes_), y, product, activated, table, t, row, d, j, rank,
                    lanes_);)
}
