/* A stage with room for one frame, for those who run it by themselves: commands, benchmarks,
 * profiles. */
#ifndef CONVOY_MODEL_RUNNER_H
#define CONVOY_MODEL_RUNNER_H

#include "model/model.h"

/* Execs, buffers of inputs and of the outputs it writes. */
struct runner {
    struct stage *stage;
    struct exec *exec;
    struct tensor *inputs, *outputs;
    void **output_buffers; /* NULL where an output is an input's bytes */
    size_t inputs_count, outputs_count;
};

/* Takes its own reference on stage. 0 with everything in place for runner_fini(), or
 * -ENOMEM or what exec_new() says. */
int runner_init(struct runner *runner, struct stage *stage, struct err *err);
void runner_fini(struct runner *runner);

/* Runs the frame in runner->inputs; runner->outputs then hold the results until the next call. */
int runner_run(struct runner *runner, struct err *err);

#endif
