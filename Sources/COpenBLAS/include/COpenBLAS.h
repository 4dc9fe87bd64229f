// OpenBLAS, loaded when the first product needs it and without threads of its own.
//
// Linked, it would start its threads before main, and under a limit of the address space ask for their memory again and again for
// ever. Commands on other devices don't load its 37 MB at all.
#ifndef COPENBLAS_H
#define COPENBLAS_H

#include <cblas.h>
#include <stdbool.h>

/// Loads the library once. NULL, or why it can't be.
const char *openblas_load(void);

/// Whether there is the address space that loading takes.
bool openblas_has_room(void);

/// Takes now the 128 MiB of address space that each of `count` products needs at a time, of which it writes little. Returns for how
/// many there is room.
int openblas_reserve(int count);

/// cblas_sgemm; after `openblas_load`.
void openblas_sgemm(enum CBLAS_ORDER order, enum CBLAS_TRANSPOSE transpose_a, enum CBLAS_TRANSPOSE transpose_b, int m, int n,
                    int k, float alpha, const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);

#endif
