#include "ctl/line_devices.h"

#include "ctl/command.h"
#include "ctl/interrupt.h"
#include "ctl/query.h"
#include "ctl/survey.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_MS 5000

/* ---- who they are ------------------------------------------------------------------------------
 */

static bool is_known(const struct devices *devices, const char *node) {
    for (size_t i = 0; i < devices->count; i++)
        if (strcmp(devices->entries[i].node, node) == 0)
            return true;
    return false;
}

static int add_entry(struct devices *devices, const char *node, const char *address) {
    if (!node[0] || !address[0] || is_known(devices, node))
        return 0;
    struct devices_entry *entry = &devices->entries[devices->count++];
    entry->node = strdup(node);
    entry->address = strdup(address);
    entry->speed = 1;
    return entry->node && entry->address ? 0 : -ENOMEM;
}

/* Where a device of the line is reached: one before it has a link to it. "" when none says so. */
static const char *address_of(const Convoy__Status *status, const char *node) {
    for (size_t i = 0; i < status->n_stages; i++)
        for (size_t l = 0; l < status->stages[i]->n_links; l++)
            if (strcmp(status->stages[i]->links[l]->node, node) == 0)
                return status->stages[i]->links[l]->address;
    return "";
}

/* The devices of the line, then the neighbours that have none. */
static int list_devices(const char *address, const Convoy__Status *status,
                        struct devices **ret_devices, struct err *err) {
    size_t most = status->n_stages + status->n_neighbours;
    struct devices *devices = calloc(1, sizeof(*devices));
    int rc = devices ? 0 : -ENOMEM;
    if (most == 0 || most > DEVICES_MAX) {
        free(devices);
        return err_set(err, -EPROTO, "%s: names %zu devices; 1 to %d can be planned", address, most,
                       DEVICES_MAX);
    }
    if (rc == 0)
        devices->entries = calloc(most, sizeof(*devices->entries));
    if (rc == 0 && (!devices->entries || !(devices->file = strdup(address))))
        rc = -ENOMEM;
    for (size_t i = 0; rc == 0 && i < status->n_stages; i++)
        rc = add_entry(devices, status->stages[i]->node,
                       i == 0 ? address : address_of(status, status->stages[i]->node));
    for (size_t i = 0; rc == 0 && i < status->n_neighbours; i++)
        rc = add_entry(devices, status->neighbours[i]->node, status->neighbours[i]->address);
    if (rc < 0) {
        devices_free(devices);
        return err_set(err, rc, "out of memory");
    }
    devices->max_replicas = 1;
    *ret_devices = devices;
    return 0;
}

/* ---- what they can do --------------------------------------------------------------------------
 */

static int measure_device(const struct line_devices_options *options, const struct model *model,
                          const char *kept, const atomic_bool *stop, struct devices_entry *entry,
                          struct profile_record *record, struct err *err) {
    struct survey *survey;
    struct err why;
    uint8_t id[SHA256_SIZE];
    int rc = survey_new(entry->address, options->key, stop, &survey, err);
    if (rc < 0)
        return rc;
    if (model_identity(model, id) < 0)
        rc = err_set(err, -ENOMEM, "out of memory");
    else
        sha256_format(id, record->model_id);
    if (rc == 0)
        rc = survey_describe(survey, record, err);
    if (rc == 0)
        rc = survey_probe(survey, &record->link, err);
    if (rc == 0 && (options->fresh || !kept || !profile_kept_take(kept, record))) {
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "convoyctl: measuring on %s ...\n", entry->node);
        rc = survey_measure(survey, model, options->seconds, record, err);
        if (rc == 0 && kept && profile_kept_store(kept, record, model, &why) < 0)
            fprintf(stderr, "convoyctl: not kept for later: %s\n", why.text);
    }
    survey_free(survey);
    if (rc < 0)
        return rc;
    entry->send_mbit = entry->receive_mbit = record->link.mbit;
    entry->latency_ms = record->link.latency_ms / 2; /* a message's is that of both ends */
    entry->memory = record->facts.memory_available;
    if (record->workers * record->threads >= record->cores) { /* else its loop has a core */
        entry->byte_ns = record->link.byte_ns;
        entry->message_us = record->link.message_us;
    }
    return 0;
}

static void on_interrupt(void *arg) {
    atomic_bool *stop = arg;
    atomic_store(stop, true);
}

static int measure_all(const struct line_devices_options *options, const struct model *model,
                       struct devices *devices, struct profile_record *records, struct err *err) {
    atomic_bool stop = false;
    struct interrupt *interrupt;
    char *kept = profile_kept_path();
    int rc = interrupt_start(on_interrupt, &stop, &interrupt);
    if (rc == 0) {
        for (size_t i = 0; rc == 0 && i < devices->count; i++)
            rc =
                measure_device(options, model, kept, &stop, &devices->entries[i], &records[i], err);
        interrupt_stop(interrupt);
    }
    free(kept);
    return rc == -ECANCELED ? COMMAND_INTERRUPTED : rc;
}

int line_devices_find(const struct line_devices_options *options, const struct model *model,
                      struct devices **ret_devices, struct profile_record **ret_records,
                      struct err *err) {
    Convoy__Status *status;
    struct devices *devices = NULL;
    int rc = query_status(options->address, options->key, TIMEOUT_MS, &status, err);
    if (rc < 0)
        return rc;
    rc = list_devices(options->address, status, &devices, err);
    convoy__status__free_unpacked(status, NULL);
    if (rc < 0)
        return rc;
    struct profile_record *records = calloc(devices->count + 1, sizeof(*records));
    rc = records ? measure_all(options, model, devices, records, err)
                 : err_set(err, -ENOMEM, "out of memory");
    if (rc != 0) {
        line_devices_free_records(records, devices->count);
        devices_free(devices);
        return rc;
    }
    *ret_devices = devices;
    *ret_records = records;
    return 0;
}

void line_devices_free_records(struct profile_record *records, size_t count) {
    for (size_t i = 0; records && i < count; i++)
        profile_record_fini(&records[i]);
    free(records);
}
