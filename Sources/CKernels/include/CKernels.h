#ifndef CKERNELS_H
#define CKERNELS_H

#include <stddef.h>

/// One file of the folder Kernels: its name, its bytes (not terminated by a zero) and their count.
typedef struct {
    const char *name;
    const unsigned char *bytes;
    size_t count;
} CKernelFile;

/// Every kernel file in the order of compilation, Prelude.cl first.
const CKernelFile *ckernels_files(void);

/// How many files there are.
size_t ckernels_file_count(void);

#endif
