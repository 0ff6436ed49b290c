/* The pieces of host code that all blocks share, written once when the translator is created: the way in and out, the call
 * of C from a cold stub, the second look at the TLB when a site's prediction fails, the lookup of a jump's target.
 *
 * All of them keep guest registers and the host's arithmetic flags. vCPU thread only; they run on the return stack, C code
 * that they call on the thread's own. */
#include <stddef.h>

#include "jit/jit_internal.h"

_Static_assert(sizeof(struct tlb_entry) == 32, "thunk_access");

const uint8_t host_of_guest[16] = {
    HOST_RAX, HOST_R9,    HOST_RDX,   HOST_RBX,   HOST_R10, HOST_RBP, HOST_RSI, HOST_RDI,
    HOST_R8,  NOT_PINNED, NOT_PINNED, NOT_PINNED, HOST_R12, HOST_R13, HOST_R14, NOT_PINNED,
};

static struct host_operand guest_register(const struct jit *jit, unsigned guest)
{
    return host_at(&jit->cpu->gpr[guest]);
}

static void save_registers(struct jit *jit, struct emitter *e)
{
    for (unsigned guest = 0; guest < 16; guest++)
        if (is_pinned(guest))
            emit_store(e, guest_register(jit, guest), host_of_guest[guest]);
    emit_store(e, host_at(&jit->t0), T0);
    emit_store(e, host_at(&jit->t1), T1);
    emit_store(e, host_at(&jit->a0), A0);
    emit_flags_to_ax(e);
    emit_store(e, host_at(&jit->flags_ax), HOST_RAX);
}

static void load_registers(struct jit *jit, struct emitter *e)
{
    emit_load(e, HOST_RAX, host_at(&jit->flags_ax));
    emit_flags_from_ax(e);
    for (unsigned guest = 0; guest < 16; guest++)
        if (is_pinned(guest))
            emit_load(e, host_of_guest[guest], guest_register(jit, guest));
    emit_load(e, T0, host_at(&jit->t0));
    emit_load(e, T1, host_at(&jit->t1));
    emit_load(e, A0, host_at(&jit->a0));
}

static void call_c(struct emitter *e, const void *function)
{
    emit_mov_imm64(e, HOST_RAX, (uint64_t)(uintptr_t)function);
    emit8(e, 0xff); /* call rax */
    emit8(e, 0xd0);
}

/* On the C stack; the guest's registers are in memory. RAX: where to go on. */
static const uint8_t *emit_resume(struct jit *jit, struct emitter *e)
{
    struct cpu *cpu = jit->cpu;
    const uint8_t *start = emit_here(e);

    emit_store(e, host_at(&jit->resume), HOST_RAX);
    emit8(e, 0x80); /* cmp byte [vectors_live], 0 */
    struct host_operand live = host_at(&cpu->vectors_live);
    emit_modrm_memory(e, 7, &live, 1);
    emit8(e, 0);
    uint8_t *is_live = emit_short(e, 0x75);
    emit_mov_imm64(e, HOST_RDI, (uint64_t)(uintptr_t)cpu);
    call_c(e, jit_unpark);
    emit_short_here(e, is_live);
    emit_load(e, HOST_RSP, host_at(&jit->return_sp));
    load_registers(jit, e);
    emit_jmp_mem(e, host_at(&jit->resume));
    return start;
}

static const uint8_t saved_by_callee[] = { HOST_RBX, HOST_RBP, HOST_R12, HOST_R13, HOST_R14, HOST_R15 };

/* uint64_t enter(const void *target): returns when C code says so. */
static void emit_enter(struct jit *jit, struct emitter *e, const uint8_t **resume, const uint8_t **leave)
{
    const uint8_t *start = emit_here(e);

    for (unsigned i = 0; i < sizeof(saved_by_callee); i++) {
        if (saved_by_callee[i] & 8)
            emit8(e, 0x41);
        emit8(e, 0x50 | (saved_by_callee[i] & 7));
    }
    emit_lea(e, HOST_RSP, host_base(HOST_RSP, -8)); /* calls from here find the stack aligned */
    emit_store(e, host_at(&jit->c_sp), HOST_RSP);
    emit_mov_rr(e, HOST_RAX, HOST_RDI);
    *resume = emit_resume(jit, e);
    *leave = emit_here(e);
    emit_lea(e, HOST_RSP, host_base(HOST_RSP, 8));
    for (unsigned i = sizeof(saved_by_callee); i-- > 0;) {
        if (saved_by_callee[i] & 8)
            emit8(e, 0x41);
        emit8(e, 0x58 | (saved_by_callee[i] & 7));
    }
    emit8(e, 0xc3);
    jit->enter = (uint64_t(*)(const void *))(uintptr_t)start;
}

static const uint8_t *emit_slow(struct jit *jit, struct emitter *e, const void *function, bool called,
                                const uint8_t *resume, const uint8_t *leave)
{
    const uint8_t *start = emit_here(e);

    save_registers(jit, e);
    if (called) {
        emit8(e, 0x5e); /* pop rsi: the stub */
        emit_store(e, host_at(&jit->stub), HOST_RSI);
    }
    emit_store(e, host_at(&jit->return_sp), HOST_RSP);
    emit_load(e, HOST_RSP, host_at(&jit->c_sp));
    emit_store8_imm(e, host_at(&jit->cpu->vectors_live), 1);
    emit_mov_imm64(e, HOST_RDI, (uint64_t)(uintptr_t)jit->cpu);
    call_c(e, function);
    emit_rr(e, true, 0x85, HOST_RAX, HOST_RAX); /* test rax, rax */
    emit_jcc(e, CC_NE, resume);
    emit_jmp(e, leave);
    return start;
}

/* A call of thunk_slow that is nobody's stub. */
static void emit_slow_call(struct jit *jit, struct emitter *e, enum stub_kind kind)
{
    struct stub_info info = { .kind = (uint8_t)kind };

    emit_bytes(e, &info, sizeof(info));
    emit_call(e, jit->thunk_slow);
}

/* ---- TLB ---- */

/* T1: the L1 entry of the address in T0 (mmu_l1_index). Below 2 GiB only. */
void jit_emit_l1_entry(struct jit *jit, struct emitter *e, unsigned privilege)
{
    _Static_assert(MMU_L1_BITS == PAGE_SHIFT, "one shift mixes the page number");
    emit_mov_rr(e, T1, T0);
    emit_bytes(e, "\x48\xc1\xe9", 3); /* shr rcx, 12 */
    emit8(e, MMU_L1_BITS);
    emit_rr(e, true, 0x33, T1, T0);   /* xor rcx, r11 */
    emit_bytes(e, "\x48\xc1\xe9", 3); /* shr rcx, 7: index * 32 */
    emit8(e, PAGE_SHIFT - 5);
    emit_bytes(e, "\x81\xe1", 2); /* and ecx, 4095 * 32 */
    emit32(e, (MMU_L1_SIZE - 1) << 5);
    emit_lea(e, T1, host_base(T1, (int32_t)(uintptr_t)jit->cpu->mmu.l1[privilege]));
}

/* A member of the record of the stub that R15 leads to. */
#define RECORD(type, member)                                                                                           \
    host_base(HOST_R15, (int32_t)offsetof(struct type, member) - (int32_t)(STUB_CALL_SIZE + sizeof(struct type)))

static void restore_after_access(struct jit *jit, struct emitter *e)
{
    emit_load(e, HOST_R15, host_at(&jit->r15));
    emit_load(e, HOST_RAX, host_at(&jit->flags_ax));
    emit_flags_from_ax(e);
    emit_load(e, HOST_RAX, host_at(&jit->rax));
}

/* The address into T0, whatever the check has made of it. R15 leads to the stub's record. */
static void recover_address(struct jit *jit, struct emitter *e, enum access_form form, int32_t tag)
{
    if (form == FORM_XORED) {
        emit_rm(e, true, 0x33, T0, host_base(T1, tag));
    } else if (form == FORM_OFFSET) {
        struct host_operand site = { .base = HOST_RAX, .index = T1, .scale = 3 };
        emit_load32(e, T1, RECORD(access_info, site));
        emit_lea(e, HOST_RAX, host_at(jit->sites));
        emit_load(e, T1, site);
        emit_load(e, T1, host_base(T1, tag));
        emit_lea(e, T0, host_base_index(T0, T1, 0));
    }
}

/* -d jitstats. RAX is free. */
static void emit_count_misprediction(struct jit *jit, struct emitter *e)
{
    if (!jit->has_stats)
        return;
    emit_load(e, HOST_RAX, host_at(&jit->stats.mispredicted));
    emit_lea(e, HOST_RAX, host_base(HOST_RAX, 1));
    emit_store(e, host_at(&jit->stats.mispredicted), HOST_RAX);
}

/* A site's prediction failed: looks into the L1 TLB by hash. On return T0 is the offset in the page, T1 the host page, and
 * the site predicts the entry. If it is not there, or the access crosses the page: C; a group that crosses returns to its alternative, behind
 * the stub's jump. */
static const uint8_t *emit_access(struct jit *jit, struct emitter *e, bool write, enum access_form form,
                                  unsigned privilege)
{
    const uint8_t *start = emit_here(e);
    int32_t tag = write ? offsetof(struct tlb_entry, tag_w) : offsetof(struct tlb_entry, tag_r);
    int32_t host = write ? offsetof(struct tlb_entry, host_w) : offsetof(struct tlb_entry, host_r);

    emit_store(e, host_at(&jit->rax), HOST_RAX);
    emit_flags_to_ax(e);
    emit_store(e, host_at(&jit->flags_ax), HOST_RAX);
    emit_store(e, host_at(&jit->r15), HOST_R15);
    emit_count_misprediction(jit, e);
    emit_load(e, HOST_R15, host_base(HOST_RSP, 0));
    recover_address(jit, e, form, tag);
    emit_mov_rr(e, T1, T0);
    emit8(e, 0x48); /* shr rcx, 7: index * 32 */
    emit8(e, 0xc1);
    emit8(e, 0xe9);
    emit8(e, PAGE_SHIFT - 5);
    emit_mov_rr(e, HOST_RAX, T1); /* mmu_l1_index */
    emit8(e, 0x48);               /* shr rax, 10 */
    emit8(e, 0xc1);
    emit8(e, 0xe8);
    emit8(e, MMU_L1_BITS);
    emit_rr(e, true, 0x33, T1, HOST_RAX); /* xor rcx, rax */
    emit8(e, 0x81);                       /* and ecx, 1023 * 32 */
    emit8(e, 0xe1);
    emit32(e, (MMU_L1_SIZE - 1) << 5);
    emit_lea(e, HOST_RAX, host_at(&jit->cpu->mmu.l1[privilege]));
    emit_rr(e, true, 0x03, HOST_RAX, T1); /* add rax, rcx */
    emit_mov_rr(e, T1, T0);
    emit_rm(e, true, 0x33, T1, host_base(HOST_RAX, tag)); /* xor rcx, [rax + tag] */
    emit_cmp_imm(e, T1, PAGE_SIZE - 1);
    uint8_t *other_page = emit_short(e, 0x77); /* ja */
    emit8(e, 0x66);                            /* cmp cx, [r15 + limit] */
    emit_rm(e, false, 0x3b, T1, RECORD(access_info, limit));
    uint8_t *crosses = emit_short(e, 0x77), *frequent = NULL;
    if (jit->is_low) { /* add word [site_misses + site * 2], 1 */
        struct host_operand misses = {
            .base = HOST_NONE, .index = T1, .scale = 1, .disp = (int32_t)(uintptr_t)jit->site_misses
        };
        emit_load32(e, T1, RECORD(access_info, site));
        emit_bytes(e, "\x66\x83", 2);
        emit_modrm_memory(e, 0, &misses, 1);
        emit8(e, 1);
        frequent = emit_short(e, 0x70 | CC_B);
        emit_mov_rr(e, T1, T0);
        emit_rm(e, true, 0x33, T1, host_base(HOST_RAX, tag));
    }
    emit_mov_rr(e, T0, T1);
    emit_load32(e, T1, RECORD(access_info, site));
    emit_lea(e, HOST_R15, host_at(jit->sites));
    struct host_operand site = { .base = HOST_R15, .index = T1, .scale = 3 };
    emit_store(e, site, HOST_RAX);
    emit_load(e, T1, host_base(HOST_RAX, host));
    restore_after_access(jit, e);
    emit8(e, 0xc3);
    emit_short_here(e, crosses);
    emit8(e, 0x41); /* test byte [r15 + kind], STUB_HAS_ALTERNATIVE */
    emit8(e, 0xf6);
    struct host_operand options = RECORD(access_info, stub.kind);
    emit_modrm_memory(e, 0, &options, 1);
    emit8(e, STUB_HAS_ALTERNATIVE);
    uint8_t *none = emit_short(e, 0x74);
    restore_after_access(jit, e);
    emit8(e, 0x59); /* pop rcx: over the jump back */
    emit_lea(e, T1, host_base(T1, STUB_JUMP_SIZE));
    emit8(e, 0xff); /* jmp rcx */
    emit8(e, 0xe1);
    emit_short_here(e, other_page);
    emit_short_here(e, none);
    if (frequent)
        emit_short_here(e, frequent);
    restore_after_access(jit, e);
    emit_jmp(e, jit->thunk_slow);
    return start;
}

/* The same where the flags are clobbered anyway and everything is below 2 GiB: half as long. */
static const uint8_t *emit_short_access(struct jit *jit, struct emitter *e, bool write, unsigned privilege)
{
    const uint8_t *start = emit_here(e);
    int32_t tag = write ? offsetof(struct tlb_entry, tag_w) : offsetof(struct tlb_entry, tag_r);
    int32_t host = write ? offsetof(struct tlb_entry, host_w) : offsetof(struct tlb_entry, host_r);
    int32_t info = -(int32_t)(STUB_CALL_SIZE + sizeof(struct access_info));
    struct host_operand site = {
        .base = HOST_NONE, .index = HOST_RAX, .scale = 3, .disp = (int32_t)(uintptr_t)jit->sites
    };
    struct host_operand misses = {
        .base = HOST_NONE, .index = HOST_RAX, .scale = 1, .disp = (int32_t)(uintptr_t)jit->site_misses
    };

    emit_store(e, host_at(&jit->rax), HOST_RAX);
    emit_count_misprediction(jit, e);
    emit_rm(e, true, 0x33, T0, host_base(T1, tag));
    jit_emit_l1_entry(jit, e, privilege);
    emit_load(e, HOST_RAX, host_base(HOST_RSP, 0));
    emit_rm(e, true, 0x33, T0, host_base(T1, tag));
    emit_cmp_imm(e, T0, PAGE_SIZE - 1);
    uint8_t *other_page = emit_short(e, 0x77); /* ja */
    emit8(e, 0x66);                            /* cmp r11w, [rax + limit] */
    emit_rm(e, false, 0x3b, T0, host_base(HOST_RAX, info + (int32_t)offsetof(struct access_info, limit)));
    uint8_t *crosses = emit_short(e, 0x77);
    emit_load32(e, HOST_RAX, host_base(HOST_RAX, info + (int32_t)offsetof(struct access_info, site)));
    emit_bytes(e, "\x66\x83", 2); /* add word [site_misses + site * 2], 1 */
    emit_modrm_memory(e, 0, &misses, 1);
    emit8(e, 1);
    uint8_t *frequent = emit_short(e, 0x70 | CC_B);
    emit_store(e, site, T1);
    emit_load(e, T1, host_base(T1, host));
    emit_load(e, HOST_RAX, host_at(&jit->rax));
    emit8(e, 0xc3);
    emit_short_here(e, crosses);
    emit8(e, 0xf6); /* test byte [rax + kind], STUB_HAS_ALTERNATIVE */
    struct host_operand options = host_base(HOST_RAX, info + (int32_t)offsetof(struct access_info, stub.kind));
    emit_modrm_memory(e, 0, &options, 1);
    emit8(e, STUB_HAS_ALTERNATIVE);
    uint8_t *none = emit_short(e, 0x74);
    emit_load(e, HOST_RAX, host_at(&jit->rax));
    emit8(e, 0x59); /* pop rcx: over the jump back */
    emit_lea(e, T1, host_base(T1, STUB_JUMP_SIZE));
    emit_bytes(e, "\xff\xe1", 2); /* jmp rcx */
    emit_short_here(e, other_page);
    emit_short_here(e, none);
    emit_short_here(e, frequent);
    emit_rm(e, true, 0x33, T0, host_base(T1, tag));
    emit_load(e, HOST_RAX, host_at(&jit->rax));
    emit_jmp(e, jit->thunk_slow);
    return start;
}

/* ---- Jumps ---- */

bool jit_can_probe(const struct jit *jit)
{
    return jit->is_low && jit->has_bmi2;
}

/* Without PEXT, or where the tables cannot be addressed with an index: a hash, of which eight bits are used. */
unsigned jit_jump_index(const struct jit *jit, uint64_t key)
{
    uint64_t index = 0;

    if (!jit_can_probe(jit)) {
        __asm__("crc32q %1, %0" : "+r"(index) : "r"(key));
        return index & 0xff;
    }
    __asm__("pext %2, %1, %0" : "=r"(index) : "r"(key), "rm"(jit->jump_mask));
    return (unsigned)index;
}

void jit_emit_page_address(const struct jit *jit, struct emitter *e, int64_t page_offset, bool code64)
{
    struct host_operand address = host_base(T0, (int32_t)page_offset);

    emit_load(e, T0, host_at(&jit->vpage));
    if (code64)
        emit_lea(e, T0, address);
    else
        emit_lea32(e, T0, address);
}

void jit_emit_jump_by_lookup(const struct jit *jit, struct emitter *e, uint32_t origin)
{
    emit_mov_imm32(e, A0, origin);
    emit_jmp(e, jit->thunk_lookup);
}

struct probe jit_emit_probe(struct jit *jit, struct emitter *e, bool any_address)
{
    struct host_operand key = {
        .base = HOST_NONE, .index = T1, .scale = 3, .disp = (int32_t)(uintptr_t)jit->jump_keys
    };
    struct probe probe;

    emit_load32(e, T1, host_near(&jit->cpu->quiet));
    uint8_t *attention = emit_short(e, OPCODE_JRCXZ);
    emit_load(e, A0, host_at(&jit->salt));
    emit_lea(e, A0, host_base_index(A0, T0, 0));
    emit_pext(e, T1, A0, &jit->jump_mask);
    emit_load(e, T1, key);
    emit_lea(e, T1, host_base_index(T1, A0, 0));
    uint8_t *hit = emit_short(e, OPCODE_JRCXZ), *miss = e->p;
    emit8(e, 0xe9);
    emit32(e, 0);
    probe.missed = e->p - 4;
    emit_short_here(e, attention);
    emit8(e, 0xe9);
    emit32(e, 0);
    probe.attention = e->p - 4;
    emit_short_here(e, hit);
    if (any_address) { /* else an address that is not canonical would do for that of another salt, whatever its privilege */
        emit_canonical_check(e, T0, &jit->half_space);
        uint8_t *canonical = emit_short(e, OPCODE_JRCXZ), *not = emit_short(e, OPCODE_JMP8);
        *not = (uint8_t)(miss - (not +1));
        emit_short_here(e, canonical);
    }
    emit_pext(e, T1, T0, &jit->jump_mask); /* the salt is above these bits */
    return probe;
}

struct host_operand jit_probe_target(struct jit *jit)
{
    return (
        struct host_operand){ .base = HOST_NONE, .index = T1, .scale = 3, .disp = (int32_t)(uintptr_t)jit->jump_hosts };
}

static void emit_hashed_lookup(struct jit *jit, struct emitter *e)
{
    struct host_operand entry = { .base = A0, .index = T1, .scale = 3 };

    emit_load32(e, T1, host_near(&jit->cpu->quiet));
    uint8_t *attention = emit_short(e, OPCODE_JRCXZ);
    emit_load(e, T1, host_at(&jit->salt));
    emit_lea(e, T0, host_base_index(T0, T1, 0));
    emit_mov_imm32(e, T1, 0);
    emit_bytes(e, "\xf2\x49\x0f\x38\xf1\xcb", 6); /* crc32 rcx, r11 */
    emit_bytes(e, "\x0f\xb6\xc9", 3);             /* movzx ecx, cl */
    emit_lea(e, A0, host_at(jit->jump_keys));
    emit_lea(e, A0, entry);
    emit_load(e, T1, host_base(A0, 0));
    emit_lea(e, T1, host_base_index(T1, T0, 0));
    uint8_t *hit = emit_short(e, OPCODE_JRCXZ);
    emit_load(e, T1, host_at(&jit->negative_salt));
    emit_lea(e, T0, host_base_index(T0, T1, 0));
    emit_jmp(e, jit->thunk_missed);
    emit_short_here(e, attention);
    emit_jmp(e, jit->thunk_poll);
    emit_short_here(e, hit);
    emit_load(e, T1, host_at(&jit->negative_salt));
    emit_lea(e, T0, host_base_index(T0, T1, 0));
    emit_canonical_check(e, T0, &jit->half_space);
    uint8_t *canonical = emit_short(e, OPCODE_JRCXZ);
    emit_jmp(e, jit->thunk_missed);
    emit_short_here(e, canonical);
    emit_jmp_mem(e, host_base(A0, (int32_t)(offsetof(struct jit, jump_hosts) - offsetof(struct jit, jump_keys))));
}

/* T0: guest address; A0: the jump it is the target of (jit->origin). Flags are kept, since they may be live across an indirect jump. */
static void emit_lookup(struct jit *jit, struct emitter *e)
{
    jit->thunk_poll = e->p + e->delta + sizeof(struct stub_info);
    emit_slow_call(jit, e, STUB_POLL);
    jit->thunk_missed = e->p + e->delta + sizeof(struct stub_info);
    emit_slow_call(jit, e, STUB_LOOKUP);
    jit->thunk_lookup_direct = emit_here(e);
    emit_mov_imm32(e, A0, 0);
    jit->thunk_lookup = emit_here(e);
    emit_store(e, host_at(&jit->origin), A0);
    if (!jit_can_probe(jit)) {
        emit_hashed_lookup(jit, e);
        return;
    }
    struct probe probe = jit_emit_probe(jit, e, true);
    emit_jmp_mem(e, jit_probe_target(jit));
    emit_patch_rel32(probe.missed, e->delta, jit->thunk_missed);
    emit_patch_rel32(probe.attention, e->delta, jit->thunk_poll);
}

/* The miss of a far link: a look into the jump cache; when its counter has run out, C. */
static void emit_far(struct jit *jit, struct emitter *e)
{
    int32_t info = -(int32_t)(STUB_CALL_SIZE + sizeof(struct far_info));
    struct host_operand counter = { .base = A0, .index = T1, .scale = 3 };

    jit->thunk_far = emit_here(e);
    emit_load(e, A0, host_base(HOST_RSP, 0));
    emit_rm(e, true, 0x63, T1, host_base(A0, info + (int32_t)offsetof(struct far_info, distance))); /* movsxd */
    emit_load(e, T0, host_at(&jit->vpage));
    emit_lea(e, T0, host_base_index(T0, T1, 0));
    emit_load32(e, T1, host_base(A0, info + (int32_t)offsetof(struct far_info, counter)));
    emit_lea(e, A0, host_at(jit->sites));
    emit_lea(e, A0, counter);
    emit_load32(e, T1, host_base(A0, 0));
    uint8_t *link = emit_short(e, OPCODE_JRCXZ);
    emit_lea32(e, T1, host_base(T1, -1));
    emit_store32(e, host_base(A0, 0), T1);
    emit_load(e, A0, host_base(HOST_RSP, 0)); /* the origin: this stub */
    emit_bytes(e, "\x49\xf7\xd7", 3);         /* not r15 */
    emit_lea(e, HOST_RSP, host_base(HOST_RSP, 8));
    emit_jmp(e, jit->thunk_lookup);
    emit_short_here(e, link);
    emit_jmp(e, jit->thunk_slow);
}

/* Returns whose frame is not on the return stack any more. T0: guest address. */
static void emit_returns(struct jit *jit, struct emitter *e)
{
    jit->thunk_return_empty = emit_here(e);
    emit_lea(e, HOST_RSP, host_base(HOST_RSP, -8)); /* the sentinel stays */
    emit_jmp(e, jit->thunk_lookup);
    jit->thunk_return_invalid = emit_here(e); /* in the place of a continuation: its expected address is on the stack */
    emit8(e, 0x59);                           /* pop rcx */
    emit_jmp(e, jit->thunk_lookup);
}

void jit_thunks_create(struct jit *jit)
{
    struct emitter *e = &jit->hot;
    const uint8_t *resume, *leave;

    emit_enter(jit, e, &resume, &leave);
    jit->thunk_slow = emit_slow(jit, e, jit_slow, true, resume, leave);
    jit->thunk_fault = emit_slow(jit, e, jit_fault, false, resume, leave);
    for (unsigned write = 0; write < 2; write++)
        for (unsigned form = 0; form < ACCESS_FORMS; form++)
            for (unsigned privilege = 0; privilege < MMU_PRIVILEGES; privilege++)
                jit->thunk_access[write][form][privilege] = form == FORM_XORED && jit->is_low
                                                                ? emit_short_access(jit, e, write, privilege)
                                                                : emit_access(jit, e, write, form, privilege);
    emit_lookup(jit, e);
    emit_far(jit, e);
    emit_returns(jit, e);
    jit_system_thunks_create(jit);
    jit_string_thunks_create(jit);
    jit->code.thunks_size = (size_t)(e->p - jit->code.write);
}
