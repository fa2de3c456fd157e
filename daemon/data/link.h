/* A connection to another device that this one makes and keeps up: to the next device of one or
 * more plans (one for each, where several share the next stage), with its credits, what that device
 * has announced, and the frames that are with it; or from an ingress to any device that it hands
 * plans out to, on which no frames travel. */
#ifndef CONVOY_DAEMON_DATA_LINK_H
#define CONVOY_DAEMON_DATA_LINK_H

#include "base/err.h"
#include "base/sha256.h"
#include "config/config.h"
#include "daemon/data/frame.h"
#include "daemon/net/backoff.h"
#include "daemon/net/conn.h"

#define LINK_PLANS_MAX  16 /* announced plans that are remembered; a device holds fewer */
#define LINK_CREDIT_MAX (1u << 16)

enum link_state {
    LINK_BACKING_OFF, /* waits before the next attempt */
    LINK_RESOLVING,
    LINK_CONNECTING,
    LINK_GREETING, /* Hello sent */
    LINK_UP,       /* Welcome received */
    LINK_CLOSING,  /* no plan needs it any more */
};

enum link_kind {
    LINK_FRAMES,  /* to the next device of a plan; there while a plan needs it */
    LINK_CONTROL, /* from an ingress; there from link_hold() to link_drop() */
};

struct link {
    TAILQ_ENTRY(link) entry;
    struct device *device;
    enum link_kind kind;
    unsigned holds; /* of a LINK_CONTROL */
    char *node, *address;
    enum link_state state;
    struct conn *conn; /* from CONNECTING on */
    uint32_t credits;
    size_t sending, under_way; /* of frames: being written; those, and sent without an answer yet */
    uint64_t frames_out;       /* ever sent */
    uint64_t turn;             /* of flow.turns, when a frame was last dealt to it */
    uint8_t ready[LINK_PLANS_MAX][SHA256_SIZE];
    size_t ready_count;
    uint64_t max_payload;   /* of the device behind */
    struct frame_list sent; /* those under way */
    struct backoff backoff;
    uv_timer_t timer;
    uv_getaddrinfo_t resolve;
    unsigned attempts; /* picks one of a name's addresses */
    uv_connect_t connect;
    bool resolving, timer_closed;
    bool failure_logged; /* the reason for being down has been said */
    uint64_t since_us;   /* of the state */
    uint64_t pinged_us;
    uint64_t tx_bytes, tx_busy_us; /* of its earlier connections */
};

TAILQ_HEAD(link_list, link);

/* Makes a link in device's list and starts connecting. NULL when there is no memory. */
struct link *link_start(struct device *device, enum link_kind kind, const char *node,
                        const char *address);

/* The link of that kind to a device, or NULL. */
struct link *link_find(struct device *device, enum link_kind kind, const char *node,
                       const char *address);

/* The control link to a device, made where there is none. It stays until each link_hold() has had
 * its link_drop(). deploy.h is told when it is up and lost. NULL when there is no memory. */
struct link *link_hold(struct device *device, const char *node, const char *address);
void link_drop(struct link *link);

/* Ends it; it leaves the list at once and is freed when its handles are closed. Its frames have
 * been given back before it returns. */
void link_close(struct link *link);

bool link_is_up(const struct link *link);

/* True when the device behind can take frames of this plan, of up to bytes each. */
bool link_is_ready(const struct link *link, const uint8_t id[SHA256_SIZE], size_t bytes);

/* Pings, and ends the connection of a device that is silent; every tick. */
void link_tick(struct link *link, uint64_t now_us);

/* This device's thread was away for so long: what the one behind may have said is unread. */
void link_excuse(struct link *link, uint64_t us);

/* Rate while sending, in Mbit/s; 0 when nothing was sent. All bytes, and whether the link was the
 * limit when the rate was measured. */
double link_rate(const struct link *link, uint64_t *ret_bytes, bool *ret_is_full);

#endif
