// c [m, n] ← op(a) · op(b), or c + …, by the matrix engines of GPUs, sums in float32. It stands beside
// multiply_tiled (Matrices.cl) where the host gives
//
//     ENGINE   3   NVIDIA, compute capability 8.0 on: mma.sync of bfloat16, float16, and of float32 rounded to
//                  TF32's 11 bits
//              4   Intel with sub-groups of 8 (Arc): the functions of cl_intel_subgroup_matrix_multiply_accumulate, for
//                  bfloat16 and float16
//              5   the same with sub-groups of 16 (Data Center Max, and Arc from the second generation on)
//              6   AMD RDNA 3 and 4: v_wmma, for bfloat16 and float16
//              7   AMD CDNA 2 on: v_mfma, for bfloat16 and float16
//
// None has run on its hardware yet. Each was compiled to the instructions meant, and gave the right products when
// a CPU computed what the vendor's tables say of the instruction (EngineEmulation.swift).
//
// An engine multiplies fragments that are spread over the registers of a sub-group's work-items, the lanes. A
// group of ENGINE_LOCAL work-items computes GROUP_ROWS × GROUP_COLUMNS of c, each of its sub-groups LEFT_FRAGMENTS
// × RIGHT_FRAGMENTS fragments of them. Panels of both operands go through local memory in words of 32 bits, which
// hold two neighbours along k, or one float32. There a row of the panel is a row of op(a), or a column of op(b):
// all engines take them alike.
#if defined(ENGINE) && ENGINE >= 3

#define NVIDIA_ENGINE 3
#define INTEL_ENGINE_OF_8 4
#define INTEL_ENGINE_OF_16 5
#define RDNA_ENGINE 6
#define CDNA_ENGINE 7

#define GROUP_ROWS 128
#define GROUP_COLUMNS 64
// A panel's depth at a time, in words, and from one of its rows to the next: with four words between them neither
// 8 rows of 4 words nor 8 rows of 16 bytes meet in a bank of local memory.
#define DEPTH_WORDS 16
#define ROW_WORDS 20

#if defined(BFLOAT16) || defined(FLOAT16)
#define WORD_ELEMENTS 2
typedef ushort element_bits;
#else
#define WORD_ELEMENTS 1
typedef uint element_bits;
#if ENGINE != NVIDIA_ENGINE
#error "This engine has no float32."
#endif
#endif
// The elements of a panel's depth at a time, and the words of an instruction's.
#define TURN_DEPTH (DEPTH_WORDS * WORD_ELEMENTS)
#define FRAGMENT_WORDS 8

// MARK: The engines
//
// SIMD, the lanes; a fragment's FRAGMENT_ROWS × FRAGMENT_COLUMNS; load_left and load_right, a lane's share of the
// fragment that begins at p; MULTIPLY, sums + left · right; and the place of a lane's sum i in the fragment.

#if ENGINE == NVIDIA_ENGINE

// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and "… mma.m16n8k8": the same in words.
#define SIMD 32
#define FRAGMENT_ROWS 16
#define FRAGMENT_COLUMNS 8
#define LEFT_FRAGMENTS 4
#define RIGHT_FRAGMENTS 4
#define SUMS 4
#define SUM_ROW(lane, i) ((lane) / 4 + (i) / 2 * 8)
#define SUM_COLUMN(lane, i) ((lane) % 4 * 2 + (i) % 2)
typedef uint4 left_fragment;
typedef uint2 right_fragment;
INLINE left_fragment load_left(__local const uint *p, int lane) {
    p += lane / 4 * ROW_WORDS + lane % 4;
    return (uint4)(p[0], p[8 * ROW_WORDS], p[4], p[8 * ROW_WORDS + 4]);
}
INLINE right_fragment load_right(__local const uint *p, int lane) {
    p += lane / 4 * ROW_WORDS + lane % 4;
    return (uint2)(p[0], p[4]);
}
#define MULTIPLY(left, right, sums) mma_sync(left, right, sums)

// A test puts its own in their place.
#ifndef EMULATED
#if defined(BFLOAT16)
#define MMA_SYNC "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#elif defined(FLOAT16)
#define MMA_SYNC "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#else
#define MMA_SYNC "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
#endif
// Volatile, or a compiler might move it to where not all lanes come.
INLINE float4 mma_sync(uint4 left, uint2 right, float4 sums) {
    float x, y, z, w;
    __asm__ volatile(MMA_SYNC " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
                     : "=f"(x), "=f"(y), "=f"(z), "=f"(w)
                     : "r"(left.x), "r"(left.y), "r"(left.z), "r"(left.w), "r"(right.x), "r"(right.y),
                       "f"(sums.x), "f"(sums.y), "f"(sums.z), "f"(sums.w));
    return (float4)(x, y, z, w);
}
INLINE uint rounded_to_tf32(float value) {
    uint bits;
    __asm__("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}
#endif

#elif ENGINE == INTEL_ENGINE_OF_8 || ENGINE == INTEL_ENGINE_OF_16

#if ENGINE == INTEL_ENGINE_OF_8
#define SIMD 8
#else
#define SIMD 16
#endif
// A lane has a column of the right and of the sums, and a word (SIMD 8) or half a word (16) of each row of the
// left. More sums don't fit into 128 registers.
#define FRAGMENT_ROWS 8
#define FRAGMENT_COLUMNS SIMD
#define LEFT_FRAGMENTS 2
#define RIGHT_FRAGMENTS 2
#define SUMS 8
#define SUM_ROW(lane, i) (i)
#define SUM_COLUMN(lane, i) (lane)
#if SIMD == 8
typedef int8 left_fragment;
#define LEFT_WORDS(p, lane) ((__local const int *)(p) + (lane))
#define LEFT_STEP ROW_WORDS
#else
typedef short8 left_fragment;
#define LEFT_WORDS(p, lane) ((__local const short *)(p) + (lane))
#define LEFT_STEP (2 * ROW_WORDS)
#endif
typedef int8 right_fragment;
INLINE left_fragment load_left(__local const uint *p, int lane) {
    return (left_fragment)(
        LEFT_WORDS(p, lane)[0], LEFT_WORDS(p, lane)[LEFT_STEP], LEFT_WORDS(p, lane)[2 * LEFT_STEP],
        LEFT_WORDS(p, lane)[3 * LEFT_STEP], LEFT_WORDS(p, lane)[4 * LEFT_STEP],
        LEFT_WORDS(p, lane)[5 * LEFT_STEP], LEFT_WORDS(p, lane)[6 * LEFT_STEP],
        LEFT_WORDS(p, lane)[7 * LEFT_STEP]);
}
INLINE right_fragment load_right(__local const uint *p, int lane) {
    __local const uint4 *column = (__local const uint4 *)(p + lane * ROW_WORDS);
    return as_int8((uint8)(column[0], column[1]));
}
#if defined(BFLOAT16)
#define MULTIPLY(left, right, sums) intel_sub_group_bf16_bf16_matrix_mad_k16(left, right, sums)
#else
#define MULTIPLY(left, right, sums) intel_sub_group_f16_f16_matrix_mad_k16(left, right, sums)
#endif
#define SUB_GROUP __attribute__((intel_reqd_sub_group_size(SIMD)))

#else

// A lane has words of one row of the left and of one column of the right. Which of the depth they are is the same
// in both, so that any order would do; these are neighbours.
#define FRAGMENT_ROWS 16
#define FRAGMENT_COLUMNS 16
#define LEFT_FRAGMENTS 4
#define RIGHT_FRAGMENTS 2
#define SUM_COLUMN(lane, i) ((lane) % 16)
#define load_right load_left
#ifdef FLOAT16
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#endif

#if ENGINE == CDNA_ENGINE
#define SIMD 64
#define SUMS 4
#define SUM_ROW(lane, i) ((lane) / 16 * 4 + (i))
typedef uint2 left_fragment;
INLINE left_fragment load_left(__local const uint *p, int lane) {
    return *(__local const uint2 *)(p + lane % 16 * ROW_WORDS + lane / 16 * 2);
}
#if defined(BFLOAT16)
#define MULTIPLY(left, right, sums) \
    __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(as_short4(left), as_short4(right), sums, 0, 0, 0)
#else
#define MULTIPLY(left, right, sums) \
    __builtin_amdgcn_mfma_f32_16x16x16f16(as_half4(left), as_half4(right), sums, 0, 0, 0)
#endif

#elif defined(__gfx1200__) || defined(__gfx1201__)
#define SIMD 32
#define SUMS 8
#define SUM_ROW(lane, i) ((lane) / 16 * 8 + (i))
typedef uint4 left_fragment;
INLINE left_fragment load_left(__local const uint *p, int lane) {
    return *(__local const uint4 *)(p + lane % 16 * ROW_WORDS + lane / 16 * 4);
}
#if defined(BFLOAT16)
#define MULTIPLY(left, right, sums) \
    __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(as_short8(left), as_short8(right), sums)
#else
#define MULTIPLY(left, right, sums) \
    __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(as_half8(left), as_half8(right), sums)
#endif

#else
// RDNA 3 wants the whole depth in the upper 16 lanes once more.
#define SIMD 32
#define SUMS 8
#define SUM_ROW(lane, i) ((i) * 2 + (lane) / 16)
typedef uint8 left_fragment;
INLINE left_fragment load_left(__local const uint *p, int lane) {
    __local const uint4 *row = (__local const uint4 *)(p + lane % 16 * ROW_WORDS);
    return (uint8)(row[0], row[1]);
}
#if defined(BFLOAT16)
#define MULTIPLY(left, right, sums) \
    __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(as_short16(left), as_short16(right), sums)
#else
#define MULTIPLY(left, right, sums) \
    __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(as_half16(left), as_half16(right), sums)
#endif
#endif
typedef left_fragment right_fragment;

#endif

#ifndef SUB_GROUP
#define SUB_GROUP
#endif
typedef CONCATENATED(float, SUMS) sum_fragment;

// MARK: What they share

#define SUB_GROUP_ROWS (LEFT_FRAGMENTS * FRAGMENT_ROWS)
#define SUB_GROUP_COLUMNS (RIGHT_FRAGMENTS * FRAGMENT_COLUMNS)
#define SUB_GROUPS_ACROSS (GROUP_COLUMNS / SUB_GROUP_COLUMNS)
#define ENGINE_LOCAL (GROUP_ROWS / SUB_GROUP_ROWS * SUB_GROUPS_ACROSS * SIMD)

// A panel comes in pieces of four words: neighbours in a row, or, where the operand is turned, so that neighbours
// in memory belong to neighbouring rows, one word of each of four rows. Neighbouring work-items take pieces that
// are neighbours in memory, as far as their words don't all fall into one bank. A work-item's next piece is
// PIECE_STEP rows on.
#define PIECES(rows) ((rows) * DEPTH_WORDS / 4 / ENGINE_LOCAL)
#define PIECE_STEP (ENGINE_LOCAL * 4 / DEPTH_WORDS)
INLINE int piece_row(int isTurned) {
    const int i = get_local_id(0);
    return isTurned ? (i / 64 * 4 + i / 8 % 4) * 4 : i / 4;
}
INLINE int piece_word(int isTurned) {
    const int i = get_local_id(0);
    return isTurned ? i / 32 % 2 * 8 + i % 8 : i % 4 * 4;
}

// Whether an operand, of which `rows` are left, comes in whole pieces that are aligned, but for the end of its
// depth.
INLINE int has_pieces(__global const element_bits *p, int rows, int rowStep, int depthStep) {
    const int step = depthStep == 1 ? rowStep : depthStep;
    const int isAligned = ((size_t)p | (size_t)step * sizeof(element_bits)) % sizeof(uint4) == 0;
    return isAligned && (depthStep == 1 || rows % 4 == 0);
}

// This work-item's pieces of the panel at p, as they lie in memory: who computed with them here would wait for
// them. Behind the last row comes the last again: its sums are dropped. Inside a panel an int is enough for steps
// below 2²⁴.
INLINE void fetch_pieces(
    uint4 *pieces, int count, __global const element_bits *p, int rows, int rowStep, int depthStep) {
    const int isTurned = depthStep != 1, row = piece_row(isTurned);
    p += piece_word(isTurned) * WORD_ELEMENTS * depthStep;
#pragma unroll
    for (int i = 0; i < count; i++) {
        __global const element_bits *from = p + min(row + i * PIECE_STEP, rows - (isTurned ? 4 : 1)) * rowStep;
#if WORD_ELEMENTS == 2
        if (isTurned)
            pieces[i] = (uint4)(*(__global const uint2 *)from, *(__global const uint2 *)(from + depthStep));
        else
#endif
            pieces[i] = *(__global const uint4 *)from;
    }
}

// What a word of an operand is for the engine.
#if WORD_ELEMENTS == 1
#define kept(word) rounded_to_tf32(as_float(word))
#else
#define kept(word) (word)
#endif

// The pieces as words into the panel in local memory.
INLINE void keep_pieces(__local uint *panel, const uint4 *pieces, int count, int isTurned) {
    panel += piece_row(isTurned) * ROW_WORDS + piece_word(isTurned);
#pragma unroll
    for (int i = 0; i < count; i++) {
        __local uint *to = panel + i * PIECE_STEP * ROW_WORDS;
        uint4 words = pieces[i];
#if WORD_ELEMENTS == 2
        if (isTurned)
            words = convert_uint4(as_ushort4(words.lo)) | convert_uint4(as_ushort4(words.hi)) << 16;
#endif
        words = (uint4)(kept(words.x), kept(words.y), kept(words.z), kept(words.w));
        if (isTurned) {
            to[0] = words.x;
            to[ROW_WORDS] = words.y;
            to[2 * ROW_WORDS] = words.z;
            to[3 * ROW_WORDS] = words.w;
        } else {
            *(__local uint4 *)to = words;
        }
    }
}

// A panel of which `depth` is left without pieces, one element after the other. Behind the depth come zeros, in
// both operands, as 0 · ∞ is a NaN.
INLINE void fill_panel(
    __local uint *panel, int count, __global const element_bits *p, int rows, int depth, int rowStep,
    int depthStep) {
#pragma unroll 1
    for (int i = get_local_id(0); i < count * DEPTH_WORDS; i += ENGINE_LOCAL) {
        const int row = depthStep == 1 ? i / DEPTH_WORDS : i % count;
        const int word = depthStep == 1 ? i % DEPTH_WORDS : i / count, at = word * WORD_ELEMENTS;
        __global const element_bits *from = p + min(row, rows - 1) * rowStep + at * depthStep;
        uint both = at < depth ? from[0] : 0;
#if WORD_ELEMENTS == 2
        if (at + 1 < depth) both |= (uint)from[depthStep] << 16;
#endif
        panel[row * ROW_WORDS + word] = kept(both);
    }
}

// The arguments are multiply_tiled's. Groups are [⌈n / GROUP_COLUMNS⌉, ⌈m / GROUP_ROWS⌉].
__kernel __attribute__((reqd_work_group_size(ENGINE_LOCAL, 1, 1))) SUB_GROUP void multiply_engine(
    __global stored *c, __global const stored *a, __global const stored *b, int m, int n, int k, int rowStepA,
    int columnStepA, int rowStepB, int columnStepB, int accumulate) {
    // Two of each panel: one is filled while the other is multiplied, with a barrier a turn.
    __local uint4 panels[2][(GROUP_ROWS + GROUP_COLUMNS) * ROW_WORDS / 4];
#ifdef EMULATED
    __local uint exchange[EMULATED];
#endif
    const int lane = (int)get_local_id(0) % SIMD, subGroup = (int)get_local_id(0) / SIMD;
    const int firstRow = (int)get_group_id(1) * GROUP_ROWS, firstColumn = (int)get_group_id(0) * GROUP_COLUMNS;
    const int row = subGroup / SUB_GROUPS_ACROSS * SUB_GROUP_ROWS;
    const int column = subGroup % SUB_GROUPS_ACROSS * SUB_GROUP_COLUMNS;
    __global const element_bits *left = (__global const element_bits *)a + (size_t)firstRow * rowStepA;
    __global const element_bits *right = (__global const element_bits *)b + (size_t)firstColumn * columnStepB;

    sum_fragment sums[LEFT_FRAGMENTS][RIGHT_FRAGMENTS];
#pragma unroll
    for (int i = 0; i < LEFT_FRAGMENTS; i++)
#pragma unroll
        for (int j = 0; j < RIGHT_FRAGMENTS; j++) sums[i][j] = 0.0f;

    // What comes next waits in registers while the engine works.
    uint4 nextLeft[PIECES(GROUP_ROWS)], nextRight[PIECES(GROUP_COLUMNS)];
    const int leftHasPieces = has_pieces(left, m - firstRow, rowStepA, columnStepA);
    const int rightHasPieces = has_pieces(right, n - firstColumn, columnStepB, rowStepB);
    if (leftHasPieces && k >= TURN_DEPTH)
        fetch_pieces(nextLeft, PIECES(GROUP_ROWS), left, m - firstRow, rowStepA, columnStepA);
    if (rightHasPieces && k >= TURN_DEPTH)
        fetch_pieces(nextRight, PIECES(GROUP_COLUMNS), right, n - firstColumn, columnStepB, rowStepB);
    int turn = 0;
    for (int depth = k; depth > 0; depth -= TURN_DEPTH) {
        __local uint *leftPanel = (__local uint *)panels[turn], *rightPanel = leftPanel + GROUP_ROWS * ROW_WORDS;
        if (leftHasPieces && depth >= TURN_DEPTH)
            keep_pieces(leftPanel, nextLeft, PIECES(GROUP_ROWS), columnStepA != 1);
        else
            fill_panel(leftPanel, GROUP_ROWS, left, m - firstRow, depth, rowStepA, columnStepA);
        if (rightHasPieces && depth >= TURN_DEPTH)
            keep_pieces(rightPanel, nextRight, PIECES(GROUP_COLUMNS), rowStepB != 1);
        else
            fill_panel(rightPanel, GROUP_COLUMNS, right, n - firstColumn, depth, columnStepB, rowStepB);
        barrier(CLK_LOCAL_MEM_FENCE);
        left += (size_t)TURN_DEPTH * columnStepA;
        right += (size_t)TURN_DEPTH * rowStepB;
        if (leftHasPieces && depth >= 2 * TURN_DEPTH)
            fetch_pieces(nextLeft, PIECES(GROUP_ROWS), left, m - firstRow, rowStepA, columnStepA);
        if (rightHasPieces && depth >= 2 * TURN_DEPTH)
            fetch_pieces(nextRight, PIECES(GROUP_COLUMNS), right, n - firstColumn, columnStepB, rowStepB);
#pragma unroll
        for (int word = 0; word < DEPTH_WORDS; word += FRAGMENT_WORDS) {
            right_fragment rights[RIGHT_FRAGMENTS];
#pragma unroll
            for (int j = 0; j < RIGHT_FRAGMENTS; j++)
                rights[j] = load_right(rightPanel + (column + j * FRAGMENT_COLUMNS) * ROW_WORDS + word, lane);
#pragma unroll
            for (int i = 0; i < LEFT_FRAGMENTS; i++) {
                left_fragment one = load_left(leftPanel + (row + i * FRAGMENT_ROWS) * ROW_WORDS + word, lane);
#pragma unroll
                for (int j = 0; j < RIGHT_FRAGMENTS; j++) sums[i][j] = MULTIPLY(one, rights[j], sums[i][j]);
            }
        }
        turn = 1 - turn;
    }

#pragma unroll
    for (int i = 0; i < LEFT_FRAGMENTS; i++)
#pragma unroll
        for (int j = 0; j < RIGHT_FRAGMENTS; j++) {
            float part[SUMS];
            CONCATENATED(vstore, SUMS)(sums[i][j], 0, part);
#pragma unroll
            for (int e = 0; e < SUMS; e++) {
                const int toRow = firstRow + row + i * FRAGMENT_ROWS + SUM_ROW(lane, e);
                const int toColumn = firstColumn + column + j * FRAGMENT_COLUMNS + SUM_COLUMN(lane, e);
                if (toRow >= m || toColumn >= n) continue;
                __global stored *to = c + (size_t)toRow * n + toColumn;
                store_stored_one(accumulate ? stored_one(to) + part[e] : part[e], to);
            }
        }
}
#endif
