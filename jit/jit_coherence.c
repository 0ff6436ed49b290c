/* Coherence of translations with memory: what writes to pages that hold translated code, and changes of the memory map, do.
 *
 * Listeners are called on whatever thread writes. What the vCPU's own thread writes takes effect at once, since the instruction
 * behind the store may be the one that was changed; the block that runs is left at its next slow path, which is the
 * store's own: pages with code have no write tags. Others queue work for the vCPU. SDM Vol. 3A 8.1.3. */
#include "jit/jit_internal.h"

static void map_changed(void *opaque)
{
    struct cpu *cpu = opaque;

    if (cpu_on_own_thread(cpu))
        jit_of(cpu)->flush_wanted = true; /* when no block is running */
    /* others: the interpreter's listener has set CPU_EVENT_FLUSH_TLB */
}

static void drop_page_code(struct cpu *cpu, void *opaque)
{
    jit_invalidate(jit_of(cpu), (gpa_t)(uintptr_t)opaque, PAGE_SIZE);
}

static void code_written(void *opaque, gpa_t gpa, uint64_t size)
{
    struct cpu *cpu = opaque;

    if (cpu_on_own_thread(cpu)) {
        jit_invalidate(jit_of(cpu), gpa, size);
        return;
    }
    for (gpa_t page = gpa & PAGE_MASK; page < gpa + size; page += PAGE_SIZE)
        if (cpu_queue_work(cpu, drop_page_code, (void *)(uintptr_t)page))
            cpu_event_set(cpu, CPU_EVENT_FLUSH_TLB);
}

void jit_listen(struct jit *jit)
{
    struct physmem_listener listener = { .map_changed = map_changed, .code_written = code_written, .opaque = jit->cpu };

    physmem_add_listener(jit->cpu->physmem, &listener);
}
