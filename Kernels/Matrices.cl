// c[m, n] ← α · Σₖ a[m, k] · b[k, n], or c + …, for every (batch, head) at once.
//
// A group owns a panel of columns and a stretch of rows. It keeps PANEL_DEPTH rows of b's panel in local
// memory, turned so that a column's neighbours are neighbours in memory, and each work-item walks down the
// rows in tiles of TILE_ROWS × TILE_VECTORS vectors of sums in registers: 16 of AVX-512's 32 registers on a
// CPU device, a 4 × 4 tile on a GPU.

#define LOCAL_COLUMNS (LOCAL < 8 ? LOCAL : 8)
#define LOCAL_ROWS (LOCAL / LOCAL_COLUMNS)
#if LOCAL == 1 && WIDTH == 16
#define TILE_ROWS 8
#define TILE_VECTORS 2
#elif LOCAL == 1
#define TILE_ROWS 4
#define TILE_VECTORS 2
#else
#define TILE_ROWS 4
#define TILE_VECTORS 1
#endif
#define TILE_COLUMNS (TILE_VECTORS * WIDTH)
#define PANEL_COLUMNS (LOCAL_COLUMNS * TILE_COLUMNS)
#define PANEL_DEPTH 128

// Where element [i, j] of a matrix lies: s0 + i · s1 + j · s2 + batch · s3 + head · s4.
static size_t matrix_start(int8 layout, int batch, int head) {
    return layout.s0 + (size_t)batch * layout.s3 + (size_t)head * layout.s4;
}

// Groups are [panels of columns, stretches of rowsPerGroup rows, batches · heads]; c's columns are
// neighbours.
__kernel GROUP void matmul(
    __global float *c, __global const float *a, __global const float *b, int8 layoutC, int8 layoutA,
    int8 layoutB, int m, int n, int k, int heads, int rowsPerGroup, float alpha, int accumulate) {
    __local float panel[PANEL_DEPTH * PANEL_COLUMNS]; // [depth, columns]
    const int local_ = get_local_id(0);
    const int batch = get_group_id(2) / heads, head = get_group_id(2) % heads;
    const int firstColumn = get_group_id(0) * PANEL_COLUMNS;
    const int column = firstColumn + (local_ % LOCAL_COLUMNS) * TILE_COLUMNS;
    const int firstRow = get_group_id(1) * rowsPerGroup + (local_ / LOCAL_COLUMNS) * TILE_ROWS;
    const int lastRow = min(m, (int)(get_group_id(1) + 1) * rowsPerGroup);
    const int stepA = layoutA.s2;
    c += matrix_start(layoutC, batch, head);
    a += matrix_start(layoutA, batch, head);
    b += matrix_start(layoutB, batch, head) + (size_t)firstColumn * layoutB.s2;
    __local const float *strip = panel + (local_ % LOCAL_COLUMNS) * TILE_COLUMNS;

    for (int k0 = 0; k0 < k; k0 += PANEL_DEPTH) {
        const int depth = min(PANEL_DEPTH, k - k0);
        if (layoutB.s2 == 1) {
            for (int i = local_; i < depth * (PANEL_COLUMNS / WIDTH); i += LOCAL) {
                int p = i / (PANEL_COLUMNS / WIDTH), j = i % (PANEL_COLUMNS / WIDTH) * WIDTH;
                // Zeros behind the last column: their sums are dropped.
                lanes value = firstColumn + j < n
                    ? load_lanes(b + (size_t)(k0 + p) * layoutB.s1 + j, n - firstColumn - j)
                    : (lanes)(0.0f);
                store_full(value, 0, panel + p * PANEL_COLUMNS + j);
            }
        } else {
            for (int j = local_ / LOCAL_COLUMNS; j < PANEL_COLUMNS; j += LOCAL_ROWS)
                for (int p = local_ % LOCAL_COLUMNS; p < depth; p += LOCAL_COLUMNS)
                    panel[p * PANEL_COLUMNS + j] = firstColumn + j < n
                        ? b[(size_t)(k0 + p) * layoutB.s1 + (size_t)j * layoutB.s2]
                        : 0.0f;
        }
        GROUP_BARRIER();
        for (int row = firstRow; row < lastRow; row += LOCAL_ROWS * TILE_ROWS) {
            lanes sums[TILE_ROWS][TILE_VECTORS];
            __global const float *rows[TILE_ROWS];
#pragma unroll
            for (int r = 0; r < TILE_ROWS; r++) {
                // The last row again instead of one behind it: its sums are dropped.
                rows[r] = a + (size_t)min(row + r, lastRow - 1) * layoutA.s1 + (size_t)k0 * stepA;
#pragma unroll
                for (int v = 0; v < TILE_VECTORS; v++) sums[r][v] = 0.0f;
            }
            for (int p = 0; p < depth; p++) {
                lanes right[TILE_VECTORS];
#pragma unroll
                for (int v = 0; v < TILE_VECTORS; v++)
                    right[v] = load_full(0, strip + p * PANEL_COLUMNS + v * WIDTH);
#pragma unroll
                for (int r = 0; r < TILE_ROWS; r++) {
                    lanes left = (lanes)(rows[r][(size_t)p * stepA]);
#pragma unroll
                    for (int v = 0; v < TILE_VECTORS; v++)
                        sums[r][v] = MULTIPLY_ADD(left, right[v], sums[r][v]);
                }
            }
#pragma unroll
            for (int r = 0; r < TILE_ROWS; r++) {
                if (row + r >= lastRow) continue;
                __global float *target = c + (size_t)(row + r) * layoutC.s1 + column;
#pragma unroll
                for (int v = 0; v < TILE_VECTORS; v++) {
                    int count = n - column - v * WIDTH;
                    if (count <= 0) continue;
                    lanes value = alpha * sums[r][v];
                    if (accumulate || k0 > 0) value += load_lanes(target + v * WIDTH, count);
                    store_lanes(value, target + v * WIDTH, count);
                }
            }
        }
        GROUP_BARRIER();
    }
}
