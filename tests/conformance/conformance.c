/* ONNX's own backend test data (Debian's libonnx-testdata), run by our importer and executor.
 *
 * Usage: conformance [-v] [CASE...]      -v names every case that did not pass; a CASE is a part of
 * a case's name. CONVOY_ONNX_DATA is the folder with node, simple, ...
 *
 * Prints a table per operator and, as its last line, how many cases passed, failed and were
 * skipped. A case that uses only operators of `required` must pass: to refuse it is to fail. A case
 * with an operator outside that list may be refused: it is skipped, and counted under that
 * operator; so is a case that trains, or whose values are not numbers that a network has.
 */
#include "tests/lib/onnx_case.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROWS_MAX 256

/* The operators that a convolutional network may have, in ONNX's own domain. */
static const char required[] =
    " Conv ConvTranspose ConvInteger QLinearConv QLinearMatMul MatMulInteger QuantizeLinear "
    "DequantizeLinear DynamicQuantizeLinear Gemm MatMul MaxPool AveragePool LpPool GlobalMaxPool "
    "GlobalAveragePool GlobalLpPool MaxUnpool BatchNormalization InstanceNormalization LRN "
    "LpNormalization MeanVarianceNormalization Relu LeakyRelu PRelu ThresholdedRelu Elu Selu Celu "
    "Clip Sigmoid HardSigmoid HardSwish Tanh Softplus Softsign Erf Gelu Mish Abs Neg Exp Log Sqrt "
    "Reciprocal Floor Ceil Round Sign Add Sub Mul Div Pow Mod Min Max Mean Sum And Or Not Xor "
    "Equal Greater GreaterOrEqual Less LessOrEqual Where Softmax LogSoftmax Hardmax ReduceMean "
    "ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
    "ReduceSumSquare ArgMax ArgMin TopK NonMaxSuppression Concat Split Slice Pad Reshape Flatten "
    "Squeeze Unsqueeze Transpose Expand Tile Gather GatherElements GatherND ScatterElements "
    "ScatterND Resize Upsample DepthToSpace SpaceToDepth Identity Dropout Constant "
    "ConstantOfShape Shape Size Cast Range NonZero CumSum OneHot RoiAlign GridSample EyeLike ";

/* Cases of those operators that train, or whose values are not numbers that a network has. */
static const struct {
    const char *part; /* of the case's name */
    const char *row;
} outside[] = {
    {"test_training_dropout", "(training)"},
    {"_training_mode", "(training)"},
    {"STRING", "(strings)"},
    {"BFLOAT16", "(bfloat16)"},
    {"test_identity_opt", "(optionals)"},
    {"test_identity_sequence", "(sequences)"},
};

struct row {
    char op[64];
    size_t passed, failed, unsupported, skipped;
};

struct table {
    struct row rows[ROWS_MAX];
    size_t count;
    struct row total;
};

static struct row *row_of(struct table *table, const char *op) {
    for (size_t i = 0; i < table->count; i++)
        if (strcmp(table->rows[i].op, op) == 0)
            return &table->rows[i];
    if (table->count == ROWS_MAX)
        return &table->rows[ROWS_MAX - 1];
    struct row *row = &table->rows[table->count++];
    snprintf(row->op, sizeof(row->op), "%s", op);
    return row;
}

static bool is_required(const char *op) {
    char word[80];
    snprintf(word, sizeof(word), " %s ", op);
    return strstr(required, word) != NULL;
}

/* Whether the case's name begins with the operator's, however either is written. */
static bool is_named_after(const char *name, const char *op) {
    if (strncmp(name, "test_", 5) == 0)
        name += 5;
    for (; *op; name++) {
        if (*name == '_')
            continue;
        if (tolower((unsigned char)*name) != tolower((unsigned char)*op))
            return false;
        op++;
    }
    return true;
}

/* The operator under which a case counts: one outside the list; else the one that it is named
 * after, and where there is none the last. */
static const char *subject_of(const struct onnx_case *c, const char *name, bool *ret_required) {
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
        if (strstr(name, outside[i].part)) {
            *ret_required = false;
            return outside[i].row;
        }
    const char *subject = c->ops_count > 0 ? c->ops[c->ops_count - 1] : "(none)";
    size_t longest = 0;
    *ret_required = true;
    for (size_t i = 0; i < c->ops_count; i++) {
        if (!is_required(c->ops[i])) {
            *ret_required = false;
            return c->ops[i];
        }
        if (strlen(c->ops[i]) > longest && is_named_after(name, c->ops[i])) {
            subject = c->ops[i];
            longest = strlen(subject);
        }
    }
    return subject;
}

static void count_case(struct table *table, const char *folder, const char *name,
                       const char *scratch, bool verbose) {
    struct onnx_case c;
    bool required_op = true;
    enum onnx_outcome outcome =
        onnx_case_open(&c, folder) ? onnx_case_run(&c, scratch) : ONNX_REFUSED;
    struct row *row = row_of(table, subject_of(&c, name, &required_op));
    const char *word = "passed";
    if (outcome == ONNX_PASSED) {
        row->passed++;
        table->total.passed++;
    } else if (outcome == ONNX_REFUSED && !required_op) {
        word = "skipped";
        row->skipped++;
        table->total.skipped++;
    } else {
        word = outcome == ONNX_WRONG ? "failed" : "unsupported";
        if (outcome == ONNX_WRONG)
            row->failed++;
        else
            row->unsupported++;
        table->total.failed++;
    }
    if (outcome != ONNX_PASSED && (verbose || outcome == ONNX_WRONG))
        printf("%s %s: %s\n", word, name, c.err.text);
}

static bool is_wanted(const char *name, char **parts, int count) {
    for (int i = 0; i < count; i++)
        if (strstr(name, parts[i]))
            return true;
    return count == 0;
}

/* One of the suite's folders. False when it is not there. */
static bool run_suite(struct table *table, const char *root, const char *scratch, bool verbose,
                      char **parts, int parts_count) {
    struct dirent **names = NULL;
    int count = scandir(root, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        char folder[2048];
        snprintf(folder, sizeof(folder), "%s/%s", root, name);
        if (name[0] != '.' && is_wanted(name, parts, parts_count))
            count_case(table, folder, name, scratch, verbose);
        free(names[i]);
    }
    free(names);
    return count >= 0;
}

static int compare_rows(const void *a, const void *b) {
    return strcasecmp(((const struct row *)a)->op, ((const struct row *)b)->op);
}

static void print_table(struct table *table) {
    qsort(table->rows, table->count, sizeof(table->rows[0]), compare_rows);
    printf("%-28s %7s %7s %12s %8s\n", "operator", "passed", "failed", "unsupported", "skipped");
    for (size_t i = 0; i < table->count; i++) {
        const struct row *row = &table->rows[i];
        printf("%-28s %7zu %7zu %12zu %8zu\n", row->op, row->passed, row->failed, row->unsupported,
               row->skipped);
    }
}

int main(int argc, char **argv) {
    static const char *const suites[] = {"node", "simple", "pytorch-converted", "pytorch-operator"};
    static struct table table;
    const char *data = getenv("CONVOY_ONNX_DATA");
    char scratch[] = "/tmp/convoy-conformance-XXXXXX";
    bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
    int first = verbose ? 2 : 1, fd = mkstemp(scratch);
    if (fd < 0) {
        perror("conformance: cannot make a file below /tmp");
        return 2;
    }
    close(fd);
    if (!data)
        data = "/usr/share/libonnx-testdata/data";
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++) {
        char root[1024];
        snprintf(root, sizeof(root), "%s/%s", data, suites[i]);
        if (!run_suite(&table, root, scratch, verbose, argv + first, argc - first)) {
            fprintf(stderr, "conformance: there is no %s; is libonnx-testdata installed?\n", root);
            return 2;
        }
    }
    unlink(scratch);
    print_table(&table);
    printf("%zu passed, %zu failed, %zu skipped\n", table.total.passed, table.total.failed,
           table.total.skipped);
    return table.total.failed > 0 || table.total.passed == 0;
}
