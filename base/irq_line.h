/* An interrupt line: where a device's output goes. Level semantics; an edge is
 * raise + lower. Called with the device lock held. */
#ifndef EIDOLON_BASE_IRQ_LINE_H
#define EIDOLON_BASE_IRQ_LINE_H

#include "base/types.h"

struct irq_line {
    void (*set)(void *opaque, unsigned n, bool level);
    void *opaque;
    unsigned n;
};

static inline void irq_line_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->opaque, line->n, level);
}

static inline void irq_line_pulse(const struct irq_line *line)
{
    irq_line_set(line, true);
    irq_line_set(line, false);
}

#endif
