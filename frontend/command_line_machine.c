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

/* Names of QEMU's versions mean the same machine: devices are as in its 7.2. */
static const struct {
    const char *name, *help;
    bool i440fx;
} machines[] = {
    { "none", "empty machine", false },
    { "pc", "Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)", true },
    { "pc-i440fx-7.2", "Standard PC (i440FX + PIIX, 1996)", true },
    { "q35", "Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2) (default)", false },
    { "pc-q35-7.2", "Standard PC (Q35 + ICH9, 2009)", false },
};

void print_machine_help(void)
{
    puts("Supported machines are:");
    for (size_t i = 0; i < ARRAY_SIZE(machines); i++)
        printf("%-20s %s\n", machines[i].name, machines[i].help);
}

static int choose_machine(struct settings *settings, const char *type, struct error *err)
{
    const char *names[ARRAY_SIZE(machines) + 1] = { NULL }, *near;

    for (size_t i = 0; i < ARRAY_SIZE(machines); i++) {
        names[i] = machines[i].name;
        if (strcmp(type, machines[i].name))
            continue;
        settings->machine_none = !strcmp(type, "none");
        settings->machine_i440fx = machines[i].i440fx;
        return 0;
    }
    if (!strncmp(type, "pc-i440fx-", 10) || !strncmp(type, "pc-q35-", 7)) {
        settings->machine_i440fx = type[3] == 'i';
        settings_note(settings, "-machine %s: devices are those of version 7.2", type);
        return 0;
    }
    if (!strcmp(type, "microvm"))
        return error_set(err, EINVAL, "this machine is not there yet; q35 and pc are");
    near = nearest_word(type, names);
    return error_set(err, EINVAL, "unknown machine '%s'%s%s%s", type, near ? " (the nearest is '" : "",
                     near ? near : "", near ? "')" : "; -machine help lists them");
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
    { "sata", true },
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
    struct option_list list;
    const char *type, *accel;
    int ret = options_parse(&list, text, "type", err);

    if (ret)
        return ret;
    type = options_get(&list, "type");
    accel = options_get(&list, "accel");
    if (type)
        ret = choose_machine(settings, type, err);
    if (!ret && accel)
        ret = split_accels(settings, accel, err);
    if (!ret)
        ret = check_machine_flags(&list, err);
    if (!ret)
        ret = options_check_all_used(&list, type ? type : "q35", err);
    options_free(&list);
    return ret;
}

/* ---- -boot ---- */

static int parse_drives(const char *key, const char *text, char out[8], struct error *err)
{
    if (!text)
        return 0;
    if (strlen(text) > 7)
        return error_set(err, EINVAL, "%s=%s: too many drives", key, text);
    for (const char *c = text; *c; c++) {
        if (*c < 'a' || *c > 'p')
            return error_set(err, EINVAL, "%s=%s: '%c' is no drive (a, b: floppy, c: disk, d: CD-ROM, n: network)", key,
                             text, *c);
        if (strchr(c + 1, *c))
            return error_set(err, EINVAL, "%s=%s: '%c' is there twice", key, text, *c);
    }
    strcpy(out, text);
    return 0;
}

static int parse_milliseconds(struct option_list *list, const char *key, int *out, struct error *err)
{
    uint64_t value;
    int ret;

    if (!options_get(list, key))
        return 0;
    ret = options_get_u64(list, key, 0, &value, err);
    if (!ret && value > 0xffff)
        ret = error_set(err, EINVAL, "%s=%s: at most 65535 milliseconds", key, options_get(list, key));
    if (!ret)
        *out = (int)value;
    return ret;
}

int settings_parse_boot(struct settings *settings, const char *text, struct error *err)
{
    struct boot_settings *boot = &settings->boot;
    struct option_list list;
    int ret = options_parse(&list, text, "order", err);

    if (ret)
        return ret;
    ret = parse_drives("order", options_get(&list, "order"), boot->order, err);
    if (!ret)
        ret = parse_drives("once", options_get(&list, "once"), boot->once, err);
    if (!ret)
        ret = options_get_bool(&list, "menu", boot->menu, &boot->menu, err);
    if (!ret)
        ret = options_get_bool(&list, "strict", boot->strict, &boot->strict, err);
    if (!ret)
        ret = parse_milliseconds(&list, "splash-time", &boot->splash_time_ms, err);
    if (!ret)
        ret = parse_milliseconds(&list, "reboot-timeout", &boot->reboot_timeout_ms, err);
    if (!ret && options_get(&list, "splash"))
        ret = error_set(err, ENOTSUP, "splash=: there is no display to show a picture on yet");
    if (!ret)
        ret = options_check_all_used(&list, "", err);
    options_free(&list);
    return ret;
}

/* ---- -smbios, -uuid ---- */

/* xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx; the first three fields are little-endian in the tables (SMBIOS 7.2.1). */
int settings_parse_uuid(struct settings *settings, const char *text, struct error *err)
{
    static const uint8_t places[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
    unsigned bytes[16];
    int end = 0;

    if (sscanf(text, "%2x%2x%2x%2x-%2x%2x-%2x%2x-%2x%2x-%2x%2x%2x%2x%2x%2x%n", &bytes[0], &bytes[1], &bytes[2],
               &bytes[3], &bytes[4], &bytes[5], &bytes[6], &bytes[7], &bytes[8], &bytes[9], &bytes[10], &bytes[11],
               &bytes[12], &bytes[13], &bytes[14], &bytes[15], &end) != 16 ||
        strlen(text) != 36 || end != 36)
        return error_set(err, EINVAL, "a UUID is 550e8400-e29b-41d4-a716-446655440000, not '%s'", text);
    for (unsigned i = 0; i < 16; i++)
        settings->uuid[places[i]] = (uint8_t)bytes[i];
    return 0;
}

static const struct {
    unsigned type;
    const char *key;
    size_t offset; /* in struct smbios_texts */
} smbios_fields[] = {
    { 0, "vendor", offsetof(struct smbios_texts, bios_vendor) },
    { 0, "version", offsetof(struct smbios_texts, bios_version) },
    { 0, "date", offsetof(struct smbios_texts, bios_date) },
    { 1, "manufacturer", offsetof(struct smbios_texts, manufacturer) },
    { 1, "product", offsetof(struct smbios_texts, product) },
    { 1, "version", offsetof(struct smbios_texts, version) },
    { 1, "serial", offsetof(struct smbios_texts, serial) },
    { 1, "sku", offsetof(struct smbios_texts, sku) },
    { 1, "family", offsetof(struct smbios_texts, family) },
    { 3, "manufacturer", offsetof(struct smbios_texts, chassis_manufacturer) },
    { 3, "version", offsetof(struct smbios_texts, chassis_version) },
    { 3, "serial", offsetof(struct smbios_texts, chassis_serial) },
    { 3, "asset", offsetof(struct smbios_texts, chassis_asset) },
    { 3, "sku", offsetof(struct smbios_texts, chassis_sku) },
};

static int set_smbios_text(struct settings *settings, size_t offset, const char *text, struct error *err)
{
    if (strlen(text) > SMBIOS_TEXT_MAX)
        return error_set(err, EINVAL, "a text has at most %d characters", SMBIOS_TEXT_MAX);
    if (string_list_add(&settings->owned, text))
        return error_set(err, ENOMEM, "out of memory");
    *(const char **)((char *)&settings->smbios + offset) = settings->owned.items[settings->owned.count - 1];
    return 0;
}

int settings_parse_smbios(struct settings *settings, const char *text, struct error *err)
{
    struct option_list list;
    uint64_t type = 0;
    int ret = options_parse(&list, text, NULL, err);

    if (ret)
        return ret;
    if (!options_get(&list, "type"))
        ret = error_set(err, EINVAL, "type=N is needed; tables from files are not there yet");
    if (!ret)
        ret = options_get_u64(&list, "type", 0, &type, err);
    if (!ret && type != 0 && type != 1 && type != 3)
        ret = error_set(err, EINVAL, "type=%llu: only types 0, 1 and 3 can be set", (unsigned long long)type);
    for (size_t i = 0; i < ARRAY_SIZE(smbios_fields) && !ret; i++) {
        const char *value = smbios_fields[i].type == type ? options_get(&list, smbios_fields[i].key) : NULL;

        if (value)
            ret = set_smbios_text(settings, smbios_fields[i].offset, value, err);
    }
    if (!ret && type == 1 && options_get(&list, "uuid"))
        ret = settings_parse_uuid(settings, options_get(&list, "uuid"), err);
    if (!ret)
        ret = options_check_all_used(&list, "", err);
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
