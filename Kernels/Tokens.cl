// Images to patches to tokens, and tokens to one vector; N patches, T = P + N tokens, of which the first P are the class token
// and registers; width D.

// patches [B, gy·gx, C·p·p] ← images [B, C, H, W]: row (b, y, x) is channel by channel the p×p pixels at
// (y·p, x·p).
__kernel GROUP void extract_patches(
    __global stored *patches, __global const float *images, int batch, int channels, int height, int width,
    int p) {
    int gridY = height / p, gridX = width / p, d = channels * p * p;
    FOR_ROWS (row, batch * gridY * gridX) {
        int x = row % gridX, y = row / gridX % gridY, b = row / (gridX * gridY);
        __global const float *image = images + (size_t)b * channels * height * width;
        for (int j = get_local_id(0); j < d; j += LOCAL) {
            int column = j % p, line = j / p % p, channel = j / (p * p);
            store_stored_one(
                image[((size_t)channel * height + y * p + line) * width + x * p + column],
                patches + (size_t)row * d + j);
        }
    }
}

// tokens [B, T, D] ← [prefix [P, D]; projected [B, N, D]] + positions [T − positioned, D], whose first row is that of token
// `positioned`, and which may be null; first = P.
__kernel GROUP void embed_tokens_forward(
    __global float *tokens, __global const stored *projected, __global const float *prefix,
    __global const float *positions, int batch, int t, int first, int positioned, int d) {
    FOR_ROWS (row, batch * t) {
        int token = row % t, b = row / t;
        size_t patch = ((size_t)b * (t - first) + token - first) * d;
        FOR_COLUMNS (j, d) {
            lanes content = token < first ? load_lanes(prefix + (size_t)token * d + j, d - j)
                                          : stored_lanes(projected + patch + j, d - j);
            if (positions && token >= positioned)
                content += load_lanes(positions + (size_t)(token - positioned) * d + j, d - j);
            store_lanes(content, tokens + (size_t)row * d + j, d - j);
        }
    }
}

// dProjected [B, N, D] ← the rows of dTokens [B, T, D] behind the prefix; dPrefix [P, D] and dPositions [T − positioned, D],
// unless null, += Σ_b of their rows; first = P.
__kernel GROUP void embed_tokens_backward(
    __global stored *dProjected, __global float *dPrefix, __global float *dPositions, __global const float *dTokens,
    int batch, int t, int first, int positioned, int d) {
    FOR_ROWS (token, t) {
        FOR_COLUMNS (j, d) {
            lanes sum = 0.0f;
            for (int b = 0; b < batch; b++) {
                lanes value = load_lanes(dTokens + ((size_t)b * t + token) * d + j, d - j);
                sum += value;
                if (token >= first)
                    store_stored(value, dProjected + ((size_t)b * (t - first) + token - first) * d + j, d - j);
            }
            if (dPositions && token >= positioned) {
                __global float *target = dPositions + (size_t)(token - positioned) * d + j;
                store_lanes(load_lanes(target, d - j) + sum, target, d - j);
            }
            if (dPrefix && token < first) {
                __global float *target = dPrefix + (size_t)token * d + j;
                store_lanes(load_lanes(target, d - j) + sum, target, d - j);
            }
        }
    }
}

// out [B, D] ← the mean over tokens first ..< last of tokens [B, T, D].
__kernel GROUP void pool_tokens_forward(
    __global float *out, __global const stored *tokens, int batch, int t, int d, int first, int last) {
    FOR_ROWS (b, batch) {
        FOR_COLUMNS (j, d) {
            lanes sum = 0.0f;
            for (int token = first; token < last; token++)
                sum += stored_lanes(tokens + ((size_t)b * t + token) * d + j, d - j);
            store_lanes(sum / (last - first), out + (size_t)b * d + j, d - j);
        }
    }
}

// dTokens [B, T, D] ← dOut [B, D] / (last − first) in tokens first ..< last, zero outside.
__kernel GROUP void pool_tokens_backward(
    __global stored *dTokens, __global const float *dOut, int batch, int t, int d, int first, int last) {
    FOR_ROWS (row, batch * t) {
        int token = row % t;
        float scale = token >= first && token < last ? 1.0f / (last - first) : 0.0f;
        FOR_COLUMNS (j, d)
            store_stored(
                scale != 0.0f ? scale * load_lanes(dOut + (size_t)(row / t) * d + j, d - j) : (lanes)(0.0f),
                dTokens + (size_t)row * d + j, d - j);
    }
}
