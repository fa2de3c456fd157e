#include "ctl/options.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { OPTION_LONG = OPTION_FIRST };

static const struct command_option rows[] = {
    {'j', "json", NULL, "print JSON"},
    {'t', "top", "N", "how many"},
    {OPTION_LONG, "no-time", NULL, "leave out times"},
    {0},
};
static const struct command command = {
    .name = "play", .operands = "FILE", .summary = "Plays", .options = rows};

struct seen {
    int keys[8];
    const char *values[8];
    size_t count;
};

static int note(void *arg, int key, const char *value, struct err *err) {
    struct seen *seen = arg;
    (void)err;
    seen->keys[seen->count] = key;
    seen->values[seen->count++] = value;
    return 0;
}

/* Parses the words of line behind the command's name. */
static int parse(const char *line, struct seen *seen, char **ret_operands, struct err *err) {
    static char copy[256];
    char *argv[16] = {(char *)"play"};
    int argc = 1, first = 0;
    snprintf(copy, sizeof(copy), "%s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    int rc = options_parse(&command, argc, argv, note, seen, &first, err);
    for (int i = 0; rc == 0 && i < 4; i++)
        ret_operands[i] = first + i < argc ? argv[first + i] : NULL;
    return rc;
}

static void options_may_stand_anywhere(void **state) {
    struct seen seen = {0};
    char *operands[4];
    (void)state;
    assert_int_equal(parse("a --json b -t 3 --top=5 --no-time c", &seen, operands, NULL), 0);
    assert_int_equal(seen.count, 4);
    assert_int_equal(seen.keys[0], 'j');
    assert_null(seen.values[0]);
    assert_int_equal(seen.keys[1], 't');
    assert_string_equal(seen.values[1], "3");
    assert_string_equal(seen.values[2], "5");
    assert_int_equal(seen.keys[3], OPTION_LONG);
    assert_string_equal(operands[0], "a");
    assert_string_equal(operands[2], "c");
    assert_null(operands[3]);
}

static void two_dashes_end_the_options(void **state) {
    struct seen seen = {0};
    char *operands[4];
    (void)state;
    assert_int_equal(parse("-j -- --json -", &seen, operands, NULL), 0);
    assert_int_equal(seen.count, 1);
    assert_string_equal(operands[0], "--json");
    assert_string_equal(operands[1], "-");
}

static void mistyped_options_get_a_suggestion(void **state) {
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"--jsn", "unknown option --jsn; did you mean --json?"},
        {"--no-tine", "did you mean --no-time?"},
        {"--tpo=3", "did you mean --top?"},
        {"--something", "unknown option --something; see: convoyctl play --help"},
        {"-x", "unknown option -x"},
        {"--top", "--top needs a value"},
        {"-t", "-t needs a value"},
        {"--json=3", "--json takes no value"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct seen seen = {0};
        struct err err = {{0}};
        char *operands[4];
        assert_int_equal(parse(cases[i].line, &seen, operands, &err), COMMAND_USAGE);
        if (!strstr(err.text, cases[i].says))
            fail_msg("%s: says '%s'", cases[i].line, err.text);
    }
}

static void numbers_are_checked_against_their_range(void **state) {
    int64_t value = 0;
    double real = 0;
    struct err err = {{0}};
    (void)state;
    assert_int_equal(options_integer("--top", "7", 1, 10, &value, NULL), 0);
    assert_int_equal(value, 7);
    static const char *const bad[] = {"", "x", "7x", "0", "11", "99999999999999999999", "1.5"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(options_integer("--top", bad[i], 1, 10, &value, &err), COMMAND_USAGE);
    assert_string_equal(err.text, "--top: '1.5' is not a whole number from 1 to 10");
    assert_int_equal(value, 7);
    assert_int_equal(options_real("--seconds", "1.5", 0, 10, &real, NULL), 0);
    assert_true(real == 1.5);
    assert_int_equal(options_real("--seconds", "nan", 0, 10, &real, NULL), COMMAND_USAGE);
    assert_int_equal(options_real("--seconds", "1s", 0, 10, &real, NULL), COMMAND_USAGE);
}

static void help_names_every_option(void **state) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    (void)state;
    options_help(&command, out);
    fclose(out);
    assert_non_null(strstr(text, "usage: convoyctl play FILE"));
    assert_non_null(strstr(text, "-t, --top N"));
    assert_non_null(strstr(text, "    --no-time"));
    free(text);
}

static const struct command *const every_command[] = {
    &command_inspect, &command_run,   &command_infer, &command_bench,
    &command_status,  &command_check, &command_split,
};

static void every_command_has_a_sound_table(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(every_command) / sizeof(every_command[0]); i++) {
        const struct command *c = every_command[i];
        size_t count = 0;
        for (const struct command_option *o = c->options; o->name; o++, count++) {
            assert_non_null(o->help);
            for (const struct command_option *p = c->options; p != o; p++) {
                assert_int_not_equal(p->key, o->key);
                assert_string_not_equal(p->name, o->name);
            }
        }
        assert_in_range(count, 1, OPTIONS_MAX);
    }
}

static void every_command_refuses_an_empty_command_line(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(every_command) / sizeof(every_command[0]); i++) {
        const struct command *c = every_command[i];
        char *argv[] = {(char *)(uintptr_t)c->name, NULL};
        struct err err = {{0}};
        assert_int_equal(c->run(c, 1, argv, &err), COMMAND_USAGE);
        assert_non_null(strstr(err.text, "needed"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_may_stand_anywhere),
        cmocka_unit_test(two_dashes_end_the_options),
        cmocka_unit_test(mistyped_options_get_a_suggestion),
        cmocka_unit_test(numbers_are_checked_against_their_range),
        cmocka_unit_test(help_names_every_option),
        cmocka_unit_test(every_command_has_a_sound_table),
        cmocka_unit_test(every_command_refuses_an_empty_command_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
