/* ACPI fixed hardware (ACPI 6.4, 4.8.3 and 4.8.4; ICH9 data sheet 13.8.3).
 *
 * Invariants: the SCI line follows status & enable bits (update_sci). The PM timer is computed from guest time; the
 * host timer only runs while its overflow interrupts. Threads: any, device lock held. */
#include "devices/board/acpi_pm.h"

#include "base/log.h"

enum {
    PM1_TMR = 1 << 0,
    PM1_GBL = 1 << 5,
    PM1_PWRBTN = 1 << 8,
    PM1_SLPBTN = 1 << 9,
    PM1_RTC = 1 << 10,
    PM1_WAK = 1 << 15,
    PM1_STATUS_BITS = PM1_TMR | 1 << 4 | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC | PM1_WAK,
    PM1_ENABLE_BITS = PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC,
    CNT_SCI_EN = 1 << 0,
    CNT_GBL_RLS = 1 << 2,
    CNT_SLP_TYP_SHIFT = 10,
    CNT_SLP_EN = 1 << 13,
};
enum { REG_SMI_ENABLE = 0x30, REG_SMI_STATUS = 0x34 };
#define SMI_ENABLE_APMC (1u << 5)
#define TIMER_MASK      0xffffffu
#define TIMER_TOP_SHIFT 23 /* TMR_STS is set when bit 23 changes */
#define NS_PER_SECOND   1000000000ull

static uint64_t timer_ticks(const struct acpi_pm *pm)
{
    uint64_t ns = clock_now_ns(pm->device.env->clock);

    return (uint64_t)((unsigned __int128)ns * ACPI_PM_TIMER_HZ / NS_PER_SECOND);
}

/* Notices that the timer's top bit has changed since the last look. */
static void catch_up(struct acpi_pm *pm)
{
    uint64_t toggles = timer_ticks(pm) >> TIMER_TOP_SHIFT;

    if (toggles != pm->timer_toggles)
        pm->pm1_status |= PM1_TMR;
    pm->timer_toggles = toggles;
}

static bool gpe_pending(const struct acpi_pm *pm)
{
    for (unsigned i = 0; i < sizeof(pm->gpe_status); i++) {
        if (pm->gpe_status[i] & pm->gpe_enable[i])
            return true;
    }
    return false;
}

static void update_sci(struct acpi_pm *pm)
{
    bool level =
        (pm->pm1_control & CNT_SCI_EN) && ((pm->pm1_status & pm->pm1_enable & PM1_ENABLE_BITS) || gpe_pending(pm));

    irq_line_set(&pm->sci, level);
    if ((pm->pm1_enable & PM1_TMR) && !(pm->pm1_status & PM1_TMR)) {
        uint64_t next = (pm->timer_toggles + 1) << TIMER_TOP_SHIFT;

        timer_arm(&pm->timer,
                  (uint64_t)(((unsigned __int128)next * NS_PER_SECOND + ACPI_PM_TIMER_HZ - 1) / ACPI_PM_TIMER_HZ));
    } else {
        timer_disarm(&pm->timer);
    }
}

static void timer_expired(void *opaque)
{
    struct acpi_pm *pm = opaque;

    catch_up(pm);
    update_sci(pm);
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
    pm->pm1_status |= PM1_PWRBTN;
    update_sci(pm);
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned n)
{
    if (n >= sizeof(pm->gpe_status) * 8)
        return;
    pm->gpe_status[n / 8] |= (uint8_t)(1u << n % 8);
    update_sci(pm);
}

/* ---- Registers ---- */

static void write_control(struct acpi_pm *pm, uint16_t value)
{
    const struct machine_ops *machine = pm->device.env->machine;
    unsigned type = value >> CNT_SLP_TYP_SHIFT & 7;

    /* SCI_EN is read-only here (set through SMI_CMD), GBL_RLS and SLP_EN read as 0. */
    pm->pm1_control = (value & ~(CNT_SLP_EN | CNT_GBL_RLS | CNT_SCI_EN)) | (pm->pm1_control & CNT_SCI_EN);
    if (!(value & CNT_SLP_EN))
        return;
    if (type == ACPI_S5_SLP_TYP)
        machine->request_shutdown(pm->device.env->machine_opaque);
    else
        log_event(unimp, "ACPI: sleep type %u is not there\n", type);
}

static unsigned block_size(const struct acpi_pm *pm)
{
    return pm->kind == ACPI_PM_ICH9 ? ACPI_PM_SIZE : ACPI_PIIX4_PM_SIZE;
}

/* One byte of the block: the registers are little-endian and may be read in any width. */
static uint8_t read_byte(struct acpi_pm *pm, unsigned offset)
{
    if (offset > ACPI_PM_TMR && pm->kind == ACPI_PM_PIIX4)
        return 0;
    switch (offset) {
    case ACPI_PM1_EVT ... ACPI_PM1_EVT + 1:
        catch_up(pm);
        return (uint8_t)(pm->pm1_status >> (offset & 1) * 8);
    case ACPI_PM1_EVT + 2 ... ACPI_PM1_EVT + 3:
        return (uint8_t)(pm->pm1_enable >> (offset & 1) * 8);
    case ACPI_PM1_CNT ... ACPI_PM1_CNT + 1:
        return (uint8_t)(pm->pm1_control >> (offset & 1) * 8);
    case ACPI_GPE0 ... ACPI_GPE0 + 7:
        return pm->gpe_status[offset - ACPI_GPE0];
    case ACPI_GPE0 + 8 ... ACPI_GPE0 + 15:
        return pm->gpe_enable[offset - ACPI_GPE0 - 8];
    case REG_SMI_ENABLE ... REG_SMI_ENABLE + 3:
        return (uint8_t)(pm->smi_enable >> (offset & 3) * 8);
    case REG_SMI_STATUS ... REG_SMI_STATUS + 3:
        return (uint8_t)(pm->smi_status >> (offset & 3) * 8);
    default:
        return 0;
    }
}

static uint64_t block_read(void *opaque, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = opaque;
    uint64_t value = 0;

    /* The timer is read at one moment. */
    if (offset >= ACPI_PM_TMR && offset < ACPI_PM_TMR + 4)
        return (timer_ticks(pm) & TIMER_MASK) >> (offset & 3) * 8;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_byte(pm, (unsigned)offset + i) << i * 8;
    return value;
}

static uint16_t merge(uint16_t old, unsigned byte, uint8_t value)
{
    return (uint16_t)((old & ~(0xff << byte * 8)) | value << byte * 8);
}

static void write_byte(struct acpi_pm *pm, unsigned offset, uint8_t value)
{
    unsigned shift = (offset & 3) * 8;

    if (offset > ACPI_PM_TMR && pm->kind == ACPI_PM_PIIX4)
        return;
    switch (offset) {
    case ACPI_PM1_EVT ... ACPI_PM1_EVT + 1:
        catch_up(pm);
        pm->pm1_status &= (uint16_t) ~(value << (offset & 1) * 8);
        break;
    case ACPI_PM1_EVT + 2 ... ACPI_PM1_EVT + 3:
        catch_up(pm);
        pm->pm1_enable = merge(pm->pm1_enable, offset & 1, value) & PM1_ENABLE_BITS;
        break;
    case ACPI_PM1_CNT ... ACPI_PM1_CNT + 1:
        write_control(pm, merge(pm->pm1_control, offset & 1, value));
        break;
    case ACPI_GPE0 ... ACPI_GPE0 + 7:
        pm->gpe_status[offset - ACPI_GPE0] &= (uint8_t)~value;
        break;
    case ACPI_GPE0 + 8 ... ACPI_GPE0 + 15:
        pm->gpe_enable[offset - ACPI_GPE0 - 8] = value;
        break;
    case REG_SMI_ENABLE ... REG_SMI_ENABLE + 3:
        pm->smi_enable = (pm->smi_enable & ~(0xffu << shift)) | (uint32_t)value << shift;
        break;
    case REG_SMI_STATUS ... REG_SMI_STATUS + 3:
        pm->smi_status &= ~((uint32_t)value << shift);
        break;
    default:
        break;
    }
}

static void block_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_pm *pm = opaque;

    if (offset == ACPI_PM1_CNT && size >= 2) {
        write_control(pm, (uint16_t)value); /* as one, or a sleep would begin with half of the bits */
    } else {
        for (unsigned i = 0; i < size; i++)
            write_byte(pm, (unsigned)offset + i, (uint8_t)(value >> i * 8));
    }
    update_sci(pm);
}

/* APM control and status (ICH9 13.7.1). A write to the control port is an SMI; there is no firmware in SMM, so the only
 * requests that anybody answers are those of the FADT. */
static uint64_t apm_read(void *opaque, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = opaque;

    (void)size;
    return offset ? pm->apm_status : pm->apm_control;
}

static void apm_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_pm *pm = opaque;

    (void)size;
    if (offset) {
        pm->apm_status = (uint8_t)value;
        return;
    }
    pm->apm_control = (uint8_t)value;
    if (value == (pm->kind == ACPI_PM_ICH9 ? ACPI_ENABLE_COMMAND : ACPI_PIIX4_ENABLE_COMMAND))
        pm->pm1_control |= CNT_SCI_EN;
    else if (value == (pm->kind == ACPI_PM_ICH9 ? ACPI_DISABLE_COMMAND : ACPI_PIIX4_DISABLE_COMMAND))
        pm->pm1_control &= (uint16_t)~CNT_SCI_EN;
    else
        log_event(unimp, "ACPI: SMI command 0x%x\n", (unsigned)value);
    update_sci(pm);
}

/* The PIIX4's general-purpose events, of which there are 16. */
static uint64_t gpe_read(void *opaque, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = opaque;

    (void)size;
    return offset < 2 ? pm->gpe_status[offset] : pm->gpe_enable[offset - 2];
}

static void gpe_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_pm *pm = opaque;

    (void)size;
    if (offset < 2)
        pm->gpe_status[offset] &= (uint8_t)~value;
    else
        pm->gpe_enable[offset - 2] = (uint8_t)value;
    update_sci(pm);
}

static const struct io_ops gpe_ops = { .read = gpe_read, .write = gpe_write, .min_size = 1, .max_size = 1 };
static const struct io_ops block_ops = { .read = block_read, .write = block_write, .min_size = 1, .max_size = 4 };
static const struct io_ops apm_ops = { .read = apm_read, .write = apm_write, .min_size = 1, .max_size = 1 };

int acpi_pm_move(struct acpi_pm *pm, uint16_t base, struct error *err)
{
    struct port_space *ports = pm->device.env->ports;
    int result = 0;

    base &= (uint16_t) ~(block_size(pm) - 1);
    if (base == pm->base)
        return 0;
    if (pm->base)
        port_space_remove(ports, pm->base, block_size(pm), pm);
    pm->base = 0;
    if (base) {
        result = port_space_add(ports, base, block_size(pm), &block_ops, pm, "acpi-pm", err);
        if (!result)
            pm->base = base;
    }
    return result;
}

/* ---- Life ---- */

static void reset_device(struct device *device)
{
    struct acpi_pm *pm = container_of(device, struct acpi_pm, device);

    pm->pm1_status = pm->pm1_enable = pm->pm1_control = 0;
    for (unsigned i = 0; i < sizeof(pm->gpe_status); i++)
        pm->gpe_status[i] = pm->gpe_enable[i] = 0;
    /* As a firmware leaves it that has installed its SMI handler: nobody is to try, there is no SMM. */
    pm->smi_enable = SMI_ENABLE_APMC;
    pm->smi_status = 0;
    pm->apm_control = pm->apm_status = 0;
    catch_up(pm);
    pm->pm1_status = 0;
    update_sci(pm);
}

static void destroy_device(struct device *device)
{
    struct acpi_pm *pm = container_of(device, struct acpi_pm, device);

    timer_disarm(&pm->timer);
    acpi_pm_move(pm, 0, NULL);
    port_space_remove(device->env->ports, ACPI_SMI_CMD, 2, pm);
    if (pm->kind == ACPI_PM_PIIX4)
        port_space_remove(device->env->ports, ACPI_PIIX4_GPE0, 4, pm);
}

static void pre_save(void *owner)
{
    catch_up(owner);
}

static int post_load(void *owner, struct error *err)
{
    struct acpi_pm *pm = owner;

    (void)err;
    pm->pm1_status &= PM1_STATUS_BITS;
    pm->pm1_enable &= PM1_ENABLE_BITS;
    catch_up(pm);
    update_sci(pm);
    return 0;
}

static const struct state_field acpi_pm_fields[] = {
    STATE_FIELD(struct acpi_pm, pm1_status),
    STATE_FIELD(struct acpi_pm, pm1_enable),
    STATE_FIELD(struct acpi_pm, pm1_control),
    STATE_ARRAY(struct acpi_pm, gpe_status),
    STATE_ARRAY(struct acpi_pm, gpe_enable),
    STATE_FIELD(struct acpi_pm, smi_enable),
    STATE_FIELD(struct acpi_pm, smi_status),
    STATE_FIELD(struct acpi_pm, apm_control),
    STATE_FIELD(struct acpi_pm, apm_status),
    STATE_FIELD(struct acpi_pm, timer_toggles),
    STATE_END,
};
/* The base address belongs to the LPC bridge, whose state restores it. */
static const struct state_table acpi_pm_state = {
    .name = "acpi-pm",
    .version = 1,
    .fields = acpi_pm_fields,
    .pre_save = pre_save,
    .post_load = post_load,
};

static const struct device_type acpi_pm_type = {
    .name = "acpi-pm",
    .bus = "System",
    .description = "ACPI fixed hardware",
    .size = sizeof(struct acpi_pm),
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &acpi_pm_state,
};

struct acpi_pm *acpi_pm_create(struct device_env *env, enum acpi_pm_kind kind, uint16_t base,
                               const struct irq_line *sci, struct error *err)
{
    struct acpi_pm *pm = device_allocate(env, &acpi_pm_type, NULL, err);

    if (!pm)
        return NULL;
    pm->kind = kind;
    pm->sci = *sci;
    timer_init(&pm->timer, env->loop, timer_expired, pm);
    device_reset(&pm->device);
    if (acpi_pm_move(pm, base, err) || port_space_add(env->ports, ACPI_SMI_CMD, 2, &apm_ops, pm, "apm", err) ||
        (kind == ACPI_PM_PIIX4 && port_space_add(env->ports, ACPI_PIIX4_GPE0, 4, &gpe_ops, pm, "gpe0", err))) {
        acpi_pm_destroy(pm);
        return NULL;
    }
    return pm;
}

void acpi_pm_destroy(struct acpi_pm *pm)
{
    device_destroy(pm ? &pm->device : NULL);
}
