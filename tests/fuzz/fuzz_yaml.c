/* convoy.yaml: what is read must be whole and freed, what is refused must say where. */
#include "config/config.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* True when only devices of the same stage follow. */
static bool is_in_last_stage(const struct config *config, size_t i) {
    while (i + 1 < config->pipeline_count && config->pipeline[i + 1].shares)
        i++;
    return i + 1 == config->pipeline_count;
}

static void check(const struct config *config) {
    assert(config->node && config->threads >= 1 && config->workers >= 1 && config->queue >= 1);
    assert((!config->pipeline_count && !config->pipeline_auto) || config->model);
    assert(!config->pipeline_auto || !config->pipeline_count);
    for (size_t i = 0; i < config->pipeline_count; i++) {
        const struct config_stage *stage = &config->pipeline[i];
        assert(stage->node && stage->address && stage->line > 0 && stage->column > 0);
        assert(!stage->until == is_in_last_stage(config, i));
        assert(!stage->shares || i > 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct config *config = NULL;
    struct err err = {""};
    int rc = config_parse((const char *)data, size, "f/f.yaml", &config, &err);
    if (rc < 0) {
        assert(!config && strncmp(err.text, "f/f.yaml:", 9) == 0);
        return 0;
    }
    check(config);
    rc = config_override(config, NULL, NULL, &err);
    assert(rc < 0 ? err.text[0] != '\0' : config->listen != NULL);
    assert(rc < 0 || config->insecure || config->key || config_address_is_loopback(config->listen));
    config_free(config);
    return 0;
}
