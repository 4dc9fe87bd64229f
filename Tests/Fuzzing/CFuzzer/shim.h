#include <stddef.h>
#include <stdint.h>

/// libFuzzer's loop, as its FuzzerInterface.h declares it.
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*target)(const uint8_t *bytes, size_t count));
