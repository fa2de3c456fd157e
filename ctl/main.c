/* convoyctl: inspects and runs models, feeds lines of convoyd, measures them. */
#include "ctl/command.h"
#include "ctl/options.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct command *const commands[] = {
    &command_inspect, &command_run,   &command_infer,     &command_bench,  &command_status,
    &command_check,   &command_split, &command_ops,       &command_keygen, &command_profile,
    &command_plan,    &command_apply, &command_calibrate,
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_usage(FILE *out) {
    fputs("usage: convoyctl COMMAND [OPTION...] [OPERAND...]\n\ncommands:\n", out);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\nconvoyctl COMMAND --help says more; convoyctl --version says which version this is.\n",
          out);
}

static const struct command *find_command(const char *name) {
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(name, commands[i]->name) == 0)
            return commands[i];
    return NULL;
}

static int refuse_command(const char *word) {
    const char *names[COMMANDS];
    for (size_t i = 0; i < COMMANDS; i++)
        names[i] = commands[i]->name;
    const char *near = err_nearest(word, names, COMMANDS);
    fprintf(stderr, "convoyctl: unknown command '%s'; ", word);
    if (near)
        fprintf(stderr, "did you mean '%s'?\n", near);
    else
        fputs("see: convoyctl --help\n", stderr);
    return COMMAND_USAGE;
}

static bool asks_for_help(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0)
            return true;
    return false;
}

/* Runs a command and says its error. Returns the exit code. */
static int run_command(const struct command *command, int argc, char **argv) {
    struct err err = {{0}};
    if (asks_for_help(argc, argv)) {
        options_help(command, stdout);
        return 0;
    }
    int rc = command->run(command, argc, argv, &err);
    if (rc == -EPIPE)
        return COMMAND_FAILED;
    if (rc < 0 && !err.text[0])
        err_set(&err, rc, "%s", strerror(-rc));
    if (err.text[0])
        fprintf(stderr, "convoyctl %s: %s\n", command->name, err.text);
    return rc < 0 ? COMMAND_FAILED : rc;
}

/* What is still in stdout's buffer may fail to be written (a full disk): that is a failure. */
static int finish_stdout(int code) {
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    if (errno != EPIPE && errno != 0)
        fprintf(stderr, "convoyctl: cannot write to standard output: %s\n", strerror(errno));
    return code ? code : COMMAND_FAILED;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    setlocale(LC_CTYPE, "");
    if (argc < 2) {
        print_usage(stderr);
        return COMMAND_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        const struct command *about = argc > 2 ? find_command(argv[2]) : NULL;
        if (argc > 2 && !about)
            return refuse_command(argv[2]);
        if (about)
            options_help(about, stdout);
        else
            print_usage(stdout);
        return finish_stdout(0);
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        puts("convoyctl " CONVOY_VERSION);
        return finish_stdout(0);
    }
    const struct command *command = find_command(argv[1]);
    if (!command)
        return refuse_command(argv[1]);
    return finish_stdout(run_command(command, argc - 1, argv + 1));
}
