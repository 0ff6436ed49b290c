/* The command line, as a value: what the user asked for, checked as far as that is
 * possible without opening anything. */
#ifndef EIDOLON_FRONTEND_COMMAND_LINE_H
#define EIDOLON_FRONTEND_COMMAND_LINE_H

#include "base/error.h"
#include "base/types.h"
#include "firmware/boot.h"

#define SERIAL_PORTS 4

struct string_list {
    char **items;
    size_t count;
};

/* -boot. Letters: a, b floppy, c disk, d CD-ROM, n to p network. */
struct boot_settings {
    char order[8], once[8]; /* "": not given */
    bool menu, strict;
    int splash_time_ms, reboot_timeout_ms; /* -1: not given */
};

struct settings {
    uint64_t ram_size;
    unsigned cpu_count;
    const char *cpu_model;
    bool machine_none;
    bool machine_i440fx; /* pc; else q35 */
    struct string_list accels; /* in order of preference; empty: our choice */
    const char *name, *process_name; /* of the guest, of our process; or NULL */
    const char *kernel, *initrd, *append;
    const char *bios;            /* firmware file, or NULL: the default one if there is no kernel */
    struct boot_settings boot;   /* -boot */
    struct string_list fw_cfgs;  /* -fw_cfg values */
    struct smbios_texts smbios;  /* -smbios */
    uint8_t uuid[16];            /* -uuid, -smbios type=1,uuid= */
    struct string_list objects;             /* -object values */
    struct string_list devices;             /* -device values */
    struct string_list blockdevs;           /* -blockdev values */
    struct string_list drives, drive_names; /* -drive values and how the user wrote them: "-hda FILE" */
    bool snapshot;
    struct string_list netdevs, nics, nets, netdumps, filters; /* filters: of -object */
    bool net_given; /* -netdev, -nic or -net */
    struct string_list chardevs;            /* -chardev values */
    struct string_list fsdevs;              /* -fsdev values, and those of -virtfs */
    uint8_t escape_key;                     /* -echr; 0: none */
    struct string_list serials;             /* -serial values in order */
    const char *serial_ports[SERIAL_PORTS]; /* resolved; NULL: no such port */
    const char *debugcon;                   /* or NULL */
    uint16_t debugcon_port;
    int64_t rtc_offset_ns; /* RTC at start, less the host's UTC clock */
    bool debug_threads; /* vCPU threads are named after the guest */
    bool nographic, display_none, nodefaults, no_reboot, no_shutdown;
    uint32_t log_mask;
    const char *log_file;
    bool perf_map, jitdump; /* what names translated code for perf; see jit/jit_tools.h */
    const char *symbols;    /* file with the guest kernel's, or NULL */
    struct string_list notes; /* what was accepted without effect: printed once the machine is up */
    struct string_list owned; /* strings made while parsing */
};

enum command_line_result {
    COMMAND_LINE_RUN,   /* start a machine */
    COMMAND_LINE_DONE,  /* help or version was printed */
    COMMAND_LINE_ERROR, /* err is filled */
};

/* Strings in *settings point into argv or belong to it. */
enum command_line_result command_line_parse(struct settings *settings, int argc, char **argv, struct error *err);
void settings_free(struct settings *settings);

int string_list_add(struct string_list *list, const char *text);
void settings_note(struct settings *settings, const char *format, ...) printf_like(2, 3);

/* The guest that ./dev prepared, looked for next to the executable: fills kernel, initrd, append,
 * memory and terminal. Error: tells how to prepare it. */
int settings_use_prepared_guest(struct settings *settings, struct error *err);

/* Values of -chardev, -fsdev, -virtfs, -echr, and which back end each serial port has (command_line_chardev.c). */
int settings_add_chardev(struct settings *settings, const char *text, struct error *err);
int settings_add_fsdev(struct settings *settings, const char *text, struct error *err);
int settings_add_virtfs(struct settings *settings, const char *text, struct error *err);
int settings_parse_echr(struct settings *settings, const char *text, struct error *err);
int settings_resolve_serials(struct settings *settings, struct error *err);

/* -machine, -accel and -rtc values (command_line_machine.c). */
int settings_parse_machine(struct settings *settings, const char *text, struct error *err);
int settings_parse_boot(struct settings *settings, const char *text, struct error *err);
int settings_parse_smbios(struct settings *settings, const char *text, struct error *err);
int settings_parse_uuid(struct settings *settings, const char *text, struct error *err);
int settings_parse_rtc(struct settings *settings, const char *text, struct error *err);
void print_accel_help(void);
void print_machine_help(void);

/* -blockdev, -drive and short forms (command_line_block.c). */
int settings_add_blockdev(struct settings *settings, const char *value, struct error *err);
int settings_add_drive(struct settings *settings, const char *value, struct error *err);
int settings_add_disk(struct settings *settings, const char *option, unsigned index, const char *media,
                      const char *filename, struct error *err);
struct block_registry;
int settings_open_blocks(const struct settings *settings, struct block_registry *registry, struct error *err);
/* command_line_net.c. 1: help was printed. */
bool settings_is_filter(const char *object); /* the value of an -object that is about a network back end */
int settings_take_net(struct settings *settings, struct string_list *list, const char *value, struct error *err);
struct net_registry;
int settings_create_networks(const struct settings *settings, struct net_registry *nets, struct error *err);

struct engine;
/* The first engine of settings->accels that this program has on this host. */
int settings_choose_engine(struct settings *settings, const struct engine **engine, struct error *err);

#endif
