/* A minimal client of the wire protocol for tests: blocking but for what it waits for, one thread.
 * It sends frames from a set of pictures, and compares every result with what the undivided model
 * answers in this process. */
#ifndef CONVOY_TESTS_LIB_CLIENT_H
#define CONVOY_TESTS_LIB_CLIENT_H

#include "model/model.h"
#include "proto/message.h"
#include "tests/lib/daemons.h"

#define CLIENT_CAP_MS   (2 * DAEMONS_CAP_MS)
#define ORACLE_PICTURES 8
#define CLIENT_FRAMES   110000

/* What the answers must be. */
struct oracle {
    struct model *model;
    struct tensor_desc input, output; /* names are the model's */
    size_t input_bytes, output_bytes;
    void *inputs[ORACLE_PICTURES], *outputs[ORACLE_PICTURES];
    struct tensor_desc shapes[ORACLE_PICTURES]; /* of outputs, where those depend on the picture */
};

/* A model with one input and one output; its answers to pictures of noise. */
void oracle_init(struct oracle *oracle, const char *path);
void oracle_fini(struct oracle *oracle);

/* The layer's name, for a cut after it. */
const char *oracle_layer(const struct oracle *oracle, size_t index);

struct client {
    const struct oracle *oracle;
    struct reader *reader;
    uint64_t session;
    uint64_t next;    /* sequence to be sent next */
    uint64_t target;  /* last sequence to be sent */
    uint8_t *answers; /* how often each sequence was answered */
    size_t answered, repeated, wrong, refused, pings, pongs;
    void *payload;
    Convoy__Status *status;        /* the last one, or NULL */
    Convoy__Code refusal, goodbye; /* the last of each */
    struct client_frame {          /* the last Frame that came, where the test plays a device */
        uint64_t session, sequence;
        uint8_t plan[32];
    } frame;
    size_t frames, hellos;
    Convoy__Message *other; /* the last message of a kind that has no place above, or NULL */
    size_t others;
    size_t chunks;      /* pieces of parts among them */
    size_t other_bytes; /* of its payload, which lies in payload until the next one comes */
    int fd;             /* -1: not connected */
    uint32_t credits;
    uint16_t port;
    Convoy__Role role; /* of the last Hello that came */
    uint32_t workers;  /* where the test plays a device that tells of itself; 0: it does not */
    bool welcomed, resumed, refusal_retry, closed;
};

void client_init(struct client *client, const struct oracle *oracle, uint16_t port);
void client_fini(struct client *client);

/* Connects, says Hello as role with the session of before (0 at first), waits for Welcome. */
void client_connect(struct client *client, Convoy__Role role);

/* Only the connection; for those who misbehave. */
void client_open(struct client *client);
void client_open_from(struct client *client, const char *from); /* an address of this machine's */
void client_close(struct client *client);

/* Plays a device: takes a connection that waits at listen_fd (waits for it, too), reads its Hello,
 * of which client->role is the role. */
void client_accept(struct client *client, int listen_fd);

/* Plays a device to its ingress: takes the control link that comes to process, which does not run,
 * and no other, and says Welcome. */
void client_play(struct client *client, const struct daemon_process *process);

/* The connection breaks: all unanswered frames will be sent again after the next client_connect().
 */
void client_cut(struct client *client);

void client_send(struct client *client, const Convoy__Message *message, const void *payload,
                 size_t bytes);
void client_send_raw(struct client *client, const void *data, size_t size);

/* One frame with the picture that belongs to its sequence, whatever the credits say. */
void client_send_frame(struct client *client, uint64_t sequence);

/* Reads what is there, or comes within timeout_ms (once). False when the connection is closed. */
bool client_read(struct client *client, int timeout_ms);

/* Sends what credits and target allow. */
void client_push(struct client *client);

/* Pushes and reads until count frames are answered; fails after CLIENT_CAP_MS. */
void client_run(struct client *client, size_t count);

/* Reads until the connection is closed by the other side. */
void client_wait_closed(struct client *client);

/* Reads until there is at least one credit. */
void client_wait_credit(struct client *client);

/* Returns once the device has handled all that was sent on this connection. */
void client_settle(struct client *client);

/* Asks for status; client->status is NULL until it comes. */
void client_ask_status(struct client *client);

/* Asks for status and waits for it. */
const Convoy__Status *client_status(struct client *client);

/* Reads until a message of that kind, which has no place of its own in struct client, is the last
 * that came after those before this call; client->other is it. */
const Convoy__Message *client_wait_other(struct client *client, Convoy__Message__BodyCase kind);

/* Fails unless the frames 1 to count were answered exactly once and rightly. */
void client_assert_exactly_once(const struct client *client, size_t count);

#endif
