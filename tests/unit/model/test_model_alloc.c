/* Every allocation of opening, preparing and writing a model fails once. */
#include "model/model.h"
#include "tests/lib/failing.h"
#include "tests/lib/own_malloc.h"
#include "tests/lib/small_model.h"

#include <openssl/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char text[] =
    "input x f32 n,4,6,6\noutput y f16 1,8,6,6\nconst k i64 4 = 4,4,3,3\nConstantOfShape fill k -> "
    "w0\n"
    "const one f32 4,1,1\nAdd grow w0,one -> w\nConv c x,w -> a | pads=[1,1,1,1]\n"
    "const s f32 4\nconst t f16 4\nconst m f32 4\nconst v f32 4 = 1,2,3,4\n"
    "BatchNormalization bn a,s,t,m,v -> b\nSigmoid g b -> d\nMul gate b,d -> e\n"
    "Concat cat e,x -> f | axis=1\nShape sh f -> dims\nReshape r f,dims -> h\n"
    "Sub sub h,v1 -> i\nDiv div i,v1 -> j\nconst v1 f32 = 0.5\nSoftmax sm j -> y | axis=1\n";

static char path[64], part[64];

/* Everything once. */
static int do_all(struct err *err) {
    struct model *model = NULL;
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    static _Alignas(64) float x[4 * 36 + 16], y[8 * 36 + 16];
    struct tensor in = {.data = x}, out = {.data = y};
    struct stage_options options = {.threads = 2};
    int rc = model_open(path, NULL, &model, err);
    if (rc == 0)
        rc = stage_new(model, 0, model_layers_count(model), &options, &stage, err);
    if (rc == 0)
        rc = exec_new(stage, &exec, err);
    failing_pause(true); /* frames allocate nothing, but the GEMM library may, and cannot fail */
    if (rc == 0)
        rc = exec_run(exec, &in, &out, err);
    failing_pause(false);
    if (rc == 0)
        rc = model_write_part(model, 0, model_layers_count(model), part, err);
    exec_free(exec);
    stage_unref(stage);
    model_unref(model);
    ERR_clear_error(); /* OpenSSL keeps what it has to say */
    return rc;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    char folder[] = "/tmp/convoy-alloc-XXXXXX";
    if (!OWN_MALLOC)
        skip();
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/m.onnx", folder);
    snprintf(part, sizeof(part), "%s/p.onnx", folder);
    small_model_write(path, 13, text);
    failing_each_allocation(do_all);
    unlink(path);
    unlink(part);
    rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests_name("model allocations", tests, NULL, NULL);
}
