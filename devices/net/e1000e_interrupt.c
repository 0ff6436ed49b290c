/* e1000e interrupts (82574 datasheet 7.4, 10.2.4): causes (ICR), masks (IMS), and how they leave: INTx, MSI, or MSI-X with a vector
 * for each group of causes (IVAR).
 *
 *     cause ──> ICR ── & IMS ──┬── INTx: level while any is set
 *                              ├── MSI: a message when one becomes set
 *                              └── MSI-X: the same for each group; EIAC clears the cause, EIAME masks it by IAM
 *
 * Two brakes: causes that stand for packets may wait for more of them (RDTR, RADV, TIDV, TADV: 1.024 us), and interrupts keep a
 * distance (ITR, EITR: 256 ns). INT_TIMERS_CLEAR_ENA has no effect. Device lock held. */
#include "devices/net/e1000e_internal.h"

#define DELAY_UNIT_NS    1024ull
#define THROTTLE_UNIT_NS 256ull

/* ---- Throttling ---- */

/* The throttle's interval register, 0: none. */
static uint32_t interval(const struct e1000e *nic, unsigned index)
{
    return (index ? e1000e_get(nic, EITR + 4 * (index - 1)) : e1000e_get(nic, ITR)) & 0xffff;
}

/* True: not now; the timer will come back to it. */
static bool must_wait(struct e1000e *nic, unsigned index)
{
    struct e1000e_throttle *throttle = &nic->throttles[index];

    if (timer_armed(&throttle->timer)) {
        throttle->pending = true;
        return true;
    }
    if (interval(nic, index))
        timer_arm(&throttle->timer, e1000e_now(nic) + interval(nic, index) * THROTTLE_UNIT_NS);
    return false;
}

static void throttle_over(void *opaque)
{
    struct e1000e_throttle *throttle = opaque;
    struct e1000e *nic = throttle->nic;
    unsigned index = (unsigned)(throttle - nic->throttles);

    if (!throttle->pending)
        return;
    throttle->pending = false;
    if (index) {
        must_wait(nic, index);
        pci_msix_notify(&nic->pci, index - 1);
    } else {
        e1000e_interrupt_update(nic);
    }
}

/* ---- Delivery ---- */

static void send_vector(struct e1000e *nic, uint32_t cause, unsigned ivar_shift)
{
    uint32_t entry = e1000e_get(nic, IVAR) >> ivar_shift & 15, cleared;
    unsigned vector = entry & 7;

    if (!(entry & 8) || vector >= E1000E_VECTORS)
        return;
    if (!must_wait(nic, 1 + vector))
        pci_msix_notify(&nic->pci, vector);
    if (e1000e_get(nic, CTRL_EXT) & CTRL_EXT_EIAME)
        *e1000e_register(nic, IMS) &= ~(e1000e_get(nic, IAM) & cause);
    cleared = e1000e_get(nic, EIAC) & cause;
    *e1000e_register(nic, ICR) &= ~cleared;
    if (!(e1000e_get(nic, CTRL_EXT) & CTRL_EXT_IAME))
        *e1000e_register(nic, IMS) &= ~cleared;
    nic->notified &= ~cleared;
}

static void send_vectors(struct e1000e *nic, uint32_t causes)
{
    static const struct {
        uint32_t cause;
        uint8_t shift;
    } groups[] = { { INT_RXQ0, 0 }, { INT_RXQ1, 4 }, { INT_TXQ0, 8 }, { INT_TXQ1, 12 }, { INT_OTHER, 16 } };

    for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
        if (causes & groups[i].cause)
            send_vector(nic, groups[i].cause, groups[i].shift);
    }
}

void e1000e_interrupt_update(struct e1000e *nic)
{
    uint32_t *icr = e1000e_register(nic, ICR);
    uint32_t causes, fresh;

    causes = *icr & e1000e_get(nic, IMS) & ~INT_ASSERTED;
    if (causes)
        *icr |= INT_ASSERTED;
    else
        *icr &= ~INT_ASSERTED;
    nic->notified &= causes;
    fresh = causes & ~nic->notified;
    if (pci_msix_enabled(&nic->pci)) {
        nic->notified |= causes;
        send_vectors(nic, fresh);
        pci_intx_set(&nic->pci, false);
        return;
    }
    if (pci_msi_enabled(&nic->pci)) {
        if (fresh && !must_wait(nic, 0)) {
            nic->notified |= causes;
            pci_msi_notify(&nic->pci, 0);
        }
        return;
    }
    if (causes && !nic->pci.intx_asserted && must_wait(nic, 0))
        return;
    pci_intx_set(&nic->pci, causes != 0);
}

void e1000e_interrupt_raise(struct e1000e *nic, uint32_t causes)
{
    if (causes & INT_OTHER_CAUSES)
        causes |= INT_OTHER;
    *e1000e_register(nic, ICR) |= causes;
    e1000e_interrupt_update(nic);
}

uint32_t e1000e_read_icr(struct e1000e *nic)
{
    uint32_t value = e1000e_get(nic, ICR);

    /* 10.2.4.1: cleared by reading if nothing is enabled, or if an interrupt is asserted. */
    if (!e1000e_get(nic, IMS) || (value & INT_ASSERTED) || !pci_msix_enabled(&nic->pci))
        *e1000e_register(nic, ICR) = 0;
    if ((value & INT_ASSERTED) && (e1000e_get(nic, CTRL_EXT) & CTRL_EXT_IAME))
        *e1000e_register(nic, IMS) &= ~e1000e_get(nic, IAM);
    e1000e_interrupt_update(nic);
    return value;
}

void e1000e_write_icr(struct e1000e *nic, uint32_t value)
{
    if ((e1000e_get(nic, ICR) & INT_ASSERTED) && (e1000e_get(nic, CTRL_EXT) & CTRL_EXT_IAME))
        *e1000e_register(nic, IMS) &= ~e1000e_get(nic, IAM);
    *e1000e_register(nic, ICR) &= ~value;
    e1000e_interrupt_update(nic);
}

void e1000e_write_imc(struct e1000e *nic, uint32_t value)
{
    *e1000e_register(nic, IMS) &= ~value;
    e1000e_interrupt_update(nic);
}

/* ---- Delays ---- */

static void receive_due(void *opaque)
{
    struct e1000e *nic = opaque;
    uint32_t causes = nic->delayed & (INT_RXT0 | INT_RXQ0 | INT_RXQ1);

    timer_disarm(&nic->receive_delay);
    timer_disarm(&nic->receive_limit);
    nic->delayed &= ~causes;
    e1000e_interrupt_raise(nic, causes);
}

static void transmit_due(void *opaque)
{
    struct e1000e *nic = opaque;
    uint32_t causes = nic->delayed & (INT_TXDW | INT_TXQ0 | INT_TXQ1);

    timer_disarm(&nic->transmit_delay);
    timer_disarm(&nic->transmit_limit);
    nic->delayed &= ~causes;
    e1000e_interrupt_raise(nic, causes);
}

static void delay(struct e1000e *nic, uint32_t causes, struct timer *timer, uint32_t ticks, struct timer *limit,
                  uint32_t limit_ticks)
{
    nic->delayed |= causes;
    timer_arm(timer, e1000e_now(nic) + ticks * DELAY_UNIT_NS);
    if (limit_ticks && !timer_armed(limit))
        timer_arm(limit, e1000e_now(nic) + limit_ticks * DELAY_UNIT_NS);
}

void e1000e_interrupt_received(struct e1000e *nic, uint32_t causes)
{
    uint32_t ticks = e1000e_get(nic, RDTR) & 0xffff;

    if (ticks)
        delay(nic, causes, &nic->receive_delay, ticks, &nic->receive_limit, e1000e_get(nic, RADV) & 0xffff);
    else
        e1000e_interrupt_raise(nic, causes);
}

void e1000e_interrupt_transmitted(struct e1000e *nic, uint32_t causes, bool may_delay)
{
    uint32_t ticks = e1000e_get(nic, TIDV) & 0xffff;

    if (may_delay && ticks)
        delay(nic, causes, &nic->transmit_delay, ticks, &nic->transmit_limit, e1000e_get(nic, TADV) & 0xffff);
    else
        e1000e_interrupt_raise(nic, causes);
}

/* ---- Life ---- */

void e1000e_interrupt_init(struct e1000e *nic)
{
    struct event_loop *loop = nic->pci.device.env->loop;

    for (unsigned i = 0; i < ARRAY_SIZE(nic->throttles); i++) {
        nic->throttles[i].nic = nic;
        timer_init(&nic->throttles[i].timer, loop, throttle_over, &nic->throttles[i]);
    }
    timer_init(&nic->receive_delay, loop, receive_due, nic);
    timer_init(&nic->receive_limit, loop, receive_due, nic);
    timer_init(&nic->transmit_delay, loop, transmit_due, nic);
    timer_init(&nic->transmit_limit, loop, transmit_due, nic);
}

void e1000e_interrupt_stop(struct e1000e *nic)
{
    for (unsigned i = 0; i < ARRAY_SIZE(nic->throttles); i++) {
        timer_disarm(&nic->throttles[i].timer);
        nic->throttles[i].pending = false;
    }
    timer_disarm(&nic->receive_delay);
    timer_disarm(&nic->receive_limit);
    timer_disarm(&nic->transmit_delay);
    timer_disarm(&nic->transmit_limit);
    nic->delayed = 0;
    nic->notified = 0;
}
