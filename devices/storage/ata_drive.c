/* The device types ide-hd and ide-cd: options, drive and bus of an ATA device; the buses themselves; if=ide drives.
 * Device lock held, or before the machine runs. */
#include "devices/storage/ata_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ata_drive {
    struct device device;
    struct ata_device ata;
    struct ata_bus *bus; /* NULL: not attached */
    unsigned unit;
    int bootindex; /* -1: none */
};

extern const struct device_type ide_hd_type, ide_cd_type;

static struct ata_drive *drive_of(struct device *device)
{
    return container_of(device, struct ata_drive, device);
}

/* ---- Buses ---- */

static bool bus_has_room(const struct device_bus *device_bus)
{
    const struct ata_bus *bus = container_of(device_bus, struct ata_bus, bus);

    for (unsigned unit = 0; unit < bus->units; unit++) {
        if (!bus->devices[unit])
            return true;
    }
    return false;
}

static bool name_is_taken(const struct device_env *env, const char *name)
{
    for (const struct device_bus *bus = env->buses; bus; bus = bus->next) {
        if (!strcmp(bus->id, name))
            return true;
    }
    return false;
}

int ata_bus_add(struct device_env *env, struct ata_bus *bus, const char *id, unsigned n, struct error *err)
{
    bus->bus.kind = "IDE";
    bus->bus.owner = bus;
    bus->bus.has_room = bus_has_room;
    if (id) {
        snprintf(bus->bus.id, sizeof(bus->bus.id), "%.50s.%u", id, n);
    } else {
        n = 0;
        do
            snprintf(bus->bus.id, sizeof(bus->bus.id), "ide.%u", n++);
        while (name_is_taken(env, bus->bus.id));
    }
    return device_bus_add(env, &bus->bus, err);
}

static int choose_unit(struct ata_bus *bus, struct option_list *options, unsigned *unit, struct error *err)
{
    uint64_t wanted;
    int result = options_get_u64(options, "unit", UINT64_MAX, &wanted, err);

    if (result)
        return result;
    if (wanted == UINT64_MAX) {
        for (wanted = 0; wanted < bus->units && bus->devices[wanted]; wanted++)
            ;
    }
    if (wanted >= bus->units)
        return error_set(err, EINVAL, "unit=%llu: %s has units up to %u", (unsigned long long)wanted, bus->bus.id,
                         bus->units - 1);
    if (bus->devices[wanted])
        return error_set(err, EBUSY, "%s unit %u is in use", bus->bus.id, (unsigned)wanted);
    *unit = (unsigned)wanted;
    return 0;
}

/* ---- Options ---- */

static int get_text(struct option_list *options, const char *name, const char *fallback, char *to, size_t size,
                    struct error *err)
{
    const char *text = options_get(options, name);

    if (!text)
        text = fallback;
    if (strlen(text) >= size)
        return error_set(err, EINVAL, "%s=%s: at most %zu characters", name, text, size - 1);
    strcpy(to, text);
    return 0;
}

static int read_identity(struct ata_drive *drive, struct option_list *options, struct error *err)
{
    struct ata_device *ata = &drive->ata;
    const char *model = ata->cdrom ? "QEMU DVD-ROM" : "QEMU HARDDISK";
    char number[32], serial[21];
    unsigned count = 0;
    uint64_t value;
    int result;

    /* QM00001, ...: by the order in which they are made, as those who look for disks by serial number expect */
    for (const struct device_bus *bus = ata->env->buses; bus; bus = bus->next) {
        if (!strcmp(bus->kind, "IDE")) {
            const struct ata_bus *ata_bus = bus->owner;

            for (unsigned unit = 0; unit < ata_bus->units; unit++)
                count += ata_bus->devices[unit] != NULL;
        }
    }
    snprintf(number, sizeof(number), "QM%05u", count + 1);
    if (ata->block && block_info(ata->block)->serial[0])
        snprintf(serial, sizeof(serial), "%.20s", block_info(ata->block)->serial);
    else
        snprintf(serial, sizeof(serial), "%.20s", number);
    result = get_text(options, "serial", serial, ata->serial, sizeof(ata->serial), err);
    result = result ?: get_text(options, "model", model, ata->model, sizeof(ata->model), err);
    result = result ?: get_text(options, "ver", "2.5+", ata->version, sizeof(ata->version), err);
    result = result ?: options_get_u64(options, "wwn", 0, &ata->wwn, err);
    if (result)
        return result;
    drive->bootindex = -1;
    if (options_get(options, "bootindex") && strcmp(options_get(options, "bootindex"), "-1")) {
        result = options_get_u64(options, "bootindex", 0, &value, err);
        if (!result && value > INT32_MAX)
            result = error_set(err, EINVAL, "bootindex=%llu is too large", (unsigned long long)value);
        drive->bootindex = (int)value;
    }
    return result;
}

static int read_block_sizes(struct ata_device *ata, struct option_list *options, struct error *err)
{
    uint32_t host = ata->block ? block_info(ata->block)->physical_block_size : ATA_SECTOR;
    uint64_t logical, physical;
    int result = options_get_size(options, "logical_block_size", 1, ATA_SECTOR, &logical, err);

    result = result ?: options_get_size(options, "physical_block_size", 1, MAX(host, ATA_SECTOR), &physical, err);
    if (result)
        return result;
    if (logical != ATA_SECTOR && !(ata->cdrom && logical == CD_SECTOR))
        return error_set(err, EINVAL, "logical_block_size must be 512 for IDE");
    if (physical < ATA_SECTOR || physical > 2 * MIB || (physical & (physical - 1)))
        return error_set(err, EINVAL, "physical_block_size must be a power of two from 512 to 2 MiB");
    ata->physical_block_size = (uint32_t)physical;
    return 0;
}

static int read_geometry(struct ata_device *ata, struct option_list *options, struct error *err)
{
    uint64_t cylinders, heads, sectors, rotation;
    int result = options_get_u64(options, "cyls", 0, &cylinders, err);

    result = result ?: options_get_u64(options, "heads", 0, &heads, err);
    result = result ?: options_get_u64(options, "secs", 0, &sectors, err);
    result = result ?: options_get_u64(options, "rotation_rate", 0, &rotation, err);
    if (result)
        return result;
    if (rotation > 0xfffe)
        return error_set(err, EINVAL, "rotation_rate=%llu: at most 65534", (unsigned long long)rotation);
    ata->rotation_rate = (uint16_t)rotation;
    if (!cylinders && !heads && !sectors)
        return 0;
    if (!cylinders || cylinders > 65535 || !heads || heads > 16 || !sectors || sectors > 255)
        return error_set(err, EINVAL, "cyls, heads, secs: 1 to 65535, 1 to 16, 1 to 255");
    ata->native_cylinders = (uint32_t)cylinders;
    ata->native_heads = (uint32_t)heads;
    ata->native_sectors = (uint32_t)sectors;
    return 0;
}

static int read_write_cache(struct ata_device *ata, struct option_list *options, struct error *err)
{
    const char *text = options_get(options, "write-cache");
    bool on;
    int result;

    if (!text || !strcmp(text, "auto"))
        return 0;
    result = options_get_bool(options, "write-cache", true, &on, err);
    if (!result && ata->block)
        block_set_write_cache(ata->block, on);
    return result;
}

static int claim(struct ata_drive *drive, struct option_list *options, struct error *err)
{
    struct ata_device *ata = &drive->ata;
    struct device_env *env = drive->device.env;
    const char *id = options_get(options, "drive");
    struct block *block;
    int result;

    if (!id && ata->cdrom)
        return 0; /* an empty drive */
    if (!id)
        return error_set(err, EINVAL, "drive= is missing: which -drive shall it be?");
    block = env->blocks ? block_find(env->blocks, id) : NULL;
    if (!block)
        return error_set(err, ENODEV, "drive=%s: there is no such drive", id);
    if (!ata->cdrom && block_info(block)->read_only)
        return error_set(err, EROFS, "drive=%s is read-only: only a CD-ROM can be", id);
    result = block_claim(block, drive->device.id, env->loop, err);
    if (!result)
        ata->block = block;
    return result;
}

/* ---- Life ---- */

static void medium_changed(void *opaque)
{
    struct ata_drive *drive = opaque;
    struct ata_device *ata = &drive->ata;
    uint64_t before = ata->capacity;

    ata_medium_update(ata);
    if (!ata->cdrom)
        return; /* resized: IDENTIFY tells whoever asks */
    ata->tray_open = false;
    ata->unit_attention = ata->capacity != 0;
    ata->media_event = ata->capacity ? 2 : before ? 3 : 0; /* new medium, medium removed */
}

static int init_drive(struct ata_drive *drive, struct option_list *options, struct error *err)
{
    struct ata_device *ata = &drive->ata;
    struct device_bus *device_bus = device_bus_of_option(ata->env, "IDE", options, err);
    struct ata_bus *bus;
    int result;

    if (!device_bus)
        return -ENODEV;
    bus = device_bus->owner;
    result = choose_unit(bus, options, &drive->unit, err);
    result = result ?: claim(drive, options, err);
    result = result ?: read_identity(drive, options, err);
    result = result ?: read_block_sizes(ata, options, err);
    result = result ?: read_write_cache(ata, options, err);
    if (!result && !ata->cdrom)
        result = read_geometry(ata, options, err);
    if (!result && !ata->cdrom && block_info(ata->block)->size < ATA_SECTOR)
        result = error_set(err, EINVAL, "drive=%s is empty", block_info(ata->block)->id);
    if (result)
        return result;
    ata_device_init(ata, drive->device.env);
    if (ata->block)
        block_set_medium_handler(ata->block, medium_changed, drive);
    bus->devices[drive->unit] = ata;
    drive->bus = bus;
    bus->attached(bus, drive->unit);
    return 0;
}

static void destroy_drive(struct device *device)
{
    struct ata_drive *drive = drive_of(device);

    if (drive->ata.block)
        ata_drain(&drive->ata);
    if (drive->bus) {
        drive->bus->detached(drive->bus, drive->unit);
        drive->bus->devices[drive->unit] = NULL;
    }
    if (drive->ata.block) {
        block_set_medium_handler(drive->ata.block, NULL, NULL);
        block_release(drive->ata.block);
    }
}

static int init_device(struct device *device, struct option_list *options, struct error *err)
{
    struct ata_drive *drive = drive_of(device);
    int result;

    drive->ata.env = device->env;
    drive->ata.cdrom = device->type == &ide_cd_type;
    result = init_drive(drive, options, err);
    if (result)
        destroy_drive(device);
    return result;
}

/* The controller has been reset before, and what was under way is over. */
static void reset_device(struct device *device)
{
    struct ata_device *ata = &drive_of(device)->ata;

    ata_drain(ata);
    ata_reset(ata, false);
    if (ata->write_cache != ata->initial_write_cache)
        ata_set_write_cache(ata, ata->initial_write_cache);
    ata->unit_attention = ata->tray_open = false;
    ata->media_event = 0;
}

static void pre_save(void *owner)
{
    ata_drain(&((struct ata_drive *)owner)->ata);
}

static int post_load(void *owner, struct error *err)
{
    struct ata_device *ata = &((struct ata_drive *)owner)->ata;
    bool *const bools[] = { &ata->write_cache,    &ata->look_ahead, &ata->smart, &ata->ncq_failed,
                            &ata->unit_attention, &ata->tray_open,  &ata->locked };

    (void)err;
    for (unsigned i = 0; i < ARRAY_SIZE(bools); i++)
        device_load_bool(bools[i]);
    if (!ata->heads || ata->heads > 16 || !ata->sectors || ata->sectors > 255 || ata->cylinders > 65535) {
        ata->cylinders = ata->native_cylinders;
        ata->heads = ata->native_heads;
        ata->sectors = ata->native_sectors;
    }
    if (ata->multiple > ATA_MULTIPLE_MAX)
        ata->multiple = ATA_MULTIPLE_MAX;
    if (ata->block && !ata->cdrom)
        block_set_write_cache(ata->block, ata->write_cache);
    return 0;
}

static const struct state_field drive_fields[] = {
    STATE_FIELD(struct ata_drive, ata.cylinders),      STATE_FIELD(struct ata_drive, ata.heads),
    STATE_FIELD(struct ata_drive, ata.sectors),        STATE_FIELD(struct ata_drive, ata.multiple),
    STATE_FIELD(struct ata_drive, ata.transfer_mode),  STATE_FIELD(struct ata_drive, ata.power),
    STATE_FIELD(struct ata_drive, ata.write_cache),    STATE_FIELD(struct ata_drive, ata.look_ahead),
    STATE_FIELD(struct ata_drive, ata.smart),          STATE_FIELD(struct ata_drive, ata.ncq_failed),
    STATE_ARRAY(struct ata_drive, ata.ncq_log),        STATE_FIELD(struct ata_drive, ata.sense.key),
    STATE_FIELD(struct ata_drive, ata.sense.asc),      STATE_FIELD(struct ata_drive, ata.sense.ascq),
    STATE_FIELD(struct ata_drive, ata.unit_attention), STATE_FIELD(struct ata_drive, ata.tray_open),
    STATE_FIELD(struct ata_drive, ata.locked),         STATE_FIELD(struct ata_drive, ata.media_event),
    STATE_ARRAY(struct ata_drive, ata.buffer),         STATE_END,
};
static const struct state_table drive_state = {
    .name = "ata-drive",
    .version = 1,
    .fields = drive_fields,
    .pre_save = pre_save,
    .post_load = post_load,
};

#define COMMON_PROPERTIES                                                                                              \
    "drive=<str>,bus=<str>,unit=<uint32>,serial=<str>,model=<str>,ver=<str>,wwn=<uint64>,bootindex=<int32>,"           \
    "logical_block_size=<size>,physical_block_size=<size>,write-cache=<OnOffAuto>"

const struct device_type ide_hd_type = {
    .name = "ide-hd",
    .bus = "IDE",
    .description = "virtual IDE disk",
    .size = sizeof(struct ata_drive),
    .user_creatable = true,
    .properties = COMMON_PROPERTIES ",cyls=<uint32>,heads=<uint32>,secs=<uint32>,rotation_rate=<uint16>",
    .init = init_device,
    .reset = reset_device,
    .destroy = destroy_drive,
    .state = &drive_state,
};
const struct device_type ide_cd_type = {
    .name = "ide-cd",
    .bus = "IDE",
    .description = "virtual IDE CD-ROM",
    .size = sizeof(struct ata_drive),
    .user_creatable = true,
    .properties = COMMON_PROPERTIES,
    .init = init_device,
    .reset = reset_device,
    .destroy = destroy_drive,
    .state = &drive_state,
};

/* ---- For the frontend ---- */

int ata_create_drives(struct device_env *env, void (*own)(void *opaque, struct device *device), void *opaque,
                      struct error *err)
{
    struct block *block;

    while (env->blocks && (block = block_next_unclaimed(env->blocks, BLOCK_IF_IDE))) {
        const struct block_info *info = block_info(block);
        struct option_list options;
        struct device *device;
        char text[256];
        int result;

        snprintf(text, sizeof(text), "drive=%.128s,bus=ide.%u,unit=%u", info->id, info->bus, info->unit);
        result = options_parse(&options, text, NULL, err);
        if (result)
            return result;
        device = device_create(env, info->cdrom ? &ide_cd_type : &ide_hd_type, NULL, &options, err);
        options_free(&options);
        if (!device)
            return error_prefix(err, -EINVAL, "-drive if=ide (%s)", info->id);
        own(opaque, device);
    }
    return 0;
}

bool ata_drive_boot_entry(const struct device *device, int *bootindex, char *path, size_t size)
{
    const struct ata_drive *drive = (const struct ata_drive *)device;

    if ((device->type != &ide_hd_type && device->type != &ide_cd_type) || drive->bootindex < 0)
        return false;
    *bootindex = drive->bootindex;
    drive->bus->boot_path(drive->bus, drive->unit, path, size);
    return true;
}
