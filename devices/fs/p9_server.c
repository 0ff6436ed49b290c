/* The 9P2000.L server: versions, attaching, and who handles what.
 *
 * Protocol: the 9P2000 manual (intro(5) of Plan 9) and diod's description of 9P2000.L; clients are Linux's and those that
 * behave like it. Only 9P2000.L is spoken. Owners are numbers; there is no authentication: who can reach the device may do
 * what the program may do in the folder.
 *
 * Any thread. Requests are independent but for the fids they share, see p9_fid.c. */
#include "devices/fs/p9.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/fs/p9_internal.h"

enum { RLERROR = 7 };

static int p9_version(struct p9_call *call)
{
    char version[64];
    uint32_t msize = p9_get32(&call->in);

    p9_get_string(&call->in, version, sizeof(version));
    if (call->in.error)
        return call->in.error;
    if (msize < P9_MSIZE_MIN)
        return -EMSGSIZE;
    msize = MIN(msize, P9_MSIZE_MAX);
    p9_fid_remove_all(call->server); /* a new session */
    atomic_store(&call->server->msize, msize);
    p9_put(&call->out, msize, 4);
    if (!strcmp(version, "9P2000.L"))
        p9_put_string(&call->out, "9P2000.L", 8);
    else
        p9_put_string(&call->out, "unknown", 7);
    return 0;
}

static int p9_auth(struct p9_call *call)
{
    (void)call;
    return -EOPNOTSUPP; /* none is needed */
}

static int p9_attach(struct p9_call *call)
{
    uint32_t number = p9_get32(&call->in), auth = p9_get32(&call->in), uid;
    char user[FS_NAME_MAX + 1], name[FS_LINK_MAX + 1];
    struct stat st;
    int result;

    p9_get_string(&call->in, user, sizeof(user));
    p9_get_string(&call->in, name, sizeof(name)); /* the folder is the one of this export, whatever the name */
    uid = p9_get32(&call->in);
    if (call->in.error)
        return call->in.error;
    if (auth != P9_NO_FID)
        return -EINVAL;
    result = fs_stat(call->fsdev->root, &st);
    result = result ?: p9_put_qid(&call->out, call->fsdev, &st);
    return result ?: p9_fid_add(call->server, number, uid, fs_node_get(call->fsdev->root), NULL);
}

/* Who calls has seen to it that the other request is done. */
static int p9_flush(struct p9_call *call)
{
    (void)call;
    return 0;
}

static const struct {
    p9_handler *handle;
    bool writes; /* refused on a read-only export */
} handlers[128] = {
    [8] = { p9_statfs },
    [12] = { p9_lopen },
    [14] = { p9_lcreate, true },
    [16] = { p9_symlink, true },
    [18] = { p9_mknod, true },
    [20] = { p9_rename, true },
    [22] = { p9_readlink },
    [24] = { p9_getattr },
    [26] = { p9_setattr, true },
    [30] = { p9_xattrwalk },
    [32] = { p9_xattrcreate, true },
    [40] = { p9_readdir },
    [50] = { p9_fsync },
    [52] = { p9_lock },
    [54] = { p9_getlock },
    [70] = { p9_link, true },
    [72] = { p9_mkdir, true },
    [74] = { p9_renameat, true },
    [76] = { p9_unlinkat, true },
    [100] = { p9_version },
    [102] = { p9_auth },
    [104] = { p9_attach },
    [108] = { p9_flush },
    [110] = { p9_walk },
    [116] = { p9_read },
    [118] = { p9_write, true },
    [120] = { p9_clunk },
    [122] = { p9_remove, true },
};

static int run(struct p9_call *call, uint8_t type, uint32_t stated_size)
{
    uint32_t msize = atomic_load(&call->server->msize);

    if (stated_size != call->in.size)
        return -EINVAL;
    if (type >= ARRAY_SIZE(handlers) || !handlers[type].handle)
        return -EOPNOTSUPP;
    if (type != P9_TVERSION && !msize)
        return -EINVAL; /* no session */
    if (type != P9_TVERSION && call->in.size > msize)
        return -EMSGSIZE;
    if (handlers[type].writes && call->fsdev->read_only) {
        if (type == 122) { /* a failed remove still clunks */
            struct p9_fid *fid = p9_fid_get(call->server, p9_get32(&call->in));
            if (fid)
                p9_fid_remove(call->server, fid);
            p9_fid_put(call->server, fid);
        }
        return -EROFS;
    }
    return handlers[type].handle(call);
}

uint32_t p9_server_execute(struct p9_server *server, const uint8_t *message, uint32_t size, uint8_t *reply,
                           uint32_t capacity)
{
    uint32_t msize = atomic_load(&server->msize);
    struct p9_call call = {
        .server = server,
        .fsdev = server->fsdev,
        .in = { .data = message, .size = size },
        .out = { .data = reply, .size = P9_HEADER_SIZE, .capacity = MIN(capacity, MAX(msize, P9_MSIZE_MIN)) },
    };
    uint32_t stated_size = p9_get32(&call.in);
    uint8_t type = (uint8_t)p9_get(&call.in, 1);
    uint16_t tag = (uint16_t)p9_get(&call.in, 2);
    int result = run(&call, type, stated_size);

    if (!result && call.in.error)
        result = call.in.error;
    if (!result && call.out.full)
        result = -ENOBUFS;
    if (result) {
        call.out.size = P9_HEADER_SIZE;
        call.out.full = false;
        p9_put(&call.out, (uint32_t)-result, 4);
        type = RLERROR - 1;
    }
    memcpy(reply, &call.out.size, 4);
    reply[4] = (uint8_t)(type + 1);
    memcpy(reply + 5, &tag, 2);
    return call.out.size;
}

struct p9_server *p9_server_create(struct fsdev *fsdev, struct error *err)
{
    struct p9_server *server = calloc(1, sizeof(*server));

    if (!server) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    server->fsdev = fsdev;
    pthread_mutex_init(&server->lock, NULL);
    return server;
}

void p9_server_reset(struct p9_server *server)
{
    p9_fid_remove_all(server);
    atomic_store(&server->msize, 0);
}

unsigned p9_server_fids(struct p9_server *server)
{
    unsigned count;

    pthread_mutex_lock(&server->lock);
    count = server->fid_count;
    pthread_mutex_unlock(&server->lock);
    return count;
}

void p9_server_destroy(struct p9_server *server)
{
    if (!server)
        return;
    p9_fid_remove_all(server);
    pthread_mutex_destroy(&server->lock);
    free(server);
}
