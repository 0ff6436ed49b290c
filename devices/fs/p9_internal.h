/* What the files of the 9P server share: messages, fids, the handlers of requests. Any thread. */
#ifndef EIDOLON_DEVICES_FS_P9_INTERNAL_H
#define EIDOLON_DEVICES_FS_P9_INTERNAL_H

#include <dirent.h>

#include "devices/fs/fs_internal.h"
#include "devices/fs/p9.h"

#define P9_FID_BUCKETS 1024u
#define P9_WALK_MAX    16u
#define P9_IO_HEADER   24u /* of Tread and Twrite, as clients count it */
#define P9_XATTR_MAX   65536u
#define P9_XATTR_TOTAL (16u << 20) /* bytes of values that a client may have under way */
#define P9_NO_FID      0xffffffffu

/* ---- Messages (p9_wire.c) ---- little-endian; strings are size[2] and bytes */

struct p9_in {
    const uint8_t *data;
    uint32_t size, at;
    int error; /* 0, or why the message is malformed; values are 0 and "" from then on */
};
struct p9_out {
    uint8_t *data;
    uint32_t size, capacity;
    bool full; /* something did not fit */
};

uint64_t p9_get(struct p9_in *in, unsigned bytes);
static inline uint32_t p9_get32(struct p9_in *in)
{
    return (uint32_t)p9_get(in, 4);
}
/* Into `text` of `capacity` bytes, with a NUL; a string with a NUL in it, or a longer one, is an error. */
void p9_get_string(struct p9_in *in, char *text, uint32_t capacity);
/* A name in a folder, checked: one that a guest may give. */
void p9_get_name(struct p9_in *in, const struct fsdev *fsdev, char name[FS_NAME_MAX + 1]);
const uint8_t *p9_get_bytes(struct p9_in *in, uint32_t size); /* NULL: not there */

void p9_put(struct p9_out *out, uint64_t value, unsigned bytes);
void p9_put_string(struct p9_out *out, const char *text, size_t size);
void p9_put_bytes(struct p9_out *out, const void *data, uint32_t size);
/* struct qid: type[1] version[4] path[8] */
int p9_put_qid(struct p9_out *out, struct fsdev *fsdev, const struct stat *st);
#define P9_QID_SIZE 13u

/* ---- Fids (p9_fid.c) ---- */

enum p9_fid_kind { P9_PATH, P9_FILE, P9_FOLDER, P9_XATTR_READ, P9_XATTR_WRITE };

struct p9_fid {
    uint32_t number;
    uint32_t uid;          /* of who attached */
    unsigned refs;         /* guarded by the server's lock; the table has one */
    struct p9_fid *next;   /* in its bucket; guarded by the server's lock */
    pthread_rwlock_t lock; /* guards what follows; data is read and written with it shared */
    enum p9_fid_kind kind;
    struct fs_node *node;
    int fd; /* FILE, FOLDER; else -1 */
    uint8_t *value;
    uint32_t value_size, value_done;
    int xattr_flags;
    char *xattr_name;
};

struct p9_server {
    struct fsdev *fsdev;
    _Atomic uint32_t msize;
    _Atomic uint32_t xattr_bytes;
    pthread_mutex_t lock;
    unsigned fid_count; /* guarded by lock, like the table */
    struct p9_fid *fids[P9_FID_BUCKETS];
};

struct p9_call {
    struct p9_server *server;
    struct fsdev *fsdev;
    struct p9_in in;
    struct p9_out out;
};

/* NULL: there is none; given back by p9_fid_put(). */
struct p9_fid *p9_fid_get(struct p9_server *server, uint32_t number);
void p9_fid_put(struct p9_server *server, struct p9_fid *fid);
/* 0, -EEXIST, -ENFILE, -ENOMEM; takes the node's reference also then. */
int p9_fid_add(struct p9_server *server, uint32_t number, uint32_t uid, struct fs_node *node, struct p9_fid **out);
void p9_fid_remove(struct p9_server *server, struct p9_fid *fid); /* out of the table; the caller still has its own */
void p9_fid_remove_all(struct p9_server *server);
/* The node of the fid, with a reference; NULL with *error. */
struct fs_node *p9_fid_node(struct p9_server *server, uint32_t number, int *error);

/* ---- Requests ---- each reads call->in, writes call->out behind the header; 0 or -errno */

typedef int p9_handler(struct p9_call *call);
/* p9_file.c */
p9_handler p9_lopen, p9_lcreate, p9_read, p9_write, p9_fsync, p9_clunk, p9_lock, p9_getlock;
int p9_open_node(struct fs_node *node, uint32_t flags); /* a descriptor of a regular file or folder, or -errno */
/* p9_folder.c */
p9_handler p9_walk, p9_readdir, p9_mkdir, p9_symlink, p9_mknod, p9_link, p9_rename, p9_renameat, p9_unlinkat, p9_remove,
    p9_readlink;
/* p9_attribute.c */
p9_handler p9_getattr, p9_setattr, p9_statfs, p9_xattrwalk, p9_xattrcreate;
int p9_xattr_commit(struct p9_fid *fid); /* on clunk */
void p9_xattr_free(struct p9_server *server, struct p9_fid *fid);

#endif
