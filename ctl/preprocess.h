/* The sidecar's rules: a picture -> the model's input tensor. Pure arithmetic; who scales the
 * picture (media.h) is told here to which size. */
#ifndef CONVOY_CTL_PREPROCESS_H
#define CONVOY_CTL_PREPROCESS_H

#include "base/err.h"
#include "base/tensor.h"
#include "config/sidecar.h"

/* The rules for one model input, settled. */
struct preprocess {
    int width, height; /* of the window that becomes the tensor, in pixels */
    int channels;      /* 1: pixels are gray; 3: pixels are R, G, B */
    bool reversed;     /* the tensor's channels are B, G, R */
    bool channels_last;
    enum sidecar_fit fit;
    int resize; /* shorter side before a crop */
    enum dtype dtype;
    float table[3][256]; /* tensor value of each pixel value, by the tensor's channel */
    float pad[3];        /* tensor value of a letterbox's bars */
};

/* Where a picture goes: it is scaled to scaled_width x scaled_height; the window's pixel (0, 0) is
 * pixel (left, top) of that. left and top are negative where bars are. */
struct preprocess_geometry {
    int scaled_width, scaled_height;
    int left, top;
};

/* Settles sidecar's rules for a model's input: float32 or uint8, [1][c][h][w], [1][h][w][c] or
 * without the leading 1; a size of 0 in the sidecar is the model's; a model of one channel is fed
 * gray whatever the sidecar says. 0, or -EINVAL with a sentence that names the sidecar's key to
 * change. */
int preprocess_init(const struct sidecar *sidecar, const struct tensor_desc *input,
                    struct preprocess *ret_preprocess, struct err *err);

/* Where a picture of width x height (at least 1) goes. -EINVAL for one so narrow that scaled for a
 * crop it would be longer than SIDECAR_SIDE_MAX. */
int preprocess_place(const struct preprocess *preprocess, int width, int height,
                     struct preprocess_geometry *ret_geometry, struct err *err);

/* Fills tensor (the whole input, dense) from the scaled picture: rows of stride bytes, channels
 * bytes a pixel. Values of a uint8 tensor are rounded and saturated. */
void preprocess_fill(const struct preprocess *preprocess,
                     const struct preprocess_geometry *geometry, const uint8_t *pixels,
                     size_t stride, void *tensor);

/* R, G, B -> gray in place of the first byte of each row's pixels: ITU-R BT.601 luma of full range,
 * (19595 R + 38470 G + 7471 B + 32768) >> 16, so that R = G = B keeps its value. width x height
 * pixels of 3 bytes become width x height pixels of 1 byte at the same stride. */
void preprocess_gray(uint8_t *pixels, size_t stride, int width, int height);

#endif
