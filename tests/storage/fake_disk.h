/* Stands in for the block layer: a drive is an array, a request is done when the test says so, in the order that it wants, with
 * the error that it wants. */
#ifndef EIDOLON_TESTS_STORAGE_FAKE_DISK_H
#define EIDOLON_TESTS_STORAGE_FAKE_DISK_H

#include "devices/block/block.h"

struct fake_disk {
    struct block_info info;
    char id[32];
    uint8_t *data; /* what reads see */
    uint64_t allocated;
    bool claimed;
    int fail; /* the next request that is run fails so; once */
    enum block_op last_op;
    unsigned last_flags;
    unsigned submitted, flushes, fua_writes, discards, zeroes, plugs;
    uint64_t unstable; /* bytes written since the last flush */
    struct block_request *pending;
    void (*changed)(void *opaque);
    void *changed_opaque;
    struct fake_disk *next;
};

/* Belongs to the registry. The bytes are a pattern of the offset. */
struct fake_disk *fake_disk_add(struct block_registry **registry, const char *id, uint64_t size);
void fake_disk_free(struct block_registry *registry);
struct block *fake_disk_handle(struct fake_disk *block);
void fake_disk_resize(struct fake_disk *block, uint64_t size);
unsigned fake_disk_pending(const struct fake_disk *block);
/* Runs one pending request: the oldest, or one chosen by `choice`. False: there is none. */
bool fake_disk_run_one(struct fake_disk *block, uint64_t choice);
void fake_disk_run(struct fake_disk *block); /* until there is none */
/* The byte that an untouched drive has at an offset. */
uint8_t fake_disk_pattern(uint64_t offset);

#endif
