/* A 9P2000.L file server: executes one message at a time against an exported folder, without knowing how messages come. */
#ifndef EIDOLON_DEVICES_FS_P9_H
#define EIDOLON_DEVICES_FS_P9_H

#include "devices/fs/fsdev.h"

#define P9_MSIZE_MIN   4096u
#define P9_MSIZE_MAX   (1u << 20)
#define P9_HEADER_SIZE 7u  /* size[4] type[1] tag[2] */
#define P9_ERROR_SIZE  11u /* the shortest reply that always fits: Rlerror */

enum { P9_TFLUSH = 108, P9_TVERSION = 100 };

struct p9_server;

struct p9_server *p9_server_create(struct fsdev *fsdev, struct error *err);
void p9_server_destroy(struct p9_server *server); /* nothing is being executed any more */
/* Executes the message of `size` bytes (at least P9_HEADER_SIZE) and writes the answer, whose size it returns; `capacity` is at
 * least P9_ERROR_SIZE. Whatever the message holds, there is an answer. Any thread, several at once; messages that depend on
 * each other are the caller's to order (Tflush is answered at once). */
uint32_t p9_server_execute(struct p9_server *server, const uint8_t *message, uint32_t size, uint8_t *reply,
                           uint32_t capacity);
void p9_server_reset(
    struct p9_server *server); /* the client is gone: its files are closed. Nothing is being executed. */
unsigned p9_server_fids(struct p9_server *server); /* how many are open, for tests */

#endif
