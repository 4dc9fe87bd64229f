// W = W₀ ⊙ (1 + A) + B,  b = b₀ ⊙ (1 + D) + E + W₀ · C  (arXiv 2306.07967). The sums of the backward are in
// Reductions.cl.
//
// Forms: 0 none, 1 constant, 2 vector, 3 lowRank. A factor pair is down [·, R] and up [R, ·], of which the
// first `rank` columns and rows count; rank is 0 for the other forms.

enum { FORM_NONE = 0, FORM_CONSTANT = 1, FORM_VECTOR = 2, FORM_LOW_RANK = 3 };

// What a term has besides its product of factors: down's first element, or its first column's.
static float plain_part(int form, __global const float *down, size_t row, int stride) {
    return form == FORM_CONSTANT ? down[0] : form == FORM_VECTOR ? down[row * stride] : 0.0f;
}

// start + Σₖ down[k] · up[k, j ..< j + WIDTH] for k in 0..<rank: a term's elements in a row.
static lanes term_lanes(
    float start, __global const float *down, __global const float *up, int rank, int d, int j) {
    lanes sum = start;
    if (d - j >= WIDTH) {
        for (int k = 0; k < rank; k++)
            sum = MULTIPLY_ADD((lanes)(down[k]), load_full(0, up + (size_t)k * d + j), sum);
    } else {
        for (int k = 0; k < rank; k++)
            sum = MULTIPLY_ADD((lanes)(down[k]), load_lanes(up + (size_t)k * d + j, d - j), sum);
    }
    return sum;
}

// W[row, j ..< j + WIDTH], of which only the first d − j count, from W₀ [·, d], Ad [·, strideA], Au [·, d], Bd [·, strideB],
// Bu [·, d].
static lanes weight_lanes(
    __global const stored *frozen, __global const float *downA, __global const float *upA,
    __global const float *downB, __global const float *upB, int row, int d, int j, int formA, int rankA,
    int strideA, int formB, int rankB, int strideB) {
    lanes scale = term_lanes(
        1.0f + plain_part(formA, downA, row, strideA), downA + (size_t)row * strideA, upA, rankA, d, j);
    lanes shift = term_lanes(
        plain_part(formB, downB, row, strideB), downB + (size_t)row * strideB, upB, rankB, d, j);
    return MULTIPLY_ADD(stored_lanes(frozen + (size_t)row * d + j, d - j), scale, shift);
}

// weight [n, d] from frozen W₀ [n, d] and the factors.
__kernel GROUP void glora_weight_forward(
    __global stored *weight, __global const stored *frozen, __global const float *downA,
    __global const float *upA, __global const float *downB, __global const float *upB, int n, int d,
    int formA, int rankA, int strideA, int formB, int rankB, int strideB) {
    FOR_ROWS (row, n)
        FOR_COLUMNS (j, d)
            store_stored(
                weight_lanes(
                    frozen, downA, upA, downB, upB, row, d, j, formA, rankA, strideA, formB, rankB, strideB),
                weight + (size_t)row * d + j, d - j);
}

// prompt [n] ← C: Cd[:, 0], or Cd[:, :rank] · Cu[:rank] when up isn't null; down is Cd [n, stride].
__kernel GROUP void glora_prompt(
    __global float *prompt, __global const float *down, __global const float *up, int n, int stride,
    int rank) {
    FOR_ROWS (block, (n + LOCAL - 1) / LOCAL) {
        int i = block * LOCAL + (int)get_local_id(0);
        if (i >= n) continue;
        float sum = up ? 0.0f : down[(size_t)i * stride];
        if (up)
            for (int k = 0; k < rank; k++) sum += down[(size_t)i * stride + k] * up[k];
        prompt[i] = sum;
    }
}

// bias [n] ← [bias, which holds W₀ · C, when hasPrompt] + b₀ ⊙ (1 + D) + E; frozenBias b₀ [n] may be null,
// and then there is neither b₀ nor D.
__kernel GROUP void glora_bias_forward(
    __global float *bias, __global const float *frozenBias, __global const float *d, __global const float *e,
    int n, int formD, int formE, int hasPrompt) {
    FOR_ROWS (block, (n + LOCAL - 1) / LOCAL) {
        int i = block * LOCAL + (int)get_local_id(0);
        if (i >= n) continue;
        float value = hasPrompt ? bias[i] : 0.0f;
        if (frozenBias) value += frozenBias[i] * (1.0f + plain_part(formD, d, i, 1));
        bias[i] = value + plain_part(formE, e, i, 1);
    }
}

// dDown[n, k] += dPrompt[n] · up[k] for k in 0..<rank, or dDown[n, 0] += dPrompt[n] when up is null; dDown is
// [n, stride].
__kernel GROUP void glora_prompt_backward(
    __global float *dDown, __global const float *dPrompt, __global const float *up, int n, int stride,
    int rank) {
    FOR_ROWS (block, (n + LOCAL - 1) / LOCAL) {
        int i = block * LOCAL + (int)get_local_id(0);
        if (i >= n) continue;
        for (int k = 0; k < rank; k++) dDown[(size_t)i * stride + k] += up ? dPrompt[i] * up[k] : dPrompt[i];
    }
}
