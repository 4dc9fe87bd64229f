// What the host's processor can do, from cpuid and xgetbv. Other architectures have none of it.

#define _GNU_SOURCE
#include "CProcessor.h"

#include <malloc.h>
#include <sched.h>
#include <unistd.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

// What the system saves of the registers when it changes threads: XCR0.
static unsigned long saved_state(void) {
    unsigned int low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (unsigned long)high << 32;
}

typedef struct { unsigned int ebx, edx, eax1; } Features;

// Leaf 7: subleaf 0's ebx and edx, subleaf 1's eax. Zeros where the system saves no extended state.
static Features features(void) {
    Features found = {0, 0, 0};
    unsigned int eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) return found;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return found;
    found.ebx = ebx;
    found.edx = edx;
    if (eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) found.eax1 = eax;
    return found;
}

bool processor_has_avx512_bf16(void) {
    const unsigned int avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; // F, DQ, BW, VL
    const Features found = features();
    return (found.ebx & avx512) == avx512 && (found.eax1 & 1u << 5) && (saved_state() & 0xe6) == 0xe6;
}

bool processor_grants_amx_bf16(void) {
    const unsigned int amx = 1u << 22 | 1u << 24; // AMX-BF16, AMX-TILE
    if (!processor_has_avx512_bf16() || (features().edx & amx) != amx || (saved_state() & 0x60000) != 0x60000)
        return false;
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0; // ARCH_REQ_XCOMP_PERM, XTILE_DATA
}

#else

bool processor_has_avx512_bf16(void) { return false; }
bool processor_grants_amx_bf16(void) { return false; }

#endif

void share_heap(void) {
#ifdef M_ARENA_MAX
    mallopt(M_ARENA_MAX, 1);
#endif
}

void return_freed_memory(void) {
#ifdef M_MMAP_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

int processor_count_allowed(void) {
    cpu_set_t mask;
    // A machine with more than 1,024 processors has no mask of this size.
    if (sched_getaffinity(0, sizeof mask, &mask) == 0) return CPU_COUNT(&mask);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}
