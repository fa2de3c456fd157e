/* The engine Convoy for the bench (bench/speed says how engines are talked to): the same libraries
 * as the daemon's, called as its workers call them.
 * Usage: engine-convoy MODEL THREADS INPUT DIM,DIM,... (the model says it too) */
#include "ctl/network.h"
#include "kernels/kernels.h"
#include "model/runner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LINE_MAX_BYTES 4096

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static long peak_kb(void) {
    char line[256];
    long kb = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kb = strtol(line + 6, NULL, 10);
    if (file)
        fclose(file);
    return kb;
}

static int read_input(const char *path, const struct tensor *tensor, struct err *err) {
    size_t bytes = 0;
    FILE *file = fopen(path, "rbe");
    if (!file)
        return err_set(err, -errno, "%s: %s", path, strerror(errno));
    tensor_desc_bytes(&tensor->desc, &bytes);
    size_t got = fread(tensor->data, 1, bytes, file);
    fclose(file);
    return got == bytes ? 0 : err_set(err, -EBADMSG, "%s: %zu bytes, not %zu", path, got, bytes);
}

static int run_frames(struct runner *runner, long frames, struct err *err) {
    printf("{\"ns\":[");
    for (long i = 0; i < frames; i++) {
        uint64_t start = now_ns();
        int rc = runner_run(runner, err);
        uint64_t ns = now_ns() - start;
        if (rc < 0)
            return rc;
        printf("%s%llu", i ? "," : "", (unsigned long long)ns);
    }
    printf("]}\n");
    return 0;
}

static int save_outputs(const struct runner *runner, const char *path, struct err *err) {
    printf("{\"files\":[");
    for (size_t i = 0; i < runner->outputs_count; i++) {
        char name[LINE_MAX_BYTES + 32];
        size_t bytes = 0;
        snprintf(name, sizeof(name), "%s.%zu", path, i);
        tensor_desc_bytes(&runner->outputs[i].desc, &bytes);
        FILE *file = fopen(name, "wbe");
        if (!file)
            return err_set(err, -errno, "%s: %s", name, strerror(errno));
        size_t put = fwrite(runner->outputs[i].data, 1, bytes, file);
        if (fclose(file) != 0 || put != bytes)
            return err_set(err, -EIO, "%s: cannot be written", name);
        printf("%s\"%s\"", i ? "," : "", name);
    }
    printf("]}\n");
    return 0;
}

static int serve(struct runner *runner, struct err *err) {
    char line[LINE_MAX_BYTES], argument[LINE_MAX_BYTES];
    int rc = runner_run(runner, err);
    if (rc < 0)
        return rc;
    printf("{\"engine\":\"Convoy\",\"version\":\"%s\",\"base_kb\":0}\n", CONVOY_VERSION);
    fflush(stdout);
    while (rc == 0 && fgets(line, sizeof(line), stdin)) {
        if (sscanf(line, "run %4095s", argument) == 1)
            rc = run_frames(runner, strtol(argument, NULL, 10), err);
        else if (sscanf(line, "save %4095s", argument) == 1)
            rc = save_outputs(runner, argument, err);
        else if (strncmp(line, "memory", 6) == 0)
            printf("{\"peak_kb\":%ld}\n", peak_kb());
        fflush(stdout);
    }
    return rc;
}

static int open_and_serve(const char *path, int threads, const char *input, struct err *err) {
    struct stage_options options = {.threads = threads};
    struct runner runner = {0};
    struct model *model;
    struct stage *stage = NULL;
    int rc = model_open(path, NULL, &model, err);
    if (rc < 0)
        return rc;
    rc = stage_new(model, 0, model_layers_count(model), &options, &stage, err);
    if (rc == 0)
        rc = runner_init(&runner, stage, err);
    if (rc == 0 && runner.inputs_count != 1)
        rc = err_set(err, -ENOTSUP, "%s has %zu inputs: one can be benched", path,
                     runner.inputs_count);
    if (rc == 0)
        rc = read_input(input, &runner.inputs[0], err);
    if (rc == 0)
        rc = serve(&runner, err);
    runner_fini(&runner);
    stage_unref(stage);
    model_unref(model);
    return rc;
}

int main(int argc, char **argv) {
    struct err err = {0};
    if (argc != 5) {
        fprintf(stderr, "usage: %s MODEL THREADS INPUT DIM,DIM,...\n", argv[0]);
        return 2;
    }
    kn_init();
    if (open_and_serve(argv[1], atoi(argv[2]), argv[3], &err) == 0)
        return 0;
    for (char *p = err.text; *p; p++)
        if (*p == '"' || *p == '\\' || (unsigned char)*p < ' ')
            *p = '\'';
    printf("{\"error\":\"%s\"}\n", err.text);
    return 1;
}
