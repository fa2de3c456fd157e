/* Decoded pictures -> rows of R, G, B or gray at a wanted size, by FFmpeg's libswscale: colour
 * range and matrix of the source respected, orientation applied. */
#ifndef CONVOY_CTL_SCALER_H
#define CONVOY_CTL_SCALER_H

#include "base/err.h"

#include <libavutil/frame.h>
#include <stdbool.h>

/* One of the eight ways to turn and mirror a rectangle: first transpose, then mirror. */
struct orientation {
    bool transpose, mirror_x, mirror_y;
};

/* From a display matrix (libavutil/display.h); NULL, and one that is no multiple of 90 degrees, is
 * upright. */
struct orientation orientation_from_matrix(const int32_t *matrix);

struct scaler;

/* NULL when there is no memory. One thread uses a scaler. */
struct scaler *scaler_new(void);
void scaler_free(struct scaler *scaler);

/* Scales frame so that after turning it is width x height (1 to MEDIA_SIDE_MAX each): bilinear,
 * anti-aliased when it shrinks. 3 bytes R, G, B a pixel, or 1 when gray. The pixels are the
 * scaler's, valid until the next call. -ENOMEM, -ENOTSUP for a pixel format that libswscale cannot
 * read. */
int scaler_run(struct scaler *scaler, const AVFrame *frame, struct orientation orientation,
               int width, int height, bool gray, const uint8_t **ret_pixels, size_t *ret_stride,
               struct err *err);

#endif
