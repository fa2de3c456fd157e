/* One file, stream, camera or standard input -> decoded pictures, by FFmpeg's libavformat and
 * libavcodec. Below media.c, which knows of folders and order. */
#ifndef CONVOY_CTL_DECODER_H
#define CONVOY_CTL_DECODER_H

#include "base/err.h"

#include <libavutil/frame.h>
#include <stdatomic.h>
#include <stdbool.h>

enum decoder_kind {
    DECODER_FILE,
    DECODER_STDIN,
    DECODER_URL,
    DECODER_CAMERA,
};

struct decoder;

/* Opens name. interrupted is looked at while waiting for bytes; it must outlive the decoder. A file
 * is recognised by its bytes, never by its name, and may not refer to other files or hosts. 0 with
 * a decoder for decoder_free(); the errno of opening; -EBADMSG when FFmpeg cannot read it;
 * -ECANCELED; -ENOMEM. The sentence does not name the source. */
int decoder_new(enum decoder_kind kind, const char *name, const atomic_bool *interrupted,
                struct decoder **ret_decoder, struct err *err);
void decoder_free(struct decoder *decoder);

/* The next picture: 1 with a frame borrowed until the next call; 0 at the end. -EBADMSG for a
 * picture that is damaged or a film without any picture, -EMSGSIZE over MEDIA_SIDE_MAX or
 * MEDIA_PIXELS_MAX, -ECANCELED, -ENOMEM. A damaged picture within a film is left out. */
int decoder_next(struct decoder *decoder, const AVFrame **ret_frame, struct err *err);

/* True unless the bytes are one still picture. */
bool decoder_is_film(const struct decoder *decoder);

/* The orientation (a 3x3 display matrix, libavutil/display.h) of frame or of the whole film, or
 * NULL. Borrowed from them. */
const int32_t *decoder_orientation(const struct decoder *decoder, const AVFrame *frame);

#endif
