/* IOAPIC (82093AA data sheet 3.0; version 0x20 as in the ICH9 data sheet 13.5, which adds the EOI register).
 *
 *   redirection entry: 63:56 destination | 16 mask | 15 trigger | 14 remote IRR | 13 polarity | 12 status |
 *                      11 destination mode | 10:8 delivery mode | 7:0 vector
 *
 * Invariants: remote IRR is only set in level-triggered entries; `pending` has a bit for an edge that waits to be
 * accepted by a local APIC. Threads: any, device lock held. */
#include "devices/irq/ioapic.h"

#include "base/log.h"
#include "devices/irq/pic.h"

enum {
    REG_ID = 0x00,
    REG_VERSION = 0x01,
    REG_ARBITRATION = 0x02,
    REG_REDIRECTION = 0x10,
    MMIO_SELECT = 0x00,
    MMIO_WINDOW = 0x10,
    MMIO_EOI = 0x40,
    MMIO_SIZE = 0x1000,
};
#define ENTRY_LOGICAL    BIT(11)
#define ENTRY_STATUS     BIT(12)
#define ENTRY_REMOTE_IRR BIT(14)
#define ENTRY_LEVEL      BIT(15)
#define ENTRY_MASKED     BIT(16)
#define ENTRY_WRITABLE   (0xff00000000000000ull | 0x1ffffull)
#define VERSION_VALUE    (0x20u | (IOAPIC_PINS - 1) << 16)

static bool is_level(uint64_t entry)
{
    return entry & ENTRY_LEVEL;
}

/* Sends what the pin asks for, if it may be sent now. */
static void service(struct ioapic *ioapic, unsigned pin)
{
    uint64_t *entry = &ioapic->redirection[pin];
    bool wanted = is_level(*entry) ? ioapic->level >> pin & 1 : ioapic->pending >> pin & 1;
    struct apic_message message = {
        .destination = (uint8_t)(*entry >> 56),
        .vector = (uint8_t)*entry,
        .mode = (uint8_t)bits(*entry, 10, 8),
        .logical = *entry & ENTRY_LOGICAL,
        .level = is_level(*entry),
    };

    if (!wanted || (*entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)))
        return;
    if (message.mode != APIC_FIXED && message.mode != APIC_LOWEST_PRIORITY)
        message.level = false; /* NMI, SMI, INIT, ExtINT are always edges (data sheet 3.2.4) */
    if (!apic_bus_deliver(ioapic->bus, &message))
        return; /* nobody there: tried again when the entry or the line changes */
    if (message.level)
        *entry |= ENTRY_REMOTE_IRR;
    ioapic->pending &= ~(1u << pin);
}

void ioapic_set_irq(void *opaque, unsigned pin, bool level)
{
    struct ioapic *ioapic = opaque;
    uint32_t bit = 1u << pin;
    bool rising = level && !(ioapic->level & bit);

    if (pin >= IOAPIC_PINS)
        return;
    ioapic->level = level ? ioapic->level | bit : ioapic->level & ~bit;
    if (!level)
        return;
    if (!is_level(ioapic->redirection[pin])) {
        /* Edges at a masked pin are lost (data sheet 3.2.4, interrupt mask). */
        if (!rising || (ioapic->redirection[pin] & ENTRY_MASKED))
            return;
        ioapic->pending |= bit;
    }
    service(ioapic, pin);
}

void ioapic_eoi(struct ioapic *ioapic, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *entry = &ioapic->redirection[pin];

        if ((uint8_t)*entry == vector && (*entry & ENTRY_REMOTE_IRR)) {
            *entry &= ~ENTRY_REMOTE_IRR;
            service(ioapic, pin);
        }
    }
}

/* ---- Registers ---- */

static uint32_t read_indirect(const struct ioapic *ioapic)
{
    unsigned index = ioapic->select;

    if (index == REG_ID || index == REG_ARBITRATION)
        return (uint32_t)ioapic->id << 24;
    if (index == REG_VERSION)
        return VERSION_VALUE;
    if (index >= REG_REDIRECTION && index < REG_REDIRECTION + 2 * IOAPIC_PINS) {
        uint64_t entry = ioapic->redirection[(index - REG_REDIRECTION) / 2];

        return index & 1 ? (uint32_t)(entry >> 32) : (uint32_t)entry;
    }
    return 0;
}

static void write_entry(struct ioapic *ioapic, unsigned pin, bool high, uint32_t value)
{
    uint64_t *entry = &ioapic->redirection[pin];
    uint64_t kept = *entry & ENTRY_REMOTE_IRR;
    uint64_t merged = high ? (*entry & 0xffffffff) | (uint64_t)value << 32 : (*entry & ~0xffffffffull) | value;

    merged &= ENTRY_WRITABLE & ~(ENTRY_REMOTE_IRR | ENTRY_STATUS);
    /* Changing an entry to edge clears remote IRR: that is how software for older IOAPICs does an EOI. */
    *entry = merged | (is_level(merged) ? kept : 0);
    if (is_level(merged))
        ioapic->pending &= ~(1u << pin);
    service(ioapic, pin);
}

static void write_indirect(struct ioapic *ioapic, uint32_t value)
{
    unsigned index = ioapic->select;

    if (index == REG_ID)
        ioapic->id = value >> 24 & 0xf;
    else if (index >= REG_REDIRECTION && index < REG_REDIRECTION + 2 * IOAPIC_PINS)
        write_entry(ioapic, (index - REG_REDIRECTION) / 2, index & 1, value);
    else
        log_event(guest_errors, "IOAPIC: write of register 0x%x = 0x%x\n", index, value);
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ioapic *ioapic = opaque;

    (void)size;
    switch (offset) {
    case MMIO_SELECT:
        return ioapic->select;
    case MMIO_WINDOW:
        return read_indirect(ioapic);
    default:
        return 0;
    }
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *ioapic = opaque;

    (void)size;
    switch (offset) {
    case MMIO_SELECT:
        ioapic->select = (uint8_t)value;
        break;
    case MMIO_WINDOW:
        write_indirect(ioapic, (uint32_t)value);
        break;
    case MMIO_EOI:
        ioapic_eoi(ioapic, (uint8_t)value);
        break;
    default:
        break;
    }
}

/* Byte accesses to the select register are common; nothing is split. */
static const struct io_ops ioapic_ops = { .read = mmio_read, .write = mmio_write, .min_size = 1, .max_size = 8 };

/* ---- Life ---- */

static void reset_device(struct device *device)
{
    struct ioapic *ioapic = container_of(device, struct ioapic, device);

    ioapic->select = ioapic->id = 0;
    ioapic->pending = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        ioapic->redirection[pin] = ENTRY_MASKED;
}

static void destroy_device(struct device *device)
{
    struct ioapic *ioapic = container_of(device, struct ioapic, device);

    if (ioapic->region)
        physmem_remove(ioapic->region);
    ioapic->bus->ioapic = NULL;
}

static int post_load(void *owner, struct error *err)
{
    struct ioapic *ioapic = owner;

    (void)err;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        ioapic->redirection[pin] &= ENTRY_WRITABLE & ~ENTRY_STATUS;
        if (!is_level(ioapic->redirection[pin]))
            ioapic->redirection[pin] &= ~ENTRY_REMOTE_IRR;
    }
    return 0;
}

static const struct state_field ioapic_fields[] = {
    STATE_FIELD(struct ioapic, select), STATE_FIELD(struct ioapic, id),      STATE_ARRAY(struct ioapic, redirection),
    STATE_FIELD(struct ioapic, level),  STATE_FIELD(struct ioapic, pending), STATE_END,
};
static const struct state_table ioapic_state = {
    .name = "ioapic",
    .version = 1,
    .fields = ioapic_fields,
    .post_load = post_load,
};

static const struct device_type ioapic_type = {
    .name = "ioapic",
    .bus = "System",
    .description = "I/O APIC",
    .size = sizeof(struct ioapic),
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &ioapic_state,
};

struct ioapic *ioapic_create(struct device_env *env, struct apic_bus *bus, gpa_t base, struct error *err)
{
    struct ioapic *ioapic = device_allocate(env, &ioapic_type, NULL, err);

    if (!ioapic)
        return NULL;
    ioapic->bus = bus;
    bus->ioapic = ioapic;
    device_reset(&ioapic->device);
    ioapic->region = physmem_add_mmio(env->mem, base, MMIO_SIZE, &ioapic_ops, ioapic, "ioapic", err);
    if (!ioapic->region) {
        ioapic_destroy(ioapic);
        return NULL;
    }
    return ioapic;
}

void ioapic_destroy(struct ioapic *ioapic)
{
    device_destroy(ioapic ? &ioapic->device : NULL);
}
