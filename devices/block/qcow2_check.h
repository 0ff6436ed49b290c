/* What the check of references and its repairs share (qcow2_check.c, qcow2_check_refs.c, qcow2_repair.c). */
#ifndef EIDOLON_DEVICES_BLOCK_QCOW2_CHECK_H
#define EIDOLON_DEVICES_BLOCK_QCOW2_CHECK_H

#include "devices/block/qcow2_internal.h"

#define COUNTER_CHUNK      4096u
#define MAX_COUNTER_CHUNKS (GIB / (COUNTER_CHUNK * sizeof(uint32_t)))
#define MAX_CHECK_CLUSTERS (1ull << 36)

/* An L2 table, and how many L1 tables refer to it: it is read once. */
struct check_table {
    uint64_t offset; /* 0: empty place */
    uint32_t references, last_l1;
    bool active;
};

struct check {
    struct qcow2 *image;
    unsigned fix;
    void (*report)(void *opaque, const char *line);
    void *opaque;
    struct qcow2_check_result *result;

    uint64_t file_size, clusters; /* clusters that can be referred to */
    uint32_t **chunks;            /* references found; later: counts as they are in the file */
    uint64_t chunk_count, chunks_used;

    struct check_table *tables; /* open addressing */
    size_t table_capacity, table_count;
    uint64_t l1_bytes; /* of all L1 and bitmap tables: more than the file is long means that they overlap */
    bool rebuild;      /* refcount blocks are missing or unusable */
};

void qcow2_check_line(struct check *check, const char *format, ...) printf_like(2, 3);
uint32_t qcow2_check_counter(const struct check *check, uint64_t cluster);
int qcow2_check_set_counter(struct check *check, uint64_t cluster, uint32_t value);
/* Counts `times` references to what lies there; an error is counted if it is past the end of the file. */
int qcow2_check_refer(struct check *check, uint64_t offset, uint64_t size, uint32_t times, const char *what);
/* References of everything but refcount table and blocks. -errno: no memory, cannot be read. */
int qcow2_check_count_references(struct check *check);
/* Refcount table and blocks; compares, and repairs single counts. */
int qcow2_check_refcounts(struct check *check);
/* COPIED flags of the active tables. */
int qcow2_check_copied(struct check *check);
int qcow2_check_rebuild(struct check *check);

#endif
