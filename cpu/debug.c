/* Hardware breakpoints. SDM Vol. 3B 18.2.
 *
 * DR7:   31 30  29 28  27 26  25 24  23 22  21 20  19 18  17 16   13    9  8   7  6  5  4  3  2  1  0
 *       +------+------+------+------+------+------+------+------+-----+---+---+--+--+--+--+--+--+--+--+
 *       | LEN3 | R/W3 | LEN2 | R/W2 | LEN1 | R/W1 | LEN0 | R/W0 |  GD | GE| LE|G3|L3|G2|L2|G1|L1|G0|L0|
 *       +------+------+------+------+------+------+------+------+-----+---+---+--+--+--+--+--+--+--+--+
 * R/W: 0 execution, 1 write, 2 I/O (with CR4.DE), 3 read or write. LEN: 1, 2, 8, 4 bytes. */
#include "cpu/debug.h"

#include "cpu/system_internal.h"

enum { BREAK_EXECUTE = 0, BREAK_WRITE = 1, BREAK_IO = 2, BREAK_ACCESS = 3 };

static bool breakpoint_enabled(const struct cpu *cpu, unsigned n)
{
    return cpu->dr[7] >> (2 * n) & 3;
}

static unsigned breakpoint_type(const struct cpu *cpu, unsigned n)
{
    return cpu->dr[7] >> (16 + 4 * n) & 3;
}

static unsigned breakpoint_length(const struct cpu *cpu, unsigned n)
{
    static const uint8_t lengths[4] = { 1, 2, 8, 4 };

    return lengths[cpu->dr[7] >> (18 + 4 * n) & 3];
}

/* Does the range of breakpoint n, aligned to its length, touch [address, address + size)? */
static bool breakpoint_overlaps(const struct cpu *cpu, unsigned n, uint64_t address, unsigned size)
{
    uint64_t length = breakpoint_length(cpu, n), start = cpu->dr[n] & ~(length - 1);

    return address - start < length || start - address < size;
}

void debug_update(struct cpu *cpu)
{
    cpu->data_breakpoints = cpu->code_breakpoints = cpu->io_breakpoints = false;
    cpu->checked_access = cpu->alignment_check;
    for (unsigned n = 0; n < 4; n++) {
        if (!breakpoint_enabled(cpu, n))
            continue;
        switch (breakpoint_type(cpu, n)) {
        case BREAK_EXECUTE:
            cpu->code_breakpoints = true;
            break;
        case BREAK_IO:
            cpu->io_breakpoints |= (cpu->cr4 & CR4_DE) != 0;
            break;
        default:
            cpu->data_breakpoints = cpu->checked_access = true;
        }
    }
}

uint64_t debug_check_fetch(const struct cpu *cpu, gva_t gva)
{
    uint64_t hit = 0;

    if (!cpu->code_breakpoints)
        return 0;
    for (unsigned n = 0; n < 4; n++)
        if (breakpoint_enabled(cpu, n) && breakpoint_type(cpu, n) == BREAK_EXECUTE && cpu->dr[n] == gva)
            hit |= BIT(n);
    return hit;
}

int debug_raise(struct cpu *cpu, uint64_t hit)
{
    cpu->fault = (struct fault){ .vector = VECTOR_DB, .address = hit };
    return -1;
}

void debug_check_data(struct cpu *cpu, gva_t gva, unsigned size, bool write)
{
    for (unsigned n = 0; n < 4; n++) {
        unsigned type = breakpoint_type(cpu, n);

        if (!breakpoint_enabled(cpu, n) || !(type == BREAK_ACCESS || (type == BREAK_WRITE && write)))
            continue;
        if (breakpoint_overlaps(cpu, n, gva, size))
            cpu->pending_debug |= BIT(n);
    }
}

void debug_check_io(struct cpu *cpu, uint16_t port, unsigned size)
{
    if (!cpu->io_breakpoints)
        return;
    for (unsigned n = 0; n < 4; n++)
        if (breakpoint_enabled(cpu, n) && breakpoint_type(cpu, n) == BREAK_IO &&
            breakpoint_overlaps(cpu, n, port, size))
            cpu->pending_debug |= BIT(n);
}
