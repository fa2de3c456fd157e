#include "ctl/network.h"

#include "ctl/command.h"
#include "ctl/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIDECAR_FILE_MAX (16u << 20)

int network_add_dim(struct network_dims *dims, char *text, struct err *err) {
    char *equals = strrchr(text, '=');
    int64_t value;
    if (!equals || equals == text)
        return err_set(err, COMMAND_USAGE, "--dim: '%s' is not NAME=VALUE", text);
    if (dims->count == CONFIG_DIMS_MAX)
        return err_set(err, COMMAND_USAGE, "--dim: more than %d dimensions", CONFIG_DIMS_MAX);
    int rc = options_integer("--dim", equals + 1, 1, 1000000, &value, err);
    if (rc != 0)
        return rc;
    *equals = '\0';
    dims->items[dims->count++] = (struct model_dim){.name = text, .value = value};
    return 0;
}

void network_add_config_dims(struct network_dims *dims, const struct config_dim *more,
                             size_t count) {
    for (size_t i = 0; i < count; i++) {
        bool known = false;
        for (size_t j = 0; j < dims->count; j++)
            known |= strcmp(dims->items[j].name, more[i].name) == 0;
        if (!known && dims->count < NETWORK_DIMS_MAX)
            dims->items[dims->count++] =
                (struct model_dim){.name = more[i].name, .value = more[i].value};
    }
}

/* True when the sidecar of model_path can be read. */
static bool has_sidecar(const char *model_path) {
    const char *slash = strrchr(model_path, '/'), *dot = strrchr(model_path, '.');
    int stem = dot && (!slash || dot > slash) ? (int)(dot - model_path) : (int)strlen(model_path);
    char *path;
    if (asprintf(&path, "%.*s.yaml", stem, model_path) < 0)
        return false;
    bool there = access(path, R_OK) == 0;
    free(path);
    return there;
}

int network_load_sidecar(const char *model_path, struct sidecar **ret_sidecar, bool *ret_found,
                         struct err *err) {
    struct err why = {{0}}; /* a missing file is looked for, but is no error */
    int rc = sidecar_load(model_path, ret_sidecar, &why);
    if (rc != 0)
        return err_set(err, rc, "%s", why.text);
    *ret_found = has_sidecar(model_path);
    return 0;
}

int network_open(const char *path, const struct network_dims *dims, struct network *ret_network,
                 struct err *err) {
    struct network network = {0};
    struct network_dims all = *dims;
    int rc = network_load_sidecar(path, &network.sidecar, &network.has_sidecar, err);
    if (rc != 0)
        return rc;
    network_add_config_dims(&all, network.sidecar->dims, network.sidecar->dims_count);
    struct model_options options = {all.items, all.count};
    rc = model_open(path, &options, &network.model, err);
    if (rc != 0) {
        sidecar_free(network.sidecar);
        return rc;
    }
    *ret_network = network;
    return 0;
}

void network_close(struct network *network) {
    model_unref(network->model);
    sidecar_free(network->sidecar);
    *network = (struct network){0};
}

int network_read_sidecar(const char *path, struct sidecar **ret_sidecar, struct err *err) {
    char *text = NULL;
    size_t size = 0;
    int rc = 0;
    FILE *file = fopen(path, "rbe");
    if (!file)
        return err_set(err, -errno, "%s: %s", path, strerror(errno));
    while (rc == 0 && !feof(file)) {
        char *more = realloc(text, size + 65536);
        if (!more) {
            rc = err_set(err, -ENOMEM, "%s: out of memory", path);
            break;
        }
        text = more;
        size += fread(text + size, 1, 65536, file);
        if (ferror(file))
            rc = err_set(err, -EIO, "%s: cannot be read", path);
        else if (size > SIDECAR_FILE_MAX)
            rc = err_set(err, -EFBIG, "%s: larger than %u bytes", path, SIDECAR_FILE_MAX);
    }
    fclose(file);
    if (rc == 0)
        rc = sidecar_parse(text, size, path, ret_sidecar, err);
    free(text);
    return rc;
}

int network_find_sidecar(const char *model, struct sidecar **ret_sidecar, bool *ret_found,
                         struct err *err) {
    static const char *const folders[] = {".", "models", "/var/lib/convoy/models"};
    const char *slash = strrchr(model, '/');
    const char *name = slash ? slash + 1 : model;
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        char *path;
        if (asprintf(&path, "%s/%s", folders[i], name) < 0)
            return err_set(err, -ENOMEM, "out of memory");
        bool there = has_sidecar(path);
        int rc = there ? network_load_sidecar(path, ret_sidecar, ret_found, err) : 0;
        free(path);
        if (there)
            return rc;
    }
    return network_load_sidecar(name, ret_sidecar, ret_found, err);
}
