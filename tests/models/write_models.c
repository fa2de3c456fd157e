/* write-models FOLDER [NAME...]: writes the networks of networks.h (or those named) with random
 * weights as FOLDER/NAME.onnx. */
#include "tests/models/networks.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SEED 1

static bool is_wanted(const char *name, int count, char *const *names) {
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return count == 0;
}

static bool is_known(const char *name) {
    for (size_t i = 0; i < networks_count; i++)
        if (strcmp(networks[i].name, name) == 0)
            return true;
    return false;
}

int main(int argc, char **argv) {
    struct err err = {0};
    char path[PATH_MAX];
    if (argc < 2) {
        fprintf(stderr, "usage: %s FOLDER [NAME...]\n", argv[0]);
        return 2;
    }
    for (int i = 2; i < argc; i++)
        if (!is_known(argv[i])) {
            fprintf(stderr, "%s: there is no network of that name\n", argv[i]);
            return 2;
        }
    if (mkdir(argv[1], 0777) < 0 && errno != EEXIST) {
        fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    for (size_t i = 0; i < networks_count; i++) {
        if (!is_wanted(networks[i].name, argc - 2, argv + 2))
            continue;
        snprintf(path, sizeof(path), "%s/%s.onnx", argv[1], networks[i].name);
        if (network_write(&networks[i], SEED, path, &err) < 0) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        printf("%s: %.1f million parameters\n", path, (double)networks[i].params / 1e6);
    }
    return 0;
}
