#include "ctl/command.h"
#include "ctl/options.h"
#include "tls/key.h"

#include <errno.h>
#include <pwd.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

struct keygen_options {
    const char *owner;
    bool add, promote, drop;
};

enum { OPTION_ADD = OPTION_FIRST, OPTION_PROMOTE, OPTION_DROP };

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct keygen_options *options = arg;
    bool *steps[] = {&options->add, &options->promote, &options->drop};
    (void)err;
    if (key == 'o')
        options->owner = value;
    else
        *steps[key - OPTION_ADD] = true;
    return 0;
}

static int find_owner(const char *name, int *ret_uid, struct err *err) {
    if (!name)
        return 0;
    errno = 0;
    const struct passwd *entry = getpwnam(name);
    if (!entry)
        return err_set(err, errno ? -errno : -ENOENT,
                       "--owner: there is no user '%s' on this machine", name);
    *ret_uid = (int)entry->pw_uid;
    return 0;
}

/* The steps of a roll-over, each to be done on every device before the next. keys is as the file
 * has them, and then as it shall be. */
static int change(const struct keygen_options *options, struct tls_keys *keys, struct err *err) {
    struct tls_key other;
    if (options->add && keys->count == TLS_KEYS_MAX)
        return err_set(err, -EINVAL,
                       "there are %d keys already; finish the roll-over first (--promote, --drop)",
                       TLS_KEYS_MAX);
    if (options->add) {
        keys->count++;
        return tls_key_generate(&keys->keys[keys->count - 1], err);
    }
    if (keys->count < 2)
        return err_set(err, -EINVAL, "there is one key only; --add comes first");
    if (options->promote) {
        other = keys->keys[0];
        keys->keys[0] = keys->keys[1];
        keys->keys[1] = other;
    }
    if (options->drop)
        keys->count = 1;
    return 0;
}

static void print_keys(const struct tls_keys *keys) {
    printf("key %s%s\n", keys->keys[0].id, keys->count > 1 ? ", offered and accepted" : "");
    for (size_t i = 1; i < keys->count; i++)
        printf("key %s, accepted\n", keys->keys[i].id);
}

static int make(const struct keygen_options *options, const char *path, struct err *err) {
    struct tls_keys keys = {.count = 0};
    bool exists = options->add || options->promote || options->drop;
    int owner = -1;
    int rc = find_owner(options->owner, &owner, err);
    if (rc == 0 && exists) {
        struct stat st;
        if (owner < 0 && stat(path, &st) == 0)
            owner = (int)st.st_uid; /* the file is replaced, its owner is not */
        rc = tls_keys_load(path, &keys, err);
        if (rc == 0 && (rc = change(options, &keys, err)) < 0)
            err_prefix(err, rc, "%s", path);
    } else if (rc == 0) {
        keys.count = 1;
        rc = tls_key_generate(&keys.keys[0], err);
    }
    if (rc == 0)
        rc = tls_keys_save(path, &keys, owner, exists, err);
    if (rc == 0)
        print_keys(&keys);
    tls_keys_wipe(&keys);
    return rc;
}

static int run_keygen(const struct command *command, int argc, char **argv, struct err *err) {
    struct keygen_options options = {0};
    int first;
    int rc = options_parse(command, argc, argv, on_option, &options, &first, err);
    if (rc != 0)
        return rc;
    if (argc - first != 1)
        return err_set(err, COMMAND_USAGE, "one FILE is needed; see: convoyctl keygen --help");
    if (options.add + options.promote + options.drop > 1)
        return err_set(err, COMMAND_USAGE,
                       "--add, --promote and --drop are steps, each for every device before the "
                       "next: one at a time");
    return make(&options, argv[first], err);
}

static const struct command_option option_rows[] = {
    {'o', "owner", "USER", "give the file to USER (the service runs as convoy)"},
    {OPTION_ADD, "add", NULL, "roll-over, step 1: add a second key, accepted but not offered yet"},
    {OPTION_PROMOTE, "promote", NULL, "roll-over, step 2: offer the second key, accept the first"},
    {OPTION_DROP, "drop", NULL, "roll-over, step 3: remove the key that is not offered"},
    {0},
};

const struct command command_keygen = {
    .name = "keygen",
    .operands = "[OPTION...] FILE",
    .summary = "Makes the key that lets devices and clients into a cluster",
    .details =
        "Copy FILE to every device, by a safe way, and name it there with `key:`; clients name it "
        "with\n"
        "--key. Whoever has it may join the cluster. A new file is never written over an old one.\n"
        "What is printed is the key's id, as logs show it: it is not secret.",
    .options = option_rows,
    .run = run_keygen,
};
