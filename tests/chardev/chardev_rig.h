/* A registry of character devices on a real event loop, a front end that records, and peers. */
#ifndef EIDOLON_TESTS_CHARDEV_RIG_H
#define EIDOLON_TESTS_CHARDEV_RIG_H

#include "devices/char/chardev.h"

/* A front end as a device would be. */
struct front {
    struct chardev *chardev;
    char got[200000];
    size_t count, limit; /* takes up to `limit` bytes in all */
    unsigned opened, closed, breaks, writable, mux_in, mux_out;
};

extern struct chardev_registry *registry;
extern struct event_loop *loop;
extern unsigned quits;
extern char folder[64]; /* of the test, removed at the end */

void rig_start(void);
void rig_stop(void);
const char *rig_path(const char *name); /* folder/name; the text is good until the fourth call from here */

/* -chardev */
void add(const char *format, ...) printf_like(1, 2);
/* The message of an error that must come. */
const char *add_fails(const char *format, ...) printf_like(1, 2);
void front_claim(struct front *front, const char *id, const char *user);
void front_listen(struct front *front, struct chardev *chardev);
size_t send_text(struct front *front, const char *text);

/* Runs the loop for a while; RUN_UNTIL: until the condition holds, five seconds at most. */
void run_for(unsigned ms);
#define RUN_UNTIL(condition)                                                                                           \
    do {                                                                                                               \
        for (unsigned tries_ = 0; !(condition); tries_++) {                                                            \
            cr_assert_lt(tries_, 1000u, "waited in vain: %s", #condition);                                             \
            run_for(5);                                                                                                \
        }                                                                                                              \
    } while (0)

/* Peers; descriptors do not block. */
int peer_unix(const char *path);
int peer_tcp(unsigned port);
int listen_unix(const char *path);
/* What is there to read now, as text, after running the loop until it is `size` bytes. */
const char *peer_read(int fd, size_t size);

#endif
