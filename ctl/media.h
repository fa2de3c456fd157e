/* Pictures, folders of pictures, video files, RTSP streams, V4L2 cameras and standard input, one
 * picture after the other, through FFmpeg's libraries. */
#ifndef CONVOY_CTL_MEDIA_H
#define CONVOY_CTL_MEDIA_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEDIA_SIDE_MAX    16384       /* pixels */
#define MEDIA_PIXELS_MAX  (256 << 20) /* of one picture */
#define MEDIA_FOLDER_MAX  (1 << 22)   /* pictures of one folder */
#define MEDIA_SOURCES_MAX 65536       /* operands */

struct media;

/* One picture; strings are borrowed until the next call of media_next(). */
struct media_picture {
    const char *source; /* the operand; FOLDER/NAME for a picture in a folder */
    uint64_t index;     /* of the picture in its source, from 0 */
    bool film;          /* the source has had, or may have, more than this one */
    int width, height;  /* as it is to be seen: an orientation noted in the file is applied */
};

/* Prepares to read sources in order: a file that FFmpeg can read, a folder (its pictures, sorted by
 * name by bytes, not its subfolders), a URL with "://", a V4L2 device, or "-" for standard input.
 * Copies the strings. Missing files and folders without pictures are found here: -ENOENT, the
 * errno of stat or opendir, -EINVAL, -ENOMEM; the sentence names the source. One thread uses a
 * media. */
int media_new(const char *const *sources, size_t count, struct media **ret_media, struct err *err);
void media_free(struct media *media);

/* The number of pictures, or 0 when it cannot be known beforehand (films, cameras, streams). */
uint64_t media_total(const struct media *media);

/* The next picture: 1; 0 at the end. A negative errno with a sentence is about one source
 * (-EBADMSG: not a picture; -EMSGSIZE: too large; the errno of opening it; -ECANCELED after
 * media_interrupt()): *ret_picture then says which, and the next call goes on behind it. */
int media_next(struct media *media, struct media_picture *ret_picture, struct err *err);

/* The last picture of media_next() scaled to width x height (each 1 to MEDIA_SIDE_MAX), bilinear
 * and anti-aliased: 3 bytes R, G, B a pixel, or 1 byte when gray. Borrowed until the next call.
 * -ENOMEM, -ENOTSUP for a pixel format that cannot be converted. */
int media_scale(struct media *media, int width, int height, bool gray, const uint8_t **ret_pixels,
                size_t *ret_stride, struct err *err);

/* Makes a media_next() that waits for a stream return soon. Any thread, and signal handlers. */
void media_interrupt(struct media *media);

#endif
