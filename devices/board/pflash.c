/* Flash memory with Intel's command set (JEDEC JEP137: CFI vendor 0x0001; Intel StrataFlash J3 datasheet, "Command set"), as
 * OVMF's variable driver and QEMU's cfi.pflash01 know it: one byte wide, uniform blocks, ready as soon as a command is given.
 *
 *   written                       then                              reads give
 *   00 f0 ff  read array                                            the contents
 *   70        read status                                           status
 *   50        clear status                                          the contents
 *   90        read identifier                                       00: manufacturer, 01: device, x02: block lock, else 0
 *   98        CFI query                                             the CFI table
 *   10, 40    program             a byte                            status
 *   20        erase               d0                                status
 *   60        lock, unlock        01, d0                            status
 *   e8        write to buffer     count - 1, bytes, d0              status
 *
 *   status    7 ready | 5 erase error | 4 program error | 1 block protected
 *
 * Status is 0 after "clear status" until the next command completes: that is how QEMU's device behaves, and how OVMF tells
 * flash from ROM and RAM.
 *
 * Reading the array is a ROM of the memory map, at full speed and executable; every other mode hides the ROM, and the
 * accesses come here. Programming clears bits, erasing sets them. What changed is written to the drive when the guest goes
 * back to reading, and before the machine ends; one request is under way at a time. Device lock held. */
#include "devices/board/pflash.h"

#include "base/log.h"
#include "devices/block/block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_SIZE  64u /* of "write to buffer"; the CFI table says so */
#define WRITE_MAX    (64u * 1024)
#define SECTOR       512u
#define MANUFACTURER 0x89
#define DEVICE       0x18

enum {
    STATUS_READY = 1 << 7,
    STATUS_ERASE_ERROR = 1 << 5,
    STATUS_PROGRAM_ERROR = 1 << 4,
    STATUS_PROTECTED = 1 << 1,
};
enum {
    COMMAND_READ_ARRAY = 0xff,
    COMMAND_PROGRAM = 0x40,
    COMMAND_ERASE = 0x20,
    COMMAND_CLEAR_STATUS = 0x50,
    COMMAND_LOCK = 0x60,
    COMMAND_READ_STATUS = 0x70,
    COMMAND_READ_ID = 0x90,
    COMMAND_QUERY = 0x98,
    COMMAND_BUFFER = 0xe8,
    CONFIRM = 0xd0,
};
/* What the next write is. */
enum phase { PHASE_COMMAND, PHASE_DATA, PHASE_BUFFER_COUNT, PHASE_BUFFER_DATA, PHASE_CONFIRM, PHASE_COUNT };

struct pflash {
    struct device device;
    struct block *block;
    bool read_only;
    uint64_t size;
    struct mem_region *commands, *rom;
    uint8_t *bytes; /* the contents: the ROM's */

    uint8_t command, phase, status;
    uint32_t erase_block;                /* offset in the array */
    uint32_t buffer_left, buffer_filled; /* bytes still to come, and there */
    uint32_t buffer_start;
    uint8_t buffer[BUFFER_SIZE];

    uint64_t dirty_first, dirty_end; /* bytes that the drive does not have; equal: none */
    struct block_request request;
    struct iovec iov;
    uint8_t *staging; /* of the write that is under way */
    bool in_flight, flush_wanted;
};

/* JEP137, "Query structure". Filled by cfi_byte(): it depends on the size. */
static uint8_t cfi_byte(const struct pflash *pflash, unsigned offset)
{
    static const uint8_t table[0x36] = {
        [0x10] = 'Q',  [0x11] = 'R',  [0x12] = 'Y', [0x13] = 0x01, /* Intel's command set */
        [0x15] = 0x31,                                             /* extended query table */
        [0x1b] = 0x45, [0x1c] = 0x55,                              /* supply voltage */
        [0x1f] = 7,    [0x20] = 7,    [0x21] = 10,                 /* typical times: 128 us, 128 us, 1 s */
        [0x23] = 4,    [0x24] = 4,    [0x25] = 4,                  /* at most 16 times those */
        [0x2a] = 6,                                                /* the buffer: 64 bytes */
        [0x2c] = 1,                                                /* one erase region */
        [0x31] = 'P',  [0x32] = 'R',  [0x33] = 'I', [0x34] = '1',  [0x35] = '0',
    };
    uint32_t blocks = (uint32_t)(pflash->size / PFLASH_BLOCK) - 1;

    switch (offset) {
    case 0x27:
        return (uint8_t)(63 - __builtin_clzll(pflash->size));
    case 0x2d ... 0x2e:
        return (uint8_t)(blocks >> (offset - 0x2d) * 8);
    case 0x2f ... 0x30:
        return (uint8_t)(PFLASH_BLOCK / 256 >> (offset - 0x2f) * 8);
    default:
        return offset < sizeof(table) ? table[offset] : 0;
    }
}

/* ---- The drive ---- */

static void write_back(struct pflash *pflash);

static void write_done(struct block_request *request)
{
    struct pflash *pflash = request->opaque;

    pflash->in_flight = false;
    if (request->result)
        log_event(guest_errors, "%s: the drive cannot be written: %s\n", pflash->device.id, strerror(-request->result));
    write_back(pflash);
}

static void submit(struct pflash *pflash, enum block_op op, uint64_t offset, uint64_t size)
{
    pflash->iov = (struct iovec){ pflash->staging, size };
    pflash->request = (struct block_request){
        .op = op,
        .offset = offset,
        .size = size,
        .iov = &pflash->iov,
        .iov_count = 1,
        .done = write_done,
        .opaque = pflash,
    };
    pflash->in_flight = true;
    block_submit(pflash->block, &pflash->request);
}

static void write_back(struct pflash *pflash)
{
    uint64_t first = ALIGN_DOWN(pflash->dirty_first, SECTOR), end = ALIGN_UP(pflash->dirty_end, SECTOR);
    uint64_t size = MIN(end - first, WRITE_MAX);

    if (pflash->in_flight)
        return;
    if (pflash->dirty_first == pflash->dirty_end) {
        if (pflash->flush_wanted) {
            pflash->flush_wanted = false;
            submit(pflash, BLOCK_FLUSH, 0, 0);
        }
        return;
    }
    memcpy(pflash->staging, pflash->bytes + first, size);
    pflash->dirty_first = MIN(first + size, pflash->dirty_end);
    pflash->flush_wanted = true;
    submit(pflash, BLOCK_WRITE, first, size);
}

static void set_dirty(struct pflash *pflash, uint64_t offset, uint64_t size)
{
    bool clean = pflash->dirty_first == pflash->dirty_end;

    pflash->dirty_first = clean ? offset : MIN(pflash->dirty_first, offset);
    pflash->dirty_end = clean ? offset + size : MAX(pflash->dirty_end, offset + size);
}

/* ---- Commands ---- */

static void read_array(struct pflash *pflash)
{
    pflash->command = COMMAND_READ_ARRAY;
    pflash->phase = PHASE_COMMAND;
    physmem_set_enabled(pflash->rom, true);
    write_back(pflash);
}

static void program(struct pflash *pflash, uint64_t offset, const uint8_t *data, unsigned size)
{
    pflash->status |= STATUS_READY;
    if (pflash->read_only) {
        pflash->status |= STATUS_PROGRAM_ERROR | STATUS_PROTECTED;
        return;
    }
    for (unsigned i = 0; i < size; i++)
        pflash->bytes[offset + i] &= data[i];
    set_dirty(pflash, offset, size);
}

static void erase(struct pflash *pflash)
{
    pflash->status |= STATUS_READY;
    if (pflash->read_only) {
        pflash->status |= STATUS_ERASE_ERROR | STATUS_PROTECTED;
        return;
    }
    memset(pflash->bytes + pflash->erase_block, 0xff, PFLASH_BLOCK);
    set_dirty(pflash, pflash->erase_block, PFLASH_BLOCK);
}

static void begin_command(struct pflash *pflash, uint64_t offset, uint8_t value)
{
    pflash->command = value;
    pflash->phase = PHASE_COMMAND;
    physmem_set_enabled(pflash->rom, false);
    switch (value) {
    case 0x10:
        pflash->command = COMMAND_PROGRAM;
        /* fall through */
    case COMMAND_PROGRAM:
        pflash->phase = PHASE_DATA;
        break;
    case COMMAND_ERASE:
        pflash->erase_block = (uint32_t)ALIGN_DOWN(offset, PFLASH_BLOCK);
        pflash->phase = PHASE_CONFIRM;
        break;
    case COMMAND_LOCK:
        pflash->phase = PHASE_CONFIRM;
        break;
    case COMMAND_BUFFER:
        pflash->status |= STATUS_READY;
        pflash->phase = PHASE_BUFFER_COUNT;
        break;
    case COMMAND_READ_STATUS:
    case COMMAND_READ_ID:
    case COMMAND_QUERY:
        break;
    case COMMAND_CLEAR_STATUS:
        pflash->status = 0;
        read_array(pflash);
        break;
    case 0x00:
    case 0xf0:
    case COMMAND_READ_ARRAY:
        read_array(pflash);
        break;
    default:
        log_event(guest_errors, "%s: unknown command 0x%x\n", pflash->device.id, value);
        read_array(pflash);
        break;
    }
}

static void confirm(struct pflash *pflash, uint8_t value)
{
    pflash->phase = PHASE_COMMAND;
    if (value == COMMAND_READ_ARRAY) {
        read_array(pflash);
        return;
    }
    if (pflash->command == COMMAND_LOCK && (value == CONFIRM || value == 0x01)) {
        pflash->status |= STATUS_READY; /* blocks are never locked */
    } else if (value != CONFIRM) {
        /* A wrong second byte: both error bits (Intel, "Command sequence error"). */
        pflash->status |= STATUS_READY | STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR;
    } else if (pflash->command == COMMAND_ERASE) {
        erase(pflash);
    } else {
        program(pflash, pflash->buffer_start, pflash->buffer, pflash->buffer_filled);
    }
}

static void buffer_data(struct pflash *pflash, uint64_t offset, uint8_t value)
{
    if (!pflash->buffer_filled)
        pflash->buffer_start = (uint32_t)MIN(offset, pflash->size - pflash->buffer_left);
    pflash->buffer[pflash->buffer_filled++] = value;
    if (--pflash->buffer_left == 0)
        pflash->phase = PHASE_CONFIRM;
}

static void write_command(void *opaque, uint64_t offset, unsigned size, uint64_t wide)
{
    struct pflash *pflash = opaque;
    uint8_t value = (uint8_t)wide;

    (void)size;
    switch (pflash->phase) {
    case PHASE_DATA:
        pflash->phase = PHASE_COMMAND;
        program(pflash, offset, &value, 1);
        break;
    case PHASE_BUFFER_COUNT:
        pflash->buffer_left = MIN(value + 1u, BUFFER_SIZE);
        pflash->buffer_filled = 0;
        pflash->phase = PHASE_BUFFER_DATA;
        break;
    case PHASE_BUFFER_DATA:
        buffer_data(pflash, offset, value);
        break;
    case PHASE_CONFIRM:
        confirm(pflash, value);
        break;
    default:
        begin_command(pflash, offset, value);
        break;
    }
}

static uint64_t read_register(void *opaque, uint64_t offset, unsigned size)
{
    struct pflash *pflash = opaque;

    (void)size;
    switch (pflash->command) {
    case COMMAND_READ_ARRAY:
        return pflash->bytes[offset];
    case COMMAND_READ_ID:
        return (offset & 0xff) == 0 ? MANUFACTURER : (offset & 0xff) == 1 ? DEVICE : 0;
    case COMMAND_QUERY:
        return cfi_byte(pflash, offset & 0xff);
    default:
        return pflash->status;
    }
}

static const struct io_ops pflash_ops = { .read = read_register, .write = write_command, .min_size = 1, .max_size = 1 };

/* ---- Life ---- */

uint64_t pflash_size(const struct pflash *pflash)
{
    return pflash->size;
}

const uint8_t *pflash_bytes(const struct pflash *pflash)
{
    return pflash->bytes;
}

static void reset_device(struct device *device)
{
    struct pflash *pflash = container_of(device, struct pflash, device);

    pflash->status = STATUS_READY;
    pflash->buffer_left = pflash->buffer_filled = pflash->buffer_start = pflash->erase_block = 0;
    memset(pflash->buffer, 0, sizeof(pflash->buffer));
    read_array(pflash);
}

static void destroy_device(struct device *device)
{
    struct pflash *pflash = container_of(device, struct pflash, device);

    if (pflash->rom) {
        do {
            write_back(pflash);
            block_drain(pflash->block);
        } while (pflash->dirty_first != pflash->dirty_end || pflash->flush_wanted);
        physmem_remove(pflash->rom);
    }
    if (pflash->commands)
        physmem_remove(pflash->commands);
    if (pflash->block)
        block_release(pflash->block);
    free(pflash->staging);
}

/* A stream may hold anything: what indexes something is brought into range. */
static int post_load(void *owner, struct error *err)
{
    struct pflash *pflash = owner;

    (void)err;
    pflash->phase %= PHASE_COUNT;
    pflash->erase_block = (uint32_t)ALIGN_DOWN(MIN(pflash->erase_block, pflash->size - 1), PFLASH_BLOCK);
    pflash->buffer_filled = MIN(pflash->buffer_filled, BUFFER_SIZE);
    pflash->buffer_left = MIN(pflash->buffer_left, BUFFER_SIZE - pflash->buffer_filled);
    pflash->buffer_start = (uint32_t)MIN(pflash->buffer_start, pflash->size - BUFFER_SIZE);
    if (pflash->phase == PHASE_BUFFER_DATA && !pflash->buffer_left)
        pflash->phase = PHASE_CONFIRM;
    physmem_set_enabled(pflash->rom, pflash->command == COMMAND_READ_ARRAY);
    return 0;
}

static const struct state_field pflash_fields[] = {
    STATE_FIELD(struct pflash, command),
    STATE_FIELD(struct pflash, phase),
    STATE_FIELD(struct pflash, status),
    STATE_FIELD(struct pflash, erase_block),
    STATE_FIELD(struct pflash, buffer_left),
    STATE_FIELD(struct pflash, buffer_filled),
    STATE_FIELD(struct pflash, buffer_start),
    STATE_ARRAY(struct pflash, buffer),
    STATE_END,
};
static const struct state_table pflash_state = {
    .name = "cfi.pflash01",
    .version = 1,
    .fields = pflash_fields,
    .post_load = post_load,
};

static const struct device_type pflash_type = {
    .name = "cfi.pflash01",
    .bus = "System",
    .description = "firmware flash memory",
    .size = sizeof(struct pflash),
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &pflash_state,
};

static int set_up(struct pflash *pflash, gpa_t end, struct error *err)
{
    const struct block_info *info = block_info(pflash->block);
    struct physmem *mem = pflash->device.env->mem;
    int result;

    pflash->size = info->size;
    pflash->read_only = info->read_only;
    if (!info->size || info->size % PFLASH_BLOCK || info->size > PFLASH_SIZE_MAX)
        return error_set(err, EINVAL, "flash memory of %llu bytes: a multiple of 4 KiB, at most 8 MiB, is needed",
                         (unsigned long long)info->size);
    pflash->staging = malloc(WRITE_MAX);
    if (!pflash->staging)
        return error_set(err, ENOMEM, "out of memory");
    pflash->commands = physmem_add_mmio(mem, end - pflash->size, pflash->size, &pflash_ops, pflash, "pflash", err);
    if (!pflash->commands)
        return -ENOMEM;
    pflash->rom =
        physmem_add_rom_device(mem, end - pflash->size, pflash->size, &pflash_ops, pflash, "pflash-array", err);
    if (!pflash->rom)
        return -ENOMEM;
    pflash->bytes = physmem_rom_bytes(pflash->rom);
    result = block_execute(pflash->block, BLOCK_READ, 0, pflash->bytes, pflash->size, 0);
    return result ? error_set(err, -result, "flash memory: %s", strerror(-result)) : 0;
}

struct pflash *pflash_create(struct device_env *env, struct block *block, gpa_t end, const char *id, struct error *err)
{
    struct pflash *pflash = device_allocate(env, &pflash_type, id, err);

    if (!pflash)
        return NULL;
    if (block_claim(block, id, env->loop, err)) {
        free(pflash);
        return NULL;
    }
    pflash->block = block;
    if (set_up(pflash, end, err)) {
        device_destroy(&pflash->device);
        return NULL;
    }
    device_reset(&pflash->device);
    return pflash;
}
