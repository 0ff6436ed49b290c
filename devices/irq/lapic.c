/* Local APIC: acceptance, priorities, delivery to the CPU, IPIs (SDM Vol. 3A 11.5 to 11.9).
 *
 * Invariants: `output` is what the CPU was told last and follows the registers: every change of IRR, ISR, TPR, SVR or
 * LINT0 ends in lapic_update(). Vectors below 16 never get into IRR.
 * Threads: registers and lapic_acknowledge() from the vCPU's own, messages from any; all under the device lock. */
#include "devices/irq/lapic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/irq/lapic_internal.h"
#include "devices/irq/pic.h"

/* ---- The 256-bit registers ---- */

static inline void vector_set(uint32_t *reg, unsigned vector)
{
    reg[vector / 32] |= 1u << vector % 32;
}
static inline void vector_clear(uint32_t *reg, unsigned vector)
{
    reg[vector / 32] &= ~(1u << vector % 32);
}
static inline bool vector_test(const uint32_t *reg, unsigned vector)
{
    return reg[vector / 32] >> vector % 32 & 1;
}

/* The highest vector that is set, or -1. */
static int vector_highest(const uint32_t *reg)
{
    for (int word = 7; word >= 0; word--) {
        if (reg[word])
            return word * 32 + 31 - __builtin_clz(reg[word]);
    }
    return -1;
}

/* ---- Priorities and output ---- */

bool lapic_enabled(const struct lapic *lapic)
{
    return lapic_hardware_enabled(lapic) && (lapic->svr & SVR_ENABLE);
}

/* SDM Vol. 3A 11.8.3.1: the processor-priority register. */
unsigned lapic_priority(const struct lapic *lapic)
{
    int in_service = vector_highest(lapic->isr);
    unsigned isr_class = in_service < 0 ? 0 : in_service & 0xf0;

    return (lapic->tpr & 0xf0) >= isr_class ? lapic->tpr : isr_class;
}

/* Whether the 8259's INTR reaches the CPU. A disabled local APIC (IA32_APIC_BASE) is not there: LINT0 is the INTR
 * pin. */
static bool extint_pending(const struct lapic *lapic)
{
    uint32_t lvt = lapic->lvt[LVT_LINT0];

    if (!lapic->lint[0])
        return false;
    if (!lapic_hardware_enabled(lapic))
        return true;
    return !(lvt & LVT_MASKED) && (lvt & LVT_MODE) >> 8 == APIC_EXTINT;
}

/* The vector that is to be delivered next, or -1. */
static int pending_vector(const struct lapic *lapic)
{
    int vector;

    if (!lapic_enabled(lapic))
        return -1;
    vector = vector_highest(lapic->irr);
    return vector >= 0 && (unsigned)(vector & 0xf0) > (lapic_priority(lapic) & 0xf0) ? vector : -1;
}

void lapic_update(struct lapic *lapic)
{
    bool level = pending_vector(lapic) >= 0 || extint_pending(lapic);

    if (level == lapic->output)
        return;
    lapic->output = level;
    lapic->cpu_ops->set_intr(lapic->cpu, level);
}

int lapic_acknowledge(void *apic)
{
    struct lapic *lapic = apic;
    int vector;

    event_loop_lock(lapic->device.env->loop);
    if (extint_pending(lapic) && lapic->bus->pic) {
        vector = pic_acknowledge(lapic->bus->pic); /* lowers LINT0 if nothing else waits */
    } else {
        vector = pending_vector(lapic);
        if (vector >= 0) {
            vector_clear(lapic->irr, vector);
            vector_set(lapic->isr, vector);
        }
    }
    lapic_update(lapic);
    event_loop_unlock(lapic->device.env->loop);
    return vector;
}

/* SDM Vol. 3A 11.8.5. */
void lapic_end_of_interrupt(struct lapic *lapic)
{
    int vector = vector_highest(lapic->isr);

    if (vector < 0)
        return;
    vector_clear(lapic->isr, vector);
    if (vector_test(lapic->tmr, vector)) {
        uint32_t *lint0 = &lapic->lvt[LVT_LINT0];

        if (!(lapic->svr & SVR_NO_EOI_BROADCAST))
            apic_bus_eoi(lapic->bus, (uint8_t)vector);
        if ((*lint0 & LVT_REMOTE_IRR) && (int)(*lint0 & LVT_VECTOR) == vector) {
            *lint0 &= ~LVT_REMOTE_IRR;
            lapic_lint_changed(lapic);
        }
    }
    lapic_update(lapic);
}

/* ---- Acceptance ---- */

void lapic_raise_error(struct lapic *lapic, uint32_t esr_bit)
{
    bool first = !(lapic->esr_pending & esr_bit);

    lapic->esr_pending |= esr_bit;
    /* An illegal vector in the error entry itself must not recurse. */
    if (first && (lapic->lvt[LVT_ERROR] & LVT_VECTOR) >= 16)
        lapic_deliver_lvt(lapic, LVT_ERROR);
}

static bool accept_fixed(struct lapic *lapic, uint8_t vector, bool level)
{
    if (!lapic_enabled(lapic))
        return false;
    if (vector < 16) {
        lapic_raise_error(lapic, ESR_RECEIVE_ILLEGAL_VECTOR);
        return true;
    }
    vector_set(lapic->irr, vector);
    if (level)
        vector_set(lapic->tmr, vector);
    else
        vector_clear(lapic->tmr, vector);
    lapic_update(lapic);
    return true;
}

bool lapic_accept(struct lapic *lapic, uint8_t mode, uint8_t vector, bool level)
{
    switch (mode) {
    case APIC_FIXED:
    case APIC_LOWEST_PRIORITY:
        return accept_fixed(lapic, vector, level);
    case APIC_SMI:
        if (lapic->cpu_ops->smi)
            lapic->cpu_ops->smi(lapic->cpu);
        return true;
    case APIC_NMI:
        lapic->cpu_ops->nmi(lapic->cpu);
        return true;
    case APIC_INIT:
        lapic_reset_registers(lapic); /* SDM Vol. 3A 11.4.7.3: all but the id and IA32_APIC_BASE */
        lapic->cpu_ops->init(lapic->cpu);
        return true;
    case APIC_SIPI:
        lapic->cpu_ops->sipi(lapic->cpu, vector);
        return true;
    case APIC_EXTINT:
        /* A message that says "ask the 8259": the vector is known at once, so it is delivered as a fixed interrupt
         * that needs no EOI here would be; the 8259 keeps the request if this APIC is not enabled. */
        if (lapic_enabled(lapic) && lapic->bus->pic)
            return accept_fixed(lapic, pic_acknowledge(lapic->bus->pic), false);
        return false;
    default:
        log_event(guest_errors, "APIC %u: message with reserved delivery mode %u\n", lapic->initial_id, mode);
        return false;
    }
}

void lapic_deliver_lvt(struct lapic *lapic, enum lapic_lvt n)
{
    uint32_t lvt = lapic->lvt[n];
    uint8_t mode = n == LVT_TIMER || n == LVT_ERROR ? APIC_FIXED : (uint8_t)bits(lvt, 10, 8);

    if ((lvt & LVT_MASKED) || !lapic_hardware_enabled(lapic))
        return;
    if (mode == APIC_EXTINT)
        return; /* a level, not an event: extint_pending() */
    if (mode == APIC_INIT || mode == APIC_SMI || mode == APIC_NMI || mode == APIC_FIXED)
        lapic_accept(lapic, mode, (uint8_t)lvt, false);
}

/* ---- LINT0 and LINT1 ---- */

/* Only LINT0 can be level triggered (SDM Vol. 3A 11.5.1). */
void lapic_lint_changed(struct lapic *lapic)
{
    uint32_t *lvt = &lapic->lvt[LVT_LINT0];

    if (lapic->lint[0] && (*lvt & LVT_LEVEL) && !(*lvt & (LVT_MASKED | LVT_REMOTE_IRR)) && !(*lvt & LVT_MODE) &&
        accept_fixed(lapic, (uint8_t)*lvt, true))
        *lvt |= LVT_REMOTE_IRR;
    lapic_update(lapic);
}

void lapic_set_lint(struct lapic *lapic, unsigned pin, bool level)
{
    bool rising = level && !lapic->lint[pin];
    enum lapic_lvt n = pin ? LVT_LINT1 : LVT_LINT0;
    bool by_level = pin == 0 && (lapic->lvt[n] & (LVT_LEVEL | LVT_MODE)) == LVT_LEVEL;

    lapic->lint[pin] = level;
    if (rising && pin == 1 && !lapic_hardware_enabled(lapic)) {
        lapic->cpu_ops->nmi(lapic->cpu); /* LINT1 is the NMI pin then */
        return;
    }
    if (rising && !by_level)
        lapic_deliver_lvt(lapic, n);
    if (pin == 0)
        lapic_lint_changed(lapic);
}

/* ---- Destinations and IPIs ---- */

/* SDM Vol. 3A 11.6.2. */
bool lapic_matches(const struct lapic *lapic, const struct apic_message *message)
{
    uint32_t destination = message->destination;

    if (!lapic_hardware_enabled(lapic))
        return false;
    if (destination == (message->wide ? 0xffffffffu : 0xffu))
        return true;
    if (!message->logical)
        return destination == lapic->id;
    if (lapic_is_x2apic(lapic))
        return destination >> 16 == lapic->ldr >> 16 && (destination & lapic->ldr & 0xffff);
    if (destination > 0xff)
        return false;
    if (lapic->dfr >> 28 == 0xf)
        return destination & lapic->ldr >> 24;
    /* Cluster model: cluster 15 is every cluster. */
    return (destination >> 4 == lapic->ldr >> 28 || destination >> 4 == 0xf) && (destination & lapic->ldr >> 24 & 0xf);
}

/*   63:56 (x2APIC 63:32) destination | 19:18 shorthand | 15 trigger | 14 level | 11 logical | 10:8 mode | 7:0 vector */
void lapic_send_ipi(struct lapic *lapic)
{
    bool wide = lapic_is_x2apic(lapic);
    struct apic_message message = {
        .destination = (uint32_t)(wide ? lapic->icr >> 32 : lapic->icr >> 56),
        .vector = (uint8_t)lapic->icr,
        .mode = (uint8_t)bits(lapic->icr, 10, 8),
        .logical = lapic->icr >> 11 & 1,
        .level = lapic->icr >> 15 & 1,
        .wide = wide,
    };
    unsigned shorthand = (unsigned)bits(lapic->icr, 19, 18);

    if (message.mode == APIC_INIT && message.level && !(lapic->icr >> 14 & 1))
        return; /* INIT level de-assert: only set arbitration ids, on processors that had them */
    if (message.mode == APIC_FIXED || message.mode == APIC_LOWEST_PRIORITY) {
        message.level = false; /* IPIs are edge triggered, whatever the bit says (11.6.1) */
        if (message.vector < 16) {
            lapic_raise_error(lapic, ESR_SEND_ILLEGAL_VECTOR);
            return;
        }
    }
    if (shorthand == 0) {
        apic_bus_deliver(lapic->bus, &message);
        return;
    }
    if (shorthand == 1) {
        /* Self: only fixed interrupts; the other modes are not valid (table 11-3). */
        if (message.mode == APIC_FIXED)
            lapic_accept(lapic, APIC_FIXED, message.vector, false);
        return;
    }
    for (unsigned n = 0; n < lapic->bus->count; n++) {
        struct lapic *other = lapic->bus->lapics[n];

        if (other && lapic_hardware_enabled(other) && (shorthand == 2 || other != lapic))
            lapic_accept(other, message.mode, message.vector, message.level);
    }
}

/* ---- Life ---- */

void lapic_reset_registers(struct lapic *lapic)
{
    lapic_timer_stop(lapic);
    lapic->tpr = lapic->esr = lapic->esr_pending = lapic->divide = 0;
    lapic->initial_count = 0;
    lapic->tsc_deadline = 0;
    lapic->icr = 0;
    lapic->svr = 0xff;
    lapic->dfr = 0xffffffff;
    memset(lapic->irr, 0, sizeof(lapic->irr));
    memset(lapic->isr, 0, sizeof(lapic->isr));
    memset(lapic->tmr, 0, sizeof(lapic->tmr));
    for (unsigned n = 0; n < LVT_COUNT; n++)
        lapic->lvt[n] = LVT_MASKED;
    if (lapic_is_x2apic(lapic)) {
        lapic->id = lapic->initial_id;
        lapic->ldr = (lapic->id >> 4) << 16 | 1u << (lapic->id & 15);
    } else {
        lapic->ldr = 0;
    }
    lapic_update(lapic);
}

static void reset_device(struct device *device)
{
    struct lapic *lapic = container_of(device, struct lapic, device);

    lapic->base = LAPIC_BASE | APIC_BASE_ENABLE | (lapic->initial_id == 0 ? APIC_BASE_BSP : 0);
    lapic->id = lapic->initial_id & 0xff;
    lapic_reset_registers(lapic);
    /* The CPU was reset too, whichever came first: tell it again. */
    lapic->cpu_ops->set_intr(lapic->cpu, lapic->output);
}

void lapic_reset(struct lapic *lapic)
{
    reset_device(&lapic->device);
}

void lapic_set_virtual_wire(struct lapic *lapic)
{
    lapic->svr |= SVR_ENABLE;
    lapic->lvt[LVT_LINT0] = lapic->initial_id == 0 ? APIC_EXTINT << 8 : LVT_MASKED;
    lapic->lvt[LVT_LINT1] = APIC_NMI << 8;
    lapic_lint_changed(lapic);
}

void lapic_set_features(struct lapic *lapic, unsigned physical_bits, bool x2apic, bool tsc_deadline)
{
    lapic->physical_bits = (uint8_t)(physical_bits < 32 ? 32 : physical_bits > 52 ? 52 : physical_bits);
    lapic->has_x2apic = x2apic;
    lapic->has_tsc_deadline = tsc_deadline;
}

/* A stream may say anything: make the words what the registers could have held. */
static int post_load(void *owner, struct error *err)
{
    struct lapic *lapic = owner;

    device_load_bool(&lapic->lint[0]);
    device_load_bool(&lapic->lint[1]);
    device_load_bool(&lapic->timer_running);
    if ((lapic->base & (APIC_BASE_X2APIC | APIC_BASE_ENABLE)) == APIC_BASE_X2APIC)
        return error_set(err, EINVAL, "local APIC %u: impossible mode in the saved state", lapic->initial_id);
    lapic->irr[0] &= 0xffff0000;
    lapic->isr[0] &= 0xffff0000;
    lapic_timer_restore(lapic);
    lapic_update(lapic);
    lapic->cpu_ops->set_intr(lapic->cpu, lapic->output);
    return 0;
}

static const struct state_field lapic_fields[] = {
    STATE_FIELD(struct lapic, base),          STATE_FIELD(struct lapic, id),
    STATE_FIELD(struct lapic, tpr),           STATE_FIELD(struct lapic, ldr),
    STATE_FIELD(struct lapic, dfr),           STATE_FIELD(struct lapic, svr),
    STATE_FIELD(struct lapic, esr),           STATE_FIELD(struct lapic, esr_pending),
    STATE_FIELD(struct lapic, divide),        STATE_ARRAY(struct lapic, irr),
    STATE_ARRAY(struct lapic, isr),           STATE_ARRAY(struct lapic, tmr),
    STATE_ARRAY(struct lapic, lvt),           STATE_FIELD(struct lapic, icr),
    STATE_ARRAY(struct lapic, lint),          STATE_FIELD(struct lapic, initial_count),
    STATE_FIELD(struct lapic, timer_running), STATE_FIELD(struct lapic, deadline_ns),
    STATE_FIELD(struct lapic, tsc_deadline),  STATE_END,
};
static const struct state_table lapic_state = {
    .name = "lapic",
    .version = 1,
    .fields = lapic_fields,
    .post_load = post_load,
};

static void destroy_device(struct device *device)
{
    struct lapic *lapic = container_of(device, struct lapic, device);

    lapic_timer_stop(lapic);
    lapic->bus->lapics[lapic->initial_id] = NULL;
}

static const struct device_type lapic_type = {
    .name = "apic",
    .bus = "System",
    .description = "local APIC",
    .size = sizeof(struct lapic),
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &lapic_state,
};

struct lapic *lapic_create(struct device_env *env, unsigned apic_id, struct apic_bus *bus,
                           const struct board_cpu_ops *cpu_ops, void *cpu, struct error *err)
{
    struct lapic *lapic;

    if (apic_id >= bus->count || bus->lapics[apic_id]) {
        error_set(err, EINVAL, "no room for a local APIC with id %u", apic_id);
        return NULL;
    }
    lapic = device_allocate(env, &lapic_type, NULL, err);
    if (!lapic)
        return NULL;
    lapic->bus = bus;
    lapic->cpu_ops = cpu_ops;
    lapic->cpu = cpu;
    lapic->initial_id = apic_id;
    lapic_set_features(lapic, 52, true, true);
    lapic_timer_setup(lapic);
    bus->lapics[apic_id] = lapic;
    lapic->lint[0] = bus->extint;
    lapic_reset(lapic);
    return lapic;
}

void lapic_destroy(struct lapic *lapic)
{
    device_destroy(lapic ? &lapic->device : NULL);
}
