/* The list of operators and the page that is made of it. */
#include "ctl/ops.h"
#include "model/op.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The whole text of a stream, NUL-terminated; to be freed. */
static char *read_all(FILE *file) {
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    for (int c; (c = fgetc(file)) != EOF;)
        fputc(c, memory);
    fclose(memory);
    return text;
}

static void the_page_of_operators_is_that_of_the_table(void **state) {
    (void)state;
    struct err err = {{0}};
    char *wanted = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&wanted, &size);
    assert_int_equal(ops_write_markdown(memory, &err), 0);
    fclose(memory);
    FILE *file = fopen("docs/operators.md", "r");
    assert_non_null(file);
    char *page = read_all(file);
    fclose(file);
    if (strcmp(page, wanted) != 0)
        fail_msg("docs/operators.md is not what the table says; run `make operators`");
    free(page);
    free(wanted);
}

static void opsets_of_one_operator_do_not_overlap(void **state) {
    (void)state;
    size_t count;
    const struct op *table = op_table(&count);
    for (size_t i = 0; i < count; i++) {
        assert_true(table[i].since <= table[i].until);
        assert_true(table[i].in_min <= table[i].in_max);
        for (size_t k = 0; k < i; k++)
            if (strcmp(table[i].name, table[k].name) == 0 && table[i].since <= table[k].until &&
                table[k].since <= table[i].until)
                fail_msg("%s: opset %d is in two lines", table[i].name, table[i].since);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_of_operators_is_that_of_the_table),
        cmocka_unit_test(opsets_of_one_operator_do_not_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
