/* A model with its sidecar and the command line's --dim, as most commands open it. */
#ifndef CONVOY_CTL_NETWORK_H
#define CONVOY_CTL_NETWORK_H

#include "config/sidecar.h"
#include "model/model.h"

#define NETWORK_DIMS_MAX (2 * CONFIG_DIMS_MAX)

#define OPTION_DIM_ROW                                                                             \
    { 'd', "dim", "NAME=VALUE", "value of a symbolic dimension of the model, or of all (NAME *)" }

/* Values of --dim; names are borrowed from argv. */
struct network_dims {
    struct model_dim items[NETWORK_DIMS_MAX];
    size_t count;
};

/* Adds "NAME=VALUE", changing text in place. 0, or COMMAND_USAGE with a sentence. */
int network_add_dim(struct network_dims *dims, char *text, struct err *err);

/* Adds the values of a configuration or a sidecar whose names are not there yet; borrows the names.
 */
void network_add_config_dims(struct network_dims *dims, const struct config_dim *more,
                             size_t count);

struct network {
    struct model *model;
    struct sidecar *sidecar;
    bool has_sidecar; /* there is a file; else sidecar holds what suits most picture networks */
};

/* Opens path and its sidecar; dims come before the sidecar's. 0 with both, for network_close(), or
 * as sidecar_load() and model_open(). */
int network_open(const char *path, const struct network_dims *dims, struct network *ret_network,
                 struct err *err);
void network_close(struct network *network);

/* sidecar_load(), but err stays as it is on success, and *ret_found says whether there is a file.
 */
int network_load_sidecar(const char *model_path, struct sidecar **ret_sidecar, bool *ret_found,
                         struct err *err);

/* Reads a sidecar file by its own name. Errors as sidecar_load(). */
int network_read_sidecar(const char *path, struct sidecar **ret_sidecar, struct err *err);

/* The sidecar of a model known by its file name only: looked for in the current folder, in models/
 * and in /var/lib/convoy/models; what suits a picture network when it is nowhere. */
int network_find_sidecar(const char *model, struct sidecar **ret_sidecar, bool *ret_found,
                         struct err *err);

#endif
