/* Who is doing I/O where on the disk. Reads and writes of clusters that exist share a range; whoever allocates, frees or moves
 * clusters has it alone. So a cluster is never given to somebody else while I/O on it is under way, two writers never allocate the same
 * cluster, and copy on write sees no half of a write.
 *
 * First come, first served: an entry waits for those before it in the list that it conflicts with, waiting ones included, so that
 * nobody starves. A thread holds one range at a time and takes it before `meta`; that leaves no cycle. The list is as long as requests
 * are under way. */
#include "devices/block/qcow2_internal.h"

static bool conflicts(const struct qcow2_pin *a, const struct qcow2_pin *b)
{
    return (a->exclusive || b->exclusive) && a->start < b->end && b->start < a->end;
}

static bool must_wait(const struct qcow2_pin *pin)
{
    for (const struct qcow2_pin *before = pin->previous; before; before = before->previous) {
        if (conflicts(before, pin))
            return true;
    }
    return false;
}

static void append(struct qcow2 *image, struct qcow2_pin *pin, uint64_t offset, uint64_t size, bool exclusive)
{
    *pin = (struct qcow2_pin){
        .start = cluster_start(image, offset),
        .end = cluster_end(image, offset + size),
        .exclusive = exclusive,
        .previous = image->last_pin,
    };
    *(image->last_pin ? &image->last_pin->next : &image->first_pin) = pin;
    image->last_pin = pin;
}

static void unlink_pin(struct qcow2 *image, struct qcow2_pin *pin)
{
    *(pin->previous ? &pin->previous->next : &image->first_pin) = pin->next;
    *(pin->next ? &pin->next->previous : &image->last_pin) = pin->previous;
    pin->active = false;
    if (image->pin_waiters)
        pthread_cond_broadcast(&image->pins_changed);
}

void qcow2_range_lock(struct qcow2 *image, struct qcow2_pin *pin, uint64_t offset, uint64_t size, bool exclusive)
{
    pthread_mutex_lock(&image->fast);
    append(image, pin, offset, size, exclusive);
    while (must_wait(pin)) {
        image->pin_waiters++;
        pthread_cond_wait(&image->pins_changed, &image->fast);
        image->pin_waiters--;
    }
    pin->active = true;
    pthread_mutex_unlock(&image->fast);
}

bool qcow2_range_try_shared(struct qcow2 *image, struct qcow2_pin *pin, uint64_t offset, uint64_t size)
{
    append(image, pin, offset, size, false);
    if (must_wait(pin)) {
        unlink_pin(image, pin);
        return false;
    }
    pin->active = true;
    return true;
}

void qcow2_range_unlock(struct qcow2 *image, struct qcow2_pin *pin)
{
    pthread_mutex_lock(&image->fast);
    if (pin->active)
        unlink_pin(image, pin);
    pthread_mutex_unlock(&image->fast);
}

void qcow2_unpin(struct qcow2 *image, struct qcow2_pin *pin)
{
    qcow2_range_unlock(image, pin);
}
