// Attention in bfloat16 on a CPU's ENGINE: the formulas, names and arguments of the kernels in Attention.cl, whose place these
// take. Scores, softmax and δ are float32; P and dS are rounded where they are a product's operands.
//
// Scores and the outputs of a block of TILE_COLUMNS queries are turned, so that what one product leaves is what the next reads:
//
//     S [key, query] = k qᵀ, out [h, query] = vᵀ P;   dP [key, query] = v dOutᵀ, dq [h, query] = kᵀ dS
//
// where two rows of P or dS, of two keys, are one row of pairs of a right operand. dk = dS q and dv = P dOut read them as the
// left, and grow from block to block.
//
// A group's stretch of `scratch` is scratchStride words, with keys = T and tall = h padded to ENGINE_ROWS.
#if defined(ENGINE) && ENGINE <= 2

// A block's pairs of queries.
#define BLOCK_PAIRS PAIRS(TILE_COLUMNS)

// count rows of `to`, `stride` apart, ← factors ⊙ columns of turned [h, TILE_COLUMNS], whose memory has whole blocks of 16 rows.
static void store_turned(
    __global stored *to, __global const float *turned, const float *factors, int count, int h, int stride) {
    for (int v = 0; v < count; v += 16)
        for (int j = 0; j < h; j += 16) {
            uint16 block[16];
#pragma unroll
            for (int r = 0; r < 16; r++)
                block[r] = as_uint16(load_full(0, turned + (size_t)(j + r) * TILE_COLUMNS + v));
            turn_pairs(block);
#pragma unroll
            for (int r = 0; r < 16; r++)
                if (v + r < count)
                    store_stored(
                        as_lanes(block[r]) * factors[v + r], to + (size_t)(v + r) * stride + j, h - j);
        }
}

// Panels of the left from tokens rows of length h.
static void pack_tokens(__global uint *panels, __global const stored *from, int tokens, int h, int stride) {
    for (int key = 0; key < tokens; key += ENGINE_ROWS)
        pack_left_panel(
            panels + (size_t)key * PAIRS(h), from + (size_t)key * stride, min(ENGINE_ROWS, tokens - key), h, stride);
}

// The same turned: h rows of depth tokens.
static void pack_tokens_turned(
    __global uint *panels, __global const stored *from, int tokens, int h, int stride) {
    for (int block = 0; block < (PAIRS(tokens) + PACKED_PAIRS - 1) / PACKED_PAIRS; block++)
        pack_left_pairs(panels, from, block, h, tokens, stride);
}

// A panel of the right whose columns are count queries.
static void pack_queries(__global uint *panel, __global const stored *from, int count, int h, int stride) {
    for (int v = 0; v < TILE_COLUMNS; v += 16)
        pack_right_half(panel + v, from + (size_t)v * stride, count - v, h, stride);
}

// Panels of the right whose depth are count queries: [⌈h / TILE_COLUMNS⌉, BLOCK_PAIRS, TILE_COLUMNS].
static void pack_queries_turned(
    __global uint *panels, __global const stored *from, int count, int h, int stride) {
    for (int j = 0; j < h; j += TILE_COLUMNS)
        for (int p = 0; p < BLOCK_PAIRS; p++)
            for (int v = 0; v < TILE_COLUMNS; v += 16, panels += 16)
                vstore16(
                    load_pair_of_rows(
                        from + (size_t)(2 * p) * stride + j + v, stride, count - 2 * p, h - j - v),
                    0, panels);
}

// A panel of the left from ENGINE_ROWS rows of TILE_COLUMNS floats, rounded.
static void pack_scores(__global uint *panel, const float *rows) {
    for (int r = 0; r < ENGINE_ROWS; r += 16) {
        uint16 block[16];
#pragma unroll
        for (int i = 0; i < 16; i++) {
            __private const float *row = rows + min(r + i, ENGINE_ROWS - 1) * TILE_COLUMNS;
            block[i] = (uint16)(
                as_uint8(rounded_lanes(load_full(0, row))), as_uint8(rounded_lanes(load_full(0, row + 16))));
        }
#if ENGINE == AMX_ENGINE
#pragma unroll
        for (int i = 0; i < 16; i++) vstore16(block[i], 0, panel + (r + i) * 16);
#else
        turn_pairs(block);
#pragma unroll
        for (int q = 0; q < 16; q++) store_left_pair(block[q].lo, block[q].s89ab, panel + q * ENGINE_ROWS);
#endif
    }
}

// out [B, Q, D], logSumExp [B, heads, Q] from q, k and v at their places.
__kernel GROUP void attention_forward(
    __global stored *out, __global float *logSumExp, __global uint *scratch, __global const stored *allQ,
    __global const stored *allK, __global const stored *allV, int4 qPlace, int4 kPlace, int4 vPlace, int batch,
    int tokens, int asking, int heads, int h, float scale, int scratchStride) {
    const int d = heads * h, pairs = PAIRS(h), keyPairs = PAIRS(tokens);
    const int keys = (tokens + ENGINE_ROWS - 1) / ENGINE_ROWS * ENGINE_ROWS;
    const int tall = (h + ENGINE_ROWS - 1) / ENGINE_ROWS * ENGINE_ROWS;
    __global uint *keyPanels = scratch + (size_t)get_group_id(0) * scratchStride; // the left: keys rows, depth h
    __global uint *valuePanels = keyPanels + (size_t)keys * pairs; // the left: tall rows, depth tokens
    __global uint *asked = valuePanels + (size_t)tall * keyPairs; // [pairs, TILE_COLUMNS]
    __global uint *weights = asked + (size_t)pairs * TILE_COLUMNS; // [keyPairs, TILE_COLUMNS]
    // [keys, TILE_COLUMNS], and afterwards out, turned: [tall, TILE_COLUMNS], of which whole blocks of 16 rows are read.
    __global float *scores = (__global float *)(weights + (size_t)keyPairs * TILE_COLUMNS);
    float saved[SAVED];

    FOR_ROWS (index, batch * heads) {
        const int sample = index / heads, head = index % heads;
        __global const stored *q = SAMPLE(allQ, qPlace, sample) + head * h;
        pack_tokens(keyPanels, SAMPLE(allK, kPlace, sample) + head * h, tokens, h, kPlace.y);
        pack_tokens_turned(valuePanels, SAMPLE(allV, vPlace, sample) + head * h, tokens, h, vPlace.y);
        for (int first = 0; first < asking; first += TILE_COLUMNS) {
            const int count = min(TILE_COLUMNS, asking - first);
            pack_queries(asked, q + (size_t)first * qPlace.y, count, h, qPlace.y);
            for (int key = 0; key < keys; key += ENGINE_ROWS)
                MULTIPLY_TILE_BF16(
                    scores + (size_t)key * TILE_COLUMNS, saved, keyPanels + (size_t)key * pairs, asked, pairs, 1)

            float inverse[TILE_COLUMNS];
            for (int v = 0; v < TILE_COLUMNS; v += 16) {
                lanes largest = -INFINITY, sum = 0.0f;
                for (int key = 0; key < tokens; key++)
                    largest = fmax(largest, scale * load_full(0, scores + (size_t)key * TILE_COLUMNS + v));
                for (int p = 0; p < keyPairs; p++) {
                    __global const float *low = scores + (size_t)(2 * p) * TILE_COLUMNS + v;
                    lanes a = 0.0f, b = 0.0f;
                    if (2 * p < tokens) a = exponential(scale * load_full(0, low) - largest);
                    if (2 * p + 1 < tokens) b = exponential(scale * load_full(0, low + TILE_COLUMNS) - largest);
                    sum += a;
                    sum += b;
                    vstore16(pairs_of(a, b), 0, weights + (size_t)p * TILE_COLUMNS + v);
                }
                store_full(1.0f / sum, 0, inverse + v);
                if (count > v)
                    store_lanes(largest + log(sum), logSumExp + (size_t)index * asking + first + v, count - v);
            }

            for (int row = 0; row < tall; row += ENGINE_ROWS)
                MULTIPLY_TILE_BF16(
                    scores + (size_t)row * TILE_COLUMNS, saved, valuePanels + (size_t)row * keyPairs, weights,
                    keyPairs, 1)
            store_turned(
                out + ((size_t)sample * asking + first) * d + head * h, scores, inverse, count, h, d);
        }
    }
}

// dq, dk and dv from dOut and out [B, Q, D], logSumExp [B, heads, Q], q, k and v.
__kernel GROUP void attention_backward(
    __global stored *allDQ, __global stored *allDK, __global stored *allDV, __global uint *scratch,
    __global const stored *dOut, __global const stored *out, __global const float *logSumExp,
    __global const stored *allQ, __global const stored *allK, __global const stored *allV, int4 dqPlace, int4 dkPlace,
    int4 dvPlace, int4 qPlace, int4 kPlace, int4 vPlace, int dqRows, int batch, int tokens, int asking, int heads,
    int h, float scale, int scratchStride) {
    const int d = heads * h, pairs = PAIRS(h), keyPairs = PAIRS(tokens);
    const int keys = (tokens + ENGINE_ROWS - 1) / ENGINE_ROWS * ENGINE_ROWS;
    const int tall = (h + ENGINE_ROWS - 1) / ENGINE_ROWS * ENGINE_ROWS;
    const int wide = (h + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS;
    __global uint *keyPanels = scratch + (size_t)get_group_id(0) * scratchStride; // the left: keys rows, depth h
    __global uint *valuePanels = keyPanels + (size_t)keys * pairs; // likewise
    __global uint *keyColumns = valuePanels + (size_t)keys * pairs; // the left: tall rows, depth tokens
    __global uint *asked = keyColumns + (size_t)tall * keyPairs; // [pairs, TILE_COLUMNS]
    __global uint *dAsked = asked + (size_t)pairs * TILE_COLUMNS; // likewise
    __global uint *askedRows = dAsked + (size_t)pairs * TILE_COLUMNS; // the right: wide columns, depth TILE_COLUMNS
    __global uint *dAskedRows = askedRows + (size_t)BLOCK_PAIRS * wide; // likewise
    __global uint *dsPairs = dAskedRows + (size_t)BLOCK_PAIRS * wide; // [keys / 2, TILE_COLUMNS]
    __global uint *pPanel = dsPairs + (size_t)keys / 2 * TILE_COLUMNS; // the left: ENGINE_ROWS rows, depth TILE_COLUMNS
    __global uint *dsPanel = pPanel + ENGINE_ROWS * BLOCK_PAIRS; // likewise
    // Tiles [keys / ENGINE_ROWS, wide / TILE_COLUMNS, ENGINE_ROWS, TILE_COLUMNS].
    __global float *dk = (__global float *)(dsPanel + ENGINE_ROWS * BLOCK_PAIRS);
    __global float *dv = dk + (size_t)keys * wide; // likewise
    __global float *dqTurned = dv + (size_t)keys * wide; // [tall, TILE_COLUMNS], in whole blocks of 16 rows
    float saved[SAVED], p[ENGINE_ROWS * TILE_COLUMNS], ds[ENGINE_ROWS * TILE_COLUMNS], scales[TILE_COLUMNS];
    for (int v = 0; v < TILE_COLUMNS; v += 16) store_full((lanes)(scale), 0, scales + v);

    FOR_ROWS (index, batch * heads) {
        const int sample = index / heads, head = index % heads;
        __global const stored *q = SAMPLE(allQ, qPlace, sample) + head * h;
        __global const stored *k = SAMPLE(allK, kPlace, sample) + head * h;
        __global stored *dq = SAMPLE(allDQ, dqPlace, sample) + head * h;
        pack_tokens(keyPanels, k, tokens, h, kPlace.y);
        pack_tokens(valuePanels, SAMPLE(allV, vPlace, sample) + head * h, tokens, h, vPlace.y);
        pack_tokens_turned(keyColumns, k, tokens, h, kPlace.y);
        for (int first = 0; first < asking; first += TILE_COLUMNS) {
            const int count = min(TILE_COLUMNS, asking - first);
            const size_t answer = ((size_t)sample * asking + first) * d + head * h;
            __global const float *logs = logSumExp + (size_t)index * asking + first;
            pack_queries(asked, q + (size_t)first * qPlace.y, count, h, qPlace.y);
            pack_queries(dAsked, dOut + answer, count, h, d);
            pack_queries_turned(askedRows, q + (size_t)first * qPlace.y, count, h, qPlace.y);
            pack_queries_turned(dAskedRows, dOut + answer, count, h, d);
            float deltas[TILE_COLUMNS];
            row_products(deltas, dOut + answer, out + answer, count, h, d);
            for (int key = 0; key < keys; key += ENGINE_ROWS) {
                MULTIPLY_TILE_BF16(p, saved, keyPanels + (size_t)key * pairs, asked, pairs, 1)
                MULTIPLY_TILE_BF16(ds, saved, valuePanels + (size_t)key * pairs, dAsked, pairs, 1)
                for (int v = 0; v < TILE_COLUMNS; v += 16) {
                    lanes delta = load_full(0, deltas + v);
                    lanes shift = count > v ? load_lanes(logs + v, count - v) : (lanes)(0.0f);
                    for (int r = 0; r < ENGINE_ROWS; r += 2) {
                        lanes dScores[2];
#pragma unroll
                        for (int i = 0; i < 2; i++) {
                            float *pRow = p + (r + i) * TILE_COLUMNS + v, *dsRow = ds + (r + i) * TILE_COLUMNS + v;
                            lanes value = exponential(scale * load_full(0, pRow) - shift);
                            if (key + r + i >= tokens) value = 0.0f;
                            dScores[i] = value * (load_full(0, dsRow) - delta);
                            store_full(value, 0, pRow);
                            store_full(dScores[i], 0, dsRow);
                        }
                        vstore16(
                            pairs_of(dScores[0], dScores[1]), 0, dsPairs + (size_t)(key + r) / 2 * TILE_COLUMNS + v);
                    }
                }
                pack_scores(pPanel, p);
                pack_scores(dsPanel, ds);
                for (int j = 0; j < wide; j += TILE_COLUMNS) {
                    const size_t tile = (size_t)key * wide + (size_t)j * ENGINE_ROWS;
                    MULTIPLY_TILE_BF16(dk + tile, saved, dsPanel, askedRows + j * BLOCK_PAIRS, BLOCK_PAIRS, first == 0)
                    MULTIPLY_TILE_BF16(dv + tile, saved, pPanel, dAskedRows + j * BLOCK_PAIRS, BLOCK_PAIRS, first == 0)
                }
            }
            for (int row = 0; row < tall; row += ENGINE_ROWS)
                MULTIPLY_TILE_BF16(
                    dqTurned + (size_t)row * TILE_COLUMNS, saved, keyColumns + (size_t)row * keyPairs, dsPairs, keyPairs,
                    1)
            store_turned(dq + (size_t)first * dqPlace.y, dqTurned, scales, count, h, dqPlace.y);
        }
        __global stored *toK = SAMPLE(allDK, dkPlace, sample) + head * h;
        __global stored *toV = SAMPLE(allDV, dvPlace, sample) + head * h;
        for (int row = 0; row < tokens; row++)
            for (int j = 0; j < h; j += 16) {
                const size_t from = (size_t)(row / ENGINE_ROWS) * ENGINE_ROWS * wide +
                    (size_t)(j / TILE_COLUMNS * ENGINE_ROWS + row % ENGINE_ROWS) * TILE_COLUMNS + j % TILE_COLUMNS;
                store_stored(scale * load_full(0, dk + from), toK + (size_t)row * dkPlace.y + j, h - j);
                store_stored(load_full(0, dv + from), toV + (size_t)row * dvPlace.y + j, h - j);
            }
        for (int row = asking; row < dqRows; row++)
            for (int j = 0; j < h; j += 16) store_stored((lanes)(0.0f), dq + (size_t)row * dqPlace.y + j, h - j);
    }
}
#endif
