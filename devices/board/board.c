/* What every board does the same way: its list of devices, -device, reset and destruction.
 *
 * The list is newest first, so that destruction goes against the order of creation: whoever was given a line or a
 * bus is gone before the line's or bus's owner. Device lock held, or before the machine runs. */
#include "devices/board/machine.h"
#include "devices/board/board_internal.h"
#include "devices/core/boot_order.h"
#include "devices/storage/ata.h"
#include "devices/storage/nvme.h"
#include "devices/storage/scsi.h"
#include "devices/virtio/virtio_blk.h"

#include <errno.h>
#include <stdlib.h>

#define DEVICE_TYPE(symbol) extern const struct device_type symbol##_type;
#include "devices/core/device_types.def"
#undef DEVICE_TYPE

void board_own(struct board *board, struct device *device)
{
    device->next = board->devices;
    board->devices = device;
}

static const char *nearest_type(const char *name)
{
    const char *names[] = {
#define DEVICE_TYPE(symbol) symbol##_type.user_creatable ? symbol##_type.name : "",
#include "devices/core/device_types.def"
#undef DEVICE_TYPE
        NULL,
    };

    return nearest_word(name, names);
}

static int add_parsed(struct board *board, struct option_list *options, struct error *err)
{
    const char *name = options_get(options, "driver"), *id = options_get(options, "id");
    const struct device_type *type;
    struct device *device;

    if (!name || !*name)
        return error_set(err, EINVAL, "no device type given (see -device help)");
    type = device_type_find(name);
    if (!type) {
        const char *near = nearest_type(name);

        if (near && *near)
            return error_set(err, ENODEV, "unknown device type '%s'; did you mean '%s'?", name, near);
        return error_set(err, ENODEV, "unknown device type '%s' (see -device help)", name);
    }
    device = device_create(&board->env, type, id, options, err);
    if (!device)
        return -EINVAL;
    board_own(board, device);
    return options_check_all_used(options, name, err);
}

int board_add_device(struct board *board, const char *device_option, struct error *err)
{
    struct option_list options;
    int result = options_parse(&options, device_option, "driver", err);

    if (result)
        return result;
    result = add_parsed(board, &options, err);
    options_free(&options);
    return result;
}

static void own_drive(void *opaque, struct device *device)
{
    board_own(opaque, device);
}

int board_add_drives(struct board *board, struct error *err)
{
    int result = ata_create_drives(&board->env, own_drive, board, err);

    result = result ?: scsi_attach_drives(&board->env, own_drive, board, err);
    return result ?: virtio_blk_add_drives(board, err);
}

int board_collect_boot_order(struct board *board, struct error *err)
{
    static bool (*const entries[])(const struct device *, int *, char *, size_t) = {
        ata_drive_boot_entry,
        scsi_boot_entry,
        nvme_boot_entry,
        virtio_blk_boot_entry,
    };
    char path[256];
    int index, result = 0;

    for (const struct device *device = board->devices; device && !result; device = device->next)
        for (unsigned n = 0; n < ARRAY_SIZE(entries) && !result; n++)
            if (entries[n](device, &index, path, sizeof(path)))
                result = boot_order_add(&board->env, index, path, err);
    return result;
}

/* Oldest first: interrupt controllers before those who drive their lines. */
static void reset_from(struct device *device)
{
    struct device *reversed = NULL, *next;

    for (; device; device = next) {
        next = device->next;
        device->next = reversed;
        reversed = device;
    }
    for (; reversed; reversed = next) {
        next = reversed->next;
        device_reset(reversed);
        reversed->next = device;
        device = reversed;
    }
}

void board_reset(struct board *board)
{
    reset_from(board->devices);
    if (board->reset_done)
        board->reset_done(board);
}

/* A guest has ejected the device. */
void board_unplugged(struct device_env *env, struct device *device)
{
    struct board *board = container_of(env, struct board, env);

    for (struct device **link = &board->devices; *link; link = &(*link)->next) {
        if (*link == device) {
            *link = device->next;
            device_destroy(device);
            return;
        }
    }
}

void board_destroy(struct board *board)
{
    if (!board)
        return;
    while (board->devices) {
        struct device *device = board->devices;

        board->devices = device->next;
        device_destroy(device);
    }
    board->free(board);
}
