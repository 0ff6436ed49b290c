/* Several accesses off one base register (docs/design.md, "Soundness", lines 2 and 4). A translator may check such a
 * group once, at its beginning; here random groups meet page ends behind which there is nothing, or memory that is
 * read-only, a supervisor's, or no memory at all, and effective addresses of 32 bits that wrap. A model of a few lines
 * runs beside them: registers, memory, the fault and where it comes, accessed and dirty bits. SDM Vol. 1 3.3.7, 3.6;
 * Vol. 3A 4.6 to 4.8. */
#include "soundness_world.h"

/* ---- The model ---- */

enum { MAX_STEPS = 10, RUNS = 4 };

/* PUSH and POP only beside accesses off RSP; MOVE: LEA of the base itself, a little further; from
 * COMPARE on: registers only, for the flags */
enum kind { LOAD, STORE, ADD_TO_MEMORY, ADC_FROM_MEMORY, MOVE, PUSH, POP, COMPARE, ADD, SUB, SBB, AND, INC };

struct step {
    enum kind kind;
    unsigned size, reg, base, index, scale, at; /* at: where its code begins */
    u32 disp;
    int segment; /* through FS, or DS in compatibility mode */
};

struct groups {
    struct world world;
    int narrow;       /* effective addresses have 32 bits */
    u64 segment_base; /* of FS; of DS in compatibility mode */
    u64 edge;         /* addresses lie around it */
    unsigned spread;
};

static u64 address(const struct groups *g, const struct machine *m, const struct step *s)
{
    u64 ea = m->regs[s->base] + (u64)(long long)(int)s->disp;

    if (s->kind == PUSH || s->kind == POP)
        return m->state.rsp - (s->kind == PUSH ? 8 : 0);
    if (s->index != 4)
        ea += m->regs[s->index] << s->scale;
    if (g->narrow)
        ea = (u32)ea;
    if (s->segment)
        ea += g->segment_base;
    return compat(&g->world) ? (u32)ea : ea;
}

/* Two registers; the second is `index`. */
static void model_registers(struct machine *m, const struct step *s)
{
    u64 a = m->regs[s->reg], b = m->regs[s->index];

    switch (s->kind) {
    case COMPARE:
        subtract(m, a, b, 0, s->size);
        break;
    case ADD:
        write_reg(m, s->reg, add(m, a, b, 0, s->size), s->size);
        break;
    case SUB:
        write_reg(m, s->reg, subtract(m, a, b, 0, s->size), s->size);
        break;
    case SBB:
        write_reg(m, s->reg, subtract(m, a, b, m->state.rflags & CF, s->size), s->size);
        break;
    case AND:
        write_reg(m, s->reg, bitwise_and(m, a, b, s->size), s->size);
        break;
    default:
        write_reg(m, s->reg, step_by(m, a, 1, s->size), s->size);
    }
}

/* False: it faults. */
static int model_memory(const struct groups *g, struct machine *m, const struct step *s)
{
    const struct world *w = &g->world;
    u64 va = address(g, m, s), reg = m->regs[s->reg], value;

    if (faults(w, m, va, s->size, s->kind == STORE || s->kind == ADD_TO_MEMORY || s->kind == PUSH))
        return 0;
    value = read_model(w, va, s->size);
    switch (s->kind) {
    case LOAD:
        write_reg(m, s->reg, value, s->size);
        break;
    case STORE:
        write_model(w, va, s->size, reg);
        break;
    case PUSH:
        write_model(w, va, 8, reg);
        m->state.rsp -= 8;
        break;
    case POP:
        m->state.rsp += 8;
        m->regs[s->reg] = value;
        break;
    case ADD_TO_MEMORY:
        write_model(w, va, s->size, add(m, value, reg, 0, s->size));
        break;
    default:
        write_reg(m, s->reg, add(m, reg, value, m->state.rflags & CF, s->size), s->size);
    }
    return 1;
}

static void model_group(const struct groups *g, struct machine *m, const struct step *steps, unsigned count, word end)
{
    for (unsigned i = 0; i < count; i++) {
        const struct step *s = &steps[i];

        if (s->kind >= COMPARE) {
            model_registers(m, s);
        } else if (s->kind == MOVE) {
            m->regs[s->base] += (u64)(long long)(int)s->disp;
        } else if (!model_memory(g, m, s)) {
            m->state.rip += s->at;
            return;
        }
    }
    m->state.rip += end;
}

/* ---- The real thing ---- */

static void emit_registers(struct emitter *e, const struct step *s)
{
    static const u8 opcodes[] = { [COMPARE] = 0x38, [ADD] = 0, [SUB] = 0x28, [SBB] = 0x18, [AND] = 0x20, [INC] = 0xfe };
    unsigned rex = (s->size == 8) << 3 | (s->kind == INC ? 0 : s->index >> 3) << 2 | s->reg >> 3;

    if (s->size == 2)
        emit8(e, 0x66);
    if (rex)
        emit8(e, 0x40 | rex);
    emit8(e, opcodes[s->kind] | (s->size > 1));
    emit8(e, 0xc0 | (s->kind == INC ? 0 : s->index & 7) << 3 | (s->reg & 7));
}

static void emit_step(const struct groups *g, struct emitter *e, struct step *s)
{
    static const u8 opcodes[] = { 0x8a, 0x88, 0x00, 0x12, 0x8c };
    unsigned rex = (s->size == 8) << 3 | (s->reg >> 3) << 2 | (s->index >> 3) << 1 | s->base >> 3;

    s->at = (unsigned)e->length;
    if (s->kind == PUSH || s->kind == POP) {
        if (s->reg >> 3)
            emit8(e, 0x41);
        emit8(e, (s->kind == PUSH ? 0x50 : 0x58) | (s->reg & 7));
        return;
    }
    if (s->kind >= COMPARE) {
        emit_registers(e, s);
        return;
    }
    if (s->kind == MOVE) {
        emit8(e, 0x48 | (s->base >> 3) << 2 | s->base >> 3);
        emit8(e, 0x8d);
        emit_memory(e, s->base, s->base, 4, 0, s->disp);
        return;
    }
    if (s->segment && !compat(&g->world))
        emit8(e, 0x64);
    if (s->size == 2)
        emit8(e, 0x66);
    if (g->narrow && !compat(&g->world))
        emit8(e, 0x67);
    if (rex)
        emit8(e, 0x40 | rex);
    emit8(e, opcodes[s->kind] + (s->size > 1));
    emit_memory(e, s->reg, s->base, s->index, s->scale, s->disp);
}

/* With DS as the segment in compatibility mode, RBP and RSP as bases would mean SS. */
static unsigned make_steps(const struct groups *g, struct step *steps, unsigned count, u64 base, u64 index, u64 *seed)
{
    static const u8 bases64[] = { 3, 5, 6, 8, 9, 12, 13, 15, 4 }, bases32[] = { 3, 6 };
    static const u8 regs64[] = { 0, 1, 2, 10, 11 }, regs32[] = { 0, 1, 2 };
    int in_compat = compat(&g->world);
    unsigned base_reg =
        in_compat ? bases32[random64(seed) % sizeof(bases32)] : bases64[random64(seed) % sizeof(bases64)];

    for (unsigned i = 0; i < count; i++) {
        struct step *s = &steps[i];
        u64 r = random64(seed), target = g->edge + (r >> 32) % (2 * g->spread) - g->spread;

        *s = (struct step){ .kind = LOAD + r % 4, .base = base_reg, .index = 4, .segment = g->segment_base != 0 };
        s->size = 1u << (r >> 8) % (in_compat ? 3 : 4);
        s->reg = in_compat ? regs32[(r >> 16) % sizeof(regs32)] : regs64[(r >> 16) % sizeof(regs64)];
        if ((r >> 48) % 4 == 0) {
            s->kind = COMPARE + (r >> 56) % 6;
            s->index = in_compat ? regs32[(r >> 52) % sizeof(regs32)] : regs64[(r >> 52) % sizeof(regs64)];
            continue;
        }
        if (base_reg == 4 && !g->narrow && (r >> 40) % 2) {
            *s = (struct step){ .kind = PUSH + (r >> 41) % 2, .size = 8, .reg = s->reg };
            continue;
        }
        if (!g->narrow && (r >> 42) % 8 == 0) {
            *s = (struct step){ .kind = MOVE, .base = base_reg, .disp = (u32)((r >> 45) % 32 - 16) };
            continue;
        }
        if ((r >> 24) % 4 == 0) {
            s->index = 7;
            s->scale = (r >> 28) % 4;
        }
        s->disp = (u32)(target - g->segment_base - base - (s->index == 7 ? index << s->scale : 0));
    }
    return base_reg;
}

/* The same code with the base at several places: groups that lie in one page, in the other, and across. */
static void run_group(const struct groups *g, struct tally *tally, u64 seed)
{
    static const int moves[RUNS] = { 0, -1500, 1500, 0 };
    const struct world *w = &g->world;
    struct step steps[MAX_STEPS];
    struct emitter e = { CODE_FRAME, 0 };
    u64 state = seed, base = g->edge + random64(&state) % 128 - 64 - g->segment_base, index = random64(&state) % 4096;
    unsigned count = 2 + random64(&state) % (MAX_STEPS - 1), base_reg;

    base_reg = make_steps(g, steps, count, base, index, &state);
    for (unsigned i = 0; i < count; i++)
        emit_step(g, &e, &steps[i]);
    emit_end(&e);
    for (unsigned i = 0; i < RUNS; i++) {
        u64 garbage = g->narrow && !compat(w) && (seed >> i) % 2 ? random64(&state) << 32 : 0;
        struct regs in = { .mode = w->mode, .rflags = 2 | (i & 1) }, out;
        const char *what;

        for (unsigned reg = 0; reg < 16; reg++)
            (&in.rax)[reg] = compat(w) ? (u32)random64(&state) : random64(&state);
        in.rsp = 0;
        in.rdi = compat(w) ? (u32)index : index;
        (&in.rax)[base_reg] = (g->narrow ? (u32)(base + (u64)moves[i]) : base + (u64)moves[i]) | garbage;
        if (compat(w) && g->segment_base)
            in.ds = SCRATCH | 3;
        if (!in.rsp)
            in.rsp = user(w) ? USTACK_TOP : STACK_TOP;
        in.rip = user(w) ? UCODE_PAGE : CODE_PAGE;
        if (i == 0 || i == 3)
            clear_bits(w);
        struct machine m = start_machine(&in);
        model_group(g, &m, steps, count, e.length);
        enter(&in, &out);
        what = difference(w, &m, &out);
        if (wrong(tally, !what)) {
            say(" [seed=%X run=%d %s", seed, (word)i, what);
            say_event(&out);
            say("]");
        }
        if (what) /* do not report it again */
            set_world(w, &state);
    }
}

static void run_world(const struct groups *g, unsigned rounds)
{
    struct tally tally = { 0 };
    u64 seed = 1;

    begin(g->world.name);
    if (g->segment_base)
        wrmsr(MSR_FS_BASE, g->segment_base);
    set_world(&g->world, &seed);
    for (unsigned i = 0; i < rounds; i++)
        run_group(g, &tally, 1000 + i);
    end_tally(&tally);
}

/* ---- Line 4: a page end in the middle of the group ---- */

static void page_ends(void)
{
    static const struct {
        const char *name, *rights;
    } pairs[] = {
        { "both", "ww" },
        { "second-absent", "w-" },
        { "second-read-only", "wr" },
        { "second-supervisor", "ws" },
        { "second-no-memory", "wo" },
        { "first-absent", "-w" },
        { "first-read-only", "rw" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(pairs) * 2; i++) {
        const char *rights = pairs[i / 2].rights, *who = i & 1 ? "user" : "kernel";
        struct groups g = { { name_of("soundness-04-random-groups-%s-%s", who, pairs[i / 2].name),
                              i & 1 ? USER : KERNEL,
                              "01",
                              { rights[0], rights[1] } },
                            .edge = PAGE_B,
                            .spread = 40 };

        run_world(&g, 250);
    }
}

/* ---- Line 2: effective addresses that wrap ---- */

static u64 tables[5][512] __attribute__((aligned(PAGE)));

/* The last two pages below 4 GiB, and the first two of all; and those that nobody may reach: above 4 GiB, and the last
 * of all, where the sums would be that do not wrap. */
static struct groups make_wrapping(const char *name, enum mode mode, u64 segment_base)
{
    static const u64 addresses[MAX_PAGES] = { 0xffffe000, 0xfffff000, 0, 0x1000, 0x100000000, 0x100001000, HIGH_END };
    static struct place places[MAX_PAGES];

    for (unsigned i = 0; i < 512; i++) {
        tables[0][i] = (i * PAGE) | P | W;
        tables[1][i] = (0xffe00000 + i * PAGE) | P | W;
        tables[2][i] = tables[3][i] = tables[4][i] = 0;
    }
    *pde(0) = (u64)(word)tables[0] | P | W | U;
    *pde(0xffe00000) = (u64)(word)tables[1] | P | W | U;
    *pdpte(0x100000000) = (u64)(word)tables[2] | P | W | U;
    tables[2][0] = (u64)(word)tables[3] | P | W | U;
    for (unsigned i = 0; i < MAX_PAGES; i++) {
        u64 va = addresses[i];
        u64 *table = tables[va >> 32 ? 3 : va >> 20 ? 1 : 0];

        places[i] = (struct place){ va, va == HIGH_END ? pte(HIGH_END) : &table[va >> 12 & 511] };
    }
    return (struct groups){ { name, mode, "0123456", "wwwwwww", places }, 1, segment_base, BIT(32), 40 };
}

static void wrapping(void)
{
    static const struct {
        const char *name;
        enum mode mode;
        u64 segment_base;
    } ways[] = {
        { "soundness-02-random-groups-address-size-prefix", KERNEL, 0 },
        { "soundness-02-random-groups-address-size-prefix-user", USER, 0 },
        { "soundness-02-random-groups-address-size-prefix-fs", USER, 0x40 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        struct groups g = make_wrapping(ways[i].name, ways[i].mode, ways[i].segment_base);

        run_world(&g, 250);
    }
}

/* All pages present, numbered eight bytes by eight. */
static void set_user_views(void)
{
    struct groups g = make_wrapping("", USER, 0);

    map_world(&g.world);
    for (unsigned i = 0; i < MAX_PAGES; i++)
        for (unsigned at = 0; at < PAGE / 8; at++)
            FRAME64(FREE_FRAME + i * PAGE)[at] = 0x1000 * (i + 1) + at;
    for (unsigned at = 0; at < 32; at++)
        FRAME64(UDATA_FRAME)[at] = 0x9900 + at;
}

/* What else has 32-bit addresses: string instructions, counters, RIP, absolute addresses, and the stack of
 * compatibility mode. */
static void other_forms(void)
{
#define NARROW(name, how, text, ...) HOT("soundness-02-" name, how, set_user_views(), text, ##__VA_ARGS__)
    NARROW("rep-movs-wraps", USER, "mov esi, 0xfffffff8; .byte 0x67; rep movsb; mov rax, [r8]; mov rdx, [r8+8]",
           .rdi = UDATA, .rcx = 0x500000010, .r8 = UDATA);
    NARROW("rep-stos-wraps", USER, "mov edi, 0xfffffff0; .byte 0x67; rep stosd; mov rax, [r8]; mov rdx, [r8-8]",
           .rcx = 8, .r8 = 0x10, .rax = 0x5151);
    NARROW("lods-keeps-32-bits", USER, ".byte 0x67; lodsd", .rsi = 0xabc00000010);
    NARROW("xlat", USER, ".byte 0x67; xlatb", .rbx = 0x7ffffffff, .rax = 0x11);
    NARROW("loop", USER, "xor eax, eax; 1: inc eax; .byte 0x67; loop 1b", .rcx = 0x100000003);
    NARROW("jecxz", USER,
           "mov eax, 1; jecxz 1f; mov eax, 2; 1: mov edx, eax; jrcxz 2f; mov edx, 3; 2:", .rcx = BIT(32));
    NARROW("eip-relative", USER, "mov eax, [eip+1f]; jmp 2f; 1: .long 0x12345678; 2: lea rcx, [eip+1b]", .rax = 0);
    NARROW("absolute-64", USER, "movabs rax, [0x40050010]; movabs [0x40050018], eax; mov rcx, [rbx]",
           .rbx = UDATA + 24);
    NARROW("absolute-32", USER,
           ".byte 0x67, 0xa1, 0xfc, 0xff, 0xff, 0xff; mov ecx, eax; .byte 0x67, 0x48, 0xa1; .long "
           "0xfffffff0");
    NARROW("absolute-sign-extended", KERNEL, "mov rax, [0xfffffffffffffff0]; mov ecx, ds:[0x10]");
    NARROW("maskmovdqu", USER, "pcmpeqd xmm1, xmm1; movq xmm0, rax; .byte 0x67; maskmovdqu xmm0, xmm1; mov rcx, [r8]",
           .rdi = 0x300000000ul | UDATA, .rax = 0x66, .r8 = UDATA);
    set_user_views();
    TRY32("soundness-02-stack-wraps-compatibility", USER32,
          "mov ebx, esp; mov esp, 8; push eax; push ecx; push edx; mov esi, esp; pop eax; pop ecx; pop edx; mov edi, "
          "esp; "
          "mov esp, ebx");
}

static void compatibility(void)
{
    /* accesses that lie across the end of 4 GiB are the implementation's affair (SDM Vol. 3A 5.3): the last byte stays
     * in one piece with the first by keeping a distance */
    struct groups g = {
        { "soundness-02-random-groups-compatibility", USER32, "01", "w-" }, .narrow = 1, .edge = PAGE_B, .spread = 40
    };

    run_world(&g, 250);
    g.world = (struct world){ "soundness-02-random-groups-compatibility-segment-wraps", USER32, "01", "wr" };
    g.segment_base = 0xc0000000; /* offsets near 0x80100000: the sum wraps */
    gdt[SCRATCH / 8] = descriptor((u32)g.segment_base, 0xfffff, 0x60 | TYPE_DATA, FLAG_G | FLAG_D);
    run_world(&g, 250);
}

/* ---- A call where an access was that leads no group any more ---- */

/* An engine may remember by address that a group's range often crossed a page there. Other code is there then: a call, between two
 * accesses relative to RIP whose page the callee maps elsewhere. */
static void overwritten(void)
{
    u64 data = PAGE_B;
    struct regs out;

    begin("soundness-04-call-over-a-leader-of-groups");
    map(PAGE_A, FRAME_A, P | W | U);
    map(PAGE_B, FRAME_B, P | W | U);
    map(PAGE_B + PAGE, FRAME_B + PAGE, P | W | U);
    flush_tlb();
    for (unsigned i = 0; i < 3; i++)
        for (unsigned at = 0; at < PAGE / 8; at++)
            FRAME64(FRAME_B + i * PAGE)[at] = 0x1000 * (i + 1) + at;
    /* if an access faults, its flags are those of the first SUB, which cannot be made again */
    put_code(FRAME_A + 16, CODE("1: sub rax, rcx; mov rdx, [rbx]; mov rsi, [rbx+8]; sub edi, 1; jnz 1b"));
    out = AGAIN(KERNEL, .rip = PAGE_A + 16, .rbx = data + PAGE - 8, .rdi = 2000, .rcx = 1, .rax = 1000);
    say(" dx=%x si=%x", out.rdx, out.rsi);
    put_code(FRAME_A + 16 + 3 - 7, CODE("mov rax, [rip+0x1000]; call 1f; mov rdx, [rip+0x1000]; jmp 2f;"
                                        "1: mov [r9], r10; invlpg [rbx]; mov ecx, 5; ret; 2:"));
    for (unsigned i = 0; i < 3; i++) {
        map(PAGE_B, FRAME_B, P | W | U);
        flush_tlb();
        out = AGAIN(KERNEL, .rip = PAGE_A + 16 + 3 - 7, .rbx = data, .r9 = (word)pte(data),
                    .r10 = (FRAME_B + 2 * PAGE) | P | W | U);
    }
    say_event(&out);
    say(" ax=%x cx=%x dx=%x", out.rax, out.rcx, out.rdx);
    done();
}

void cases(void)
{
    page_ends();
    overwritten();
    wrapping();
    other_forms();
    compatibility();
}
