// What every kernel uses. The host compiles all files as one program, this one first, with
//
//     WIDTH   the floats that a work-item handles at once (4, 8 or 16)
//     LOCAL   the work-items of every work-group, in the first dimension (a power of two; 1 on CPU devices)
//
// and for a program of 16 bits with BFLOAT16 or FLOAT16: then frozen weights and the activations between the layers are
// `stored` in those, and everything is computed in float32 all the same. `float` pointers are float32 in every program.
// ENGINE says what multiplies: with BFLOAT16 on CPUs (Engines.cl), in any program on GPUs (GPUEngines.cl).
//
// A kernel's arguments come in the order outputs, inputs, constants. A pointer that may be null says so.
// Tensors are dense and row-major; [n, d] is a matrix of n rows.

#define CONCATENATE(a, b) a##b
#define CONCATENATED(a, b) CONCATENATE(a, b)

typedef CONCATENATED(float, WIDTH) lanes;
#define as_lanes CONCATENATED(as_float, WIDTH)
#define as_int_lanes CONCATENATED(as_int, WIDTH)
#define load_full CONCATENATED(vload, WIDTH)
#define store_full CONCATENATED(vstore, WIDTH)

// For functions whose arguments are constants where they are called: a driver that calls them keeps the branches.
#define INLINE static inline __attribute__((always_inline))

#define GROUP __attribute__((reqd_work_group_size(LOCAL, 1, 1)))

// Fused where the device does it in hardware; emulating it costs a hundred instructions.
#ifdef FP_FAST_FMAF
#define MULTIPLY_ADD(a, b, c) fma(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

// The first element that this work-item handles of a row of d, and the next: neighbours read neighbours.
#define FOR_COLUMNS(j, d) for (int j = (int)get_local_id(0) * WIDTH; j < (d); j += LOCAL * WIDTH)

// The stretch of n rows that belongs to this group; the groups share them evenly, whatever their number.
static int first_row(int n) { return (int)((long)n * get_group_id(0) / get_num_groups(0)); }
static int last_row(int n) { return (int)((long)n * (get_group_id(0) + 1) / get_num_groups(0)); }
#define FOR_ROWS(row, n) for (int row = first_row(n); row < last_row(n); row++)

// Elementwise kernels go over n elements in blocks, as over rows.
#define BLOCK 1024
#define FOR_ELEMENTS(i, n)                                                                            \
    FOR_ROWS (block_, ((n) + BLOCK - 1) / BLOCK)                                                      \
        for (int i = block_ * BLOCK + (int)get_local_id(0) * WIDTH; i < min(n, (block_ + 1) * BLOCK); \
             i += LOCAL * WIDTH)

// p[0 ..< min(count, WIDTH)], and `rest` in the lanes behind.
INLINE lanes load_or(__global const float *p, int count, float rest) {
    if (count >= WIDTH) return load_full(0, p);
    float part[WIDTH];
    for (int i = 0; i < WIDTH; i++) part[i] = i < count ? p[i] : rest;
    return load_full(0, part);
}

// p[0 ..< min(count, WIDTH)], and zeros.
INLINE lanes load_lanes(__global const float *p, int count) { return load_or(p, count, 0.0f); }

// p[0 ..< min(count, WIDTH)] ← value.
INLINE void store_lanes(lanes value, __global float *p, int count) {
    if (count >= WIDTH) {
        store_full(value, 0, p);
        return;
    }
    float part[WIDTH];
    store_full(value, 0, part);
    for (int i = 0; i < count; i++) p[i] = part[i];
}

// `stored` numbers and how they become floats: x[0 ..< WIDTH], the same with a row's end, four, and one.
#if defined(BFLOAT16)

// The upper half of a float32.
typedef ushort stored;
#define as_uint_lanes CONCATENATED(as_uint, WIDTH)
#define to_uint_lanes CONCATENATED(convert_uint, WIDTH)
#define to_ushort_lanes CONCATENATED(convert_ushort, WIDTH)
INLINE float stored_one(__global const stored *p) { return as_float((uint)*p << 16); }
INLINE float4 stored_four(__global const stored *p) { return as_float4(convert_uint4(vload4(0, p)) << 16); }
INLINE lanes stored_full(__global const stored *p) { return as_lanes(to_uint_lanes(load_full(0, p)) << 16); }
// To the nearest, of two the even one; a NaN stays one.
INLINE stored rounded_one(float value) {
    uint bits = as_uint(value);
    return isnan(value) ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
// In the upper halves, with something behind them.
INLINE CONCATENATED(uint, WIDTH) rounded_bits(lanes value) {
    CONCATENATED(uint, WIDTH) bits = as_uint_lanes(value);
    return select(bits + 0x7fff + ((bits >> 16) & 1), bits | 0x400000, as_uint_lanes(isnan(value)));
}
INLINE CONCATENATED(ushort, WIDTH) rounded_lanes(lanes value) { return to_ushort_lanes(rounded_bits(value) >> 16); }
INLINE void store_stored_full(lanes value, __global stored *p) { store_full(rounded_lanes(value), 0, p); }
INLINE void store_stored_one(float value, __global stored *p) { *p = rounded_one(value); }

#elif defined(FLOAT16)

typedef half stored;
INLINE float stored_one(__global const stored *p) { return vload_half(0, p); }
INLINE float4 stored_four(__global const stored *p) { return vload_half4(0, p); }
#if LOCAL == 1
// By way of a register: PoCL 3.1 takes what vload_half and vstore_half point at for aligned, and where a conversion isn't part of the
// load, which is so behind a branch, the processor stops at an address that isn't.
typedef CONCATENATED(ushort, WIDTH) half_bits;
INLINE lanes stored_full(__global const stored *p) {
    half_bits bits = load_full(0, (__global const ushort *)p);
    return CONCATENATED(vload_half, WIDTH)(0, (const half *)&bits);
}
INLINE void store_stored_full(lanes value, __global stored *p) {
    half_bits bits;
    CONCATENATED(CONCATENATED(vstore_half, WIDTH), _rte)(value, 0, (half *)&bits);
    store_full(bits, 0, (__global ushort *)p);
}
#else
INLINE lanes stored_full(__global const stored *p) { return CONCATENATED(vload_half, WIDTH)(0, p); }
INLINE void store_stored_full(lanes value, __global stored *p) {
    CONCATENATED(CONCATENATED(vstore_half, WIDTH), _rte)(value, 0, p);
}
#endif
INLINE void store_stored_one(float value, __global stored *p) { vstore_half_rte(value, 0, p); }

#else

typedef float stored;
#define stored_one(p) (*(p))
#define stored_four(p) vload4(0, p)
#define stored_full(p) load_full(0, p)
#define store_stored_full(value, p) store_full(value, 0, p)
#define store_stored_one(value, p) (*(p) = (value))

#endif

// p[0 ..< min(count, WIDTH)], and `rest` in the lanes behind.
INLINE lanes stored_or(__global const stored *p, int count, float rest) {
    if (count >= WIDTH) return stored_full(p);
    float part[WIDTH];
    for (int i = 0; i < WIDTH; i++) part[i] = i < count ? stored_one(p + i) : rest;
    return load_full(0, part);
}

// p[0 ..< min(count, WIDTH)], and zeros.
INLINE lanes stored_lanes(__global const stored *p, int count) { return stored_or(p, count, 0.0f); }

// p[i ..< i + min(count, WIDTH)] of `stored` numbers or of floats, as isStored says, and `rest` in the lanes behind. Where stored
// numbers are floats there is nothing to choose.
INLINE lanes either_or(__global const void *p, size_t i, int count, float rest, int isStored) {
    if (isStored && sizeof(stored) < sizeof(float)) return stored_or((__global const stored *)p + i, count, rest);
    return load_or((__global const float *)p + i, count, rest);
}
INLINE lanes either_lanes(__global const void *p, size_t i, int count, int isStored) {
    return either_or(p, i, count, 0.0f, isStored);
}

// p[0 ..< min(count, WIDTH)] ← value.
INLINE void store_stored(lanes value, __global stored *p, int count) {
    if (count >= WIDTH) {
        store_stored_full(value, p);
        return;
    }
    float part[WIDTH];
    store_full(value, 0, part);
    for (int i = 0; i < count; i++) store_stored_one(part[i], p + i);
}

// p[i ..< i + min(count, WIDTH)] of `stored` numbers or of floats ← value.
INLINE void store_either(lanes value, __global void *p, size_t i, int count, int isStored) {
    if (isStored && sizeof(stored) < sizeof(float))
        store_stored(value, (__global stored *)p + i, count);
    else
        store_lanes(value, (__global float *)p + i, count);
}

// Runs the statements with `lanes_` = min(count, WIDTH), as a constant where it is WIDTH: the compiler then drops what
// load_lanes and store_lanes do for a row's end, which is worth a factor of two in a loop that waits for memory.
#define WITH_LANES(count, ...)          \
    if ((count) >= WIDTH) {             \
        const int lanes_ = WIDTH;       \
        __VA_ARGS__                     \
    } else {                            \
        const int lanes_ = (count);     \
        __VA_ARGS__                     \
    }

// The sum, and the maximum, over a vector's lanes: a tree, halves first.
#if WIDTH == 16
static float lane_sum(lanes v) {
    float8 a = v.lo + v.hi;
    float4 b = a.lo + a.hi;
    return (b.x + b.z) + (b.y + b.w);
}
static float lane_max(lanes v) {
    float8 a = fmax(v.lo, v.hi);
    float4 b = fmax(a.lo, a.hi);
    return fmax(fmax(b.x, b.z), fmax(b.y, b.w));
}
#elif WIDTH == 8
static float lane_sum(lanes v) {
    float4 b = v.lo + v.hi;
    return (b.x + b.z) + (b.y + b.w);
}
static float lane_max(lanes v) {
    float4 b = fmax(v.lo, v.hi);
    return fmax(fmax(b.x, b.z), fmax(b.y, b.w));
}
#else
static float lane_sum(lanes v) { return (v.x + v.z) + (v.y + v.w); }
static float lane_max(lanes v) { return fmax(fmax(v.x, v.z), fmax(v.y, v.w)); }
#endif

// The sum, and the maximum, over the group, the same in every work-item; `shared` is [LOCAL]. With one
// work-item there is nothing to share, and a barrier would cut the kernel in pieces.
#if LOCAL == 1
#define SHARED(name)
#define group_sum(v, shared) lane_sum(v)
#define group_max(v, shared) lane_max(v)
#define GROUP_BARRIER()
#else
#define SHARED(name) __local float name[LOCAL];
#define GROUP_BARRIER() barrier(CLK_LOCAL_MEM_FENCE)
static float group_sum(lanes v, __local float *shared) {
    int i = get_local_id(0);
    shared[i] = lane_sum(v);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int half_ = LOCAL / 2; half_ > 0; half_ /= 2) {
        if (i < half_) shared[i] += shared[i + half_];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    float total = shared[0];
    barrier(CLK_LOCAL_MEM_FENCE); // before the next use of `shared`
    return total;
}
static float group_max(lanes v, __local float *shared) {
    int i = get_local_id(0);
    shared[i] = lane_max(v);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int half_ = LOCAL / 2; half_ > 0; half_ /= 2) {
        if (i < half_) shared[i] = fmax(shared[i], shared[i + half_]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    float largest = shared[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    return largest;
}
#endif

// eˣ for x ≤ 0 to 1 ulp, 0 below −87: eˣ = 2ⁿ eʳ with n = round(x / ln 2), |r| ≤ ln 2 / 2, and Cephes'
// polynomial (Moshier, 1989). The built-in one is a loop over scalars in some CPU drivers.
INLINE lanes exponential(lanes x) {
    const float shifter =
        12582912.0f; // 1.5 · 2²³: adding it rounds to an integer, which lies in the low bits
    lanes shifted = x * 1.44269504f + shifter;
    lanes n = shifted - shifter;
    lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f; // ln 2 in two parts, the first exact
    lanes r2 = r * r;
    lanes p = (5.0000001201e-1f + 1.6666654590e-1f * r) +
        r2 * ((4.1665795894e-2f + 8.3334519073e-3f * r) + r2 * (1.3981999507e-3f + 1.9875691500e-4f * r));
    lanes power = as_lanes((as_int_lanes(shifted) << 23) + 0x3f800000);
    return select((p * r2 + r + 1.0f) * power, (lanes)(0.0f), x < -87.0f); // a NaN stays one
}

// The columns that a group handles in a sum over rows: a few cache lines of each row.
#define STRIP (LOCAL * WIDTH < 128 ? 128 : LOCAL * WIDTH)
