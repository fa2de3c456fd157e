/* Puts a pipeline into a configuration and leaves everything else in it as it is. */
#ifndef CONVOY_CTL_PIPELINE_FILE_H
#define CONVOY_CTL_PIPELINE_FILE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* One device of a pipeline. */
struct pipeline_stage {
    const char *node, *address;
    const char *until; /* NULL on the last stage */
    bool shares;       /* the stage of the device before it */
};

/* Replaces the value of `pipeline:` in the configuration text, or adds the key behind its end; a
 * text without `model:` gets one. Comments and all other lines stay. Pure. 0 with a text for free()
 * that config_parse() accepts, or with a sentence -EINVAL (what config_parse() says of it; a text
 * whose keys do not stand on lines of their own), -ENOMEM. name is for messages. */
int pipeline_file_edit(const char *text, const char *name, const char *model,
                       const struct pipeline_stage *stages, size_t count, char **ret_text,
                       struct err *err);

/* The same for a file, which is made if it is not there. Written beside it and renamed, with the
 * mode it had. Also the errno of reading and writing. */
int pipeline_file_write(const char *path, const char *model, const struct pipeline_stage *stages,
                        size_t count, struct err *err);

#endif
