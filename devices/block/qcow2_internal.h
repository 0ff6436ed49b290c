/* What the files of the qcow2 library share. docs/devices/qcow2.md explains locks and the order of writes. */
#ifndef EIDOLON_DEVICES_BLOCK_QCOW2_INTERNAL_H
#define EIDOLON_DEVICES_BLOCK_QCOW2_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "devices/block/qcow2.h"

/* ---- On disk (docs/interop/qcow2.txt of QEMU) ---- */

#define QCOW2_MAGIC 0x514649fbu

enum {
    QCOW2_INCOMPATIBLE_DIRTY = 1 << 0,
    QCOW2_INCOMPATIBLE_CORRUPT = 1 << 1,
    QCOW2_INCOMPATIBLE_DATA_FILE = 1 << 2,
    QCOW2_INCOMPATIBLE_COMPRESSION = 1 << 3,
    QCOW2_INCOMPATIBLE_EXTENDED_L2 = 1 << 4,
    QCOW2_INCOMPATIBLE_KNOWN = (1 << 5) - 1,
};
#define QCOW2_COMPATIBLE_LAZY   1ull
#define QCOW2_AUTOCLEAR_BITMAPS 1ull

/* Offsets of header fields. */
enum {
    HEADER_MAGIC = 0,
    HEADER_VERSION = 4,
    HEADER_BACKING_OFFSET = 8,
    HEADER_BACKING_SIZE = 16,
    HEADER_CLUSTER_BITS = 20,
    HEADER_SIZE = 24,
    HEADER_CRYPT = 32,
    HEADER_L1_SIZE = 36,
    HEADER_L1_OFFSET = 40,
    HEADER_REFTABLE_OFFSET = 48,
    HEADER_REFTABLE_CLUSTERS = 56,
    HEADER_SNAPSHOTS = 60,
    HEADER_SNAPSHOTS_OFFSET = 64,
    HEADER_V2_LENGTH = 72,
    HEADER_INCOMPATIBLE = 72,
    HEADER_COMPATIBLE = 80,
    HEADER_AUTOCLEAR = 88,
    HEADER_REFCOUNT_ORDER = 96,
    HEADER_LENGTH = 100,
    HEADER_V3_LENGTH = 104,
    HEADER_COMPRESSION = 104,
    HEADER_OUR_LENGTH = 112,
    HEADER_SECTOR = 512, /* the fixed part is in one sector, and written as one */
};

#define EXTENSION_END            0u
#define EXTENSION_BACKING_FORMAT 0xe2792acau
#define EXTENSION_FEATURES       0x6803f857u
#define EXTENSION_BITMAPS        0x23852875u

#define OFFSET_MASK     0x00fffffffffffe00ull /* of L1, L2 and bitmap table entries */
#define REFTABLE_MASK   0xfffffffffffffe00ull
#define FLAG_COPIED     (1ull << 63) /* refcount is exactly one */
#define FLAG_COMPRESSED (1ull << 62)
#define FLAG_ZERO       1ull

/* Limits, QEMU's: what an image may make us allocate. */
#define MIN_CLUSTER_BITS     9
#define MAX_CLUSTER_BITS     21
#define MAX_L1_BYTES         (32 * MIB)
#define MAX_REFTABLE_BYTES   (8 * MIB)
#define MAX_SNAPSHOTS        65536
#define MAX_SNAPSHOT_EXTRA   1024
#define MAX_SNAPSHOT_TABLE   (64 * MIB)
#define MAX_BITMAPS          65535
#define MAX_BITMAP_DIRECTORY (MAX_BITMAPS * 1024ull)
#define MAX_BACKING_NAME     1023
#define MAX_HOST_OFFSET      (1ull << 56)
#define MAX_DISK_SIZE        (1ull << 61)

#define QCOW2_SLICE_SIZE           4096u
#define QCOW2_L2_CACHE_BYTES       (32 * MIB)
#define QCOW2_REFCOUNT_CACHE_BYTES MIB
#define QCOW2_MIN_SLICES           32u
#define QCOW2_MAX_PENDING          4096      /* runs of clusters that wait to become free */
#define QCOW2_IOV                  64        /* pieces of I/O use no more elements */
#define QCOW2_MAX_PIECE            (8 * MIB) /* of one allocation */

static inline uint16_t get_be16(const void *data)
{
    uint16_t value;

    __builtin_memcpy(&value, data, sizeof(value));
    return __builtin_bswap16(value);
}
static inline uint32_t get_be32(const void *data)
{
    uint32_t value;

    __builtin_memcpy(&value, data, sizeof(value));
    return __builtin_bswap32(value);
}
static inline uint64_t get_be64(const void *data)
{
    uint64_t value;

    __builtin_memcpy(&value, data, sizeof(value));
    return __builtin_bswap64(value);
}
static inline void put_be16(void *data, uint16_t value)
{
    value = __builtin_bswap16(value);
    __builtin_memcpy(data, &value, sizeof(value));
}
static inline void put_be32(void *data, uint32_t value)
{
    value = __builtin_bswap32(value);
    __builtin_memcpy(data, &value, sizeof(value));
}
static inline void put_be64(void *data, uint64_t value)
{
    value = __builtin_bswap64(value);
    __builtin_memcpy(data, &value, sizeof(value));
}

/* ---- In memory ---- */

/* A part of an L2 table or refcount block. */
struct qcow2_slice {
    uint64_t offset;                 /* in the file */
    uint8_t *data;                   /* as in the file: big endian */
    uint32_t dirty_start, dirty_end; /* bytes; equal: clean */
    struct qcow2_slice *hash_next, *newer, *older;
};
struct qcow2_cache {
    uint32_t slice_size;
    unsigned count, limit, bucket_mask;
    struct qcow2_slice **buckets;
    struct qcow2_slice *newest, *oldest;
    unsigned dirty;
};

/* The clusters that hold metadata: nothing of the guest may be written there. Open addressing; 0 is an empty place. */
struct qcow2_cluster_set {
    uint64_t *places; /* cluster index + 1 */
    size_t capacity, count;
};

/* Clusters whose last reference is gone in memory but maybe not in the file yet. */
struct qcow2_pending {
    uint64_t cluster, count;
};

struct qcow2_dirty_range {
    uint64_t start, end; /* bytes in a table; equal: clean */
};

#define QCOW2_DECOMPRESSED 4
struct qcow2_decompressed {
    uint64_t descriptor; /* L2 entry; 0: empty */
    uint64_t used;
    uint8_t *data;
};

struct qcow2 {
    struct qcow2_file file;
    struct qcow2_backing backing;
    bool has_backing;
    uint64_t backing_size;
    unsigned flags;

    /* Constant while open. */
    struct qcow2_info info;
    unsigned cluster_bits, refcount_order;
    uint64_t cluster_size;
    unsigned l2_entry_size;
    uint64_t l2_entries, refblock_entries;
    unsigned unit_bits; /* what is mapped as a whole: a cluster, or with extended L2 entries a subcluster */
    uint64_t incompatible, compatible;
    uint32_t header_length;
    uint64_t snapshots_offset, snapshot_table_size;
    uint64_t *snapshot_l1_offsets;
    uint32_t *snapshot_l1_sizes;
    struct qcow2_snapshot_info *snapshots;
    char *backing_name, *backing_format;
    uint64_t bitmap_directory_offset, bitmap_directory_size;
    uint32_t bitmap_count; /* 0 unless they are consistent */

    _Atomic uint64_t size;
    atomic_bool corrupt;        /* found while running: writes are refused */
    atomic_bool write_prepared; /* the header says that somebody writes */

    /* Held over metadata I/O. Who changes metadata holds `meta`, and `fast` too for what `fast` guards; who holds either may look.
     * Order: a range (qcow2_range.c), then meta, then fast. */
    pthread_mutex_t meta;
    uint8_t header[HEADER_SECTOR]; /* guarded by meta, like all that follows up to `fast` */
    struct qcow2_cache refcounts;
    uint64_t *reftable;
    uint64_t reftable_entries, reftable_offset;
    struct qcow2_dirty_range reftable_dirty, l1_dirty;
    uint64_t free_hint;    /* no cluster below it is free */
    uint64_t high_water;   /* the file reads as zeroes from here on */
    uint64_t *full_slices; /* bitmap, per slice of refcounts: known to have no free cluster */
    uint64_t full_slice_count;
    struct qcow2_pending *pending;
    size_t pending_count;
    uint64_t compressed_next, compressed_end; /* where the next compressed cluster goes */

    pthread_mutex_t fast; /* never held over I/O */
    pthread_cond_t pins_changed;
    struct qcow2_cache l2; /* slices and index: guarded by fast; changed under meta as well */
    uint64_t *l1;          /* host endian */
    uint64_t l1_size, l1_offset;
    struct qcow2_cluster_set metadata;
    struct qcow2_pin *first_pin, *last_pin;
    unsigned pin_waiters;

    pthread_mutex_t decompress_lock;
    struct qcow2_decompressed decompressed[QCOW2_DECOMPRESSED];
    uint64_t decompress_clock;
};

/* qcow2_header.c */
int qcow2_header_read(struct qcow2 *image, struct error *err);
int qcow2_header_write(struct qcow2 *image);  /* the first sector; no flush */
int qcow2_prepare_write(struct qcow2 *image); /* before the first change: auto-clear and dirty bits */
int qcow2_mark_corrupt(struct qcow2 *image, const char *format, ...) printf_like(2, 3); /* -EIO; any locks */
void qcow2_header_make(uint8_t *cluster, const struct qcow2_create_options *options, struct error *err);
int qcow2_header_put_extensions(uint8_t *cluster, uint64_t cluster_size, unsigned version, uint32_t header_length,
                                const uint8_t *unknown, size_t unknown_size, const char *backing_name,
                                const char *backing_format, struct error *err);
/* qcow2_snapshot.c */
int qcow2_snapshots_read(struct qcow2 *image, struct error *err);
void qcow2_snapshots_free(struct qcow2 *image);
/* qcow2_open.c */
int qcow2_reload(struct qcow2 *image, struct error *err); /* tables anew from the file; caches are empty after */
int qcow2_read_table(struct qcow2 *image, uint64_t offset, uint64_t entries, uint64_t **table, struct error *err);

/* qcow2_io.c: bytes of the file, and iovecs */
int qcow2_file_read(struct qcow2 *image, uint64_t offset, void *data, size_t size);
int qcow2_file_write(struct qcow2 *image, uint64_t offset, const void *data, size_t size);
int qcow2_file_flush(struct qcow2 *image);
int qcow2_file_size(struct qcow2 *image, uint64_t *size);
int qcow2_file_zero(struct qcow2 *image, uint64_t offset, uint64_t size);
/* Table entries [range) as sectors. `base`: where the table lies in the file; host-endian entries. */
int qcow2_write_entries(struct qcow2 *image, uint64_t base, const uint64_t *table, uint64_t entries,
                        struct qcow2_dirty_range range);
uint64_t qcow2_iov_size(const struct iovec *iov, unsigned count);
/* The part [skip, skip + *size) as at most `max` elements; *size becomes smaller if they do not reach. */
unsigned qcow2_iov_part(const struct iovec *iov, unsigned count, uint64_t skip, uint64_t *size, struct iovec *part,
                        unsigned max);
void qcow2_iov_zero(const struct iovec *iov, unsigned count);
void qcow2_iov_copy(const struct iovec *iov, unsigned count, const uint8_t *data);
extern const uint8_t qcow2_zeroes[65536];

/* qcow2_range.c: `fast` is taken inside. Ranges are whole clusters. */
void qcow2_range_lock(struct qcow2 *image, struct qcow2_pin *pin, uint64_t offset, uint64_t size, bool exclusive);
void qcow2_range_unlock(struct qcow2 *image, struct qcow2_pin *pin);
bool qcow2_range_try_shared(struct qcow2 *image, struct qcow2_pin *pin, uint64_t offset, uint64_t size); /* fast held */

/* qcow2_cache.c */
int qcow2_cache_init(struct qcow2_cache *cache, uint32_t slice_size, uint64_t bytes);
void qcow2_cache_free(struct qcow2_cache *cache);
void qcow2_cache_clear(struct qcow2_cache *cache);                                /* forgets all, dirty or not */
struct qcow2_slice *qcow2_cache_find(struct qcow2_cache *cache, uint64_t offset); /* its lock held; NULL: not there */
/* The slice at `offset`, read if need be; stays where it is until 8 others were got. meta held. */
int qcow2_cache_get(struct qcow2 *image, struct qcow2_cache *cache, uint64_t offset, struct qcow2_slice **slice);
void qcow2_slice_dirty(struct qcow2_cache *cache, struct qcow2_slice *slice, uint32_t offset, uint32_t size);
int qcow2_cache_write(struct qcow2 *image, struct qcow2_cache *cache); /* all dirty slices */
void qcow2_cache_forget(struct qcow2 *image, struct qcow2_cache *cache, uint64_t offset,
                        uint64_t size); /* drops slices */

/* qcow2_clusters.c */
int qcow2_set_add(struct qcow2_cluster_set *set, uint64_t cluster); /* -EEXIST, -ENOMEM */
bool qcow2_set_has(const struct qcow2_cluster_set *set, uint64_t cluster);
void qcow2_set_remove(struct qcow2_cluster_set *set, uint64_t cluster);
void qcow2_set_free(struct qcow2_cluster_set *set);
int qcow2_metadata_add(struct qcow2 *image, uint64_t offset, uint64_t size); /* meta held */
void qcow2_metadata_remove(struct qcow2 *image, uint64_t offset, uint64_t size);
bool qcow2_metadata_overlaps(const struct qcow2 *image, uint64_t offset, uint64_t size);

/* qcow2_refcount.c: meta held */
uint64_t qcow2_refcount_max(const struct qcow2 *image);
uint64_t qcow2_refcount_load(const uint8_t *block, unsigned order, uint64_t index);
void qcow2_refcount_store(uint8_t *block, unsigned order, uint64_t index, uint64_t value);
int qcow2_refcount_get(struct qcow2 *image, uint64_t cluster, uint64_t *value);
int qcow2_refcount_add(struct qcow2 *image, uint64_t cluster, uint64_t count, int delta);
/* Up to `want` clusters in a row (exactly, if `exact`), refcount one each. `fresh`: they read as zeroes. */
int qcow2_alloc(struct qcow2 *image, uint64_t want, bool exact, uint64_t *offset, uint64_t *count, bool *fresh);
int qcow2_alloc_table(struct qcow2 *image, uint64_t count, uint64_t *offset);
/* Clusters that nothing in the file has ever referred to. */
void qcow2_free_unused(struct qcow2 *image, uint64_t offset, uint64_t count);
/* What is referred to until the tables in memory are written: becomes free with qcow2_commit. */
int qcow2_free_later(struct qcow2 *image, uint64_t cluster, uint64_t count);
int qcow2_free_entry_later(struct qcow2 *image, uint64_t entry);
int qcow2_pending_reserve(struct qcow2 *image, uint64_t count);
void qcow2_compressed_extent(const struct qcow2 *image, uint64_t entry, uint64_t *offset, uint64_t *size);

/* qcow2_commit.c: meta held. All cached metadata to the file, in an order that survives a crash at any point. Afterwards
 * one more flush of the file is needed (*need_flush) until it is stable. */
int qcow2_commit(struct qcow2 *image, bool *need_flush);
int qcow2_commit_stable(struct qcow2 *image); /* the same, and the flush, and clusters that wait become free */

/* qcow2_map.c */
int qcow2_lookup(struct qcow2 *image, uint64_t offset, uint64_t size, struct qcow2_extent *extent);
uint64_t qcow2_slice_reach(const struct qcow2 *image,
                           uint64_t offset); /* bytes up to where the next slice of L2 begins */
/* meta held: the entry of the cluster at `offset`, 0 if there is no table; the table made, copied if others use it. */
int qcow2_entry_get(struct qcow2 *image, uint64_t offset, uint64_t *entry);
int qcow2_entry_prepare(struct qcow2 *image, uint64_t offset, struct qcow2_slice **slice, uint32_t *position);
void qcow2_entry_set(struct qcow2 *image, struct qcow2_slice *slice, uint32_t position, uint64_t entry);

/* qcow2_read.c: without range lock (the caller has one) */
int qcow2_read_locked(struct qcow2 *image, uint64_t offset, void *data, uint64_t size);
/* qcow2_write.c */
int qcow2_write_check(struct qcow2 *image, uint64_t offset, uint64_t size);
int qcow2_preallocate(struct qcow2 *image, uint64_t offset, uint64_t end, enum qcow2_preallocation mode);
/* qcow2_zero.c: drops whole clusters, to be unallocated whatever is below. For resize. */
int qcow2_drop(struct qcow2 *image, uint64_t offset, uint64_t size);

/* qcow2_compress.c */
int qcow2_compressed_read(struct qcow2 *image, uint64_t offset, const struct iovec *iov, unsigned count);
void qcow2_compressed_forget(struct qcow2 *image, uint64_t entry);
/* Size of what was put into `out` (cluster_size bytes), or -ENOSPC: does not become smaller. */
ssize_t qcow2_compress(const struct qcow2 *image, const void *data, void *out);
int qcow2_decompress(const struct qcow2 *image, const void *in, size_t in_size, void *out);

static inline uint64_t cluster_of(const struct qcow2 *image, uint64_t offset)
{
    return offset >> image->cluster_bits;
}
static inline uint64_t cluster_start(const struct qcow2 *image, uint64_t offset)
{
    return ALIGN_DOWN(offset, image->cluster_size);
}
static inline uint64_t cluster_end(const struct qcow2 *image, uint64_t offset)
{
    return ALIGN_UP(offset, image->cluster_size);
}
static inline uint64_t clusters_for(const struct qcow2 *image, uint64_t size)
{
    return (size >> image->cluster_bits) + !!(size & (image->cluster_size - 1));
}

#endif
