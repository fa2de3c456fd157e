/* The devices that `convoyctl plan` may use: YAML -> struct devices. */
#ifndef CONVOY_CONFIG_DEVICES_H
#define CONVOY_CONFIG_DEVICES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICES_MAX          1024
#define DEVICES_REPLICAS_MAX 8

struct devices_entry {
    char *node;
    char *address;    /* HOST:PORT; NULL: not said */
    char *profile;    /* path of its profile; NULL: that of the whole file */
    double speed;     /* how many times as fast as that profile's device; default 1 */
    int workers;      /* frames side by side; 0: as in the profile */
    double send_mbit; /* of its link, each way; 0: not limited */
    double receive_mbit;
    double latency_ms; /* its share of a message's latency; default 0.1 */
    double frame_ms;   /* of a frame beside its layers; default 0 */
    double byte_ns;    /* CPU time of a byte sent or received that layers wait for; default 0 */
    double message_us; /* ... and of a message; default 0 */
    uint64_t memory;   /* bytes for weights and arenas; 0: not limited */
    int line, column;
};

struct devices {
    char *file;
    char *profile;                 /* for devices that name none; NULL: none */
    bool raw_input_stays;          /* the ingress runs the first convolution */
    int max_replicas;              /* devices that may share a stage; default 1 */
    struct devices_entry *entries; /* the first one is the ingress */
    size_t count;
};

/* Reads and checks a file. Paths in it are relative to its folder and already joined here. Errors
 * as config_load(); every sentence names file, line and column. The caller frees it. */
int devices_load(const char *path, struct devices **ret_devices, struct err *err);
int devices_parse(const char *text, size_t size, const char *name, struct devices **ret_devices,
                  struct err *err);
void devices_free(struct devices *devices);

/* The table of the keys of the file, or of those of a device; for tests of the documents. Static.
 */
struct schema_key;
const struct schema_key *devices_keys(size_t *ret_count);
const struct schema_key *devices_entry_keys(size_t *ret_count);

#endif
