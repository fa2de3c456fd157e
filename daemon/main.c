/* convoyd: options, signals, the service manager. */
#include "daemon/device.h"
#include "daemon/log.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define CONFIG_DEFAULT "/etc/convoy/convoy.yaml"
#define FDS_MAX        8

struct program {
    uv_loop_t loop;
    uv_signal_t hangup, terminate, interrupt;
    uv_timer_t watchdog;
    struct device *device;
    bool stopping;
};

static const char usage[] =
    "usage: convoyd [--config FILE] [--node NAME] [--listen HOST:PORT]\n"
    "\n"
    "Runs this device's stage of the network.\n"
    "\n"
    "  -c, --config FILE       configuration (" CONFIG_DEFAULT ")\n"
    "  -n, --node NAME         which device of the pipeline this is, instead of `node:` there\n"
    "  -l, --listen HOST:PORT  where to listen, instead of `listen:` there\n"
    "  -V, --version           print the version\n"
    "  -h, --help              print this\n"
    "\n"
    "SIGHUP reads the configuration again. SIGTERM and SIGINT finish the frames that are here and "
    "exit;\n"
    "a second one exits at once. See convoyd(8).\n";

/* ---- what the device tells ------------------------------------------------------------------- */

static void on_status(void *arg, const char *text) {
    (void)arg;
    sd_notifyf(0, "STATUS=%s", text);
}

static void on_reloaded(void *arg) {
    (void)arg;
    sd_notify(0, "READY=1");
}

static void close_handle(uv_handle_t *handle) {
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void on_stopped(void *arg) {
    struct program *program = arg;
    close_handle((uv_handle_t *)&program->hangup);
    close_handle((uv_handle_t *)&program->terminate);
    close_handle((uv_handle_t *)&program->interrupt);
    close_handle((uv_handle_t *)&program->watchdog);
}

static const struct device_events device_events = {on_status, on_reloaded, on_stopped};

/* ---- signals and the watchdog ---------------------------------------------------------------- */

static void on_hangup(uv_signal_t *signal, int number) {
    struct program *program = signal->data;
    (void)number;
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, device_now_us());
    log_info("SIGHUP: reading the configuration again");
    device_reload(program->device);
}

static void on_terminate(uv_signal_t *signal, int number) {
    struct program *program = signal->data;
    if (program->stopping) {
        log_warning("%s again: exiting at once", strsignal(number));
        _exit(EXIT_FAILURE);
    }
    program->stopping = true;
    sd_notify(0, "STOPPING=1");
    device_drain(program->device);
}

static void on_watchdog(uv_timer_t *timer) {
    (void)timer;
    sd_notify(0, "WATCHDOG=1");
}

static void start_signals(struct program *program) {
    const struct {
        uv_signal_t *handle;
        uv_signal_cb callback;
        int number;
    } signals[] = {
        {&program->hangup, on_hangup, SIGHUP},
        {&program->terminate, on_terminate, SIGTERM},
        {&program->interrupt, on_terminate, SIGINT},
    };
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        uv_signal_init(&program->loop, signals[i].handle);
        signals[i].handle->data = program;
        uv_signal_start(signals[i].handle, signals[i].callback, signals[i].number);
    }
}

static void start_watchdog(struct program *program) {
    uint64_t us = 0;
    uv_timer_init(&program->loop, &program->watchdog);
    if (sd_watchdog_enabled(0, &us) > 0)
        uv_timer_start(&program->watchdog, on_watchdog, us / 2000, us / 2000);
}

/* ---- the program ----------------------------------------------------------------------------- */

/* Fills options from the command line. Returns -1 to go on, or the exit code. */
static int parse_options(int argc, char **argv, struct device_options *options) {
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'}, {"node", required_argument, NULL, 'n'},
        {"listen", required_argument, NULL, 'l'}, {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    int option;
    options->config_path = CONFIG_DEFAULT;
    while ((option = getopt_long(argc, argv, "c:n:l:Vh", longs, NULL)) != -1) {
        switch (option) {
        case 'c':
            options->config_path = optarg;
            break;
        case 'n':
            options->node = optarg;
            break;
        case 'l':
            options->listen = optarg;
            break;
        case 'V':
            puts("convoyd " CONVOY_VERSION);
            return EX_OK;
        case 'h':
            fputs(usage, stdout);
            return EX_OK;
        default:
            fputs("Try convoyd --help.\n", stderr);
            return EX_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "convoyd: \"%s\" is not an option; try convoyd --help\n", argv[optind]);
        return EX_USAGE;
    }
    return -1;
}

static int run(const struct device_options *options) {
    struct program program = {.device = NULL};
    struct err err = {""};
    int rc = uv_loop_init(&program.loop);
    if (rc < 0) {
        log_error("convoyd: %s", uv_strerror(rc));
        return EX_OSERR;
    }
    start_signals(&program);
    start_watchdog(&program);
    rc = device_start(&program.loop, options, &device_events, &program, &program.device, &err);
    if (rc < 0) {
        log_error("convoyd: %s", err.text);
        if (!program.device)
            on_stopped(&program);
    } else {
        sd_notify(0, "READY=1");
    }
    uv_run(&program.loop, UV_RUN_DEFAULT);
    device_free(program.device);
    uv_loop_close(&program.loop);
    if (rc == 0)
        log_info("stopped");
    return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv) {
    struct device_options options = {0};
    int fds[FDS_MAX];
    int code = parse_options(argc, argv, &options);
    if (code >= 0)
        return code;
    log_start();
    signal(SIGPIPE, SIG_IGN);
    int count = sd_listen_fds(1);
    for (int i = 0; i < count && i < FDS_MAX; i++)
        fds[i] = SD_LISTEN_FDS_START + i;
    options.listen_fds = fds;
    options.listen_fds_count = count > 0 ? (size_t)(count < FDS_MAX ? count : FDS_MAX) : 0;
    return run(&options);
}
