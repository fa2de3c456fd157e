/* The command line of a subcommand: getopt_long driven by the command's own table, with suggestions
 * for what was mistyped. */
#ifndef CONVOY_CTL_OPTIONS_H
#define CONVOY_CTL_OPTIONS_H

#include "ctl/command.h"

#include <stdint.h>
#include <stdio.h>

#define OPTION_FIRST 256 /* keys from here on have no short option */
#define OPTIONS_MAX  32  /* options of one command */

/* Called for each option in order. value is the option's argument or NULL, borrowed from argv.
 * 0, or COMMAND_USAGE with a sentence, or a negative errno with a sentence: both end the parsing.
 */
typedef int (*options_fn)(void *arg, int key, const char *value, struct err *err);

/* Parses argv[1..] by command's table; options may stand anywhere, `--` ends them. Reorders argv so
 * that operands come last and sets *ret_first to the first of them. 0, COMMAND_USAGE with a
 * sentence that suggests the nearest option, or what fn returned. Main thread only (getopt_long).
 */
int options_parse(const struct command *command, int argc, char **argv, options_fn fn, void *arg,
                  int *ret_first, struct err *err);

/* Prints usage, options and details of command. */
void options_help(const struct command *command, FILE *out);

/* Reads a whole decimal number in [min, max] for the option or place called what. 0, or
 * COMMAND_USAGE with a sentence. */
int options_integer(const char *what, const char *text, int64_t min, int64_t max,
                    int64_t *ret_value, struct err *err);

/* The same for a finite real number. */
int options_real(const char *what, const char *text, double min, double max, double *ret_value,
                 struct err *err);

#endif
