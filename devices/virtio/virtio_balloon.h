/* virtio-balloon (virtio 1.2, section 5.5): what the monitor asks of it. Device lock held. */
#ifndef EIDOLON_DEVICES_VIRTIO_VIRTIO_BALLOON_H
#define EIDOLON_DEVICES_VIRTIO_VIRTIO_BALLOON_H

#include "devices/core/device.h"

/* Tags of the statistics, 5.5.6.4. */
enum virtio_balloon_stat {
    BALLOON_STAT_SWAP_IN = 0,
    BALLOON_STAT_SWAP_OUT,
    BALLOON_STAT_MAJOR_FAULTS,
    BALLOON_STAT_MINOR_FAULTS,
    BALLOON_STAT_FREE,
    BALLOON_STAT_TOTAL,
    BALLOON_STAT_AVAILABLE,
    BALLOON_STAT_CACHES,
    BALLOON_STAT_HUGETLB_ALLOCATED,
    BALLOON_STAT_HUGETLB_FAILURES,
    BALLOON_STAT_COUNT,
};

/* A virtio-balloon device, or NULL: `device` is something else. */
struct virtio_balloon *virtio_balloon_of(struct device *device);
/* Asks the guest to give back memory, until it has `bytes` left (it need not obey). */
void virtio_balloon_set_target(struct virtio_balloon *balloon, uint64_t bytes);
uint64_t virtio_balloon_guest_bytes(const struct virtio_balloon *balloon); /* that it has now, as it says */
/* Asks for statistics every `seconds`; 0: not any more. */
void virtio_balloon_poll_stats(struct virtio_balloon *balloon, unsigned seconds);
/* What it said last; ~0: it did not say. Returns the wall clock's second of that, 0: never. */
uint64_t virtio_balloon_stats(struct virtio_balloon *balloon, uint64_t values[BALLOON_STAT_COUNT]);

#endif
