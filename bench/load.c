/* load MODEL...: how long a model takes until its first frame can run, and how much memory that
 * takes, against reading its file once. The file is in the page cache. Each figure is the least of
 * several, memory the peak of a process that loads once and runs one frame. */
#include "model/model.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIMES 5
#define CHUNK ((size_t)64 << 10) /* small: it is in the peak that is measured */

struct figures {
    double read_ms, open_ms, stage_ms, frame_ms; /* open: import, digest, passes; stage: weights */
    size_t file_bytes, peak_bytes, start_bytes, weight_bytes, arena_bytes;
};

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Reads the file once from its beginning to its end into one buffer; its size. */
static size_t read_file(const char *path) {
    static char buffer[CHUNK];
    size_t sum = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (ssize_t n; fd >= 0 && (n = read(fd, buffer, sizeof(buffer))) > 0;)
        sum += (size_t)n;
    if (fd >= 0)
        close(fd);
    return sum;
}

static size_t peak_bytes(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (size_t)usage.ru_maxrss * 1024;
}

static int run_frame(struct exec *exec, const struct stage *stage, struct err *err) {
    size_t ins, outs, bytes;
    const struct tensor_desc *in_descs = stage_inputs(stage, &ins);
    const struct tensor_desc *out_descs = stage_outputs(stage, &outs);
    struct tensor *tensors = calloc(ins + outs + 1, sizeof(*tensors));
    for (size_t i = 0; tensors && i < ins + outs; i++) {
        tensors[i].desc = i < ins ? in_descs[i] : out_descs[i - ins];
        if (tensor_desc_bytes(&tensors[i].desc, &bytes) == 0)
            tensors[i].data = tensor_buffer_new(bytes);
        if (tensors[i].data && i < ins)
            memset(tensors[i].data, 0, bytes);
    }
    return tensors ? exec_run(exec, tensors, tensors + ins, err) : -1;
}

/* In a process of its own, which ends here: nothing is freed. */
static int load_once(const char *path, int threads, struct figures *f) {
    struct err err = {{0}};
    struct model *model;
    struct stage *stage;
    struct exec *exec;
    const struct stage_options options = {.threads = threads};
    f->start_bytes = peak_bytes();
    double begin = now_ms();
    int rc = model_open(path, NULL, &model, &err);
    double opened = now_ms();
    if (rc == 0)
        rc = stage_new(model, 0, model_layers_count(model), &options, &stage, &err);
    if (rc == 0)
        rc = exec_new(stage, &exec, &err);
    double prepared = now_ms();
    if (rc == 0)
        rc = run_frame(exec, stage, &err);
    if (rc < 0) {
        fprintf(stderr, "load: %s\n", err.text);
        return 1;
    }
    f->open_ms = opened - begin;
    f->stage_ms = prepared - opened;
    f->frame_ms = now_ms() - prepared;
    f->peak_bytes = peak_bytes();
    f->weight_bytes = (size_t)stage_weight_bytes(stage);
    f->arena_bytes = (size_t)stage_arena_bytes(stage);
    return 0;
}

/* The figures of a child. */
static int load_child(const char *path, int threads, struct figures *ret) {
    int ends[2], status = 1;
    if (pipe(ends) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        struct figures f = {0};
        int rc = load_once(path, threads, &f);
        _exit(rc == 0 && write(ends[1], &f, sizeof(f)) == (ssize_t)sizeof(f) ? 0 : 1);
    }
    close(ends[1]);
    bool whole = pid > 0 && read(ends[0], ret, sizeof(*ret)) == (ssize_t)sizeof(*ret);
    close(ends[0]);
    if (pid > 0)
        waitpid(pid, &status, 0);
    return whole && status == 0 ? 0 : -1;
}

static int measure(const char *path, int threads) {
    struct figures best = {.read_ms = 1e30, .open_ms = 1e30, .stage_ms = 1e30}, f;
    read_file(path);
    for (int i = 0; i < TIMES; i++) {
        double begin = now_ms();
        best.file_bytes = read_file(path);
        double ms = now_ms() - begin;
        best.read_ms = ms < best.read_ms ? ms : best.read_ms;
        if (load_child(path, threads, &f) < 0)
            return 1;
        if (f.open_ms + f.stage_ms < best.open_ms + best.stage_ms) {
            f.read_ms = best.read_ms;
            f.file_bytes = best.file_bytes;
            best = f;
        }
    }
    double mb = (double)best.file_bytes / 1e6, peak = (double)best.peak_bytes / 1e6;
    printf("%s: %.1f MB, read in %.1f ms; loaded in %.1f ms (open %.1f, weights %.1f): %.2f times; "
           "peak %.1f MB (%.1f before loading, weights %.1f, arena %.1f): %.2f of file and arena\n",
           path, mb, best.read_ms, best.open_ms + best.stage_ms, best.open_ms, best.stage_ms,
           (best.open_ms + best.stage_ms) / best.read_ms, peak, (double)best.start_bytes / 1e6,
           (double)best.weight_bytes / 1e6, (double)best.arena_bytes / 1e6,
           peak * 1e6 / (double)(best.file_bytes + best.arena_bytes));
    return 0;
}

int main(int argc, char **argv) {
    int first = argc > 2 && strcmp(argv[1], "-t") == 0 ? 3 : 1, rc = argc > first ? 0 : 2;
    if (rc)
        fprintf(stderr, "usage: load [-t THREADS] MODEL...\n");
    for (int i = first; i < argc; i++)
        rc |= measure(argv[i], first == 3 ? atoi(argv[2]) : 1);
    return rc;
}
