// Products of bfloat16 matrices by what a CPU has for them, from OpenCL C, one work-item a group, sums in float32. The kernels
// have the names and arguments of those in Panels.cl, whose place they take where the host gives
//
//     ENGINE   1   vdpbf16ps of AVX512-BF16: 32 products and 32 additions an instruction
//              2   tdpbf16ps of AMX: 8,192 of each
//
// Their operands are panels as EnginePanels.cl packs them.
//
// On 2 cores of a Zen 5 the first engine runs at 749 GFLOP/s, 0.92 times oneDNN's in PyTorch 2.15 (a ViT-B block's products and
// their gradients, PoCL), and at 2.0 times the speed of Panels.cl in float32.
// vdpbf16ps takes denormal numbers for zeros and rounds each of its two additions.
#if defined(ENGINE) && ENGINE <= 2

// MARK: What the engines share in assembly
//
// The asm blocks have to hold for two compilers. PoCL's Clang targets x86 and takes every CPU for a Skylake at most. Intel's
// Clang targets SPIR-V: it knows "r" operands and "memory", and refuses every register's name, so nothing can be declared
// as overwritten. And both drop a line that their assembler refuses and run the rest: no error, no abort, wrong sums. So a
// block
//
//   - spells instructions behind AVX-512F as bytes, with fixed registers;
//   - leaves the registers as they were, flags too, where it can't name them: for a tile's 32 that is 64 moves, 3 % of a
//     depth of 512;
//   - pushes only below the 128 bytes that a function may use under its stack pointer.
//
// Nothing stops a CPU without the instructions from running them (SIGILL): the host asks for its features first, and checks
// products before it uses an engine.

#define SAVE_STACK "lea -128(%%rsp), %%rsp\n\t pushfq\n\t"
#define RESTORE_STACK "popfq\n\t lea 128(%%rsp), %%rsp\n\t"

// MARK: A tile
//
// MULTIPLY_TILE_BF16(sums, left, right, pairs, isFirst): sums [ENGINE_ROWS, TILE_COLUMNS] floats of this work-item, in memory
// in every engine, ← left · right, or sums + left · right unless isFirst. `saved` is [SAVED] floats for the engine's use.

#if ENGINE == AVX512_ENGINE

#define SAVED (32 * 16)
#define REGISTERS(M)                                                                                            \
    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15) M(16) M(17) M(18)     \
    M(19) M(20) M(21) M(22) M(23) M(24) M(25) M(26) M(27) M(28) M(29) M(30) M(31)
#define SUMS(M)                                                                                                 \
    M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15) M(16) M(17) M(18) M(19) M(20) M(21) M(22) M(23) M(24) M(25)   \
    M(26) M(27) M(28) M(29) M(30) M(31)
#define SAVE(i) "vmovups %%zmm" #i ", (" #i " * 64)(%[saved])\n\t"
#define RESTORE(i) "vmovups (" #i " * 64)(%[saved]), %%zmm" #i "\n\t"
#define CLEAR(i) "vpxord %%zmm" #i ", %%zmm" #i ", %%zmm" #i "\n\t"
#define LOAD_SUM(i) "vmovups ((" #i " - 8) * 64)(%[sums]), %%zmm" #i "\n\t"
#define STORE_SUM(i) "vmovups %%zmm" #i ", ((" #i " - 8) * 64)(%[sums])\n\t"
// vdpbf16ps %zmm<factor>, %zmm<vector>, %zmm<sum>, factor and vector below 8: EVEX.512.F3.0F38.W0 52 /r, where the
// prefix has bits 3 and 4 of the sum's number inverted, and the vector's.
#define DOT(sum, vector, factor)                                                                                \
    ".byte 0x62, 0x62 | ((" #sum " & 8) ^ 8) << 4 | ((" #sum " & 16) ^ 16), 0x06 | ((" #vector ") ^ 15) << 3, 0x48, 0x52, "   \
    "0xc0 | (" #sum " & 7) << 3 | " #factor "\n\t"
// A row of the tile at pair q: its factor is loaded once for both halves. With {1to16} operands there would be 26 loads on
// 24 products where a Zen 5 does two of each in a cycle.
#define DOT_ROW(q, r, first, second, factor)                                                                    \
    "vbroadcastss (" #q " * 48 + " #r " * 4)(%[left]), %%zmm" #factor "\n\t" DOT(first, 0, factor) DOT(second, 1, factor)
#define DOT_PAIR(q)                                                                                             \
    "vmovups (" #q " * 128)(%[right]), %%zmm0\n\t vmovups (" #q " * 128 + 64)(%[right]), %%zmm1\n\t"            \
    DOT_ROW(q, 0, 8, 9, 2) DOT_ROW(q, 1, 10, 11, 3) DOT_ROW(q, 2, 12, 13, 4) DOT_ROW(q, 3, 14, 15, 5)           \
    DOT_ROW(q, 4, 16, 17, 6) DOT_ROW(q, 5, 18, 19, 7) DOT_ROW(q, 6, 20, 21, 2) DOT_ROW(q, 7, 22, 23, 3)         \
    DOT_ROW(q, 8, 24, 25, 4) DOT_ROW(q, 9, 26, 27, 5) DOT_ROW(q, 10, 28, 29, 6) DOT_ROW(q, 11, 30, 31, 7)

#define UNROLLED 4
#define DOT_PAIRS DOT_PAIR(0) DOT_PAIR(1) DOT_PAIR(2) DOT_PAIR(3)
// Declared where the compiler knows the names: 2–3 % faster than saving them.
#ifdef __x86_64__
#define SAVE_REGISTERS
#define RESTORE_REGISTERS
#define NAME(i) , "zmm" #i
#define OVERWRITTEN REGISTERS(NAME)
#else
#define SAVE_REGISTERS REGISTERS(SAVE)
#define RESTORE_REGISTERS REGISTERS(RESTORE)
#define OVERWRITTEN
#endif
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

// 12 × 32: 24 of the 32 registers; a Zen 5 starts two products a cycle that take 6, so 12 sums hide the latency.
#define MULTIPLY_TILE_BF16(sums_, saved_, left_, right_, pairs_, isFirst_)                                      \
    {                                                                                                           \
        __global const uint *asmLeft_ = left_, *asmRight_ = right_;                                             \
        long asmPairs_ = pairs_, asmFirst_ = isFirst_;                                                          \
        __asm__ volatile(                                                                                       \
            SAVE_STACK SAVE_REGISTERS SUMS(CLEAR)                                                              \
            "test %[isFirst], %[isFirst]\n\t jnz 1f\n\t" SUMS(LOAD_SUM)                                         \
            "1:\n\t sub $" TEXT(UNROLLED) ", %[pairs]\n\t jl 3f\n\t"                                            \
            ".p2align 6\n\t 2:\n\t" DOT_PAIRS                                                                   \
            "add $(" TEXT(UNROLLED) " * 48), %[left]\n\t add $(" TEXT(UNROLLED) " * 128), %[right]\n\t"         \
            "sub $" TEXT(UNROLLED) ", %[pairs]\n\t jge 2b\n\t"                                                  \
            "3:\n\t add $" TEXT(UNROLLED) ", %[pairs]\n\t jz 5f\n\t"                                            \
            "4:\n\t" DOT_PAIR(0) "add $48, %[left]\n\t add $128, %[right]\n\t dec %[pairs]\n\t jnz 4b\n\t"      \
            "5:\n\t" SUMS(STORE_SUM) RESTORE_REGISTERS RESTORE_STACK                                          \
            : [left] "+r"(asmLeft_), [right] "+r"(asmRight_), [pairs] "+r"(asmPairs_)                           \
            : [sums] "r"(sums_), [saved] "r"(saved_), [isFirst] "r"(asmFirst_)                                  \
            : "memory" OVERWRITTEN);                                                                                       \
    }

#elif ENGINE == AMX_ENGINE
// The words are the ones that ldtilecfg reads: palette 1, eight tiles of 16 rows of 64 bytes.
#define SAVED 32
#define TILE_CONFIGURATION                                                                                      \
    (ulong8)(1, 0, 0x0040004000400040ul, 0x0040004000400040ul, 0, 0, 0x1010101010101010ul, 0)
// Tiles 0 to 3 are the sums [2, 2], 4 and 5 the left's, 6 and 7 the right's. Registers: rax left, rdx right, rdi sums, rsi
// 64 and rcx 128, the bytes from a tile's row to the next, r8 the steps. Each instruction is C4 E2 (VEX, map 0F38), then
// the prefix with the third operand inverted, the opcode, ModRM, and for memory SIB and a displacement of 32 bits.
#define LEFT_TILE "0x30"  // (%rax, %rsi)
#define RIGHT_TILE "0x0a" // (%rdx, %rcx)
#define SUMS_TILE "0x0f"  // (%rdi, %rcx)
#define TILE_CONFIGURE ".byte 0xc4, 0xe2, 0x78, 0x49, 0x00\n\t" // ldtilecfg (%rax)
#define TILE_RELEASE ".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0\n\t"
#define TILE_ZERO(t) ".byte 0xc4, 0xe2, 0x7b, 0x49, 0xc0 | " #t " << 3\n\t"
#define TILE_LOAD(t, address, offset)                                                                           \
    ".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x84 | " #t " << 3, " address "\n\t .long " #offset "\n\t"
#define TILE_STORE(t, address, offset)                                                                          \
    ".byte 0xc4, 0xe2, 0x7a, 0x4b, 0x84 | " #t " << 3, " address "\n\t .long " #offset "\n\t"
#define TILE_DOT(sum, a, b)                                                                                     \
    ".byte 0xc4, 0xe2, 0x02 | (" #b " ^ 15) << 3, 0x5c, 0xc0 | " #sum " << 3 | " #a "\n\t"

// 32 × 32: each of four tiles loaded goes into two products, so that four loads take half as long as four products if they
// come from the first cache. The configuration is set and released each time: a few dozen of about 1,100 cycles at
// DEEPEST; nothing else uses tiles, and without the release a thread carries 8 KiB through every switch.
#define MULTIPLY_TILE_BF16(sums_, saved_, left_, right_, pairs_, isFirst_)                                      \
    {                                                                                                           \
        ulong *arguments_ = (ulong *)(saved_);                                                                  \
        vstore8(TILE_CONFIGURATION, 0, arguments_);                                                             \
        vstore4((ulong4)((ulong)(left_), (ulong)(right_), (ulong)(sums_), (pairs_) / PAIR_STEP), 2, arguments_); \
        arguments_[12] = isFirst_;                                                                              \
        __asm__ volatile(                                                                                       \
            SAVE_STACK "push %%rax\n\t push %%rcx\n\t push %%rdx\n\t push %%rsi\n\t push %%rdi\n\t push %%r8\n\t" \
            "push %[arguments]\n\t pop %%rax\n\t" TILE_CONFIGURE                                                \
            "mov 72(%%rax), %%rdx\n\t mov 80(%%rax), %%rdi\n\t mov 88(%%rax), %%r8\n\t mov 96(%%rax), %%rcx\n\t" \
            "mov 64(%%rax), %%rax\n\t mov $64, %%esi\n\t test %%rcx, %%rcx\n\t mov $128, %%ecx\n\t jnz 1f\n\t"  \
            TILE_LOAD(0, SUMS_TILE, 0) TILE_LOAD(1, SUMS_TILE, 64) TILE_LOAD(2, SUMS_TILE, 2048)                \
            TILE_LOAD(3, SUMS_TILE, 2112) "jmp 2f\n\t"                                                          \
            "1:\n\t" TILE_ZERO(0) TILE_ZERO(1) TILE_ZERO(2) TILE_ZERO(3)                                        \
            "2:\n\t" TILE_LOAD(6, RIGHT_TILE, 0) TILE_LOAD(4, LEFT_TILE, 0) TILE_DOT(0, 4, 6)                   \
            TILE_LOAD(7, RIGHT_TILE, 64) TILE_DOT(1, 4, 7) TILE_LOAD(5, LEFT_TILE, 1024) TILE_DOT(2, 5, 6)      \
            TILE_DOT(3, 5, 7)                                                                                   \
            "add $2048, %%rax\n\t add $2048, %%rdx\n\t dec %%r8\n\t jnz 2b\n\t"                                 \
            TILE_STORE(0, SUMS_TILE, 0) TILE_STORE(1, SUMS_TILE, 64) TILE_STORE(2, SUMS_TILE, 2048)             \
            TILE_STORE(3, SUMS_TILE, 2112) TILE_RELEASE                                                         \
            "pop %%r8\n\t pop %%rdi\n\t pop %%rsi\n\t pop %%rdx\n\t pop %%rcx\n\t pop %%rax\n\t" RESTORE_STACK  \
            :                                                                                                   \
            : [arguments] "r"(arguments_)                                                                       \
            : "memory");                                                                                        \
    }

#endif

// `here` rows of a tile [·, TILE_COLUMNS] of dW, whose first element is [row, column] of the block, into the group's sums.
static void contract_rows(
    const float *tile, __global float *dDownA, __global float *dDownB, __global float *dUpA, __global float *dUpB,
    __global const stored *frozen, __global const float *downA, __global const float *upA,
    __global const float *downB, __global const float *upB, int row, int column, int here, int columns,
    int firstRow, int firstColumn, int n, int rankA, int strideA, int rankB, int strideB, int isFirst) {
    const int columnsLeft = columns - column;
    const size_t wholeRow = firstRow + row, wholeColumn = firstColumn + column;
    lanes sums[TILE_ROWS][2];
    for (int r = 0; r < TILE_ROWS; r++)
        for (int v = 0; v < 2; v++)
            sums[r][v] = r < here ? load_full(0, tile + r * TILE_COLUMNS + v * WIDTH) : (lanes)(0.0f);
    if (rankB > 0)
        contract_tile(
            sums, dDownB + (size_t)row * rankB, dUpB + column, downB + wholeRow * strideB,
            upB ? upB + wholeColumn : upB, here, columnsLeft, rankB, strideB, columns, n, isFirst);
    if (rankA == 0) return;
    for (int r = 0; r < TILE_ROWS; r++)
        for (int v = 0; v < 2; v++)
            if (r < here && columnsLeft > v * WIDTH)
                sums[r][v] *= stored_lanes(
                    frozen + (wholeRow + r) * n + wholeColumn + v * WIDTH, columnsLeft - v * WIDTH);
    contract_tile(
        sums, dDownA + (size_t)row * rankA, dUpA + column, downA + wholeRow * strideA,
        upA ? upA + wholeColumn : upA, here, columnsLeft, rankA, strideA, columns, n, isFirst);
}

// The depth, in pairs, that a group multiplies at a time, and the panels of the left whose sums wait meanwhile, in float32
// and as tiles, 1.5 KiB each. 256 pairs are 32 KiB of the right and 12 of the left, which a first cache of 48 KiB holds:
// 4 % faster than the whole depth at once over ViT-B's products. 8 to 32 panels are alike.
#define DEEPEST 256
#define WAITING 8

// Multiplies the panels firstPanel ..< lastPanel of the left by one of the right, at b, and runs the statements for each with
// `panel` and its `tile` [ENGINE_ROWS, TILE_COLUMNS].
#define MULTIPLY_SHARE(left, b, firstPanel, lastPanel, k, ...)                                                  \
    {                                                                                                           \
        float saved[SAVED], sums[WAITING][ENGINE_ROWS * TILE_COLUMNS];                                          \
        const int pairs_ = PAIRS(k), parts_ = (pairs_ + DEEPEST - 1) / DEEPEST;                                 \
        const int step_ = ((pairs_ + parts_ - 1) / parts_ + PAIR_STEP - 1) / PAIR_STEP * PAIR_STEP;             \
        for (int chunk_ = firstPanel; chunk_ < (lastPanel); chunk_ += WAITING)                                  \
            for (int p_ = 0; p_ < pairs_; p_ += step_)                                                          \
                for (int panel = chunk_; panel < min(lastPanel, chunk_ + WAITING); panel++) {                   \
                    __global const uint *a_ = (left) + ((size_t)panel * pairs_ + p_) * ENGINE_ROWS;             \
                    float *tile = sums[panel - chunk_];                                                         \
                    MULTIPLY_TILE_BF16(                                                                         \
                        tile, saved, a_, (b) + (size_t)p_ * TILE_COLUMNS, min(step_, pairs_ - p_), p_ == 0)     \
                    if (p_ + step_ >= pairs_) { __VA_ARGS__ }                                                   \
                }                                                                                               \
    }

// The panels of the left that a group multiplies: groups are [panels of the right, stretches of the left].
static int first_left_panel(int rows) {
    return (int)((long)((rows + ENGINE_ROWS - 1) / ENGINE_ROWS) * get_group_id(1) / get_num_groups(1));
}
static int last_left_panel(int rows) {
    return (int)((long)((rows + ENGINE_ROWS - 1) / ENGINE_ROWS) * (get_group_id(1) + 1) / get_num_groups(1));
}

// c [m, n] ← left · right, or c + left · right when accumulate. The panels of the right start at rightOffset.
__kernel GROUP void multiply_panels(
    __global stored *c, __global const uint *left, __global const uint *right, int rightOffset, int firstRow,
    int firstColumn, int rows, int n, int k, int accumulate) {
    const int column = firstColumn + (int)get_group_id(0) * TILE_COLUMNS;
    __global const uint *b = right + rightOffset + (size_t)get_group_id(0) * TILE_COLUMNS * PAIRS(k);
    const int first = first_left_panel(rows), last = last_left_panel(rows);
    MULTIPLY_SHARE(
        left, b, first, last, k, __global stored *to = c + (size_t)(firstRow + panel * ENGINE_ROWS) * n + column;
        for (int r = 0; r < min(ENGINE_ROWS, rows - panel * ENGINE_ROWS); r++, to += n)
            for (int v = 0; v < TILE_COLUMNS; v += WIDTH) {
                if (n - column - v <= 0) continue;
                WITH_LANES(
                    n - column - v, lanes z = load_full(0, tile + r * TILE_COLUMNS + v);
                    if (accumulate) z += stored_lanes(to + v, lanes_);
                    store_stored(z, to + v, lanes_);)
            })
}

// z = partial + left · right through the epilogue (Epilogue.cl); partial [m, n], the sum over the depth before, may be
// null. y, product and activated are [m, n] and may be null; one of them may be partial.
__kernel GROUP void multiply_panels_finish(
    __global stored *y, __global stored *product, __global stored *activated, __global const stored *partial,
    __global const uint *left, __global const uint *right, __global const float *table,
    __global const float *t, int rightOffset, int firstRow, int firstColumn, int rows, int n, int k, int rank) {
    const int column = firstColumn + (int)get_group_id(0) * TILE_COLUMNS;
    __global const uint *b = right + rightOffset + (size_t)get_group_id(0) * TILE_COLUMNS * PAIRS(k);
    const int first = first_left_panel(rows), last = last_left_panel(rows);
    MULTIPLY_SHARE(
        left, b, first, last, k, for (int r = 0; r < min(ENGINE_ROWS, rows - panel * ENGINE_ROWS); r++) {
            const int row = firstRow + panel * ENGINE_ROWS + r;
            for (int v = 0; v < TILE_COLUMNS; v += WIDTH) {
                const int j = column + v;
                if (n - j <= 0) continue;
                WITH_LANES(
                    n - j, lanes z = load_full(0, tile + r * TILE_COLUMNS + v);
                    if (partial) z += stored_lanes(partial + (size_t)row * n + j, lanes_);
                    finish_lanes(z, y, product, activated, table, t, row, n, j, rank, lanes_);)
            }
        })
}

// dW = left · right [rows, columns] contracted with the factors of A and B as in Panels.cl, up to TILE_ROWS rows at a time.
__kernel GROUP void contract_panels(
    __global float *parts, __global const uint *left, __global const uint *right,
    __global const stored *frozen, __global const float *downA, __global const float *upA,
    __global const float *downB, __global const float *upB, int downOffset, int firstRow, int firstColumn,
    int rows, int columns, int n, int k, int rankA, int strideA, int rankB, int strideB) {
    const int panels = (columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const int firstPanel = first_row(panels), lastPanel = last_row(panels);
    const int first = first_left_panel(rows), last = last_left_panel(rows);
    const int rank = rankA + rankB;
    __global float *dDownA = parts + downOffset + (size_t)get_group_id(0) * rows * rank;
    __global float *dDownB = dDownA + (size_t)rows * rankA;
    __global float *dUpA = parts + (size_t)get_group_id(1) * rank * columns;
    __global float *dUpB = dUpA + (size_t)rankA * columns;
    for (int j = firstPanel; j < lastPanel; j++) {
        const int column = j * TILE_COLUMNS;
        __global const uint *b = right + (size_t)column * PAIRS(k);
        MULTIPLY_SHARE(
            left, b, first, last, k, for (int r = 0; r < ENGINE_ROWS; r += TILE_ROWS) {
                const int row = panel * ENGINE_ROWS + r, here = min(min(TILE_ROWS, ENGINE_ROWS - r), rows - row);
                if (here > 0)
                    contract_rows(
                        tile + r * TILE_COLUMNS, dDownA, dDownB, dUpA, dUpB, frozen, downA, upA, downB, upB, row,
                        column, here, columns, firstRow, firstColumn, n, rankA, strideA, rankB, strideB,
                        j == firstPanel);
            })
    }
}
#endif
