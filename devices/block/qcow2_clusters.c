/* Which clusters of the file hold metadata: header, tables, refcounts, snapshots. An image is hostile input: an entry may send the
 * guest's writes anywhere, and a refcount of 0 may let us allocate what is in use. Both are caught here, before anything is written.
 * Changed under meta and fast, looked at under either. */
#include "devices/block/qcow2_internal.h"

#include <stdlib.h>

static size_t place_of(const struct qcow2_cluster_set *set, uint64_t cluster)
{
    return (cluster * 0x9e3779b97f4a7c15ull >> 20) & (set->capacity - 1);
}

static int grow(struct qcow2_cluster_set *set)
{
    struct qcow2_cluster_set bigger = { .capacity = set->capacity ? set->capacity * 2 : 64 };

    bigger.places = calloc(bigger.capacity, sizeof(*bigger.places));
    if (!bigger.places)
        return -ENOMEM;
    for (size_t i = 0; i < set->capacity; i++) {
        if (set->places[i])
            qcow2_set_add(&bigger, set->places[i] - 1);
    }
    free(set->places);
    *set = bigger;
    return 0;
}

int qcow2_set_add(struct qcow2_cluster_set *set, uint64_t cluster)
{
    size_t at;

    if (set->count * 2 >= set->capacity) {
        int result = grow(set);

        if (result)
            return result;
    }
    for (at = place_of(set, cluster); set->places[at]; at = (at + 1) & (set->capacity - 1)) {
        if (set->places[at] == cluster + 1)
            return -EEXIST;
    }
    set->places[at] = cluster + 1;
    set->count++;
    return 0;
}

bool qcow2_set_has(const struct qcow2_cluster_set *set, uint64_t cluster)
{
    if (!set->count)
        return false;
    for (size_t at = place_of(set, cluster); set->places[at]; at = (at + 1) & (set->capacity - 1)) {
        if (set->places[at] == cluster + 1)
            return true;
    }
    return false;
}

/* Closes the gap: those behind it that would not be found any more move up. */
void qcow2_set_remove(struct qcow2_cluster_set *set, uint64_t cluster)
{
    size_t mask = set->capacity - 1, at, next;

    if (!set->count)
        return;
    for (at = place_of(set, cluster); set->places[at] != cluster + 1; at = (at + 1) & mask) {
        if (!set->places[at])
            return;
    }
    for (next = (at + 1) & mask; set->places[next]; next = (next + 1) & mask) {
        size_t home = place_of(set, set->places[next] - 1);

        if (((next - home) & mask) >= ((next - at) & mask)) {
            set->places[at] = set->places[next];
            at = next;
        }
    }
    set->places[at] = 0;
    set->count--;
}

void qcow2_set_free(struct qcow2_cluster_set *set)
{
    free(set->places);
    *set = (struct qcow2_cluster_set){ 0 };
}

int qcow2_metadata_add(struct qcow2 *image, uint64_t offset, uint64_t size)
{
    uint64_t first = cluster_of(image, offset), count = clusters_for(image, size);
    int result = 0;

    pthread_mutex_lock(&image->fast);
    for (uint64_t i = 0; i < count && !result; i++)
        result = qcow2_set_add(&image->metadata, first + i);
    pthread_mutex_unlock(&image->fast);
    return result;
}

void qcow2_metadata_remove(struct qcow2 *image, uint64_t offset, uint64_t size)
{
    uint64_t first = cluster_of(image, offset), count = clusters_for(image, size);

    pthread_mutex_lock(&image->fast);
    for (uint64_t i = 0; i < count; i++)
        qcow2_set_remove(&image->metadata, first + i);
    pthread_mutex_unlock(&image->fast);
}

bool qcow2_metadata_overlaps(const struct qcow2 *image, uint64_t offset, uint64_t size)
{
    for (uint64_t cluster = cluster_of(image, offset); cluster < clusters_for(image, offset + size); cluster++) {
        if (qcow2_set_has(&image->metadata, cluster))
            return true;
    }
    return false;
}
