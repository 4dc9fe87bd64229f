// Products on CPU devices, one work-item a group, from operands that are packed into panels first:
//
//     left   [⌈m / TILE_ROWS⌉, k, TILE_ROWS]         the rows of op(a), TILE_ROWS at a time
//     right  [⌈n / TILE_COLUMNS⌉, k, TILE_COLUMNS]   the columns of op(b)
//
// with zeros where a panel ends outside the matrix. A tile of the product stays in registers over the whole k
// (24 of AVX-512's 32 vectors, 12 of AVX2's 16) while one panel of each streams by: the right one from the second
// cache, once for each panel of the left.
//
// The host cuts products that are too large for the panels' memory into blocks, which start at [firstRow, firstColumn]
// of the product and have `rows` rows; m, n are the whole product's sizes, k the block's depth.
//
// With an ENGINE the kernels are those of Engines.cl; what is shared stays.
#if LOCAL == 1

#define TILE_ROWS (WIDTH == 16 ? 12 : 6)
#define TILE_COLUMNS (2 * WIDTH)
// Rows that are copied to a panel at a time: whole cache lines on both sides.
#define PACKED_ROWS 8

// sums ← left · right over `depth`; element [r, p] of left is at r · rowStep + p · depthStep, row p of right at
// p · rightStep. The steps are constants where it counts. Two rows of right at a time: 8 % faster than one.
#define MULTIPLY_TILE(sums, rows, left, rowStep, depthStep, right, rightStep, depth)                            \
    {                                                                                                           \
        _Pragma("unroll") for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = (lanes)(0.0f);               \
        __global const float *left_ = left, *right_ = right;                                                    \
        int p = 0;                                                                                              \
        for (; p + 2 <= (depth); p += 2, left_ += 2 * (depthStep), right_ += 2 * (rightStep)) {                 \
            MULTIPLY_ROW(sums, rows, left_, rowStep, right_)                                                    \
            MULTIPLY_ROW(sums, rows, left_ + (depthStep), rowStep, right_ + (rightStep))                        \
        }                                                                                                       \
        if (p < (depth)) MULTIPLY_ROW(sums, rows, left_, rowStep, right_)                                       \
    }
#define MULTIPLY_ROW(sums, rows, left, rowStep, right)                                                          \
    {                                                                                                           \
        lanes first = load_full(0, right), second = load_full(0, (right) + WIDTH);                              \
        _Pragma("unroll") for (int r = 0; r < rows; r++) {                                                      \
            lanes factor = (lanes)((left)[r * (rowStep)]);                                                      \
            sums[r][0] = MULTIPLY_ADD(factor, first, sums[r][0]);                                               \
            sums[r][1] = MULTIPLY_ADD(factor, second, sums[r][1]);                                              \
        }                                                                                                       \
    }

// Turns a WIDTH × WIDTH block: log₂ WIDTH rounds that interleave rows i and i + WIDTH / 2.
#if WIDTH == 16
#define INTERLEAVED_LOW (uint16)(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define INTERLEAVED_HIGH (uint16)(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define ROUNDS 4
#elif WIDTH == 8
#define INTERLEAVED_LOW (uint8)(0, 8, 1, 9, 2, 10, 3, 11)
#define INTERLEAVED_HIGH (uint8)(4, 12, 5, 13, 6, 14, 7, 15)
#define ROUNDS 3
#else
#define INTERLEAVED_LOW (uint4)(0, 4, 1, 5)
#define INTERLEAVED_HIGH (uint4)(2, 6, 3, 7)
#define ROUNDS 2
#endif
INLINE void turn_block(lanes *block) {
#pragma unroll
    for (int round_ = 0; round_ < ROUNDS; round_++) {
        lanes turned[WIDTH];
#pragma unroll
        for (int i = 0; i < WIDTH / 2; i++) {
            turned[2 * i] = shuffle2(block[i], block[i + WIDTH / 2], INTERLEAVED_LOW);
            turned[2 * i + 1] = shuffle2(block[i], block[i + WIDTH / 2], INTERLEAVED_HIGH);
        }
#pragma unroll
        for (int i = 0; i < WIDTH; i++) block[i] = turned[i];
    }
}

// A 4 × 4 block from rows at from, from + step, … to rows at to, to + toStep, …, turned.
INLINE void turn_four(__global float *to, int toStep, __global const stored *from, size_t step) {
    float4 a = stored_four(from), b = stored_four(from + step), c = stored_four(from + 2 * step),
           d = stored_four(from + 3 * step);
    vstore4((float4)(a.x, b.x, c.x, d.x), 0, to);
    vstore4((float4)(a.y, b.y, c.y, d.y), 0, to + toStep);
    vstore4((float4)(a.z, b.z, c.z, d.z), 0, to + 2 * toStep);
    vstore4((float4)(a.w, b.w, c.w, d.w), 0, to + 3 * toStep);
}

// One panel [k, size] from `count` rows of length k that are `stride` apart; zeros where rows are missing.
static void pack_panel(
    __global float *panel, __global const stored *from, int size, int count, int k, int stride) {
    const int turnedRows = count / 4 * 4, turnedDepth = k / 4 * 4;
    for (int p = 0; p < turnedDepth; p += 4)
        for (int r = 0; r < turnedRows; r += 4)
            turn_four(panel + p * size + r, size, from + (size_t)r * stride + p, stride);
    for (int r = 0; r < size; r++)
        for (int p = r < turnedRows ? turnedDepth : 0; p < k; p++)
            panel[p * size + r] = r < count ? stored_one(from + (size_t)r * stride + p) : 0.0f;
}

#ifndef ENGINE

// left from the rows of a [·, stride], whose element `offset` is the block's first.
__kernel GROUP void pack_left(
    __global float *left, __global const stored *a, int rows, int k, int stride, int offset) {
    FOR_ROWS (panel, (rows + TILE_ROWS - 1) / TILE_ROWS)
        pack_panel(
            left + (size_t)panel * k * TILE_ROWS, a + offset + (size_t)panel * TILE_ROWS * stride, TILE_ROWS,
            min(TILE_ROWS, rows - panel * TILE_ROWS), k, stride);
}

// left from the columns of a [·, stride].
__kernel GROUP void pack_left_turned(
    __global float *left, __global const stored *a, int rows, int k, int stride, int offset) {
    FOR_ROWS (block, (k + PACKED_ROWS - 1) / PACKED_ROWS) {
        const int end = min(k, (block + 1) * PACKED_ROWS);
        for (int row = 0; row < rows; row += TILE_ROWS) {
            __global float *to = left + (size_t)row * k;
            for (int p = block * PACKED_ROWS; p < end; p++) {
                __global const stored *from = a + offset + (size_t)p * stride + row;
                if (row + TILE_ROWS <= rows) {
#pragma unroll
                    for (int r = 0; r + 4 <= TILE_ROWS; r += 4)
                        vstore4(stored_four(from + r), 0, to + p * TILE_ROWS + r);
#if WIDTH != 16
                    vstore2((float2)(stored_one(from + 4), stored_one(from + 5)), 0, to + p * TILE_ROWS + 4);
#endif
                } else {
                    for (int r = 0; r < TILE_ROWS; r++)
                        to[p * TILE_ROWS + r] = row + r < rows ? stored_one(from + r) : 0.0f;
                }
            }
        }
    }
}

// right, from rightOffset on as in all of these, from the columns of b [·, stride].
__kernel GROUP void pack_right(
    __global float *right, __global const stored *b, int rightOffset, int columns, int k, int stride, int offset) {
    right += rightOffset;
    FOR_ROWS (block, (k + PACKED_ROWS - 1) / PACKED_ROWS) {
        const int end = min(k, (block + 1) * PACKED_ROWS);
        for (int j = 0; j < columns; j += TILE_COLUMNS) {
            __global float *to = right + (size_t)j * k;
            for (int p = block * PACKED_ROWS; p < end; p++) {
                __global const stored *from = b + offset + (size_t)p * stride + j;
                for (int v = 0; v < TILE_COLUMNS; v += WIDTH)
                    store_full(
                        columns - j > v ? stored_lanes(from + v, columns - j - v) : (lanes)(0.0f), 0,
                        to + p * TILE_COLUMNS + v);
            }
        }
    }
}

// right from the rows of b [·, stride].
__kernel GROUP void pack_right_turned(
    __global float *right, __global const stored *b, int rightOffset, int columns, int k, int stride, int offset) {
    right += rightOffset;
    FOR_ROWS (panel, (columns + TILE_COLUMNS - 1) / TILE_COLUMNS)
        pack_panel(
            right + (size_t)panel * k * TILE_COLUMNS, b + offset + (size_t)panel * TILE_COLUMNS * stride,
            TILE_COLUMNS, min(TILE_COLUMNS, columns - panel * TILE_COLUMNS), k, stride);
}

#endif

// A term's part that belongs to rows of W: start [rows], and coefficients [rank, rows], the factor's columns one after the
// other so that all rows' are neighbours. Behind `last`, that row again.
#define MOST_RANKS 64
static void row_coefficients(
    float *start, float *coefficients, float one, int form, __global const float *down, int rows, int first,
    int last, int rank, int stride) {
    for (int r = 0; r < rows; r++) {
        size_t row = min(first + r, last);
        start[r] = one + plain_part(form, down, row, stride);
        for (int k = 0; k < rank; k++) coefficients[k * rows + r] = down[row * stride + k];
    }
}

// block[r, v] ← W[first + r, j + v · WIDTH …] of `rows` rows and `vectors` vectors, of which `count` elements exist; the
// coefficients are those of the same rows.
#define BUILD_WEIGHT(block, rows, vectors, first, last, j, count)                                               \
    {                                                                                                           \
        _Pragma("unroll") for (int r = 0; r < rows; r++)                                                        \
            _Pragma("unroll") for (int v = 0; v < vectors; v++) block[r * vectors + v] = (lanes)(startA[r]);    \
        for (int k = 0; k < rankA; k++)                                                                         \
            _Pragma("unroll") for (int v = 0; v < vectors; v++) {                                               \
                lanes up_ = load_lanes(upA + (size_t)k * d + (j) + v * WIDTH, (count)-v * WIDTH);               \
                _Pragma("unroll") for (int r = 0; r < rows; r++) block[r * vectors + v] = MULTIPLY_ADD(         \
                    (lanes)(coefficientsA[k * rows + r]), up_, block[r * vectors + v]);                         \
            }                                                                                                   \
        _Pragma("unroll") for (int r = 0; r < rows; r++)                                                        \
            _Pragma("unroll") for (int v = 0; v < vectors; v++) block[r * vectors + v] = MULTIPLY_ADD(          \
                stored_lanes(                                                                                   \
                    frozen + (size_t)min((first) + r, last) * d + (j) + v * WIDTH, (count)-v * WIDTH),          \
                block[r * vectors + v], (lanes)(startB[r]));                                                    \
        for (int k = 0; k < rankB; k++)                                                                         \
            _Pragma("unroll") for (int v = 0; v < vectors; v++) {                                               \
                lanes up_ = load_lanes(upB + (size_t)k * d + (j) + v * WIDTH, (count)-v * WIDTH);               \
                _Pragma("unroll") for (int r = 0; r < rows; r++) block[r * vectors + v] = MULTIPLY_ADD(         \
                    (lanes)(coefficientsB[k * rows + r]), up_, block[r * vectors + v]);                         \
            }                                                                                                   \
    }

#ifndef ENGINE

// right from the columns of W [out, d], which is built on the way: dx = dy · W. The block's depth starts at the row
// firstDepth of W.
__kernel GROUP void pack_right_weight(
    __global float *right, __global const stored *frozen, __global const float *downA,
    __global const float *upA, __global const float *downB, __global const float *upB, int rightOffset,
    int columns, int k, int firstColumn, int firstDepth, int d, int formA, int rankA, int strideA, int formB,
    int rankB, int strideB) {
    right += rightOffset;
    float startA[PACKED_ROWS], startB[PACKED_ROWS];
    float coefficientsA[MOST_RANKS * PACKED_ROWS], coefficientsB[MOST_RANKS * PACKED_ROWS];
    const int last = firstDepth + k - 1;
    FOR_ROWS (block, (k + PACKED_ROWS - 1) / PACKED_ROWS) {
        const int depth = block * PACKED_ROWS, first = firstDepth + depth;
        row_coefficients(startA, coefficientsA, 1.0f, formA, downA, PACKED_ROWS, first, last, rankA, strideA);
        row_coefficients(startB, coefficientsB, 0.0f, formB, downB, PACKED_ROWS, first, last, rankB, strideB);
        for (int j = 0; j < columns; j += TILE_COLUMNS) {
            __global float *to = right + (size_t)j * k;
            lanes rows[PACKED_ROWS * 2];
            if (columns - j >= TILE_COLUMNS) {
                BUILD_WEIGHT(rows, PACKED_ROWS, 2, first, last, firstColumn + j, TILE_COLUMNS)
            } else {
                // load_lanes gives zeros for a negative count.
                BUILD_WEIGHT(rows, PACKED_ROWS, 2, first, last, firstColumn + j, columns - j)
            }
#pragma unroll
            for (int r = 0; r < PACKED_ROWS; r++)
                if (depth + r < k) {
                    store_full(rows[2 * r], 0, to + (size_t)(depth + r) * TILE_COLUMNS);
                    store_full(rows[2 * r + 1], 0, to + (size_t)(depth + r) * TILE_COLUMNS + WIDTH);
                }
        }
    }
}

// right from the rows of W [out, d], built on the way: y = x · Wᵀ. The block's first column is the row firstColumn of
// W, its depth starts at the column firstDepth. Columns behind the last are not zeros here; a product drops theirs.
__kernel GROUP void pack_right_weight_turned(
    __global float *right, __global const stored *frozen, __global const float *downA,
    __global const float *upA, __global const float *downB, __global const float *upB, int rightOffset,
    int columns, int k, int firstColumn, int firstDepth, int d, int formA, int rankA, int strideA, int formB,
    int rankB, int strideB) {
    right += rightOffset;
    float startA[WIDTH], startB[WIDTH];
    float coefficientsA[MOST_RANKS * WIDTH], coefficientsB[MOST_RANKS * WIDTH];
    FOR_ROWS (block, (columns + WIDTH - 1) / WIDTH) {
        const int column = block * WIDTH; // of the product; WIDTH of them are half a panel
        const int first = firstColumn + column, last = firstColumn + columns - 1;
        __global float *to =
            right + (size_t)(column / TILE_COLUMNS) * k * TILE_COLUMNS + column % TILE_COLUMNS;
        row_coefficients(startA, coefficientsA, 1.0f, formA, downA, WIDTH, first, last, rankA, strideA);
        row_coefficients(startB, coefficientsB, 0.0f, formB, downB, WIDTH, first, last, rankB, strideB);
        for (int p = 0; p < k; p += WIDTH) {
            lanes turned[WIDTH];
            WITH_LANES(k - p, BUILD_WEIGHT(turned, WIDTH, 1, first, last, firstDepth + p, lanes_))
            turn_block(turned);
#pragma unroll
            for (int r = 0; r < WIDTH; r++)
                if (p + r < k) store_full(turned[r], 0, to + (size_t)(p + r) * TILE_COLUMNS);
        }
    }
}

#endif

// The panels of the left that a group multiplies: groups are [panels of the right, stretches of the left].
#define FOR_LEFT_PANELS(panel, rows)                                                                           \
    for (int panels_ = ((rows) + TILE_ROWS - 1) / TILE_ROWS,                                                  \
             panel = (int)((long)panels_ * get_group_id(1) / get_num_groups(1));                              \
         panel < (int)((long)panels_ * (get_group_id(1) + 1) / get_num_groups(1)); panel++)

// The tile from registers to memory, for loops that are not unrolled: 24 copies of an epilogue are more code than the
// instruction cache holds.
#define STASH_TILE(stash, sums)                                                                                 \
    _Pragma("unroll") for (int r = 0; r < TILE_ROWS; r++)                                                       \
        _Pragma("unroll") for (int v = 0; v < 2; v++) store_full(sums[r][v], 0, stash + (2 * r + v) * WIDTH);

#ifndef ENGINE

// c [m, n] ← left · right, or c + left · right when accumulate. The panels of the right start at rightOffset.
__kernel GROUP void multiply_panels(
    __global stored *c, __global const float *left, __global const float *right, int rightOffset, int firstRow,
    int firstColumn, int rows, int n, int k, int accumulate) {
    const int column = firstColumn + (int)get_group_id(0) * TILE_COLUMNS;
    __global const float *b = right + rightOffset + (size_t)get_group_id(0) * TILE_COLUMNS * k;
    FOR_LEFT_PANELS (panel, rows) {
        lanes sums[TILE_ROWS][2];
        __global const float *a = left + (size_t)panel * k * TILE_ROWS;
        MULTIPLY_TILE(sums, TILE_ROWS, a, 1, TILE_ROWS, b, TILE_COLUMNS, k)
        const int rowsLeft = rows - panel * TILE_ROWS;
        __global stored *to = c + (size_t)(firstRow + panel * TILE_ROWS) * n + column;
        if (rowsLeft >= TILE_ROWS && n - column >= TILE_COLUMNS) {
#pragma unroll
            for (int r = 0; r < TILE_ROWS; r++, to += n)
#pragma unroll
                for (int v = 0; v < 2; v++) {
                    if (accumulate) sums[r][v] += stored_full(to + v * WIDTH);
                    store_stored_full(sums[r][v], to + v * WIDTH);
                }
            continue;
        }
        float stash[TILE_ROWS * TILE_COLUMNS];
        STASH_TILE(stash, sums)
        for (int r = 0; r < min(TILE_ROWS, rowsLeft); r++, to += n)
            for (int j = 0; j < min(TILE_COLUMNS, n - column); j++)
                store_stored_one(stash[r * TILE_COLUMNS + j] + (accumulate ? stored_one(to + j) : 0.0f), to + j);
    }
}

// z = partial + left · right through the epilogue (Epilogue.cl); partial [m, n], the sum over the depth before, may be
// null. y, product and activated are [m, n] and may be null; one of them may be partial.
__kernel GROUP void multiply_panels_finish(
    __global stored *y, __global stored *product, __global stored *activated, __global const stored *partial,
    __global const float *left, __global const float *right, __global const float *table,
    __global const float *t, int rightOffset, int firstRow, int firstColumn, int rows, int n, int k, int rank) {
    const int column = firstColumn + (int)get_group_id(0) * TILE_COLUMNS;
    __global const float *b = right + rightOffset + (size_t)get_group_id(0) * TILE_COLUMNS * k;
    FOR_LEFT_PANELS (panel, rows) {
        lanes sums[TILE_ROWS][2];
        __global const float *a = left + (size_t)panel * k * TILE_ROWS;
        MULTIPLY_TILE(sums, TILE_ROWS, a, 1, TILE_ROWS, b, TILE_COLUMNS, k)
        float stash[TILE_ROWS * TILE_COLUMNS];
        STASH_TILE(stash, sums)
        for (int r = 0; r < min(TILE_ROWS, rows - panel * TILE_ROWS); r++) {
            const int row = firstRow + panel * TILE_ROWS + r;
            for (int v = 0; v < TILE_COLUMNS; v += WIDTH) {
                const int j = column + v;
                if (n - j <= 0) continue;
                WITH_LANES(
                    n - j, lanes z = load_full(0, stash + r * TILE_COLUMNS + v);
                    if (partial) z += stored_lanes(partial + (size_t)row * n + j, lanes_);
                    finish_lanes(z, y, product, activated, table, t, row, n, j, rank, lanes_);)
            }
        }
    }
}

#endif

// One term's share of dW's contraction: with ∂X the tile, which is dW for B and dW ⊙ W₀ for A,
//
//     dDown[row, k] += Σ ∂X · up[k],   dUp[k, column] += Σ down[row, k] · ∂X
//
// dDown [rows, rank] and dUp [rank, columns] are this group's own; down [·, stride] and up [·, n] are the parameters,
// from the tile's first row and column on. up may be null (ones, and no dUp): a vector or a constant.
INLINE void contract_tile(
    lanes (*tile)[2], __global float *dDown, __global float *dUp, __global const float *down,
    __global const float *up, int rows, int columns, int rank, int stride, int dUpStride, int n, int isFirst) {
    for (int k = 0; k < rank; k++) {
        lanes u[2], sum[2] = {0.0f, 0.0f};
        for (int v = 0; v < 2; v++)
            u[v] = columns <= v * WIDTH ? (lanes)(0.0f)
                : up                    ? load_lanes(up + (size_t)k * n + v * WIDTH, columns - v * WIDTH)
                                        : (lanes)(1.0f);
#pragma unroll
        for (int r = 0; r < TILE_ROWS; r++) {
            if (r >= rows) continue;
            float total = lane_sum(tile[r][0] * u[0] + tile[r][1] * u[1]);
            __global float *to = dDown + (size_t)r * rank + k;
            *to = isFirst ? total : *to + total;
            lanes d = (lanes)(up ? down[(size_t)r * stride + k] : 0.0f);
            sum[0] = MULTIPLY_ADD(d, tile[r][0], sum[0]);
            sum[1] = MULTIPLY_ADD(d, tile[r][1], sum[1]);
        }
        for (int v = 0; v < 2; v++) {
            if (!up || columns <= v * WIDTH) continue;
            __global float *to = dUp + (size_t)k * dUpStride + v * WIDTH;
            store_lanes(load_lanes(to, columns - v * WIDTH) + sum[v], to, columns - v * WIDTH);
        }
    }
}

#ifndef ENGINE

// dW = left · right [rows, columns], a block of [·, n], contracted tile by tile with the factors of A and B and never
// written. Groups are [stretches of columns, stretches of rows]; each writes partial sums of its own:
//
//     up parts [stretches of rows, rankA + rankB, columns], and at downOffset
//     down parts [stretches of columns, A [rows, rankA] then B [rows, rankB]]
//
// The up parts, of which A's rows come first, hold zeros before.
__kernel GROUP void contract_panels(
    __global float *parts, __global const float *left, __global const float *right,
    __global const stored *frozen, __global const float *downA, __global const float *upA,
    __global const float *downB, __global const float *upB, int downOffset, int firstRow, int firstColumn,
    int rows, int columns, int n, int k, int rankA, int strideA, int rankB, int strideB) {
    const int panels = (columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const int firstPanel = first_row(panels), lastPanel = last_row(panels);
    const int rank = rankA + rankB;
    __global float *dDownA = parts + downOffset + (size_t)get_group_id(0) * rows * rank;
    __global float *dDownB = dDownA + (size_t)rows * rankA;
    __global float *dUpA = parts + (size_t)get_group_id(1) * rank * columns;
    __global float *dUpB = dUpA + (size_t)rankA * columns;
    for (int j = firstPanel; j < lastPanel; j++) {
        const int column = j * TILE_COLUMNS, columnsLeft = columns - column;
        __global const float *b = right + (size_t)column * k;
        FOR_LEFT_PANELS (panel, rows) {
            lanes sums[TILE_ROWS][2];
            __global const float *a = left + (size_t)panel * k * TILE_ROWS;
            MULTIPLY_TILE(sums, TILE_ROWS, a, 1, TILE_ROWS, b, TILE_COLUMNS, k)
            const int row = panel * TILE_ROWS, rowsLeft = min(TILE_ROWS, rows - row);
            const size_t wholeRow = firstRow + row, wholeColumn = firstColumn + column;
            if (rankB > 0)
                contract_tile(
                    sums, dDownB + (size_t)row * rankB, dUpB + column, downB + wholeRow * strideB,
                    upB ? upB + wholeColumn : upB, rowsLeft, columnsLeft, rankB, strideB, columns, n,
                    j == firstPanel);
            if (rankA == 0) continue;
#pragma unroll
            for (int r = 0; r < TILE_ROWS; r++)
#pragma unroll
                for (int v = 0; v < 2; v++)
                    if (r < rowsLeft && columnsLeft > v * WIDTH)
                        sums[r][v] *= stored_lanes(
                            frozen + (wholeRow + r) * n + wholeColumn + v * WIDTH, columnsLeft - v * WIDTH);
            contract_tile(
                sums, dDownA + (size_t)row * rankA, dUpA + column, downA + wholeRow * strideA,
                upA ? upA + wholeColumn : upA, rowsLeft, columnsLeft, rankA, strideA, columns, n,
                j == firstPanel);
        }
    }
}

#endif
#endif
