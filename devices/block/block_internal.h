/* What the files of the block layer share: nodes (images and what they lie in), drives, requests under way, event loops.
 *
 * A drive's image is a tree of nodes: a format (raw, overlay) on top of a protocol (file, nbd). Every driver does its work
 * in blocking calls, which worker threads make, any number at once. Where a driver can tell without waiting in which
 * bytes of which host file a range lies (map), the range is read and written there by io_uring instead. */
#ifndef EIDOLON_DEVICES_BLOCK_BLOCK_INTERNAL_H
#define EIDOLON_DEVICES_BLOCK_BLOCK_INTERNAL_H

#include <pthread.h>

#include "devices/block/block.h"

#define SECTOR_SIZE 512u

struct block_io;
struct block_context;
struct aio_ring;
struct aio_pool;

/* ---- Options ---- */

enum block_aio { BLOCK_AIO_AUTO, BLOCK_AIO_THREADS, BLOCK_AIO_NATIVE, BLOCK_AIO_URING };
enum block_locking { BLOCK_LOCK_AUTO, BLOCK_LOCK_ON, BLOCK_LOCK_OFF };
enum block_detect_zeroes { BLOCK_DETECT_OFF, BLOCK_DETECT_ON, BLOCK_DETECT_UNMAP };

/* What a node hands down to the nodes below it, unless they have options of their own. */
struct block_flags {
    bool read_only, auto_read_only, direct, no_flush, unmap, force_share;
    enum block_detect_zeroes detect_zeroes;
    enum block_aio aio;
    enum block_locking locking;
};

/* The options of one node: those of `options` whose keys begin with `prefix`. */
struct block_open {
    struct block_registry *registry;
    struct option_list *options;
    char prefix[64];      /* "", "file.", "backing.file." */
    const char *filename; /* from file=NAME, or NULL: in the options */
    struct block_flags flags;
    const struct block_chain *chain; /* images that this one is a backing file of, or NULL */
};

/* The images whose opening is under way, topmost last: a backing file that is among them makes a loop. */
struct block_chain {
    const struct block_chain *above;
    uint64_t device, inode; /* 0, 0: not a file */
    unsigned depth;
};

/* The value of prefix + key, or NULL. */
const char *block_open_get(const struct block_open *open, const char *key);
int block_open_get_bool(const struct block_open *open, const char *key, bool *value, struct error *err);
int block_open_get_size(const struct block_open *open, const char *key, uint64_t fallback, uint64_t *value,
                        struct error *err);
/* One of `words` (ends with NULL): its index to *value, which stays as it is without the option. */
int block_open_get_word(const struct block_open *open, const char *key, const char *const *words, unsigned *value,
                        struct error *err);
/* Reads discard, detect-zeroes, cache.*, read-only, auto-read-only, force-share of this node into open->flags. */
int block_open_read_flags(struct block_open *open, struct error *err);

/* Flattens a JSON object into options ("file.driver"); keys get `prefix`. */
int block_json_options(struct option_list *list, const char *json, const char *prefix, struct error *err);
int block_options_add(struct option_list *list, const char *key, const char *value, struct error *err);

/* ---- Nodes ---- */

struct block_transfer {
    enum block_op op;
    unsigned flags;
    uint64_t offset, size;
    const struct iovec *iov;
    unsigned iov_count;
};

/* Where a range lies in a host file that a ring can read and write. */
struct block_extent {
    int fd;
    uint64_t offset;
    uint32_t alignment; /* of addresses and sizes; 1: any */
    /* Whose driver wants to know when the I/O is over (unmap), or NULL; and what it keeps here meanwhile. The extent does not
     * move. */
    struct block_node *pinned;
    uint64_t pin[8];
};

struct block_node {
    const struct block_driver *driver;
    struct block_node *file; /* what it lies in, or NULL */
    char *filename;          /* for messages; never NULL once open */
    uint64_t size;           /* bytes, a multiple of 512 */
    uint32_t logical_block_size, physical_block_size;
    /* Not 0: ranges that overlap when rounded to this are kept apart where the driver says so (serialises). */
    uint32_t granularity;
    struct block_flags flags;
    bool can_discard;
    unsigned references;
};

struct block_driver {
    const char *name; /* as driver= and format= take it */
    size_t size;      /* of the instance, whose first member is struct block_node */
    bool protocol;    /* lies in no other node */
    /* The node comes with flags set; fills the rest. On error close() is not called. */
    int (*open)(struct block_node *node, struct block_open *open, struct error *err);
    void (*close)(struct block_node *node);
    /* Blocking, on any number of threads at once. 0 or -errno. Inside the node; writes only on what is not read-only. */
    int (*run)(struct block_node *node, const struct block_transfer *transfer);
    /* Without waiting: where a range to read or write lies, if that is in one piece and needs nothing else. NULL: never. */
    bool (*map)(struct block_node *node, const struct block_transfer *transfer, struct block_extent *extent);
    void (*unmap)(struct block_node *node, struct block_extent *extent);
    /* Protocols that formats with metadata lie in: the size as it is now, in bytes; a new one; place for what will be
     * written, which may make it larger. NULL: it has the size that it has. */
    int (*get_size)(struct block_node *node, uint64_t *size);
    int (*truncate)(struct block_node *node, uint64_t size);
    int (*allocate)(struct block_node *node, uint64_t offset, uint64_t size);
    /* Must nothing else that overlaps run at the same time? NULL: it may. */
    bool (*serialises)(struct block_node *node, const struct block_transfer *transfer);
};

/* Opens what the options describe: driver, or a file name's protocol; format probed if `probe` and none is given, which
 * sets *probed_raw if the guess was raw. NULL on error. */
struct block_node *block_node_open(struct block_open *open, bool *probed_raw, struct error *err);
struct block_node *block_node_open_with(const struct block_driver *driver, struct block_open *open, struct error *err);
/* Opens what lies below: "file" of a format. A node's name there means that node. */
struct block_node *block_node_open_file(struct block_open *open, struct error *err);
/* The node that a name in the options means, which must not be in use yet. `key` is for messages. */
struct block_node *block_node_reference(struct block_open *open, const char *key, const char *name, struct error *err);
void block_node_put(struct block_node *node); /* closes it with the last reference */
int block_node_run(struct block_node *node, const struct block_transfer *transfer);
int block_node_read(struct block_node *node, uint64_t offset, void *buffer, uint64_t size);
int block_node_write(struct block_node *node, uint64_t offset, const void *buffer, uint64_t size, unsigned flags);
int block_node_flush(struct block_node *node);
/* An overlay that keeps what is written to `base` in a temporary file. Takes over the reference. */
struct block_node *block_overlay_open(struct block_registry *registry, struct block_node *base, struct error *err);
/* What the first bytes of an image say its format is: a name as in format=; "raw" if nothing else. */
const char *block_probe(const uint8_t *data, size_t size);
/* The driver of that name, or NULL. */
const struct block_driver *block_driver_find(const char *name);

/* ---- Files ---- */

/* Byte-range locks as QEMU takes them. */
int block_file_lock(int fd, const struct block_flags *flags, const char *filename, struct error *err);

/* ---- Parts of scatter lists ---- */

struct block_slice {
    struct iovec local[16], *iov;
    unsigned count;
};
/* The bytes [skip, skip + size) of a list. -ENOMEM. */
int block_slice_init(struct block_slice *slice, const struct iovec *iov, unsigned count, uint64_t skip, uint64_t size);
void block_slice_free(struct block_slice *slice);
void block_iov_copy_from(const struct iovec *iov, unsigned count, uint64_t skip, void *buffer, uint64_t size);
void block_iov_copy_to(const struct iovec *iov, unsigned count, uint64_t skip, const void *buffer, uint64_t size);
void block_iov_zero(const struct iovec *iov, unsigned count, uint64_t skip, uint64_t size);

/* ---- Drives ---- */

struct block {
    struct block_registry *registry;
    struct block *next;
    struct block_info info;
    char *id;
    char user[64];      /* device or node that claimed it, or "" */
    bool claimed;       /* by a device, not as another node's file */
    bool explicit_node; /* made by -blockdev: not for block_next_unclaimed() */
    bool probed_raw;    /* block 0 must not become another format's header */
    struct block_flags flags;
    struct block_node *root; /* NULL: no medium */
    struct block_context *context;
    unsigned plugged; /* guarded by context->lock */
    void (*medium_changed)(void *opaque);
    void *medium_opaque;

    pthread_mutex_t lock;
    unsigned under_way;       /* guarded by lock: submitted, done() not yet called */
    struct block_io *running; /* guarded by lock, as the next two: in root->granularity's service */
    struct block_io *waiting; /* for others that overlap; oldest first */
    struct block_io **waiting_end;
    struct block_request *stopped, **stopped_end; /* guarded by lock: failed, to be made again */
};

/* A request under way. */
struct block_io {
    struct block *block;
    struct block_request *request; /* NULL: block_execute() */
    struct block_transfer transfer;
    int result;
    struct block_extent extent;
    struct block_io *next; /* of the queue that it is in */

    uint64_t first, end; /* rounded to the node's granularity */
    bool tracked, serialising;
    struct block_io *running_next, **running_link;

    struct iovec *own_iov; /* with first_sector in front, for writes that block 0 is checked in */
    uint8_t *first_sector;
    void (*finished)(struct block_io *io, void *opaque); /* block_execute() */
    void *finished_opaque;
};

/* ---- Event loops ---- */

/* What one event loop has: where completions arrive. */
struct block_context {
    struct block_registry *registry;
    struct event_loop *loop; /* NULL: nobody uses it any more */
    struct block_context *next;
    unsigned users;
    int event_fd;
    struct fd_watch *watch;

    pthread_mutex_t lock;
    struct block_request *completed, **completed_end; /* guarded by lock; so is the ring */
    struct aio_ring *ring;                            /* NULL: worker threads do everything */
};

struct block_registry {
    struct block *blocks, **blocks_end;
    struct block_context *contexts;
    struct block_context *main_context;
    struct aio_pool *pool;
    bool snapshot;
    unsigned bus_units[BLOCK_IF_FLOPPY + 1];
    void (*stop)(void *opaque, const char *reason);
    void *stop_opaque;
};

struct block_context *block_context_get(struct block_registry *registry, struct event_loop *loop, struct error *err);
void block_context_put(struct block_context *context);
void block_contexts_destroy(struct block_registry *registry);
/* The result is in the request; done() comes on the loop. Any thread. */
void block_context_complete(struct block_context *context, struct block_request *request);
/* Calls done() for what is complete; only this drive's requests unless NULL. The loop's lock held. */
void block_context_run(struct block_context *context, const struct block *only);

/* Calls done(), or what werror and rerror want. On the loop. */
void block_deliver(struct block *block, struct block_request *request);
/* The work is done (result: 0 or -errno). Any thread; no lock held. */
void block_io_finish(struct block_io *io, int result);
/* Does the request on this thread. */
int block_io_run(struct block_io *io);
/* The ring no longer uses the extent. */
void block_io_unmap(struct block_io *io);

/* ---- How requests reach the host ---- */

/* aio_threads.c: up to 64 threads, made when needed. */
struct aio_pool *aio_pool_create(void);
void aio_pool_destroy(struct aio_pool *pool); /* after what is queued is done */
void aio_pool_submit(struct aio_pool *pool, struct block_io *io);

/* aio_uring.c: the context's lock held, except for create and destroy. NULL with errno set: the host refuses. */
struct aio_ring *aio_ring_create(int event_fd);
void aio_ring_destroy(struct aio_ring *ring);
bool aio_ring_possible(void);
void aio_ring_submit(struct aio_ring *ring, struct block_io *io, bool plugged);
void aio_ring_flush(struct aio_ring *ring);
/* The next one that is complete, its result set: -EAGAIN: a thread should do it (again). NULL: none. */
struct block_io *aio_ring_reap(struct aio_ring *ring);

#endif
