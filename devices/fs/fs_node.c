/* Objects in an exported folder.
 *
 * A guest gets about by one step at a time: openat(parent, name, O_PATH | O_NOFOLLOW) with a name that has no slash in it
 * and is not "..". So no symbolic link is ever followed, and what is outside cannot be named, whoever renames what
 * meanwhile: there is no path to race with. ".." is the node's parent as it was reached. What a system call can only do by
 * path, is done through /proc/self/fd/N, which is the object itself.
 *
 * Any thread. A node's parent lives as long as the node. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "devices/fs/fs_internal.h"

#define DEVICE_SHIFT 48

static struct fs_node *new_node(struct fsdev *fsdev, struct fs_node *parent, const char *name, int fd, int *error)
{
    struct fs_node *node = calloc(1, sizeof(*node));
    struct stat st;

    *error = node ? 0 : -ENOMEM;
    if (!*error && fstat(fd, &st))
        *error = -errno;
    if (*error) {
        free(node);
        close(fd);
        return NULL;
    }
    node->refs = 1;
    node->fd = fd;
    node->type = st.st_mode & S_IFMT;
    node->fsdev = fsdev;
    node->parent = parent ? fs_node_get(parent) : node;
    snprintf(node->name, sizeof(node->name), "%s", name);
    pthread_mutex_lock(&fsdev->lock);
    node->next = fsdev->nodes;
    node->link = &fsdev->nodes;
    if (node->next)
        node->next->link = &node->next;
    fsdev->nodes = node;
    pthread_mutex_unlock(&fsdev->lock);
    return node;
}

struct fs_node *fs_node_root(struct fsdev *fsdev, int *error)
{
    int fd = open(fsdev->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct fs_node *root;
    struct stat st;

    if (fd < 0) {
        *error = -errno;
        return NULL;
    }
    root = new_node(fsdev, NULL, "", fd, error);
    if (root && !fstat(fd, &st)) {
        fsdev->devices[0] = st.st_dev;
        fsdev->device_count = 1;
    }
    return root;
}

struct fs_node *fs_node_get(struct fs_node *node)
{
    atomic_fetch_add_explicit(&node->refs, 1, memory_order_relaxed);
    return node;
}

void fs_node_put(struct fs_node *node)
{
    while (node && atomic_fetch_sub_explicit(&node->refs, 1, memory_order_acq_rel) == 1) {
        struct fs_node *parent = node->parent != node ? node->parent : NULL;

        pthread_mutex_lock(&node->fsdev->lock);
        *node->link = node->next;
        if (node->next)
            node->next->link = node->link;
        parent = node->parent != node ? node->parent : NULL; /* fs_node_moved() may have come first */
        pthread_mutex_unlock(&node->fsdev->lock);
        close(node->fd);
        free(node);
        node = parent;
    }
}

struct fs_node *fs_node_place(struct fs_node *node, char name[FS_NAME_MAX + 1])
{
    struct fs_node *parent;

    pthread_mutex_lock(&node->fsdev->lock);
    parent = fs_node_get(node->parent);
    memcpy(name, node->name, FS_NAME_MAX + 1);
    pthread_mutex_unlock(&node->fsdev->lock);
    return parent;
}

bool fs_node_same(const struct fs_node *a, const struct fs_node *b)
{
    struct stat x, y;

    if (a == b)
        return true;
    return !fstat(a->fd, &x) && !fstat(b->fd, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

struct fs_node *fs_node_walk(struct fs_node *parent, const char *name, int *error)
{
    struct fsdev *fsdev = parent->fsdev;
    struct stat st;
    uint64_t number;
    int fd;

    if (!strcmp(name, "..")) {
        char unused[FS_NAME_MAX + 1];

        *error = S_ISDIR(parent->type) ? 0 : -ENOTDIR;
        return *error ? NULL : fs_node_place(parent, unused);
    }
    *error = fs_check_name(fsdev, name);
    if (*error)
        return NULL;
    fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        *error = -errno;
        return NULL;
    }
    if (fsdev->multidevs == FS_MULTIDEVS_FORBID && !fstat(fd, &st) &&
        (*error = fs_inode_number(fsdev, st.st_dev, st.st_ino, &number))) {
        close(fd);
        return NULL;
    }
    return new_node(fsdev, parent, name, fd, error);
}

struct fs_node *fs_node_of_fd(struct fs_node *parent, const char *name, int fd, int *error)
{
    char path[FS_PROC_PATH];
    int own;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    own = open(path, O_PATH | O_CLOEXEC);
    if (own < 0) {
        *error = -errno;
        return NULL;
    }
    return new_node(parent->fsdev, parent, name, own, error);
}

/* A cycle cannot come about: the host has refused to move a folder into itself. But what the host does behind our back might
 * make one; a node never becomes an ancestor of itself. */
static bool is_below(const struct fs_node *node, const struct fs_node *ancestor)
{
    for (unsigned depth = 0; depth < 4096; depth++) {
        if (node == ancestor)
            return true;
        if (node->parent == node)
            return false;
        node = node->parent;
    }
    return true;
}

/* Moves some of them; false: there are no more. */
static bool move_some(struct fs_node *old_parent, const char *old_name, struct fs_node *new_parent,
                      const char *new_name)
{
    struct fsdev *fsdev = old_parent->fsdev;
    struct fs_node *dropped[64];
    unsigned count = 0, moved;

    pthread_mutex_lock(&fsdev->lock);
    for (struct fs_node *node = fsdev->nodes; node && count < ARRAY_SIZE(dropped); node = node->next) {
        if (node->parent == node || strcmp(node->name, old_name) || !fs_node_same(node->parent, old_parent) ||
            is_below(new_parent, node))
            continue;
        dropped[count++] = node->parent;
        node->parent = fs_node_get(new_parent);
        snprintf(node->name, sizeof(node->name), "%s", new_name);
    }
    pthread_mutex_unlock(&fsdev->lock);
    moved = count;
    while (count)
        fs_node_put(dropped[--count]);
    return moved == ARRAY_SIZE(dropped);
}

void fs_node_moved(struct fs_node *old_parent, const char *old_name, struct fs_node *new_parent, const char *new_name)
{
    if (!strcmp(old_name, new_name) && fs_node_same(old_parent, new_parent))
        return;
    while (move_some(old_parent, old_name, new_parent, new_name)) {
    }
}

void fs_node_proc_path(const struct fs_node *node, char path[FS_PROC_PATH])
{
    snprintf(path, FS_PROC_PATH, "/proc/self/fd/%d", node->fd);
}

/* ---- Numbers ---- */

/* The index of the device, or -1: there are too many. */
static int device_index(struct fsdev *fsdev, dev_t device)
{
    int index = -1;

    pthread_mutex_lock(&fsdev->lock);
    for (unsigned i = 0; i < fsdev->device_count && index < 0; i++) {
        if (fsdev->devices[i] == device)
            index = (int)i;
    }
    if (index < 0 && fsdev->device_count < FS_DEVICES_MAX) {
        index = (int)fsdev->device_count;
        fsdev->devices[fsdev->device_count++] = device;
    }
    pthread_mutex_unlock(&fsdev->lock);
    return index;
}

int fs_inode_number(struct fsdev *fsdev, dev_t device, ino_t inode, uint64_t *number)
{
    int index;

    *number = inode;
    if (device == fsdev->devices[0])
        return 0;
    if (fsdev->multidevs == FS_MULTIDEVS_FORBID) {
        log_warn("fsdev '%s': there is another file system in it, which multidevs=forbid hides", fsdev->id);
        return -ENODEV;
    }
    if (fsdev->multidevs == FS_MULTIDEVS_WARN) {
        log_warn("fsdev '%s': there is another file system in it: two files may look like one to the guest "
                 "(multidevs=remap avoids that)",
                 fsdev->id);
        return 0;
    }
    index = device_index(fsdev, device);
    if (index < 0)
        return -ENODEV;
    *number ^= (uint64_t)index << DEVICE_SHIFT; /* upper bits that file systems leave 0 */
    return 0;
}

/* ---- Names ---- */

bool fs_name_is_hidden(const struct fsdev *fsdev, const char *name)
{
    return fsdev->model == FS_MAPPED_FILE &&
           (!strcmp(name, ".virtfs_metadata") || !strcmp(name, ".virtfs_metadata_root"));
}

int fs_check_name(const struct fsdev *fsdev, const char *name)
{
    if (!*name)
        return -ENOENT;
    if (strchr(name, '/'))
        return -EINVAL;
    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return -EINVAL;
    if (strlen(name) > FS_NAME_MAX)
        return -ENAMETOOLONG;
    return fs_name_is_hidden(fsdev, name) ? -ENOENT : 0;
}
