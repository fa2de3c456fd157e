#include "ctl/interrupt.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct interrupt {
    pthread_t thread;
    sigset_t before;
    int signal_fd, stop_fd;
    void (*fn)(void *arg);
    void *arg;
};

/* Ends the program as the signal would have. */
static void die_of(int signal_number) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal_number);
    signal(signal_number, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(signal_number);
}

static void *wait_for_signals(void *arg) {
    struct interrupt *interrupt = arg;
    struct pollfd fds[2] = {{.fd = interrupt->signal_fd, .events = POLLIN},
                            {.fd = interrupt->stop_fd, .events = POLLIN}};
    struct signalfd_siginfo info;
    for (int seen = 0;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return NULL;
        if (fds[1].revents)
            return NULL;
        if (!fds[0].revents || read(interrupt->signal_fd, &info, sizeof(info)) != sizeof(info))
            continue;
        if (seen++)
            die_of((int)info.ssi_signo);
        interrupt->fn(interrupt->arg);
    }
}

int interrupt_start(void (*fn)(void *arg), void *arg, struct interrupt **ret_interrupt) {
    sigset_t set;
    struct interrupt *interrupt = calloc(1, sizeof(*interrupt));
    if (!interrupt)
        return -ENOMEM;
    interrupt->fn = fn;
    interrupt->arg = arg;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, &interrupt->before);
    interrupt->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    interrupt->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = interrupt->signal_fd < 0 || interrupt->stop_fd < 0 ? -errno : 0;
    if (rc == 0)
        rc = -pthread_create(&interrupt->thread, NULL, wait_for_signals, interrupt);
    if (rc == 0) {
        *ret_interrupt = interrupt;
        return 0;
    }
    if (interrupt->signal_fd >= 0)
        close(interrupt->signal_fd);
    if (interrupt->stop_fd >= 0)
        close(interrupt->stop_fd);
    pthread_sigmask(SIG_SETMASK, &interrupt->before, NULL);
    free(interrupt);
    return rc;
}

void interrupt_stop(struct interrupt *interrupt) {
    uint64_t one = 1;
    if (!interrupt)
        return;
    if (write(interrupt->stop_fd, &one, sizeof(one)) == sizeof(one))
        pthread_join(interrupt->thread, NULL);
    close(interrupt->signal_fd);
    close(interrupt->stop_fd);
    pthread_sigmask(SIG_SETMASK, &interrupt->before, NULL);
    free(interrupt);
}
