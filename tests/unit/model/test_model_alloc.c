/* Every allocation of opening, preparing and writing a model fails once: each must come
 * back as a clean error that leaks nothing. This program brings its own malloc(), so it says
 * nothing in builds whose sanitizer brings one too. */
#include "model/model.h"
#include "tests/lib/small_model.h"

#include <errno.h>
#include <openssl/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 0
#else
#define OWN_MALLOC 1
#endif

static _Thread_local bool armed; /* count, and let one fail */
static long counter;             /* allocations until the one that fails */
static long live;                /* blocks that were allocated while armed, or freed */

#if OWN_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t nmemb, size_t size);
void *__libc_realloc(void *ptr, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *ptr);

static bool must_fail(void) {
    return armed && counter-- == 0;
}

void *malloc(size_t size) {
    void *block = must_fail() ? NULL : __libc_malloc(size);
    live += armed && block;
    return block;
}

void *calloc(size_t nmemb, size_t size) {
    void *block = must_fail() ? NULL : __libc_calloc(nmemb, size);
    live += armed && block;
    return block;
}

void *realloc(void *ptr, size_t size) {
    void *block = must_fail() ? NULL : __libc_realloc(ptr, size);
    live += armed && block && !ptr;
    return block;
}

int posix_memalign(void **memptr, size_t alignment, size_t size) {
    void *block = must_fail() ? NULL : __libc_memalign(alignment, size);
    live += armed && block;
    if (block)
        *memptr = block;
    return block ? 0 : ENOMEM;
}

void free(void *ptr) {
    live -= armed && ptr;
    __libc_free(ptr);
}
#endif

static const char text[] =
    "input x f32 n,4,6,6\noutput y f16 1,8,6,6\nconst k i64 4 = 4,4,3,3\nConstantOfShape fill k -> "
    "w0\n"
    "const one f32 4,1,1\nAdd grow w0,one -> w\nConv c x,w -> a | pads=[1,1,1,1]\n"
    "const s f32 4\nconst t f16 4\nconst m f32 4\nconst v f32 4 = 1,2,3,4\n"
    "BatchNormalization bn a,s,t,m,v -> b\nSigmoid g b -> d\nMul gate b,d -> e\n"
    "Concat cat e,x -> f | axis=1\nShape sh f -> dims\nReshape r f,dims -> h\n"
    "Sub sub h,v1 -> i\nDiv div i,v1 -> j\nconst v1 f32 = 0.5\nSoftmax sm j -> y | axis=1\n";

/* Everything once. */
static int do_all(const char *path, const char *part) {
    struct model *model = NULL;
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    static _Alignas(64) float x[4 * 36 + 16], y[8 * 36 + 16];
    struct tensor in = {.data = x}, out = {.data = y};
    struct err err = {0};
    struct stage_options options = {.threads = 2};
    int rc = model_open(path, NULL, &model, &err);
    if (rc == 0)
        rc = stage_new(model, 0, model_layers_count(model), &options, &stage, &err);
    if (rc == 0)
        rc = exec_new(stage, &exec, &err);
    bool was_armed = armed;
    armed = false; /* frames allocate nothing, but the GEMM library may, and cannot fail */
    if (rc == 0)
        rc = exec_run(exec, &in, &out, &err);
    armed = was_armed;
    if (rc == 0)
        rc = model_write_part(model, 0, model_layers_count(model), part, &err);
    exec_free(exec);
    stage_unref(stage);
    model_unref(model);
    assert_true(rc == 0 || err.text[0] != '\0');
    return rc;
}

/* Does everything while allocation n fails. counter stays above -1 when there are not as many. */
static int fail_at(long n, const char *path, const char *part) {
    counter = n;
    live = 0;
    armed = true;
    int rc = do_all(path, part);
    ERR_clear_error(); /* OpenSSL keeps what it has to say */
    armed = false;
    return rc;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    char folder[] = "/tmp/convoy-alloc-XXXXXX", path[64], part[64];
    if (!OWN_MALLOC)
        skip();
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/m.onnx", folder);
    snprintf(part, sizeof(part), "%s/p.onnx", folder);
    small_model_write(path, 13, text);
    assert_int_equal(do_all(path, part), 0); /* what libraries keep is allocated by now */
    long failures = 0;
    int rc = fail_at(0, path, part);
    for (long n = 1; counter < 0 && n < 20000; n++) {
        failures++;
        rc = fail_at(n, path, part);
        if (live != 0) /* a library may keep what it needs to tell of its failure, once */
            rc = fail_at(n, path, part);
        if (live != 0)
            fail_msg("allocation %ld fails with %d: %ld blocks leak", n, rc, live);
    }
    assert_int_equal(rc, 0);
    assert_true(failures > 50);
    print_message("%ld allocations\n", failures);
    unlink(path);
    unlink(part);
    rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests_name("model allocations", tests, NULL, NULL);
}
