// Attention's forward in bfloat16 on a CPU's ENGINE: the formulas, names and arguments of Attention.cl, whose kernel it takes the
// place of. Scores and softmax are float32; what the second product reads, exp(S − max), is rounded as its operand.
//
// Everything is turned, so that what one product leaves is what the next reads:
//
//     scores [key, query] = k qᵀ,   out [h, query] = vᵀ · exp(scores − max):
//
// two rows of exponentials, of two keys, are one row of pairs. Only what comes out is turned back.
#if defined(ENGINE) && ENGINE <= 2

// scratch is [groups, scratchStride] words.
__kernel GROUP void attention_forward(
    __global stored *out, __global float *logSumExp, __global uint *scratch, __global const stored *qkv, int batch,
    int tokens, int asking, int heads, int h, float scale, int scratchStride) {
    const int d = heads * h, stride = 3 * d, pairs = PAIRS(h), keyPairs = PAIRS(tokens);
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
        __global const stored *q = qkv + (size_t)sample * tokens * stride + head * h;
        for (int key = 0; key < tokens; key += ENGINE_ROWS)
            pack_left_panel(
                keyPanels + (size_t)key * pairs, q + d + (size_t)key * stride, min(ENGINE_ROWS, tokens - key), h,
                stride);
        for (int block = 0; block < (keyPairs + PACKED_PAIRS - 1) / PACKED_PAIRS; block++)
            pack_left_pairs(valuePanels, q + 2 * d, block, h, tokens, stride);
        for (int first = 0; first < asking; first += TILE_COLUMNS) {
            const int count = min(TILE_COLUMNS, asking - first);
            for (int v = 0; v < TILE_COLUMNS; v += 16)
                pack_right_half(asked + v, q + (size_t)(first + v) * stride, count - v, h, stride);
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
            for (int v = 0; v < count; v += 16)
                for (int j = 0; j < h; j += 16) {
                    uint16 block[16];
#pragma unroll
                    for (int r = 0; r < 16; r++)
                        block[r] = as_uint16(load_full(0, scores + (size_t)(j + r) * TILE_COLUMNS + v));
                    turn_pairs(block);
#pragma unroll
                    for (int r = 0; r < 16; r++)
                        if (v + r < count)
                            store_stored(
                                as_lanes(block[r]) * inverse[v + r],
                                out + ((size_t)sample * asking + first + v + r) * d + head * h + j, h - j);
                }
        }
    }
}
#endif
