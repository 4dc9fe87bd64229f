// The panels of Engines.cl, which the products of bfloat16 read on CPUs that have an ENGINE for them. The kernels have the names
// and arguments of those in Panels.cl, whose place they take.
//
// An element is a ushort, the upper half of a float32. Operands are packed into panels in which two elements that are
// neighbours along k are neighbours in memory, a pair; a pair is one uint here, so that packing turns uints:
//
//     left   [⌈m / 12⌉, PAIRS(k), 12] pairs          the rows of op(a), 12 at a time
//            with AMX [⌈m / 32⌉, PAIRS(k) / 16, 32, 16] pairs      a tile's row is 16 pairs of one row of op(a)
//     right  [⌈n / TILE_COLUMNS⌉, PAIRS(k), TILE_COLUMNS] pairs    the columns of op(b)
//
// with zeros where a panel ends outside the matrix, at an odd k too: in both operands, as 0 · ∞ is a NaN.
#if defined(ENGINE) && ENGINE <= 2

#define AVX512_ENGINE 1
#define AMX_ENGINE 2

#if ENGINE == AMX_ENGINE
#define ENGINE_ROWS 32
#define PAIR_STEP 16
#else
#define ENGINE_ROWS 12
#define PAIR_STEP 1
#endif
// The pairs of a depth of k, in whole steps of the engine.
#define PAIRS(k) ((((k) + 1) / 2 + PAIR_STEP - 1) / PAIR_STEP * PAIR_STEP)

// p[0 ..< min(count, 16)] as pairs' lower halves, and zeros.
INLINE uint16 load_halves(__global const ushort *p, int count) {
    if (count >= 16) return convert_uint16(vload16(0, p));
    uint part[16];
    for (int i = 0; i < 16; i++) part[i] = i < count ? p[i] : 0;
    return vload16(0, part);
}

// The pairs p[0, 1], p[2, 3], … of 2 · 16 elements, of which `count` exist; they need no more than an element's alignment.
INLINE uint16 load_pairs(__global const ushort *p, int count) {
    if (count >= 32) return (uint16)(as_uint8(vload16(0, p)), as_uint8(vload16(1, p)));
    uint part[16];
    for (int i = 0; i < 16; i++)
        part[i] = (2 * i < count ? p[2 * i] : 0) | (2 * i + 1 < count ? (uint)p[2 * i + 1] << 16 : 0);
    return vload16(0, part);
}

// Turns a 16 × 16 block: four rounds that interleave rows i and i + 8.
INLINE void turn_pairs(uint16 *block) {
#pragma unroll
    for (int round_ = 0; round_ < 4; round_++) {
        uint16 turned[16];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            turned[2 * i] =
                shuffle2(block[i], block[i + 8], INTERLEAVED_LOW);
            turned[2 * i + 1] = shuffle2(
                block[i], block[i + 8], INTERLEAVED_HIGH);
        }
#pragma unroll
        for (int i = 0; i < 16; i++) block[i] = turned[i];
    }
}

// block ← 16 rows of 16 pairs that are `stride` elements apart, of which `count` rows and `depth` elements exist.
#define LOAD_BLOCK(block, from, stride, count, depth)                                                           \
    if ((count) >= 16 && (depth) >= 32) {                                                                       \
        _Pragma("unroll") for (int r = 0; r < 16; r++) block[r] = load_pairs((from) + (size_t)r * (stride), 32); \
    } else {                                                                                                    \
        for (int r = 0; r < 16; r++)                                                                            \
            block[r] = r < (count) ? load_pairs((from) + (size_t)r * (stride), depth) : (uint16)(0);            \
    }

// A pair of a panel of the left: its rows 0 to 7, and 8 to 11.
INLINE void store_left_pair(uint8 low, uint4 high, __global uint *to) {
    vstore8(low, 0, to);
    vstore4(high, 0, to + 8);
}

// A panel of the left from `count` rows of length k that are `stride` apart.
static void pack_left_panel(__global uint *to, __global const ushort *from, int count, int k, int stride) {
    const int pairs = PAIRS(k);
#if ENGINE == AMX_ENGINE
    // Nothing to turn: a tile's row is a stretch of the matrix's.
    for (int p = 0; p < pairs; p += 16)
        for (int r = 0; r < ENGINE_ROWS; r++, to += 16)
            vstore16(r < count ? load_pairs(from + (size_t)r * stride + 2 * p, k - 2 * p) : (uint16)(0), 0, to);
#else
    for (int p = 0; p < pairs; p += 16) {
        uint16 block[16];
        if (count == ENGINE_ROWS && k - 2 * p >= 32) {
#pragma unroll
            for (int r = 0; r < 16; r++)
                block[r] = r < ENGINE_ROWS ? load_pairs(from + (size_t)r * stride + 2 * p, 32) : (uint16)(0);
        } else {
            for (int r = 0; r < 16; r++)
                block[r] = r < count ? load_pairs(from + (size_t)r * stride + 2 * p, k - 2 * p) : (uint16)(0);
        }
        turn_pairs(block);
#pragma unroll
        for (int q = 0; q < 16; q++, to += ENGINE_ROWS)
            if (p + q < pairs) store_left_pair(block[q].lo, block[q].s89ab, to);
    }
#endif
}

// left from the rows of a [·, stride], whose element `offset` is the block's first.
__kernel GROUP void pack_left(
    __global uint *left, __global const ushort *a, int rows, int k, int stride, int offset) {
    FOR_ROWS (panel, (rows + ENGINE_ROWS - 1) / ENGINE_ROWS)
        pack_left_panel(
            left + (size_t)panel * PAIRS(k) * ENGINE_ROWS, a + offset + (size_t)panel * ENGINE_ROWS * stride,
            min(ENGINE_ROWS, rows - panel * ENGINE_ROWS), k, stride);
}

// Pairs that are copied to a panel at a time: whole cache lines on both sides.
#define PACKED_PAIRS 16

// The block's pairs of every panel of the left from `rows` columns of a [k, stride].
static void pack_left_pairs(
    __global uint *left, __global const ushort *a, int block, int rows, int k, int stride) {
    const int pairs = PAIRS(k), first = block * PACKED_PAIRS, end = min(pairs, first + PACKED_PAIRS);
    for (int row = 0; row < rows; row += ENGINE_ROWS) {
        __global const ushort *from = a + row;
        __global uint *to = left + (size_t)(row / ENGINE_ROWS) * pairs * ENGINE_ROWS;
#if ENGINE == AMX_ENGINE
        for (int half_ = 0; half_ < ENGINE_ROWS; half_ += 16) {
            uint16 turned[16];
            for (int q = 0; q < 16; q++) {
                const int p = 2 * (first + q), count = rows - row - half_;
                turned[q] = p >= k || count <= 0 ? (uint16)(0) : load_halves(from + (size_t)p * stride + half_, count);
                if (p + 1 < k && count > 0)
                    turned[q] |= load_halves(from + (size_t)(p + 1) * stride + half_, count) << 16;
            }
            turn_pairs(turned);
            for (int r = 0; r < 16; r++)
                vstore16(turned[r], 0, to + ((size_t)block * ENGINE_ROWS + half_ + r) * 16);
        }
#else
        for (int p = first; p < end; p++) {
            __global const ushort *low = from + (size_t)(2 * p) * stride, *high = low + stride;
            uint8 first;
            uint4 second;
            if (row + ENGINE_ROWS <= rows && 2 * p + 1 < k) {
                first = convert_uint8(vload8(0, low)) | convert_uint8(vload8(0, high)) << 16;
                second = convert_uint4(vload4(0, low + 8)) | convert_uint4(vload4(0, high + 8)) << 16;
            } else {
                uint pair[ENGINE_ROWS];
                for (int r = 0; r < ENGINE_ROWS; r++)
                    pair[r] = row + r >= rows ? 0 : low[r] | (2 * p + 1 < k ? (uint)high[r] << 16 : 0);
                first = vload8(0, pair);
                second = vload4(2, pair);
            }
            store_left_pair(first, second, to + (size_t)p * ENGINE_ROWS);
        }
#endif
    }
}

// left from the columns of a [·, stride].
__kernel GROUP void pack_left_turned(
    __global uint *left, __global const ushort *a, int rows, int k, int stride, int offset) {
    FOR_ROWS (block, (PAIRS(k) + PACKED_PAIRS - 1) / PACKED_PAIRS)
        pack_left_pairs(left, a + offset, block, rows, k, stride);
}

// 16 pairs of two rows, of which `rows` exist, and `count` of their elements.
INLINE uint16 load_pair_of_rows(__global const ushort *low, int stride, int rows, int count) {
    __global const ushort *high = low + stride;
    if (count >= 16 && rows >= 2) return convert_uint16(vload16(0, low)) | convert_uint16(vload16(0, high)) << 16;
    uint16 pair = rows > 0 ? load_halves(low, count) : (uint16)(0);
    if (rows > 1) pair |= load_halves(high, count) << 16;
    return pair;
}

// right, from rightOffset (in pairs) on, from the columns of b [·, stride].
__kernel GROUP void pack_right(
    __global uint *right, __global const ushort *b, int rightOffset, int columns, int k, int stride, int offset) {
    right += rightOffset;
    const int pairs = PAIRS(k);
    FOR_ROWS (block, (pairs + PACKED_PAIRS - 1) / PACKED_PAIRS) {
        const int end = min(pairs, (block + 1) * PACKED_PAIRS);
        for (int j = 0; j < columns; j += TILE_COLUMNS) {
            __global uint *to = right + (size_t)j * pairs;
            for (int p = block * PACKED_PAIRS; p < end; p++) {
                __global const ushort *rows = b + offset + (size_t)(2 * p) * stride + j;
                for (int v = 0; v < TILE_COLUMNS; v += 16)
                    vstore16(
                        load_pair_of_rows(rows + v, stride, k - 2 * p, columns - j - v), 0,
                        to + (size_t)p * TILE_COLUMNS + v);
            }
        }
    }
}

// 16 columns of a panel of the right, half of it, from `count` rows of length k that are `stride` apart.
static void pack_right_half(__global uint *to, __global const ushort *from, int count, int k, int stride) {
    const int pairs = PAIRS(k);
    for (int p = 0; p < pairs; p += 16) {
        uint16 turned[16];
        LOAD_BLOCK(turned, from + 2 * p, stride, count, k - 2 * p)
        turn_pairs(turned);
#pragma unroll
        for (int q = 0; q < 16; q++)
            if (p + q < pairs) vstore16(turned[q], 0, to + (size_t)(p + q) * TILE_COLUMNS);
    }
}

// right from the rows of b [·, stride].
__kernel GROUP void pack_right_turned(
    __global uint *right, __global const ushort *b, int rightOffset, int columns, int k, int stride, int offset) {
    right += rightOffset;
    FOR_ROWS (half_, (columns + 31) / 32 * 2) {
        const int column = half_ * 16;
        pack_right_half(
            right + (size_t)(column / TILE_COLUMNS) * PAIRS(k) * TILE_COLUMNS + column % TILE_COLUMNS,
            b + offset + (size_t)column * stride, columns - column, k, stride);
    }
}

// The upper halves of two vectors of floats, rounded, as pairs: `low` in the lower halves.
INLINE uint16 pairs_of(lanes low, lanes high) {
    return rounded_bits(low) >> 16 | (rounded_bits(high) & 0xffff0000);
}

// right from the columns of W [out, d], which is built on the way: dx = dy · W. The block's depth starts at the row
// firstDepth of W. Behind an odd depth its last row is there again, which meets a zero.
__kernel GROUP void pack_right_weight(
    __global uint *right, __global const stored *frozen, __global const float *downA,
    __global const float *upA, __global const float *downB, __global const float *upB, int rightOffset,
    int columns, int k, int firstColumn, int firstDepth, int d, int formA, int rankA, int strideA, int formB,
    int rankB, int strideB) {
    right += rightOffset;
    float startA[PACKED_ROWS], startB[PACKED_ROWS];
    float coefficientsA[MOST_RANKS * PACKED_ROWS], coefficientsB[MOST_RANKS * PACKED_ROWS];
    const int last = firstDepth + k - 1, pairs = PAIRS(k);
    FOR_ROWS (block, (pairs + PACKED_ROWS / 2 - 1) / (PACKED_ROWS / 2)) {
        const int pair = block * (PACKED_ROWS / 2), first = firstDepth + 2 * pair;
        row_coefficients(startA, coefficientsA, 1.0f, formA, downA, PACKED_ROWS, first, last, rankA, strideA);
        row_coefficients(startB, coefficientsB, 0.0f, formB, downB, PACKED_ROWS, first, last, rankB, strideB);
        for (int j = 0; j < columns; j += TILE_COLUMNS) {
            __global uint *to = right + (size_t)j * pairs + (size_t)pair * TILE_COLUMNS;
            lanes rows[PACKED_ROWS * 2];
            if (columns - j >= TILE_COLUMNS) {
                BUILD_WEIGHT(rows, PACKED_ROWS, 2, first, last, firstColumn + j, TILE_COLUMNS)
            } else {
                // load_lanes gives zeros for a negative count.
                BUILD_WEIGHT(rows, PACKED_ROWS, 2, first, last, firstColumn + j, columns - j)
            }
#pragma unroll
            for (int r = 0; r < PACKED_ROWS; r += 2, to += TILE_COLUMNS)
                if (pair + r / 2 < pairs) {
                    store_full(pairs_of(rows[2 * r], rows[2 * r + 2]), 0, to);
                    store_full(pairs_of(rows[2 * r + 1], rows[2 * r + 3]), 0, to + WIDTH);
                }
        }
    }
}

// right from the rows of W [out, d], built on the way: y = x · Wᵀ. The block's first column is the row firstColumn of
// W, its depth starts at the column firstDepth. What is behind the last column, and behind the depth, meets zeros or is
// dropped.
__kernel GROUP void pack_right_weight_turned(
    __global uint *right, __global const stored *frozen, __global const float *downA,
    __global const float *upA, __global const float *downB, __global const float *upB, int rightOffset,
    int columns, int k, int firstColumn, int firstDepth, int d, int formA, int rankA, int strideA, int formB,
    int rankB, int strideB) {
    right += rightOffset;
    float startA[WIDTH], startB[WIDTH];
    float coefficientsA[MOST_RANKS * WIDTH], coefficientsB[MOST_RANKS * WIDTH];
    const int pairs = PAIRS(k);
    FOR_ROWS (block, (columns + WIDTH - 1) / WIDTH) {
        const int column = block * WIDTH; // of the product; WIDTH of them are half a panel
        const int first = firstColumn + column, last = firstColumn + columns - 1;
        __global uint *to =
            right + (size_t)(column / TILE_COLUMNS) * pairs * TILE_COLUMNS + column % TILE_COLUMNS;
        row_coefficients(startA, coefficientsA, 1.0f, formA, downA, WIDTH, first, last, rankA, strideA);
        row_coefficients(startB, coefficientsB, 0.0f, formB, downB, WIDTH, first, last, rankB, strideB);
        for (int p = 0; p < pairs; p += WIDTH) {
            uint16 turned[WIDTH];
            const int depth = k - 2 * p; // elements; 0 or less where an engine's step ends behind them
            lanes low[WIDTH], high[WIDTH];
            if (depth >= 2 * WIDTH) {
                BUILD_WEIGHT(low, WIDTH, 1, first, last, firstDepth + 2 * p, WIDTH)
                BUILD_WEIGHT(high, WIDTH, 1, first, last, firstDepth + 2 * p + WIDTH, WIDTH)
            } else {
                BUILD_WEIGHT(low, WIDTH, 1, first, last, firstDepth + 2 * p, depth)
                BUILD_WEIGHT(high, WIDTH, 1, first, last, firstDepth + 2 * p + WIDTH, depth - WIDTH)
            }
#pragma unroll
            for (int r = 0; r < WIDTH; r++)
                turned[r] = (uint16)(as_uint8(rounded_lanes(low[r])), as_uint8(rounded_lanes(high[r])));
            turn_pairs(turned);
#pragma unroll
            for (int q = 0; q < WIDTH; q++)
                if (p + q < pairs) store_full(turned[q], 0, to + (size_t)(p + q) * TILE_COLUMNS);
        }
    }
}

#endif
