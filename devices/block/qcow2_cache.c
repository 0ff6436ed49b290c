/* Parts of L2 tables and refcount blocks in memory: 4 KiB slices (or a cluster, if that is smaller), least recently used goes
 * first, memory taken as it is needed up to a limit.
 *
 * Under `meta` slices come, go and change. The L2 cache is looked at under `fast` alone by readers, so what they see (index, list,
 * data) changes under both. A slice of L2 that is dirty leaves only by qcow2_commit(), which keeps the order of writes; a
 * refcount slice may be written at any time: counts go up before anything refers to a cluster and down after nothing does. */
#include "devices/block/qcow2_internal.h"

#include <stdlib.h>
#include <string.h>

int qcow2_cache_init(struct qcow2_cache *cache, uint32_t slice_size, uint64_t bytes)
{
    unsigned buckets = 16;

    *cache = (struct qcow2_cache){ .slice_size = slice_size };
    cache->limit = (unsigned)MAX(bytes / slice_size, QCOW2_MIN_SLICES);
    while (buckets < cache->limit)
        buckets *= 2;
    cache->bucket_mask = buckets - 1;
    cache->buckets = calloc(buckets, sizeof(*cache->buckets));
    return cache->buckets ? 0 : -ENOMEM;
}

void qcow2_cache_clear(struct qcow2_cache *cache)
{
    for (struct qcow2_slice *slice = cache->newest, *next; slice; slice = next) {
        next = slice->older;
        free(slice->data);
        free(slice);
    }
    if (cache->buckets)
        memset(cache->buckets, 0, (cache->bucket_mask + 1) * sizeof(*cache->buckets));
    cache->newest = cache->oldest = NULL;
    cache->count = cache->dirty = 0;
}

void qcow2_cache_free(struct qcow2_cache *cache)
{
    qcow2_cache_clear(cache);
    free(cache->buckets);
    *cache = (struct qcow2_cache){ 0 };
}

static struct qcow2_slice **bucket_of(struct qcow2_cache *cache, uint64_t offset)
{
    return &cache->buckets[(offset / cache->slice_size * 0x9e3779b97f4a7c15ull >> 40) & cache->bucket_mask];
}

/* ---- The list by age ---- */

static void list_remove(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    *(slice->newer ? &slice->newer->older : &cache->newest) = slice->older;
    *(slice->older ? &slice->older->newer : &cache->oldest) = slice->newer;
}

static void list_add(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    slice->newer = NULL;
    slice->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = slice;
    cache->newest = slice;
}

struct qcow2_slice *qcow2_cache_find(struct qcow2_cache *cache, uint64_t offset)
{
    struct qcow2_slice *slice = *bucket_of(cache, offset);

    while (slice && slice->offset != offset)
        slice = slice->hash_next;
    if (slice && slice != cache->newest) {
        list_remove(cache, slice);
        list_add(cache, slice);
    }
    return slice;
}

static void take_out(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    struct qcow2_slice **link = bucket_of(cache, slice->offset);

    while (*link != slice)
        link = &(*link)->hash_next;
    *link = slice->hash_next;
    list_remove(cache, slice);
    cache->count--;
    if (slice->dirty_end > slice->dirty_start)
        cache->dirty--;
}

static void put_in(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    struct qcow2_slice **bucket = bucket_of(cache, slice->offset);

    slice->hash_next = *bucket;
    *bucket = slice;
    list_add(cache, slice);
    cache->count++;
}

/* ---- Writing ---- */

void qcow2_slice_dirty(struct qcow2_cache *cache, struct qcow2_slice *slice, uint32_t offset, uint32_t size)
{
    uint32_t start = offset & ~(HEADER_SECTOR - 1u), end = (uint32_t)ALIGN_UP(offset + size, HEADER_SECTOR);

    if (slice->dirty_end <= slice->dirty_start) {
        cache->dirty++;
        slice->dirty_start = start;
        slice->dirty_end = end;
    } else {
        slice->dirty_start = MIN(slice->dirty_start, start);
        slice->dirty_end = MAX(slice->dirty_end, end);
    }
}

static int slice_write(struct qcow2 *image, struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    int result;

    if (slice->dirty_end <= slice->dirty_start)
        return 0;
    result = qcow2_file_write(image, slice->offset + slice->dirty_start, slice->data + slice->dirty_start,
                              slice->dirty_end - slice->dirty_start);
    if (!result) {
        slice->dirty_start = slice->dirty_end = 0;
        cache->dirty--;
    }
    return result;
}

static int by_offset(const void *a, const void *b)
{
    uint64_t x = (*(struct qcow2_slice *const *)a)->offset, y = (*(struct qcow2_slice *const *)b)->offset;

    return x < y ? -1 : x > y;
}

/* In the order of the file, as disks like it. meta keeps the list from losing members, `fast` from being shuffled meanwhile. */
int qcow2_cache_write(struct qcow2 *image, struct qcow2_cache *cache)
{
    struct qcow2_slice **slices;
    unsigned count = 0;
    int result = 0;

    if (!cache->dirty)
        return 0;
    slices = malloc(cache->dirty * sizeof(*slices));
    if (!slices)
        return -ENOMEM;
    pthread_mutex_lock(&image->fast);
    for (struct qcow2_slice *slice = cache->newest; slice; slice = slice->older) {
        if (slice->dirty_end > slice->dirty_start)
            slices[count++] = slice;
    }
    pthread_mutex_unlock(&image->fast);
    qsort(slices, count, sizeof(*slices), by_offset);
    for (unsigned i = 0; i < count && !result; i++)
        result = slice_write(image, cache, slices[i]);
    free(slices);
    return result;
}

/* ---- Getting ---- */

/* A slice outside of the cache, for new content: a new one or the oldest. */
static int make_room(struct qcow2 *image, struct qcow2_cache *cache, struct qcow2_slice **room)
{
    struct qcow2_slice *slice;
    int result = 0;

    if (cache->count < cache->limit) {
        slice = calloc(1, sizeof(*slice));
        if (slice)
            slice->data = malloc(cache->slice_size);
        if (slice && slice->data) {
            *room = slice;
            return 0;
        }
        free(slice);
        return -ENOMEM;
    }
    pthread_mutex_lock(&image->fast);
    slice = cache->oldest; /* whoever only looks may make it young meanwhile, but it does not go away */
    pthread_mutex_unlock(&image->fast);
    if (slice->dirty_end > slice->dirty_start)
        result = cache == &image->l2 ? qcow2_commit_stable(image) : slice_write(image, cache, slice);
    if (result)
        return result;
    pthread_mutex_lock(&image->fast);
    take_out(cache, slice);
    pthread_mutex_unlock(&image->fast);
    *room = slice;
    return 0;
}

int qcow2_cache_get(struct qcow2 *image, struct qcow2_cache *cache, uint64_t offset, struct qcow2_slice **found)
{
    struct qcow2_slice *slice;
    int result;

    pthread_mutex_lock(&image->fast);
    slice = qcow2_cache_find(cache, offset);
    pthread_mutex_unlock(&image->fast);
    if (!slice) {
        result = make_room(image, cache, &slice);
        if (result)
            return result;
        result = qcow2_file_read(image, offset, slice->data, cache->slice_size);
        if (result) {
            free(slice->data);
            free(slice);
            return result;
        }
        slice->offset = offset;
        slice->dirty_start = slice->dirty_end = 0;
        pthread_mutex_lock(&image->fast);
        put_in(cache, slice);
        pthread_mutex_unlock(&image->fast);
    }
    *found = slice;
    return 0;
}

void qcow2_cache_forget(struct qcow2 *image, struct qcow2_cache *cache, uint64_t offset, uint64_t size)
{
    for (uint64_t at = offset; at < offset + size; at += cache->slice_size) {
        struct qcow2_slice *slice;

        pthread_mutex_lock(&image->fast);
        slice = qcow2_cache_find(cache, at);
        if (slice)
            take_out(cache, slice);
        pthread_mutex_unlock(&image->fast);
        if (slice) {
            free(slice->data);
            free(slice);
        }
    }
}
