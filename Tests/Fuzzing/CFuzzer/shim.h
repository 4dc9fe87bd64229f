#include <stddef.h>
#include <stdint.h>

/// libFuzzer's loop, as its FuzzerInterface.h declares it.
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*target)(const uint8_t *bytes, size_t count));

/// One of libFuzzer's own changes of the bytes in place; returns how many there are then.
size_t LLVMFuzzerMutate(uint8_t *bytes, size_t count, size_t limit);
