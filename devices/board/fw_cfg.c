/* fw_cfg: items of bytes that firmware and guests read from the machine, found by a
 * 16-bit key, or by name through a directory (item 0x19). Interface: QEMU docs/specs/fw_cfg.
 *
 *   0x510  w 16  selector (little-endian)
 *   0x511  r  8  next byte of the selected item; zero past its end; writes are ignored
 *   0x514  w 32  high, then 0x518 low half of the address of a DMA request (big-endian); the
 *                write of the low half starts it. Reading gives the signature "QEMU CFG".
 *
 *   DMA request, big-endian:   u32 control: 0 error, 1 read, 2 skip, 3 select, 4 write, 31..16 key
 *                              u32 length, u64 address;   control becomes 0, or 1 on error
 *
 * Requests are carried out at once, device lock held. Items are read-only for the guest. Everything in a request is
 * the guest's: a request whose structure or buffer is not memory ends in an error, and length only costs what the
 * item has left plus zero filling, bounded by guest memory. */
#include "devices/board/fw_cfg.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FW_CFG_MAX_ITEMS     160
#define FW_CFG_DMA_SIGNATURE 0x51454d5520434647ull /* "QEMU CFG" */

enum {
    DMA_ERROR = 1 << 0,
    DMA_READ = 1 << 1,
    DMA_SKIP = 1 << 2,
    DMA_SELECT = 1 << 3,
    DMA_WRITE = 1 << 4,
};

struct fw_cfg_item {
    uint16_t key;
    uint8_t *data;
    size_t size;
};

struct fw_cfg_file { /* as in the directory, big-endian */
    uint32_t size;
    uint16_t select, reserved;
    char name[FW_CFG_FILE_NAME_MAX];
};
_Static_assert(sizeof(struct fw_cfg_file) == 64, "directory entry");

struct fw_cfg {
    struct device device;
    struct fw_cfg_item items[FW_CFG_MAX_ITEMS];
    unsigned item_count;
    struct fw_cfg_file files[FW_CFG_MAX_ITEMS];
    unsigned file_count;
    uint16_t selector;
    uint64_t position; /* in the selected item */
    uint64_t dma_address;
};

struct dma_request {
    uint32_t control, length;
    uint64_t address;
};
_Static_assert(sizeof(struct dma_request) == 16, "DMA request");

/* ---- Contents ---- */

static struct fw_cfg_item *find_item(struct fw_cfg *fw_cfg, uint16_t key)
{
    for (unsigned i = 0; i < fw_cfg->item_count; i++) {
        if (fw_cfg->items[i].key == key)
            return &fw_cfg->items[i];
    }
    return NULL;
}

int fw_cfg_add(struct fw_cfg *fw_cfg, uint16_t key, const void *data, size_t size, struct error *err)
{
    struct fw_cfg_item *item = find_item(fw_cfg, key);
    uint8_t *copy = malloc(size ? size : 1);

    if (!copy)
        return error_set(err, ENOMEM, "fw_cfg: no memory for item 0x%x of %zu bytes", key, size);
    if (!item && fw_cfg->item_count == FW_CFG_MAX_ITEMS) {
        free(copy);
        return error_set(err, ENOSPC, "fw_cfg: too many items");
    }
    if (!item) {
        item = &fw_cfg->items[fw_cfg->item_count++];
        item->key = key;
    }
    memcpy(copy, data, size);
    free(item->data);
    item->data = copy;
    item->size = size;
    return 0;
}

int fw_cfg_add_u16(struct fw_cfg *fw_cfg, uint16_t key, uint16_t value, struct error *err)
{
    value = htole16(value);
    return fw_cfg_add(fw_cfg, key, &value, sizeof(value), err);
}

int fw_cfg_add_u32(struct fw_cfg *fw_cfg, uint16_t key, uint32_t value, struct error *err)
{
    value = htole32(value);
    return fw_cfg_add(fw_cfg, key, &value, sizeof(value), err);
}

int fw_cfg_add_u64(struct fw_cfg *fw_cfg, uint16_t key, uint64_t value, struct error *err)
{
    value = htole64(value);
    return fw_cfg_add(fw_cfg, key, &value, sizeof(value), err);
}

static int update_directory(struct fw_cfg *fw_cfg, struct error *err)
{
    size_t size = 4 + fw_cfg->file_count * sizeof(struct fw_cfg_file);
    uint32_t count = htobe32(fw_cfg->file_count);
    uint8_t *data = malloc(size);
    int result;

    if (!data)
        return error_set(err, ENOMEM, "fw_cfg: no memory for the directory");
    memcpy(data, &count, 4);
    memcpy(data + 4, fw_cfg->files, size - 4);
    result = fw_cfg_add(fw_cfg, FW_CFG_FILE_DIR, data, size, err);
    free(data);
    return result;
}

int fw_cfg_add_file(struct fw_cfg *fw_cfg, const char *name, const void *data, size_t size, struct error *err)
{
    struct fw_cfg_file *file = NULL;
    unsigned i;
    int result;

    if (strlen(name) >= FW_CFG_FILE_NAME_MAX)
        return error_set(err, ENAMETOOLONG, "fw_cfg: file name %s is too long", name);
    if (size > UINT32_MAX)
        return error_set(err, EFBIG, "fw_cfg: file %s is too big", name);
    for (i = 0; i < fw_cfg->file_count && strcmp(fw_cfg->files[i].name, name); i++)
        ;
    if (i == FW_CFG_MAX_ITEMS)
        return error_set(err, ENOSPC, "fw_cfg: too many files");
    result = fw_cfg_add(fw_cfg, FW_CFG_FILE_FIRST + i, data, size, err);
    if (result)
        return result;
    file = &fw_cfg->files[i];
    strcpy(file->name, name);
    file->size = htobe32(size);
    file->select = htobe16(FW_CFG_FILE_FIRST + i);
    if (i == fw_cfg->file_count)
        fw_cfg->file_count++;
    return update_directory(fw_cfg, err);
}

/* ---- Ports ---- */

static void select_item(struct fw_cfg *fw_cfg, uint16_t key)
{
    fw_cfg->selector = key;
    fw_cfg->position = 0;
}

/* What is left of the selected item. */
static size_t remaining(struct fw_cfg *fw_cfg, const uint8_t **data)
{
    const struct fw_cfg_item *item = find_item(fw_cfg, fw_cfg->selector);

    if (!item || fw_cfg->position >= item->size)
        return 0;
    *data = item->data + fw_cfg->position;
    return item->size - fw_cfg->position;
}

static bool dma_read(struct fw_cfg *fw_cfg, uint64_t address, uint32_t length)
{
    struct physmem *mem = fw_cfg->device.env->mem;
    const uint8_t *data = NULL;
    size_t size = MIN(remaining(fw_cfg, &data), length);

    if (address + length < address)
        return false;
    if (size && !physmem_write(mem, address, data, size))
        return false;
    return size == length || physmem_zero(mem, address + size, length - size);
}

static void dma_run(struct fw_cfg *fw_cfg, uint64_t address)
{
    struct physmem *mem = fw_cfg->device.env->mem;
    struct dma_request request;
    uint32_t control, length, status = 0;

    if (!physmem_read(mem, address, &request, sizeof(request)))
        return;
    control = be32toh(request.control);
    length = be32toh(request.length);
    if (control & DMA_SELECT)
        select_item(fw_cfg, control >> 16);
    if (control & DMA_READ) {
        if (!dma_read(fw_cfg, be64toh(request.address), length))
            status = DMA_ERROR;
    } else if (control & DMA_WRITE) {
        status = DMA_ERROR; /* nothing here is writable */
    }
    if (control & (DMA_READ | DMA_SKIP | DMA_WRITE))
        fw_cfg->position += length;
    status = htobe32(status);
    physmem_write(mem, address, &status, sizeof(status));
}

static uint64_t fw_cfg_read(void *opaque, uint64_t offset, unsigned size)
{
    struct fw_cfg *fw_cfg = opaque;
    const uint8_t *data = NULL;

    if (offset == 1 && size == 1) {
        uint8_t value = remaining(fw_cfg, &data) ? *data : 0;

        fw_cfg->position++;
        return value;
    }
    if (offset == 4 && size == 4)
        return htobe32(FW_CFG_DMA_SIGNATURE >> 32);
    if (offset == 8 && size == 4)
        return htobe32((uint32_t)FW_CFG_DMA_SIGNATURE);
    if (offset >= 4 && size == 1)
        return FW_CFG_DMA_SIGNATURE >> (8 * (11 - offset)) & 0xff;
    return 0;
}

static void fw_cfg_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct fw_cfg *fw_cfg = opaque;
    uint64_t address;

    if (offset == 0 && size == 2) {
        select_item(fw_cfg, value);
    } else if (offset == 4 && size == 4) {
        fw_cfg->dma_address = (uint64_t)be32toh(value) << 32;
    } else if (offset == 8 && size == 4) {
        address = fw_cfg->dma_address | be32toh(value);
        fw_cfg->dma_address = 0;
        dma_run(fw_cfg, address);
    }
}

static const struct io_ops fw_cfg_ops = { .read = fw_cfg_read, .write = fw_cfg_write, .min_size = 1, .max_size = 4 };

/* ---- The device ---- */

static void fw_cfg_reset(struct device *device)
{
    struct fw_cfg *fw_cfg = (struct fw_cfg *)device;

    select_item(fw_cfg, 0);
    fw_cfg->dma_address = 0;
}

static void fw_cfg_destroy(struct device *device)
{
    struct fw_cfg *fw_cfg = (struct fw_cfg *)device;

    port_space_remove(device->env->ports, FW_CFG_IO_BASE, 12, fw_cfg);
    for (unsigned i = 0; i < fw_cfg->item_count; i++)
        free(fw_cfg->items[i].data);
}

static const struct state_field fw_cfg_fields[] = {
    STATE_FIELD(struct fw_cfg, selector),
    STATE_FIELD(struct fw_cfg, position),
    STATE_FIELD(struct fw_cfg, dma_address),
    STATE_END,
};
static const struct state_table fw_cfg_state = { .name = "fw_cfg", .version = 1, .fields = fw_cfg_fields };

static const struct device_type fw_cfg_type = {
    .name = "fw_cfg_io",
    .bus = "System",
    .description = "Firmware configuration",
    .size = sizeof(struct fw_cfg),
    .reset = fw_cfg_reset,
    .destroy = fw_cfg_destroy,
    .state = &fw_cfg_state,
};

struct fw_cfg *fw_cfg_create(struct device_env *env, struct error *err)
{
    struct fw_cfg *fw_cfg = device_allocate(env, &fw_cfg_type, NULL, err);

    if (!fw_cfg)
        return NULL;
    /* ID: bit 0 the ports, bit 1 DMA. */
    if (fw_cfg_add(fw_cfg, FW_CFG_SIGNATURE, "QEMU", 4, err) || fw_cfg_add_u32(fw_cfg, FW_CFG_ID, 3, err) ||
        update_directory(fw_cfg, err) ||
        port_space_add(env->ports, FW_CFG_IO_BASE, 12, &fw_cfg_ops, fw_cfg, "fw_cfg", err)) {
        device_destroy(&fw_cfg->device);
        return NULL;
    }
    return fw_cfg;
}
