/* See fake_disk.h. */
#include "fake_disk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct block {
    struct fake_disk fake;
};
struct block_registry {
    struct fake_disk *first;
};

uint8_t fake_disk_pattern(uint64_t offset)
{
    return (uint8_t)(offset / 512 * 7 + offset * 3 + 1);
}

struct block *fake_disk_handle(struct fake_disk *fake)
{
    return container_of(fake, struct block, fake);
}

struct fake_disk *fake_disk_add(struct block_registry **registry, const char *id, uint64_t size)
{
    struct block *block = calloc(1, sizeof(*block));
    struct fake_disk *fake = &block->fake;

    if (!*registry)
        *registry = calloc(1, sizeof(**registry));
    snprintf(fake->id, sizeof(fake->id), "%s", id);
    fake->data = malloc(size + 1);
    fake->allocated = size;
    for (uint64_t i = 0; i < size; i++)
        fake->data[i] = fake_disk_pattern(i);
    fake->info = (struct block_info){ .id = fake->id,
                                      .size = size,
                                      .logical_block_size = 512,
                                      .physical_block_size = 512,
                                      .write_cache = true,
                                      .can_discard = true };
    fake->next = (*registry)->first;
    (*registry)->first = fake;
    return fake;
}

void fake_disk_free(struct block_registry *registry)
{
    while (registry && registry->first) {
        struct fake_disk *fake = registry->first;

        cr_assert_null(fake->pending, "%s: requests were never completed", fake->id);
        cr_assert_not(fake->claimed, "%s: not released", fake->id);
        registry->first = fake->next;
        free(fake->data);
        free(fake_disk_handle(fake));
    }
    free(registry);
}

void fake_disk_resize(struct fake_disk *fake, uint64_t size)
{
    cr_assert_leq(size, fake->allocated);
    fake->info.size = size;
    if (fake->changed)
        fake->changed(fake->changed_opaque);
}

unsigned fake_disk_pending(const struct fake_disk *fake)
{
    unsigned count = 0;

    for (const struct block_request *request = fake->pending; request; request = request->next)
        count++;
    return count;
}

static void move(struct fake_disk *fake, struct block_request *request)
{
    uint8_t *data = fake->data + request->offset;
    uint64_t done = 0;

    for (unsigned i = 0; i < request->iov_count; i++) {
        const struct iovec *iov = &request->iov[i];

        cr_assert_leq(done + iov->iov_len, request->size, "more memory than the request's size");
        if (request->op == BLOCK_READ)
            memcpy(iov->iov_base, data + done, iov->iov_len);
        else
            memcpy(data + done, iov->iov_base, iov->iov_len);
        done += iov->iov_len;
    }
    cr_assert_eq(done, request->size, "less memory than the request's size");
}

static int perform(struct fake_disk *fake, struct block_request *request)
{
    int fail = fake->fail;

    fake->last_op = request->op;
    fake->last_flags = request->flags;
    if (request->op == BLOCK_FLUSH) {
        fake->fail = 0;
        fake->flushes++;
        fake->unstable = fail ? fake->unstable : 0;
        return fail;
    }
    if (request->offset % 512 || request->size % 512)
        return -EINVAL;
    if (request->offset > fake->info.size || request->size > fake->info.size - request->offset)
        return -EIO;
    if (request->op != BLOCK_READ && fake->info.read_only)
        return -EROFS;
    fake->fail = 0;
    if (fail)
        return fail;
    if (request->op != BLOCK_READ) {
        bool stable = (request->flags & BLOCK_FUA) || !fake->info.write_cache;

        fake->fua_writes += (request->flags & BLOCK_FUA) != 0;
        fake->unstable += stable ? 0 : request->size;
    }
    if (request->op == BLOCK_READ || request->op == BLOCK_WRITE)
        move(fake, request);
    else
        memset(fake->data + request->offset, 0, request->size);
    fake->discards += request->op == BLOCK_DISCARD;
    fake->zeroes += request->op == BLOCK_WRITE_ZEROES;
    return 0;
}

bool fake_disk_run_one(struct fake_disk *fake, uint64_t choice)
{
    unsigned count = fake_disk_pending(fake), skip = count ? (unsigned)(choice % count) : 0;
    struct block_request **link = &fake->pending, *request;

    if (!count)
        return false;
    while (skip--)
        link = &(*link)->next;
    request = *link;
    *link = request->next;
    request->result = perform(fake, request);
    request->done(request);
    return true;
}

void fake_disk_run(struct fake_disk *fake)
{
    while (fake_disk_run_one(fake, 0))
        ;
}

/* ---- block.h ---- */

void block_submit(struct block *block, struct block_request *request)
{
    struct block_request **link = &block->fake.pending;

    cr_assert_not_null(request->done);
    while (*link) {
        cr_assert_neq(*link, request, "submitted twice");
        link = &(*link)->next;
    }
    request->next = NULL;
    request->block = block;
    *link = request;
    block->fake.submitted++;
}

int block_execute(struct block *block, enum block_op op, uint64_t offset, void *buffer, uint64_t size, unsigned flags)
{
    struct iovec iov = { buffer, size };
    struct block_request request = {
        .op = op, .flags = flags, .offset = offset, .size = size, .iov = &iov, .iov_count = 1
    };

    return perform(&block->fake, &request);
}

void block_drain(struct block *block)
{
    fake_disk_run(&block->fake);
}

const struct block_info *block_info(const struct block *block)
{
    return &block->fake.info;
}

void block_set_write_cache(struct block *block, bool enabled)
{
    block->fake.info.write_cache = enabled;
}

struct block *block_find(struct block_registry *registry, const char *id)
{
    for (struct fake_disk *fake = registry->first; fake; fake = fake->next) {
        if (!strcmp(fake->id, id))
            return fake_disk_handle(fake);
    }
    return NULL;
}

struct block *block_next_unclaimed(struct block_registry *registry, enum block_interface interface)
{
    struct fake_disk *best = NULL;

    for (struct fake_disk *fake = registry->first; fake; fake = fake->next) {
        if (fake->info.interface == interface && !fake->claimed &&
            (!best || fake->info.bus < best->info.bus ||
             (fake->info.bus == best->info.bus && fake->info.unit < best->info.unit)))
            best = fake;
    }
    return best ? fake_disk_handle(best) : NULL;
}

int block_claim(struct block *block, const char *device_id, struct event_loop *loop, struct error *err)
{
    (void)device_id, (void)loop;
    if (block->fake.claimed)
        return error_set(err, EBUSY, "drive '%s' is in use", block->fake.id);
    block->fake.claimed = true;
    return 0;
}

void block_release(struct block *block)
{
    cr_assert(block->fake.claimed);
    block->fake.claimed = false;
}

void block_plug(struct block *block)
{
    block->fake.plugs++;
}

void block_unplug(struct block *block)
{
    cr_assert_neq(block->fake.plugs, 0);
    block->fake.plugs--;
}

void block_set_medium_handler(struct block *block, void (*changed)(void *opaque), void *opaque)
{
    block->fake.changed = changed;
    block->fake.changed_opaque = opaque;
}
