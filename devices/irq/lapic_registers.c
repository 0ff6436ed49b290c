/* The local APIC's registers as its CPU sees them: the xAPIC page, x2APIC MSRs, IA32_APIC_BASE, IA32_TSC_DEADLINE
 * (SDM Vol. 3A 11.4, 11.12).
 *
 * Called on the vCPU's thread; each public function takes the device lock. */
#include "base/log.h"
#include "devices/irq/lapic_internal.h"

/* Version 0x14 (integrated APIC), six LVT entries, EOI broadcast can be suppressed (11.4.8). */
#define VERSION_VALUE (1u << 24 | (LVT_COUNT - 1) << 16 | 0x14)

/* Bits of each LVT entry that software may set (figure 11-8). */
static const uint32_t lvt_writable[LVT_COUNT] = {
    [LVT_TIMER] = LVT_VECTOR | LVT_MASKED | LVT_TIMER_MODE,
    [LVT_THERMAL] = LVT_VECTOR | LVT_MODE | LVT_MASKED,
    [LVT_PERF] = LVT_VECTOR | LVT_MODE | LVT_MASKED,
    [LVT_LINT0] = LVT_VECTOR | LVT_MODE | LVT_POLARITY | LVT_LEVEL | LVT_MASKED,
    [LVT_LINT1] = LVT_VECTOR | LVT_MODE | LVT_POLARITY | LVT_LEVEL | LVT_MASKED,
    [LVT_ERROR] = LVT_VECTOR | LVT_MASKED,
};

#define SVR_WRITABLE     (0xffu | SVR_ENABLE | SVR_NO_EOI_BROADCAST)
/* vector, mode, destination mode, level, trigger, shorthand */
#define ICR_LOW_WRITABLE 0x000ccfffu

static uint32_t lvt_allowed(const struct lapic *lapic, unsigned n)
{
    uint32_t allowed = lvt_writable[n];

    if (n == LVT_TIMER && !lapic->has_tsc_deadline)
        allowed &= ~LVT_TSC_DEADLINE;
    return allowed;
}

static void write_lvt(struct lapic *lapic, unsigned n, uint32_t value)
{
    value &= lvt_allowed(lapic, n);
    if (!(lapic->svr & SVR_ENABLE))
        value |= LVT_MASKED; /* 11.4.7.2: masks cannot be cleared while the APIC is software disabled */
    if (n == LVT_TIMER && (value & LVT_TIMER_MODE) == LVT_TIMER_MODE)
        value &= ~LVT_TIMER_MODE; /* reserved */
    if (n == LVT_TIMER) {
        lapic_timer_set_lvt(lapic, value);
    } else if (n == LVT_LINT0) {
        /* Remote IRR survives as long as the entry stays level triggered. */
        lapic->lvt[n] = value | (value & LVT_LEVEL ? lapic->lvt[n] & LVT_REMOTE_IRR : 0);
        lapic_lint_changed(lapic);
    } else {
        lapic->lvt[n] = value;
    }
}

static void write_svr(struct lapic *lapic, uint32_t value)
{
    lapic->svr = value & SVR_WRITABLE;
    if (!(value & SVR_ENABLE)) {
        for (unsigned n = 0; n < LVT_COUNT; n++)
            lapic->lvt[n] |= LVT_MASKED;
    }
    lapic_update(lapic);
}

/* Registers that both modes have. `offset`: a multiple of 16. Unknown ones: false. */
static bool read_register(const struct lapic *lapic, unsigned offset, uint32_t *value)
{
    switch (offset) {
    case LAPIC_ID:
        *value = lapic_is_x2apic(lapic) ? lapic->id : lapic->id << 24;
        return true;
    case LAPIC_VERSION:
        *value = VERSION_VALUE;
        return true;
    case LAPIC_TPR:
        *value = lapic->tpr;
        return true;
    case LAPIC_PPR:
        *value = lapic_priority(lapic);
        return true;
    case LAPIC_LDR:
        *value = lapic->ldr;
        return true;
    case LAPIC_SVR:
        *value = lapic->svr;
        return true;
    case LAPIC_ISR ... LAPIC_ISR + 0x70:
        *value = lapic->isr[(offset - LAPIC_ISR) / 16];
        return true;
    case LAPIC_TMR ... LAPIC_TMR + 0x70:
        *value = lapic->tmr[(offset - LAPIC_TMR) / 16];
        return true;
    case LAPIC_IRR ... LAPIC_IRR + 0x70:
        *value = lapic->irr[(offset - LAPIC_IRR) / 16];
        return true;
    case LAPIC_ESR:
        *value = lapic->esr;
        return true;
    case LAPIC_ICR_LOW:
        *value = (uint32_t)lapic->icr;
        return true;
    case LAPIC_LVT_TIMER ... LAPIC_LVT_ERROR:
        *value = lapic->lvt[(offset - LAPIC_LVT_TIMER) / 16];
        return true;
    case LAPIC_INITIAL_COUNT:
        *value = lapic->initial_count;
        return true;
    case LAPIC_CURRENT_COUNT:
        *value = lapic_timer_current(lapic);
        return true;
    case LAPIC_DIVIDE:
        *value = lapic->divide;
        return true;
    default:
        return false;
    }
}

/* Same for writes; false: unknown or read-only. */
static bool write_register(struct lapic *lapic, unsigned offset, uint32_t value)
{
    switch (offset) {
    case LAPIC_TPR:
        lapic->tpr = value & 0xff;
        lapic_update(lapic);
        return true;
    case LAPIC_EOI:
        lapic_end_of_interrupt(lapic);
        return true;
    case LAPIC_SVR:
        write_svr(lapic, value);
        return true;
    case LAPIC_ESR:
        /* A write latches what was detected since the last one (11.5.3). */
        lapic->esr = lapic->esr_pending;
        lapic->esr_pending = 0;
        return true;
    case LAPIC_LVT_TIMER ... LAPIC_LVT_ERROR:
        write_lvt(lapic, (offset - LAPIC_LVT_TIMER) / 16, value);
        return true;
    case LAPIC_INITIAL_COUNT:
        lapic_timer_set_count(lapic, value);
        return true;
    case LAPIC_DIVIDE:
        lapic_timer_set_divide(lapic, value);
        return true;
    default:
        return false;
    }
}

/* ---- xAPIC ---- */

static uint32_t xapic_read(struct lapic *lapic, unsigned offset)
{
    uint32_t value = 0;

    switch (offset) {
    case LAPIC_APR:
        return lapic_priority(lapic);
    case LAPIC_RRD:
        return 0;
    case LAPIC_EOI:
        return 0;
    case LAPIC_DFR:
        return lapic->dfr;
    case LAPIC_ICR_HIGH:
        return (uint32_t)(lapic->icr >> 32);
    default:
        break;
    }
    if (!read_register(lapic, offset, &value)) {
        log_event(guest_errors, "APIC %u: read of register 0x%x\n", lapic->initial_id, offset);
        lapic_raise_error(lapic, ESR_ILLEGAL_REGISTER);
    }
    return value;
}

static void xapic_write(struct lapic *lapic, unsigned offset, uint32_t value)
{
    switch (offset) {
    case LAPIC_ID:
        lapic->id = value >> 24;
        return;
    case LAPIC_LDR:
        lapic->ldr = value & 0xff000000;
        return;
    case LAPIC_DFR:
        lapic->dfr = value | 0x0fffffff;
        return;
    case LAPIC_ICR_LOW:
        lapic->icr = (lapic->icr & ~0xffffffffull) | (value & ICR_LOW_WRITABLE);
        lapic_send_ipi(lapic);
        return;
    case LAPIC_ICR_HIGH:
        lapic->icr = (lapic->icr & 0xffffffff) | (uint64_t)(value & 0xff000000) << 32;
        return;
    default:
        break;
    }
    if (!write_register(lapic, offset, value)) {
        log_event(guest_errors, "APIC %u: write of register 0x%x = 0x%x\n", lapic->initial_id, offset, value);
        lapic_raise_error(lapic, ESR_ILLEGAL_REGISTER);
    }
}

/* Registers are 32 bits wide at 16-byte strides. Narrower reads inside one get their part of it; what lies outside is
 * undefined (11.4.1) and reads 0. */
uint32_t lapic_mmio_read(void *apic, unsigned offset, unsigned size)
{
    struct lapic *lapic = apic;
    unsigned within = offset & 15;
    uint32_t value;

    if (!lapic_hardware_enabled(lapic) || lapic_is_x2apic(lapic))
        return 0xffffffff;
    if (offset >= 0x1000 || size == 0 || within + size > 4)
        return 0;
    event_loop_lock(lapic->device.env->loop);
    value = xapic_read(lapic, offset & ~15u) >> within * 8;
    event_loop_unlock(lapic->device.env->loop);
    return size == 4 ? value : value & ((1u << size * 8) - 1);
}

void lapic_mmio_write(void *apic, unsigned offset, unsigned size, uint32_t value)
{
    struct lapic *lapic = apic;

    if (!lapic_hardware_enabled(lapic) || lapic_is_x2apic(lapic))
        return;
    if (offset >= 0x1000 || size != 4 || (offset & 15)) {
        log_event(guest_errors, "APIC %u: %u-byte write at 0x%x\n", lapic->initial_id, size, offset);
        return;
    }
    event_loop_lock(lapic->device.env->loop);
    xapic_write(lapic, offset, value);
    event_loop_unlock(lapic->device.env->loop);
}

/* ---- x2APIC ---- */

static bool x2apic_read(struct lapic *lapic, unsigned offset, uint64_t *value)
{
    uint32_t low;

    if (offset == LAPIC_ICR_LOW) {
        *value = lapic->icr;
        return true;
    }
    if (!read_register(lapic, offset, &low))
        return false;
    *value = low;
    return true;
}

/* Reserved bits of what x2apic_write() takes; setting one is #GP (11.12.1.3). EOI and ESR take only 0. */
static uint64_t x2apic_reserved(const struct lapic *lapic, unsigned offset)
{
    switch (offset) {
    case LAPIC_TPR:
        return ~0xffull;
    case LAPIC_EOI:
        return ~0ull;
    case LAPIC_ESR:
        return ~0ull;
    case LAPIC_SVR:
        return ~(uint64_t)SVR_WRITABLE;
    case LAPIC_ICR_LOW:
        return ~(0xffffffff00000000ull | ICR_LOW_WRITABLE);
    case LAPIC_LVT_TIMER ... LAPIC_LVT_ERROR:
        return ~(uint64_t)(lvt_allowed(lapic, (offset - LAPIC_LVT_TIMER) / 16) | LVT_PENDING | LVT_REMOTE_IRR);
    case LAPIC_INITIAL_COUNT:
        return ~0xffffffffull;
    case LAPIC_DIVIDE:
        return ~0xbull;
    case LAPIC_SELF_IPI:
        return ~0xffull;
    default:
        return 0;
    }
}

static bool x2apic_write(struct lapic *lapic, unsigned offset, uint64_t value)
{
    if (value & x2apic_reserved(lapic, offset))
        return false;
    switch (offset) {
    case LAPIC_ICR_LOW:
        lapic->icr = value;
        lapic_send_ipi(lapic);
        return true;
    case LAPIC_SELF_IPI:
        if ((uint8_t)value < 16)
            lapic_raise_error(lapic, ESR_SEND_ILLEGAL_VECTOR);
        else
            lapic_accept(lapic, APIC_FIXED, (uint8_t)value, false);
        return true;
    default:
        return write_register(lapic, offset, (uint32_t)value);
    }
}

/* ---- IA32_APIC_BASE ---- */

/* SDM Vol. 3A 11.12.5, figure 11-27: the only ways out of x2APIC mode are reset and disabling. */
static bool write_base(struct lapic *lapic, uint64_t value)
{
    uint64_t reserved = ~((1ull << lapic->physical_bits) - 1) | 0x2ff;
    uint64_t old = lapic->base;
    const uint64_t mode = APIC_BASE_ENABLE | APIC_BASE_X2APIC;

    if (!lapic->has_x2apic)
        reserved |= APIC_BASE_X2APIC;
    if (value & reserved)
        return false;
    if ((value & mode) == APIC_BASE_X2APIC)
        return false;
    if ((old & mode) == mode && (value & mode) == APIC_BASE_ENABLE)
        return false;
    if (!(old & APIC_BASE_ENABLE) && (value & mode) == mode)
        return false;
    lapic->base = value;
    if ((value & mode) == mode && (old & mode) != mode) {
        lapic->id = lapic->initial_id;
        lapic->ldr = (lapic->id >> 4) << 16 | 1u << (lapic->id & 15);
        lapic->icr &= 0xffffffff;
    } else if (!(value & APIC_BASE_ENABLE) && (old & APIC_BASE_ENABLE)) {
        /* Re-enabling finds the registers as after reset (11.4.3). */
        lapic->id = lapic->initial_id & 0xff;
        lapic_reset_registers(lapic);
    }
    lapic_update(lapic);
    return true;
}

static bool msr_read_locked(struct lapic *lapic, uint32_t msr, uint64_t *value)
{
    if (msr == MSR_APIC_BASE) {
        *value = lapic->base;
        return true;
    }
    if (msr == MSR_TSC_DEADLINE) {
        *value = lapic->tsc_deadline;
        return lapic->has_tsc_deadline;
    }
    if (msr < MSR_X2APIC_FIRST || msr > MSR_X2APIC_LAST || !lapic_is_x2apic(lapic))
        return false;
    return x2apic_read(lapic, (msr - MSR_X2APIC_FIRST) * 16, value);
}

static bool msr_write_locked(struct lapic *lapic, uint32_t msr, uint64_t value)
{
    if (msr == MSR_APIC_BASE)
        return write_base(lapic, value);
    if (msr == MSR_TSC_DEADLINE) {
        if (lapic->has_tsc_deadline)
            lapic_timer_set_deadline(lapic, value);
        return lapic->has_tsc_deadline;
    }
    if (msr < MSR_X2APIC_FIRST || msr > MSR_X2APIC_LAST || !lapic_is_x2apic(lapic))
        return false;
    return x2apic_write(lapic, (msr - MSR_X2APIC_FIRST) * 16, value);
}

bool lapic_msr_read(void *apic, uint32_t msr, uint64_t *value)
{
    struct lapic *lapic = apic;
    bool ok;

    event_loop_lock(lapic->device.env->loop);
    ok = msr_read_locked(lapic, msr, value);
    event_loop_unlock(lapic->device.env->loop);
    return ok;
}

bool lapic_msr_write(void *apic, uint32_t msr, uint64_t value)
{
    struct lapic *lapic = apic;
    bool ok;

    event_loop_lock(lapic->device.env->loop);
    ok = msr_write_locked(lapic, msr, value);
    event_loop_unlock(lapic->device.env->loop);
    return ok;
}

/* ---- CR8 and the base address ---- */

/* Only the CPU itself changes TPR (INIT apart, which the CPU then also takes): no lock to read it. */
uint8_t lapic_get_tpr(void *apic)
{
    return (uint8_t)((struct lapic *)apic)->tpr;
}

void lapic_set_tpr(void *apic, uint8_t tpr)
{
    struct lapic *lapic = apic;

    if (lapic->tpr == tpr)
        return;
    event_loop_lock(lapic->device.env->loop);
    lapic->tpr = tpr;
    lapic_update(lapic);
    event_loop_unlock(lapic->device.env->loop);
}

uint64_t lapic_get_base(void *apic)
{
    return ((struct lapic *)apic)->base;
}
