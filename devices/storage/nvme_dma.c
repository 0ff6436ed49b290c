/* Where a command's data lie: physical region pages and scatter gather lists (NVM Express 1.4, 4.3 and 4.4).
 *
 * Both are lists that the guest writes, so both are bounded here: a page of a PRP list holds at least two entries, of which
 * all but the last are data, and the transfer ends at MDTS; an SGL may have SGL_MAX_DESCRIPTORS descriptors in all. Data
 * that are not wholly in RAM are a data transfer error, before anything is moved. The controller's lock held. */
#include "devices/storage/nvme_internal.h"

#include <errno.h>

#define SGL_MAX_DESCRIPTORS 1024u
#define SGL_CHUNK           64u

static unsigned add(struct nvme_command *command, gpa_t gpa, uint64_t size)
{
    switch (dma_list_add(&command->data, gpa, size)) {
    case 0:
        return NVME_OK;
    case -ENOMEM:
        return NVME_INTERNAL_ERROR;
    default:
        return NVME_DATA_TRANSFER_ERROR | NVME_DO_NOT_RETRY;
    }
}

/* ---- PRP ---- */

/* The list at `list` describes the last `size` bytes. It ends at a page's end, where the last entry leads to the next
 * list, which begins a page. */
static unsigned map_prp_list(struct nvme_command *command, gpa_t list, uint64_t size)
{
    struct nvme *nvme = command->nvme;
    uint64_t page = 1ull << nvme->page_shift, entries[64];

    if (list & 7)
        return NVME_INVALID_PRP_OFFSET | NVME_DO_NOT_RETRY;
    while (size) {
        uint64_t in_page = (page - (list & (page - 1))) / 8, needed = (size + page - 1) / page;
        uint64_t count = MIN(MIN(in_page, needed), ARRAY_SIZE(entries));

        if (!physmem_read(nvme->pci.device.env->mem, list, entries, count * 8))
            return NVME_DATA_TRANSFER_ERROR | NVME_DO_NOT_RETRY;
        for (uint64_t i = 0; i < count; i++) {
            uint64_t part = MIN(size, page);
            unsigned status;

            if (entries[i] & (page - 1))
                return NVME_INVALID_PRP_OFFSET | NVME_DO_NOT_RETRY;
            if (i + 1 == in_page && size > page) {
                list = entries[i];
                count = 0;
                break;
            }
            status = add(command, entries[i], part);
            if (status)
                return status;
            size -= part;
        }
        list += count * 8;
    }
    return NVME_OK;
}

static unsigned map_prp(struct nvme_command *command, uint64_t size)
{
    uint64_t page = 1ull << command->nvme->page_shift;
    uint64_t prp1 = command->sqe.prp1, prp2 = command->sqe.prp2;
    uint64_t part = MIN(size, page - (prp1 & (page - 1)));
    unsigned status;

    if (prp1 & 3)
        return NVME_INVALID_PRP_OFFSET | NVME_DO_NOT_RETRY;
    status = add(command, prp1, part);
    size -= part;
    if (status || !size)
        return status;
    if (size > page)
        return map_prp_list(command, prp2, size);
    if (prp2 & (page - 1))
        return NVME_INVALID_PRP_OFFSET | NVME_DO_NOT_RETRY;
    return add(command, prp2, size);
}

/* ---- SGL ---- */

struct sgl_walk {
    gpa_t segment;
    uint32_t left;     /* bytes of the segment */
    bool last;         /* no further segment may follow */
    unsigned examined; /* descriptors so far */
    uint64_t size;     /* bytes of data that are still wanted */
};

static unsigned add_data(struct nvme_command *command, struct sgl_walk *walk, const struct nvme_sgl *sgl)
{
    if (sgl->length > walk->size)
        return NVME_SGL_INVALID_LENGTH | NVME_DO_NOT_RETRY;
    walk->size -= sgl->length;
    return add(command, sgl->address, sgl->length);
}

/* The descriptor says where the next segment is. */
static unsigned enter_segment(struct sgl_walk *walk, const struct nvme_sgl *sgl)
{
    if (walk->last || !sgl->length || sgl->length % sizeof(*sgl))
        return NVME_SGL_INVALID_SEGMENT | NVME_DO_NOT_RETRY;
    walk->segment = sgl->address;
    walk->left = sgl->length;
    walk->last = sgl->type >> 4 == NVME_SGL_LAST_SEGMENT;
    return NVME_OK;
}

static unsigned walk_chunk(struct nvme_command *command, struct sgl_walk *walk)
{
    struct nvme_sgl chunk[SGL_CHUNK];
    unsigned count = MIN(walk->left / (unsigned)sizeof(chunk[0]), SGL_CHUNK), status;

    walk->examined += count;
    if (walk->examined > SGL_MAX_DESCRIPTORS)
        return NVME_SGL_INVALID_COUNT | NVME_DO_NOT_RETRY;
    if (!physmem_read(command->nvme->pci.device.env->mem, walk->segment, chunk, count * sizeof(chunk[0])))
        return NVME_DATA_TRANSFER_ERROR | NVME_DO_NOT_RETRY;
    walk->segment += count * sizeof(chunk[0]);
    walk->left -= count * (unsigned)sizeof(chunk[0]);
    for (unsigned i = 0; i < count; i++) {
        unsigned type = chunk[i].type >> 4;

        if (chunk[i].type & 15) /* an offset instead of an address */
            return NVME_SGL_INVALID_TYPE | NVME_DO_NOT_RETRY;
        if (type == NVME_SGL_DATA) {
            status = add_data(command, walk, &chunk[i]);
            if (status)
                return status;
        } else if (type != NVME_SGL_SEGMENT && type != NVME_SGL_LAST_SEGMENT) {
            return NVME_SGL_INVALID_TYPE | NVME_DO_NOT_RETRY;
        } else if (i + 1 < count || walk->left) {
            return NVME_SGL_INVALID_SEGMENT | NVME_DO_NOT_RETRY; /* only the last descriptor leads on */
        } else {
            return enter_segment(walk, &chunk[i]);
        }
    }
    if (!walk->left && !walk->last)
        return NVME_SGL_INVALID_SEGMENT | NVME_DO_NOT_RETRY;
    return NVME_OK;
}

static unsigned map_sgl(struct nvme_command *command, uint64_t size)
{
    struct sgl_walk walk = { .size = size };
    struct nvme_sgl first = {
        .address = command->sqe.prp1,
        .length = (uint32_t)command->sqe.prp2,
        .type = command->sqe.prp2 >> 56,
    };
    unsigned status;

    if (first.type & 15)
        return NVME_SGL_INVALID_TYPE | NVME_DO_NOT_RETRY;
    if (first.type >> 4 == NVME_SGL_DATA) {
        status = add_data(command, &walk, &first);
    } else if (first.type >> 4 == NVME_SGL_SEGMENT || first.type >> 4 == NVME_SGL_LAST_SEGMENT) {
        status = enter_segment(&walk, &first);
        while (!status && walk.left)
            status = walk_chunk(command, &walk);
    } else {
        return NVME_SGL_INVALID_TYPE | NVME_DO_NOT_RETRY;
    }
    if (!status && walk.size)
        status = NVME_SGL_INVALID_LENGTH | NVME_DO_NOT_RETRY;
    return status;
}

/* ---- For commands ---- */

unsigned nvme_map(struct nvme_command *command, uint64_t size)
{
    unsigned kind = command->sqe.flags >> 6, status;

    dma_list_clear(&command->data);
    if (!size)
        return NVME_OK;
    if (!command->nvme->dma_enabled)
        return NVME_DATA_TRANSFER_ERROR;
    /* Admin commands have PRPs over PCI Express (4.1). */
    if (kind == 3 || (kind && command->sq->id == 0))
        return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
    status = kind ? map_sgl(command, size) : map_prp(command, size);
    if (status)
        dma_list_clear(&command->data);
    return status;
}

unsigned nvme_copy_to_guest(struct nvme_command *command, const void *buffer, uint64_t size)
{
    unsigned status = nvme_map(command, size);

    if (status)
        return status;
    dma_list_copy_to(&command->data, 0, buffer, size);
    dma_list_written(&command->data, size);
    return NVME_OK;
}

unsigned nvme_copy_from_guest(struct nvme_command *command, void *buffer, uint64_t size)
{
    unsigned status = nvme_map(command, size);

    if (!status)
        dma_list_copy_from(&command->data, 0, buffer, size);
    return status;
}
