/* FXSAVE, FXRSTOR and the XSAVE family: the guest's state to and from areas in guest memory.
 *
 * Everything is copied from and to struct vector_state; the host's own XSAVE is never used, so that no host state
 * can reach a guest buffer (design, 6a.17). Which components exist, and where, is cpu/xstate.def; what may be
 * touched is bounded by the guest's XCR0 and XSS. XINUSE is computed from values: a component is in its
 * initial configuration if it holds the initial values. The modified optimisation is not used.
 *
 * Stores check that all bytes may be written before they write the first. Loads read everything and
 * check it before they change anything.
 * vCPU thread only. SDM Vol. 1 10.5 (FXSAVE) and chapter 13 (XSAVE). */
#include <string.h>

#include "cpu/interp/interp_fast.h"
#include "cpu/interp/interp_hostop.h"
#include "cpu/xstate.h"

enum { CR0_EM = 1 << 2, CR0_TS = 1 << 3, CR4_OSXSAVE = 1 << 18 };

/* ---- Components (cpu/xstate.h) ---- */

const struct xstate_component xstate_components[] = {
#define XSTATE_COMPONENT(bit, name, offset, size, supervisor, align64) { bit, supervisor, align64, offset, size },
#include "cpu/xstate.def"
#undef XSTATE_COMPONENT
    { 0 },
};

const struct xstate_component *xstate_component(unsigned bit)
{
    for (const struct xstate_component *c = xstate_components; c->size; c++)
        if (c->bit == bit)
            return c;
    return NULL;
}

unsigned xstate_standard_size(uint64_t mask)
{
    unsigned size = XSAVE_EXTENDED_OFFSET;
    for (const struct xstate_component *c = xstate_components; c->size; c++)
        if (mask >> c->bit & 1 && c->bit >= 2 && !c->supervisor)
            size = MAX(size, (unsigned)c->offset + c->size);
    return size;
}

unsigned xstate_compacted_offset(uint64_t mask, unsigned bit)
{
    unsigned offset = XSAVE_EXTENDED_OFFSET;
    for (const struct xstate_component *c = xstate_components; c->size && c->bit <= bit; c++) {
        if (c->bit < 2 || !(mask >> c->bit & 1))
            continue;
        if (c->align64)
            offset = (unsigned)ALIGN_UP(offset, 64);
        if (c->bit == bit)
            break;
        offset += c->size;
    }
    return offset;
}

unsigned xstate_compacted_size(uint64_t mask)
{
    unsigned size = XSAVE_EXTENDED_OFFSET;
    for (const struct xstate_component *c = xstate_components; c->size; c++)
        if (c->bit >= 2 && mask >> c->bit & 1)
            size = xstate_compacted_offset(mask, c->bit) + c->size;
    return size;
}

/* ---- Areas of memory ---- */

static unsigned piece_size(gva_t gva, unsigned size, unsigned limit)
{
    unsigned in_page = (unsigned)(PAGE_SIZE - (gva & ~PAGE_MASK));
    return MIN(MIN(size, in_page), limit);
}

int area_read(struct cpu *cpu, gva_t gva, void *buffer, unsigned size, bool stack)
{
    for (uint8_t *bytes = buffer; size;) {
        unsigned piece = piece_size(gva, size, PAGE_SIZE);
        const uint8_t *host = fast_read(cpu, gva, piece);
        if (host) {
            memcpy(bytes, host, piece);
        } else {
            piece = piece_size(gva, size, 64);
            if (mem_read_linear(cpu, gva, bytes, piece, cpu->privilege, stack))
                return -1;
        }
        bytes += piece, gva += piece, size -= piece;
    }
    return 0;
}

int area_touch(struct cpu *cpu, gva_t gva, unsigned size, bool write, bool stack)
{
    uint8_t bytes[64];
    return write ? mem_probe_write_linear(cpu, gva, size, cpu->privilege, stack)
                 : mem_read_linear(cpu, gva, bytes, size, cpu->privilege, stack);
}

int area_probe_write(struct cpu *cpu, gva_t gva, unsigned size, bool stack)
{
    while (size) {
        unsigned piece = piece_size(gva, size, PAGE_SIZE);
        if (!fast_write(cpu, gva, piece) && mem_probe_write_linear(cpu, gva, piece, cpu->privilege, stack))
            return -1;
        gva += piece, size -= piece;
    }
    return 0;
}

int area_write(struct cpu *cpu, gva_t gva, const void *buffer, unsigned size, bool stack)
{
    if (area_probe_write(cpu, gva, size, stack))
        return -1;
    for (const uint8_t *bytes = buffer; size;) {
        unsigned piece = piece_size(gva, size, PAGE_SIZE);
        uint8_t *host = fast_write(cpu, gva, piece);
        if (host) {
            memcpy(host, bytes, piece);
        } else {
            piece = piece_size(gva, size, 64);
            if (mem_write_linear(cpu, gva, bytes, piece, cpu->privilege, stack))
                return -1;
        }
        bytes += piece, gva += piece, size -= piece;
    }
    return 0;
}

/* ---- The legacy region ---- */

enum { LEGACY_ST = 32, LEGACY_MXCSR = 24, LEGACY_XMM = 160 };

static bool rex_w(const struct iop *op)
{
    return op->insn.rex & 8;
}

/* Registers 8 to 15 (and what belongs to them) exist in 64-bit mode only; outside it their part of an area
 * is neither written nor read. */
static unsigned vector_count(const struct iop *op)
{
    return op->insn.code_size == CODE64 ? 16 : 8;
}

/* Bytes 0 to 23 and 32 to 159. FCS and FDS are zero in the 32-bit form of the pointers. */
static void x87_to_image(const struct fxsave_area *fx, bool wide_pointers, uint8_t *image)
{
    struct fxsave_area head = { .fcw = fx->fcw,
                                .fsw = fx->fsw,
                                .ftw = fx->ftw,
                                .fop = fx->fop & 0x7ff,
                                .fip = wide_pointers ? fx->fip : (uint32_t)fx->fip,
                                .fdp = wide_pointers ? fx->fdp : (uint32_t)fx->fdp };
    memcpy(image, &head, LEGACY_MXCSR);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(image + LEGACY_ST + 16 * i, fx->st[i], 10);
        memset(image + LEGACY_ST + 16 * i + 10, 0, 6);
    }
}

static void x87_from_image(struct fxsave_area *fx, bool wide_pointers, const uint8_t *image)
{
    struct fxsave_area head;
    memcpy(&head, image, LEGACY_MXCSR);
    fx->fcw = x87_control_word(head.fcw);
    fx->fsw = head.fsw;
    fx->ftw = head.ftw;
    fx->fop = head.fop & 0x7ff;
    fx->fip = wide_pointers ? head.fip : (uint32_t)head.fip;
    fx->fdp = wide_pointers ? head.fdp : (uint32_t)head.fdp;
    for (unsigned i = 0; i < 8; i++) {
        memcpy(fx->st[i], image + LEGACY_ST + 16 * i, 10);
        memset(fx->st[i] + 10, 0, 6);
    }
    x87_update_summary(fx);
}

static void x87_initial(struct fxsave_area *fx)
{
    memset(fx, 0, LEGACY_MXCSR);
    memset(fx->st, 0, sizeof(fx->st));
    fx->fcw = FCW_FNINIT;
}

static bool x87_is_initial(const struct fxsave_area *fx)
{
    struct fxsave_area initial = { .fcw = FCW_FNINIT };
    return !memcmp(fx, &initial, LEGACY_MXCSR) && !memcmp(fx->st, initial.st, sizeof(initial.st));
}

static void mxcsr_to_image(const struct fxsave_area *fx, uint8_t *image)
{
    memcpy(image + LEGACY_MXCSR, &fx->mxcsr, 4);
    memcpy(image + LEGACY_MXCSR + 4, &fx->mxcsr_mask, 4);
}

static uint32_t mxcsr_of_image(const uint8_t *image)
{
    uint32_t mxcsr;
    memcpy(&mxcsr, image + LEGACY_MXCSR, 4);
    return mxcsr;
}

/* ---- Components 1 and up: all are slices of registers ---- */

/* Component `bit` is `count` slices of `width` bytes: bytes `from` up of vec[first + i], or mask[i], or PKRU. */
struct slices {
    uint8_t first, count, from, width;
};

static struct slices component_slices(const struct iop *op, unsigned bit)
{
    uint8_t count = (uint8_t)vector_count(op);
    switch (bit) {
    case 1:
        return (struct slices){ 0, count, 0, 16 };
    case 2:
        return (struct slices){ 0, count, 16, 16 };
    case 6:
        return (struct slices){ 0, count, 32, 32 };
    case 7:
        return (struct slices){ 16, op->insn.code_size == CODE64 ? 16 : 0, 0, 64 };
    case 5:
        return (struct slices){ 0, 8, 0, 8 };
    case 9:
        return (struct slices){ 0, 1, 0, 8 };
    default:
        return (struct slices){ 0 };
    }
}

static uint8_t *slice(struct vector_state *state, unsigned bit, const struct slices *slices, unsigned i)
{
    return bit == 5 ? (uint8_t *)&state->mask[i] : state->vec[slices->first + i] + slices->from;
}

static void component_to_image(const struct cpu *cpu, const struct iop *op, unsigned bit, uint8_t *image)
{
    struct slices slices = component_slices(op, bit);
    if (bit == 9) {
        uint64_t pkru = cpu->pkru;
        memcpy(image, &pkru, 8);
        return;
    }
    for (unsigned i = 0; i < slices.count; i++)
        memcpy(image + i * slices.width, slice((struct vector_state *)&cpu->vector, bit, &slices, i), slices.width);
}

/* image == NULL: the initial configuration, zeros */
static void component_from_image(struct cpu *cpu, const struct iop *op, unsigned bit, const uint8_t *image)
{
    struct slices slices = component_slices(op, bit);
    if (bit == 9) {
        uint32_t pkru = 0;
        if (image)
            memcpy(&pkru, image, 4);
        cpu_set_pkru(cpu, pkru);
        return;
    }
    for (unsigned i = 0; i < slices.count; i++) {
        if (image)
            memcpy(slice(&cpu->vector, bit, &slices, i), image + i * slices.width, slices.width);
        else
            memset(slice(&cpu->vector, bit, &slices, i), 0, slices.width);
    }
}

static bool component_is_initial(const struct cpu *cpu, const struct iop *op, unsigned bit)
{
    static const uint8_t zeros[64];
    struct slices slices = component_slices(op, bit);
    if (bit == 0)
        return x87_is_initial(&cpu->vector.fx);
    if (bit == 9)
        return !cpu->pkru;
    for (unsigned i = 0; i < slices.count; i++)
        if (memcmp(slice((struct vector_state *)&cpu->vector, bit, &slices, i), zeros, slices.width))
            return false;
    return true;
}

static uint64_t components_in_use(const struct cpu *cpu, const struct iop *op, uint64_t mask)
{
    uint64_t in_use = 0;
    for (const struct xstate_component *c = xstate_components; c->size; c++)
        if (mask >> c->bit & 1 && !component_is_initial(cpu, op, c->bit))
            in_use |= 1ull << c->bit;
    return in_use;
}

/* ---- FXSAVE, FXRSTOR ---- */

/* #UD, #NM, address, alignment; 0 or -1. */
static int fxsave_address(struct cpu *cpu, const struct iop *op, bool write, gva_t *gva)
{
    if (!cpu_has(cpu, op->insn.row->feature))
        return raise_fault(cpu, VECTOR_UD, 0);
    if (cpu->cr0 & (CR0_EM | CR0_TS)) /* SDM Vol. 2A FXSAVE: EM too is #NM here, though these save SSE state */
        return raise_fault(cpu, VECTOR_NM, 0);
    if (op_address(cpu, op, XSAVE_LEGACY_SIZE, write, gva))
        return -1;
    if (unlikely(cpu->alignment_check) && *gva & 3) /* SDM Vol. 2A FXSAVE: #AC or #GP, the host's choice */
        return raise_fault(cpu, VECTOR_AC, 0);
    if (*gva & 15)
        return raise_fault(cpu, VECTOR_GP, 0);
    return area_touch(cpu, *gva + XSAVE_LEGACY_SIZE - 1, 1, write, op_uses_stack_segment(op)); /* as processors do */
}

/* Bytes 464 to 511 are software's and 416 to 463 reserved: not written. */
enum step interp_fxsave(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    uint8_t image[XSAVE_LEGACY_SIZE];
    gva_t gva;
    if (fxsave_address(cpu, op, true, &gva))
        return STEP_FAULT;
    x87_to_image(&cpu->vector.fx, rex_w(op), image);
    mxcsr_to_image(&cpu->vector.fx, image);
    component_to_image(cpu, op, 1, image + LEGACY_XMM);
    if (area_write(cpu, gva, image, LEGACY_XMM + 16 * vector_count(op), op_uses_stack_segment(op)))
        return STEP_FAULT;
    return STEP_NEXT;
}

enum step interp_fxrstor(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    uint8_t image[XSAVE_LEGACY_SIZE];
    gva_t gva;
    if (fxsave_address(cpu, op, false, &gva) || area_read(cpu, gva, image, sizeof(image), op_uses_stack_segment(op)))
        return STEP_FAULT;
    if (mxcsr_of_image(image) & ~cpu->vector.fx.mxcsr_mask)
        return step_fault(cpu, VECTOR_GP, 0);
    x87_from_image(&cpu->vector.fx, rex_w(op), image);
    cpu->vector.fx.mxcsr = mxcsr_of_image(image);
    component_from_image(cpu, op, 1, image + LEGACY_XMM);
    return STEP_NEXT;
}

/* ---- Saving ---- */

/* One execution: which components, and where they go. */
struct xsave {
    gva_t gva;
    bool stack, compacted;
    uint64_t requested; /* RFBM */
    uint64_t written;   /* components whose bytes are written: requested, less what the init optimisation saves */
    uint64_t header[2]; /* XSTATE_BV, XCOMP_BV */
    uint8_t image[XSAVE_MAX_SIZE];
};

static uint64_t instruction_mask(const struct cpu *cpu)
{
    return cpu->gpr[REG_RDX] << 32 | (uint32_t)cpu->gpr[REG_RAX];
}

static unsigned component_offset(uint64_t compacted_mask, bool compacted, const struct xstate_component *c)
{
    return compacted && c->bit >= 2 ? xstate_compacted_offset(compacted_mask, c->bit) : c->offset;
}

/* The checks of all XSAVE and XRSTOR forms; `supervisor`: XSAVES, XRSTORS. 0 or -1. */
static int xsave_address(struct cpu *cpu, const struct iop *op, bool supervisor, bool write, unsigned size, gva_t *gva)
{
    if (!cpu_has(cpu, op->insn.row->feature) || !(cpu->cr4 & CR4_OSXSAVE))
        return raise_fault(cpu, VECTOR_UD, 0);
    if (cpu->cr0 & CR0_TS)
        return raise_fault(cpu, VECTOR_NM, 0);
    if (supervisor && cpu->cpl)
        return raise_fault(cpu, VECTOR_GP, 0);
    if (op_address(cpu, op, size, write, gva))
        return -1;
    return *gva & 63 ? raise_fault(cpu, VECTOR_GP, 0) : 0;
}

/* Walks the ranges of the area that are written, in ascending order; `write` false: only checks them. */
static int xsave_ranges(struct cpu *cpu, const struct iop *op, const struct xsave *save, bool write)
{
    struct {
        unsigned offset, size;
    } ranges[16];
    unsigned count = 0;
    bool sse = save->written & XSTATE_BIT_SSE;
    /* MXCSR: with SSE in the compacted format; with SSE or AVX requested in the standard one (13.7, 13.9) */
    bool mxcsr = save->compacted ? sse : save->requested & (XSTATE_BIT_SSE | XSTATE_BIT_AVX);
    if (save->written & XSTATE_BIT_X87) {
        ranges[count].offset = 0, ranges[count++].size = LEGACY_MXCSR;
        ranges[count].offset = LEGACY_ST, ranges[count++].size = 128;
    }
    if (mxcsr)
        ranges[count].offset = LEGACY_MXCSR, ranges[count++].size = 8;
    if (sse)
        ranges[count].offset = LEGACY_XMM, ranges[count++].size = 16 * vector_count(op);
    ranges[count].offset = XSAVE_LEGACY_SIZE, ranges[count++].size = save->compacted ? 16 : 8;
    for (const struct xstate_component *c = xstate_components; c->size; c++) {
        struct slices slices = component_slices(op, c->bit);
        if (c->bit >= 2 && save->written >> c->bit & 1) {
            ranges[count].offset = component_offset(save->requested, save->compacted, c);
            ranges[count++].size = slices.count * slices.width;
        }
    }
    for (unsigned i = 0; i < count; i++) {
        gva_t gva = save->gva + ranges[i].offset;
        if (write ? area_write(cpu, gva, save->image + ranges[i].offset, ranges[i].size, save->stack)
                  : area_probe_write(cpu, gva, ranges[i].size, save->stack))
            return -1;
    }
    return 0;
}

static enum step xsave_store(struct cpu *cpu, const struct iop *op, struct xsave *save)
{
    if (xsave_ranges(cpu, op, save, false))
        return STEP_FAULT;
    x87_to_image(&cpu->vector.fx, rex_w(op), save->image);
    mxcsr_to_image(&cpu->vector.fx, save->image);
    memcpy(save->image + XSAVE_LEGACY_SIZE, save->header, sizeof(save->header));
    for (const struct xstate_component *c = xstate_components; c->size; c++)
        if (c->bit && save->written >> c->bit & 1)
            component_to_image(cpu, op, c->bit, save->image + component_offset(save->requested, save->compacted, c));
    return xsave_ranges(cpu, op, save, true) ? STEP_FAULT : STEP_NEXT;
}

/* XSAVE, XSAVEOPT (SDM Vol. 1 13.7, 13.9): standard format; XSTATE_BV keeps its bits outside RFBM. */
static enum step save_standard(struct cpu *cpu, const struct iop *op, bool optimised)
{
    struct xsave save = { .requested = cpu->xcr0 & instruction_mask(cpu), .stack = op_uses_stack_segment(op) };
    uint64_t in_use, old;
    if (xsave_address(cpu, op, false, true, xstate_standard_size(save.requested), &save.gva) ||
        mem_read_linear(cpu, save.gva + XSAVE_LEGACY_SIZE, &old, 8, cpu->privilege, save.stack))
        return STEP_FAULT;
    in_use = components_in_use(cpu, op, save.requested);
    save.written = optimised ? in_use : save.requested;
    save.header[0] = (old & ~save.requested) | in_use;
    return xsave_store(cpu, op, &save);
}

/* XSAVEC, XSAVES (13.10, 13.11): compacted format; only components in use are written. */
static enum step save_compacted(struct cpu *cpu, const struct iop *op, bool supervisor)
{
    uint64_t enabled = cpu->xcr0 | (supervisor ? cpu->msrs.xss : 0);
    struct xsave save = { .requested = enabled & instruction_mask(cpu),
                          .compacted = true,
                          .stack = op_uses_stack_segment(op) };
    if (xsave_address(cpu, op, supervisor, true, xstate_compacted_size(save.requested), &save.gva))
        return STEP_FAULT;
    save.written = components_in_use(cpu, op, save.requested);
    if (save.requested & XSTATE_BIT_SSE && cpu->vector.fx.mxcsr != MXCSR_RESET)
        save.written |= XSTATE_BIT_SSE;
    save.header[0] = save.written;
    save.header[1] = save.requested | XCOMP_BV_COMPACTED;
    return xsave_store(cpu, op, &save);
}

enum step interp_xsave(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    return save_standard(cpu, op, false);
}

enum step interp_xsaveopt(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    return save_standard(cpu, op, true);
}

enum step interp_xsavec(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    return save_compacted(cpu, op, false);
}

enum step interp_xsaves(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    return save_compacted(cpu, op, true);
}

/* ---- Restoring ---- */

struct xrstor {
    gva_t gva;
    bool stack, compacted;
    uint64_t enabled;   /* XCR0, and XSS for XRSTORS */
    uint64_t requested; /* RFBM */
    uint64_t xstate_bv, xcomp_bv;
    uint8_t image[XSAVE_MAX_SIZE];
};

/* Reads and checks the header: 0 or -1 (SDM Vol. 1 13.8, 13.12). */
static int xrstor_header(struct cpu *cpu, struct xrstor *load, bool supervisor)
{
    uint64_t header[8];
    if (area_read(cpu, load->gva + XSAVE_LEGACY_SIZE, header, sizeof(header), load->stack))
        return -1;
    load->xstate_bv = header[0];
    load->xcomp_bv = header[1];
    load->compacted = header[1] & XCOMP_BV_COMPACTED;
    uint64_t reserved = header[2];
    if (load->compacted) {
        uint64_t components = load->xcomp_bv & ~XCOMP_BV_COMPACTED;
        reserved |= header[3] | header[4] | header[5] | header[6] | header[7];
        reserved |= components & ~load->enabled;
        reserved |= load->xstate_bv & ~components;
        if (!supervisor && !cpu_has(cpu, FEATURE_XSAVEC))
            reserved = 1;
    } else {
        reserved |= header[1] | (load->xstate_bv & ~load->enabled);
        if (supervisor)
            reserved = 1;
    }
    return reserved ? raise_fault(cpu, VECTOR_GP, 0) : 0;
}

/* Whether component c is loaded from memory; else it takes its initial configuration. */
static bool from_memory(const struct xrstor *load, const struct xstate_component *c)
{
    return load->requested & load->xstate_bv & 1ull << c->bit;
}

static bool loads_mxcsr(const struct xrstor *load)
{
    if (load->compacted)
        return load->requested & load->xstate_bv & XSTATE_BIT_SSE;
    return load->requested & (XSTATE_BIT_SSE | XSTATE_BIT_AVX);
}

static int xrstor_read(struct cpu *cpu, const struct iop *op, struct xrstor *load)
{
    if (loads_mxcsr(load)) {
        if (area_read(cpu, load->gva + LEGACY_MXCSR, load->image + LEGACY_MXCSR, 8, load->stack))
            return -1;
    }
    for (const struct xstate_component *c = xstate_components; c->size; c++) {
        struct slices slices = component_slices(op, c->bit);
        unsigned offset = component_offset(load->xcomp_bv, load->compacted, c);
        if (!from_memory(load, c))
            continue;
        if (c->bit == 0 && (area_read(cpu, load->gva, load->image, LEGACY_MXCSR, load->stack) ||
                            area_read(cpu, load->gva + LEGACY_ST, load->image + LEGACY_ST, 128, load->stack)))
            return -1;
        if (c->bit &&
            area_read(cpu, load->gva + offset, load->image + offset, slices.count * slices.width, load->stack))
            return -1;
    }
    if (loads_mxcsr(load) && mxcsr_of_image(load->image) & ~cpu->vector.fx.mxcsr_mask)
        return raise_fault(cpu, VECTOR_GP, 0);
    return 0;
}

static void xrstor_commit(struct cpu *cpu, const struct iop *op, const struct xrstor *load)
{
    for (const struct xstate_component *c = xstate_components; c->size; c++) {
        bool memory = from_memory(load, c);
        if (!(load->requested >> c->bit & 1))
            continue;
        if (c->bit)
            component_from_image(cpu, op, c->bit,
                                 memory ? load->image + component_offset(load->xcomp_bv, load->compacted, c) : NULL);
        else if (memory)
            x87_from_image(&cpu->vector.fx, rex_w(op), load->image);
        else
            x87_initial(&cpu->vector.fx);
    }
    if (loads_mxcsr(load))
        cpu->vector.fx.mxcsr = mxcsr_of_image(load->image);
    else if (load->compacted && load->requested & XSTATE_BIT_SSE)
        cpu->vector.fx.mxcsr = MXCSR_RESET;
}

static enum step restore(struct cpu *cpu, const struct iop *op, bool supervisor)
{
    struct xrstor load = { .enabled = cpu->xcr0 | (supervisor ? cpu->msrs.xss : 0),
                           .stack = op_uses_stack_segment(op) };
    load.requested = load.enabled & instruction_mask(cpu);
    if (xsave_address(cpu, op, supervisor, false, XSAVE_EXTENDED_OFFSET, &load.gva) ||
        xrstor_header(cpu, &load, supervisor) || xrstor_read(cpu, op, &load))
        return STEP_FAULT;
    xrstor_commit(cpu, op, &load);
    return STEP_NEXT;
}

enum step interp_xrstor(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    return restore(cpu, op, false);
}

enum step interp_xrstors(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    return restore(cpu, op, true);
}
