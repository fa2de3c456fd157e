/* One case of ONNX's backend test data: a folder with model.onnx and test_data_set_N/input_M.pb and
 * output_M.pb. Models and tensors are read by our importer. */
#ifndef CONVOY_TESTS_ONNX_CASE_H
#define CONVOY_TESTS_ONNX_CASE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define ONNX_CASE_OPS_MAX 128

enum onnx_outcome {
    ONNX_PASSED,
    ONNX_WRONG,   /* it was loaded, and a result was not what it should be */
    ONNX_REFUSED, /* it was not loaded */
};

struct onnx_case {
    const char *folder;
    char ops[ONNX_CASE_OPS_MAX][64]; /* the distinct operators, in the graph's order */
    size_t ops_count;
    struct err err; /* why it did not pass */
};

/* Reads what operators the case has. False: it cannot be read, and err says why. */
bool onnx_case_open(struct onnx_case *c, const char *folder);

/* Runs every data set of the case, and compares: rtol 1e-3 and atol 1e-7, as ONNX's runner;
 * integers exactly. First with every input given when it runs. Where the model is then refused, the
 * case's own inputs are constants of the graph, as weights, shapes and axes are in real models:
 * those of integers, all but the first, all of them. scratch is a path for such a model's file. */
enum onnx_outcome onnx_case_run(struct onnx_case *c, const char *scratch);

#endif
