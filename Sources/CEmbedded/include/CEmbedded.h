/// Binary files that are part of the program, so that it needs nothing beside it at run time.
#ifndef CEMBEDDED_H
#define CEMBEDDED_H

#include <stddef.h>
#include <stdint.h>

/// One embedded file.
typedef struct {
    /// Its path below Sources/CEmbedded, as in "Golden/vit/base.safetensors"; ends in 0.
    const char *_Nonnull name;
    /// Its content, for the life of the program.
    const uint8_t *_Nonnull bytes;
    /// The content's size in bytes.
    intptr_t byteCount;
} EmbeddedFile;

/// How many files there are.
intptr_t embeddedFileCount(void);

/// The file of that index, from 0 to below the count.
EmbeddedFile embeddedFile(intptr_t index);

#endif
