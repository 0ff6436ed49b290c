/* Wiring of interrupt lines to the two kinds of controller. Device lock held. */
#include "devices/irq/isa_irq.h"

#define CASCADE          2
#define IOAPIC_TIMER_PIN 2

static void set_isa_irq(void *opaque, unsigned n, bool level)
{
    struct isa_irq_router *router = opaque;

    if (n == CASCADE)
        return; /* no such line on the ISA bus; pin 2 belongs to interrupt 0 */
    if (router->pic)
        pic_set_irq(router->pic, n, level);
    if (router->ioapic)
        ioapic_set_irq(router->ioapic, n == 0 ? IOAPIC_TIMER_PIN : n, level);
}

void isa_irq_wire(struct isa_irq_router *router, struct device_env *env, struct pic *pic, struct ioapic *ioapic)
{
    *router = (struct isa_irq_router){ .pic = pic, .ioapic = ioapic };
    for (unsigned n = 0; n < ARRAY_SIZE(env->isa_irq); n++)
        env->isa_irq[n] = (struct irq_line){ .set = set_isa_irq, .opaque = router, .n = n };
    for (unsigned n = 0; n < ARRAY_SIZE(env->gsi); n++)
        env->gsi[n] = (struct irq_line){ .set = ioapic_set_irq, .opaque = ioapic, .n = n };
}

static void set_source(void *opaque, unsigned n, bool level)
{
    struct irq_or *combine = opaque;
    uint64_t sources = level ? combine->sources | BIT(n) : combine->sources & ~BIT(n);
    bool change = !sources != !combine->sources;

    combine->sources = sources;
    if (change)
        irq_line_set(&combine->out, sources != 0);
}

struct irq_line irq_or_input(struct irq_or *combine, unsigned n)
{
    return (struct irq_line){ .set = set_source, .opaque = combine, .n = n & 63 };
}
