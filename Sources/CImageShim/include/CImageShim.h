// PNG to and from 8-bit RGB through libpng.
//
// In C because libpng reports errors by longjmp, which must not cross Swift's frames, and because its simplified
// interface, which needs no longjmp, converts gamma, blends alpha and rounds 16-bit samples; Pillow does none of these.

#ifndef CIMAGESHIM_H
#define CIMAGESHIM_H

#include <stddef.h>
#include <stdint.h>

/// The size of `message`: libpng's own limit on an error's text.
#define IMAGE_SHIM_MESSAGE_SIZE 256

/// Decodes the PNG in bytes [count] into pixels [height, width, 3]. `width` and `height` are those that the
/// caller read from the header and allocated for.
///
/// Grey is repeated in three channels and 1, 2 and 4 bits are spread over 0...255; a palette is looked up; of 16 bits the
/// high byte counts; alpha and tRNS are dropped, not blended; no gamma or colour profile is applied.
/// `largest_grey` becomes the largest value of a picture in 16-bit grey, and −1 for every other form.
/// Returns 0, or 1 with the reason in `message`.
int image_shim_decode_png(
    uint8_t *pixels, const uint8_t *bytes, size_t count, uint32_t width, uint32_t height, int32_t *largest_grey,
    char *message);

/// Writes pixels [height, width, 3] as a PNG file. Returns 0, or 1 with the reason in `message`; then no file is left.
int image_shim_write_png(
    const char *path, const uint8_t *pixels, uint32_t width, uint32_t height, char *message);

/// The same into memory: `bytes` [count], which the caller frees. Returns 0, or 1 with the reason in `message` and nothing to
/// free.
int image_shim_encode_png(
    uint8_t **bytes, size_t *count, const uint8_t *pixels, uint32_t width, uint32_t height, char *message);

#endif
