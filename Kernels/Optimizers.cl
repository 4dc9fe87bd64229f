//     AdamW   θ ← θ (1 − λη);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − η · c₁ · m / (√v · c₂ + ε)
//     SGD     g ← g + λθ;  v ← μv + g;  θ ← θ − ηv, or with Nesterov's look ahead θ − η(g + μv)
//     Lion    θ ← θ (1 − λη) − η sign(β₁m + (1−β₁)g);  m ← β₂m + (1−β₂)g
//
// values, moments, velocity and gradients [n, SEGMENT_BLOCK]; segmentOfBlock [n]; segments [count, 4] = (r, c₁, c₂, d): a segment's η is
// r times the step's, its λ d times, and with r = 0 it is left alone.

#define SEGMENT_BLOCK 128 // viewAlignment: a segment is whole blocks

__kernel GROUP void adam_w(
    __global float *values, __global float *firstMoments, __global float *secondMoments,
    __global const float *gradients, __global const int *segmentOfBlock, __global const float *segments,
    int n, float learningRate, float weightDecay, float beta1, float rest1, float beta2, float rest2,
    float epsilon) {
    FOR_ROWS (block, n) {
        __global const float *segment = segments + 4 * segmentOfBlock[block];
        if (segment[0] == 0.0f) continue;
        float rate = learningRate * segment[0], decay = 1.0f - weightDecay * segment[3] * rate;
        float step = rate * segment[1], rootScale = segment[2];
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

__kernel GROUP void sgd(
    __global float *values, __global float *velocity, __global const float *gradients,
    __global const int *segmentOfBlock, __global const float *segments, int n, float learningRate,
    float weightDecay, float momentum, int nesterov) {
    FOR_ROWS (block, n) {
        __global const float *segment = segments + 4 * segmentOfBlock[block];
        if (segment[0] == 0.0f) continue;
        float rate = learningRate * segment[0], decay = weightDecay * segment[3];
        FOR_COLUMNS (j, SEGMENT_BLOCK) {
            size_t i = (size_t)block * SEGMENT_BLOCK + j;
            lanes value = load_full(0, values + i);
            lanes g = load_full(0, gradients + i) + decay * value;
            lanes v = momentum * load_full(0, velocity + i) + g;
            store_full(v, 0, velocity + i);
            store_full(value - rate * (nesterov ? g + momentum * v : v), 0, values + i);
        }
    }
}

__kernel GROUP void lion(
    __global float *values, __global float *moments, __global const float *gradients,
    __global const int *segmentOfBlock, __global const float *segments, int n, float learningRate,
    float weightDecay, float beta1, float rest1, float beta2, float rest2) {
    FOR_ROWS (block, n) {
        __global const float *segment = segments + 4 * segmentOfBlock[block];
        if (segment[0] == 0.0f) continue;
        float rate = learningRate * segment[0], decay = 1.0f - weightDecay * segment[3] * rate;
        FOR_COLUMNS (j, SEGMENT_BLOCK) {
            size_t i = (size_t)block * SEGMENT_BLOCK + j;
            lanes g = load_full(0, gradients + i), m = load_full(0, moments + i);
            lanes direction = beta1 * m + rest1 * g;
            // sign() makes 0 of a NaN.
            direction = isnan(direction) ? direction : sign(direction);
            store_full(beta2 * m + rest2 * g, 0, moments + i);
            store_full(load_full(0, values + i) * decay - rate * direction, 0, values + i);
        }
    }
}
