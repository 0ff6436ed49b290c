/* Scatter lists of guest memory. Any thread; a list is its owner's. */
#include "devices/core/dma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void dma_list_init(struct dma_list *list, struct physmem *mem)
{
    *list = (struct dma_list){ .mem = mem };
}

static int grow(struct dma_list *list)
{
    unsigned capacity = list->capacity ? list->capacity * 2 : 8;
    struct iovec *iov = realloc(list->iov, capacity * sizeof(*iov));

    if (!iov)
        return -ENOMEM;
    list->iov = iov;
    gpa_t *gpa = realloc(list->gpa, capacity * sizeof(*gpa));
    if (!gpa)
        return -ENOMEM;
    list->gpa = gpa;
    list->capacity = capacity;
    return 0;
}

static int append(struct dma_list *list, gpa_t gpa, uint8_t *host, uint64_t size)
{
    if (list->count) {
        struct iovec *last = &list->iov[list->count - 1];
        if ((uint8_t *)last->iov_base + last->iov_len == host && list->gpa[list->count - 1] + last->iov_len == gpa) {
            last->iov_len += size;
            list->size += size;
            return 0;
        }
    }
    if (list->count == list->capacity && grow(list))
        return -ENOMEM;
    list->iov[list->count] = (struct iovec){ host, size };
    list->gpa[list->count++] = gpa;
    list->size += size;
    return 0;
}

static int add_by_page(struct dma_list *list, gpa_t gpa, uint64_t size)
{
    while (size) {
        uint64_t part = MIN(size, PAGE_SIZE - (gpa & ~PAGE_MASK));
        uint8_t *host = physmem_ram_pointer(list->mem, gpa, part);
        if (!host)
            return -EFAULT;
        int ret = append(list, gpa, host, part);
        if (ret)
            return ret;
        gpa += part;
        size -= part;
    }
    return 0;
}

int dma_list_add(struct dma_list *list, gpa_t gpa, uint64_t size)
{
    if (!size)
        return 0;
    if (gpa + size - 1 < gpa || size > physmem_ram_size(list->mem))
        return -EFAULT;
    uint8_t *host = physmem_ram_pointer(list->mem, gpa, size);
    if (host)
        return append(list, gpa, host, size);
    unsigned count = list->count;
    uint64_t old_size = list->size, last = count ? list->iov[count - 1].iov_len : 0;
    int ret = add_by_page(list, gpa, size);
    if (ret) {
        list->count = count;
        list->size = old_size;
        if (count)
            list->iov[count - 1].iov_len = last;
    }
    return ret;
}

void dma_list_written(const struct dma_list *list, uint64_t size)
{
    for (unsigned i = 0; i < list->count && size; i++) {
        uint64_t part = MIN(size, list->iov[i].iov_len);
        physmem_written(list->mem, list->gpa[i], part);
        size -= part;
    }
}

static uint64_t copy(const struct dma_list *list, uint64_t offset, uint8_t *buffer, uint64_t size, bool to_guest)
{
    uint64_t done = 0;

    for (unsigned i = 0; i < list->count && done < size; i++) {
        uint64_t length = list->iov[i].iov_len;
        if (offset >= length) {
            offset -= length;
            continue;
        }
        uint8_t *guest = (uint8_t *)list->iov[i].iov_base + offset;
        uint64_t part = MIN(size - done, length - offset);
        if (to_guest)
            memcpy(guest, buffer + done, part);
        else
            memcpy(buffer + done, guest, part);
        done += part;
        offset = 0;
    }
    return done;
}

uint64_t dma_list_copy_from(const struct dma_list *list, uint64_t offset, void *buffer, uint64_t size)
{
    return copy(list, offset, buffer, size, false);
}

uint64_t dma_list_copy_to(const struct dma_list *list, uint64_t offset, const void *buffer, uint64_t size)
{
    return copy(list, offset, (uint8_t *)buffer, size, true);
}

void dma_list_clear(struct dma_list *list)
{
    list->count = 0;
    list->size = 0;
}

void dma_list_free(struct dma_list *list)
{
    free(list->iov);
    free(list->gpa);
    *list = (struct dma_list){ .mem = list->mem };
}
