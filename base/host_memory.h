/* Host memory: memfds that can be shared, anonymous maps, and the doubly mapped
 * region for generated code (never writable and executable at one address). */
#ifndef EIDOLON_BASE_HOST_MEMORY_H
#define EIDOLON_BASE_HOST_MEMORY_H

#include "base/error.h"
#include "base/types.h"

struct host_region {
    void *base;
    size_t size;
    int fd; /* memfd, or -1 */
};

/* Zero-filled shared memory of `size` bytes (page multiple), demand-allocated. */
int host_memory_memfd(struct host_region *region, const char *name, size_t size, struct error *err);
int host_memory_anonymous(struct host_region *region, size_t size, struct error *err);
/* All of it will be written soon: its pages are made at once, which is several times faster than one fault for each. */
void host_memory_will_write(void *base, size_t size);
/* The same for reading and executing. */
void host_memory_will_read(void *base, size_t size);
/* Private memory that will be written from end to end: in huge pages, if the host has them. */
void host_memory_prefer_huge(void *base, size_t size);
/* Memory of ours that holds pointers to what malloc gave: a leak checker looks into it. Nothing happens without one. */
void host_memory_is_root(void *base, size_t size, bool is_root);

/* The same below 2 GiB, where generated code reaches it by a 32-bit address; elsewhere if there is no room. */
int host_memory_low(struct host_region *region, size_t size, struct error *err);
void host_memory_free(struct host_region *region);

struct host_code {
    uint8_t *write;         /* read-write view */
    const uint8_t *execute; /* read-execute view of the same bytes */
    size_t size;
};
int host_code_create(struct host_code *code, size_t size, struct error *err);
void host_code_destroy(struct host_code *code);

#endif
