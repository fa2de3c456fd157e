/* The results of `run` and `infer`: a line of JSON or a few lines of text per frame, and arrays in
 * files. */
#ifndef CONVOY_CTL_REPORT_H
#define CONVOY_CTL_REPORT_H

#include "base/err.h"
#include "base/tensor.h"
#include "config/sidecar.h"
#include "ctl/feed.h"

#include <stdio.h>

struct report_options {
    bool json;
    bool time;           /* say each frame's milliseconds */
    bool quiet;          /* no line for a frame that succeeded */
    size_t top;          /* classes per frame */
    const char *out_dir; /* NULL: no files */
    enum npy_form form;  /* of the files */
};

struct report;

/* sidecar and options' strings are borrowed for the report's life; outputs are copied, their names
 * borrowed. Makes out_dir if need be. -EINVAL when two outputs would share a file's name; the errno
 * of making the folder; -ENOMEM. One thread uses a report. */
int report_new(const struct report_options *options, const struct sidecar *sidecar,
               const struct tensor_desc *outputs, size_t count, FILE *stream,
               struct report **ret_report, struct err *err);

/* Files that report_finish() has not completed are removed. */
void report_free(struct report *report);

/* Says the result of a frame; tensors in the order of outputs. 0; -EPIPE when the reader of stream
 * has gone; the errno of writing; -EINVAL when a shape differs from that of earlier frames. */
int report_result(struct report *report, const struct feed_item *item, const struct tensor *tensors,
                  double ms, struct err *err);

/* Says that a frame failed, on stderr (and in JSON on stream as well); in files its place is filled
 * with NaN or zeros. */
int report_failure(struct report *report, const struct feed_item *item, const char *sentence,
                   struct err *err);

/* Says in JSON on stream that a frame was dropped for newer ones; in files as report_failure(). */
int report_dropped(struct report *report, const struct feed_item *item, struct err *err);

/* Completes the files. */
int report_finish(struct report *report, struct err *err);

/* Writes name with every character other than letters, digits, '.', '_' and '-' as '_' into buf,
 * truncated at size; returns buf. */
const char *report_file_name(const char *name, char *buf, size_t size);

#endif
