/* The command line, as a value: what the user asked for, checked as far as that is
 * possible without opening anything. */
#ifndef EIDOLON_FRONTEND_COMMAND_LINE_H
#define EIDOLON_FRONTEND_COMMAND_LINE_H

#include "base/error.h"
#include "base/types.h"

#define SERIAL_PORTS 4

struct string_list {
    char **items;
    size_t count;
};

struct settings {
    uint64_t ram_size;
    unsigned cpu_count;
    const char *cpu_model;
    bool machine_none;
    struct string_list accels; /* in order of preference; empty: our choice */
    const char *name, *process_name; /* of the guest, of our process; or NULL */
    const char *kernel, *initrd, *append;
    struct string_list devices;             /* -device values */
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

/* -machine, -accel and -rtc values (command_line_machine.c). */
int settings_parse_machine(struct settings *settings, const char *text, struct error *err);
int settings_parse_rtc(struct settings *settings, const char *text, struct error *err);
void print_accel_help(void);
void print_machine_help(void);

struct engine;
/* The first engine of settings->accels that this program has on this host. */
int settings_choose_engine(struct settings *settings, const struct engine **engine, struct error *err);

#endif
