/* What main.c knows of a subcommand. One file per subcommand defines one of these. */
#ifndef CONVOY_CTL_COMMAND_H
#define CONVOY_CTL_COMMAND_H

#include "base/err.h"

#define COMMAND_FAILED      1   /* exit codes */
#define COMMAND_USAGE       2   /* a wrong command line; the sentence says which word */
#define COMMAND_INTERRUPTED 130 /* as a shell shows SIGINT */

struct command_option {
    int key;          /* a letter is also the short option; from OPTION_FIRST on there is none */
    const char *name; /* long option; NULL ends the table */
    const char *arg;  /* what the help calls its value; NULL: takes none */
    const char *help;
};

struct command {
    const char *name;
    const char *operands; /* for the usage line: "MODEL [PICTURE...]" */
    const char *summary;  /* one line */
    const char *details;  /* paragraphs after the options; NULL: none */
    const struct command_option *options;

    /* argv[0] is the command's name. 0, or the exit code with an optional sentence in err, or a
     * negative errno with a sentence (exit code 1; -EPIPE is silent: the reader of our output has
     * gone). Called once, on the main thread; prints its results on stdout. */
    int (*run)(const struct command *command, int argc, char **argv, struct err *err);
};

extern const struct command command_inspect;
extern const struct command command_run;
extern const struct command command_infer;
extern const struct command command_bench;
extern const struct command command_status;
extern const struct command command_check;
extern const struct command command_split;
extern const struct command command_ops;
extern const struct command command_keygen;
extern const struct command command_profile;
extern const struct command command_plan;
extern const struct command command_apply;
extern const struct command command_calibrate;

#endif
