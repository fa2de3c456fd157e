/* Real convoyd processes for tests, on sockets that the test has bound (port 0: any free one) and
 * passes on as a service manager would, so that a daemon can be killed and started again on the
 * same address. Failures inside are failures of the running test. */
#ifndef CONVOY_TESTS_LIB_DAEMONS_H
#define CONVOY_TESTS_LIB_DAEMONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define DAEMONS_MAX 5

/* How many times slower sanitizers may make everything on a busy machine. Every time that a daemon
 * grants to others (heartbeat_ms, hello_ms, prepare_ms), its defaults too, is longer by it than
 * what a test has written, and so are the waits of the tests themselves. */
#if defined(__SANITIZE_THREAD__)
#define DAEMONS_SLOWER 10
#elif defined(__SANITIZE_ADDRESS__)
#define DAEMONS_SLOWER 3
#else
#define DAEMONS_SLOWER 1
#endif

#define DAEMONS_CAP_MS (30000 * DAEMONS_SLOWER) /* no wait is longer */

struct daemon_process {
    char node[16];
    int listen_fd; /* kept by the test */
    uint16_t port;
    pid_t pid; /* 0: not running */
    char yaml[256], log[256];
};

struct daemons {
    char folder[128];
    struct daemon_process all[DAEMONS_MAX]; /* "pi-a", "pi-b", ... in the line's order */
    int count;
    bool shares[DAEMONS_MAX]; /* of the next daemons_configure(): i is a replica of i - 1 */
    const char *model;        /* of the next daemons_configure() */
    const char *extra;        /* further lines of YAML, or "" */
};

/* A temporary folder and count bound sockets; nothing runs yet. model is a path from the
 * repository's root. */
void daemons_init(struct daemons *daemons, int count, const char *model);

/* Kills what runs, removes the folder. Shows the logs when the test has failed meanwhile. */
void daemons_fini(struct daemons *daemons);

/* Begins the YAML of daemon i with its name and further lines (extra or ""), in which times are
 * longer under sanitizers; what follows is the caller's to write, and the file to be closed. */
FILE *daemons_open_yaml(const struct daemons *daemons, int i, const char *node, const char *extra);

/* Writes the YAML of daemon i: the whole line, with a cut behind every stage but the last. */
void daemons_configure(struct daemons *daemons, int i, const char *const *untils);
void daemons_configure_all(struct daemons *daemons, const char *const *untils);

/* Writes the YAML of daemon i without a pipeline, with further lines; its state is kept in the
 * folder "state-NODE" of the test's. */
void daemons_configure_idle(struct daemons *daemons, int i, const char *extra);

/* Starts daemon i on its socket. */
void daemons_start(struct daemons *daemons, int i);
void daemons_start_all(struct daemons *daemons);

void daemons_signal(struct daemons *daemons, int i, int number);

/* Waits for the end of daemon i and returns its wait status. */
int daemons_wait(struct daemons *daemons, int i);

/* kill -9, and wait. */
void daemons_kill(struct daemons *daemons, int i);

/* True when the log of daemon i contains text. */
bool daemons_logged(const struct daemons *daemons, int i, const char *text);

/* How often it does. */
int daemons_count_log(const struct daemons *daemons, int i, const char *text);

/* Waits until daemon i has logged text at least times times. */
void daemons_wait_log(const struct daemons *daemons, int i, const char *text, int times);

/* Resident bytes of daemon i. */
size_t daemons_resident(const struct daemons *daemons, int i);

/* The path of convoyd of the same build as the running test. */
const char *daemons_program(void);

/* Runs convoyd with a configuration in text until it ends; its exit code, and stderr in out. */
int daemons_run_once(struct daemons *daemons, const char *yaml, const char *const *args, char *out,
                     size_t size);

uint64_t daemons_now_ms(void);

#endif
