/* Nodes: the drivers, how a tree of them is opened from options, what is common to their work.
 *
 * Threads: opening and closing are the main thread's; block_node_run() and its kin are any thread's. */
#include "devices/block/block_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct block_driver block_file_driver, block_host_device_driver, block_nbd_driver, block_raw_driver;
extern const struct block_driver block_qcow2_driver;

static const struct block_driver *const drivers[] = {
    &block_file_driver,  &block_host_device_driver, &block_nbd_driver, &block_raw_driver,
    &block_qcow2_driver,
};

const struct block_driver *block_driver_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(drivers); i++) {
        if (!strcmp(drivers[i]->name, name))
            return drivers[i];
    }
    return NULL;
}

/* ---- Formats ---- */

static const struct signature {
    const char *format;
    unsigned offset, length;
    const char *bytes;
} signatures[] = {
    { "qcow2", 0, 4, "QFI\xfb" },
    { "vmdk", 0, 4, "KDMV" },
    { "vmdk", 0, 4, "COWD" },
    { "vmdk", 0, 21, "# Disk DescriptorFile" },
    { "vhdx", 0, 8, "vhdxfile" },
    { "vdi", 64, 4, "\x7f\x10\xda\xbe" },
    { "vpc", 0, 8, "conectix" },
    { "qed", 0, 4, "QED\0" },
    { "parallels", 0, 16, "WithoutFreeSpace" },
    { "parallels", 0, 16, "WithouFreSpacExt" },
    { "luks", 0, 6, "LUKS\xba\xbe" },
    { "dmg", 0, 4, "koly" },
};

const char *block_probe(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < ARRAY_SIZE(signatures); i++) {
        const struct signature *signature = &signatures[i];

        if (signature->offset + signature->length <= size &&
            !memcmp(data + signature->offset, signature->bytes, signature->length))
            return signature->format;
    }
    return "raw";
}

/* Formats that others read for us. */
static int unknown_format(const char *format, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(signatures); i++) {
        if (!strcmp(signatures[i].format, format))
            return error_set(err, ENOTSUP,
                             "images of format '%s' are read through a server: qemu-nbd -k SOCKET -f %s IMAGE, then "
                             "file=nbd+unix:///?socket=SOCKET,format=raw",
                             format, format);
    }
    return error_set(err, EINVAL, "unknown format '%s'", format);
}

/* ---- Opening ---- */

struct block_node *block_node_open_with(const struct block_driver *driver, struct block_open *open, struct error *err)
{
    struct block_node *node = calloc(1, driver->size);
    int ret;

    if (!node) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    node->driver = driver;
    node->references = 1;
    node->flags = open->flags;
    node->logical_block_size = node->physical_block_size = SECTOR_SIZE;
    ret = driver->open(node, open, err);
    if (ret) {
        block_node_put(node->file);
        free(node->filename);
        free(node);
        return NULL;
    }
    return node;
}

/* "nbd" of "nbd://host", "" of a path. As in QEMU, a colon before the first slash makes a protocol. */
static size_t protocol_length(const char *filename)
{
    size_t length = strcspn(filename, ":/");

    return filename[length] == ':' ? length : 0;
}

static const char *protocol_driver(const struct block_open *open, const char *filename, struct error *err)
{
    size_t length = protocol_length(filename);

    if (!length || !strncmp(filename, "file:", 5))
        return "file";
    if (!strncmp(filename, "host_device:", 12) || !strncmp(filename, "host_cdrom:", 11))
        return "host_device";
    if (!strncmp(filename, "nbd", 3))
        return "nbd";
    (void)open;
    error_set(
        err, EINVAL,
        "%s: unknown protocol '%.*s' (what nbdkit can serve is reached by nbd+unix:; a file of that name is ./%s)",
        filename, (int)length, filename, filename);
    return NULL;
}

static struct block_node *open_protocol(struct block_open *open, struct error *err)
{
    const char *name = block_open_get(open, "driver");
    const struct block_driver *driver;

    if (!open->filename)
        open->filename = block_open_get(open, "filename");
    if (!name) {
        if (!open->filename) {
            error_set(err, EINVAL, "%sdriver or %sfilename is missing", open->prefix, open->prefix);
            return NULL;
        }
        name = protocol_driver(open, open->filename, err);
        if (!name)
            return NULL;
    }
    driver = block_driver_find(name);
    if (!driver || !driver->protocol) {
        error_set(err, EINVAL, "%sdriver=%s: unknown protocol (file, host_device, nbd)", open->prefix, name);
        return NULL;
    }
    return block_node_open_with(driver, open, err);
}

struct block_node *block_node_reference(struct block_open *open, const char *key, const char *name, struct error *err)
{
    struct block *block = block_find(open->registry, name);

    if (!block || !block->root) {
        error_set(err, ENOENT, "%s%s=%s: there is no such node", open->prefix, key, name);
        return NULL;
    }
    if (*block->user) {
        error_set(err, EBUSY, "%s%s=%s: that node is in use by '%s'", open->prefix, key, name, block->user);
        return NULL;
    }
    snprintf(block->user, sizeof(block->user), "another node");
    block->root->references++;
    return block->root;
}

struct block_node *block_node_open_file(struct block_open *open, struct error *err)
{
    struct block_open below = *open;
    const char *reference = block_open_get(open, "file");

    if (strlen(open->prefix) + 6 > sizeof(below.prefix)) {
        error_set(err, EINVAL, "%s: nested too deeply", open->prefix);
        return NULL;
    }
    strcat(below.prefix, "file.");
    if (reference && !open->filename) {
        struct block_node *node = block_node_reference(open, "file", reference, err);

        if (node && node->flags.read_only && !open->flags.read_only) {
            error_set(err, EROFS, "%sfile=%s: that node is read-only", open->prefix, reference);
            block_node_put(node);
            return NULL;
        }
        return node;
    }
    if (block_open_read_flags(&below, err))
        return NULL;
    return open_protocol(&below, err);
}

/* The format that the first bytes show. */
static const char *probe(struct block_node *file, struct error *err)
{
    uint8_t data[SECTOR_SIZE] = { 0 };
    int ret = block_node_read(file, 0, data, MIN(file->size, sizeof(data)));

    if (ret) {
        error_set(err, -ret, "%s: cannot be read: %s", file->filename, strerror(-ret));
        return NULL;
    }
    return block_probe(data, MIN(file->size, sizeof(data)));
}

/* Without a format: opens the file, looks, and gives the format that node. */
struct block_node *block_node_open(struct block_open *open, bool *probed_raw, struct error *err)
{
    const char *name = block_open_get(open, "driver");
    const char *format = block_open_get(open, "format");
    const struct block_driver *driver;

    if (block_open_read_flags(open, err))
        return NULL;
    if (name && format) {
        error_set(err, EINVAL, "driver and format mean the same: give one");
        return NULL;
    }
    name = name ? name : format;
    if (!name) {
        /* Twice open would be twice locked: the probe opens without a lock, for reading only. */
        struct block_open look = *open;
        struct block_node *file;

        look.flags.read_only = true;
        look.flags.locking = BLOCK_LOCK_OFF;
        file = block_node_open_file(&look, err);
        if (!file)
            return NULL;
        name = probe(file, err);
        block_node_put(file);
        if (!name)
            return NULL;
        if (probed_raw)
            *probed_raw = !strcmp(name, "raw");
    }
    driver = block_driver_find(name);
    if (!driver) {
        unknown_format(name, err);
        if (!format)
            error_prefix(err, 0, "%s", open->filename ? open->filename : "driver");
        return NULL;
    }
    return driver->protocol ? open_protocol(open, err) : block_node_open_with(driver, open, err);
}

void block_node_put(struct block_node *node)
{
    if (!node || --node->references)
        return;
    node->driver->close(node);
    block_node_put(node->file);
    free(node->filename);
    free(node);
}

/* ---- Work ---- */

int block_node_run(struct block_node *node, const struct block_transfer *transfer)
{
    return node->driver->run(node, transfer);
}

int block_node_read(struct block_node *node, uint64_t offset, void *buffer, uint64_t size)
{
    struct iovec iov = { .iov_base = buffer, .iov_len = size };
    struct block_transfer transfer = { .op = BLOCK_READ, .offset = offset, .size = size, .iov = &iov, .iov_count = 1 };

    return block_node_run(node, &transfer);
}

int block_node_write(struct block_node *node, uint64_t offset, const void *buffer, uint64_t size, unsigned flags)
{
    struct iovec iov = { .iov_base = (void *)buffer, .iov_len = size };
    struct block_transfer transfer = {
        .op = BLOCK_WRITE, .flags = flags, .offset = offset, .size = size, .iov = &iov, .iov_count = 1
    };

    return block_node_run(node, &transfer);
}

int block_node_flush(struct block_node *node)
{
    struct block_transfer transfer = { .op = BLOCK_FLUSH };

    return block_node_run(node, &transfer);
}
