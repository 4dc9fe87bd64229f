#ifndef CLOOPS_H
#define CLOOPS_H

// The inner loops of the CPU backend. Swift is compiled for the oldest processor of its platform; these functions are
// compiled for three generations of x86-64, and the loader takes the newest that the machine has.
//
// Arguments come in the order outputs, inputs, constants. Matrices are row-major and dense unless a row length (`ld…`)
// says otherwise. A pointer that may be null says so. Where an output may be an input it is the same pointer. Nothing here
// starts threads, allocates or keeps state.
//
// Factors [r, d] and the sums for their gradients have rows of `factor_length(d)`.

// d and some more, so that the same columns of several rows lie in different parts of the first cache: it has room for 8
// rows that are a multiple of 4 KiB apart, as those of ViT-B's 3,072 columns would be.
static inline long factor_length(long d) { return (d + 1023) / 1024 * 1024 + 272; }

// MARK: Elementwise.c

// y [n] ← gelu(x). y may be x.
void gelu_forward(float *y, const float *x, long n);
// dx [n] ← dy ⊙ gelu′(x). dx may be dy.
void gelu_backward(float *dx, const float *dy, const float *x, long n);
// out [n] ← x + scale · branch. out may be x.
void residual_add(float *out, const float *x, const float *branch, float scale, long n);
// out [n] ← scale · x. out may be x.
void scale_elements(float *out, const float *x, float scale, long n);

// MARK: Matrices.c

// v = scale ⊙ z + bias + t · down;  y ← v, product ← z, activated ← gelu(v), all [n, d] with rows of ld; outputs may be null
// and may be z. Without z, y ← bias + t · down. t [n, r]; `rows` [2 + r, d] with rows of ldRows holds scale, bias and down,
// with zeros up to at least 4 rows of down.
void epilogue_forward(
    float *y, float *product, float *activated, const float *z, const float *t, const float *rows, long r,
    long n, long d, long ld, long ldRows);
// sums [d] ← Σₙ x [n, d], x with rows of ldx.
void sum_rows(float *sums, const float *x, long n, long d, long ldx);
// out [n] ← out + x.
void add_to(float *out, const float *x, long n);

// MARK: GLoRA.c

// w [n, d] ← w0 ⊙ (1 + ca · a) + cb · b; ca [n, ra] with rows of ldca, a [ra, d] with zeros up to at least 4 rows, likewise
// b.
void glora_weight(
    float *w, const float *w0, const float *ca, long ldca, const float *a, long ra, const float *cb,
    long ldcb, const float *b, long rb, long n, long d);
// With p = dw ⊙ w0:  dca [n, ra] ← p · aᵀ, dcb [n, rb] ← dw · bᵀ;  da [ra, d] ← caᵀ · p, db [rb, d] ← cbᵀ · dw, each null
// where it isn't wanted.
void glora_weight_backward(
    float *dca, float *da, float *dcb, float *db, const float *dw, const float *w0, const float *ca,
    long ldca, const float *a, long ra, const float *cb, long ldcb, const float *b, long rb, long n, long d);
// t [n, r] ← x [n, d] · rowsᵀ, rows [r, d].
void project_rows(float *t, const float *x, const float *rows, long r, long n, long d);
// du [r, d] ← uᵀ · x, with u [n, r] and x [n, d].
void project_backward(float *du, const float *u, const float *x, long r, long n, long d);
// sums [1 + r (+ 1), d]: Σₙ dy, then tᵀ · dy with t [n, r], then Σₙ dy ⊙ z unless z is null.
void glora_output_backward(
    float *sums, const float *dy, const float *z, const float *t, long r, long n, long d);

// MARK: LayerNorm.c

// y [n, d], mean [n], rstd [n] from x [n, d], weight [d], bias [d].
void layer_norm_forward(
    float *y, float *mean, float *rstd, const float *x, const float *weight, const float *bias, long n,
    long d, float epsilon);
// dx [n, d], or dx + … when accumulate; sums [2, d] ← Σₙ dy ⊙ x̂ and Σₙ dy, or null.
void layer_norm_backward(
    float *dx, float *sums, const float *dy, const float *x, const float *mean, const float *rstd,
    const float *weight, long n, long d, int accumulate);
// y [n, d], rstd [n] from x [n, d], weight [d]: RMSNorm.
void rms_norm_forward(
    float *y, float *rstd, const float *x, const float *weight, long n, long d, float epsilon);
// dx [n, d], or dx + … when accumulate; sums [d] ← Σₙ dy ⊙ x̂, or null.
void rms_norm_backward(
    float *dx, float *sums, const float *dy, const float *x, const float *rstd, const float *weight, long n, long d,
    int accumulate);

// MARK: Rotation.c

// Pairs (a, b) of the first 2 · pairs columns of each head ← (a c − b s, b c + a s), c and s from row positions[n] of cosines and
// sines [·, pairs], s times sign; x has n rows of heads · h, `stride` apart. A pair is (i, i + pairs), or (2i, 2i + 1) when
// interleaved.
void rotate_rows(
    float *x, const int *positions, const float *cosines, const float *sines, float sign, int interleaved, long n,
    long stride, long heads, long h, long pairs);

// MARK: Activations.c

// y [n] ← max(0, x). y may be x.
void relu_forward(float *y, const float *x, long n);
// dx [n] ← dy where x > 0, else 0. dx may be dy.
void relu_backward(float *dx, const float *dy, const float *x, long n);
// y [n] ← x σ(1.702 x). y may be x.
void quick_gelu_forward(float *y, const float *x, long n);
// dx [n] ← dy ⊙ (x σ(1.702 x))′. dx may be dy.
void quick_gelu_backward(float *dx, const float *dy, const float *x, long n);
// y [n] ← x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))). y may be x.
void gelu_tanh_forward(float *y, const float *x, long n);
// dx [n] ← dy ⊙ its slope. dx may be dy.
void gelu_tanh_backward(float *dx, const float *dy, const float *x, long n);
// y [n] ← x σ(x). y may be x.
void silu_forward(float *y, const float *x, long n);
// dx [n] ← dy ⊙ (x σ(x))′. dx may be dy.
void silu_backward(float *dx, const float *dy, const float *x, long n);

// y [n] ← f(a) ⊙ b;  da [n] ← dy ⊙ b ⊙ f′(a), db [n] ← dy ⊙ f(a). y, da and db may be inputs.
#define DECLARE_GATE(name)                                                      \
    void name##_gate_forward(float *y, const float *a, const float *b, long n); \
    void name##_gate_backward(                                                  \
        float *da, float *db, const float *dy, const float *a, const float *b, long n);
DECLARE_GATE(identity)
DECLARE_GATE(relu)
DECLARE_GATE(gelu)
DECLARE_GATE(quick_gelu)
DECLARE_GATE(gelu_tanh)
DECLARE_GATE(silu)

// MARK: Adapters.c

// y [n, d] ← x ⊙ scale [d] + shift [d]; shift may be null (0). y may be x.
void scale_shift_forward(float *y, const float *x, const float *scale, const float *shift, long n, long d);
// sums [2, d] ← Σₙ dy ⊙ x and Σₙ dy;  dx [n, d] ← dy ⊙ scale, or null. dx may be dy.
void scale_shift_backward(
    float *dx, float *sums, const float *dy, const float *x, const float *scale, long n, long d);
// yᵢ [n] ← factor · xᵢ, or 0 where the hash of (low, high, first + i) is below the threshold. y may be x.
void dropout_forward(
    float *y, const float *x, unsigned first, unsigned low, unsigned high, unsigned threshold, float factor, long n);

// MARK: Attention.c

// s [n, d] ← exp(s − max of the row), sums [n] of that, largest [n].
void softmax_exponentials(float *s, float *sums, float *largest, long n, long d);
// x [n, d] ← x / divisors [n], x with rows of ldx.
void divide_rows(float *x, const float *divisors, long n, long d, long ldx);
// p [n, d] holds S and becomes P = exp(S − logSumExp [n]); dp [n, d] becomes P ⊙ (dP − D), D = Σ dout ⊙ out over rows of
// h. out and dout [n, h] with rows of ldOut.
void attention_scores_backward(
    float *p, float *dp, const float *logSumExp, const float *dout, const float *out, long n, long d, long h,
    long ldOut);

// MARK: Optimizers.c

// One AdamW step over n elements of one segment: θ ← θ · decay − step · m / (√v · rootScale + ε).
void adamw_step(
    float *theta, float *m, float *v, const float *g, float beta1, float rest1, float beta2, float rest2,
    float decay, float step, float rootScale, float epsilon, long n);
// v [n] ← μv + (g + λθ);  θ [n] ← θ − ηv, with Nesterov's look ahead θ − η((g + λθ) + μv).
void sgd_step(
    float *theta, float *v, const float *g, float eta, float lambda, float mu, int nesterov, long n);
// θ [n] ← θ · decay − η sign(β₁m + (1−β₁)g);  m [n] ← β₂m + (1−β₂)g.
void lion_step(
    float *theta, float *m, const float *g, float beta1, float rest1, float beta2, float rest2, float decay, float eta,
    long n);

#endif
