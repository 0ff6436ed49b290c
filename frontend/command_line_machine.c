/* The values of -machine, -accel and -rtc, and the guest that is booted without arguments. Runs before any thread
 * exists. */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/options.h"
#include "cpu/cpu.h"
#include "frontend/command_line.h"
#include "jit/jit.h"

/* ---- Engines ---- */

/* What -accel takes. QEMU's names are accepted where they mean something here. */
static const struct accel {
    const char *name;
    const struct engine *engine; /* NULL: not available */
    const char *reason;          /* why not, or a note for the user */
    const char *help;            /* NULL: not listed */
} accels[] = {
    { "jit", &jit_engine, NULL, "translator (default)" },
    { "interp", &interp_engine, NULL, "precise interpreter" },
    { "lockstep", &lockstep_engine, NULL, "both, compared every few blocks: slow" },
    { "lockstep-blocks", &lockstep_blocks_engine, NULL, "the same after every block, which is not chained" },
    { "tcg", &jit_engine, "taken as Eidolon's own translator (jit)", NULL },
    { "kvm", NULL, "not there yet", NULL },
    { "hvf", NULL, "not on Linux", NULL },
    { "whpx", NULL, "not on Linux", NULL },
    { "xen", NULL, "not supported", NULL },
};

void print_accel_help(void)
{
    puts("Accelerators supported by this program:");
    for (size_t i = 0; i < ARRAY_SIZE(accels); i++) {
        if (accels[i].help)
            printf("%-10s %s\n", accels[i].name, accels[i].help);
    }
}

static const struct accel *find_accel(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(accels); i++) {
        if (!strcmp(accels[i].name, name))
            return &accels[i];
    }
    return NULL;
}

/* One -accel value: 0 and *engine, or an error. Properties are TCG's tuning knobs (threads, cache
 * size), which scripts pass along with tcg; they have no meaning here. */
static int parse_accel(struct settings *settings, const char *text, const struct engine **engine, struct error *err)
{
    struct option_list list;
    const struct accel *accel;
    const char *name;
    int ret = options_parse(&list, text, "accel", err);

    if (ret)
        return error_prefix(err, ret, "-accel %s", text);
    name = options_get(&list, "accel");
    accel = name ? find_accel(name) : NULL;
    if (!accel) {
        ret = error_set(err, EINVAL, "-accel %s: unknown engine; -accel help lists them", text);
    } else if (!accel->engine) {
        ret = error_set(err, ENOTSUP, "-accel %s: not available: %s", text, accel->reason);
    } else if (!strcmp(accel->name, "tcg")) {
        settings_note(settings, "-accel %s: %s", text, accel->reason);
    } else {
        char option[64];

        snprintf(option, sizeof(option), "-accel %s", accel->name);
        ret = options_check_all_used(&list, option, err);
    }
    if (!ret)
        *engine = accel->engine;
    options_free(&list);
    return ret;
}

int settings_choose_engine(struct settings *settings, const struct engine **engine, struct error *err)
{
    struct error first = { "" };

    *engine = &jit_engine;
    for (size_t i = 0; i < settings->accels.count; i++) {
        int ret = parse_accel(settings, settings->accels.items[i], engine, err);

        if (!ret) {
            if (i)
                settings_note(settings, "%s; falling back to %s", first.text, (*engine)->name);
            return 0;
        }
        if (ret != -ENOTSUP)
            return ret;
        if (!first.text[0])
            first = *err;
    }
    if (!settings->accels.count)
        return 0;
    *err = first;
    return -ENOTSUP;
}

/* ---- Machine ---- */

void print_machine_help(void)
{
    puts("Supported machines are:\n"
         "none                 empty machine\n"
         "q35                  Standard PC (Q35 + ICH9) (default)");
}

/* Boolean properties that clients set, and the one value that is true here. */
static const struct {
    const char *name;
    bool value;
} machine_flags[] = {
    { "vmport", false },
    { "smm", false },
    { "graphics", false },
    { "usb", false },
    { "hpet", true },
    { "mem-merge", false },
    { "dump-guest-core", false },
    { "nvdimm", false },
    { "hmat", false },
    { "acpi", true },
    { "pcie", true },
    { "sata", false },
    { "i8042", true },
    { "pit", true },
    { "pic", true },
};

static int check_machine_flags(struct option_list *list, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(machine_flags); i++) {
        const char *name = machine_flags[i].name;
        bool value;
        int ret = options_get_bool(list, name, machine_flags[i].value, &value, err);

        if (ret)
            return ret;
        /* vmport=auto and smm=auto are QEMU's defaults, which options_get_bool refuses: fine, nobody passes them. */
        if (value != machine_flags[i].value)
            return error_set(err, EINVAL, "%s=%s is not there yet", name, value ? "on" : "off");
    }
    return 0;
}

/* "kvm:tcg": engines in order of preference */
static int split_accels(struct settings *settings, const char *text, struct error *err)
{
    char *copy = strdup(text), *save = NULL;
    int ret = copy ? 0 : -ENOMEM;

    for (char *word = copy ? strtok_r(copy, ":", &save) : NULL; word && !ret; word = strtok_r(NULL, ":", &save))
        ret = string_list_add(&settings->accels, word);
    free(copy);
    return ret ? error_set(err, ENOMEM, "out of memory") : 0;
}

int settings_parse_machine(struct settings *settings, const char *text, struct error *err)
{
    static const char *const types[] = { "q35", "none", NULL };
    struct option_list list;
    const char *type, *accel;
    int ret = options_parse(&list, text, "type", err);

    if (ret)
        return ret;
    type = options_get(&list, "type");
    accel = options_get(&list, "accel");
    if (type && (!strcmp(type, "pc") || !strncmp(type, "pc-i440fx", 9) || !strcmp(type, "microvm"))) {
        ret = error_set(err, EINVAL, "this machine is not there yet; q35 is");
    } else if (type && strcmp(type, "q35") && strncmp(type, "pc-q35", 6) && strcmp(type, "none")) {
        const char *near = nearest_word(type, types);

        ret = error_set(err, EINVAL, "unknown machine '%s'%s%s%s", type, near ? " (the nearest is '" : "",
                        near ? near : "", near ? "')" : "; -machine help lists them");
    } else if (type) {
        settings->machine_none = !strcmp(type, "none");
    }
    if (!ret && accel)
        ret = split_accels(settings, accel, err);
    if (!ret)
        ret = check_machine_flags(&list, err);
    if (!ret)
        ret = options_check_all_used(&list, type ? type : "q35", err);
    options_free(&list);
    return ret;
}

/* ---- Real-time clock ---- */

static int64_t local_offset_ns(void)
{
    time_t now = time(NULL);
    struct tm local;

    localtime_r(&now, &local);
    return (int64_t)local.tm_gmtoff * 1000000000;
}

static int parse_rtc_base(struct settings *settings, const char *base, struct error *err)
{
    struct tm date = { 0 };
    const char *end;

    if (!strcmp(base, "utc")) {
        settings->rtc_offset_ns = 0;
        return 0;
    }
    if (!strcmp(base, "localtime")) {
        settings->rtc_offset_ns = local_offset_ns();
        return 0;
    }
    end = strptime(base, "%Y-%m-%dT%H:%M:%S", &date);
    if (!end)
        end = strptime(base, "%Y-%m-%d", &date);
    if (!end || *end)
        return error_set(err, EINVAL, "base=%s: utc, localtime, 2006-06-17T16:01:21 or 2006-06-17 expected", base);
    /* What fits into nanoseconds, with room for centuries of running. */
    if (date.tm_year < 1970 - 1900 || date.tm_year > 2199 - 1900)
        return error_set(err, EINVAL, "base=%s: the year must be 1970 to 2199", base);
    settings->rtc_offset_ns = (int64_t)timegm(&date) * 1000000000 - (int64_t)clock_wall_ns();
    return 0;
}

int settings_parse_rtc(struct settings *settings, const char *text, struct error *err)
{
    struct option_list list;
    const char *base, *clock_name, *drift;
    int ret = options_parse(&list, text, NULL, err);

    if (ret)
        return ret;
    base = options_get(&list, "base");
    clock_name = options_get(&list, "clock");
    drift = options_get(&list, "driftfix");
    if (base)
        ret = parse_rtc_base(settings, base, err);
    if (!ret && clock_name && strcmp(clock_name, "host") && strcmp(clock_name, "rt"))
        ret = error_set(err, EINVAL, "clock=%s is not there yet; clock=host is", clock_name);
    if (!ret && drift && strcmp(drift, "none") && strcmp(drift, "slew"))
        ret = error_set(err, EINVAL, "driftfix=%s: none or slew expected", drift);
    if (!ret)
        ret = options_check_all_used(&list, "", err);
    options_free(&list);
    return ret;
}

/* ---- The guest of ./dev ---- */

static const char *owned_path(struct settings *settings, const char *folder, const char *file)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof(path), "%s/%s", folder, file);

    if (length < 0 || (size_t)length >= sizeof(path) || access(path, R_OK) || string_list_add(&settings->owned, path))
        return NULL;
    return settings->owned.items[settings->owned.count - 1];
}

int settings_use_prepared_guest(struct settings *settings, struct error *err)
{
    static const char *const folders[] = { "guest", "../guest" }; /* build/eidolon, build/release/eidolon */
    char executable[PATH_MAX - 16], folder[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", executable, sizeof(executable) - 1);

    if (length < 0)
        return error_set(err, errno, "/proc/self/exe: %s", strerror(errno));
    executable[length] = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        snprintf(folder, sizeof(folder), "%s/%s", dirname(executable), folders[i]);
        settings->kernel = owned_path(settings, folder, "vmlinuz");
        settings->initrd = owned_path(settings, folder, "initrd.img");
        if (settings->kernel && settings->initrd) {
            settings->append = "console=ttyS0";
            settings->ram_size = 512 * MIB;
            settings->nographic = true;
            return 0;
        }
        readlink("/proc/self/exe", executable, sizeof(executable) - 1); /* dirname() has cut it */
    }
    return error_set(err, ENOENT,
                     "no guest to boot: './dev guest' prepares one, or give -kernel FILE (-help tells more)");
}
