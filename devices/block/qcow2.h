/* QCOW2 images (versions 2 and 3) as a synchronous library: every call does its I/O before it returns, any thread may call,
 * and calls on one image run in parallel as far as they can: data I/O of clusters that exist holds no lock.
 *
 * The image lies in a `struct qcow2_file` that the caller provides; a backing file is a `struct qcow2_backing` that the
 * caller's opener provides. qcow2_map() never blocks and is for callers that do the data I/O themselves.
 * Offsets and sizes are in bytes and need no alignment. Functions return 0 or -errno. docs/devices/qcow2.md. */
#ifndef EIDOLON_DEVICES_BLOCK_QCOW2_H
#define EIDOLON_DEVICES_BLOCK_QCOW2_H

#include <sys/uio.h>

#include "base/error.h"
#include "base/types.h"

struct qcow2; /* an open image */

/* ---- What the caller provides ---- */

/* The file below. All functions may be called by several threads at once; they return 0 or -errno and never less than
 * everything: a short read is an error, except that what lies past the end of the file reads as zeroes. Metadata is read and written
 * in aligned units of 512 bytes; compressed clusters and what the guest asks for come as they are. */
struct qcow2_file_ops {
    int (*read)(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count);
    int (*write)(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count); /* may grow the file */
    int (*flush)(void *opaque); /* everything written before is on stable storage after */
    /* Optional, like `discard` and `allocate` (-ENOTSUP or NULL: zeroes are written). The range reads as zeroes after. */
    int (*zero)(void *opaque, uint64_t offset, uint64_t size, bool may_unmap);
    int (*discard)(void *opaque, uint64_t offset, uint64_t size);  /* the content is of no interest any more */
    int (*allocate)(void *opaque, uint64_t offset, uint64_t size); /* reserve space; may grow the file; content stays */
    int (*truncate)(void *opaque, uint64_t size);
    int (*size)(void *opaque, uint64_t *size);
    void (*close)(void *opaque); /* optional */
};
struct qcow2_file {
    const struct qcow2_file_ops *ops;
    void *opaque;
};

/* What is below unallocated clusters. Reads past its end give zeroes. */
struct qcow2_backing_ops {
    int (*read)(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count);
    uint64_t (*size)(void *opaque); /* bytes; does not change while the image is open */
    void (*close)(void *opaque);    /* optional */
};
struct qcow2_backing {
    const struct qcow2_backing_ops *ops;
    void *opaque;
};

/* Opens what the image names: `name` as it is in the file (qcow2_backing_path resolves it), `format` or NULL: none is given, which
 * should be refused or probed with care: a guest that can write a raw backing file can make it look like a qcow2 one. */
struct qcow2_backing_opener {
    int (*open)(void *opaque, const char *name, const char *format, struct qcow2_backing *backing, struct error *err);
    void *opaque;
};

/* ---- Open, close ---- */

enum {
    QCOW2_READ_ONLY = 1 << 0,
    QCOW2_NO_BACKING = 1 << 1, /* do not open it: unallocated clusters read as zeroes. For tools. */
    QCOW2_UNMAP = 1 << 2,      /* clusters that become free are discarded in the file (discard=unmap) */
    QCOW2_CHECK = 1 << 3,      /* for qcow2_check(): opens what is dirty or corrupt, and repairs nothing by itself */
};

/* Looks at the first bytes: 1 a qcow2 image of any version, 0 not, or -errno. */
int qcow2_probe(const struct qcow2_file *file);
/* Takes over `file` if it succeeds. `opener` may be NULL if flags say NO_BACKING or the image has no backing file.
 * An image whose dirty bit is set is repaired first (unless READ_ONLY or CHECK). Memory: docs/devices/qcow2.md. */
int qcow2_open(const struct qcow2_file *file, const struct qcow2_backing_opener *opener, unsigned flags,
               struct qcow2 **image, struct error *err);
/* Writes what is cached, closes file and backing. No call may be under way and no pin held. The image is gone in any case;
 * the result says whether everything was written. */
int qcow2_close(struct qcow2 *image);

struct qcow2_snapshot_info {
    char *id, *name;
    uint64_t vm_state_size, vm_clock_ns, disk_size, icount; /* icount: UINT64_MAX if not recorded */
    uint32_t date_seconds, date_ns;
};
struct qcow2_info {
    uint64_t size; /* of the virtual disk */
    uint32_t version, cluster_size, refcount_bits;
    bool read_only, lazy_refcounts, dirty, corrupt, extended_l2, zstd;
    bool bitmaps; /* consistent persistent bitmaps are there; they are gone with the first write */
    const char *backing_name, *backing_format; /* NULL: none */
    const struct qcow2_snapshot_info *snapshots;
    unsigned snapshot_count;
};
/* Valid until the image is closed; `size` changes with qcow2_resize. */
const struct qcow2_info *qcow2_info(const struct qcow2 *image);
uint64_t qcow2_size(const struct qcow2 *image); /* any thread, any time */

/* ---- Read and write ---- */

int qcow2_read(struct qcow2 *image, uint64_t offset, const struct iovec *iov, unsigned count);
int qcow2_write(struct qcow2 *image, uint64_t offset, const struct iovec *iov, unsigned count);
/* One whole cluster (or what is left of the disk's last one), compressed if that makes it smaller. The cluster's old content is
 * replaced. For copying into new images. */
int qcow2_write_compressed(struct qcow2 *image, uint64_t offset, const void *data, size_t size);
/* Everything written before is on stable storage and can be found there after. */
int qcow2_flush(struct qcow2 *image);
/* Advisory, whole clusters. What is discarded reads as zeroes if the image can say so, else it keeps its content. */
int qcow2_discard(struct qcow2 *image, uint64_t offset, uint64_t size);
/* may_unmap: clusters are given back; else they stay allocated where they are. */
int qcow2_write_zeroes(struct qcow2 *image, uint64_t offset, uint64_t size, bool may_unmap);

/* ---- Where things are ---- */

enum qcow2_kind {
    QCOW2_UNALLOCATED, /* nothing here and below: reads as zeroes */
    QCOW2_BACKING,     /* unallocated: the backing file's content at the same offset */
    QCOW2_ZERO,        /* zeroes, whatever is below */
    QCOW2_DATA,        /* at host_offset in the file */
    QCOW2_COMPRESSED,  /* compressed: use qcow2_read */
};
struct qcow2_extent {
    enum qcow2_kind kind;
    uint64_t size;        /* for this many bytes from the offset that was asked for; never 0 */
    uint64_t host_offset; /* DATA; ZERO: what is allocated for it, or 0 */
    bool in_place;        /* DATA: may be written there */
};

/* Says that somebody does I/O at an extent. Nothing moves or frees it meanwhile. The memory is the caller's; the fields are not. */
struct qcow2_pin {
    struct qcow2_pin *previous, *next;
    uint64_t start, end;
    bool exclusive, active;
};

/* Where `offset` is, looking at no more than `size` bytes. Never blocks, never does I/O: -EAGAIN if the table is not in memory,
 * somebody is just allocating there, or (for_write) the extent is not DATA that may be written in place: then
 * qcow2_read/qcow2_write on another thread will do it. With a pin, and only if the extent is DATA, the extent is pinned; do the I/O
 * at host_offset, then qcow2_unpin() from any thread. */
int qcow2_map(struct qcow2 *image, uint64_t offset, uint64_t size, bool for_write, struct qcow2_pin *pin,
              struct qcow2_extent *extent);
void qcow2_unpin(struct qcow2 *image, struct qcow2_pin *pin);
/* The same for tools: reads the table if it must. */
int qcow2_extent(struct qcow2 *image, uint64_t offset, uint64_t size, struct qcow2_extent *extent);

/* ---- Create, resize, check ---- */

enum qcow2_preallocation { QCOW2_PREALLOC_OFF, QCOW2_PREALLOC_METADATA, QCOW2_PREALLOC_FALLOC, QCOW2_PREALLOC_FULL };

struct qcow2_create_options {
    uint64_t size;
    uint32_t version;       /* 2 or 3; 0: 3 */
    uint32_t cluster_size;  /* 0: 65536 */
    uint32_t refcount_bits; /* 0: 16 */
    bool lazy_refcounts, zstd;
    enum qcow2_preallocation preallocation;
    const char *backing_name, *backing_format; /* NULL: none; not opened */
};
/* Overwrites the file with an empty image; the file stays the caller's. */
int qcow2_create(const struct qcow2_file *file, const struct qcow2_create_options *options, struct error *err);

/* No other call may be under way. Shrinking needs `shrink`. */
int qcow2_resize(struct qcow2 *image, uint64_t size, bool shrink, enum qcow2_preallocation preallocation,
                 struct error *err);
/* Only the name in the header (NULL: none): the content of the disk changes with it. The image is of no use but to be closed. */
int qcow2_set_backing(struct qcow2 *image, const char *name, const char *format, struct error *err);

struct qcow2_check_result {
    uint64_t errors, leaks, check_errors; /* of references; clusters lost; tables that could not be read */
    uint64_t errors_fixed, leaks_fixed;
    uint64_t total_clusters, allocated_clusters, compressed_clusters, fragmented_clusters;
    uint64_t image_end_offset;
};
enum { QCOW2_FIX_LEAKS = 1, QCOW2_FIX_ERRORS = 2 };
/* No other call may be under way. Each finding is one line for `report` (may be NULL). -errno: the check itself failed. After
 * repairs the image is checked again: errors and leaks are those that are left. */
int qcow2_check(struct qcow2 *image, unsigned fix, void (*report)(void *opaque, const char *line), void *opaque,
                struct qcow2_check_result *result, struct error *err);

/* ---- Host files ---- */

enum {
    QCOW2_HOST_WRITE = 1 << 0,
    QCOW2_HOST_CREATE = 1 << 1,      /* and truncate, once it is known that nobody uses it */
    QCOW2_HOST_FORCE_SHARE = 1 << 2, /* read although another process writes */
    QCOW2_HOST_UNSAFE = 1 << 4,      /* flushes do nothing */
};
/* A file or block device of the host, locked as QEMU locks its images (bytes 100+n: a permission is held, 200+n: it is
 * not shared), so that an image which another program writes is refused. */
int qcow2_host_file_open(const char *path, unsigned flags, struct qcow2_file *file, struct error *err);
int qcow2_host_file_fd(const struct qcow2_file *file); /* of a file that qcow2_host_file_open made */

/* Where `name`, found in the image at `image_path`, is: absolute names as they are, others beside the image. The caller frees it.
 * NULL with a message: another protocol ("nbd://", "json:"), or no memory. */
char *qcow2_backing_path(const char *image_path, const char *name, struct error *err);

#endif
