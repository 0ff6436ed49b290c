/* A 9P2000.L client of a server in the same process, on a folder of its own below /tmp. */
#ifndef EIDOLON_TESTS_FS_P9_CLIENT_H
#define EIDOLON_TESTS_FS_P9_CLIENT_H

#include <sys/stat.h>

#include "devices/fs/p9.h"

#define ROOT   0u
#define MSIZE  65536u
#define NO_FID 0xffffffffu

enum {
    T_STATFS = 8,
    T_LOPEN = 12,
    T_LCREATE = 14,
    T_SYMLINK = 16,
    T_MKNOD = 18,
    T_RENAME = 20,
    T_READLINK = 22,
    T_GETATTR = 24,
    T_SETATTR = 26,
    T_XATTRWALK = 30,
    T_XATTRCREATE = 32,
    T_READDIR = 40,
    T_FSYNC = 50,
    T_LOCK = 52,
    T_GETLOCK = 54,
    T_LINK = 70,
    T_MKDIR = 72,
    T_RENAMEAT = 74,
    T_UNLINKAT = 76,
    T_VERSION = 100,
    T_AUTH = 102,
    T_ATTACH = 104,
    T_FLUSH = 108,
    T_WALK = 110,
    T_READ = 116,
    T_WRITE = 118,
    T_CLUNK = 120,
    T_REMOVE = 122,
};

struct client {
    struct fsdev_registry *registry;
    struct p9_server *server;
    char top[64]; /* holds "share" and what must stay out of reach beside it */
    char share[80];
    uint8_t message[1 << 17], reply[1 << 17];
    uint32_t size, reply_size, at; /* of message; of reply; where the next value of the reply is */
};

/* Makes the folder, the export with these options ("security_model=none"), version and attach. */
void client_start(struct client *client, const char *options);
void client_stop(struct client *client);
const char *client_path(struct client *client, const char *name); /* on the host; below share */
void client_put_file(struct client *client, const char *name, const char *text);

/* Sends a message; 0, or -errno as the server says. `format`: b, w, d, q: 1, 2, 4, 8 bytes (int, int, uint32_t, uint64_t); s: a string; r: bytes (pointer,
 * uint32_t). */
int call(struct client *client, uint8_t type, const char *format, ...);
int call_raw(struct client *client); /* what is in `message` already */
void build(struct client *client, uint8_t type, const char *format, ...);
uint64_t take(struct client *client, unsigned bytes); /* out of the reply */
const char *take_string(struct client *client);
struct qid {
    uint8_t type;
    uint32_t version;
    uint64_t path;
};
struct qid take_qid(struct client *client);

/* Steps of "a/b/c" from the root, as given, but at most 16. */
int walk(struct client *client, uint32_t fid, const char *path);
int walk_from(struct client *client, uint32_t from, uint32_t fid, const char *path);
int clunk(struct client *client, uint32_t fid);
/* Of a fid; mode 0: failed. */
struct stat attributes(struct client *client, uint32_t fid);
/* Opens, reads, clunks; NULL: failed. */
const char *read_file(struct client *client, const char *path);

#endif
