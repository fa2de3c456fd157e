/* convoyd without its command line: everything one device owns, on one loop's thread. */
#ifndef CONVOY_DAEMON_DEVICE_H
#define CONVOY_DAEMON_DEVICE_H

#include "base/facts.h"
#include "config/config.h"
#include "daemon/control/apply.h"
#include "daemon/control/builder.h"
#include "daemon/control/cache.h"
#include "daemon/control/deploy.h"
#include "daemon/control/pilot.h"
#include "daemon/control/planset.h"
#include "daemon/control/recruit.h"
#include "daemon/control/status.h"
#include "daemon/control/web.h"
#include "daemon/data/flow.h"
#include "daemon/data/link.h"
#include "daemon/data/peer.h"
#include "daemon/data/pool.h"
#include "daemon/data/session.h"
#include "daemon/data/worker.h"
#include "daemon/net/conn.h"

#define DEVICE_PLAN_GRACE_MS                                                                       \
    30000 /* an older plan goes when no frame came under it for so long                            \
           */

struct device;

/* What a device tells its owner. */
struct device_events {
    void (*on_status)(void *arg,
                      const char *text); /* a new one-line state, for the service manager */
    void (*on_reloaded)(void *arg);      /* a reload has ended, well or not */
    void (*on_stopped)(void *arg);       /* drained, every handle closed but the loop's own */
};

struct device {
    uv_loop_t *loop;
    struct config *config;
    struct pool *pool;
    struct net *net;
    struct web *web; /* NULL: nothing is served by HTTP */
    struct workers *workers;
    struct builder *builder;
    struct planset plans;
    struct flow flow;
    struct sessions sessions;
    struct peer_list peers;
    size_t greetings, clients, upstreams; /* of peers, by role */
    uint64_t connections;                 /* ever accepted */
    struct link_list links;
    struct status_list status_requests;
    struct recruit *recruit;        /* as one of the devices of a plan that is handed out */
    struct deploy *deploy;          /* as its ingress */
    struct pilot *pilot;            /* as one that plans its line itself; NULL: it does not */
    struct apply apply;             /* a client's wish that it be */
    struct cache *cache;            /* of the builder's jobs; NULL until one of them needs it */
    struct cache_usage cache_usage; /* as the last of them left it */
    struct facts facts;             /* for status */
    uint64_t facts_us;              /* when they were read; 0: not yet */
    struct listener *listeners;     /* each begins with its uv_tcp_t */
    size_t listeners_count;
    uv_timer_t tick;
    uint64_t tick_us, last_tick_us, last_trim_us; /* period; when it last came; pool_trim() */
    uint64_t started_us;
    uint64_t drain_until_us;
    bool draining;                /* no new frames */
    bool leaving;                 /* all answered: Goodbye has been said */
    bool stopping;                /* every handle is closing */
    struct tls_context *next_tls; /* keys of the configuration that is being built; NULL: none */
    bool reloading;               /* the builder has a configuration */
    bool reload_again;            /* a reload was asked for during one */
    const char *config_path, *node_option, *listen_option; /* borrowed; for reloads */
    uint8_t active_id[SHA256_SIZE]; /* of the plan that client frames were last sent under */
    char status_text[512];
    struct device_events events;
    void *events_arg;
};

struct device_options {
    const char *config_path;
    const char *node, *listen; /* of the command line, or NULL. Borrowed for the device's life */
    const int *listen_fds;     /* sockets that listen already, from the service manager */
    size_t listen_fds_count;
};

/* Reads the configuration, prepares the stage, listens. 0, or -errno and a sentence; where
 * *ret_device is not NULL afterwards, the loop must run (on_stopped follows) before device_free().
 * events is copied. */
int device_start(uv_loop_t *loop, const struct device_options *options,
                 const struct device_events *events, void *arg, struct device **ret_device,
                 struct err *err);

/* Reads the configuration again and prepares its plan beside those that serve; on_reloaded follows.
 */
void device_reload(struct device *device);

/* Takes no more frames, finishes those it has (for at most drain_ms), says Goodbye, closes;
 * on_stopped follows, after which device_free() may be called once the loop has run out. */
void device_drain(struct device *device);

void device_free(struct device *device);

/* The clock of everything here: monotonic microseconds. */
uint64_t device_now_us(void);

/* A drain may be over. */
void device_check_drained(struct device *device);

/* What a stage of a plan that is handed out may take here, now. */
struct held_settings device_settings(const struct device *device);

/* Makes held the newest plan and takes the caller's reference; older ones serve on. */
void device_adopt(struct device *device, struct held *held);

/* A plan of the set is not needed any more. Frames under it are given back. */
void device_release(struct device *device, struct held *held);

/* A link or the set of plans has changed: finds out anew which plans are ready, tells the upstream
 * devices and moves the frames that are concerned. */
void device_plans_changed(struct device *device);

#endif
