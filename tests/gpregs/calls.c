/* See calls.h. */
#include "tests/gpregs/calls.h"

#include <string.h>

void call_translate(void *opaque)
{
    struct call *call = opaque;
    call->result =
        mmu_translate(&call->cpu->mmu, call->gva, call->access, call->privilege, &call->target, &call->fault);
}

void call_deliver_exception(void *opaque)
{
    struct call *call = opaque;
    call->step = cpu_deliver_exception(call->cpu);
}

void call_deliver_interrupt(void *opaque)
{
    struct call *call = opaque;
    call->step = cpu_deliver_interrupt(call->cpu, call->vector);
}

void call_handle_events(void *opaque)
{
    struct call *call = opaque;
    call->step = cpu_handle_events(call->cpu);
}

void call_load_segment(void *opaque)
{
    struct call *call = opaque;
    call->result = cpu_load_segment(call->cpu, call->segment, call->selector);
}

void call_code_acquire(void *opaque)
{
    struct call *call = opaque;
    physmem_code_acquire(call->mem, call->gva);
}

void call_code_release(void *opaque)
{
    struct call *call = opaque;
    physmem_code_release(call->mem, call->gva);
}

void call_written(void *opaque)
{
    struct call *call = opaque;
    physmem_written(call->mem, call->gva, call->size);
}

void call_read(void *opaque)
{
    struct call *call = opaque;
    uint8_t buffer[64];
    call->result = mem_read_linear(call->cpu, call->gva, buffer, call->size, call->privilege, false);
    memcpy(&call->value, buffer, sizeof(call->value));
}

void call_write(void *opaque)
{
    struct call *call = opaque;
    uint8_t buffer[64];
    memset(buffer, (int)call->value, sizeof(buffer));
    call->result = mem_write_linear(call->cpu, call->gva, buffer, call->size, call->privilege, false);
}

void call_mmio_read(void *opaque)
{
    struct call *call = opaque;
    call->value = physmem_mmio_read(call->mem, call->gva, call->size);
}

void call_mmio_write(void *opaque)
{
    struct call *call = opaque;
    physmem_mmio_write(call->mem, call->gva, call->size, call->value);
}

void call_flush_all(void *opaque)
{
    struct call *call = opaque;
    mmu_flush_all(&call->cpu->mmu);
}

void call_run_pending(void *opaque)
{
    struct call *call = opaque;
    mmu_run_pending(&call->cpu->mmu);
}

void call_log(void *opaque)
{
    struct call *call = opaque;
    log_event(exec, "%p\n", (void *)call);
}

void call_warn(void *opaque)
{
    (void)opaque;
    log_warn("a test, not a problem");
}

void call_step(void *opaque)
{
    struct call *call = opaque;
    call->step = interp_step_no_deliver(call->cpu);
}

void call_step_block(void *opaque)
{
    struct call *call = opaque;
    call->step = interp_step_block(call->cpu);
}

struct large {
    uint64_t words[200];
};

static __attribute__((noinline)) void copy_large(struct large *to, const struct large *from)
{
    *to = *from;
}

static __attribute__((noinline)) void clear_large(struct large *large)
{
    *large = (struct large){ 0 };
}

void call_memory(void *opaque)
{
    struct call *call = opaque;
    struct large a, b;

    for (size_t size = 0; size < sizeof(a); size = size * 2 + 1) {
        memset(&a, (int)size, size);
        memcpy(&b, &a, size);
        memmove((uint8_t *)&b + 1, &b, size);
        call->result |= size && memcmp((uint8_t *)&b + 1, &a, size);
    }
    clear_large(&a);
    copy_large(&b, &a);
    call->result |= memcmp(&a, &b, sizeof(a));
}
