/* The drives: by id, who uses them, and how they begin and end. Main thread, or the device lock held. */
#include "devices/block/block_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct block_registry *block_registry_create(struct event_loop *loop, struct error *err)
{
    struct block_registry *registry = calloc(1, sizeof(*registry));

    if (!registry) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    registry->blocks_end = &registry->blocks;
    registry->bus_units[BLOCK_IF_IDE] = 2;
    registry->bus_units[BLOCK_IF_SCSI] = 7;
    registry->pool = aio_pool_create();
    if (!registry->pool) {
        error_set(err, ENOMEM, "out of memory");
        free(registry);
        return NULL;
    }
    registry->main_context = block_context_get(registry, loop, err);
    if (!registry->main_context) {
        aio_pool_destroy(registry->pool);
        free(registry);
        return NULL;
    }
    return registry;
}

static void destroy_block(struct block *block)
{
    block_drain(block);
    if (block->claimed)
        block_context_put(block->context);
    if (block->root && !block->info.read_only && !block->flags.no_flush)
        block_node_flush(block->root);
    block_node_put(block->root);
    pthread_mutex_destroy(&block->lock);
    free(block->id);
    free(block);
}

void block_registry_destroy(struct block_registry *registry)
{
    struct block *next;

    if (!registry)
        return;
    for (struct block *block = registry->blocks; block; block = next) {
        next = block->next;
        destroy_block(block);
    }
    aio_pool_destroy(registry->pool);
    block_context_put(registry->main_context);
    block_contexts_destroy(registry);
    free(registry);
}

void block_registry_set_snapshot(struct block_registry *registry, bool on)
{
    registry->snapshot = on;
}

void block_registry_set_bus_units(struct block_registry *registry, enum block_interface interface, unsigned units)
{
    registry->bus_units[interface] = units;
}

void block_registry_set_stop_handler(struct block_registry *registry, void (*stop)(void *opaque, const char *reason),
                                     void *opaque)
{
    registry->stop = stop;
    registry->stop_opaque = opaque;
}

struct block *block_find(struct block_registry *registry, const char *id)
{
    for (struct block *block = registry ? registry->blocks : NULL; block; block = block->next) {
        if (!strcmp(block->id, id))
            return block;
    }
    return NULL;
}

static bool comes_before(const struct block_info *a, const struct block_info *b)
{
    return a->bus != b->bus ? a->bus < b->bus : a->unit < b->unit;
}

struct block *block_next_unclaimed(struct block_registry *registry, enum block_interface interface)
{
    struct block *best = NULL;

    for (struct block *block = registry ? registry->blocks : NULL; block; block = block->next) {
        if (block->info.interface != interface || *block->user || block->explicit_node)
            continue;
        if (!best || comes_before(&block->info, &best->info))
            best = block;
    }
    return best;
}

/* An unclaimed drive's requests complete on the main loop, without its being one of the users of that context. */
int block_claim(struct block *block, const char *device_id, struct event_loop *loop, struct error *err)
{
    struct block_context *context;

    if (*block->user)
        return error_set(err, EBUSY, "drive '%s' is already in use by '%s'", block->id, block->user);
    context = block_context_get(block->registry, loop, err);
    if (!context)
        return -ENOMEM;
    block->context = context;
    block->claimed = true;
    snprintf(block->user, sizeof(block->user), "%s", *device_id ? device_id : "a device");
    return 0;
}

void block_release(struct block *block)
{
    if (!block->claimed)
        return;
    event_loop_lock(block->context->loop);
    block_drain(block);
    event_loop_unlock(block->context->loop);
    block_set_medium_handler(block, NULL, NULL);
    *block->user = '\0';
    block->claimed = false;
    block_context_put(block->context);
    block->context = block->registry->main_context;
}

const struct block_info *block_info(const struct block *block)
{
    return &block->info;
}

void block_set_write_cache(struct block *block, bool enabled)
{
    __atomic_store_n(&block->info.write_cache, enabled, __ATOMIC_RELAXED); /* requests to come may be other threads' */
}

void block_set_medium_handler(struct block *block, void (*changed)(void *opaque), void *opaque)
{
    block->medium_changed = changed;
    block->medium_opaque = opaque;
}
