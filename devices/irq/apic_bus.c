/* The path between interrupt controllers: SDM Vol. 3A 11.6.2 (destinations), 11.11 (MSI), 11.8.5 (EOI broadcast).
 *
 * Invariant: every entry of lapics[] outlives the bus's last use; the board destroys devices before the bus.
 * Threads: any, device lock held. */
#include "devices/irq/apic_bus.h"

#include <errno.h>
#include <stdlib.h>

#include "devices/irq/ioapic.h"
#include "devices/irq/lapic.h"

int apic_bus_init(struct apic_bus *bus, unsigned count, struct error *err)
{
    *bus = (struct apic_bus){ .count = count };
    bus->lapics = calloc(count ? count : 1, sizeof(*bus->lapics));
    if (!bus->lapics)
        return error_set(err, ENOMEM, "out of memory for %u local APICs", count);
    return 0;
}

void apic_bus_destroy(struct apic_bus *bus)
{
    free(bus->lapics);
    *bus = (struct apic_bus){ 0 };
}

/* Among the local APICs addressed, the one that runs at the lowest priority; equals take turns. */
static struct lapic *find_lowest_priority(struct apic_bus *bus, const struct apic_message *message)
{
    struct lapic *best = NULL;

    for (unsigned n = 0; n < bus->count; n++) {
        struct lapic *lapic = bus->lapics[(bus->next_lowest + n) % bus->count];

        if (!lapic || !lapic_enabled(lapic) || !lapic_matches(lapic, message))
            continue;
        if (!best || lapic_priority(lapic) < lapic_priority(best))
            best = lapic;
    }
    if (best)
        bus->next_lowest = best->initial_id + 1;
    return best;
}

unsigned apic_bus_deliver(struct apic_bus *bus, const struct apic_message *message)
{
    unsigned accepted = 0;

    if (message->mode == APIC_LOWEST_PRIORITY) {
        struct lapic *lapic = find_lowest_priority(bus, message);

        return lapic && lapic_accept(lapic, APIC_FIXED, message->vector, message->level);
    }
    for (unsigned n = 0; n < bus->count; n++) {
        struct lapic *lapic = bus->lapics[n];

        if (lapic && lapic_matches(lapic, message))
            accepted += lapic_accept(lapic, message->mode, message->vector, message->level);
    }
    return accepted;
}

/*   address: 0xfee | destination 19:12 | 11:4 | redirection hint 3 | destination mode 2 | 1:0
 *   data:    trigger 15 | level 14 | delivery mode 10:8 | vector 7:0 */
void apic_bus_msi(struct apic_bus *bus, uint64_t address, uint32_t data)
{
    struct apic_message message = {
        .destination = (uint8_t)bits(address, 19, 12),
        .logical = address >> 2 & 1,
        .vector = (uint8_t)data,
        .mode = (uint8_t)bits(data, 10, 8),
        .level = data >> 15 & 1,
    };

    if (address >> 20 != 0xfee)
        return;
    /* A redirection hint with a logical destination asks for one of the processors addressed. */
    if ((address >> 3 & 1) && message.logical && message.mode == APIC_FIXED)
        message.mode = APIC_LOWEST_PRIORITY;
    apic_bus_deliver(bus, &message);
}

void apic_bus_eoi(struct apic_bus *bus, uint8_t vector)
{
    if (bus->ioapic)
        ioapic_eoi(bus->ioapic, vector);
}

void apic_bus_set_extint(struct apic_bus *bus, bool level)
{
    bus->extint = level;
    for (unsigned n = 0; n < bus->count; n++) {
        if (bus->lapics[n])
            lapic_set_lint(bus->lapics[n], 0, level);
    }
}

void apic_bus_pulse_nmi(struct apic_bus *bus)
{
    for (unsigned n = 0; n < bus->count; n++) {
        if (bus->lapics[n]) {
            lapic_set_lint(bus->lapics[n], 1, true);
            lapic_set_lint(bus->lapics[n], 1, false);
        }
    }
}
