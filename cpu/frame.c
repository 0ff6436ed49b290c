/* The stacks of control transfers: what interrupts, far calls and their kin push, written as a whole or not at all,
 * and the inner stacks that the TSS names. SDM Vol. 3A 5.8.5, 6.12.1, 6.14.4, 8.2.1, 8.7. vCPU thread only. */
#include <string.h>

#include "cpu/system_internal.h"

void frame_push(struct frame *frame, uint64_t word)
{
    frame->words[frame->count++] = word;
}

struct frame frame_current(const struct cpu *cpu, unsigned width)
{
    return (struct frame){
        .ss = cpu->segs[SEG_SS],
        .sp = cpu->gpr[REG_RSP],
        .flat64 = code64(cpu),
        .cpl = cpu->cpl,
        .width = width,
    };
}

static enum mmu_privilege frame_privilege(const struct cpu *cpu, const struct frame *frame)
{
    if (frame->cpl == 3)
        return MMU_USER;
    return cpu->rflags & FLAG_AC ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR;
}

static bool wide_stack(const struct frame *frame)
{
    return frame->ss.attributes & SEG_ATTR_DB;
}

/* Where word i goes. */
static int word_address(struct cpu *cpu, const struct frame *frame, unsigned i, uint32_t ss_error, gva_t *gva)
{
    uint64_t address = frame->sp - (uint64_t)(i + 1) * frame->width;
    uint32_t offset;

    if (frame->flat64) {
        if (!is_canonical(address) || !is_canonical(address + frame->width - 1))
            return raise_fault(cpu, VECTOR_SS, ss_error);
        *gva = address;
        return 0;
    }
    offset = wide_stack(frame) ? (uint32_t)address : (uint16_t)address;
    if (!segment_contains(&frame->ss, offset, frame->width))
        return raise_fault(cpu, VECTOR_SS, ss_error);
    *gva = (uint32_t)(frame->ss.base + offset);
    return 0;
}

/* The usual case: the words are contiguous and one write does it. */
static int write_contiguous(struct cpu *cpu, const struct frame *frame, gva_t lowest)
{
    uint8_t bytes[64];

    for (unsigned i = 0; i < frame->count; i++)
        memcpy(bytes + (frame->count - 1 - i) * frame->width, &frame->words[i], frame->width);
    return mem_write_linear(cpu, lowest, bytes, frame->count * frame->width, frame_privilege(cpu, frame), true);
}

int frame_write(struct cpu *cpu, const struct frame *frame, uint32_t ss_error, uint64_t *sp)
{
    enum mmu_privilege privilege = frame_privilege(cpu, frame);
    gva_t addresses[ARRAY_SIZE(frame->words)];
    unsigned count = frame->count, bytes = count * frame->width;

    if (!count) {
        *sp = frame->sp;
        return 0;
    }
    for (unsigned i = 0; i < count; i++)
        if (word_address(cpu, frame, i, ss_error, &addresses[i]) < 0)
            return -1;
    *sp = frame->sp - bytes;
    if (bytes <= 64 && addresses[0] - addresses[count - 1] == bytes - frame->width &&
        write_contiguous(cpu, frame, addresses[count - 1]) == 0)
        return 0;
    /* Wraps around the end of the stack segment, or is a call gate's long parameter list; or faults, and then CR2 is
     * of the first word that does, in the order of the pushes. */
    for (unsigned i = 0; i < count; i++)
        if (mem_probe_write_linear(cpu, addresses[i], frame->width, privilege, true) < 0)
            return -1;
    for (unsigned i = 0; i < count; i++)
        if (mem_write_linear(cpu, addresses[i], &frame->words[i], frame->width, privilege, true) < 0)
            return -1;
    return 0;
}

void frame_set_sp(struct cpu *cpu, uint64_t sp)
{
    uint64_t *rsp = &cpu->gpr[REG_RSP];

    if (code64(cpu))
        *rsp = sp;
    else if (cpu->segs[SEG_SS].attributes & SEG_ATTR_DB)
        *rsp = (uint32_t)sp;
    else
        *rsp = (*rsp & ~0xffffull) | (uint16_t)sp;
}

/* ---- Inner stacks ---- */

static int bad_tss(struct cpu *cpu, unsigned ext)
{
    return raise_fault(cpu, VECTOR_TS, selector_error(cpu->tr.selector, ext));
}

/* The checks of SS in a stack switch to privilege `dpl` (SDM Vol. 3A 5.8.5: all of them #TS, but absence). */
static int check_inner_ss(struct cpu *cpu, uint16_t selector, unsigned dpl, unsigned ext, struct segment_register *ss)
{
    struct descriptor d;
    int result;

    if (!(selector & 0xfffc))
        return raise_fault(cpu, VECTOR_TS, ext);
    result = descriptor_read(cpu, selector, false, &d);
    if (result < 0)
        return -1;
    if (result || (selector & 3u) != dpl || !descriptor_writable(&d) || descriptor_dpl(&d) != dpl)
        return raise_fault(cpu, VECTOR_TS, selector_error(selector, ext));
    if (!descriptor_present(&d))
        return raise_fault(cpu, VECTOR_SS, selector_error(selector, ext));
    if (descriptor_set_accessed(cpu, &d) < 0)
        return -1;
    *ss = descriptor_segment(&d, selector);
    return 0;
}

int frame_inner_stack(struct cpu *cpu, unsigned dpl, unsigned ext, struct segment_register *ss, uint64_t *sp)
{
    unsigned type = cpu->tr.attributes & SEG_ATTR_TYPE;
    bool wide = type == SYS_TSS || type == SYS_TSS_BUSY;
    unsigned offset = wide ? 4 + dpl * 8 : 2 + dpl * 4, size = wide ? 6 : 4;
    uint8_t bytes[6] = { 0 };
    uint32_t pointer = 0;
    uint16_t selector;

    if ((cpu->tr.attributes & SEG_ATTR_UNUSABLE) || offset + size - 1 > cpu->tr.limit)
        return bad_tss(cpu, ext);
    if (system_read(cpu, (uint32_t)(cpu->tr.base + offset), bytes, size) < 0)
        return -1;
    memcpy(&pointer, bytes, size - 2);
    memcpy(&selector, bytes + size - 2, 2);
    *sp = pointer;
    return check_inner_ss(cpu, selector, dpl, ext, ss);
}

int frame_stack64(struct cpu *cpu, unsigned index, unsigned ext, uint64_t *sp)
{
    unsigned offset = 4 + index * 8;

    if ((cpu->tr.attributes & SEG_ATTR_UNUSABLE) || offset + 7 > cpu->tr.limit)
        return bad_tss(cpu, ext);
    if (system_read(cpu, cpu->tr.base + offset, sp, 8) < 0)
        return -1;
    if (!is_canonical(*sp))
        return raise_fault(cpu, VECTOR_SS, ext);
    return 0;
}
