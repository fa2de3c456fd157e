#include "ctl/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS 9

json_t *json_shape(const struct tensor_desc *desc) {
    json_t *list = json_array();
    for (int i = 0; i < desc->rank; i++)
        json_array_append_new(list, json_integer(desc->dims[i]));
    return list;
}

int json_flush(FILE *stream, struct err *err) {
    errno = 0;
    if (fflush(stream) == 0 && !ferror(stream))
        return 0;
    int rc = errno ? -errno : -EIO;
    return rc == -EPIPE ? rc : err_set(err, rc, "cannot write the results: %s", strerror(-rc));
}

static int write_value(json_t *value, size_t flags, FILE *stream, struct err *err) {
    if (!value)
        return err_set(err, -ENOMEM, "out of memory");
    char *text = json_dumps(value, flags | JSON_REAL_PRECISION(DIGITS));
    json_decref(value);
    if (!text)
        return err_set(err, -ENOMEM, "out of memory");
    fputs(text, stream);
    fputc('\n', stream);
    free(text);
    return json_flush(stream, err);
}

int json_write_line(json_t *value, FILE *stream, struct err *err) {
    return write_value(value, JSON_COMPACT, stream, err);
}

int json_write_pretty(json_t *value, FILE *stream, struct err *err) {
    return write_value(value, JSON_INDENT(2), stream, err);
}
