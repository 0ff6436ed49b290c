/* Fids: the client's handles. The table and reference counts are guarded by the server's lock, a fid's contents by its
 * own; the server's is never taken with a fid's held. A fid that is clunked while others use it lives until they are done. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "devices/fs/p9_internal.h"

static struct p9_fid **bucket(struct p9_server *server, uint32_t number)
{
    return &server->fids[(number ^ number >> 10 ^ number >> 20) % P9_FID_BUCKETS];
}

static void free_fid(struct p9_server *server, struct p9_fid *fid)
{
    if (fid->fd >= 0)
        close(fid->fd);
    p9_xattr_free(server, fid);
    fs_node_put(fid->node);
    pthread_rwlock_destroy(&fid->lock);
    free(fid);
}

struct p9_fid *p9_fid_get(struct p9_server *server, uint32_t number)
{
    struct p9_fid *fid;

    pthread_mutex_lock(&server->lock);
    fid = *bucket(server, number);
    while (fid && fid->number != number)
        fid = fid->next;
    if (fid)
        fid->refs++;
    pthread_mutex_unlock(&server->lock);
    return fid;
}

void p9_fid_put(struct p9_server *server, struct p9_fid *fid)
{
    bool last;

    if (!fid)
        return;
    pthread_mutex_lock(&server->lock);
    last = --fid->refs == 0;
    pthread_mutex_unlock(&server->lock);
    if (last)
        free_fid(server, fid);
}

/* Under the lock. */
static int insert(struct p9_server *server, struct p9_fid *fid)
{
    struct p9_fid **head = bucket(server, fid->number);

    if (server->fid_count >= server->fsdev->max_fids)
        return -ENFILE;
    for (struct p9_fid *other = *head; other; other = other->next) {
        if (other->number == fid->number)
            return -EEXIST;
    }
    fid->next = *head;
    *head = fid;
    server->fid_count++;
    return 0;
}

int p9_fid_add(struct p9_server *server, uint32_t number, uint32_t uid, struct fs_node *node, struct p9_fid **out)
{
    struct p9_fid *fid = calloc(1, sizeof(*fid));
    int result = number == P9_NO_FID ? -EINVAL : 0;

    if (!fid) {
        fs_node_put(node);
        return -ENOMEM;
    }
    *fid = (struct p9_fid){ .number = number, .uid = uid, .refs = out ? 2 : 1, .node = node, .fd = -1 };
    pthread_rwlock_init(&fid->lock, NULL);
    pthread_mutex_lock(&server->lock);
    result = result ?: insert(server, fid);
    pthread_mutex_unlock(&server->lock);
    if (result)
        free_fid(server, fid);
    else if (out)
        *out = fid;
    return result;
}

void p9_fid_remove(struct p9_server *server, struct p9_fid *fid)
{
    bool found = false;

    pthread_mutex_lock(&server->lock);
    for (struct p9_fid **link = bucket(server, fid->number); *link && !found; link = &(*link)->next) {
        if (*link == fid) {
            *link = fid->next;
            server->fid_count--;
            found = true;
            break;
        }
    }
    pthread_mutex_unlock(&server->lock);
    if (found) /* two clunks at once: the table's reference is given back once */
        p9_fid_put(server, fid);
}

void p9_fid_remove_all(struct p9_server *server)
{
    for (unsigned i = 0; i < P9_FID_BUCKETS; i++) {
        for (;;) {
            struct p9_fid *fid;

            pthread_mutex_lock(&server->lock);
            fid = server->fids[i];
            if (fid) {
                server->fids[i] = fid->next;
                server->fid_count--;
            }
            pthread_mutex_unlock(&server->lock);
            if (!fid)
                break;
            p9_fid_put(server, fid);
        }
    }
}

struct fs_node *p9_fid_node(struct p9_server *server, uint32_t number, int *error)
{
    struct p9_fid *fid = p9_fid_get(server, number);
    struct fs_node *node;

    if (!fid) {
        *error = -EBADF;
        return NULL;
    }
    pthread_rwlock_rdlock(&fid->lock);
    node = fs_node_get(fid->node);
    pthread_rwlock_unlock(&fid->lock);
    p9_fid_put(server, fid);
    return node;
}
