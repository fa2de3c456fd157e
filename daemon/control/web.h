/* What a device serves by HTTP: its page for people, JSON for programs, metrics for Prometheus, its
 * health for watchdogs. */
#ifndef CONVOY_DAEMON_CONTROL_WEB_H
#define CONVOY_DAEMON_CONTROL_WEB_H

#include "base/err.h"

struct device;
struct web;

/* Serves on the configuration's `http:`, which is not NULL. 0, or -errno with a sentence. After
 * success the only way out is web_close(). */
int web_start(struct device *device, struct web **ret_web, struct err *err);

/* The port that it listens on. */
unsigned web_port(const struct web *web);

/* Ends every request and closes the handles; before the device's status is gone. Takes NULL. */
void web_close(struct web *web);

#endif
