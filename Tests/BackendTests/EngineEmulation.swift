/// What the vendors' tables say that GPUs' matrix instructions do, in OpenCL C: put before the kernels it takes
/// the place of the instructions of GPUEngines.cl, so that a CPU device runs them. It is written from the tables
/// alone, not from the kernels: which element of a matrix each lane's register holds. The lanes put theirs into a
/// matrix in local memory, and each computes its sums from it.
///
/// - NVIDIA: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and "… mma.m16n8k8".
/// - Intel: the Khronos registry's text of cl_intel_subgroup_matrix_multiply_accumulate.
/// - AMD: the tables that AMD's matrix instruction calculator prints for RDNA 3 and 4, CDNA 2 and 3.
let engineEmulation = #"""
    // The words that a group's sub-groups exchange: each a matrix of the left, and behind it one of the right.
    #if ENGINE == 4 || ENGINE == 5
    #if ENGINE == 4
    #define INTEL_LANES 8
    #else
    #define INTEL_LANES 16
    #endif
    #define RIGHT (8 * 16)
    #define EMULATED (256 / INTEL_LANES * (RIGHT + 16 * INTEL_LANES))
    #define EXCHANGE(lanes) (exchange + get_local_id(0) / (lanes) * (RIGHT + 16 * INTEL_LANES))
    #else
    #define RIGHT (16 * 16)
    #define EMULATED (4 * 2 * RIGHT)
    #define EXCHANGE(lanes) (exchange + get_local_id(0) / (lanes) * 2 * RIGHT)
    #endif

    static float emulated_float(uint bits) {
    #if defined(BFLOAT16)
        return as_float(bits << 16);
    #elif defined(FLOAT16)
        ushort one = (ushort)bits;
        return vload_half(0, (const half *)&one);
    #else
        return as_float(bits);
    #endif
    }

    // Row `row` of the left times column `column` of the right [depth, columns], behind `sum`.
    static float emulated_sum(
        float sum, __local const uint *matrices, int row, int column, int columns, int depth) {
        __local const uint *left = matrices + row * depth, *right = matrices + RIGHT + column;
        for (int k = 0; k < depth; k++) sum += emulated_float(left[k]) * emulated_float(right[k * columns]);
        return sum;
    }

    // Element i of registers that hold two each, the lower half first.
    #define HALF_WORD(words, i) ((words)[(i) / 2] >> ((i) % 2 * 16) & 0xffff)

    #if ENGINE == 3

    #define mma_sync(left, right, sums) emulated_mma(left, right, sums, exchange)
    static float4 emulated_mma(uint4 left, uint2 right, float4 sums, __local uint *exchange) {
        const int lane = get_local_id(0) % 32, groupID = lane >> 2, threadIDInGroup = lane % 4;
        __local uint *matrices = EXCHANGE(32);
        uint a[4], b[2];
        float c[4];
        vstore4(left, 0, a);
        vstore2(right, 0, b);
        vstore4(sums, 0, c);
    #if defined(BFLOAT16) || defined(FLOAT16)
        const int depth = 16;
        for (int i = 0; i < 8; i++) {
            int row = (i < 2 || (i >= 4 && i < 6)) ? groupID : groupID + 8;
            int column = i < 4 ? threadIDInGroup * 2 + (i & 1) : threadIDInGroup * 2 + (i & 1) + 8;
            matrices[row * depth + column] = HALF_WORD(a, i);
        }
        for (int i = 0; i < 4; i++) {
            int row = i < 2 ? threadIDInGroup * 2 + (i & 1) : threadIDInGroup * 2 + (i & 1) + 8;
            matrices[RIGHT + row * 8 + groupID] = HALF_WORD(b, i);
        }
    #else
        const int depth = 8;
        for (int i = 0; i < 4; i++) {
            int row = (i == 0 || i == 2) ? groupID : groupID + 8;
            int column = i < 2 ? threadIDInGroup : threadIDInGroup + 4;
            matrices[row * depth + column] = a[i];
        }
        matrices[RIGHT + threadIDInGroup * 8 + groupID] = b[0];
        matrices[RIGHT + (threadIDInGroup + 4) * 8 + groupID] = b[1];
    #endif
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = 0; i < 4; i++) {
            int row = i < 2 ? groupID : groupID + 8, column = threadIDInGroup * 2 + (i & 1);
            c[i] = emulated_sum(c[i], matrices, row, column, 8, depth);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        return vload4(0, c);
    }

    // To the nearest of 11 bits, of two the one farther from zero.
    static uint rounded_to_tf32(float value) {
        uint bits = as_uint(value);
        return isnan(value) || isinf(value) ? bits : (bits + 0x1000) & ~0x1fffu;
    }

    #elif ENGINE == 4 || ENGINE == 5

    // "Each work item contributes part" of a row of a, the lower element first, "one column" of b, and "will
    // receive one column of result values".
    #define intel_sub_group_bf16_bf16_matrix_mad_k16(a, b, sums) emulated_mad(a, b, sums, exchange)
    #define intel_sub_group_f16_f16_matrix_mad_k16(a, b, sums) emulated_mad(a, b, sums, exchange)
    #if ENGINE == 4
    typedef int8 emulated_left;
    #define EMULATED_LEFT as_uint8
    #else
    typedef short8 emulated_left;
    #define EMULATED_LEFT(x) convert_uint8(as_ushort8(x))
    #endif
    static float8 emulated_mad(emulated_left left, int8 right, float8 sums, __local uint *exchange) {
        const int lane = get_local_id(0) % INTEL_LANES;
        __local uint *matrices = EXCHANGE(INTEL_LANES);
        uint a[8], b[8];
        float c[8];
        vstore8(EMULATED_LEFT(left), 0, a);
        vstore8(as_uint8(right), 0, b);
        vstore8(sums, 0, c);
        for (int row = 0; row < 8; row++)
            for (int i = 0; i < 16 / INTEL_LANES; i++)
                matrices[row * 16 + lane * (16 / INTEL_LANES) + i] = a[row] >> (16 * i) & 0xffff;
        for (int k = 0; k < 16; k++) matrices[RIGHT + k * INTEL_LANES + lane] = HALF_WORD(b, k);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int row = 0; row < 8; row++) c[row] = emulated_sum(c[row], matrices, row, lane, INTEL_LANES, 16);
        barrier(CLK_LOCAL_MEM_FENCE);
        return vload8(0, c);
    }

    #else

    // A CPU device may lack `half`.
    #undef as_half4
    #undef as_half8
    #undef as_half16
    #define as_half4(x) as_short4(x)
    #define as_half8(x) as_short8(x)
    #define as_half16(x) as_short16(x)

    #if ENGINE == 7

    #define __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, sums, x, y, z) emulated_mfma(a, b, sums, exchange)
    #define __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, sums, x, y, z) emulated_mfma(a, b, sums, exchange)
    static float4 emulated_mfma(short4 left, short4 right, float4 sums, __local uint *exchange) {
        const int lane = get_local_id(0) % 64;
        __local uint *matrices = EXCHANGE(64);
        ushort a[4], b[4];
        float c[4];
        vstore4(as_ushort4(left), 0, a);
        vstore4(as_ushort4(right), 0, b);
        vstore4(sums, 0, c);
        // Registers 0 and 1 of lanes 0 to 15 have k = 0 to 3, of lanes 16 to 31 k = 4 to 7, and so on.
        for (int i = 0; i < 4; i++) {
            int k = (lane / 16) * 4 + i;
            matrices[(lane % 16) * 16 + k] = a[i];
            matrices[RIGHT + k * 16 + lane % 16] = b[i];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        // Register i of lanes 0 to 15 is row i, of lanes 16 to 31 row 4 + i, and so on.
        for (int i = 0; i < 4; i++)
            c[i] = emulated_sum(c[i], matrices, (lane / 16) * 4 + i, lane % 16, 16, 16);
        barrier(CLK_LOCAL_MEM_FENCE);
        return vload4(0, c);
    }

    #elif defined(__gfx1200__)

    #define __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, sums) emulated_wmma(a, b, sums, exchange)
    #define __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, b, sums) emulated_wmma(a, b, sums, exchange)
    static float8 emulated_wmma(short8 left, short8 right, float8 sums, __local uint *exchange) {
        const int lane = get_local_id(0) % 32;
        __local uint *matrices = EXCHANGE(32);
        ushort a[8], b[8];
        float c[8];
        vstore8(as_ushort8(left), 0, a);
        vstore8(as_ushort8(right), 0, b);
        vstore8(sums, 0, c);
        // Lanes 0 to 15 have k = 0 to 3 and 8 to 11, lanes 16 to 31 the others.
        for (int i = 0; i < 8; i++) {
            int k = (lane / 16) * 4 + i % 4 + i / 4 * 8;
            matrices[(lane % 16) * 16 + k] = a[i];
            matrices[RIGHT + k * 16 + lane % 16] = b[i];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = 0; i < 8; i++)
            c[i] = emulated_sum(c[i], matrices, (lane / 16) * 8 + i, lane % 16, 16, 16);
        barrier(CLK_LOCAL_MEM_FENCE);
        return vload8(0, c);
    }

    #else

    #define __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, sums) emulated_wmma(a, b, sums, exchange)
    #define __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, b, sums) emulated_wmma(a, b, sums, exchange)
    static float8 emulated_wmma(short16 left, short16 right, float8 sums, __local uint *exchange) {
        const int lane = get_local_id(0) % 32;
        __local uint *matrices = EXCHANGE(32);
        ushort a[16], b[16];
        float c[8];
        vstore16(as_ushort16(left), 0, a);
        vstore16(as_ushort16(right), 0, b);
        vstore8(sums, 0, c);
        if (lane < 16)
            for (int k = 0; k < 16; k++) {
                matrices[lane * 16 + k] = a[k];
                matrices[RIGHT + k * 16 + lane] = b[k];
            }
        barrier(CLK_LOCAL_MEM_FENCE);
        // Lanes 16 to 31 have to have the same as lanes 0 to 15.
        int isSame = 1;
        for (int k = 0; k < 16; k++)
            isSame &= matrices[lane % 16 * 16 + k] == a[k] && matrices[RIGHT + k * 16 + lane % 16] == b[k];
        for (int i = 0; i < 8; i++)
            c[i] = isSame ? emulated_sum(c[i], matrices, 2 * i + lane / 16, lane % 16, 16, 16) : NAN;
        barrier(CLK_LOCAL_MEM_FENCE);
        return vload8(0, c);
    }

    #endif
    #endif
    """#
