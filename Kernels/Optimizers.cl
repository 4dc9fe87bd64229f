// θ ← θ (1 − λη);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − η · c₁ · m / (√v · c₂ + ε)

#define SEGMENT_BLOCK 128 // viewAlignment: a segment is whole blocks

// values, firstMoments, secondMoments and gradients [n, SEGMENT_BLOCK]; segmentOfBlock [n];
// segments [count, 3] = (1 to update or 0, c₁, c₂).
__kernel GROUP void adam_w(
    __global float *values, __global float *firstMoments, __global float *secondMoments,
    __global const float *gradients, __global const int *segmentOfBlock, __global const float *segments,
    int n, float learningRate, float decay, float beta1, float rest1, float beta2, float rest2,
    float epsilon) {
    FOR_ROWS (block, n) {
        __global const float *segment = segments + 3 * segmentOfBlock[block];
        if (segment[0] == 0.0f) continue;
        float step = learningRate * segment[1], rootScale = segment[2];
        FOR_COLUMNS (j, SEGMENT_BLOCK) {
            size_t i = (size_t)block * SEGMENT_BLOCK + j;
            lanes g = load_full(0, gradients + i);
            lanes m = beta1 * load_full(0, firstMoments + i) + rest1 * g;
            lanes v = beta2 * load_full(0, secondMoments + i) + rest2 * g * g;
            lanes value = load_full(0, values + i) * decay;
            store_full(m, 0, firstMoments + i);
            store_full(v, 0, secondMoments + i);
            store_full(value - step * m / (sqrt(v) * rootScale + epsilon), 0, values + i);
        }
    }
}
