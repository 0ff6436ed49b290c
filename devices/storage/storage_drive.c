/* What storage devices do with their drive: see storage_drive.h. */
#include "devices/storage/storage_drive.h"

#include <errno.h>

struct block *storage_claim_option(struct device *device, struct option_list *options, struct event_loop *loop,
                                   struct error *err)
{
    const char *id = options_get(options, "drive");
    struct block *block;
    int result;

    if (options_get(options, "werror") || options_get(options, "rerror")) {
        error_set(err, EINVAL, "werror= and rerror= are taken with -drive, not here");
        return NULL;
    }
    if (!id) {
        error_set(err, EINVAL, "drive= is needed");
        return NULL;
    }
    block = device->env->blocks ? block_find(device->env->blocks, id) : NULL;
    if (!block) {
        error_set(err, ENODEV, "drive=%s: there is no such drive", id);
        return NULL;
    }
    event_loop_lock(loop);
    result = block_claim(block, device->id, loop, err);
    event_loop_unlock(loop);
    return result ? NULL : block;
}

static int block_size(struct option_list *options, const char *name, uint32_t fallback, uint32_t *out,
                      struct error *err)
{
    uint64_t size;
    int result = options_get_size(options, name, 1, fallback, &size, err);

    if (result)
        return result;
    if (!size)
        size = fallback;
    if (size < 512 || size > 65536 || (size & (size - 1)))
        return error_set(err, EINVAL, "%s=%llu: must be a power of two from 512 to 65536", name,
                         (unsigned long long)size);
    *out = (uint32_t)size;
    return 0;
}

int storage_block_sizes(struct option_list *options, const struct block *block, uint32_t *logical, uint32_t *physical,
                        struct error *err)
{
    const struct block_info *info = block_info(block);
    int result = block_size(options, "logical_block_size", info->logical_block_size, logical, err);

    if (result)
        return result;
    result = block_size(options, "physical_block_size", MAX(info->physical_block_size, *logical), physical, err);
    if (!result && *physical < *logical)
        return error_set(err, EINVAL, "physical_block_size=%u is smaller than the logical block size, %u", *physical,
                         *logical);
    return result;
}

int storage_bootindex(struct option_list *options, int *bootindex, struct error *err)
{
    uint64_t value;
    int result = options_get_u64(options, "bootindex", 0, &value, err);

    if (result)
        return result;
    if (value > INT32_MAX)
        return error_set(err, EINVAL, "bootindex=%llu is too large", (unsigned long long)value);
    *bootindex = options_get(options, "bootindex") ? (int)value : -1;
    return 0;
}
