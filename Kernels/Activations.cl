// Nonlinearities y = f(x) and dx = dy ⊙ f′(x), elementwise. ReLU is max(0, x), the exact GELU in Gelu.cl; the others are x σ(t) with
// the slope σ(t) + x t′ σ(t) (1 − σ(t)):
//
//     QuickGELU: t = 1.702 x;   SiLU: t = x;   GELU by tanh: t = 2√(2/π) (x + 0.044715 x³),  x/2 · (1 + tanh(t/2))

// `Activation.code` of OpenCLBackend+Adapters.swift.
#define ACTIVATION_IDENTITY 0
#define ACTIVATION_RELU 1
#define ACTIVATION_GELU 2
#define ACTIVATION_QUICK_GELU 3
#define ACTIVATION_GELU_TANH 4
#define ACTIVATION_SILU 5

// σ(t), and *slope = σ(t) (1 − σ(t)): by e^(−|t|), which neither overflows nor leaves 1 − σ to a difference.
INLINE lanes sigmoid(lanes *slope, lanes t) {
    lanes e = exponential(-fabs(t));
    lanes inverse = 1.0f / (1.0f + e);
    lanes other = e * inverse;
    *slope = inverse * other;
    return select(inverse, other, t < 0.0f);
}

// f(x), and *slope = f′(x). A NaN stays one: ReLU asks for x ≤ 0 rather than x > 0.
INLINE lanes activation(lanes *slope, lanes x, int f) {
    lanes value, s;
    if (f == ACTIVATION_GELU) {
        value = normal_distribution(&s, x);
        *slope = value + x * (0.3989422804f * s);
        return x * value;
    }
    if (f == ACTIVATION_QUICK_GELU) {
        lanes t = 1.702f * x;
        value = sigmoid(&s, t);
        *slope = MULTIPLY_ADD(t, s, value);
        return x * value;
    }
    if (f == ACTIVATION_GELU_TANH) {
        // Beyond ±16 σ is 0 or 1 and its slope 0, which x³ = ∞ would make a NaN.
        lanes c = select(select(x, (lanes)(16.0f), x > 16.0f), (lanes)(-16.0f), x < -16.0f);
        lanes square = c * c;
        value = sigmoid(&s, 1.5957691216f * c * (1.0f + 0.044715f * square));
        *slope = MULTIPLY_ADD(1.5957691216f * c * (1.0f + 0.134145f * square), s, value);
        return x * value;
    }
    if (f == ACTIVATION_SILU) {
        value = sigmoid(&s, x);
        *slope = MULTIPLY_ADD(x, s, value);
        return x * value;
    }
    *slope = f == ACTIVATION_RELU ? select((lanes)(1.0f), (lanes)(0.0f), x <= 0.0f) : (lanes)(1.0f);
    return f == ACTIVATION_RELU ? select(x, (lanes)(0.0f), x <= 0.0f) : x;
}

// y [n] ← f(x [n]). y may be x.
__kernel GROUP void activate_forward(__global stored *y, __global const stored *x, int f, int n) {
    FOR_ELEMENTS (i, n)
        WITH_LANES(
            n - i, lanes slope; store_stored(activation(&slope, stored_lanes(x + i, lanes_), f), y + i, lanes_);)
}

// dx [n] ← dy [n] ⊙ f′(x [n]); where ReLU's slope is 0, 0 whatever dy is. dx may be dy.
__kernel GROUP void activate_backward(
    __global stored *dx, __global const stored *dy, __global const stored *x, int f, int n) {
    FOR_ELEMENTS (i, n)
        WITH_LANES(
            n - i, lanes slope, g = stored_lanes(dy + i, lanes_); activation(&slope, stored_lanes(x + i, lanes_), f);
            lanes value = f == ACTIVATION_RELU ? select(g, (lanes)(0.0f), slope == 0.0f) : g * slope;
            store_stored(value, dx + i, lanes_);)
}

// Gates: y = f(a) ⊙ b;  dA = dy ⊙ b ⊙ f′(a),  dB = dy ⊙ f(a). Row i of a block is at offset + i · stride.

// y [n, d] from blocks of a and b.
__kernel GROUP void gate_forward(
    __global stored *y, __global const stored *a, __global const stored *b, int aOffset, int aStride, int bOffset,
    int bStride, int f, int n, int d) {
    FOR_ROWS (row, n) {
        __global const stored *from = a + aOffset + (size_t)row * aStride, *by = b + bOffset + (size_t)row * bStride;
        FOR_COLUMNS (j, d)
            WITH_LANES(
                d - j, lanes slope, value = activation(&slope, stored_lanes(from + j, lanes_), f);
                store_stored(value * stored_lanes(by + j, lanes_), y + (size_t)row * d + j, lanes_);)
    }
}

// Blocks of dA and dB from dy [n, d] and blocks of a and b. dA may be a, dB may be b.
__kernel GROUP void gate_backward(
    __global stored *dA, __global stored *dB, __global const stored *dy, __global const stored *a,
    __global const stored *b, int dAOffset, int dAStride, int dBOffset, int dBStride, int aOffset, int aStride,
    int bOffset, int bStride, int f, int n, int d) {
    FOR_ROWS (row, n) {
        __global const stored *from = a + aOffset + (size_t)row * aStride, *by = b + bOffset + (size_t)row * bStride;
        __global stored *to = dA + dAOffset + (size_t)row * dAStride, *other = dB + dBOffset + (size_t)row * dBStride;
        FOR_COLUMNS (j, d)
            WITH_LANES(
                d - j, lanes slope, g = stored_lanes(dy + (size_t)row * d + j, lanes_);
                lanes value = activation(&slope, stored_lanes(from + j, lanes_), f);
                lanes factor = stored_lanes(by + j, lanes_); store_stored(g * factor * slope, to + j, lanes_);
                store_stored(g * value, other + j, lanes_);)
    }
}
