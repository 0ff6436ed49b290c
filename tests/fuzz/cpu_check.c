/* What must hold of a CPU: between instructions, and after an instruction that has faulted. */
#include "tests/common/engine.h"
#include "tests/fuzz/cpu_rig.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/xstate.h"

/* ---- Invariants ---- */

static void check_derived(const struct cpu *cpu)
{
    uint32_t cs = cpu->segs[SEG_CS].attributes;
    unsigned code_size = (cpu->msrs.efer & EFER_LMA) && (cs & SEG_ATTR_L) ? CODE64 : cs & SEG_ATTR_DB ? CODE32 : CODE16;

    FUZZ_CHECK(cpu->code_size == code_size);
    if (cpu->cpl == 3)
        FUZZ_CHECK(cpu->privilege == MMU_USER);
    else
        FUZZ_CHECK(cpu->privilege == (cpu->rflags & FLAG_AC ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR));
    FUZZ_CHECK(cpu->alignment_check == (cpu->cpl == 3 && (cpu->rflags & FLAG_AC) && (cpu->cr0 & CR0_AM)));
    FUZZ_CHECK(cpu->checked_access == (cpu->data_breakpoints || cpu->alignment_check));
    FUZZ_CHECK(cpu->cpl <= 3);
    if (!cpu_protected(cpu))
        FUZZ_CHECK(cpu->cpl == 0);
    if (cpu_v86(cpu))
        FUZZ_CHECK(cpu->cpl == 3 && cpu_protected(cpu) && !cpu_long_mode(cpu));
}

static void check_segments(const struct cpu *cpu)
{
    for (unsigned seg = 0; seg < SEG_COUNT; seg++) {
        const struct segment_register *s = &cpu->segs[seg];
        uint32_t type = s->attributes & (SEG_ATTR_UNUSABLE | SEG_ATTR_P | SEG_ATTR_S);
        bool code = s->attributes & SEG_TYPE_CODE, down = !code && (s->attributes & SEG_TYPE_EXPAND_DOWN_OR_CONFORMING);
        bool flat = !s->base && s->limit == UINT32_MAX && type == (SEG_ATTR_P | SEG_ATTR_S) &&
                    (s->attributes & SEG_TYPE_RW) && !down;

        /* Bases of FS and GS that were written alone leave it false, which is always allowed. */
        if (s->flat != flat && (s->flat || seg < SEG_FS))
            FUZZ_FAIL("segment %u: flat is %d; base %llx, limit %x, attributes %x", seg, s->flat,
                      (unsigned long long)s->base, s->limit, s->attributes);
        FUZZ_CHECK(seg >= SEG_FS || s->base <= UINT32_MAX);
        FUZZ_CHECK(is_canonical(s->base));
    }
}

static void check_control(const struct cpu *cpu)
{
    const struct paging *paging = &cpu->mmu.paging;
    bool lma = (cpu->msrs.efer & EFER_LME) && cpu_paging(cpu);

    FUZZ_CHECK(cpu->cr0 <= UINT32_MAX && !(cpu->cr0 & 0x1ffaffc0));
    FUZZ_CHECK(!cpu_paging(cpu) || cpu_protected(cpu));
    FUZZ_CHECK(!(cpu->cr0 & CR0_NW) || (cpu->cr0 & CR0_CD));
    FUZZ_CHECK(!(cpu->cr4 & ~cpu_cr4_valid(cpu)));
    FUZZ_CHECK(!(cpu->msrs.efer & ~cpu_efer_valid(cpu)));
    FUZZ_CHECK(lma == cpu_long_mode(cpu));
    FUZZ_CHECK(!lma || (cpu->cr4 & CR4_PAE));
    FUZZ_CHECK(!(cpu->cr4 & CR4_PCIDE) || lma);
    FUZZ_CHECK((cpu->xcr0 & 1) && !(cpu->xcr0 & ~cpuid_model_xcr0(cpu->model)));
    FUZZ_CHECK(!(cpu->xcr0 & 4) || (cpu->xcr0 & 2));
    FUZZ_CHECK(paging->cr0 == cpu->cr0 && paging->cr4 == cpu->cr4 && paging->efer == cpu->msrs.efer);
    FUZZ_CHECK(paging->pkru == cpu->pkru);
    FUZZ_CHECK(paging->cr3 == cpu->cr3);
}

static void check_registers(const struct cpu *cpu)
{
    FUZZ_CHECK(cpu->gpr[REG_NONE] == 0);
    FUZZ_CHECK((cpu->rflags & 0xffffffffffc0802aull) == 2);
    if (cpu->code_size != CODE64)
        FUZZ_CHECK(cpu->cpu_rip <= UINT32_MAX);
    FUZZ_CHECK(!(cpu->vector.fx.mxcsr & ~mxcsr_valid_mask()));
    FUZZ_CHECK((cpu->dr[6] & 0xffffffffffff1ff0ull) == 0xffff0ff0);
    FUZZ_CHECK((cpu->dr[7] & 0xffffffff0000dc00ull) == DR7_RESET);
    FUZZ_CHECK(cpu->activity <= CPU_SHUTDOWN);
    FUZZ_CHECK(is_canonical(cpu->msrs.lstar) && is_canonical(cpu->msrs.kernel_gs_base) &&
               is_canonical(cpu->msrs.sysenter_eip));
    FUZZ_CHECK(is_canonical(cpu->gdtr.base) && is_canonical(cpu->idtr.base) && is_canonical(cpu->tr.base) &&
               is_canonical(cpu->ldtr.base));
    FUZZ_CHECK(cpu->gdtr.limit <= 0xffff && cpu->idtr.limit <= 0xffff);
}

void cpu_check_invariants(const struct cpu *cpu)
{
    check_registers(cpu);
    check_derived(cpu);
    check_segments(cpu);
    check_control(cpu);
}

/* ---- Nothing committed ---- */

static size_t state_size(void)
{
    size_t size = 0;

    for (const struct state_field *field = cpu_state_table.fields; field->name; field++)
        size += field->size * field->count;
    return size;
}

void cpu_snapshot_create(struct cpu_snapshot *snapshot, struct cpu_rig *rig)
{
    snapshot->state = malloc(state_size());
    snapshot->memory = malloc(CPU_WATCHED);
    if (!snapshot->state || !snapshot->memory)
        FUZZ_FAIL("no memory");
    memcpy(snapshot->memory, rig->ram, CPU_WATCHED);
}

void cpu_snapshot_destroy(struct cpu_snapshot *snapshot)
{
    free(snapshot->state);
    free(snapshot->memory);
}

/* The watched pages that were written since the last call. */
static uint64_t collect(struct cpu_rig *rig, unsigned word)
{
    uint64_t bitmap[1] = { 0 };

    physmem_collect_dirty(rig->mem, word * 64 * PAGE_SIZE, 64 * PAGE_SIZE, PAGE_FLAG_DIRTY_DISPLAY, bitmap);
    return bitmap[0];
}

#define FOR_EACH_WRITTEN_PAGE(rig, page)                                                                               \
    for (unsigned word_ = 0; word_ < CPU_WATCHED / PAGE_SIZE / 64; word_++)                                            \
        for (uint64_t pages_ = collect(rig, word_), page; pages_; pages_ &= pages_ - 1)                                \
            if (page = word_ * 64 + (unsigned)__builtin_ctzll(pages_), true)

void cpu_snapshot_take(struct cpu_snapshot *snapshot, struct cpu_rig *rig)
{
    uint8_t *state = snapshot->state;

    for (const struct state_field *field = cpu_state_table.fields; field->name; field++) {
        memcpy(state, (const uint8_t *)rig->cpu + field->offset, field->size * field->count);
        state += field->size * field->count;
    }
    snapshot->code_size = rig->cpu->code_size;
    snapshot->privilege = rig->cpu->privilege;
    FOR_EACH_WRITTEN_PAGE(rig, page)
    memcpy(snapshot->memory + page * PAGE_SIZE, rig->ram + page * PAGE_SIZE, PAGE_SIZE);
}

static const char *handler_name(unsigned handler)
{
    static const char *const names[HANDLER_COUNT + 1] = {
#define HANDLER(name) [HANDLER_##name] = #name,
#include "cpu/decode/handlers.def"
#undef HANDLER
        [HANDLER_COUNT] = "(no instruction)",
    };

    return names[handler];
}

/* Architecturally, a part may be done when these fault (each element is an instruction of its own, or the SDM says that
 * the area may have been partly written). */
static bool may_be_partial(unsigned handler)
{
    switch (handler) {
    case HANDLER_gather:
    case HANDLER_scatter:
    case HANDLER_maskmov:
    case HANDLER_movs:
    case HANDLER_cmps:
    case HANDLER_scas:
    case HANDLER_lods:
    case HANDLER_stos:
    case HANDLER_ins:
    case HANDLER_outs:
    case HANDLER_fxsave:
    case HANDLER_xsave:
    case HANDLER_xsaveopt:
    case HANDLER_xsavec:
    case HANDLER_xsaves:
    case HANDLER_fnsave:
        return true;
    default:
        return false;
    }
}

/* Fields that may differ after a fault: what happens outside of the instruction, data breakpoints that were met on
 * the way, and NMI blocking, which an IRET ends even if it faults (SDM Vol. 3A 6.7.1). */
static bool field_may_differ(const char *name, unsigned handler)
{
    return !strcmp(name, "events") || !strcmp(name, "pending_debug") ||
           (!strcmp(name, "nmi_blocked") && handler == HANDLER_iret);
}

/* Of the FXSAVE image: where the last x87 instruction was, which translated code does not keep. */
static bool is_x87_pointer(size_t byte)
{
    return test_engine_is_jit() && byte >= offsetof(struct fxsave_area, fop) &&
           byte < offsetof(struct fxsave_area, mxcsr);
}

/* Bits of the FXSAVE image that may differ: SIMD exceptions set their flags and then fault, VCVTPS2PH also if its
 * store faults, and MMX instructions go over to the MMX state (TOP = 0, which renames the registers; tags valid)
 * before some faults. */
static uint8_t fx_may_differ(size_t byte, unsigned handler)
{
    size_t st = offsetof(struct fxsave_area, st);

    if (is_x87_pointer(byte))
        return 0xff;
    if (handler != HANDLER_vec && handler != HANDLER_mmx)
        return 0;
    if (byte == offsetof(struct fxsave_area, mxcsr))
        return 0x3f;
    if (byte == offsetof(struct fxsave_area, fsw) + 1)
        return 0x38;
    return byte == offsetof(struct fxsave_area, ftw) || (byte >= st && byte < st + 8 * 16) ? 0xff : 0;
}

/* Accessed and dirty bits of page tables, accessed and busy bits of descriptors. */
static bool byte_may_differ(size_t address, uint8_t old, uint8_t now)
{
    uint8_t changed = old ^ now;

    if (old & changed)
        return false; /* they are only ever set */
    return (address % 4 == 0 && !(changed & ~0x60)) || (address % 8 == 5 && !(changed & ~0x03));
}

static void check_page(struct cpu_snapshot *snapshot, struct cpu_rig *rig, size_t first, unsigned handler)
{
    /* The pushes of these become visible as they are made; they lie below the stack pointer. */
    bool pushes = handler == HANDLER_enter || handler == HANDLER_pusha;

    for (size_t i = first; i < first + PAGE_SIZE; i++) {
        uint8_t old = snapshot->memory[i], now = rig->ram[i];

        if (old != now && !pushes && !byte_may_differ(i, old, now))
            FUZZ_FAIL("%s has faulted (vector %u, error 0x%x) after changing memory at 0x%zx: 0x%x, was 0x%x",
                      handler_name(handler), rig->cpu->fault.vector, rig->cpu->fault.error, i, now, old);
        snapshot->memory[i] = now;
    }
}

static void check_field(const struct state_field *field, const uint8_t *old, const struct cpu *cpu, unsigned handler)
{
    const uint8_t *now = (const uint8_t *)cpu + field->offset;

    bool fx = !strcmp(field->name, "fx");

    if (!memcmp(old, now, field->size * field->count) || field_may_differ(field->name, handler))
        return;
    for (size_t i = 0; i < field->size * field->count; i++) {
        if ((old[i] ^ now[i]) & ~(fx ? fx_may_differ(i, handler) : 0))
            FUZZ_FAIL("%s has faulted (vector %u, error 0x%x) after changing %s: byte %zu is 0x%x, was 0x%x",
                      handler_name(handler), cpu->fault.vector, cpu->fault.error, field->name, i, now[i], old[i]);
    }
}

void cpu_snapshot_check(struct cpu_snapshot *snapshot, struct cpu_rig *rig, unsigned handler)
{
    const struct cpu *cpu = rig->cpu;
    const uint8_t *state = snapshot->state;

    if (may_be_partial(handler))
        return;
    for (const struct state_field *field = cpu_state_table.fields; field->name; field++) {
        check_field(field, state, cpu, handler);
        state += field->size * field->count;
    }
    FUZZ_CHECK(cpu->code_size == snapshot->code_size && cpu->privilege == snapshot->privilege);
    FOR_EACH_WRITTEN_PAGE(rig, page)
    check_page(snapshot, rig, page * PAGE_SIZE, handler);
}

/* ---- The same ---- */

static void check_same_field(const struct state_field *field, const struct cpu *a, const struct cpu *b)
{
    const uint8_t *x = (const uint8_t *)a + field->offset, *y = (const uint8_t *)b + field->offset;

    if (!strcmp(field->name, "events"))
        return;
    for (size_t i = 0; i < field->size * field->count; i++) {
        if (x[i] != y[i] && !(!strcmp(field->name, "fx") && is_x87_pointer(i)))
            FUZZ_FAIL("%s differs at byte %zu: 0x%x and 0x%x; at %04x:%llx and %04x:%llx", field->name, i, x[i], y[i],
                      a->segs[SEG_CS].selector, (unsigned long long)a->cpu_rip, b->segs[SEG_CS].selector,
                      (unsigned long long)b->cpu_rip);
    }
}

/* Accessed bits may also come from looking ahead: bytes fetched beyond the end of an instruction. Dirty bits, from a block of
 * translated code that ends right before its store, having looked the page up. */
static bool is_accessed_bit(size_t address, uint8_t x, uint8_t y)
{
    unsigned bits = test_engine_is_jit() ? 0x60 : 0x20;

    return address >= CPU_TABLES && address < CPU_VARIED && address % 4 == 0 && !((x ^ y) & ~bits);
}

static void check_same_pages(struct cpu_rig *a, struct cpu_rig *b, struct cpu_rig *written)
{
    FOR_EACH_WRITTEN_PAGE(written, page)
    for (size_t i = page * PAGE_SIZE; i < (page + 1) * PAGE_SIZE; i++) {
        if (a->ram[i] != b->ram[i] && !is_accessed_bit(i, a->ram[i], b->ram[i]))
            FUZZ_FAIL("memory at 0x%zx differs: 0x%x and 0x%x; at %llx", i, a->ram[i], b->ram[i],
                      (unsigned long long)a->cpu->cpu_rip);
    }
}

void cpu_check_same(struct cpu_rig *a, struct cpu_rig *b, bool memory)
{
    for (const struct state_field *field = cpu_state_table.fields; field->name; field++)
        check_same_field(field, a->cpu, b->cpu);
    if (memory) {
        check_same_pages(a, b, a);
        check_same_pages(a, b, b);
    }
}
