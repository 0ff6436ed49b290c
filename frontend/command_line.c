/* Parses the command line: a table of options (options.def), a function for each. Values are taken
 * only if they can be honoured; everything else is one line that names the option and the reason.
 * Runs before any thread exists. */
#include "frontend/command_line.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "cpu/cpu.h"
#include "devices/char/chardev.h"
#include "devices/core/device.h"
#include "devices/core/object.h"

#define DEFAULT_RAM           (128 * MIB)
#define MIN_RAM               (1 * MIB)
#define MAX_RAM               (1000 * GIB) /* 40 address bits, less the hole below 4 GiB */
#define DEBUGCON_DEFAULT_PORT 0xe9

/* What a take_ function returns beside 0 and -errno. */
#define TAKE_PRINTED 1 /* help was printed: stop, with success */

typedef int take_fn(struct settings *settings, const char *value, struct error *err);

/* ---- Small helpers ---- */

int string_list_add(struct string_list *list, const char *text)
{
    char **items = realloc(list->items, (list->count + 1) * sizeof(*items));

    if (!items)
        return -ENOMEM;
    list->items = items;
    items[list->count] = strdup(text);
    if (!items[list->count])
        return -ENOMEM;
    list->count++;
    return 0;
}

static void string_list_free(struct string_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct string_list){ 0 };
}

void settings_note(struct settings *settings, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    string_list_add(&settings->notes, text);
}

void settings_free(struct settings *settings)
{
    string_list_free(&settings->objects);
    string_list_free(&settings->accels);
    string_list_free(&settings->devices);
    string_list_free(&settings->blockdevs);
    string_list_free(&settings->drives);
    string_list_free(&settings->drive_names);
    string_list_free(&settings->chardevs);
    string_list_free(&settings->fsdevs);
    string_list_free(&settings->serials);
    string_list_free(&settings->netdevs);
    string_list_free(&settings->nics);
    string_list_free(&settings->nets);
    string_list_free(&settings->netdumps);
    string_list_free(&settings->filters);
    string_list_free(&settings->notes);
    string_list_free(&settings->owned);
    string_list_free(&settings->fw_cfgs);
}

static bool is_help(const char *value)
{
    return !strcmp(value, "help") || !strcmp(value, "?");
}

static int only_none(const char *value, struct error *err)
{
    if (!strcmp(value, "none"))
        return 0;
    return error_set(err, EINVAL, "not there yet; 'none' is");
}

static int add_or_fail(struct string_list *list, const char *value, struct error *err)
{
    return string_list_add(list, value) ? error_set(err, ENOMEM, "out of memory") : 0;
}

/* ---- One function for each option ---- */

static void print_help(void);

static int take_help(struct settings *settings, const char *value, struct error *err)
{
    (void)settings, (void)value, (void)err;
    print_help();
    return TAKE_PRINTED;
}

static int take_h(struct settings *settings, const char *value, struct error *err)
{
    return take_help(settings, value, err);
}

static int take_version(struct settings *settings, const char *value, struct error *err)
{
    (void)settings, (void)value, (void)err;
    puts("Eidolon emulator version " EIDOLON_VERSION);
    return TAKE_PRINTED;
}

static int take_machine(struct settings *settings, const char *value, struct error *err)
{
    if (is_help(value)) {
        print_machine_help();
        return TAKE_PRINTED;
    }
    return settings_parse_machine(settings, value, err);
}

static int take_M(struct settings *settings, const char *value, struct error *err)
{
    return take_machine(settings, value, err);
}

static int take_cpu(struct settings *settings, const char *value, struct error *err)
{
    (void)err;
    if (is_help(value)) {
        cpuid_model_list();
        return TAKE_PRINTED;
    }
    settings->cpu_model = value;
    return 0;
}

static int take_accel(struct settings *settings, const char *value, struct error *err)
{
    if (is_help(value)) {
        print_accel_help();
        return TAKE_PRINTED;
    }
    return add_or_fail(&settings->accels, value, err);
}

static int take_smp(struct settings *settings, const char *value, struct error *err)
{
    struct option_list list;
    uint64_t cpus;
    int ret = options_parse(&list, value, "cpus", err);

    if (ret)
        return ret;
    ret = options_get_u64(&list, "cpus", 1, &cpus, err);
    if (!ret && cpus != 1)
        ret = error_set(err, EINVAL, "only one CPU can be had yet");
    /* A topology is honoured if it is that of one CPU. */
    for (size_t i = 0; !ret && i < list.count; i++) {
        static const char *const topology[] = { "maxcpus", "sockets", "dies", "clusters", "cores", "threads" };
        uint64_t count;

        for (size_t j = 0; !ret && j < ARRAY_SIZE(topology); j++) {
            ret = options_get_u64(&list, topology[j], 1, &count, err);
            if (!ret && count != 1)
                ret = error_set(err, EINVAL, "%s=%s: only one CPU can be had yet", topology[j],
                                options_get(&list, topology[j]));
        }
    }
    if (!ret)
        ret = options_check_all_used(&list, "", err);
    options_free(&list);
    settings->cpu_count = 1;
    return ret;
}

static int take_m(struct settings *settings, const char *value, struct error *err)
{
    struct option_list list;
    int ret = options_parse(&list, value, "size", err);

    if (ret)
        return ret;
    ret = options_get_size(&list, "size", MIB, DEFAULT_RAM, &settings->ram_size, err);
    if (!ret)
        ret = options_check_all_used(&list, "", err);
    options_free(&list);
    if (ret)
        return ret;
    if (settings->ram_size < MIN_RAM)
        return error_set(err, EINVAL, "too little memory: at least 1M is needed");
    if (settings->ram_size > MAX_RAM)
        return error_set(err, EINVAL, "too much memory: at most 1000G");
    settings->ram_size = ALIGN_UP(settings->ram_size, PAGE_SIZE);
    return 0;
}

static int own_string(struct settings *settings, const char *text, const char **out, struct error *err)
{
    int ret = string_list_add(&settings->owned, text);
    if (ret)
        return error_set(err, -ret, "%s", strerror(-ret));
    *out = settings->owned.items[settings->owned.count - 1];
    return 0;
}

/* [guest=]NAME[,process=NAME][,debug-threads=on|off] */
static int take_name(struct settings *settings, const char *value, struct error *err)
{
    struct option_list list;
    const char *guest, *process;
    int ret = options_parse(&list, value, "guest", err);

    if (ret)
        return ret;
    guest = options_get(&list, "guest");
    process = options_get(&list, "process");
    if (guest)
        ret = own_string(settings, guest, &settings->name, err);
    if (!ret && process)
        ret = own_string(settings, process, &settings->process_name, err);
    if (!ret)
        ret = options_get_bool(&list, "debug-threads", true, &settings->debug_threads, err);
    if (!ret)
        ret = options_check_all_used(&list, "", err);
    options_free(&list);
    return ret;
}

static int take_kernel(struct settings *settings, const char *value, struct error *err)
{
    (void)err;
    settings->kernel = value;
    return 0;
}

static int take_initrd(struct settings *settings, const char *value, struct error *err)
{
    (void)err;
    settings->initrd = value;
    return 0;
}

static int take_append(struct settings *settings, const char *value, struct error *err)
{
    (void)err;
    settings->append = value;
    return 0;
}

static int take_bios(struct settings *settings, const char *value, struct error *err)
{
    (void)err;
    settings->bios = value;
    return 0;
}

static int take_boot(struct settings *settings, const char *value, struct error *err)
{
    return settings_parse_boot(settings, value, err);
}

static int take_fw_cfg(struct settings *settings, const char *value, struct error *err)
{
    return add_or_fail(&settings->fw_cfgs, value, err);
}

static int take_smbios(struct settings *settings, const char *value, struct error *err)
{
    return settings_parse_smbios(settings, value, err);
}

static int take_uuid(struct settings *settings, const char *value, struct error *err)
{
    return settings_parse_uuid(settings, value, err);
}

static int take_object(struct settings *settings, const char *value, struct error *err)
{
    if (is_help(value)) {
        object_list_types();
        puts("  filter-dump");
        return TAKE_PRINTED;
    }
    return add_or_fail(settings_is_filter(value) ? &settings->filters : &settings->objects, value, err);
}

static int take_device(struct settings *settings, const char *value, struct error *err)
{
    const char *comma = strchr(value, ',');

    if (is_help(value)) {
        device_list_types();
        return TAKE_PRINTED;
    }
    if (comma && is_help(comma + 1)) {
        char name[64];
        const struct device_type *type;

        snprintf(name, sizeof(name), "%.*s", (int)(comma - value), value);
        type = device_type_find(name);
        if (!type)
            return error_set(err, EINVAL, "there is no such device; -device help lists them");
        device_print_properties(type);
        return TAKE_PRINTED;
    }
    return add_or_fail(&settings->devices, value, err);
}

static int take_drive(struct settings *settings, const char *value, struct error *err)
{
    return settings_add_drive(settings, value, err);
}

static int take_blockdev(struct settings *settings, const char *value, struct error *err)
{
    return settings_add_blockdev(settings, value, err);
}

static int take_hda(struct settings *settings, const char *value, struct error *err)
{
    return settings_add_disk(settings, "-hda", 0, "disk", value, err);
}

static int take_hdb(struct settings *settings, const char *value, struct error *err)
{
    return settings_add_disk(settings, "-hdb", 1, "disk", value, err);
}

static int take_hdc(struct settings *settings, const char *value, struct error *err)
{
    return settings_add_disk(settings, "-hdc", 2, "disk", value, err);
}

static int take_hdd(struct settings *settings, const char *value, struct error *err)
{
    return settings_add_disk(settings, "-hdd", 3, "disk", value, err);
}

static int take_cdrom(struct settings *settings, const char *value, struct error *err)
{
    return settings_add_disk(settings, "-cdrom", 2, "cdrom", value, err);
}

static int take_snapshot(struct settings *settings, const char *value, struct error *err)
{
    (void)value, (void)err;
    settings->snapshot = true;
    return 0;
}

static int take_global(struct settings *settings, const char *value, struct error *err)
{
    static const char iobase[] = "isa-debugcon.iobase=";
    uint64_t port;
    int ret;

    if (!strchr(value, '='))
        return error_set(err, EINVAL, "TYPE.PROPERTY=VALUE expected");
    if (strncmp(value, iobase, sizeof(iobase) - 1)) {
        settings_note(settings, "-global %s: ignored", value);
        return 0;
    }
    ret = parse_u64(value + sizeof(iobase) - 1, &port, err);
    if (ret)
        return ret;
    if (port > 0xffff)
        return error_set(err, EINVAL, "ports end at 0xffff");
    settings->debugcon_port = (uint16_t)port;
    return 0;
}

static int take_chardev(struct settings *settings, const char *value, struct error *err)
{
    if (is_help(value)) {
        chardev_list_backends();
        return TAKE_PRINTED;
    }
    return settings_add_chardev(settings, value, err);
}

static int take_echr(struct settings *settings, const char *value, struct error *err)
{
    return settings_parse_echr(settings, value, err);
}

static int take_fsdev(struct settings *settings, const char *value, struct error *err)
{
    return settings_add_fsdev(settings, value, err);
}

static int take_virtfs(struct settings *settings, const char *value, struct error *err)
{
    return settings_add_virtfs(settings, value, err);
}

static int take_serial(struct settings *settings, const char *value, struct error *err)
{
    if (settings->serials.count == SERIAL_PORTS)
        return error_set(err, EINVAL, "there are only %d serial ports", SERIAL_PORTS);
    return add_or_fail(&settings->serials, value, err);
}

static int take_parallel(struct settings *settings, const char *value, struct error *err)
{
    (void)settings;
    return only_none(value, err);
}

static int take_debugcon(struct settings *settings, const char *value, struct error *err)
{
    (void)err;
    settings->debugcon = value;
    return 0;
}

static int take_monitor(struct settings *settings, const char *value, struct error *err)
{
    (void)settings;
    return only_none(value, err);
}

static int take_nographic(struct settings *settings, const char *value, struct error *err)
{
    (void)value, (void)err;
    settings->nographic = true;
    return 0;
}

static int take_display(struct settings *settings, const char *value, struct error *err)
{
    if (is_help(value)) {
        puts("Available displays:\nnone");
        return TAKE_PRINTED;
    }
    settings->display_none = true;
    return only_none(value, err);
}

static int take_vga(struct settings *settings, const char *value, struct error *err)
{
    (void)settings;
    return only_none(value, err);
}

static int take_netdev(struct settings *settings, const char *value, struct error *err)
{
    return settings_take_net(settings, &settings->netdevs, value, err);
}

static int take_nic(struct settings *settings, const char *value, struct error *err)
{
    return settings_take_net(settings, &settings->nics, value, err);
}

static int take_net(struct settings *settings, const char *value, struct error *err)
{
    return settings_take_net(settings, &settings->nets, value, err);
}

static int take_netdump(struct settings *settings, const char *value, struct error *err)
{
    return add_or_fail(&settings->netdumps, value, err);
}

static int take_rtc(struct settings *settings, const char *value, struct error *err)
{
    return settings_parse_rtc(settings, value, err);
}

static int take_nodefaults(struct settings *settings, const char *value, struct error *err)
{
    (void)value, (void)err;
    settings->nodefaults = true;
    return 0;
}

static int take_no_user_config(struct settings *settings, const char *value, struct error *err)
{
    (void)settings, (void)value, (void)err;
    return 0;
}

static int take_no_reboot(struct settings *settings, const char *value, struct error *err)
{
    (void)value, (void)err;
    settings->no_reboot = true;
    return 0;
}

static int take_no_shutdown(struct settings *settings, const char *value, struct error *err)
{
    (void)value, (void)err;
    settings->no_shutdown = true;
    return 0;
}

static int take_d(struct settings *settings, const char *value, struct error *err)
{
    uint32_t mask;
    int ret;

    if (is_help(value)) {
        log_print_categories();
        return TAKE_PRINTED;
    }
    ret = log_parse_mask(value, &mask, err);
    if (!ret)
        settings->log_mask |= mask;
    return ret;
}

static int take_D(struct settings *settings, const char *value, struct error *err)
{
    (void)err;
    settings->log_file = value;
    return 0;
}

static int take_perfmap(struct settings *settings, const char *value, struct error *err)
{
    (void)value, (void)err;
    settings->perf_map = true;
    return 0;
}

static int take_jitdump(struct settings *settings, const char *value, struct error *err)
{
    (void)value, (void)err;
    settings->jitdump = true;
    return 0;
}

static int take_symbols(struct settings *settings, const char *value, struct error *err)
{
    (void)err;
    settings->symbols = value;
    return 0;
}

/* ---- The table ---- */

static const struct option {
    const char *name, *argument, *help;
    take_fn *take;
} options[] = {
#define OPTION(id, name, argument, help) { name, argument, help, take_##id },
#include "frontend/options.def"
#undef OPTION
};

static void print_help(void)
{
    puts("Eidolon emulator version " EIDOLON_VERSION "\n"
         "usage: eidolon [options]\n"
         "\n"
         "With no options: boots the guest that ./dev prepared.\n");
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        char left[80];

        snprintf(left, sizeof(left), "-%s%s%s", options[i].name, options[i].argument ? " " : "",
                 options[i].argument ? options[i].argument : "");
        if (strlen(left) > 27)
            printf("%s\n%-28s%s\n", left, "", options[i].help);
        else
            printf("%-28s%s\n", left, options[i].help);
    }
}

static const struct option *find_option(const char *word)
{
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        if (!strcmp(options[i].name, word))
            return &options[i];
    }
    return NULL;
}

static int unknown_option(const char *word, struct error *err)
{
    const char *names[ARRAY_SIZE(options) + 1] = { NULL };
    const char *near;

    if (!*word)
        return error_set(err, EINVAL, "an empty argument is not an option, nor a disk image");
    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        names[i] = options[i].name;
    near = nearest_word(word + (word[1] == '-' ? 2 : 1), names);
    if (near)
        return error_set(err, EINVAL, "%s: unknown option (the nearest is -%s)", word, near);
    return error_set(err, EINVAL, "%s: unknown option (-help lists them)", word);
}

/* ---- After all options ---- */

static int finish(struct settings *settings, struct error *err)
{
    if (!settings->kernel && settings->initrd)
        return error_set(err, EINVAL, "-initrd %s: only with -kernel", settings->initrd);
    if (!settings->kernel && settings->append)
        return error_set(err, EINVAL, "-append: only with -kernel");
    return settings_resolve_serials(settings, err);
}

enum command_line_result command_line_parse(struct settings *settings, int argc, char **argv, struct error *err)
{
    *settings = (struct settings){
        .ram_size = DEFAULT_RAM,
        .cpu_count = 1,
        .cpu_model = "max",
        .debugcon_port = DEBUGCON_DEFAULT_PORT,
        .boot = { .splash_time_ms = -1, .reboot_timeout_ms = -1 },
        .escape_key = 1,
    };
    if (argc <= 1 && settings_use_prepared_guest(settings, err))
        return COMMAND_LINE_ERROR;

    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        const struct option *option = word[0] == '-' ? find_option(word + (word[1] == '-' ? 2 : 1)) : NULL;
        const char *value = NULL;
        int ret;

        if (!option && word[0] != '-' && *word) { /* a disk image */
            if (settings_add_disk(settings, "", 0, "disk", word, err))
                return COMMAND_LINE_ERROR;
            continue;
        }
        if (!option) {
            unknown_option(word, err);
            return COMMAND_LINE_ERROR;
        }
        if (option->argument) {
            if (i + 1 == argc) {
                error_set(err, EINVAL, "-%s: needs an argument: %s", option->name, option->argument);
                return COMMAND_LINE_ERROR;
            }
            value = argv[++i];
            if (!*value && strcmp(option->name, "append")) {
                error_set(err, EINVAL, "-%s: the argument is empty: %s", option->name, option->argument);
                return COMMAND_LINE_ERROR;
            }
        }
        ret = option->take(settings, value, err);
        if (ret == TAKE_PRINTED)
            return COMMAND_LINE_DONE;
        if (ret) {
            error_prefix(err, ret, "-%s%s%s", option->name, value ? " " : "", value ? value : "");
            return COMMAND_LINE_ERROR;
        }
    }
    return finish(settings, err) ? COMMAND_LINE_ERROR : COMMAND_LINE_RUN;
}
