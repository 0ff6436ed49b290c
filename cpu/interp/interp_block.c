/* Building, finding and invalidating decoded blocks.
 *
 * Invariants: a cached block lies in one guest-physical page of RAM or ROM; a RAM page with cached blocks is
 * held (physmem_code_acquire) since before its bytes were read, so every later write is announced; a block that is invalidated while it runs turns its remaining instructions into a look-up (interp_op_stale).
 *
 * vCPU thread only. SDM Vol. 3A 8.1.3 (self-modifying code), 11.6. */
#include "cpu/interp/interp_block.h"

#include <string.h>

#include "cpu/interp/interp_fast.h"

/* ---- Predecoding one instruction ---- */

static const uint64_t *address_register(const struct cpu *cpu, uint8_t reg)
{
    return &cpu->gpr[reg];
}

static void *gpr_pointer(struct cpu *cpu, const struct operand *o)
{
    if (o->kind == OPERAND_GPR)
        return &cpu->gpr[o->reg];
    if (o->kind == OPERAND_GPR_HIGH)
        return (uint8_t *)&cpu->gpr[o->reg] + 1;
    return NULL;
}

static void resolve_memory(struct cpu *cpu, struct iop *op, block_mode_t mode)
{
    const struct insn *insn = &op->insn;
    const uint64_t *zero = &cpu->gpr[REG_NONE];

    op->base = address_register(cpu, insn->mem.base);
    op->index = insn->mem.vsib ? zero : address_register(cpu, insn->mem.index);
    op->scale = insn->mem.scale;
    op->disp = insn->mem.disp + (insn->mem.base == REG_RIP ? op->end : 0);
    op->ea_mask = insn->address_size == 8 ? ~0ull : insn->address_size == 4 ? 0xffffffffull : 0xffffull;
    bool fs_gs = insn->mem.segment >= SEG_FS;
    op->segment_base = fs_gs ? &cpu->segs[insn->mem.segment].base : zero;
    op->segment_checked =
        insn->code_size != CODE64 && (fs_gs || !(mode & BLOCK_MODE_FLAT) || insn->code_size == CODE16);
}

static void resolve_operands(struct cpu *cpu, struct iop *op)
{
    const struct operand *o = op->insn.operands;
    op->imm = (uint64_t)op->insn.imm;
    op->dst = gpr_pointer(cpu, &o[0]);
    op->src = o[1].kind == OPERAND_IMM ? (const void *)&op->imm : gpr_pointer(cpu, &o[1]);
}

static bool feature_missing(const struct cpu *cpu, const struct insn_row *row)
{
    switch (row->handler) {
    case HANDLER_tzcnt: /* without the feature these are BSF, BSR, no-operations */
    case HANDLER_lzcnt:
    case HANDLER_nop:
    case HANDLER_prefetch:
    case HANDLER_pause:
        return false;
    default:
        return !cpu_has(cpu, row->feature);
    }
}

static iop_fn *choose_handler(struct cpu *cpu, struct iop *op, block_mode_t mode)
{
    const struct insn_row *row = op->insn.row;
    iop_fn *fn;

    if (feature_missing(cpu, row) || ((row->attributes & ATTR_PROTECTED) && !(mode & BLOCK_MODE_PROTECTED)))
        return interp_op_invalid;
    if ((row->attributes & ATTR_CPL0) && (mode >> 2 & 3))
        return interp_op_privileged;
    if (row->handler == HANDLER_vec || row->handler == HANDLER_vec_flags || row->handler == HANDLER_mmx ||
        row->handler == HANDLER_x87) {
        op->stub = hostop_prepare(cpu, &op->insn);
        return op->stub ? interp_handlers[row->handler] : interp_unimplemented;
    }
    if ((fn = interp_select_alu(op)) || (fn = interp_select_move(op)) || (fn = interp_select_control(op)))
        return fn;
    return interp_handlers[row->handler];
}

/* Does the block end after this instruction? */
static bool ends_block(const struct insn_row *row)
{
    if (row->handler == HANDLER_jcc || row->handler == HANDLER_jcxz)
        return false; /* not taken: goes on in the block */
    return row->attributes & (ATTR_BRANCH | ATTR_END);
}

/* Predecodes the instruction at bytes into op. Returns false if none could be decoded whole (truncated). */
static bool build_op(struct cpu *cpu, struct iop *op, const uint8_t *bytes, size_t available, unsigned start,
                     block_mode_t mode)
{
    memset(op, 0, sizeof(*op));
    enum decode_status status = insn_decode(bytes, available, mode & 3, &op->insn);
    if (status == DECODE_TRUNCATED)
        return false;
    op->start = (uint8_t)start;
    op->end = (uint8_t)(start + op->insn.length);
    op->insn.code_size = mode & 3;
    if (status != DECODE_OK) {
        op->fn = status == DECODE_TOO_LONG ? interp_op_too_long : interp_op_invalid;
        return true;
    }
    resolve_memory(cpu, op, mode);
    resolve_operands(cpu, op);
    op->fn = choose_handler(cpu, op, mode);
    if (log_enabled(LOG_in_asm)) {
        char text[128];
        cpu_park_vectors(cpu);
        log_vprint(LOG_in_asm, "%016llx+%-3u %s\n", (unsigned long long)(cpu->segs[SEG_CS].base + cpu->cpu_rip), start,
                   insn_format(&op->insn, text, sizeof(text)));
    }
    return true;
}

static void end_marker(struct block *block, unsigned bytes)
{
    struct iop *op = &block->ops[block->op_count];
    memset(op, 0, sizeof(*op));
    op->fn = interp_op_block_end;
    op->start = op->end = (uint8_t)bytes;
    op->insn.code_size = block->mode & 3;
    block->bytes = (uint8_t)bytes;
}

/* Fills a block from `available` bytes of one page; at most max_ops instructions. False: not even one fits. */
static bool build_block(struct cpu *cpu, struct block *block, const uint8_t *bytes, size_t available, unsigned max_ops)
{
    unsigned start = 0;
    block->op_count = 0;
    while (block->op_count < max_ops && start < BLOCK_MAX_BYTES - INSN_MAX_LENGTH) {
        struct iop *op = &block->ops[block->op_count];
        if (!build_op(cpu, op, bytes + start, available - start, start, block->mode))
            break;
        block->op_count++;
        start = op->end;
        if (op->fn == interp_op_invalid || op->fn == interp_op_too_long || ends_block(op->insn.row))
            break;
    }
    end_marker(block, start);
    cpu->stats.blocks_decoded++;
    return block->op_count != 0;
}

/* ---- Fetching ---- */

struct fetch {
    const uint8_t *host; /* of the first byte; NULL: MMIO or unassigned */
    gpa_t gpa;
};

static bool fetch_page(struct cpu *cpu, gva_t linear, struct fetch *fetch)
{
    bool user = cpu->cpl == 3;
    const struct tlb_exec_entry *entry = &cpu->mmu.exec[!user][(linear >> PAGE_SHIFT) & (MMU_L1_EXEC_SIZE - 1)];
    uint64_t offset = linear & ~PAGE_MASK;
    if (entry->tag == (linear & PAGE_MASK) && entry->host) {
        fetch->host = entry->host + offset;
        fetch->gpa = entry->gpa + offset;
        return true;
    }
    struct mmu_target target;
    if (mmu_translate(&cpu->mmu, linear, MMU_EXECUTE, user ? MMU_USER : MMU_SUPERVISOR, &target, &cpu->fault))
        return false;
    fetch->host = target.host;
    fetch->gpa = target.gpa;
    return true;
}

/* Up to 15 bytes at linear, across the page end and from MMIO: returns how many could be had without a
 * fault; the fault of the rest, if any, is in cpu->fault. */
static unsigned fetch_bytes(struct cpu *cpu, gva_t linear, uint8_t bytes[INSN_MAX_LENGTH])
{
    unsigned count = 0;
    while (count < INSN_MAX_LENGTH) {
        struct fetch fetch;
        gva_t at = linear + count;
        if (cpu->code_size != CODE64)
            at = (uint32_t)at;
        else if (!is_canonical(at)) {
            raise_fault(cpu, VECTOR_GP, 0);
            break;
        }
        if (!fetch_page(cpu, at, &fetch))
            break;
        unsigned in_page = (unsigned)MIN(PAGE_SIZE - (at & ~PAGE_MASK), INSN_MAX_LENGTH - count);
        for (unsigned i = 0; i < in_page; i++)
            bytes[count + i] = fetch.host ? fetch.host[i] : (uint8_t)physmem_mmio_read(cpu->physmem, fetch.gpa + i, 1);
        count += in_page;
    }
    return count;
}

/* The CS limit in modes that have one: how many bytes may be fetched at rip. */
static uint64_t limit_room(const struct cpu *cpu)
{
    if (cpu->code_size == CODE64)
        return ~0ull;
    uint64_t limit = cpu->segs[SEG_CS].limit;
    return cpu->cpu_rip > limit ? 0 : limit - cpu->cpu_rip + 1;
}

/* One instruction, wherever its bytes are; they are left in `bytes`. */
static struct block *build_single(struct interp *interp, struct block *block, gva_t linear, block_mode_t mode,
                                  uint8_t bytes[INSN_MAX_LENGTH])
{
    struct cpu *cpu = interp->cpu;
    struct fault none = { 0 };

    cpu->fault = none;
    unsigned count = fetch_bytes(cpu, linear, bytes);
    uint64_t room = limit_room(cpu);
    block->mode = mode;
    if (room < count) {
        count = (unsigned)room;
        raise_fault(cpu, VECTOR_GP, 0);
    }
    if (count && build_block(cpu, block, bytes, count, 1) && block->bytes <= count)
        return block;
    return NULL; /* cpu->fault says why the rest could not be fetched */
}

/* ---- The cache ---- */

static block_mode_t current_mode(const struct cpu *cpu)
{
    const struct segment_register *s = cpu->segs;
    block_mode_t mode = (block_mode_t)(cpu->code_size | cpu->cpl << 2);
    if (s[SEG_CS].flat && s[SEG_DS].flat && s[SEG_ES].flat && s[SEG_SS].flat)
        mode |= BLOCK_MODE_FLAT;
    if (cpu_protected(cpu) && !cpu_v86(cpu))
        mode |= BLOCK_MODE_PROTECTED;
    return mode;
}

bool interp_build(struct cpu *cpu, struct iop *op, const uint8_t *bytes, size_t available)
{
    return build_op(cpu, op, bytes, available, 0, current_mode(cpu));
}

static struct block **address_bucket(struct interp *interp, gpa_t gpa, block_mode_t mode)
{
    return &interp->by_address[(gpa ^ gpa >> 16 ^ (uint64_t)mode << 10) % ADDRESS_BUCKETS];
}

static struct code_page **page_link(struct interp *interp, gpa_t gpa)
{
    struct code_page **link = &interp->pages[(gpa >> PAGE_SHIFT) % PAGE_BUCKETS];
    while (*link && (*link)->page != (gpa & PAGE_MASK))
        link = &(*link)->next;
    return link;
}

/* The page's record, held from now on. There is room in the arena. */
static struct code_page *page_get(struct interp *interp, gpa_t gpa)
{
    struct code_page **link = page_link(interp, gpa), *page = *link;
    if (page)
        return page;
    page = interp->free_pages;
    if (page) {
        interp->free_pages = page->next;
    } else {
        page = (struct code_page *)(interp->arena + interp->arena_used);
        interp->arena_used += ALIGN_UP(sizeof(*page), 64);
    }
    *page = (struct code_page){ .page = gpa & PAGE_MASK };
    *link = page;
    physmem_code_acquire(interp->cpu->physmem, page->page);
    return page;
}

static void page_put_if_empty(struct interp *interp, gpa_t gpa)
{
    struct code_page **link = page_link(interp, gpa), *page = *link;
    if (!page || page->blocks)
        return;
    *link = page->next;
    physmem_code_release(interp->cpu->physmem, page->page);
    page->next = interp->free_pages;
    interp->free_pages = page;
}

static struct block *lookup(struct interp *interp, gpa_t gpa, block_mode_t mode)
{
    struct block *block = *address_bucket(interp, gpa, mode);
    while (block && (block->gpa != gpa || block->mode != mode))
        block = block->next_by_address;
    return block;
}

static struct block *build_cached(struct interp *interp, const struct fetch *fetch, block_mode_t mode)
{
    struct cpu *cpu = interp->cpu;
    size_t largest = sizeof(struct block) + (BLOCK_MAX_OPS + 1) * sizeof(struct iop) + sizeof(struct code_page) + 128;

    if (interp->arena_used + largest > interp->arena_size)
        block_invalidate_all(interp);
    struct code_page *page = page_get(interp, fetch->gpa); /* before the bytes are read */
    struct block *block = (struct block *)(interp->arena + interp->arena_used);
    block->gpa = fetch->gpa;
    block->mode = mode;
    if (!build_block(cpu, block, fetch->host, PAGE_SIZE - (fetch->gpa & ~PAGE_MASK), BLOCK_MAX_OPS)) {
        page_put_if_empty(interp, fetch->gpa);
        return NULL; /* the first instruction crosses the page end */
    }
    interp->arena_used += ALIGN_UP(sizeof(struct block) + (block->op_count + 1u) * sizeof(struct iop), 64);
    struct block **bucket = address_bucket(interp, block->gpa, mode);
    block->next_by_address = *bucket;
    *bucket = block;
    block->next_in_page = page->blocks;
    page->blocks = block;
    return block;
}

/* ---- Instructions that cross a page end ---- */

static bool may_cross(gva_t linear)
{
    return (linear & ~PAGE_MASK) > PAGE_SIZE - INSN_MAX_LENGTH;
}

/* Fetching goes by the page tables of this moment, and what is compared are the bytes of this moment, so nothing can be
 * stale and nothing needs to be invalidated. */
static struct block *crossing_find(struct interp *interp, gva_t linear, block_mode_t mode)
{
    unsigned slot = linear >> PAGE_SHIFT & (CROSSING_CACHE_SIZE - 1);
    struct crossing_entry *entry = &interp->crossing_cache[slot];
    struct block *block = (struct block *)(interp->crossing_blocks + slot * SINGLE_BLOCK_SIZE);
    uint8_t bytes[INSN_MAX_LENGTH];

    if (entry->linear == linear && entry->mode == mode && block->op_count &&
        fetch_bytes(interp->cpu, linear, bytes) >= block->bytes && !memcmp(bytes, entry->bytes, block->bytes) &&
        block->bytes <= limit_room(interp->cpu))
        return block;
    block->op_count = 0;
    block = build_single(interp, block, linear, mode, entry->bytes);
    entry->linear = linear;
    entry->mode = mode;
    return block;
}

/* Was the instruction here the last time one that crosses? (If it is not any more, crossing_find still gives the right one.) */
static bool is_crossing(const struct interp *interp, gva_t linear, block_mode_t mode)
{
    const struct crossing_entry *entry = &interp->crossing_cache[linear >> PAGE_SHIFT & (CROSSING_CACHE_SIZE - 1)];
    return entry->linear == linear && entry->mode == mode;
}

struct block *interp_block_find(struct interp *interp, bool single)
{
    struct cpu *cpu = interp->cpu;
    block_mode_t mode = current_mode(cpu);
    gva_t linear = cpu->code_size == CODE64 ? cpu->cpu_rip : (uint32_t)(cpu->segs[SEG_CS].base + cpu->cpu_rip);
    struct jump_entry *entry = &interp->jump_cache[(linear ^ linear >> 12) % JUMP_CACHE_SIZE];
    uint64_t stamp = cpu->mmu.exec_generation + interp->epoch + 1;
    uint8_t bytes[INSN_MAX_LENGTH];
    struct fetch fetch;
    struct block *block;

    if (unlikely(single))
        return build_single(interp, interp->single, linear, mode, bytes);
    if (likely(entry->linear == linear && entry->stamp == stamp && entry->mode == mode &&
               (cpu->code_size == CODE64 || entry->block->bytes <= limit_room(cpu))))
        return entry->block;
    if (cpu->code_size == CODE64 && !is_canonical(linear)) {
        raise_fault(cpu, VECTOR_GP, 0);
        return NULL;
    }
    if (!fetch_page(cpu, linear, &fetch))
        return NULL;
    if (!fetch.host)
        return build_single(interp, interp->single, linear, mode, bytes);
    block = lookup(interp, fetch.gpa, mode);
    if (!block && may_cross(linear) && is_crossing(interp, linear, mode))
        return crossing_find(interp, linear, mode);
    if (!block)
        block = build_cached(interp, &fetch, mode);
    if (!block)
        return crossing_find(interp, linear, mode);
    if (block->bytes > limit_room(cpu))
        return build_single(interp, interp->single, linear, mode, bytes);
    stamp = cpu->mmu.exec_generation + interp->epoch + 1;
    *entry = (struct jump_entry){ .linear = linear, .stamp = stamp, .block = block, .mode = mode };
    return block;
}

/* ---- Invalidation ---- */

static void make_stale(struct block *block)
{
    for (unsigned i = 0; i < block->op_count; i++)
        block->ops[i].fn = interp_op_stale;
}

static void unlink_by_address(struct interp *interp, struct block *block)
{
    struct block **link = address_bucket(interp, block->gpa, block->mode);
    while (*link && *link != block)
        link = &(*link)->next_by_address;
    if (*link)
        *link = block->next_by_address;
}

static void invalidate_in_page(struct interp *interp, gpa_t gpa, uint64_t size)
{
    struct code_page *page = *page_link(interp, gpa);
    if (!page)
        return;
    for (struct block **link = &page->blocks; *link;) {
        struct block *block = *link;
        if (block->gpa >= gpa + size || block->gpa + block->bytes <= gpa) {
            link = &block->next_in_page;
            continue;
        }
        *link = block->next_in_page;
        unlink_by_address(interp, block);
        make_stale(block);
        interp->epoch++;
        interp->cpu->stats.invalidations++;
    }
    page_put_if_empty(interp, gpa);
}

void block_invalidate_range(struct interp *interp, gpa_t gpa, uint64_t size)
{
    while (size) {
        uint64_t piece = MIN(size, PAGE_SIZE - (gpa & ~PAGE_MASK));
        invalidate_in_page(interp, gpa, piece);
        gpa += piece;
        size -= piece;
    }
}

void block_invalidate_all(struct interp *interp)
{
    for (unsigned i = 0; i < PAGE_BUCKETS; i++) {
        for (struct code_page *page = interp->pages[i]; page; page = page->next) {
            for (struct block *block = page->blocks; block; block = block->next_in_page)
                make_stale(block);
            physmem_code_release(interp->cpu->physmem, page->page);
        }
    }
    memset(interp->pages, 0, sizeof(interp->pages));
    memset(interp->by_address, 0, sizeof(interp->by_address));
    interp->free_pages = NULL;
    interp->arena_used = 0;
    interp->epoch++;
}
