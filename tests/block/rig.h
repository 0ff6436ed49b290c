/* A registry of drives, an event loop on a thread of its own, files to play with, and requests that a test waits for. */
#ifndef EIDOLON_TESTS_BLOCK_RIG_H
#define EIDOLON_TESTS_BLOCK_RIG_H

#include <criterion/criterion.h>

#include "devices/block/block_internal.h"

extern struct event_loop *rig_loop;
extern struct block_registry *rig_registry;
extern struct error rig_err;
extern char rig_folder[256]; /* made for this test, removed after it */

void rig_start(void); /* folder, loop, thread, registry */
void rig_stop(void);
/* Instead of cr_skip_test(), after which a suite's fini may not run. */
#define rig_skip(...)                                                                                                  \
    do {                                                                                                               \
        rig_stop();                                                                                                    \
        cr_skip_test(__VA_ARGS__);                                                                                     \
    } while (0)
void rig_restart_registry(void); /* all drives closed, none left */

/* rig_folder/name, in a buffer that the 32nd call after it overwrites. */
const char *rig_path(const char *name);
/* A file of `size` bytes whose sectors say where they are; its path. */
const char *rig_file(const char *name, uint64_t size);
void rig_pattern(uint8_t *data, uint64_t offset, uint64_t size); /* what rig_file() has there */

/* -drive and -blockdev; the test fails with the message if they do. */
struct block *rig_drive(const char *format, ...) printf_like(1, 2);
struct block *rig_blockdev(const char *format, ...) printf_like(1, 2);
/* What they say when they fail; "" with a test failure if they do not. */
const char *rig_drive_error(const char *format, ...) printf_like(1, 2);
const char *rig_blockdev_error(const char *format, ...) printf_like(1, 2);

/* A request that may be waited for. */
struct rig_request {
    struct block_request request;
    struct iovec iov[8];
    uint8_t *data;
    bool done; /* guarded by a lock of the rig */
};
void rig_submit(struct block *block, struct rig_request *request);
int rig_wait(struct rig_request *request);                       /* its result */
void rig_wait_any(struct rig_request *requests, unsigned count); /* until one of them is done */
bool rig_is_done(struct rig_request *request);
/* All in one. */
int rig_do(struct block *block, enum block_op op, uint64_t offset, void *data, uint64_t size, unsigned flags);
void rig_on_loop(void (*fn)(void *opaque), void *opaque); /* on the loop's thread, its lock held; waits */

/* A shell command: its exit status; what it printed in *output (4095 bytes at most) if not NULL. */
int rig_shell(char *output, const char *format, ...) printf_like(2, 3);
bool rig_have(const char *program);

/* xorshift64*; never 0. */
uint64_t rig_random(uint64_t *state);

#endif
