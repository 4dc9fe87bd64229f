// Multi-head attention without a [Q, T] matrix in memory. Per sample and head, with q [Q, h] and k, v [T, h] read in place, in
// self-attention from qkv [B, T, 3·D]:
//
//     S = q kᵀ / √h,  L = ln Σⱼ exp Sⱼ,  P = exp(S − L),  out = P v
//     δ = Σ dOut ⊙ out,  dP = dOut vᵀ,  dS = P ⊙ (dP − δ)
//     dv = Pᵀ dOut,  dq = dS k / √h,  dk = dSᵀ q / √h
//
// The backward rebuilds P from L (Dao et al., arXiv 2205.14135).
//
// A `place` says where tokens lie: token t of sample b begins at x + b · z + t · y. dq has dqRows rows, zeros behind the Q.

// The first token of a sample.
#define SAMPLE(pointer, place, b) ((pointer) + (place).x + (size_t)(b) * (place).z)

#if LOCAL == 1

// δ: sums [TILE_COLUMNS] ← Σ a ⊙ b over each of count rows of length h that are `stride` apart, and zeros.
static void row_products(
    float *sums, __global const stored *a, __global const stored *b, int count, int h, int stride) {
    for (int r = 0; r < TILE_COLUMNS; r++) {
        lanes sum = 0.0f;
        for (int j = 0; r < count && j < h; j += WIDTH)
            sum = MULTIPLY_ADD(
                stored_lanes(a + (size_t)r * stride + j, h - j), stored_lanes(b + (size_t)r * stride + j, h - j), sum);
        sums[r] = lane_sum(sum);
    }
}

#ifndef ENGINE // else EngineAttention.cl

// A CPU device: a group takes one head after the other and TILE_COLUMNS queries of it at a time. Scores are kept
// turned, [key, query]: a softmax is then a loop over whole vectors of queries, and both products with the scores
// read them in the order of the registers.
//
// A group's stretch of `scratch`, with keys = T padded to TILE_ROWS and wide = h padded to TILE_COLUMNS.

// Rows of a tile whose left operand is the scores: 8 · 2 vectors of AVX-512, 4 · 2 of AVX2.
#define ASKED_ROWS (WIDTH == 16 ? 8 : 4)

// to [rows padded to size, wide] ← rows of length h that are `stride` apart, and zeros.
static void copy_rows(
    __global float *to, __global const stored *from, int rows, int size, int h, int wide, int stride) {
    for (int r = 0; r < size; r++)
        for (int j = 0; j < wide; j += WIDTH)
            store_full(
                r < rows && j < h ? stored_lanes(from + (size_t)r * stride + j, h - j) : (lanes)(0.0f), 0,
                to + (size_t)r * wide + j);
}

// panels [⌈rows / TILE_ROWS⌉, h, TILE_ROWS] from rows that are `stride` apart.
static void pack_panels(__global float *panels, __global const stored *from, int rows, int h, int stride) {
    for (int r = 0; r < rows; r += TILE_ROWS)
        pack_panel(panels + (size_t)r * h, from + (size_t)r * stride, TILE_ROWS, min(TILE_ROWS, rows - r), h, stride);
}

// out [B, Q, D], logSumExp [B, heads, Q] from q, k and v at their places; scratch is [groups, scratchStride].
__kernel GROUP void attention_forward(
    __global stored *out, __global float *logSumExp, __global float *scratch, __global const stored *allQ,
    __global const stored *allK, __global const stored *allV, int4 qPlace, int4 kPlace, int4 vPlace, int batch,
    int tokens, int asking, int heads, int h, float scale, int scratchStride) {
    const int d = heads * h;
    const int keys = (tokens + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    const int wide = (h + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS;
    __global float *keyPanels = scratch + (size_t)get_group_id(0) * scratchStride; // [keys / TILE_ROWS, h, TILE_ROWS]
    __global float *values = keyPanels + (size_t)keys * h; // [tokens, wide]
    __global float *asked = values + (size_t)tokens * wide; // [h, TILE_COLUMNS]
    __global float *scores = asked + (size_t)h * TILE_COLUMNS; // [tokens, TILE_COLUMNS]

    FOR_ROWS (index, batch * heads) {
        const int sample = index / heads, head = index % heads;
        __global const stored *q = SAMPLE(allQ, qPlace, sample) + head * h;
        pack_panels(keyPanels, SAMPLE(allK, kPlace, sample) + head * h, tokens, h, kPlace.y);
        copy_rows(values, SAMPLE(allV, vPlace, sample) + head * h, tokens, tokens, h, wide, vPlace.y);
        for (int first = 0; first < asking; first += TILE_COLUMNS) {
            const int count = min(TILE_COLUMNS, asking - first);
            pack_panel(asked, q + (size_t)first * qPlace.y, TILE_COLUMNS, count, h, qPlace.y);
            lanes largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
            for (int key = 0; key < tokens; key += TILE_ROWS) {
                lanes sums[TILE_ROWS][2];
                __global const float *left = keyPanels + (size_t)key * h;
                MULTIPLY_TILE(sums, TILE_ROWS, left, 1, TILE_ROWS, asked, TILE_COLUMNS, h)
#pragma unroll
                for (int r = 0; r < TILE_ROWS; r++) {
                    if (key + r >= tokens) continue;
#pragma unroll
                    for (int v = 0; v < 2; v++) {
                        lanes score = scale * sums[r][v];
                        largest[v] = fmax(largest[v], score);
                        store_full(score, 0, scores + (size_t)(key + r) * TILE_COLUMNS + v * WIDTH);
                    }
                }
            }
            for (int key = 0; key < tokens; key++)
#pragma unroll
                for (int v = 0; v < 2; v++) {
                    __global float *score = scores + (size_t)key * TILE_COLUMNS + v * WIDTH;
                    lanes e = exponential(load_full(0, score) - largest[v]);
                    sum[v] += e;
                    store_full(e, 0, score);
                }
            float inverse[TILE_COLUMNS];
            for (int v = 0; v < 2; v++) {
                store_full(1.0f / sum[v], 0, inverse + v * WIDTH);
                if (count > v * WIDTH)
                    store_lanes(
                        largest[v] + log(sum[v]), logSumExp + (size_t)index * asking + first + v * WIDTH,
                        count - v * WIDTH);
            }
            for (int row = 0; row < count; row += ASKED_ROWS)
                for (int j = 0; j < h; j += TILE_COLUMNS) {
                    lanes sums[ASKED_ROWS][2];
                    MULTIPLY_TILE(sums, ASKED_ROWS, scores + row, 1, TILE_COLUMNS, values + j, wide, tokens)
#pragma unroll
                    for (int r = 0; r < ASKED_ROWS; r++) {
                        if (row + r >= count) continue;
                        __global stored *to =
                            out + ((size_t)sample * asking + first + row + r) * d + head * h + j;
#pragma unroll
                        for (int v = 0; v < 2; v++)
                            if (h - j > v * WIDTH)
                                store_stored(
                                    sums[r][v] * inverse[row + r], to + v * WIDTH, h - j - v * WIDTH);
                    }
                }
        }
    }
}

// total [rows, wide] += (scores or its like [rows, TILE_COLUMNS]) · right [TILE_COLUMNS, wide].
static void add_score_product(
    __global float *total, __global const float *scores, __global const float *right, int rows, int wide) {
    for (int row = 0; row < rows; row += TILE_ROWS)
        for (int j = 0; j < wide; j += TILE_COLUMNS) {
            lanes sums[TILE_ROWS][2];
            __global const float *left = scores + (size_t)row * TILE_COLUMNS;
            MULTIPLY_TILE(sums, TILE_ROWS, left, TILE_COLUMNS, 1, right + j, wide, TILE_COLUMNS)
#pragma unroll
            for (int r = 0; r < TILE_ROWS; r++)
#pragma unroll
                for (int v = 0; v < 2; v++) {
                    __global float *to = total + (size_t)(row + r) * wide + j + v * WIDTH;
                    store_full(load_full(0, to) + sums[r][v], 0, to);
                }
        }
}

// dq, dk and dv from dOut and out [B, Q, D], logSumExp [B, heads, Q], q, k and v; scratch is [groups, scratchStride].
__kernel GROUP void attention_backward(
    __global stored *allDQ, __global stored *allDK, __global stored *allDV, __global float *scratch,
    __global const stored *dOut, __global const stored *out, __global const float *logSumExp,
    __global const stored *allQ, __global const stored *allK, __global const stored *allV, int4 dqPlace, int4 dkPlace,
    int4 dvPlace, int4 qPlace, int4 kPlace, int4 vPlace, int dqRows, int batch, int tokens, int asking, int heads,
    int h, float scale, int scratchStride) {
    const int d = heads * h;
    const int keys = (tokens + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    const int wide = (h + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS;
    __global float *keyPanels = scratch + (size_t)get_group_id(0) * scratchStride; // [keys / TILE_ROWS, h, TILE_ROWS]
    __global float *valuePanels = keyPanels + (size_t)keys * h; // likewise
    __global float *keyRows = valuePanels + (size_t)keys * h; // [tokens, wide]
    __global float *dk = keyRows + (size_t)tokens * wide; // [keys, wide]
    __global float *dv = dk + (size_t)keys * wide; // [keys, wide]
    __global float *p = dv + (size_t)keys * wide; // [keys, TILE_COLUMNS]
    __global float *ds = p + (size_t)keys * TILE_COLUMNS; // [keys, TILE_COLUMNS]
    __global float *asked = ds + (size_t)keys * TILE_COLUMNS; // [h, TILE_COLUMNS]: q, turned
    __global float *dAsked = asked + (size_t)h * TILE_COLUMNS; // [h, TILE_COLUMNS]: dOut, turned
    __global float *qRows = dAsked + (size_t)h * TILE_COLUMNS; // [TILE_COLUMNS, wide]
    __global float *dOutRows = qRows + (size_t)TILE_COLUMNS * wide; // [TILE_COLUMNS, wide]

    FOR_ROWS (index, batch * heads) {
        const int sample = index / heads, head = index % heads;
        __global const stored *q = SAMPLE(allQ, qPlace, sample) + head * h;
        __global const stored *k = SAMPLE(allK, kPlace, sample) + head * h;
        __global stored *dq = SAMPLE(allDQ, dqPlace, sample) + head * h;
        pack_panels(keyPanels, k, tokens, h, kPlace.y);
        pack_panels(valuePanels, SAMPLE(allV, vPlace, sample) + head * h, tokens, h, vPlace.y);
        copy_rows(keyRows, k, tokens, tokens, h, wide, kPlace.y);
        for (int i = 0; i < 2 * keys * wide; i += WIDTH) store_full((lanes)(0.0f), 0, dk + i); // dk and dv
        for (int first = 0; first < asking; first += TILE_COLUMNS) {
            const int count = min(TILE_COLUMNS, asking - first);
            const size_t answer = ((size_t)sample * asking + first) * d + head * h;
            __global const float *logs = logSumExp + (size_t)index * asking + first;
            pack_panel(asked, q + (size_t)first * qPlace.y, TILE_COLUMNS, count, h, qPlace.y);
            pack_panel(dAsked, dOut + answer, TILE_COLUMNS, count, h, d);
            copy_rows(qRows, q + (size_t)first * qPlace.y, count, TILE_COLUMNS, h, wide, qPlace.y);
            copy_rows(dOutRows, dOut + answer, count, TILE_COLUMNS, h, wide, d);
            float deltas[TILE_COLUMNS];
            row_products(deltas, dOut + answer, out + answer, count, h, d);
            lanes delta[2], shift[2];
            for (int v = 0; v < 2; v++) {
                delta[v] = load_full(0, deltas + v * WIDTH);
                shift[v] = count > v * WIDTH ? load_lanes(logs + v * WIDTH, count - v * WIDTH) : (lanes)(0.0f);
            }
            for (int key = 0; key < tokens; key += TILE_ROWS) {
                lanes sums[TILE_ROWS][2];
                __global const float *left = keyPanels + (size_t)key * h;
                __global float *pTile = p + (size_t)key * TILE_COLUMNS, *dsTile = ds + (size_t)key * TILE_COLUMNS;
                MULTIPLY_TILE(sums, TILE_ROWS, left, 1, TILE_ROWS, asked, TILE_COLUMNS, h)
                STASH_TILE(pTile, sums)
                left = valuePanels + (size_t)key * h;
                MULTIPLY_TILE(sums, TILE_ROWS, left, 1, TILE_ROWS, dAsked, TILE_COLUMNS, h)
                STASH_TILE(dsTile, sums)
                for (int r = 0; r < TILE_ROWS; r++)
                    for (int v = 0; v < 2; v++) {
                        const int i = (2 * r + v) * WIDTH;
                        lanes value = exponential(scale * load_full(0, pTile + i) - shift[v]);
                        if (key + r >= tokens) value = 0.0f;
                        store_full(value, 0, pTile + i);
                        store_full(value * (load_full(0, dsTile + i) - delta[v]), 0, dsTile + i);
                    }
            }
            for (int row = 0; row < count; row += ASKED_ROWS)
                for (int j = 0; j < h; j += TILE_COLUMNS) {
                    lanes sums[ASKED_ROWS][2];
                    MULTIPLY_TILE(sums, ASKED_ROWS, ds + row, 1, TILE_COLUMNS, keyRows + j, wide, tokens)
#pragma unroll
                    for (int r = 0; r < ASKED_ROWS; r++) {
                        if (row + r >= count) continue;
                        __global stored *to = dq + (size_t)(first + row + r) * dqPlace.y + j;
#pragma unroll
                        for (int v = 0; v < 2; v++)
                            if (h - j > v * WIDTH)
                                store_stored(scale * sums[r][v], to + v * WIDTH, h - j - v * WIDTH);
                    }
                }
            add_score_product(dk, ds, qRows, keys, wide);
            add_score_product(dv, p, dOutRows, keys, wide);
        }
        __global stored *toK = SAMPLE(allDK, dkPlace, sample) + head * h;
        __global stored *toV = SAMPLE(allDV, dvPlace, sample) + head * h;
        for (int row = 0; row < tokens; row++)
            for (int j = 0; j < h; j += WIDTH) {
                store_stored(
                    scale * load_full(0, dk + (size_t)row * wide + j), toK + (size_t)row * dkPlace.y + j, h - j);
                store_stored(load_full(0, dv + (size_t)row * wide + j), toV + (size_t)row * dvPlace.y + j, h - j);
            }
        for (int row = asking; row < dqRows; row++)
            for (int j = 0; j < h; j += WIDTH) store_stored((lanes)(0.0f), dq + (size_t)row * dqPlace.y + j, h - j);
    }
}

#endif
#else

// A GPU: a work-item is one query (in attention_backward_keys one key), a group LOCAL of them, which read the other
// side's rows from local memory, SHARED_ROWS at a time.

#define SHARED_ROWS 16
#define MAX_HEAD_VECTORS 32 // float4: heads of up to 128

// Rows [from ..< from + SHARED_ROWS] of [rows, h] at `source` into [SHARED_ROWS, vectors]; zeros outside.
static void share_rows(
    __local float4 *to, __global const stored *source, int from, int rows, int h, int vectors, int stride) {
    for (int i = get_local_id(0); i < SHARED_ROWS * vectors; i += LOCAL) {
        int row = from + i / vectors, j = i % vectors * 4;
        float part[4];
        for (int l = 0; l < 4; l++)
            part[l] = row < rows && j + l < h ? stored_one(source + (size_t)row * stride + j + l) : 0.0f;
        to[i] = vload4(0, part);
    }
}

static void read_row(float4 *to, __global const stored *row, int h, int vectors, int exists) {
    for (int i = 0; i < vectors; i++) {
        float part[4];
        for (int l = 0; l < 4; l++) part[l] = exists && 4 * i + l < h ? stored_one(row + 4 * i + l) : 0.0f;
        to[i] = vload4(0, part);
    }
}

static void write_row(__global stored *row, const float4 *from, float scale, int h, int vectors) {
    for (int i = 0; i < vectors; i++) {
        float part[4];
        vstore4(scale * from[i], 0, part);
        for (int l = 0; l < 4; l++)
            if (4 * i + l < h) store_stored_one(part[l], row + 4 * i + l);
    }
}

static float row_dot(const float4 *a, __local const float4 *b, int vectors) {
    float4 sum = 0.0f;
    for (int i = 0; i < vectors; i++) sum = MULTIPLY_ADD(a[i], b[i], sum);
    return (sum.x + sum.z) + (sum.y + sum.w);
}

// Groups are [blocks of LOCAL queries, batch · heads].
__kernel GROUP void attention_forward(
    __global stored *out, __global float *logSumExp, __global const stored *allQ, __global const stored *allK,
    __global const stored *allV, int4 qPlace, int4 kPlace, int4 vPlace, int tokens, int asking, int heads, int h,
    float scale) {
    __local float4 keys[SHARED_ROWS * MAX_HEAD_VECTORS], values[SHARED_ROWS * MAX_HEAD_VECTORS];
    const int d = heads * h, vectors = (h + 3) / 4;
    const int index = get_group_id(1), sample = index / heads, head = index % heads;
    const int query = get_global_id(0);
    __global const stored *kStart = SAMPLE(allK, kPlace, sample) + head * h;
    __global const stored *vStart = SAMPLE(allV, vPlace, sample) + head * h;
    float4 q[MAX_HEAD_VECTORS], sum[MAX_HEAD_VECTORS];
    read_row(
        q, SAMPLE(allQ, qPlace, sample) + head * h + (size_t)query * qPlace.y, h, vectors, query < asking);
    for (int i = 0; i < vectors; i++) sum[i] = 0.0f;
    float largest = -INFINITY, total = 0.0f;
    for (int from = 0; from < tokens; from += SHARED_ROWS) {
        share_rows(keys, kStart, from, tokens, h, vectors, kPlace.y);
        share_rows(values, vStart, from, tokens, h, vectors, vPlace.y);
        GROUP_BARRIER();
        for (int r = 0; r < min(SHARED_ROWS, tokens - from); r++) {
            float score = scale * row_dot(q, keys + r * vectors, vectors);
            float next = fmax(largest, score);
            float old = exp(largest - next), e = exp(score - next);
            total = total * old + e;
            for (int i = 0; i < vectors; i++) sum[i] = sum[i] * old + e * values[r * vectors + i];
            largest = next;
        }
        GROUP_BARRIER();
    }
    if (query >= asking) return;
    write_row(out + ((size_t)sample * asking + query) * d + head * h, sum, 1.0f / total, h, vectors);
    logSumExp[(size_t)index * asking + query] = largest + log(total);
}

// dq, and δ [B, heads, Q] into `deltas`. Groups are [blocks of LOCAL rows of dq, batch · heads].
__kernel GROUP void attention_backward_queries(
    __global stored *allDQ, __global float *deltas, __global const stored *dOut, __global const stored *out,
    __global const float *logSumExp, __global const stored *allQ, __global const stored *allK,
    __global const stored *allV, int4 dqPlace, int4 qPlace, int4 kPlace, int4 vPlace, int dqRows, int tokens,
    int asking, int heads, int h, float scale) {
    __local float4 keys[SHARED_ROWS * MAX_HEAD_VECTORS], values[SHARED_ROWS * MAX_HEAD_VECTORS];
    const int d = heads * h, vectors = (h + 3) / 4;
    const int index = get_group_id(1), sample = index / heads, head = index % heads;
    const int query = get_global_id(0), asks = query < asking;
    __global const stored *kStart = SAMPLE(allK, kPlace, sample) + head * h;
    __global const stored *vStart = SAMPLE(allV, vPlace, sample) + head * h;
    const size_t answer = ((size_t)sample * asking + query) * d + head * h;
    float4 q[MAX_HEAD_VECTORS], dy[MAX_HEAD_VECTORS], dq[MAX_HEAD_VECTORS];
    read_row(q, SAMPLE(allQ, qPlace, sample) + head * h + (size_t)query * qPlace.y, h, vectors, asks);
    read_row(dy, dOut + answer, h, vectors, asks);
    float delta = 0.0f;
    for (int i = 0; i < h && asks; i++)
        delta = MULTIPLY_ADD(stored_one(dOut + answer + i), stored_one(out + answer + i), delta);
    for (int i = 0; i < vectors; i++) dq[i] = 0.0f;
    for (int from = 0; from < tokens; from += SHARED_ROWS) {
        share_rows(keys, kStart, from, tokens, h, vectors, kPlace.y);
        share_rows(values, vStart, from, tokens, h, vectors, vPlace.y);
        GROUP_BARRIER();
        // Read here: over the barrier Intel's runtime 2026.2 keeps one work-item's value for all.
        float shift = asks ? logSumExp[(size_t)index * asking + query] : 0.0f;
        for (int r = 0; r < min(SHARED_ROWS, tokens - from); r++) {
            float p = exp(scale * row_dot(q, keys + r * vectors, vectors) - shift);
            float ds = p * (row_dot(dy, values + r * vectors, vectors) - delta);
            for (int i = 0; i < vectors; i++) dq[i] = MULTIPLY_ADD((float4)(ds), keys[r * vectors + i], dq[i]);
        }
        GROUP_BARRIER();
    }
    if (query >= dqRows) return;
    // A token that doesn't ask has q = dOut = 0, hence ds = 0.
    write_row(SAMPLE(allDQ, dqPlace, sample) + head * h + (size_t)query * dqPlace.y, dq, scale, h, vectors);
    if (asks) deltas[(size_t)index * asking + query] = delta;
}

// dk and dv. Groups are [blocks of LOCAL tokens, batch · heads].
__kernel GROUP void attention_backward_keys(
    __global stored *allDK, __global stored *allDV, __global const stored *dOut, __global const float *deltas,
    __global const float *logSumExp, __global const stored *allQ, __global const stored *allK,
    __global const stored *allV, int4 dkPlace, int4 dvPlace, int4 qPlace, int4 kPlace, int4 vPlace, int tokens,
    int asking, int heads, int h, float scale) {
    __local float4 queries[SHARED_ROWS * MAX_HEAD_VECTORS], dys[SHARED_ROWS * MAX_HEAD_VECTORS];
    const int d = heads * h, vectors = (h + 3) / 4;
    const int index = get_group_id(1), sample = index / heads, head = index % heads;
    const int key = get_global_id(0);
    __global const stored *qStart = SAMPLE(allQ, qPlace, sample) + head * h;
    float4 k[MAX_HEAD_VECTORS], v[MAX_HEAD_VECTORS], dk[MAX_HEAD_VECTORS], dv[MAX_HEAD_VECTORS];
    read_row(k, SAMPLE(allK, kPlace, sample) + head * h + (size_t)key * kPlace.y, h, vectors, key < tokens);
    read_row(v, SAMPLE(allV, vPlace, sample) + head * h + (size_t)key * vPlace.y, h, vectors, key < tokens);
    for (int i = 0; i < vectors; i++) dk[i] = dv[i] = 0.0f;
    for (int from = 0; from < asking; from += SHARED_ROWS) {
        share_rows(queries, qStart, from, asking, h, vectors, qPlace.y);
        share_rows(dys, dOut + (size_t)sample * asking * d + head * h, from, asking, h, vectors, d);
        GROUP_BARRIER();
        for (int r = 0; r < min(SHARED_ROWS, asking - from); r++) {
            size_t query = (size_t)index * asking + from + r;
            float p = exp(scale * row_dot(k, queries + r * vectors, vectors) - logSumExp[query]);
            float ds = p * (row_dot(v, dys + r * vectors, vectors) - deltas[query]);
            for (int i = 0; i < vectors; i++) {
                dk[i] = MULTIPLY_ADD((float4)(ds), queries[r * vectors + i], dk[i]);
                dv[i] = MULTIPLY_ADD((float4)(p), dys[r * vectors + i], dv[i]);
            }
        }
        GROUP_BARRIER();
    }
    if (key >= tokens) return;
    write_row(SAMPLE(allDK, dkPlace, sample) + head * h + (size_t)key * dkPlace.y, dk, scale, h, vectors);
    write_row(SAMPLE(allDV, dvPlace, sample) + head * h + (size_t)key * dvPlace.y, dv, 1.0f, h, vectors);
}
#endif
