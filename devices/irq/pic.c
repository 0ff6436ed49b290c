/* The 8259A pair (Intel 8259A data sheet; section names below are from it) and the ELCR.
 *
 * Invariants: a chip whose icw1 is 0 was never initialised and asserts nothing. The slave's output is bit 2 of the
 * master's lines and IRR, always as a level, so that a second request of the slave cannot get lost between edges.
 * An edge stays in IRR until it is acknowledged, even if the line drops: pulses of our devices have no width.
 * Threads: any, device lock held. */
#include "devices/irq/pic.h"

#include "base/log.h"

#define CASCADE 2
enum { ICW1_IC4 = 1 << 0, ICW1_SINGLE = 1 << 1, ICW1_LEVEL = 1 << 3, ICW1_SELECT = 1 << 4 };
enum { ICW4_AEOI = 1 << 1, ICW4_FULLY_NESTED = 1 << 4 };

static const uint16_t chip_port[2] = { 0x20, 0xa0 };
static const uint16_t elcr_port[2] = { 0x4d0, 0x4d1 };
static const uint8_t elcr_writable[2] = { 0xf8, 0xde }; /* not 0, 1, 2, 8, 13: the board's own interrupts are edges */

static bool is_master(const struct pic *pic, const struct pic_chip *chip)
{
    return chip == &pic->chip[0];
}

/* Distance of the highest-priority bit of `set` from the highest priority; 8 if there is none. */
static unsigned rank(const struct pic_chip *chip, uint8_t set)
{
    unsigned n = 0;

    while (n < 8 && !(set >> ((chip->lowest + 1 + n) & 7) & 1))
        n++;
    return n;
}

/* The input that would be acknowledged now, or -1 (fully nested mode, special mask, special fully nested). */
static int chip_request(const struct pic *pic, const struct pic_chip *chip)
{
    uint8_t blocking = chip->isr;
    unsigned request;

    if (!chip->icw1 || chip->icw_step)
        return -1;
    if (chip->special_mask)
        blocking &= (uint8_t)~chip->imr;
    if (is_master(pic, chip) && (chip->icw4 & ICW4_FULLY_NESTED))
        blocking &= (uint8_t) ~(1u << CASCADE);
    request = rank(chip, chip->irr & (uint8_t)~chip->imr);
    return request < rank(chip, blocking) ? (int)((chip->lowest + 1 + request) & 7) : -1;
}

static void update(struct pic *pic)
{
    struct pic_chip *master = &pic->chip[0], *slave = &pic->chip[1];

    slave->output = chip_request(pic, slave) >= 0;
    if (slave->output) {
        master->lines |= 1u << CASCADE;
        master->irr |= 1u << CASCADE;
    } else {
        master->lines &= (uint8_t) ~(1u << CASCADE);
        master->irr &= (uint8_t) ~(1u << CASCADE);
    }
    bool output = chip_request(pic, master) >= 0;
    if (output != master->output) {
        master->output = output;
        apic_bus_set_extint(pic->bus, output);
    }
}

static bool level_triggered(const struct pic_chip *chip, unsigned n)
{
    return (chip->elcr >> n & 1) || (chip->icw1 & ICW1_LEVEL);
}

void pic_set_irq(void *opaque, unsigned irq, bool level)
{
    struct pic *pic = opaque;
    struct pic_chip *chip = &pic->chip[irq >> 3 & 1];
    uint8_t bit = (uint8_t)(1u << (irq & 7));

    if (irq > 15 || irq == CASCADE)
        return;
    if (level && (level_triggered(chip, irq & 7) || !(chip->lines & bit)))
        chip->irr |= bit;
    else if (!level && level_triggered(chip, irq & 7))
        chip->irr &= (uint8_t)~bit;
    chip->lines = level ? chip->lines | bit : chip->lines & (uint8_t)~bit;
    update(pic);
}

/* ---- Acknowledge ---- */

static void chip_acknowledge(struct pic_chip *chip, unsigned n)
{
    uint8_t bit = (uint8_t)(1u << n);

    if (!level_triggered(chip, n))
        chip->irr &= (uint8_t)~bit;
    if (!(chip->icw4 & ICW4_AEOI))
        chip->isr |= bit;
    else if (chip->rotate_aeoi)
        chip->lowest = (uint8_t)n;
}

uint8_t pic_acknowledge(struct pic *pic)
{
    struct pic_chip *master = &pic->chip[0], *slave = &pic->chip[1];
    int n = chip_request(pic, master), slave_n;
    uint8_t vector;

    if (n < 0) {
        vector = master->vector_base + 7; /* the request went away: spurious, not in service */
    } else if (n != CASCADE) {
        chip_acknowledge(master, (unsigned)n);
        vector = (uint8_t)(master->vector_base + n);
    } else {
        chip_acknowledge(master, CASCADE);
        slave_n = chip_request(pic, slave);
        if (slave_n >= 0)
            chip_acknowledge(slave, (unsigned)slave_n);
        vector = (uint8_t)(slave->vector_base + (slave_n >= 0 ? slave_n : 7));
    }
    update(pic);
    return vector;
}

/* ---- Command words ---- */

static void write_icw1(struct pic_chip *chip, uint8_t value)
{
    chip->icw1 = value;
    chip->icw3 = chip->icw4 = 0;
    chip->icw_step = 2;
    chip->imr = chip->isr = 0;
    chip->lowest = 7;
    chip->special_mask = chip->rotate_aeoi = chip->read_isr = chip->poll = false;
    /* Edge sense is reset: an input must go low and high again. */
    chip->irr = chip->lines & (value & ICW1_LEVEL ? 0xff : chip->elcr);
}

static void write_icw(struct pic_chip *chip, uint8_t value)
{
    switch (chip->icw_step) {
    case 2:
        chip->vector_base = value & 0xf8;
        chip->icw_step = chip->icw1 & ICW1_SINGLE ? (chip->icw1 & ICW1_IC4 ? 4 : 0) : 3;
        break;
    case 3:
        chip->icw3 = value;
        chip->icw_step = chip->icw1 & ICW1_IC4 ? 4 : 0;
        break;
    default:
        chip->icw4 = value;
        chip->icw_step = 0;
        break;
    }
}

/* OCW2: rotate 7 | specific 6 | EOI 5 | level 2:0. */
static void write_ocw2(struct pic_chip *chip, uint8_t value)
{
    bool rotate = value & 0x80, specific = value & 0x40, eoi = value & 0x20;
    unsigned n = value & 7;

    if (!eoi) {
        if (!specific)
            chip->rotate_aeoi = rotate;
        else if (rotate)
            chip->lowest = (uint8_t)n; /* set priority */
        return;
    }
    if (!specific) {
        unsigned highest = rank(chip, chip->special_mask ? chip->isr & (uint8_t)~chip->imr : chip->isr);

        if (highest == 8)
            return;
        n = (chip->lowest + 1 + highest) & 7;
    }
    chip->isr &= (uint8_t) ~(1u << n);
    if (rotate)
        chip->lowest = (uint8_t)n;
}

/* OCW3: 6 enable special mask | 5 special mask | 2 poll | 1 enable read | 0 read ISR. */
static void write_ocw3(struct pic_chip *chip, uint8_t value)
{
    if (value & 0x40)
        chip->special_mask = value & 0x20;
    if (value & 0x04)
        chip->poll = true;
    else if (value & 0x02)
        chip->read_isr = value & 0x01;
}

static void chip_write(struct pic *pic, struct pic_chip *chip, unsigned offset, uint8_t value)
{
    if (offset == 0) {
        if (value & ICW1_SELECT)
            write_icw1(chip, value);
        else if (value & 0x08)
            write_ocw3(chip, value);
        else
            write_ocw2(chip, value);
    } else if (chip->icw_step) {
        write_icw(chip, value);
    } else {
        chip->imr = value;
    }
    update(pic);
}

static uint8_t chip_read(struct pic *pic, struct pic_chip *chip, unsigned offset)
{
    int n;

    if (chip->poll) {
        chip->poll = false;
        n = chip_request(pic, chip);
        if (n < 0)
            return 0;
        chip_acknowledge(chip, (unsigned)n);
        update(pic);
        return (uint8_t)(0x80 | n);
    }
    if (offset == 1)
        return chip->imr;
    return chip->read_isr ? chip->isr : chip->irr;
}

/* One set of callbacks per chip, as a port range has only one opaque. */
static uint64_t read_master(void *opaque, uint64_t offset, unsigned size)
{
    struct pic *pic = opaque;

    (void)size;
    return chip_read(pic, &pic->chip[0], (unsigned)offset & 1);
}

static uint64_t read_slave(void *opaque, uint64_t offset, unsigned size)
{
    struct pic *pic = opaque;

    (void)size;
    return chip_read(pic, &pic->chip[1], (unsigned)offset & 1);
}

static void write_master(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pic *pic = opaque;

    (void)size;
    chip_write(pic, &pic->chip[0], (unsigned)offset & 1, (uint8_t)value);
}

static void write_slave(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pic *pic = opaque;

    (void)size;
    chip_write(pic, &pic->chip[1], (unsigned)offset & 1, (uint8_t)value);
}

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)size;
    return ((struct pic *)opaque)->chip[offset & 1].elcr;
}

static void elcr_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pic *pic = opaque;
    struct pic_chip *chip = &pic->chip[offset & 1];

    (void)size;
    chip->elcr = (uint8_t)value & elcr_writable[offset & 1];
    chip->irr = (chip->irr & (uint8_t)~chip->elcr) | (chip->lines & chip->elcr);
    update(pic);
}

static const struct io_ops master_ops = { .read = read_master, .write = write_master, .min_size = 1, .max_size = 1 };
static const struct io_ops slave_ops = { .read = read_slave, .write = write_slave, .min_size = 1, .max_size = 1 };
static const struct io_ops elcr_ops = { .read = elcr_read, .write = elcr_write, .min_size = 1, .max_size = 1 };

/* ---- Life ---- */

static void reset_device(struct device *device)
{
    struct pic *pic = container_of(device, struct pic, device);

    for (unsigned n = 0; n < 2; n++) {
        uint8_t lines = pic->chip[n].lines;

        pic->chip[n] = (struct pic_chip){ .lines = lines, .lowest = 7, .output = pic->chip[n].output };
    }
    update(pic);
}

static void destroy_device(struct device *device)
{
    struct pic *pic = container_of(device, struct pic, device);

    for (unsigned n = 0; n < 2; n++)
        port_space_remove(device->env->ports, chip_port[n], 2, pic);
    port_space_remove(device->env->ports, elcr_port[0], 2, pic);
    pic->bus->pic = NULL;
}

static int post_load(void *owner, struct error *err)
{
    struct pic *pic = owner;

    (void)err;
    for (unsigned n = 0; n < 2; n++) {
        struct pic_chip *chip = &pic->chip[n];

        chip->lowest &= 7;
        chip->icw_step = chip->icw_step > 4 ? 4 : chip->icw_step;
        chip->vector_base &= 0xf8;
        device_load_bool(&chip->read_isr);
        device_load_bool(&chip->poll);
        device_load_bool(&chip->special_mask);
        device_load_bool(&chip->rotate_aeoi);
        device_load_bool(&chip->output);
    }
    update(pic);
    apic_bus_set_extint(pic->bus, pic->chip[0].output);
    return 0;
}

static const struct state_field pic_fields[] = { STATE_ARRAY(struct pic, chip), STATE_END };
static const struct state_table pic_state = {
    .name = "i8259",
    .version = 1,
    .fields = pic_fields,
    .post_load = post_load,
};

static const struct device_type pic_type = {
    .name = "isa-i8259",
    .bus = "ISA",
    .description = "8259A interrupt controllers",
    .size = sizeof(struct pic),
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &pic_state,
};

struct pic *pic_create(struct device_env *env, struct apic_bus *bus, struct error *err)
{
    struct pic *pic = device_allocate(env, &pic_type, NULL, err);

    if (!pic)
        return NULL;
    pic->bus = bus;
    bus->pic = pic;
    device_reset(&pic->device);
    if (port_space_add(env->ports, chip_port[0], 2, &master_ops, pic, "pic-master", err) ||
        port_space_add(env->ports, chip_port[1], 2, &slave_ops, pic, "pic-slave", err) ||
        port_space_add(env->ports, elcr_port[0], 2, &elcr_ops, pic, "elcr", err)) {
        pic_destroy(pic);
        return NULL;
    }
    return pic;
}

void pic_destroy(struct pic *pic)
{
    device_destroy(pic ? &pic->device : NULL);
}
