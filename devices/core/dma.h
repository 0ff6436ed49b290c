/* Scatter lists: guest memory that one transfer of a device reads or writes in place.
 *
 * Building and completing one takes no lock, so I/O threads may; pieces stay valid until physmem_destroy(). */
#ifndef EIDOLON_DEVICES_CORE_DMA_H
#define EIDOLON_DEVICES_CORE_DMA_H

#include <sys/uio.h>

#include "mmu/physmem.h"

struct dma_list {
    struct physmem *mem;
    struct iovec *iov; /* host addresses */
    gpa_t *gpa;        /* of each piece's first byte */
    unsigned count, capacity;
    uint64_t size; /* bytes in all */
};

void dma_list_init(struct dma_list *list, struct physmem *mem);
/* Appends [gpa, gpa + size). -EFAULT if any byte is not RAM (MMIO and ROM are not reached), -ENOMEM; the list is
 * unchanged then. Adjacent pieces are joined. */
int dma_list_add(struct dma_list *list, gpa_t gpa, uint64_t size);
/* The first `size` bytes were written by the host: dirty tracking and translated code learn of it. */
void dma_list_written(const struct dma_list *list, uint64_t size);
/* Copies between the list, from byte `offset` on, and a buffer; returns how many bytes the list had. `copy_to` does not
 * call dma_list_written(). */
uint64_t dma_list_copy_from(const struct dma_list *list, uint64_t offset, void *buffer, uint64_t size);
uint64_t dma_list_copy_to(const struct dma_list *list, uint64_t offset, const void *buffer, uint64_t size);
void dma_list_clear(struct dma_list *list); /* empty; keeps its arrays */
void dma_list_free(struct dma_list *list);

#endif
