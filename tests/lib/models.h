/* Real models for tests: where they are, their reference inputs and outputs, and running stages. */
#ifndef CONVOY_TESTS_MODELS_H
#define CONVOY_TESTS_MODELS_H

#include "model/model.h"

#define MODELS_TENSORS_MAX 16

/* What tests know of each model. */
struct models_entry {
    const char *file; /* below models_dir() */
    bool light;       /* inputs are arange(n) / n, the reference is a TensorProto */
    const char *dim;  /* NULL, or "*" with dim_value: for models with unknown dimensions */
    int64_t dim_value;
    size_t outputs; /* in the reference */
    double range;   /* differences are relative to this at least: 1 where a sigmoid's reference is
                       next to nothing, and exact to 1e-7 of one only */
};

/* Ends with an entry without file. */
extern const struct models_entry models_all[];

/* CONVOY_MODELS, or ../shared/models. */
const char *models_dir(void);

/* Writes the path of a file of models_dir() into buf; false when it is not there. */
bool models_path(const char *file, char *buf, size_t size);

/* Opens an entry with its dimensions; fails the test when that fails. NULL when it is not there. */
struct model *models_open(const struct models_entry *entry);

/* The reference input; free with tensor_buffer_free(data). */
struct tensor models_input(const struct models_entry *entry, const struct model *model);

/* The reference output i. */
struct tensor models_output(const struct models_entry *entry, size_t i);

/* Room for every output of a stage; those that come from inputs have none. */
void models_room(const struct stage *stage, struct tensor *outputs);

/* Frees what models_room() made. */
void models_room_free(const struct stage *stage, struct tensor *outputs);

/* Largest difference over the largest number of the reference, or over range where that is larger;
 * NaN counts as infinite. */
double models_difference(const struct tensor *got, const struct tensor *wanted, double range);

/* A TensorProto file (float32 only). 0 or -errno. */
int models_read_pb(const char *path, struct tensor *ret);

#endif
