/* Profiles of models on devices as JSON: what `profile` prints, `plan` reads, and a file of the
 * user's state keeps. convoyctl(1) describes the form. */
#ifndef CONVOY_CTL_PROFILE_FILE_H
#define CONVOY_CTL_PROFILE_FILE_H

#include "base/err.h"
#include "base/facts.h"
#include "model/model.h"

#include <jansson.h>
#include <stdbool.h>

#define PROFILE_FILE_MAX  (16u << 20) /* bytes of a file of either kind */
#define PROFILE_KEPT_MAX  32          /* profiles that are kept */
#define PROFILE_LAYER_MAX 3600e6      /* microseconds that a layer may take */

/* The link to a device, as tensor messages to it showed it, and what they cost there. */
struct profile_link {
    bool is_measured;
    double mbit, latency_ms;    /* one way */
    double byte_ns, message_us; /* CPU time of the device's loop: of a byte, and of a message */
};

/* One model on one device. */
struct profile_record {
    char model_id[SHA256_HEX]; /* model_identity() */
    char node[256];
    char cpu[96];
    int cores, workers, threads;
    size_t layers;
    double *layer_us;
    size_t frames;            /* that were measured */
    int64_t when;             /* seconds since 1970 */
    struct facts facts;       /* when it was measured; not read back, nor is the link */
    struct profile_link link; /* to a device that was asked; always measured anew */
};

void profile_record_fini(struct profile_record *record);

/* The record as JSON; names of layers come from the model. NULL when there is no memory. */
json_t *profile_record_json(const struct profile_record *record, const struct model *model);

/* Reads a record from JSON that came from a file called name. 0 with a record for
 * profile_record_fini(), or with a sentence -EINVAL for what is no profile, -ENOMEM. */
int profile_record_read(const json_t *json, const char *name, struct profile_record *ret_record,
                        struct err *err);

/* Reads the file that `profile --json` wrote, and checks that it is of this model: -ESTALE. Also
 * the errno of reading. */
int profile_file_load(const char *path, const struct model *model,
                      struct profile_record *ret_record, struct err *err);

/* The file that keeps profiles by default: $XDG_STATE_HOME/convoy/profiles.json, or below
 * ~/.local/state. NULL when there is no home, or no memory. The caller frees it. */
char *profile_kept_path(void);

/* Finds what is kept for the same model, node, CPU, cores, workers, threads and program version as
 * record has. True with *ret_record set. What cannot be read is as good as empty. */
bool profile_kept_find(const char *path, const struct profile_record *record,
                       struct profile_record *ret_record);

/* The same, with layers, their times, frames and when put into record. */
bool profile_kept_take(const char *path, struct profile_record *record);

/* Keeps a record in place of the one for the same, dropping the oldest beyond PROFILE_KEPT_MAX.
 * Folders are made; the file is written beside path and renamed. -errno with a sentence. */
int profile_kept_store(const char *path, const struct profile_record *record,
                       const struct model *model, struct err *err);

#endif
