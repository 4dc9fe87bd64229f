// What the program was built from. Package.swift defines the macro; a target of its own, since a new commit compiles it and what
// depends on it again.

#include "CBuild.h"

const char *build_commit(void) { return GLORA_COMMIT; }
const char *build_compiler(void) { return __VERSION__; }
