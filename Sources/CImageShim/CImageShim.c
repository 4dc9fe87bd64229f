#include "CImageShim.h"

#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// What is left of the file in memory.
struct source {
    const uint8_t *bytes;
    size_t count;
};

static void read_bytes(png_structp png, png_bytep destination, size_t count) {
    struct source *source = png_get_io_ptr(png);
    if (count > source->count) png_error(png, "the file ends early");
    memcpy(destination, source->bytes, count);
    source->bytes += count;
    source->count -= count;
}

static void keep_message(png_structp png, png_const_charp message) {
    snprintf(png_get_error_ptr(png), IMAGE_SHIM_MESSAGE_SIZE, "%s", message);
    png_longjmp(png, 1);
}

static void ignore_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

/// pixels [height, width, 3] from 16-bit grey at the start of each row, in place; returns the largest of the values.
static int32_t take_high_bytes(uint8_t *pixels, uint32_t width, uint32_t height) {
    int32_t largest = 0;
    for (uint32_t y = 0; y < height; y++) {
        uint8_t *row = pixels + (size_t)y * width * 3;
        // From the right, where a pixel's three bytes lie behind its two and all that are still to be read.
        for (size_t x = width; x-- > 0;) {
            uint8_t high = row[2 * x];
            int32_t value = high << 8 | row[2 * x + 1];
            if (value > largest) largest = value;
            row[3 * x] = row[3 * x + 1] = row[3 * x + 2] = high;
        }
    }
    return largest;
}

int image_shim_decode_png(
    uint8_t *pixels, const uint8_t *bytes, size_t count, uint32_t width, uint32_t height, int32_t *largest_grey,
    char *message
) {
    // `png` and `info` are set before setjmp and never after it, so a longjmp leaves them defined.
    struct source source = {bytes, count};
    snprintf(message, IMAGE_SHIM_MESSAGE_SIZE, "out of memory");
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, message, keep_message, ignore_warning);
    if (!png) return 1;
    png_infop info = png_create_info_struct(png);
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return 1;
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_read_struct(&png, &info, NULL);
        return 1;
    }

    png_set_read_fn(png, &source, read_bytes);
    // Text, profiles and times are skipped unread: nothing in them changes a pixel, and they can be compressed bombs.
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(png, info);
    if (png_get_image_width(png, info) != width || png_get_image_height(png, info) != height) {
        png_error(png, "the header does not come first");
    }
    int is_grey16 = png_get_bit_depth(png, info) == 16 && !(png_get_color_type(png, info) & PNG_COLOR_MASK_COLOR);
    if (!is_grey16) png_set_strip_16(png);
    png_set_palette_to_rgb(png);
    if (!is_grey16 && !(png_get_color_type(png, info) & PNG_COLOR_MASK_COLOR)) {
        png_set_expand_gray_1_2_4_to_8(png);
        png_set_gray_to_rgb(png);
    }
    png_set_strip_alpha(png);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != (size_t)width * (is_grey16 ? 2 : 3)) png_error(png, "the pixels have an unknown form");

    for (int pass = 0; pass < passes; pass++) {
        for (uint32_t row = 0; row < height; row++) {
            png_read_row(png, pixels + (size_t)row * width * 3, NULL);
        }
    }
    png_read_end(png, NULL);
    *largest_grey = is_grey16 ? take_high_bytes(pixels, width, height) : -1;
    png_destroy_read_struct(&png, &info, NULL);
    return 0;
}

int image_shim_write_png(
    const char *path, const uint8_t *pixels, uint32_t width, uint32_t height, char *message
) {
    png_image image = {.version = PNG_IMAGE_VERSION, .width = width, .height = height, .format = PNG_FORMAT_RGB};
    if (png_image_write_to_file(&image, path, 0, pixels, 0, NULL)) return 0;
    snprintf(message, IMAGE_SHIM_MESSAGE_SIZE, "%s", image.message);
    return 1;
}

int image_shim_encode_png(
    uint8_t **bytes, size_t *count, const uint8_t *pixels, uint32_t width, uint32_t height, char *message
) {
    png_image image = {.version = PNG_IMAGE_VERSION, .width = width, .height = height, .format = PNG_FORMAT_RGB};
    // The bound is of pixels that don't compress; asking for the size itself would compress them twice.
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    snprintf(message, IMAGE_SHIM_MESSAGE_SIZE, "out of memory");
    *bytes = malloc(size);
    if (!*bytes) return 1;
    if (png_image_write_to_memory(&image, *bytes, &size, 0, pixels, 0, NULL)) {
        *count = size;
        return 0;
    }
    snprintf(message, IMAGE_SHIM_MESSAGE_SIZE, "%s", image.message);
    free(*bytes);
    return 1;
}
