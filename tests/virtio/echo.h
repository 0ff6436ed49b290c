/* A virtio device for the tests of rings: answers each chain with its readable bytes, each plus one, in the writable ones; at once,
 * or when the test says so, in any order. */
#ifndef EIDOLON_TESTS_VIRTIO_ECHO_H
#define EIDOLON_TESTS_VIRTIO_ECHO_H

#include "devices/virtio/virtio_pci.h"

extern const struct device_type echo_pci_type;

#define ECHO_QUEUES 2
#define ECHO_HELD   256

struct echo {
    struct virtio_pci virtio;
    struct virtqueue *queues[ECHO_QUEUES];
    bool hold; /* keep elements until echo_release() */
    struct virtqueue_element *held[ECHO_HELD];
    struct virtqueue *held_queue[ECHO_HELD];
    unsigned held_count;
    void (*answered)(void); /* called after each answer; may be NULL */
    uint64_t popped;
    unsigned resets, starts;
};

/* options: as -device has them after the type. Plugged into env->pci_bus. */
struct echo *echo_create(struct device_env *env, const char *options);
/* Answers the held element with this index, or drops it. */
void echo_answer(struct echo *echo, unsigned index);
void echo_forget(struct echo *echo);

#endif
