/* -drive and -blockdev: options into drives. What QEMU's do, with its names, ids and defaults. Main thread. */
#include "devices/block/block_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const char *const interface_words[] = { "none", "ide", "scsi", "virtio", "pflash", "floppy", NULL };

struct drive {
    struct block_open open;
    struct block_info info;
    bool snapshot;
};

/* ---- Options of -drive ---- */

/* cache=MODE is short for three switches, which may still be given one by one. */
static int read_cache(struct drive *drive, struct error *err)
{
    static const char *const modes[] = { "writeback", "none", "off", "writethrough", "directsync", "unsafe", NULL };
    struct block_flags *flags = &drive->open.flags;
    unsigned mode = 0;
    int ret = block_open_get_word(&drive->open, "cache", modes, &mode, err);

    if (ret)
        return ret;
    flags->direct = mode == 1 || mode == 2 || mode == 4;
    flags->no_flush = mode == 5;
    drive->info.write_cache = mode != 3 && mode != 4;
    return block_open_get_bool(&drive->open, "cache.writeback", &drive->info.write_cache, err);
}

static int read_error_policies(struct drive *drive, struct error *err)
{
    static const char *const words[] = { "report", "ignore", "stop", "enospc", NULL };
    unsigned on_write = BLOCK_ERROR_ENOSPC, on_read = BLOCK_ERROR_REPORT;
    int ret = block_open_get_word(&drive->open, "werror", words, &on_write, err);

    if (!ret)
        ret = block_open_get_word(&drive->open, "rerror", words, &on_read, err);
    if (!ret && on_read == BLOCK_ERROR_ENOSPC)
        ret = error_set(err, EINVAL, "rerror=enospc: reading needs no space; report, ignore or stop");
    drive->info.on_write_error = on_write;
    drive->info.on_read_error = on_read;
    return ret;
}

static int read_media(struct drive *drive, struct error *err)
{
    static const char *const media_words[] = { "disk", "cdrom", NULL };
    const char *serial = block_open_get(&drive->open, "serial");
    unsigned media = 0;
    int ret = block_open_get_word(&drive->open, "media", media_words, &media, err);

    if (ret)
        return ret;
    drive->info.cdrom = drive->info.removable = media == 1;
    if (drive->info.interface == BLOCK_IF_FLOPPY)
        drive->info.removable = true;
    if (serial && strlen(serial) >= sizeof(drive->info.serial))
        return error_set(err, EINVAL, "serial=%s: at most %zu characters", serial, sizeof(drive->info.serial) - 1);
    snprintf(drive->info.serial, sizeof(drive->info.serial), "%s", serial ? serial : "");
    ret = block_open_get_bool(&drive->open, "readonly", &drive->open.flags.read_only, err);
    if (!ret)
        ret = block_open_get_bool(&drive->open, "read-only", &drive->open.flags.read_only, err);
    if (!ret && drive->info.cdrom)
        drive->open.flags.read_only = true;
    return ret;
}

static int read_aio(struct drive *drive, struct error *err)
{
    static const char *const words[] = { "threads", "native", "io_uring", NULL };
    unsigned aio = (unsigned)-1;
    int ret = block_open_get_word(&drive->open, "aio", words, &aio, err);

    if (!ret && aio != (unsigned)-1)
        drive->open.flags.aio = BLOCK_AIO_THREADS + aio;
    return ret;
}

/* ---- Where it goes ---- */

static bool position_taken(const struct block_registry *registry, const struct block_info *info)
{
    for (const struct block *block = registry->blocks; block; block = block->next) {
        if (!block->explicit_node && block->info.interface == info->interface && block->info.bus == info->bus &&
            block->info.unit == info->unit)
            return true;
    }
    return false;
}

static int read_number(struct drive *drive, const char *key, unsigned *out, bool *given, struct error *err)
{
    uint64_t value;
    int ret = options_get_u64(drive->open.options, key, UINT64_MAX, &value, err);

    *given = value != UINT64_MAX;
    if (!ret && *given && value > 65535)
        return error_set(err, EINVAL, "%s=%llu: too large", key, (unsigned long long)value);
    *out = *given ? (unsigned)value : 0;
    return ret;
}

static int read_position(struct drive *drive, struct error *err)
{
    const struct block_registry *registry = drive->open.registry;
    struct block_info *info = &drive->info;
    unsigned interface = BLOCK_IF_IDE, index, units;
    bool has_index, has_bus, has_unit;
    int ret = block_open_get_word(&drive->open, "if", interface_words, &interface, err);

    if (!ret)
        ret = read_number(drive, "index", &index, &has_index, err);
    if (!ret)
        ret = read_number(drive, "bus", &info->bus, &has_bus, err);
    if (!ret)
        ret = read_number(drive, "unit", &info->unit, &has_unit, err);
    if (ret)
        return ret;
    info->interface = interface;
    units = registry->bus_units[interface];
    if (has_index) {
        if (has_bus || has_unit)
            return error_set(err, EINVAL, "index: not together with bus or unit");
        info->bus = units ? index / units : 0;
        info->unit = units ? index % units : index;
    } else if (!has_unit) {
        while (position_taken(registry, info)) {
            if (++info->unit == units && units) {
                info->unit = 0;
                info->bus++;
            }
        }
    }
    if (units && info->unit >= units)
        return error_set(err, EINVAL, "unit=%u: a bus has units 0 to %u", info->unit, units - 1);
    if (position_taken(registry, info))
        return error_set(err, EEXIST, "there is a drive at if=%s,bus=%u,unit=%u already", interface_words[interface],
                         info->bus, info->unit);
    return 0;
}

/* ide0-hd0, ide1-cd0, virtio0, none0. */
static void default_id(const struct drive *drive, char *id, size_t size)
{
    const struct block_info *info = &drive->info;
    const char *name = interface_words[info->interface];
    const char *medium = info->cdrom ? "-cd" : "-hd";

    if (info->interface != BLOCK_IF_IDE && info->interface != BLOCK_IF_SCSI)
        medium = info->cdrom ? "-cd" : "";
    if (drive->open.registry->bus_units[info->interface])
        snprintf(id, size, "%s%u%s%u", name, info->bus, medium, info->unit);
    else
        snprintf(id, size, "%s%s%u", name, medium, info->unit);
}

/* ---- Making drives ---- */

static int check_id(struct block_registry *registry, const char *id, const char *key, struct error *err)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";

    if (!*id || id[strspn(id, allowed)] || strchr("0123456789-._", *id))
        return error_set(err, EINVAL, "%s=%s: a letter, then letters, digits, '-', '.', '_' expected", key, id);
    if (block_find(registry, id))
        return error_set(err, EEXIST, "%s=%s: there is one of that name already", key, id);
    return 0;
}

static struct block *add_block(struct drive *drive, const char *id, struct block_node *root, struct error *err)
{
    struct block_registry *registry = drive->open.registry;
    struct block *block = calloc(1, sizeof(*block));

    if (block)
        block->id = strdup(id);
    if (!block || !block->id) {
        free(block);
        block_node_put(root);
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&block->lock, NULL);
    block->registry = registry;
    block->context = registry->main_context;
    block->waiting_end = &block->waiting;
    block->stopped_end = &block->stopped;
    block->flags = drive->open.flags;
    block->info = drive->info;
    block->info.id = block->id;
    block->info.read_only = block->flags.read_only;
    block->info.logical_block_size = block->info.physical_block_size = SECTOR_SIZE;
    block->root = root;
    if (root) {
        block->info.read_only = root->flags.read_only;
        block->info.size = root->size;
        block->info.logical_block_size = root->logical_block_size;
        block->info.physical_block_size = root->physical_block_size;
        block->info.can_discard = root->can_discard && block->flags.unmap && !block->info.read_only;
    }
    *registry->blocks_end = block;
    registry->blocks_end = &block->next;
    return block;
}

static void drop_option(struct option_list *list, const char *value)
{
    for (size_t i = 0; i < list->count; i++) {
        struct option_pair *pair = &list->pairs[i];

        if (pair->value != value)
            continue;
        free(pair->key);
        free(pair->value);
        memmove(pair, pair + 1, (--list->count - i) * sizeof(*pair));
        return;
    }
}

/* file=json:{...}: options of the node in another notation, in the place of this one. */
static int take_json_filename(struct drive *drive, struct error *err)
{
    const char *filename = drive->open.filename;
    char *copy;
    int ret;

    if (!filename || strncmp(filename, "json:", 5))
        return 0;
    copy = strdup(filename + 5);
    if (!copy)
        return error_set(err, ENOMEM, "out of memory");
    drop_option(drive->open.options, filename);
    ret = block_json_options(drive->open.options, copy, "", err);
    free(copy);
    drive->open.filename = NULL;
    return ret;
}

static int open_root(struct drive *drive, struct block_node **root, bool *probed_raw, struct error *err)
{
    struct block_open *open = &drive->open;
    bool has_file = open->filename || block_open_get(open, "file.filename") || block_open_get(open, "file.driver") ||
                    block_open_get(open, "driver");
    bool overlay = drive->snapshot && !open->flags.read_only;

    *root = NULL;
    if (!has_file) {
        int ret = block_open_read_flags(open, err);

        block_open_get(open, "format");
        return ret;
    }
    open->flags.read_only |= overlay;
    *root = block_node_open(open, probed_raw, err);
    if (*root && overlay) {
        *root = block_overlay_open(open->registry, *root, err);
        open->flags.read_only = false;
        open->flags.no_flush = true; /* gone at the end, whatever happens */
        open->flags.unmap = true;
        *probed_raw = false; /* nothing of it is ever probed again */
    }
    return *root ? 0 : -EINVAL;
}

static int read_drive(struct drive *drive, struct error *err)
{
    struct block_open *open = &drive->open;
    int ret = read_position(drive, err);

    if (!ret)
        ret = read_media(drive, err);
    if (!ret)
        ret = read_cache(drive, err);
    if (!ret)
        ret = read_aio(drive, err);
    if (!ret)
        ret = read_error_policies(drive, err);
    drive->snapshot = open->registry->snapshot;
    if (!ret)
        ret = block_open_get_bool(open, "snapshot", &drive->snapshot, err);
    open->filename = block_open_get(open, "file");
    if (open->filename && !*open->filename)
        open->filename = NULL; /* an empty drive */
    if (!ret)
        ret = take_json_filename(drive, err);
    return ret;
}

int block_add_drive(struct block_registry *registry, const char *option, struct error *err)
{
    struct option_list options;
    struct drive drive = { .open = { .registry = registry, .options = &options } };
    struct block_node *root = NULL;
    bool probed_raw = false;
    const char *given;
    char id[128];
    struct block *block;
    int ret = options_parse(&options, option, NULL, err);

    if (ret)
        return ret;
    ret = read_drive(&drive, err);
    default_id(&drive, id, sizeof(id));
    given = options_get(&options, "id");
    if (!given)
        given = options_get(&options, "node-name");
    if (!ret)
        ret = check_id(registry, given ? given : id, "id", err);
    if (!ret)
        ret = open_root(&drive, &root, &probed_raw, err);
    if (!ret)
        ret = options_check_all_used(&options, "", err);
    if (ret) {
        block_node_put(root);
        goto out;
    }
    block = add_block(&drive, given ? given : id, root, err);
    if (!block) {
        ret = -ENOMEM;
        goto out;
    }
    block->probed_raw = probed_raw && !block->info.read_only;
    if (block->probed_raw)
        log_warn(
            "%s: no format was given and it looks raw. The guest may not write headers of other formats to block 0; "
            "format=raw says that it is raw",
            root->filename);
out:
    options_free(&options);
    return ret;
}

int block_add_blockdev(struct block_registry *registry, const char *option, struct error *err)
{
    struct option_list options = { 0 };
    struct drive drive = {
        .open = { .registry = registry, .options = &options },
        .info = { .write_cache = true, .on_write_error = BLOCK_ERROR_ENOSPC },
    };
    struct block_node *root = NULL;
    const char *name;
    int ret =
        *option == '{' ? block_json_options(&options, option, "", err) : options_parse(&options, option, NULL, err);

    if (ret) {
        options_free(&options);
        return ret;
    }
    name = options_get(&options, "node-name");
    if (!name)
        ret = error_set(err, EINVAL, "node-name is missing");
    if (!ret)
        ret = check_id(registry, name, "node-name", err);
    if (!ret && !options_get(&options, "driver"))
        ret = error_set(err, EINVAL, "driver is missing");
    if (!ret) {
        root = block_node_open(&drive.open, NULL, err);
        ret = root ? options_check_all_used(&options, "", err) : -EINVAL;
    }
    if (ret) {
        block_node_put(root);
    } else {
        struct block *block = add_block(&drive, name, root, err);

        if (block)
            block->explicit_node = true;
        ret = block ? 0 : -ENOMEM;
    }
    options_free(&options);
    return ret;
}
