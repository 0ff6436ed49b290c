/* What chardev.c (back ends, output) and chardev_input.c (input, escape keys) share. */
#ifndef EIDOLON_DEVICES_CHAR_CHARDEV_INTERNAL_H
#define EIDOLON_DEVICES_CHAR_CHARDEV_INTERNAL_H

#include "devices/char/chardev.h"

#define CHARDEV_OUTPUT_SIZE 65536u /* powers of two */
#define CHARDEV_INPUT_SIZE  4096u

struct chardev {
    struct event_loop *loop;
    struct chardev_handlers handlers;
    void *opaque;
    struct chardev_terminal terminal; /* hooks; all NULL unless stdio */
    bool uses_terminal;

    /* Output: a ring that is written out by a timer, or at once when it has filled up. */
    int out_fd;                 /* -1: bytes vanish */
    bool out_direct;            /* a file: never blocks for long, cannot be polled */
    bool out_dead;              /* a write failed: the rest vanishes */
    bool out_slow;              /* the reader does not keep up: the loop's thread waits for it */
    bool short_write;           /* a writer was refused; it is told when there is room */
    struct fd_watch *out_watch; /* loop thread */
    struct timer flush_timer;
    uint8_t *out;
    uint32_t out_head, out_count;

    /* Input: what was read and not yet taken by the front end. */
    int in_fd;            /* -1: none */
    bool in_direct;       /* a file: always readable, cannot be polled */
    bool in_keep_reading; /* a terminal with escape keys: drops what does not fit, or Ctrl-A X would not get through */
    bool in_paused;
    struct fd_watch *in_watch; /* loop thread */
    struct timer in_timer;     /* in_direct: the next read; else: brings a vCPU's wish to the loop's thread */
    uint8_t *in;
    uint32_t in_head, in_count;

    bool escapes; /* mon: prefix, Ctrl-A is special */
    bool escape_seen;
};

/* chardev.c */
void chardev_print(struct chardev *chardev, const char *text); /* our own words on the same output */

/* chardev_input.c */
int chardev_input_start(struct chardev *chardev, struct error *err);
void chardev_input_stop(struct chardev *chardev);

#endif
