#include "daemons.h"

#include "folder.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define LOG_MAX   (1 << 20)
#define LOG_LINES 20    /* of a log are shown where a test fails */
#define LONG_MS   60000 /* such a time is long enough for everybody */

uint64_t daemons_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void pause_ms(long ms) {
    const struct timespec time = {.tv_nsec = ms * 1000000};
    nanosleep(&time, NULL);
}

const char *daemons_program(void) {
    static char path[PATH_MAX];
    char self[PATH_MAX];
    const char *build = getenv("CONVOY_BUILD");
    if (build) {
        snprintf(path, sizeof(path), "%.*s/convoyd", PATH_MAX - 16, build);
        return path;
    }
    ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);
    assert_true(size > 0);
    self[size] = '\0'; /* BUILD/tests/integration/test_x */
    snprintf(path, sizeof(path), "%.*s/convoyd", PATH_MAX - 16, dirname(dirname(dirname(self))));
    return path;
}

static int bind_any(uint16_t *ret_port) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 128), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

void daemons_init(struct daemons *daemons, int count, const char *model) {
    static char absolute[PATH_MAX];
    memset(daemons, 0, sizeof(*daemons));
    snprintf(daemons->folder, sizeof(daemons->folder), "/tmp/convoy-test-XXXXXX");
    assert_non_null(mkdtemp(daemons->folder));
    assert_true(count <= DAEMONS_MAX);
    assert_non_null(realpath(model, absolute));
    daemons->count = count;
    daemons->model = absolute;
    daemons->extra = "";
    for (int i = 0; i < count; i++) {
        struct daemon_process *process = &daemons->all[i];
        snprintf(process->node, sizeof(process->node), "pi-%c", 'a' + i);
        snprintf(process->yaml, sizeof(process->yaml), "%s/%s.yaml", daemons->folder,
                 process->node);
        snprintf(process->log, sizeof(process->log), "%s/%s.log", daemons->folder, process->node);
        process->listen_fd = bind_any(&process->port);
    }
}

/* The log's text; the caller's to free. */
static char *read_log(const struct daemon_process *process) {
    char *text = calloc(1, LOG_MAX + 1);
    int fd = open(process->log, O_RDONLY | O_CLOEXEC);
    ssize_t size = 0;
    if (text && fd >= 0)
        while (size < LOG_MAX) {
            ssize_t got = read(fd, text + size, (size_t)(LOG_MAX - size));
            if (got <= 0)
                break;
            size += got;
        }
    if (fd >= 0)
        close(fd);
    return text;
}

void daemons_fini(struct daemons *daemons) {
    bool show = getenv("CONVOY_TEST_LOGS") != NULL;
    for (int i = 0; i < daemons->count; i++) {
        struct daemon_process *process = &daemons->all[i];
        daemons_kill(daemons, i);
        close(process->listen_fd);
        if (show) {
            char *text = read_log(process);
            fprintf(stderr, "---- %s\n%s", process->node, text);
            free(text);
        }
    }
    folder_remove(daemons->folder);
}

static void write_extra(FILE *file, const char *extra) {
    static const char *const times[] = {"heartbeat_ms: ", "hello_ms: ", "prepare_ms: "};
    if (!strstr(extra, times[0]))
        fprintf(file, "heartbeat_ms: %d\n", 2000 * DAEMONS_SLOWER);
    while (*extra) {
        const char *time = NULL;
        for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
            if (strncmp(extra, times[i], strlen(times[i])) == 0)
                time = times[i];
        if (!time) {
            fputc(*extra++, file);
            continue;
        }
        char *end;
        unsigned long ms = strtoul(extra + strlen(time), &end, 10);
        fprintf(file, "%s%lu", time, ms < LONG_MS ? ms * DAEMONS_SLOWER : ms);
        extra = end;
    }
}

FILE *daemons_open_yaml(const struct daemons *daemons, int i, const char *node, const char *extra) {
    FILE *file = fopen(daemons->all[i].yaml, "we");
    assert_non_null(file);
    fprintf(file, "node: %s\n", node);
    write_extra(file, extra);
    return file;
}

static void write_device(FILE *file, const struct daemon_process *process, const char *indent) {
    fprintf(file, "%s- {node: %s, address: 127.0.0.1:%u}\n", indent, process->node, process->port);
}

/* Stage by stage: a device, or the replicas that follow it. */
static void write_pipeline(FILE *file, const struct daemons *daemons, const char *const *untils) {
    size_t cut = 0;
    for (int s = 0, next; s < daemons->count; s = next) {
        for (next = s + 1; next < daemons->count && daemons->shares[next];)
            next++;
        if (next == s + 1)
            fprintf(file, "  - node: %s\n    address: 127.0.0.1:%u\n", daemons->all[s].node,
                    daemons->all[s].port);
        else
            fprintf(file, "  - replicas:\n");
        for (int i = s; next > s + 1 && i < next; i++)
            write_device(file, &daemons->all[i], "      ");
        if (next < daemons->count)
            fprintf(file, "    until: %s\n", untils[cut++]);
    }
}

void daemons_configure(struct daemons *daemons, int i, const char *const *untils) {
    FILE *file = daemons_open_yaml(daemons, i, daemons->all[i].node, daemons->extra);
    fprintf(file, "model: %s\npipeline:\n", daemons->model);
    write_pipeline(file, daemons, untils);
    assert_int_equal(fclose(file), 0);
}

void daemons_configure_idle(struct daemons *daemons, int i, const char *extra) {
    FILE *file = daemons_open_yaml(daemons, i, daemons->all[i].node, extra);
    fprintf(file, "state: state-%s\n", daemons->all[i].node);
    assert_int_equal(fclose(file), 0);
}

void daemons_configure_all(struct daemons *daemons, const char *const *untils) {
    for (int i = 0; i < daemons->count; i++)
        daemons_configure(daemons, i, untils);
}

/* In the child: socket as descriptor 3, the log as stderr. */
static void become_daemon(const struct daemon_process *process, int log) {
    char pid[32];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    if (dup2(log, STDERR_FILENO) < 0 || dup2(process->listen_fd, 3) < 0)
        _exit(126);
    if (process->listen_fd == 3)
        fcntl(3, F_SETFD, 0);
    execl(daemons_program(), "convoyd", "--config", process->yaml, (char *)NULL);
    _exit(127);
}

void daemons_start(struct daemons *daemons, int i) {
    struct daemon_process *process = &daemons->all[i];
    assert_int_equal(process->pid, 0);
    int log = open(process->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(log > 3);
    process->pid = fork();
    assert_true(process->pid >= 0);
    if (process->pid == 0)
        become_daemon(process, log);
    close(log);
}

void daemons_start_all(struct daemons *daemons) {
    for (int i = 0; i < daemons->count; i++)
        daemons_start(daemons, i);
}

void daemons_signal(struct daemons *daemons, int i, int number) {
    assert_true(daemons->all[i].pid > 0);
    assert_int_equal(kill(daemons->all[i].pid, number), 0);
}

int daemons_wait(struct daemons *daemons, int i) {
    struct daemon_process *process = &daemons->all[i];
    uint64_t until = daemons_now_ms() + DAEMONS_CAP_MS;
    int status = 0;
    while (waitpid(process->pid, &status, WNOHANG) == 0) {
        if (daemons_now_ms() > until)
            fail_msg("%s did not end", process->node);
        pause_ms(2);
    }
    process->pid = 0;
    return status;
}

void daemons_kill(struct daemons *daemons, int i) {
    if (daemons->all[i].pid <= 0)
        return;
    kill(daemons->all[i].pid, SIGKILL);
    waitpid(daemons->all[i].pid, NULL, 0);
    daemons->all[i].pid = 0;
}

int daemons_count_log(const struct daemons *daemons, int i, const char *text) {
    char *log = read_log(&daemons->all[i]);
    int count = 0;
    for (const char *at = log; (at = strstr(at, text)); at++)
        count++;
    free(log);
    return count;
}

bool daemons_logged(const struct daemons *daemons, int i, const char *text) {
    return daemons_count_log(daemons, i, text) > 0;
}

/* The end of a daemon's log as comments between results: its folder does not outlive a CI run. */
static void show_log(const struct daemons *daemons, int i) {
    char *log = read_log(&daemons->all[i]);
    const char *line = log + strlen(log), *end;
    for (int lines = 0; line > log && (line[-1] != '\n' || lines++ <= LOG_LINES);)
        line--;
    for (; *line; line = end + (*end == '\n')) {
        end = line + strcspn(line, "\n");
        fprintf(stderr, "# %s: %.*s\n", daemons->all[i].node, (int)(end - line), line);
    }
    free(log);
}

void daemons_wait_log(const struct daemons *daemons, int i, const char *text, int times) {
    uint64_t until = daemons_now_ms() + DAEMONS_CAP_MS;
    while (daemons_count_log(daemons, i, text) < times) {
        if (daemons_now_ms() > until) {
            fprintf(stderr, "# %s never logged \"%s\"\n", daemons->all[i].node, text);
            show_log(daemons, i);
            fail();
        }
        pause_ms(5);
    }
}

size_t daemons_resident(const struct daemons *daemons, int i) {
    char path[64];
    unsigned long size = 0, resident = 0;
    snprintf(path, sizeof(path), "/proc/%d/statm", (int)daemons->all[i].pid);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu %lu", &size, &resident), 2);
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

int daemons_run_once(struct daemons *daemons, const char *yaml, const char *const *args, char *out,
                     size_t size) {
    char path[512];
    const char *argv[16] = {"convoyd", "--config", path};
    int pipes[2], status = 0, n = 3;
    snprintf(path, sizeof(path), "%s/once.yaml", daemons->folder);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(yaml, file);
    assert_int_equal(fclose(file), 0);
    for (; args && *args && n < 15; args++)
        argv[n++] = *args;
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(pipes[1], STDERR_FILENO);
        dup2(pipes[1], STDOUT_FILENO);
        execv(daemons_program(), (char **)(uintptr_t)argv);
        _exit(127);
    }
    close(pipes[1]);
    size_t used = 0;
    for (;;) {
        ssize_t got = read(pipes[0], out + used, size - 1 - used);
        if (got <= 0)
            break;
        used += (size_t)got;
    }
    out[used] = '\0';
    close(pipes[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}
