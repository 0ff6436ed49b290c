/* The context of translated code: the CPU's mode as a key of translations, and what is remembered by virtual address (jump cache, far links,
 * return stack), which holds for a mode and an address space as long as no execute mapping may have changed (docs/design.md 9.5).
 *
 * vCPU thread only; general registers only. */
#include "cpu/system_internal.h"
#include "jit/jit_internal.h"

/* ---- Mode ---- */

jit_mode_t jit_current_mode(const struct cpu *cpu)
{
    unsigned mode = (unsigned)cpu->privilege << MODE_PRIVILEGE_SHIFT | (unsigned)cpu->cpl << MODE_CPL_SHIFT;
    bool available = !(cpu->cr0 & (CR0_EM | CR0_TS));

    if (cpu->code_size == CODE64)
        mode |= MODE_CODE64;
    if (available && (cpu->cr4 & CR4_OSFXSR))
        mode |= MODE_SSE;
    if (!(cpu->cr0 & CR0_TS) && (cpu->cr4 & CR4_OSXSAVE) && (cpu->xcr0 & 6) == 6)
        mode |= MODE_AVX;
    if (available && (cpu->cr0 & CR0_NE))
        mode |= MODE_X87;
    if (!cpu->cpl || !(cpu->cr4 & CR4_TSD))
        mode |= MODE_TSC;
    if (cpu->cr4 & CR4_FSGSBASE)
        mode |= MODE_FSGSBASE;
    return (jit_mode_t)mode;
}

bool jit_can_run(const struct cpu *cpu)
{
    if (cpu_needs_stepping(cpu) || cpu->checked_access)
        return false;
    if (cpu->code_size == CODE64)
        return true;
    const struct segment_register *s = cpu->segs;
    return cpu->code_size == CODE32 && cpu_protected(cpu) && !cpu_v86(cpu) && s[SEG_CS].flat && s[SEG_DS].flat &&
           s[SEG_ES].flat && s[SEG_SS].flat && (s[SEG_SS].attributes & SEG_ATTR_DB);
}

/* ---- What is remembered by virtual address ---- */

static bool same_owner(const struct mode_salt *a, const struct mode_salt *b)
{
    return a->number == b->number && a->mode == b->mode;
}

/* The stack so far is set aside; what is pushed from now on lies above a sentinel. */
static bool keep_stack(struct jit *jit, struct kept_stack *kept, const struct mode_salt *owner)
{
    if (jit->return_sp - 8192 < (uint64_t)(uintptr_t)jit->return_stack)
        return false;
    *kept = (struct kept_stack){ jit->return_sp, *owner };
    jit->return_sp -= RETURN_FRAME; /* stays a multiple: see jit_signal.c */
    *(uint64_t *)jit->return_sp = (uint64_t)(uintptr_t)jit->thunk_return_empty;
    return true;
}

static bool take_stack_back(struct jit *jit, struct kept_stack *kept, const struct mode_salt *owner)
{
    if (!kept->sp || !same_owner(&kept->owner, owner))
        return false;
    jit->return_sp = kept->sp;
    kept->sp = 0;
    return true;
}

/* Return predictions belong to one mode and address space: a barrier on entry to the kernel (and where it sets AC), taken away on the way
 * back (design, 6a.7). */
static void change_stack(struct jit *jit, const struct mode_salt *from, const struct mode_salt *to)
{
    bool was_user = jit_mode_cpl(from->mode) == 3, is_user = jit_mode_cpl(to->mode) == 3;
    unsigned from_privilege = from->mode >> MODE_PRIVILEGE_SHIFT & 3,
             to_privilege = to->mode >> MODE_PRIVILEGE_SHIFT & 3;

    if (was_user && !is_user) {
        jit->outer_stack.sp = 0;
        if (keep_stack(jit, &jit->user_stack, from))
            return;
    } else if (!was_user && is_user) {
        jit->outer_stack.sp = 0;
        if (take_stack_back(jit, &jit->user_stack, to))
            return;
    } else if (from_privilege == MMU_SUPERVISOR && to_privilege == MMU_SUPERVISOR_AC) {
        if (keep_stack(jit, &jit->outer_stack, from))
            return;
    } else if (from_privilege == MMU_SUPERVISOR_AC && to_privilege == MMU_SUPERVISOR) {
        if (take_stack_back(jit, &jit->outer_stack, to))
            return;
    }
    jit_empty_return_stack(jit);
}

static struct mode_salt *salt_slot(struct jit *jit, jit_mode_t mode, uint32_t space)
{
    return &jit->salts[(mode ^ mode >> 3 ^ space * 7) % SALTS];
}

static void forget_access_switch(struct jit *jit)
{
    for (unsigned ac = 0; ac < ARRAY_SIZE(jit->access_switch.sides); ac++)
        jit->access_switch.sides[ac].current.number = 0;
}

static void forget_salts(struct jit *jit, bool supervisor)
{
    for (unsigned n = 0; n < SALTS; n++)
        if (supervisor || jit->salts[n].space)
            jit->salts[n].number = 0;
    if (supervisor || jit->system_call.kernel.space)
        jit->system_call.valid = 0;
    if (supervisor || jit->access_switch.sides[0].current.space)
        forget_access_switch(jit);
}

/* The number of (mode, space); a new one if there is none. Entries of the jump cache tell only 65536 numbers in a row apart: when those
 * begin again, whoever has a number needs another one. */
static struct mode_salt find_salt(struct jit *jit, jit_mode_t mode, uint32_t space)
{
    struct mode_salt *slot = salt_slot(jit, mode, space);
    uint32_t last = jit->salt_number;

    if (slot->number && slot->mode == mode && slot->space == space)
        return *slot;
    uint32_t number = jit_new_salt(jit);
    if ((number ^ last) >> 16) {
        forget_salts(jit, true);
        jit->user_stack.sp = jit->outer_stack.sp = 0;
        jit->current.number = 0;
    }
    *slot = (struct mode_salt){ number, space, mode };
    return *slot;
}

/* The number must not be relied on any more. What is set aside in outer_stack is compared with the numbers before it is taken back. */
static void forget_number(struct jit *jit, uint32_t number)
{
    if (jit->system_call.kernel.number == number)
        jit->system_call.valid = 0;
    if (jit->user_stack.owner.number == number)
        jit->user_stack.sp = 0; /* SYSRET would return to it */
    for (unsigned n = 0; n < SALTS; n++)
        if (jit->salts[n].number == number)
            jit->salts[n].number = 0;
    for (unsigned ac = 0; ac < ARRAY_SIZE(jit->access_switch.sides); ac++)
        if (jit->access_switch.sides[ac].current.number == number)
            forget_access_switch(jit);
}

/* Anything but the privilege has changed: what was set aside does not fit any more. */
static void check_kept(struct jit *jit, jit_mode_t from, jit_mode_t to)
{
    const unsigned privilege = 3u << MODE_PRIVILEGE_SHIFT | 3u << MODE_CPL_SHIFT | MODE_TSC | MODE_CODE64;

    if (((from ^ to) & ~privilege) == 0)
        return;
    jit->user_stack.sp = jit->outer_stack.sp = 0;
    jit->system_call.valid = 0;
}

/* Brings what was remembered by virtual address into line with the CPU's mode and execute mappings. */
jit_mode_t jit_sync_context(struct jit *jit)
{
    struct cpu *cpu = jit->cpu;
    const struct mmu *mmu = &cpu->mmu;
    jit_mode_t mode = jit_current_mode(cpu);

    if (unlikely(jit->flush_wanted))
        jit_cache_flush(jit);
    if (unlikely(jit->exec_global_generation != mmu->exec_global_generation)) {
        jit->exec_global_generation = mmu->exec_global_generation;
        jit->exec_space_generation = mmu->exec_space_generation;
        jit->supervisor_local = false;
        forget_salts(jit, true);
        jit->current.number = 0;
    } else if (unlikely(jit->exec_space_generation != mmu->exec_space_generation)) {
        jit->exec_space_generation = mmu->exec_space_generation;
        forget_salts(jit, false);
        if (jit->current.space)
            jit->current.number = 0;
        jit->user_stack.sp = 0;
    }
    uint32_t space = jit_mode_cpl(mode) == 3 || jit->supervisor_local ? mmu->space : 0;
    if (likely(jit->current.number && jit->current.mode == mode && jit->current.space == space))
        return mode;
    check_kept(jit, jit->current.mode, mode);
    struct mode_salt next = find_salt(jit, mode, space);
    if (jit->current.number)
        change_stack(jit, &jit->current, &next);
    else
        jit_empty_return_stack(jit);
    jit->current = next;
    jit_use_salt(jit, next.number);
    return mode;
}

/* What was remembered for all spaces does not hold in each. */
void jit_supervisor_is_local(struct jit *jit)
{
    jit->supervisor_local = true;
    jit->system_call.valid = 0;
    forget_access_switch(jit);
    jit_sync_context(jit);
}

/* The page at gpa is entered at rip. Far links, and the jump cache, rely on its lying at one address only as long as the salt is
 * the same: a page that shows up at a second one begins a new salt. */
void jit_note_view(struct jit *jit, gpa_t gpa, gva_t rip)
{
    struct code_page *page = jit_page_of(jit, gpa);
    uint32_t number = jit->current.number;
    gva_t vpage = rip & PAGE_MASK;

    for (unsigned n = 0; n < PAGE_VIEWS; n++) {
        if (page->views[n].number != number)
            continue;
        if (page->views[n].vpage == vpage)
            return;
        forget_number(jit, number);
        jit->current.number = 0;
        jit_sync_context(jit);
        number = jit->current.number;
        break;
    }
    unsigned oldest = page->next_view++ % PAGE_VIEWS;
    if (page->views[oldest].number) /* what is not noted any more must not be relied on */
        forget_number(jit, page->views[oldest].number);
    page->views[oldest].number = number;
    page->views[oldest].vpage = vpage;
}

/* ---- STAC, CLAC ---- */

static bool is_remembered(struct jit *jit, const struct mode_salt *salt)
{
    const struct mode_salt *slot = salt_slot(jit, salt->mode, salt->space);

    return salt->number && slot->number == salt->number && same_owner(slot, salt);
}

void jit_access_switch_prepare(struct jit *jit, const struct mode_salt *from)
{
    const struct mode_salt *to = &jit->current;
    bool ac = (to->mode >> MODE_PRIVILEGE_SHIFT & 3) == MMU_SUPERVISOR_AC;
    unsigned differ = (unsigned)(MMU_SUPERVISOR ^ MMU_SUPERVISOR_AC) << MODE_PRIVILEGE_SHIFT;

    forget_access_switch(jit);
    if ((from->mode ^ to->mode) != differ || from->space != to->space || jit_mode_cpl(to->mode) == 3 ||
        !is_remembered(jit, from) || !is_remembered(jit, to))
        return;
    for (unsigned n = 0; n < 2; n++) {
        const struct mode_salt *salt = n == ac ? to : from;
        uint64_t high = (uint64_t)salt->number << 48;
        jit->access_switch.sides[n] = (struct access_side){ high, 0 - high, 0 - salt->number, *salt };
    }
}
