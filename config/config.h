/* convoyd's configuration: YAML -> struct config. Every error names file, line and column, and the
 * remedy. */
#ifndef CONVOY_CONFIG_CONFIG_H
#define CONVOY_CONFIG_CONFIG_H

#include "base/err.h"
#include "config/dim.h"
#include "config/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_FILE_MAX       (1u << 20) /* bytes of a YAML file */
#define CONFIG_STAGES_MAX     1024       /* devices of a pipeline */
#define CONFIG_REPLICAS_MAX   8          /* of them that share a stage */
#define CONFIG_NEIGHBOURS_MAX 63
#define CONFIG_NAME_MAX       255  /* bytes of a node's name and of a host */
#define CONFIG_LAYER_MAX      1023 /* bytes of a layer's name */

/* What becomes of a client's new frame when its session is full. */
enum config_when_full {
    CONFIG_BLOCK,       /* it waits at the client */
    CONFIG_DROP_OLDEST, /* the oldest that nobody works on yet is given up for it */
};

/* What becomes of a frame whose tensors come with NaN, infinity, or numbers beyond the calibration.
 */
enum config_bad_values {
    CONFIG_IGNORE, /* nobody looks */
    CONFIG_REPORT, /* it is counted and said in the log */
    CONFIG_REFUSE, /* it is refused as well */
};

/* One device of `pipeline:`. Those that share a stage (its `replicas:`) stand one after the other,
 * each with the stage's until. */
struct config_stage {
    char *node;
    char *address; /* HOST:PORT */
    char *until;   /* layer name or index; NULL on the last stage */
    bool shares;   /* the stage of the device before it */
    int line, column;
};

struct config {
    char *file; /* as named by the caller, for messages */
    char *node; /* never NULL: the host name by default */
    char *
        listen; /* HOST:PORT; NULL when the file does not say, until config_override() settles it */
    char *http; /* NULL: off */
    char *key;  /* NULL: none. A path, as model's. Every connection is encrypted with its keys */
    char *model; /* NULL: none. A relative path is relative to the YAML file's folder (already
                    joined here) */
    struct config_dim *dims; /* NULL: none */
    size_t dims_count;
    struct config_stage *pipeline; /* NULL: none. A node that is not in it is idle */
    size_t pipeline_count;
    bool pipeline_auto; /* this device plans the line itself, with neighbours; then pipeline is NULL
                         */
    struct config_stage *neighbours; /* node and address only; NULL: none */
    size_t neighbours_count;
    bool raw_input_stays;  /* with pipeline_auto: the first convolution runs here */
    bool is_empty;         /* nothing stands in the file: all is by default */
    int max_replicas;      /* with pipeline_auto: devices that may share a stage; default 1 */
    char *state;           /* folder for what is kept between starts; NULL: there is none */
    bool deploy;           /* hand the pipeline out to the devices of its other stages */
    uint64_t cache;        /* bytes of parts kept in state; default 1 GiB */
    uint64_t memory;       /* bytes that stages may take; default 0: what the system has left */
    bool insecure;         /* listen off loopback without a key */
    int workers;           /* frames computed side by side; default: cores / threads */
    int threads;           /* cores per frame; default 1 */
    int bad_values;        /* enum config_bad_values */
    int when_full;         /* enum config_when_full: of sessions that do not ask for either */
    int queue;             /* frames a device holds per upstream; default 4 + workers */
    uint32_t max_payload;  /* bytes; default 64 MiB */
    int max_clients;       /* connections; default 64 */
    int max_sessions;      /* default 256 */
    uint64_t heartbeat_ms; /* a neighbour silent this long is dead; default 2000 */
    uint64_t session_ms;   /* a session without a connection is kept this long; default 60000 */
    uint64_t prepare_ms;   /* a device that prepares a stage may say nothing so long; 300000 */
    struct config_limits limits;
    uint64_t drain_ms; /* SIGTERM waits this long for frames in flight; default 10000 */
    int line_pipeline; /* where `pipeline:`, `model:` and `listen:` stand, for later errors; 0 when
                          absent */
    int line_model;
    int line_listen, column_listen;
};

/* Reads and checks a file. 0 with a configuration that is the caller's (config_free()), or -errno:
 * that of opening it, -EINVAL for what it says, -EFBIG, -ENOMEM. Call config_override() next.
 * Cold path, any thread. */
int config_load(const char *path, struct config **ret_config, struct err *err);

/* The same for text in memory; name stands for the file in messages and for its folder. */
int config_parse(const char *text, size_t size, const char *name, struct config **ret_config,
                 struct err *err);
void config_free(struct config *config);

/* Copies what is needed to open the model and to keep parts of it, for another thread: the
 * configuration may be read again meanwhile. It has a model. 0 or -ENOMEM. */
int config_copy_for_model(const struct config *config, struct config **ret_config);

/* Applies the command line's --node and --listen (NULL: not given) and then settles where to
 * listen, and where to keep state: in `state:`, in $STATE_DIRECTORY of the service manager, or in
 * $XDG_STATE_HOME/convoy/NODE (~/.local/state/convoy/NODE). Every program calls it once after
 * config_load(), with NULLs if need be. Without --listen and `listen:`, a node of the pipeline
 * listens on its own stage's address, any other on 127.0.0.1:7433. An address that is not loopback
 * is refused without `key:` or `insecure: true`. 0 with listen set, or -EINVAL (the sentence names
 * the option, or the line of the file), -ENOMEM; config stays the caller's, and unchanged on error.
 */
int config_override(struct config *config, const char *node, const char *listen, struct err *err);

/* Whether config_override() would refuse the address where one of the pipeline's devices would
 * listen, for lack of a key. To be called before it. 0 or -EINVAL with its sentence. */
int config_check_pipeline(const struct config *config, struct err *err);

/* The table of the keys that a configuration may have, or of those of a stage or a neighbour; for
 * tests of the documents. Static. */
struct schema_key;
const struct schema_key *config_keys(size_t *ret_count);
const struct schema_key *config_stage_keys(size_t *ret_count);
const struct schema_key *config_neighbour_keys(size_t *ret_count);

/* The index in the pipeline of config->node, or -1: it is idle. */
int config_find_stage(const struct config *config);

/* Splits "host:port", "[v6]:port" or ":port". host and port are written NUL-terminated. -EINVAL
 * with a sentence. Port 0 is allowed (any free one). */
int config_split_address(const char *address, char *ret_host, size_t host_size, char *ret_port,
                         size_t port_size, struct err *err);

/* True for "127.x.x.x:port", "[::1]:port" and "localhost:port": only this machine can connect.
 * Other names are not looked up and count as reachable from elsewhere. */
bool config_address_is_loopback(const char *address);

#endif
