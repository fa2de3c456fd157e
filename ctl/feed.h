/* Frames for a model, one after the other: pictures by the sidecar's rules, or tensors from .npy
 * files. */
#ifndef CONVOY_CTL_FEED_H
#define CONVOY_CTL_FEED_H

#include "base/err.h"
#include "base/tensor.h"
#include "config/sidecar.h"
#include "ctl/npy.h"

#include <stdint.h>

struct feed;

/* Where a frame came from. */
struct feed_item {
    uint64_t number;    /* of the frame, from 0 */
    const char *source; /* file, or FOLDER/FILE, or URL; borrowed until the next feed_next() */
    uint64_t index;     /* of the picture in its source */
    bool film;          /* index means something */
};

/* Pictures for a model of one input; sources as for media_new(). 0, or an error with a sentence
 * (-EINVAL also for a model that cannot be fed with pictures). feed_free() frees it. */
int feed_new_pictures(const char *const *sources, size_t count, const struct sidecar *sidecar,
                      const struct tensor_desc *inputs, size_t inputs_count, struct feed **ret_feed,
                      struct err *err);

/* Tensors: words are "NAME=FILE.npy", one for each input, or only "FILE.npy" when there is one
 * input. A file holds one frame (the input's shape), several stacked (one more leading dimension)
 * or several joined (the first dimension a multiple of the input's). Files of one frame are used
 * for every frame of the others. -EINVAL when names, types, shapes or numbers of frames do not fit
 * together. */
int feed_new_tensors(const char *const *words, size_t count, const struct tensor_desc *inputs,
                     size_t inputs_count, struct feed **ret_feed, struct err *err);
void feed_free(struct feed *feed);

/* Number of frames, or 0 when unknown. */
uint64_t feed_total(const struct feed *feed);

/* How results are best laid out in a file: like the frames came. Pictures are joined, a single one
 * stays single. */
enum npy_form feed_form(const struct feed *feed);

/* Fills the data of inputs (one tensor per model input, buffers the caller's) with the next frame:
 * 1; 0 at the end. A negative errno with a sentence is about one frame, named by *ret_item, which
 * takes a number all the same; the next call goes on behind it. -ECANCELED after feed_interrupt().
 */
int feed_next(struct feed *feed, struct tensor *inputs, struct feed_item *ret_item,
              struct err *err);

/* Any thread, and signal handlers: a feed_next() that waits returns soon. */
void feed_interrupt(struct feed *feed);

#endif
