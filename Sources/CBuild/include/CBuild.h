#pragma once

// The commit that was checked out when SwiftPM planned the build, in hexadecimal; empty where the sources were no Git checkout, or
// without git. It plans again after a commit, but not after an edit, nor in a linked worktree: exact is a build from scratch.
const char *build_commit(void);

// The C compiler's own words for its version; the toolchain is the Swift compiler's.
const char *build_compiler(void);
