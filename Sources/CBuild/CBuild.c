// What the program was built from. Package.swift defines the macros; a target of its own, since a new commit compiles it and what
// depends on it again.

#include "CBuild.h"

const char *build_commit(void) { return GLORA_COMMIT; }
bool build_had_changes(void) { return GLORA_HAD_CHANGES; }
const char *build_compiler(void) { return __VERSION__; }
