// c[m, n] ← Σₖ a[m, k] · b[k, n], or c + ….
//
// For GPUs; on CPU devices Panels.cl does it. A group owns a panel of columns and a stretch of rows. It keeps PANEL_DEPTH
// rows of b's panel in local memory, turned so that a column's neighbours are neighbours in memory, and each
// work-item walks down the rows in tiles of TILE_ROWS vectors of sums in registers.
#if LOCAL > 1

#define LOCAL_COLUMNS (LOCAL < 8 ? LOCAL : 8)
#define LOCAL_ROWS (LOCAL / LOCAL_COLUMNS)
#define TILE_ROWS 4
#define TILE_COLUMNS WIDTH
#define PANEL_COLUMNS (LOCAL_COLUMNS * TILE_COLUMNS)
#define PANEL_DEPTH 128

// Sums in 16 bits would be rounded from one panel to the next: there a group has one tile of rows for each work-item and
// keeps its sums.
#if defined(BFLOAT16) || defined(FLOAT16)
#define KEEPS_SUMS 1
#else
#define KEEPS_SUMS 0
#endif

// Element [i, j] of a matrix lies at i · row step + j · column step. Groups are [panels of columns, stretches of
// rowsPerGroup rows]; c's columns are neighbours.
__kernel GROUP void multiply_tiled(
    __global stored *c, __global const stored *a, __global const stored *b, int m, int n, int k, int rowStepA,
    int columnStepA, int rowStepB, int columnStepB, int rowsPerGroup, int accumulate) {
    __local float panel[PANEL_DEPTH * PANEL_COLUMNS]; // [depth, columns]
    const int local_ = get_local_id(0);
    const int firstColumn = get_group_id(0) * PANEL_COLUMNS;
    const int column = firstColumn + (local_ % LOCAL_COLUMNS) * TILE_COLUMNS;
    const int firstRow = get_group_id(1) * rowsPerGroup + (local_ / LOCAL_COLUMNS) * TILE_ROWS;
    const int lastRow = min(m, (int)(get_group_id(1) + 1) * rowsPerGroup);
    __local const float *strip = panel + (local_ % LOCAL_COLUMNS) * TILE_COLUMNS;
    b += (size_t)firstColumn * columnStepB;

    lanes sums[TILE_ROWS];
    for (int k0 = 0; k0 < k; k0 += PANEL_DEPTH) {
        const int depth = min(PANEL_DEPTH, k - k0);
        if (columnStepB == 1) {
            for (int i = local_; i < depth * (PANEL_COLUMNS / WIDTH); i += LOCAL) {
                int p = i / (PANEL_COLUMNS / WIDTH), j = i % (PANEL_COLUMNS / WIDTH) * WIDTH;
                // Zeros behind the last column: their sums are dropped.
                lanes value = firstColumn + j < n
                    ? stored_lanes(b + (size_t)(k0 + p) * rowStepB + j, n - firstColumn - j)
                    : (lanes)(0.0f);
                store_full(value, 0, panel + p * PANEL_COLUMNS + j);
            }
        } else {
            for (int j = local_ / LOCAL_COLUMNS; j < PANEL_COLUMNS; j += LOCAL_ROWS)
                for (int p = local_ % LOCAL_COLUMNS; p < depth; p += LOCAL_COLUMNS)
                    panel[p * PANEL_COLUMNS + j] = firstColumn + j < n
                        ? stored_one(b + (size_t)(k0 + p) * rowStepB + (size_t)j * columnStepB)
                        : 0.0f;
        }
        GROUP_BARRIER();
        for (int row = firstRow; row < lastRow; row += LOCAL_ROWS * TILE_ROWS) {
            __global const stored *rows[TILE_ROWS];
#pragma unroll
            for (int r = 0; r < TILE_ROWS; r++) {
                // The last row again instead of one behind it: its sums are dropped.
                rows[r] = a + (size_t)min(row + r, lastRow - 1) * rowStepA + (size_t)k0 * columnStepA;
                if (!KEEPS_SUMS || k0 == 0) sums[r] = 0.0f;
            }
            for (int p = 0; p < depth; p++) {
                lanes right = load_full(0, strip + p * PANEL_COLUMNS);
#pragma unroll
                for (int r = 0; r < TILE_ROWS; r++)
                    sums[r] = MULTIPLY_ADD((lanes)(stored_one(rows[r] + (size_t)p * columnStepA)), right, sums[r]);
            }
#pragma unroll
            for (int r = 0; r < TILE_ROWS; r++) {
                if (row + r >= lastRow || column >= n || (KEEPS_SUMS && k0 + depth < k)) continue;
                __global stored *target = c + (size_t)(row + r) * n + column;
                lanes value = sums[r];
                if (accumulate || (!KEEPS_SUMS && k0 > 0)) value += stored_lanes(target, n - column);
                store_stored(value, target, n - column);
            }
        }
        GROUP_BARRIER();
    }
}
#endif
