/* The devices that a running ingress has or may use, each measured as `profile --to` does it: what
 * `plan --to` plans for. */
#ifndef CONVOY_CTL_LINE_DEVICES_H
#define CONVOY_CTL_LINE_DEVICES_H

#include "config/devices.h"
#include "ctl/profile_file.h"

struct line_devices_options {
    const char *address; /* of the ingress */
    const char *key;     /* file of the line's key; NULL: CONVOY_KEY's, or not encrypted */
    double seconds;      /* each device is measured at least so long */
    bool fresh;          /* also where an earlier measurement is kept */
};

/* Asks the ingress for its stages and neighbours, and each of these for itself, one after the
 * other: the links' rates are those from this machine to each. 0 with devices for devices_free()
 * and as many records for line_devices_free_records(); or as query_status() and survey_measure(),
 * or COMMAND_INTERRUPTED. What the kept file lacks is measured and kept. Main thread. */
int line_devices_find(const struct line_devices_options *options, const struct model *model,
                      struct devices **ret_devices, struct profile_record **ret_records,
                      struct err *err);
void line_devices_free_records(struct profile_record *records, size_t count);

#endif
