/* MODEL.yaml: what is read must be whole and freed, what is refused must say where. A label file is
 * looked for in a folder that does not exist. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct sidecar *sidecar = NULL;
    struct err err = {""};
    int rc = sidecar_parse((const char *)data, size, "/nonexistent/f.yaml", &sidecar, &err);
    if (rc < 0) {
        assert(!sidecar && strncmp(err.text, "/nonexistent/f.yaml:", 20) == 0);
        return 0;
    }
    check(sidecar);
    sidecar_free(sidecar);
    return 0;
}
