/* What the files of character devices share. A back end either sets descriptors, and chardev_output.c and chardev_input.c
 * do the rest, or takes the bytes itself (ringbuf, a share of a mux). */
#ifndef EIDOLON_DEVICES_CHAR_CHARDEV_INTERNAL_H
#define EIDOLON_DEVICES_CHAR_CHARDEV_INTERNAL_H

#include "base/options.h"
#include "devices/char/chardev.h"

#define CHARDEV_OUTPUT_SIZE 65536u /* powers of two */
#define CHARDEV_INPUT_SIZE  16384u
#define CHARDEV_READ_SIZE   8192u /* at most that much at once: what is left of the input ring when reading pauses */
#define CHARDEV_MUX_SHARES  4

struct chardev_backend {
    const char *name, *alias;
    int (*open)(struct chardev *chardev, struct option_list *options, struct error *err);
    /* All of these may be NULL. */
    void (*close)(struct chardev *chardev); /* frees `private`; descriptors of the stream are closed by then */
    /* Loop thread: the stream has ended, or a write has failed. Absent: reading is over, and what is written vanishes
     * once a write has failed. */
    void (*lost)(struct chardev *chardev);
    size_t (*write)(struct chardev *chardev, const uint8_t *data, size_t size); /* in place of the output ring */
    void (*accept_input)(struct chardev *chardev);                              /* the input ring has room */
};

struct chardev {
    struct event_loop *loop;
    struct chardev_registry *registry; /* or NULL */
    struct chardev *next;              /* in the registry */
    const struct chardev_backend *backend;
    void *private_data;
    struct chardev_handlers handlers;
    void *opaque;
    char id[64], user[80]; /* user "": unclaimed */
    char filename[160];
    struct chardev_terminal terminal; /* hooks */
    struct chardev_mux *mux;          /* whose base or share this is */

    bool open;      /* somebody is at the other end */
    bool told_open; /* and the front end knows */
    bool reopened;  /* closed and opened again before the front end was told */

    /* Output: a ring that is written out by a timer, or at once when it has filled up. */
    int out_fd;                 /* -1: bytes vanish */
    bool out_direct;            /* a file: never blocks for long, cannot be polled */
    bool out_socket;            /* send(), which need not be asked first */
    bool out_datagrams;         /* nobody there to read them is not an error; an empty one is not the end */
    bool out_dead;              /* a write failed: the rest vanishes */
    bool out_slow;              /* the reader does not keep up: the loop's thread waits for it */
    bool short_write;           /* a writer was refused; it is told when there is room */
    uint32_t out_chunk;         /* bytes in one write at most */
    struct fd_watch *out_watch; /* loop thread */
    struct timer flush_timer;
    uint8_t *out;
    uint32_t out_head, out_count;
    int log_fd; /* logfile=: a copy of the output; -1: none */

    /* Input: what was read and not yet taken by the front end. */
    int in_fd;            /* -1: none */
    bool in_direct;       /* a file: always readable, cannot be polled */
    bool in_keep_reading; /* a terminal with escape keys: drops what does not fit, or Ctrl-A X would not get through */
    bool in_paused;
    bool delivering;
    struct fd_watch *in_watch; /* loop thread */
    struct timer in_timer;     /* in_direct: the next read; else: brings a vCPU's wish to the loop's thread */
    struct timer hangup_timer; /* while reading pauses: has the peer gone? */
    uint64_t in_taken;         /* bytes that the front end has had */
    uint64_t hangup_seen;      /* in_taken when the hang-up was first seen */
    bool hangup;
    uint8_t *in;
    uint32_t in_head, in_count;
};

struct chardev_registry {
    struct event_loop *loop;
    struct chardev_terminal terminal;
    struct chardev *first; /* oldest */
    struct chardev *stdio; /* who has the terminal, or NULL */
    uint8_t escape_key;
};

/* chardev.c */
/* `options` has "backend"; the caller looks for left-over keys. NULL on error. */
struct chardev *chardev_make(struct event_loop *loop, struct chardev_registry *registry,
                             const struct chardev_terminal *terminal, const char *id, struct option_list *options,
                             struct error *err);
struct chardev *chardev_allocate(struct event_loop *loop, const char *id, struct error *err);
void chardev_set_open(struct chardev *chardev, bool open); /* tells the front end in time */
void chardev_tell(struct chardev *chardev);                /* what chardev_set_open() could not say yet */

/* chardev_output.c */
void chardev_output_init(struct chardev *chardev);
void chardev_output_stop(struct chardev *chardev, bool wait);  /* closes out_fd; wait: up to 2 s for what is left */
void chardev_print(struct chardev *chardev, const char *text); /* our own words on the same output */
bool chardev_is_pollable(int fd);

/* chardev_input.c */
int chardev_input_start(struct chardev *chardev, struct error *err);
void chardev_input_stop(struct chardev *chardev);
void chardev_input_init(struct chardev *chardev);
/* What does not fit is dropped: look at chardev_input_room() first. */
void chardev_input_put(struct chardev *chardev, const uint8_t *data, size_t size);
size_t chardev_input_room(const struct chardev *chardev);
void chardev_deliver(struct chardev *chardev);

/* Begins to read from one and write to the other (which must not be the same; -1: not that way), whose owner the
 * chardev then is, even on error. Announces that somebody is there. Loop thread. */
int chardev_stream_start(struct chardev *chardev, int in_fd, int out_fd, struct error *err);
void chardev_stream_stop(struct chardev *chardev);

/* chardev_options.c */
const struct chardev_backend *chardev_backend_find(const char *name, struct error *err);
int chardev_legacy_parse(struct option_list *options, const char *spec, struct error *err);

/* chardev_mux.c */
int chardev_mux_create(struct chardev *base, uint8_t escape_key, struct error *err);
void chardev_mux_destroy(struct chardev_mux *mux);
struct chardev *chardev_mux_share(struct chardev_mux *mux, const char *user, struct error *err);
void chardev_mux_unshare(struct chardev *share);
struct chardev *chardev_mux_base(struct chardev_mux *mux);

/* chardev_file.c: a descriptor of our own for `path`, where /proc/self/fd/N and /dev/fd/N are N itself. -errno. */
int chardev_open_path(const char *path, int flags, struct error *err);
int chardev_own_descriptor(int fd, int mode);

/* chardev_address.c */
struct addrinfo;
/* err says which name; `passive`: to listen on, an empty host means all addresses. 0 or -errno. */
int chardev_resolve(const char *host, const char *port, int family, int type, bool passive, struct addrinfo **out,
                    struct error *err);
/* Options ipv4= and ipv6=. */
int chardev_address_family(struct option_list *options, int *family, struct error *err);
int chardev_bind_unix(const char *path, bool abstract, bool tight, struct error *err);
int chardev_connect_unix(const char *path, bool abstract, bool tight, struct error *err);
int chardev_listen_inet(const struct addrinfo *addresses, unsigned ports, char *name, size_t name_size,
                        struct error *err);

#endif
