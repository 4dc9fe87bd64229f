#pragma once
#include <stdbool.h>

// The commit that the program was built from, in hexadecimal; empty where the sources were no Git checkout.
const char *build_commit(void);

// Whether the checkout had changes that were not committed.
bool build_had_changes(void);

// The C compiler's own words for its version; the toolchain is the Swift compiler's.
const char *build_compiler(void);
