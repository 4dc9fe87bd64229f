#ifndef CPROCESSOR_H
#define CPROCESSOR_H

#include <stdbool.h>

/// Whether the host's processor and system have AVX512-BF16 (`vdpbf16ps` on 512 bits).
bool processor_has_avx512_bf16(void);

/// Whether they have AMX with bfloat16 (`tdpbf16ps`), and Linux grants this process the use of its tiles, which it has to be
/// asked for once (arch_prctl, ARCH_REQ_XCOMP_PERM).
bool processor_grants_amx_bf16(void);

/// Has threads share one heap of malloc's; each would reserve 64 MiB of address space for its own.
void share_heap(void);

/// Has what malloc gave in a piece of 1 MiB or more go back to the system when it is freed; glibc else raises that size to 32 MiB.
void return_freed_memory(void);

/// How many processors this process may run on: those of its affinity mask.
int processor_count_allowed(void);

#endif
