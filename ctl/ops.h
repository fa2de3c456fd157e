/* The list of supported operators, as `convoyctl ops` and docs/operators.md have it. */
#ifndef CONVOY_CTL_OPS_H
#define CONVOY_CTL_OPS_H

#include "base/err.h"

#include <stdio.h>

/* Writes docs/operators.md. 0, -ENOMEM, or as json_flush(). */
int ops_write_markdown(FILE *stream, struct err *err);

#endif
