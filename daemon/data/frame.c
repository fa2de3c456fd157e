#include "daemon/data/frame.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void flights_init(struct flights *flights) {
    memset(flights, 0, sizeof(*flights));
}

void flights_fini(struct flights *flights) {
    struct frame *frame;
    assert(flights->count == 0);
    while ((frame = flights->free) != NULL) {
        flights->free = frame->hash_next;
        free(frame);
        flights->made--;
    }
    assert(flights->made == 0);
}

/* Sessions are random, sequences count: the product spreads neighbours over the buckets. */
static size_t bucket_of(uint64_t session, uint64_t sequence) {
    uint64_t hash = (session ^ (sequence * 0x9e3779b97f4a7c15)) * 0xff51afd7ed558ccd;
    return (size_t)(hash >> 52) % FLIGHTS_BUCKETS;
}

struct frame *flights_next(const struct flights *flights, uint64_t session, uint64_t sequence,
                           const struct frame *after) {
    struct frame *frame = after ? after->hash_next : flights->buckets[bucket_of(session, sequence)];
    while (frame && (frame->session != session || frame->sequence != sequence))
        frame = frame->hash_next;
    return frame;
}

struct frame *flights_find(const struct flights *flights, const struct origin *origin,
                           uint64_t session, uint64_t sequence) {
    struct frame *frame = flights_next(flights, session, sequence, NULL);
    while (frame && frame->origin != origin)
        frame = flights_next(flights, session, sequence, frame);
    return frame;
}

struct frame *flights_add(struct flights *flights, struct origin *origin, uint64_t session,
                          uint64_t sequence) {
    struct frame *frame = flights->free;
    struct frame **bucket = &flights->buckets[bucket_of(session, sequence)];
    assert(!flights_find(flights, origin, session, sequence));
    if (frame) {
        flights->free = frame->hash_next;
        memset(frame, 0, sizeof(*frame));
    } else {
        frame = calloc(1, sizeof(*frame));
        if (!frame)
            return NULL;
        flights->made++;
    }
    frame->origin = origin;
    frame->session = session;
    frame->sequence = sequence;
    frame->refs = 1;
    frame->hash_next = *bucket;
    *bucket = frame;
    flights->count++;
    return frame;
}

void flights_remove(struct flights *flights, struct frame *frame) {
    struct frame **at = &flights->buckets[bucket_of(frame->session, frame->sequence)];
    while (*at != frame) {
        assert(*at);
        at = &(*at)->hash_next;
    }
    *at = frame->hash_next;
    frame->hash_next = NULL;
    flights->count--;
}

void flights_recycle(struct flights *flights, struct frame *frame) {
    assert(frame->refs == 0 && !frame->list);
    frame->hash_next = flights->free;
    flights->free = frame;
}

void frame_move(struct frame *frame, struct frame_list *list) {
    if (frame->list)
        TAILQ_REMOVE(frame->list, frame, place);
    frame->list = list;
    if (list)
        TAILQ_INSERT_TAIL(list, frame, place);
}

void frame_move_ordered(struct frame *frame, struct frame_list *list) {
    struct frame *at;
    frame_move(frame, NULL);
    TAILQ_FOREACH(at, list, place) {
        if (at->accepted_us > frame->accepted_us)
            break;
    }
    if (at)
        TAILQ_INSERT_BEFORE(at, frame, place);
    else
        TAILQ_INSERT_TAIL(list, frame, place);
    frame->list = list;
}

static const char *const state_names[] = {
    [FRAME_QUEUED] = "queued",     [FRAME_RETRYING] = "retrying", [FRAME_COMPUTING] = "computing",
    [FRAME_WAITING] = "waiting",   [FRAME_SENDING] = "sending",   [FRAME_SENT] = "sent",
    [FRAME_ANSWERED] = "answered", [FRAME_DROPPED] = "dropped",
};

const char *frame_state_name(enum frame_state state) {
    return state_names[state];
}
