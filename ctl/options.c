#include "ctl/options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t count_options(const struct command *command) {
    size_t count = 0;
    while (command->options[count].name)
        count++;
    return count;
}

/* getopt's two forms of the table. room for OPTIONS_MAX and a terminator in long_options. */
static void make_tables(const struct command *command, struct option *long_options,
                        char *short_options) {
    size_t count = count_options(command);
    *short_options++ = ':'; /* a missing value is told apart from an unknown option */
    for (size_t i = 0; i < count && i < OPTIONS_MAX; i++) {
        const struct command_option *o = &command->options[i];
        long_options[i] = (struct option){
            .name = o->name, .has_arg = o->arg ? required_argument : no_argument, .val = o->key};
        if (o->key >= OPTION_FIRST)
            continue;
        *short_options++ = (char)o->key;
        if (o->arg)
            *short_options++ = ':';
    }
    *short_options = '\0';
}

static int unknown_option(const struct command *command, const char *word, struct err *err) {
    const char *names[OPTIONS_MAX];
    size_t count = count_options(command);
    char given[64];
    for (size_t i = 0; i < count && i < OPTIONS_MAX; i++)
        names[i] = command->options[i].name;

    const char *start = word + strspn(word, "-");
    snprintf(given, sizeof(given), "%.*s", (int)strcspn(start, "="), start);
    const char *near = strncmp(word, "--", 2) == 0 ? err_nearest(given, names, count) : NULL;
    if (near)
        return err_set(err, COMMAND_USAGE, "unknown option %s; did you mean --%s?", word, near);
    return err_set(err, COMMAND_USAGE, "unknown option %s; see: convoyctl %s --help", word,
                   command->name);
}

/* What getopt_long answered with '?' : an unknown option, a short prefix of several, or a value
 * given to an option that takes none. */
static int refuse_option(const struct command *command, char **argv, struct err *err) {
    const char *word = argv[optind - 1];
    for (size_t i = 0; i < count_options(command); i++)
        if (optopt && command->options[i].key == optopt && !command->options[i].arg)
            return err_set(err, COMMAND_USAGE, "--%s takes no value", command->options[i].name);
    if (optopt && optopt < OPTION_FIRST) {
        char letter[3] = {'-', (char)optopt, '\0'};
        return unknown_option(command, letter, err);
    }
    return unknown_option(command, word, err);
}

int options_parse(const struct command *command, int argc, char **argv, options_fn fn, void *arg,
                  int *ret_first, struct err *err) {
    struct option long_options[OPTIONS_MAX + 1] = {0};
    char short_options[2 * OPTIONS_MAX + 2];
    make_tables(command, long_options, short_options);

    optind = 0; /* glibc: start anew */
    opterr = 0;
    for (;;) {
        int key = getopt_long(argc, argv, short_options, long_options, NULL);
        if (key < 0)
            break;
        if (key == ':')
            return err_set(err, COMMAND_USAGE, "%s needs a value; see: convoyctl %s --help",
                           argv[optind - 1], command->name);
        if (key == '?')
            return refuse_option(command, argv, err);
        int rc = fn(arg, key, optarg, err);
        if (rc != 0)
            return rc;
    }
    *ret_first = optind;
    return 0;
}

void options_help(const struct command *command, FILE *out) {
    fprintf(out, "usage: convoyctl %s %s\n\n%s.\n", command->name, command->operands,
            command->summary);
    if (command->options[0].name)
        fputs("\noptions:\n", out);
    for (const struct command_option *o = command->options; o->name; o++) {
        char left[64], letter[8] = "    ";
        if (o->key < OPTION_FIRST)
            snprintf(letter, sizeof(letter), "-%c, ", o->key);
        snprintf(left, sizeof(left), "%s--%s%s%s", letter, o->name, o->arg ? " " : "",
                 o->arg ? o->arg : "");
        fprintf(out, "  %-28s %s\n", left, o->help);
    }
    fprintf(out, "  %-28s %s\n", "    --help", "show this");
    if (command->details)
        fprintf(out, "\n%s\n", command->details);
}

int options_integer(const char *what, const char *text, int64_t min, int64_t max,
                    int64_t *ret_value, struct err *err) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || value < min || value > max)
        return err_set(err, COMMAND_USAGE, "%s: '%s' is not a whole number from %lld to %lld", what,
                       text, (long long)min, (long long)max);
    *ret_value = value;
    return 0;
}

int options_real(const char *what, const char *text, double min, double max, double *ret_value,
                 struct err *err) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || value < min || value > max)
        return err_set(err, COMMAND_USAGE, "%s: '%s' is not a number from %g to %g", what, text,
                       min, max);
    *ret_value = value;
    return 0;
}
