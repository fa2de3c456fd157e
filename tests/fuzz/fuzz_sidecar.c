/* MODEL.yaml and MODEL.ranges.yaml: what is read must be whole and freed, what is refused must say
 * where. A label file is looked for in a folder that does not exist. */
#include "config/ranges.h"
#include "config/sidecar.h"

#include <assert.h>
#include <math.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct sidecar *sidecar) {
    assert(!sidecar->width == !sidecar->height);
    assert(sidecar->pad >= 0 && sidecar->pad <= 255);
    for (int i = 0; i < 3; i++)
        assert(isfinite(sidecar->mean[i]) && isfinite(sidecar->scale[i]) && sidecar->scale[i] != 0);
    for (size_t i = 0; i < sidecar->labels_count; i++)
        assert(strlen(sidecar->labels[i]) <= SIDECAR_LABEL_MAX);
    for (size_t i = 0; i < sidecar->dims_count; i++)
        assert(sidecar->dims[i].name && sidecar->dims[i].value > 0);
}

static void read_ranges(const char *text, size_t size) {
    struct ranges *ranges = NULL;
    struct err err = {""};
    if (ranges_parse(text, size, "/nonexistent/f.yaml", &ranges, &err) < 0) {
        assert(!ranges && strncmp(err.text, "/nonexistent/f.yaml:", 20) == 0);
        return;
    }
    for (size_t i = 0; i < ranges->count; i++)
        assert(ranges->entries[i].name && ranges->entries[i].min <= ranges->entries[i].max);
    ranges_free(ranges);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct sidecar *sidecar = NULL;
    struct err err = {""};
    read_ranges((const char *)data, size);
    int rc = sidecar_parse((const char *)data, size, "/nonexistent/f.yaml", &sidecar, &err);
    if (rc < 0) {
        assert(!sidecar && strncmp(err.text, "/nonexistent/f.yaml:", 20) == 0);
        return 0;
    }
    check(sidecar);
    sidecar_free(sidecar);
    return 0;
}
