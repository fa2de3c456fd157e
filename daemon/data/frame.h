/* A frame on this device, and the table of all of them.
 *
 * A frame is known by (session, sequence), and by who sent it here: behind a stage that several
 * devices share, the same frame may come from two of them, when it was dealt to one that then fell
 * silent and to another. These are two attempts, each is answered to its own origin, and a result
 * from behind answers both. It is made when it arrives and dies when its answer has
 * been written to where it came from, or when nobody waits for it any more. Whoever still needs its
 * memory meanwhile (a worker, a write under way) holds a reference.
 *
 * Which bytes it holds:
 *   input   the payload as it was received. On the ingress until the frame is answered, so that it
 * can be sent again; elsewhere until its outputs have been written or it is answered. output  what
 * the worker computed, until it has been written. answer  the header of its result or refusal, and
 * the result's payload when it came from behind.
 */
#ifndef CONVOY_DAEMON_DATA_FRAME_H
#define CONVOY_DAEMON_DATA_FRAME_H

#include "base/err.h"
#include "base/tensor.h"
#include "daemon/data/pool.h"
#include "daemon/data/window.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct device;
struct held;
struct link;
struct peer;
struct frame;

TAILQ_HEAD(frame_list, frame);

/* Who sent a frame and waits for its answer: a session's client, or an upstream device. */
struct origin {
    struct window window;
    struct frame_list frames; /* all that it waits for */
    struct peer *peer;        /* its connection; NULL while a session's client is away */
    bool is_session;
};

enum frame_state {
    FRAME_QUEUED,    /* waits for a worker (on the ingress also: for a plan that is ready) */
    FRAME_RETRYING,  /* refused by a device behind; soon queued again. Ingress only */
    FRAME_COMPUTING, /* a worker has it, or will next */
    FRAME_WAITING,   /* computed; waits for a link's credit */
    FRAME_SENDING,   /* being written to the next device */
    FRAME_SENT,      /* the next device has it */
    FRAME_ANSWERED,  /* its answer is here; waits for the client, or is being written */
    FRAME_DROPPED,   /* nobody waits for it any more; references may be left */
};

struct frame {
    uint64_t session, sequence;
    struct frame *hash_next;      /* in the table */
    TAILQ_ENTRY(frame) of_origin; /* in origin->frames */
    TAILQ_ENTRY(frame) place;     /* in the one list its state belongs to */
    struct frame_list *list;      /* that list; NULL: none */
    struct origin *origin;        /* NULL when dropped */
    struct device *device;
    struct held *held; /* its plan, with a reference; NULL: none yet */
    struct link *link; /* the link that it goes or went down: SENDING and SENT; else NULL */
    struct buffer *input, *output, *answer_header, *answer_payload;
    size_t answer_header_bytes, answer_payload_bytes;
    struct buffer *tensors; /* memory of the next two */
    struct tensor *inputs, *outputs;
    size_t inputs_count, outputs_count;
    uint8_t inputs_id[32]; /* what inputs it was checked against (held->inputs_id) */
    uint64_t accepted_us;
    uint64_t epoch; /* the session's connection on which it was accepted */
    unsigned refs;
    int attempts; /* that failed behind this device; ingress only */
    enum frame_state state;
    bool holds_slot;       /* counts in origin->window */
    bool answer_is_result; /* else a refusal */
    struct {               /* the worker's, between the queues */
        struct frame *next;
        int bad_values;  /* enum config_bad_values; set by the loop */
        bool is_suspect; /* an input has numbers that cannot be right; why says which */
        char why[224];
        int rc;
        uint64_t compute_us;
        uint64_t cpu_us; /* of the worker's own thread */
        struct err err;
    } job;
};

#define FLIGHTS_BUCKETS 4096

/* The frames of a device by name and origin, and the memory of those that are no more. */
struct flights {
    struct frame *buckets[FLIGHTS_BUCKETS];
    struct frame *free; /* by hash_next */
    size_t count;       /* in the table */
    size_t made;        /* frames there are, free ones included: constant in a steady state */
};

/* On the caller's zeroed storage. flights_fini() demands that every frame has come back. */
void flights_init(struct flights *flights);
void flights_fini(struct flights *flights);

/* The frame that origin sent, or NULL. Borrowed. */
struct frame *flights_find(const struct flights *flights, const struct origin *origin,
                           uint64_t session, uint64_t sequence);

/* The attempts at a frame, whoever sent them: the first one (after NULL), or the one behind after;
 * NULL: no more. Borrowed. */
struct frame *flights_next(const struct flights *flights, uint64_t session, uint64_t sequence,
                           const struct frame *after);

/* A zeroed frame of origin in the table with one reference, which the table's entry stands for. No
 * frame of that name and origin may be there. NULL when there is no memory. */
struct frame *flights_add(struct flights *flights, struct origin *origin, uint64_t session,
                          uint64_t sequence);

/* Takes a frame out of the table; its reference is the caller's now. */
void flights_remove(struct flights *flights, struct frame *frame);

/* Keeps a frame's memory for the next one. The caller has released what it points to. */
void flights_recycle(struct flights *flights, struct frame *frame);

/* Moves the frame from the list it is in to the end of list; NULL: to none. */
void frame_move(struct frame *frame, struct frame_list *list);

/* The same, but into a list that is ordered by accepted_us: a frame that was sent back takes its
 * old place again. */
void frame_move_ordered(struct frame *frame, struct frame_list *list);

const char *frame_state_name(enum frame_state state);

#endif
