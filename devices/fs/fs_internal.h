/* An exported folder: what fsdev.c (options), fs_node.c (objects in it) and fs_map.c (owners and modes as the guest sees
 * them) share with the file server. All functions are for any thread. */
#ifndef EIDOLON_DEVICES_FS_FS_INTERNAL_H
#define EIDOLON_DEVICES_FS_FS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "devices/fs/fsdev.h"

#define FS_NAME_MAX    255
#define FS_LINK_MAX    4095
#define FS_DEVICES_MAX 256u /* file systems of the host in one export */
#define FS_PROC_PATH   32u

enum fs_model {
    FS_NONE,         /* owners and modes are the host's; failing to set an owner is no error */
    FS_PASSTHROUGH,  /* the same, but it is */
    FS_MAPPED_XATTR, /* they are kept in extended attributes user.virtfs.* */
    FS_MAPPED_FILE,  /* or in files below .virtfs_metadata */
};
enum fs_multidevs { FS_MULTIDEVS_WARN, FS_MULTIDEVS_REMAP, FS_MULTIDEVS_FORBID };

/* An object that somebody has reached. `fd` is O_PATH: it stays this object whatever is renamed meanwhile. */
struct fs_node {
    _Atomic unsigned refs;
    int fd;
    mode_t type; /* S_IFMT bits as on the host */
    struct fsdev *fsdev;
    /* Guarded by the fsdev's lock. */
    struct fs_node *parent; /* the root's own parent is the root */
    char name[FS_NAME_MAX + 1];
    struct fs_node *next, **link; /* of all nodes */
};

struct fsdev {
    struct fsdev *next;
    char id[64];
    char *path;
    enum fs_model model;
    enum fs_multidevs multidevs;
    bool read_only;
    mode_t file_mode, folder_mode; /* of what a mapped model creates */
    struct fs_node *root;
    unsigned max_fids; /* so that descriptors are left for the rest of the program */
    pthread_mutex_t lock;
    struct fs_node *nodes;         /* guarded by lock */
    dev_t devices[FS_DEVICES_MAX]; /* guarded by lock; [0]: the root's */
    unsigned device_count;
};

/* ---- Nodes ---- each reference is given back by fs_node_put(). Functions that return a node: NULL with *error = -errno. */

struct fs_node *fs_node_root(struct fsdev *fsdev, int *error);
struct fs_node *fs_node_get(struct fs_node *node);
void fs_node_put(struct fs_node *node);
/* One step: `name` in the folder `parent`; symbolic links are objects, never ways. ".." ends at the root. */
struct fs_node *fs_node_walk(struct fs_node *parent, const char *name, int *error);
/* The node of an open descriptor, which is `name` in `parent`. */
struct fs_node *fs_node_of_fd(struct fs_node *parent, const char *name, int fd, int *error);
/* Where it was found last. */
struct fs_node *fs_node_place(struct fs_node *node, char name[FS_NAME_MAX + 1]);
/* `old_name` in old_parent is now `new_name` in new_parent. */
void fs_node_moved(struct fs_node *old_parent, const char *old_name, struct fs_node *new_parent, const char *new_name);
/* /proc/self/fd/N: a path to the object, for system calls that take no O_PATH descriptor. */
void fs_node_proc_path(const struct fs_node *node, char path[FS_PROC_PATH]);
bool fs_node_same(const struct fs_node *a, const struct fs_node *b);
/* A number that no other object of the export has. -ENODEV: multidevs=forbid. */
int fs_inode_number(struct fsdev *fsdev, dev_t device, ino_t inode, uint64_t *number);

/* May a guest name this? -EINVAL, -EISDIR ... `mapped`: names that the mapping uses for itself do not exist. */
int fs_check_name(const struct fsdev *fsdev, const char *name);
bool fs_name_is_hidden(const struct fsdev *fsdev, const char *name);

/* ---- Owners, modes, kinds ---- */

struct fs_owner {
    uint32_t uid, gid;
};
bool fs_is_mapped(const struct fsdev *fsdev);
int fs_stat(struct fs_node *node, struct stat *st); /* as the guest sees it */
int fs_set_mode(struct fs_node *node, mode_t mode);
int fs_set_owner(struct fs_node *node, uint32_t uid, uint32_t gid); /* ~0: as it is */
/* What was just created: its owner and mode (kind included). `rdev` for devices. */
int fs_set_new(struct fs_node *node, struct fs_owner owner, mode_t mode, dev_t rdev);
mode_t fs_host_mode(const struct fsdev *fsdev, mode_t mode, bool folder); /* to create with */
int64_t fs_read_link(struct fs_node *node, char *target, size_t size);
bool fs_xattr_hidden(const struct fsdev *fsdev, const char *name);
/* mapped-file keeps beside the object what must go along with it. No-ops in other models. */
void fs_meta_unlinked(struct fs_node *parent, const char *name);
void fs_meta_renamed(struct fs_node *old_parent, const char *old_name, struct fs_node *new_parent,
                     const char *new_name);
void fs_meta_linked(struct fs_node *node, struct fs_node *parent, const char *name);
void fs_meta_empty_folder(struct fs_node *parent, const char *name); /* before rmdir */

#endif
