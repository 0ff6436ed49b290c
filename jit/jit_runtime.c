/* What translated code calls when it cannot go on by itself: TLB misses, jumps that are not linked yet, instructions that the
 * interpreter's handlers execute, faults.
 *
 * Runs while the guest's vector state is live (general registers only) unless something parks it. On entry the thunk has put
 * the general registers into struct cpu and the host's flags into jit->flags_ax; jit->vpage and the instruction's offset
 * give RIP. A function here returns the host address to go on at, with the registers, flags_ax, T0 and A0 that are in memory then, or
 * NULL to leave to the engine (state exact, cpu_rip at an instruction boundary).
 *
 * vCPU thread only. */
#include "jit/jit_internal.h"

#include "cpu/system_internal.h"

/* ---- Finding translations ---- */

static bool is_canonical_rip(const struct cpu *cpu, gva_t rip)
{
    return cpu->code_size != CODE64 || is_canonical(rip);
}

static void remember_jump(struct jit *jit, gva_t rip, struct jit_block *block)
{
    uint64_t key = rip + jit->salt;
    unsigned index = jit_jump_index(jit, key);

    jit->jump_keys[index] = 0 - key;
    jit->jump_hosts[index] = jit_indirect_entry(jit, block);
}

static void announce(struct jit *jit, struct jit_block *block)
{
    jit_block_insert(jit, block);
    if (unlikely(jit->tools != NULL)) {
        jit_park(jit->cpu);
        jit_report_block(jit, block);
    }
}

static struct jit_block *find_or_translate(struct jit *jit, gpa_t gpa, const uint8_t *host, jit_mode_t mode)
{
    struct jit_block *block = jit_block_find(jit, gpa, mode, 0);

    if (block)
        return block;
    jit_cache_make_room(jit);
    jit_page_acquire(jit, gpa); /* before the bytes are read */
    block = jit_translate(jit, gpa, host, PAGE_SIZE - (gpa & ~PAGE_MASK), mode, BLOCK_MAX_INSNS);
    if (block)
        announce(jit, block);
    else
        jit_page_release_if_empty(jit, gpa);
    return block;
}

bool jit_fetch(struct cpu *cpu, gva_t rip, struct jit_fetched *f)
{
    bool user = cpu->cpl == 3;
    const struct tlb_exec_entry *entry = &cpu->mmu.exec[!user][(rip >> PAGE_SHIFT) & (MMU_L1_EXEC_SIZE - 1)];
    struct mmu_target target;

    if (entry->tag == (rip & PAGE_MASK) && entry->host) {
        *f = (struct jit_fetched){ entry->host + (rip & ~PAGE_MASK), entry->gpa + (rip & ~PAGE_MASK) };
        return true;
    }
    if (!is_canonical_rip(cpu, rip)) {
        raise_fault(cpu, VECTOR_GP, 0);
        return false;
    }
    if (mmu_translate(&cpu->mmu, rip, MMU_EXECUTE, user ? MMU_USER : MMU_SUPERVISOR, &target, &cpu->fault))
        return false;
    *f = (struct jit_fetched){ target.host, target.gpa };
    return true;
}

/* The instruction at cpu_rip if it ends in the next page: a block of its own, that depends on both frames (design, 6a.8). It is
 * reached by the jump cache only, which forgets when either page's mapping may have changed. NULL: neither (not RAM), or *faulted. */
static struct jit_block *find_crossing(struct jit *jit, const struct jit_fetched *first, jit_mode_t mode, bool *faulted)
{
    struct cpu *cpu = jit->cpu;
    gva_t next = (cpu->cpu_rip & PAGE_MASK) + PAGE_SIZE;
    size_t in_first = next - cpu->cpu_rip;
    struct jit_fetched second;
    uint8_t bytes[INSN_MAX_LENGTH];

    if (in_first >= INSN_MAX_LENGTH || (cpu->code_size != CODE64 && next > 0xffffffff))
        return NULL;
    if (!jit_fetch(cpu, next, &second)) {
        *faulted = true;
        return NULL;
    }
    if (!second.host)
        return NULL;
    mode |= MODE_CROSSING;
    struct jit_block *block = jit_block_find(jit, first->gpa, mode, second.gpa);
    if (block)
        return block;
    jit_cache_make_room(jit);
    jit_page_acquire(jit, first->gpa);
    jit_page_acquire(jit, second.gpa);
    memcpy(bytes, first->host, in_first);
    memcpy(bytes + in_first, second.host, INSN_MAX_LENGTH - in_first);
    block = jit_translate(jit, first->gpa, bytes, INSN_MAX_LENGTH, mode, 1);
    jit_crossing(block)->second_page = second.gpa;
    announce(jit, block);
    return block;
}

/* cpu_rip is about to be entered at the block. */
static void note_entry(struct jit *jit, const struct jit_block *block)
{
    struct cpu *cpu = jit->cpu;

    jit_sync_context(jit); /* the cache may have been dropped, execute mappings be new */
    if (jit_mode_cpl(jit->current.mode) != 3 && !jit->supervisor_local &&
        !mmu_exec_is_global(&cpu->mmu, cpu->cpu_rip)) {
        jit_supervisor_is_local(jit);
    }
    jit_note_view(jit, block->gpa, cpu->cpu_rip);
}

const void *jit_find_entry(struct jit *jit, bool *faulted)
{
    struct cpu *cpu = jit->cpu;
    jit_mode_t mode = jit_sync_context(jit);
    struct jit_fetched f;

    *faulted = false;
    jit->stats.lookups++;
    jit_cache_make_room(jit); /* for an indirect entry, too */
    if (!jit_fetch(cpu, cpu->cpu_rip, &f)) {
        *faulted = true;
        return NULL;
    }
    if (!f.host)
        return NULL;
    struct jit_block *block = find_or_translate(jit, f.gpa, f.host, mode);
    if (!block && !(block = find_crossing(jit, &f, mode, faulted)))
        return NULL;
    note_entry(jit, block);
    remember_jump(jit, cpu->cpu_rip, block);
    jit->found = block;
    jit->t0 = cpu->cpu_rip;
    jit->flags_ax = ax_of_flags(cpu->rflags);
    return jit_indirect_entry(jit, block);
}

/* ---- Going on ---- */

/* The guest's interrupts may have been masked when `quiet` was set again: whoever unmasks them looks here. */
bool jit_attention_due(const struct cpu *cpu)
{
    uint32_t events = atomic_load_explicit(&cpu->events, memory_order_relaxed);

    if (events & ~(uint32_t)CPU_EVENT_INTR)
        return true;
    return ((events & CPU_EVENT_INTR) && (cpu->rflags & FLAG_IF)) || cpu->pending_debug || cpu->interrupt_shadow ||
           cpu->debug_shadow || cpu->activity != CPU_RUNNING;
}

static const void *leave(struct jit *jit, enum step step)
{
    jit->exit_step = step;
    jit->stats.exits++;
    jit->stats.exits_by_step[step]++;
    jit_park(jit->cpu);
    return NULL;
}

static const void *no_entry(struct jit *jit, bool faulted)
{
    if (!faulted)
        return leave(jit, STEP_NEXT); /* the engine interprets what cannot be translated */
    if (unlikely(jit->slices))
        return leave(jit, STEP_NEXT);
    jit->stats.faults++;
    if (cpu_deliver_exception(jit->cpu) == STEP_EXIT)
        return leave(jit, STEP_EXIT);
    return leave(jit, STEP_BRANCH);
}

/* State is exact at an instruction boundary. */
static const void *go_on(struct jit *jit)
{
    struct cpu *cpu = jit->cpu;
    bool faulted;

    if (jit->single_limit || (unlikely(jit->slices) && !jit->budget))
        return leave(jit, STEP_NEXT);
    if (!atomic_load_explicit(&cpu->quiet, memory_order_relaxed) || jit_attention_due(cpu) || !jit_can_run(cpu))
        return leave(jit, STEP_NEXT);
    const void *entry = jit_find_entry(jit, &faulted);
    if (likely(entry))
        return entry;
    return no_entry(jit, faulted);
}

static gva_t wrap_rip(const struct jit *jit, gva_t rip)
{
    return jit->cpu->code_size == CODE64 ? rip : (uint32_t)rip;
}

static gva_t rip_of(const struct jit *jit, const struct jit_block *block, unsigned insn)
{
    return wrap_rip(jit, jit->vpage + (block->gpa & ~PAGE_MASK) + block->marks[insn].offset);
}

static const uint8_t *bytes_at(const struct jit *jit, gpa_t gpa)
{
    struct mem_page page = physmem_lookup(jit->cpu->physmem, gpa);
    return page.host ? page.host + (gpa & ~PAGE_MASK) : NULL;
}

/* Those with which the block was entered, from the instruction of another block that set them. */
static uint64_t flags_of_replay(const struct jit *jit, const struct jit_block *block)
{
    const struct jit_block *from = (const struct jit_block *)(jit->arena + (jit->flag_kind & ~63u));
    const struct replay *replay = &jit_replays(from)[jit->flag_kind & 63];
    struct insn insn;

    insn_decode(replay->bytes, replay->length, block->mode & MODE_CODE64 ? CODE64 : CODE32, &insn);
    return jit_replay_flags(jit->cpu, &insn);
}

/* ---- Records of stubs ---- */

#define RECORD_OF(stub, type) ((const type *)((stub)-STUB_CALL_SIZE - sizeof(type)))

static uint32_t block_offset_of(const struct stub_info *info)
{
    uint32_t offset;

    memcpy(&offset, (const uint8_t *)info - info->back, sizeof(offset));
    return offset;
}

static struct jit_block *block_of(const struct jit *jit, const struct stub_info *info)
{
    return jit_record(jit, block_offset_of(info));
}

/* As jit->origin. */
static uint64_t origin_of(const struct stub_info *info)
{
    return info->kind & STUB_FALLING ? 0 : block_offset_of(info) | info->insn;
}

/* ---- Flags ---- */

/* The guest's arithmetic flags at an instruction: the host's, or made again from their source. */
static void settle_flags(struct jit *jit, const struct jit_block *block, unsigned flags_source)
{
    struct cpu *cpu = jit->cpu;
    uint64_t flags = flags_of_ax(jit->flags_ax);

    if (flags_source == FLAGS_ENTRY && jit->flag_kind) {
        flags = flags_of_replay(jit, block);
    } else if (flags_source == FLAGS_SAVED || flags_source == FLAGS_ENTRY) {
        flags = jit->saved_flags & FLAGS_ARITH;
    } else if (flags_source) {
        gpa_t gpa = block->gpa + block->marks[flags_source - 1].offset;
        const uint8_t *bytes = bytes_at(jit, gpa);
        struct insn insn;
        if (bytes && insn_decode(bytes, PAGE_SIZE - (gpa & ~PAGE_MASK), block->mode & MODE_CODE64 ? CODE64 : CODE32,
                                 &insn) == DECODE_OK)
            flags = jit_replay_flags(cpu, &insn);
    }
    cpu->rflags = (cpu->rflags & ~(uint64_t)FLAGS_ARITH) | flags;
    jit->flags_ax = ax_of_flags(flags);
}

/* ---- One instruction by its handler ---- */

static const struct iop *find_iop(struct jit *jit, const struct jit_block *block, unsigned insn)
{
    gpa_t gpa = block->gpa + block->marks[insn].offset;
    /* by block: an instruction may be in several, and none outlives its block */
    struct iop_entry *entry = &jit->iops[(gpa ^ gpa >> 12 ^ (uintptr_t)block >> 6) % ARRAY_SIZE(jit->iops)];

    if (entry->gpa == gpa && entry->block == block && entry->generation == jit->generation)
        return &entry->op;
    bool crosses = block->mode & MODE_CROSSING;
    const uint8_t *bytes = crosses ? jit_replays(block)[0].bytes : bytes_at(jit, gpa);
    size_t available = crosses ? jit_replays(block)[0].length : PAGE_SIZE - (gpa & ~PAGE_MASK);
    entry->block = NULL;
    if (!bytes || !interp_build(jit->cpu, &entry->op, bytes, available))
        return NULL;
    entry->gpa = gpa;
    entry->block = block;
    entry->generation = jit->generation;
    return &entry->op;
}

static const void *deliver_fault(struct jit *jit)
{
    jit->stats.faults++;
    if (jit->single_limit || jit->slices)
        return leave(jit, STEP_FAULT);
    if (cpu_deliver_exception(jit->cpu) == STEP_EXIT)
        return leave(jit, STEP_EXIT);
    return go_on(jit);
}

/* EFER, STAR, LSTAR, CSTAR and SFMASK; TSD, which decides the mode of user code but not of the kernel's; the address space, where the kernel
 * has one. */
static bool may_change_system_calls(const struct jit *jit, const struct insn *insn)
{
    switch (insn->row->handler) {
    case HANDLER_wrmsr:
        return (uint32_t)jit->cpu->gpr[REG_RCX] - 0xc0000080u <= 4;
    case HANDLER_mov_to_cr:
        return insn->operands[0].reg != 3 || jit->system_call.kernel.space;
    default:
        return false;
    }
}

static const void *after_syscall(struct jit *jit)
{
    const void *resume = go_on(jit);

    if (resume)
        jit_system_call_prepare(jit);
    return resume;
}

static bool switches_access(const struct iop *op)
{
    return op->insn.row && (op->insn.row->handler == HANDLER_stac || op->insn.row->handler == HANDLER_clac);
}

static const void *after_access_switch(struct jit *jit, const struct mode_salt *from)
{
    const void *resume = go_on(jit);

    if (resume)
        jit_access_switch_prepare(jit, from);
    return resume;
}

/* cpu_rip is at the instruction; registers and flags are exact. */
static const void *execute_by_handler(struct jit *jit, const struct jit_block *block, unsigned insn,
                                      enum jit_in_c reason)
{
    struct cpu *cpu = jit->cpu;
    uint64_t data_generation = cpu->mmu.data_generation, exec_generation = cpu->mmu.exec_generation;
    uint64_t generation = jit->generation, address = cpu->cpu_rip;
    struct mode_salt current = jit->current;
    const struct iop *op = find_iop(jit, block, insn);

    if (!op)
        return leave(jit, STEP_RESYNC);
    if (unlikely(jit->op_stats.counts != NULL)) {
        jit_park(cpu);
        jit_count_in_c(jit, op, reason);
    }
    if (jit->single_limit)
        jit->single_executed = insn;
    if (unlikely(jit->slices) && jit_lockstep_withholds(jit, &op->insn))
        return leave(jit, STEP_FAULT);
    enum step step = op->fn(cpu, op);
    if (op->insn.row && may_change_system_calls(jit, &op->insn))
        jit->system_call.valid = 0;
    switch ((int)step) {
    case STEP_NEXT:
        cpu->cpu_rip = wrap_rip(jit, address + op->insn.length);
        jit->single_executed = insn + 1;
        if (jit->single_limit && reason == JIT_IN_C_SLOW_ACCESS)
            return leave(jit, STEP_NEXT);
        if (generation == jit->generation && block->valid && !jit->flush_wanted &&
            data_generation == cpu->mmu.data_generation && exec_generation == cpu->mmu.exec_generation &&
            jit_current_mode(cpu) == (block->mode & MODE_KEY)) {
            jit->flags_ax = ax_of_flags(cpu->rflags);
            return jit->code.execute + block->hot + block->marks[insn + 1].host;
        }
        if (switches_access(op) && !jit->single_limit)
            return after_access_switch(jit, &current);
        break;
    case STEP_FAULT:
        return deliver_fault(jit);
    case STEP_END:
        cpu->cpu_rip = wrap_rip(jit, address + op->insn.length);
        jit->single_executed = insn + 1;
        if (jit->single_limit)
            return leave(jit, STEP_END);
        break;
    case STEP_HALT:
        cpu->cpu_rip = wrap_rip(jit, address + op->insn.length);
        jit->single_executed = insn + 1;
        return leave(jit, STEP_HALT);
    case STEP_BRANCH:
        jit->single_executed = insn + 1;
        if (jit->single_limit)
            return leave(jit, STEP_BRANCH);
        if (op->insn.row->handler == HANDLER_syscall)
            return after_syscall(jit);
        break;
    case STEP_EXIT:
        return leave(jit, STEP_EXIT);
    default: /* REPEAT, RESYNC: cpu_rip is where to go on */
        if (jit->single_limit || jit->slices)
            return leave(jit, step);
        break;
    }
    return go_on(jit);
}

/* ---- Accesses ---- */

static struct tlb_entry *entry_for(struct jit *jit, gva_t gva)
{
    struct cpu *cpu = jit->cpu;
    return &cpu->mmu.l1[cpu->privilege][mmu_l1_index(gva)];
}

/* Is the access [gva, gva + PAGE_SIZE - limit) one that the fast path can make now? */
static bool entry_serves(const struct tlb_entry *entry, gva_t gva, unsigned limit, bool write)
{
    return (gva ^ (write ? entry->tag_w : entry->tag_r)) <= limit;
}

/* Cycles between two misses of a site below which a look-up by index is cheaper than predicting; between two times that a group's
 * range crosses a page below which its accesses are better checked one by one. */
#define FREQUENT_MISS  1000
#define FREQUENT_CROSS 5000
#define CROSS_STEP     8 /* a crossing counts as so many misses */

/* The site's count of misses has run out. True: its instruction was noted, and is translated anew. */
static bool change_habit(struct jit *jit, const struct jit_block *block, const struct access_info *info, unsigned habit)
{
    uint32_t now = (uint32_t)(__builtin_ia32_rdtsc() >> 8), passed = now - jit->site_times[info->site];
    gpa_t gpa = block->gpa + block->marks[info->stub.insn].offset;
    uint32_t often = habit == HABIT_HASHED ? FREQUENT_MISS : FREQUENT_CROSS / CROSS_STEP;

    jit->site_misses[info->site] = SITE_MISSES_START;
    jit->site_times[info->site] = now;
    if (passed > often || block->mode & MODE_CROSSING || jit_habits(jit, gpa) & habit || jit->single_limit)
        return false; /* 256 misses, 256 cycles a unit */
    jit->habits[gpa % HABITS_SIZE] = gpa << 2 | jit_habits(jit, gpa) | habit;
    if (habit == HABIT_HASHED)
        jit->stats.hashed++;
    else
        jit->stats.ungrouped++;
    jit_invalidate(jit, gpa, 1);
    return true;
}

static bool crosses_often(struct jit *jit, const struct jit_block *block, const struct access_info *info)
{
    uint16_t misses = (uint16_t)(jit->site_misses[info->site] + CROSS_STEP);

    if (misses >= CROSS_STEP) {
        jit->site_misses[info->site] = misses;
        return false;
    }
    return change_habit(jit, block, info, HABIT_ALONE);
}

/* The L1 entries of the two pages that an access goes over, if both may be accessed, and are ordinary memory. */
static bool find_both_pages(struct jit *jit, gva_t first, gva_t second, bool write, uint8_t *hosts[2])
{
    struct cpu *cpu = jit->cpu;
    const gva_t pages[2] = { first, second };
    struct mmu_target target;
    struct fault fault;

    for (unsigned n = 0; n < 2; n++)
        if (!entry_serves(entry_for(jit, pages[n]), pages[n], 0, write) &&
            (mmu_translate(&cpu->mmu, pages[n], write ? MMU_WRITE : MMU_READ, cpu->privilege, &target, &fault) ||
             target.notice))
            return false;
    for (unsigned n = 0; n < 2; n++) { /* now: they might have had one place */
        const struct tlb_entry *entry = entry_for(jit, pages[n]);
        if (!entry_serves(entry, pages[n], 0, write))
            return false;
        hosts[n] = (uint8_t *)(uintptr_t)(write ? entry->host_w : entry->host_r);
    }
    return true;
}

/* An access that goes over the end of a page, and needs nothing else from C: bytes that are only read are put together in a buffer (at an address
 * that is aligned as theirs), from where the instruction takes them; a vector that is only stored is stored in two parts. Returns where
 * to go on; NULL: the instruction's handler has to do it. */
static const void *cross_page(struct jit *jit, const uint8_t *stub, const struct jit_block *block,
                              const struct access_info *info, gva_t gva)
{
    unsigned kind = info->stub.kind, offset = gva & ~PAGE_MASK, size = PAGE_SIZE - info->limit,
             left = PAGE_SIZE - offset;
    bool write = (kind & STUB_KIND) == STUB_WRITE;
    gva_t second = (gva & PAGE_MASK) + PAGE_SIZE;
    uint8_t *buffer = jit->crossing + gva % CROSSING_MAX, *hosts[2];

    if ((write ? !(kind & STUB_STORES_VECTOR) || jit->slices || jit->single_limit : (kind & STUB_KIND) != STUB_READ) ||
        size <= left || size > CROSSING_MAX || (block->mode & MODE_CODE64 ? !is_canonical(second) : second >> 32) ||
        !find_both_pages(jit, gva & PAGE_MASK, second, write, hosts))
        return NULL;
    jit->stats.slow_accesses++;
    if (unlikely(jit->op_stats.counts != NULL)) {
        const struct iop *op = find_iop(jit, block, info->stub.insn);
        jit_park(jit->cpu);
        if (op)
            jit_count_in_c(jit, op, JIT_IN_C_SLOW_ACCESS);
    }
    if (write) {
        jit_store_vector(jit->cpu, info->group_first, buffer, size);
        memcpy(hosts[0] + offset, buffer, left);
        memcpy(hosts[1], buffer + left, size - left);
        return jit->code.execute + block->hot + block->marks[info->stub.insn + 1].host;
    }
    memcpy(buffer, hosts[0] + offset, left);
    memcpy(buffer + left, hosts[1], size - left);
    jit->t0 = 0;
    jit->t1 = (uint64_t)(uintptr_t)buffer;
    return stub;
}

static const void *slow_access(struct jit *jit, const uint8_t *stub)
{
    struct cpu *cpu = jit->cpu;
    const struct access_info *info = RECORD_OF(stub, struct access_info);
    struct jit_block *block = block_of(jit, &info->stub);
    unsigned kind = info->stub.kind & STUB_KIND, insn = info->stub.insn;
    bool write = kind == STUB_WRITE || kind == STUB_GROUP_WRITE;
    bool group = kind >= STUB_GROUP_READ, first_writes = write && !(info->stub.kind & STUB_FIRST_READS);
    gva_t gva = jit->t0, first = group ? gva + info->group_first : gva;
    struct mmu_target target;
    struct fault fault;
    bool canonical = block->mode & MODE_CODE64 ? is_canonical(first) : true;

    jit->stats.site_misses++;
    bool again = jit->is_low && jit->site_misses[info->site] == 0 && change_habit(jit, block, info, HABIT_HASHED);
    if (!again && canonical && (gva & ~PAGE_MASK) <= info->limit &&
        !mmu_translate(&cpu->mmu, first, first_writes ? MMU_WRITE : MMU_READ, cpu->privilege, &target, &fault)) {
        struct tlb_entry *entry = entry_for(jit, gva);
        if (target.host && !target.notice && entry_serves(entry, gva, info->limit, write)) {
            jit->sites[info->site] = entry;
            jit->t0 = gva & ~PAGE_MASK;
            jit->t1 = (uint64_t)(uintptr_t)(write ? entry->host_w : entry->host_r);
            return stub;
        }
    }
    const void *crossed = again || !canonical ? NULL : cross_page(jit, stub, block, info, gva);
    if (crossed)
        return crossed;
    cpu->cpu_rip = rip_of(jit, block, insn);
    settle_flags(jit, block, info->flags_source);
    if (group && jit->single_limit) { /* what follows in the block needs the group: it is left */
        jit->single_executed = insn;
        jit->group_missed = true;
        return leave(jit, STEP_NEXT);
    }
    if (group && block->valid && (gva & ~PAGE_MASK) > info->limit && crosses_often(jit, block, info)) {
        jit->executed -= jit->has_stats; /* the instruction begins again */
        return go_on(jit);
    }
    if (group && block->valid) {
        /* Its first access may be alright on its own: the same instruction, without groups. */
        gpa_t gpa = block->gpa + block->marks[insn].offset;
        const uint8_t *bytes = bytes_at(jit, gpa);
        uint64_t generation = jit->generation;
        jit->stats.group_clones++;
        jit->executed -= jit->has_stats; /* the instruction begins again */
        struct jit_block *clone = bytes ? find_or_translate(jit, gpa, bytes, block->mode | MODE_NO_GROUPS) : NULL;
        if (clone && generation == jit->generation)
            return jit->code.execute + clone->hot;
        return go_on(jit);
    }
    jit->stats.slow_accesses++;
    return execute_by_handler(jit, block, insn, JIT_IN_C_SLOW_ACCESS);
}

/* ---- Jumps ---- */

/* A branch back to `block` was taken: it may be a loop that is better translated as such. Returns what to go on with. */
static struct jit_block *try_loop(struct jit *jit, struct jit_block *block, const uint8_t *bytes)
{
    uint64_t generation = jit->generation;

    if (block->loop_tried)
        return block;
    block->loop_tried = true;
    jit_cache_make_room(jit);
    if (generation != jit->generation)
        return block;
    struct jit_block *loop = jit_translate_loop(jit, block->gpa, bytes, block->mode);
    if (!loop)
        return block;
    jit_block_drop(jit, block);
    announce(jit, loop);
    return loop;
}

/* The target is an instruction that lies in two pages: the link leads to a look-up from now on. */
static void link_by_lookup(struct jit *jit, const struct jit_block *block, const struct link *link,
                           const struct stub_info *info)
{
    struct emitter *e = &jit->cold;
    const uint8_t *start = emit_here(e);

    if (link->flags_elsewhere || !jit_cache_has_room(jit))
        return;
    jit_emit_page_address(jit, e, link->page_offset, block->mode & MODE_CODE64);
    jit_emit_jump_by_lookup(jit, e, (uint32_t)origin_of(info));
    emit_patch_rel32(jit->code.write + link->patch, jit->hot.delta, start);
}

static const void *follow_link(struct jit *jit, const uint8_t *stub)
{
    const struct link_info *info = RECORD_OF(stub, struct link_info);
    struct jit_block *block = block_of(jit, &info->stub);
    struct link *link = &jit_links(block)[info->link];
    gpa_t gpa = (block->gpa & PAGE_MASK) | link->page_offset;
    uint64_t generation = jit->generation;

    jit->cpu->cpu_rip = wrap_rip(jit, jit->vpage + link->page_offset);
    settle_flags(jit, block, info->flags_source);
    const uint8_t *bytes = block->valid ? bytes_at(jit, gpa) : NULL;
    if (!bytes)
        return go_on(jit);
    jit_mode_t mode = (jit_mode_t)((block->mode & MODE_KEY) | (link->no_groups ? MODE_NO_GROUPS : 0));
    struct jit_block *target = find_or_translate(jit, gpa, bytes, mode);
    if (target && generation == jit->generation && gpa <= block->gpa && !link->no_groups)
        target = try_loop(jit, target, bytes);
    if (!target && generation == jit->generation)
        link_by_lookup(jit, block, link, &info->stub);
    if (!target || generation != jit->generation)
        return go_on(jit);
    if (block->valid) /* it may have been the loop */
        jit_link(jit, link, target);
    return jit->code.execute + target->hot;
}

static const void *jump(struct jit *jit);

/* A direct jump to another page, which is linked for as long as the salt is what it is now. */
static const void *follow_far_link(struct jit *jit, const uint8_t *stub)
{
    struct cpu *cpu = jit->cpu;
    const struct far_info *info = RECORD_OF(stub, struct far_info);
    struct jit_block *block = block_of(jit, &info->stub), *target;
    struct link *link = &jit_links(block)[info->link];
    gva_t vpage = jit->vpage;
    uint64_t generation = jit->generation;
    bool faulted;

    settle_flags(jit, block, 0);
    cpu->cpu_rip = jit->t0; /* thunk_far worked it out */
    jit->origin = origin_of(&info->stub);
    if (!is_canonical_rip(cpu, jit->t0) || jit_attention_due(cpu))
        return jump(jit);
    const void *entry = jit_find_entry(jit, &faulted);
    if (!entry)
        return no_entry(jit, faulted);
    target = jit->found;
    if (generation != jit->generation || !block->valid || target->mode & MODE_CROSSING)
        return entry;
    /* Where the jump comes from counts as entered, too. */
    uint32_t number = jit->current.number;
    jit_note_view(jit, block->gpa, vpage);
    if (number == jit->current.number)
        jit_link(jit, link, target);
    return entry;
}

/* A jump to T0 that cannot be: the fault is the jump's own, and what it did to rsp is undone. */
static const void *bad_target(struct jit *jit)
{
    struct cpu *cpu = jit->cpu;

    if (jit->origin >> 63)
        jit->origin = origin_of(RECORD_OF((const uint8_t *)(uintptr_t)~jit->origin, struct stub_info));
    struct jit_block *block = (struct jit_block *)(jit->arena + (jit->origin & ~63ull));
    unsigned insn = jit->origin & 63;
    if (!jit->origin && (jit->single_limit || jit->slices))
        return leave(jit, STEP_NEXT); /* the fault is the next instruction's, that cannot be fetched */
    if (!jit->origin) {
        raise_fault(cpu, VECTOR_GP, 0);
        return deliver_fault(jit);
    }
    const struct iop *op = find_iop(jit, block, insn);
    cpu->cpu_rip = rip_of(jit, block, insn);
    jit->single_executed = insn;
    if (op && op->insn.row->handler == HANDLER_ret)
        cpu->gpr[REG_RSP] -= 8;
    else if (op && op->insn.row->handler == HANDLER_ret_imm)
        cpu->gpr[REG_RSP] -= 8 + (uint64_t)(uint16_t)op->insn.imm;
    else if (op && (op->insn.row->handler == HANDLER_call_ind || op->insn.row->handler == HANDLER_call))
        cpu->gpr[REG_RSP] += 8;
    raise_fault(cpu, VECTOR_GP, 0);
    return deliver_fault(jit);
}

static const void *jump(struct jit *jit)
{
    struct cpu *cpu = jit->cpu;

    settle_flags(jit, NULL, 0);
    cpu->cpu_rip = jit->t0;
    if (unlikely(!is_canonical_rip(cpu, jit->t0)))
        return bad_target(jit);
    return go_on(jit);
}

/* ---- Entry points of the thunks ---- */

void jit_load_flags(struct jit *jit)
{
    struct cpu *cpu = jit->cpu;

    jit->interrupts = cpu->rflags & FLAG_IF;
    jit->flags_base = cpu->rflags & ~(uint64_t)(FLAGS_ARITH | FLAG_IF | FLAG_RF | FLAG_VM);
    jit->tsc_offset = cpu->msrs.tsc_adjust - cpu->clock->tsc_base;
}

static void take_flags(struct jit *jit)
{
    jit->cpu->rflags = (jit->cpu->rflags & ~(uint64_t)FLAG_IF) | jit->interrupts;
}

static const void *slow(struct jit *jit, const uint8_t *stub)
{
    struct cpu *cpu = jit->cpu;
    const struct stub_info *info = RECORD_OF(stub, struct stub_info);
    struct jit_block *block;

    switch ((enum stub_kind)(info->kind & STUB_KIND)) {
    case STUB_READ:
    case STUB_WRITE:
    case STUB_GROUP_READ:
    case STUB_GROUP_WRITE:
        return slow_access(jit, stub);
    case STUB_LINK:
        return follow_link(jit, stub);
    case STUB_FAR_LINK:
        return follow_far_link(jit, stub);
    case STUB_HELPER:
        block = block_of(jit, info);
        cpu->cpu_rip = rip_of(jit, block, info->insn);
        settle_flags(jit, block, 0);
        jit->stats.helpers++;
        return execute_by_handler(jit, block, info->insn, JIT_IN_C_HELPER);
    case STUB_ENTERED:
        block = block_of(jit, info);
        cpu->cpu_rip = rip_of(jit, block, 0);
        jit_park(cpu);
        jit_log_entry(jit, block);
        return stub;
    case STUB_LOOKUP:
        return jump(jit);
    case STUB_POLL_AT:
        jit->t0 = wrap_rip(jit, jit->vpage + (uint64_t)(int64_t)RECORD_OF(stub, struct poll_info)->distance);
        jit->origin = origin_of(info);
        jit->stats.polls++;
        settle_flags(jit, block_of(jit, info), RECORD_OF(stub, struct poll_info)->flags_source);
        return jump(jit);
    case STUB_POLL:
        jit->stats.polls++;
        return jump(jit);
    case STUB_DONE:
        jit->origin = origin_of(info);
        jit->single_executed = info->insn + 1u;
        return jump(jit);
    }
    return leave(jit, STEP_RESYNC);
}

const void *jit_slow(struct cpu *cpu, const uint8_t *stub)
{
    struct jit *jit = jit_of(cpu);

    if (EIDOLON_ALWAYS_PARK)
        jit_park(cpu);
    take_flags(jit);
    const void *resume = slow(jit, stub);
    jit_load_flags(jit);
    return resume;
}

static unsigned insn_at(const struct jit_block *block, unsigned offset)
{
    unsigned low = 0, high = block->insn_count;

    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (block->marks[middle].host <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* A host signal inside a block: the instruction is executed by its handler, which raises what is due. */
const void *jit_fault(struct cpu *cpu, const uint8_t *unused)
{
    struct jit *jit = jit_of(cpu);
    const uint8_t *pc = (const uint8_t *)(uintptr_t)jit->fault_pc;
    struct jit_block *block = jit->single_block ? jit->single_block : jit_block_by_pc(jit, pc);
    unsigned insn = insn_at(block, (unsigned)(pc - jit->code.execute) - block->hot);

    (void)unused;
    if (EIDOLON_ALWAYS_PARK)
        jit_park(cpu);
    cpu->cpu_rip = rip_of(jit, block, insn);
    take_flags(jit);
    settle_flags(jit, block, block->marks[insn].flags_source);
    jit->stats.host_faults++;
    uint64_t faults = jit->stats.faults;
    const void *resume = execute_by_handler(jit, block, insn, JIT_IN_C_FAULT);
    if (faults == jit->stats.faults) { /* the lockstep engine reports it as a difference */
        jit->stray_faults++;
        if (!jit->slices && !jit->single_block &&
            jit->fault_signal != JIT_SIGILL) /* a form that 64-bit mode does not have */
            jit_die_of_stray_fault(jit, block);
    }
    jit_load_flags(jit);
    return resume;
}
