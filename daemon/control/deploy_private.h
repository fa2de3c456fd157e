/* Inside of deploy.h: its structures, and what its files know of each other. deploy.c has the
 * states, deploy_build.c what the builder does, deploy_parts.c how parts are served. */
#ifndef CONVOY_DAEMON_CONTROL_DEPLOY_PRIVATE_H
#define CONVOY_DAEMON_CONTROL_DEPLOY_PRIVATE_H

#include "daemon/device.h"
#include "daemon/log.h"

#define MEMO_MAX 128

enum deployment_state { BUILDING, PREPARING, ACTIVATING, ACTIVE };

enum target_state {
    TARGET_AWAY,      /* no link, or not yet */
    TARGET_PREPARING, /* Prepare has been sent */
    TARGET_PREPARED,
    TARGET_FAILED,
};

/* A part that has been written before, by what it is of. The builder's. */
struct memo {
    uint8_t model[SHA256_SIZE], digest[SHA256_SIZE];
    size_t first, last;
};

struct target {
    TAILQ_ENTRY(target) waiting; /* in deploy->waiting */
    struct deployment *deployment;
    struct link *link;
    enum target_state state;
    uint64_t since_us; /* of the state, or of the last piece on its way to it */
    int fd;            /* of its part; -1: none */
    uint8_t part[SHA256_SIZE];
    uint64_t part_bytes, offset; /* of the piece that is asked for ... */
    uint32_t bytes;              /* ... and its size; 0: none is */
    bool is_waiting, is_reading;
    bool was_repeated;    /* a request came twice: the first was of a deployment before this */
    uint64_t piece_us;    /* when the last piece was sent; 0: it has been asked on */
    uint32_t piece_bytes; /* of that */
    uv_fs_t read;
    struct buffer *buffer;
    struct log_repeat refusal; /* of its stage of the plan in use */
};

struct deployment {
    struct job job; /* first: the builder hands it back */
    TAILQ_ENTRY(deployment) entry;
    struct deploy *deploy;
    enum deployment_state state;
    bool keep_addresses, is_retried;
    uint64_t away_ms;
    bool is_over;      /* freed when the builder and reads have ended */
    bool is_building;  /* the builder has it */
    unsigned reads;    /* under way */
    uint64_t since_us; /* of the state */
    deploy_done *done; /* NULL: it has been called, or nobody waits for it */
    void *arg;
    struct deploy_device *devices; /* of each stage */
    struct target *targets;        /* of each stage; the first one's is not used */
    struct plan_request *requests; /* nodes and addresses are those of devices */
    char **until_names;
    size_t count;
    struct plan *plan;
    struct held *held; /* the ingress' own stage, until it is adopted */
    size_t result_bytes;

    /* For the builder: copies. */
    struct config *config; /* see config_copy_for_model() */
    struct held_settings settings;
    struct model *model; /* open already, with a reference; NULL: to be opened */
    uint8_t model_digest[SHA256_SIZE];
    bool has_digest;
    uint8_t known[PLANSET_MAX][SHA256_SIZE], keep[PLANSET_MAX + DEPLOY_STAGES_MAX][SHA256_SIZE];
    size_t known_count, keep_count;
    struct cache_usage usage;
    int rc;
    struct err err;
};

struct deploy {
    struct device *device;
    TAILQ_HEAD(, deployment) all; /* newest first */
    struct deployment *running;
    TAILQ_HEAD(, target) waiting; /* pieces that are asked for and not yet read */
    struct target *serving;       /* the one whose piece is on its way, while frames flow */
    uint64_t quiet_until_us;
    uv_timer_t timer;
    struct memo memos[MEMO_MAX]; /* the builder's */
    size_t memos_next;
    uint64_t retry_us; /* of what the configuration wants; 0: nothing is to be tried again */
    struct link *kept[DEPLOY_STAGES_MAX]; /* control links until that */
    size_t kept_count;
    struct log_repeat failure; /* the last one of what is retried */
    bool is_closing, timer_closed;
    char last[sizeof(((struct err *)NULL)->text)];
};

/* What became of a target's device. */
struct deploy_device *deploy_device_of(const struct target *target);

/* The target of a link in a deployment, or NULL. */
struct target *deploy_find_target(const struct deployment *deployment, const struct link *link);

/* A deployment in BUILDING with copies of all that request and the configuration say, in
 * deploy->all; request has been checked. NULL when there is no memory. */
struct deployment *deploy_copy_request(struct device *device, const struct deploy_request *request);

/* The job: opens the model, makes the plan, the ingress' own stage, and a part for each device.
 * Sets rc, err and usage. On the builder's thread. */
void deploy_build(struct job *job);

/* Releases it, its files, and deploy with it where that is being closed. Nothing uses it any more.
 */
void deploy_free(struct deployment *deployment);

/* Ends a deployment whose links are gone and that nothing uses: as deploy_free(), when the builder
 * and reads have ended. */
void deploy_end(struct deployment *deployment);

/* Sends the pieces that may be sent now. */
void deploy_serve(struct deploy *deploy);

/* The piece that from is asked for is owed by to, a target with the same part and link; where there
 * is none, or to has one to send already, nothing changes. The caller serves. */
void deploy_hand_over(struct target *from, struct target *to);

/* A target is asked for nothing any more. */
void deploy_stop_serving(struct deploy *deploy, struct target *target);

#endif
