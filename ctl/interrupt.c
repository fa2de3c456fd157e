#include "ctl/interrupt.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
#define SIGNALS (sizeof(signals) / sizeof(signals[0]))

/* What the handler knows: signal handlers have no argument. Blocking the signals and waiting for
 * them would need no global, but libraries have threads of their own that do not block them. */
static atomic_int event_fd = -1;
static atomic_bool seen;

struct interrupt {
    pthread_t thread;
    struct sigaction before[SIGNALS];
    int fd;
    atomic_bool stopping;
    void (*fn)(void *arg);
    void *arg;
};

static void on_signal(int number) {
    uint64_t one = 1;
    int saved = errno;
    if (atomic_exchange(&seen, true)) {
        signal(number, SIG_DFL);
        raise(number);
    }
    if (write(atomic_load(&event_fd), &one, sizeof(one)) < 0)
        errno = saved; /* raised already */
    errno = saved;
}

static void *wait_for_signal(void *arg) {
    struct interrupt *interrupt = arg;
    uint64_t count;
    while (read(interrupt->fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
    if (!atomic_load(&interrupt->stopping))
        interrupt->fn(interrupt->arg);
    return NULL;
}

int interrupt_start(void (*fn)(void *arg), void *arg, struct interrupt **ret_interrupt) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct interrupt *interrupt = calloc(1, sizeof(*interrupt));
    if (!interrupt)
        return -ENOMEM;
    interrupt->fn = fn;
    interrupt->arg = arg;
    interrupt->fd = eventfd(0, EFD_CLOEXEC);
    int rc = interrupt->fd < 0 ? -errno : 0;
    if (rc == 0)
        rc = -pthread_create(&interrupt->thread, NULL, wait_for_signal, interrupt);
    if (rc != 0) {
        if (interrupt->fd >= 0)
            close(interrupt->fd);
        free(interrupt);
        return rc;
    }
    atomic_store(&event_fd, interrupt->fd);
    atomic_store(&seen, false);
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &action, &interrupt->before[i]);
    *ret_interrupt = interrupt;
    return 0;
}

void interrupt_stop(struct interrupt *interrupt) {
    uint64_t one = 1;
    if (!interrupt)
        return;
    for (size_t i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &interrupt->before[i], NULL);
    atomic_store(&interrupt->stopping, true);
    while (write(interrupt->fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
    pthread_join(interrupt->thread, NULL);
    atomic_store(&event_fd, -1);
    close(interrupt->fd);
    free(interrupt);
}
