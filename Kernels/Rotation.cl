// Rotary position embedding in place: (a, b) ← (a c − b s, b c + a s), with a row of cosines and sines for each position.

// x has n rows of heads · h, `stride` apart from offset on; positions [n]; cosines and sines [·, pairs], s times sign. A pair is
// (i, i + pairs) of a head, or (2i, 2i + 1) when interleaved.
__kernel GROUP void rotate_pairs(
    __global stored *x, __global const int *positions, __global const float *cosines, __global const float *sines,
    int offset, int stride, int n, int heads, int h, int pairs, int interleaved, float sign) {
    const int vectors = (pairs + WIDTH - 1) / WIDTH; // of a head
    FOR_ROWS (row, n) {
        __global const float *cosine = cosines + (size_t)positions[row] * pairs;
        __global const float *sine = sines + (size_t)positions[row] * pairs;
        __global stored *start = x + offset + (size_t)row * stride;
        for (int v = get_local_id(0); v < heads * vectors; v += LOCAL) {
            __global stored *head = start + v / vectors * h;
            const int i = v % vectors * WIDTH, count = min(WIDTH, pairs - i);
            if (interleaved) {
                for (int k = i; k < i + count; k++) {
                    float a = stored_one(head + 2 * k), b = stored_one(head + 2 * k + 1), s = sign * sine[k];
                    store_stored_one(a * cosine[k] - b * s, head + 2 * k);
                    store_stored_one(b * cosine[k] + a * s, head + 2 * k + 1);
                }
                continue;
            }
            WITH_LANES(
                count, lanes a = stored_lanes(head + i, lanes_), b = stored_lanes(head + pairs + i, lanes_);
                lanes c = load_lanes(cosine + i, lanes_), s = sign * load_lanes(sine + i, lanes_);
                store_stored(a * c - b * s, head + i, lanes_);
                store_stored(b * c + a * s, head + pairs + i, lanes_);)
        }
    }
}
