/* Where a random number generator takes its bytes from: -object rng-random,filename= (a descriptor that may have none just now) and
 * rng-builtin (the host kernel's getrandom). Main loop. */
#ifndef EIDOLON_DEVICES_VIRTIO_RNG_BACKEND_H
#define EIDOLON_DEVICES_VIRTIO_RNG_BACKEND_H

#include "base/types.h"

struct rng_backend;

struct rng_backend *rng_backend_builtin(void); /* never goes away */
/* Up to `size` bytes: how many came, at least 1; -EAGAIN: none now, watch rng_backend_fd(); another -errno: it is broken. */
int rng_backend_read(struct rng_backend *backend, void *buffer, unsigned size);
int rng_backend_fd(const struct rng_backend *backend);

#endif
