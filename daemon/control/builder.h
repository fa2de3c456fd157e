/* Prepares plans off the loop: one thread for each time, at most one at a time. */
#ifndef CONVOY_DAEMON_CONTROL_BUILDER_H
#define CONVOY_DAEMON_CONTROL_BUILDER_H

#include "daemon/control/planset.h"

#include <uv.h>

struct builder;

/* What came of it: rc and a sentence; config and held are the callee's from here on (held NULL: the
 * node is not in the pipeline). On rc < 0 config is still handed over. Loop thread. */
typedef void builder_done(void *arg, int rc, struct config *config, struct held *held,
                          const struct err *err);

/* 0, -ENOMEM, or libuv's error. */
int builder_start(uv_loop_t *loop, builder_done *done, void *arg, struct builder **ret_builder);

/* Prepares config's plan, unless it is one of known (held_build()). Takes config on 0. -EBUSY while
 * another is under way. */
int builder_run(struct builder *builder, struct config *config, const struct planset *known);

bool builder_is_busy(const struct builder *builder);

/* Waits for a build under way and throws its outcome away; memory goes in the close callback. NULL
 * is fine. */
void builder_close(struct builder *builder);

#endif
