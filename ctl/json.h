/* JSON lines by jansson. */
#ifndef CONVOY_CTL_JSON_H
#define CONVOY_CTL_JSON_H

#include "base/err.h"
#include "base/json.h"
#include "base/tensor.h"

#include <stdio.h>

/* A tensor's shape as a list. */
json_t *json_shape(const struct tensor_desc *desc);

/* Writes value as one line (float32 numbers survive: nine digits) and flushes; releases value. 0,
 * -EPIPE, the errno of writing, or -ENOMEM when value is NULL; the sentence is set but for -EPIPE.
 */
int json_write_line(json_t *value, FILE *stream, struct err *err);

/* The same for something that people may read as well: indented. */
int json_write_pretty(json_t *value, FILE *stream, struct err *err);

/* Flushes stream: 0, -EPIPE or the errno of writing. */
int json_flush(FILE *stream, struct err *err);

#endif
