/* Several accesses off one base register (docs/design.md, "Soundness", lines 2 and 4). A translator may check such a
 * group once, at its beginning; here random groups meet page ends behind which there is nothing, or memory that is
 * read-only, a supervisor's, or no memory at all, and effective addresses of 32 bits that wrap. A model of a few lines
 * runs beside them: registers, memory, the fault and where it comes, accessed and dirty bits. SDM Vol. 1 3.3.7, 3.6;
 * Vol. 3A 4.6 to 4.8. */
#include "soundness.h"

#define PAGE_A  FREE
#define PAGE_B  (FREE + PAGE)
#define FRAME_A FREE_FRAME
#define FRAME_B (FREE_FRAME + PAGE)

/* ---- The model ---- */

enum rights { ABSENT, READ_ONLY, READ_WRITE, SUPERVISOR, OPEN_BUS };

struct region {
    u64 va;
    word pa;
    enum rights rights;
    u64 *entry; /* its page table entry, or NULL */
};

enum { MAX_REGIONS = 7, MAX_STEPS = 10, RUNS = 4 };

/* PUSH and POP only beside accesses off RSP; MOVE: LEA of the base itself, a little further; from
 * COMPARE on: registers only, for the flags */
enum kind { LOAD, STORE, ADD_TO_MEMORY, ADC_FROM_MEMORY, MOVE, PUSH, POP, COMPARE, ADD, SUB, SBB, AND, INC };

struct step {
    enum kind kind;
    unsigned size, reg, base, index, scale, at; /* at: where its code begins */
    u32 disp;
    int segment; /* through FS, or DS in compatibility mode */
};

struct world {
    const char *name;
    struct region regions[MAX_REGIONS];
    unsigned region_count;
    enum mode mode;
    int narrow;       /* effective addresses have 32 bits */
    u64 segment_base; /* of FS; of DS in compatibility mode */
    u64 edge;         /* addresses lie around it */
    unsigned spread;
};

struct machine {
    u64 regs[16];
    int carry;
    word flags; /* ZF and SF */
    struct outcome outcome;
    unsigned fault_step;
    unsigned touched, written, partly; /* regions, as bits; partly: by an access that faults */
};

static u8 shadow[MAX_REGIONS][PAGE];

static int compat(const struct world *w)
{
    return w->mode == USER32 || w->mode == KERNEL32;
}

static int user(const struct world *w)
{
    return w->mode == USER || w->mode == USER32;
}

static int find(const struct world *w, u64 va)
{
    for (unsigned i = 0; i < w->region_count; i++)
        if (va - w->regions[i].va < PAGE)
            return (int)i;
    return -1;
}

static int allowed(const struct world *w, int region, int write)
{
    enum rights r = region < 0 ? ABSENT : w->regions[region].rights;

    return r == READ_WRITE || r == OPEN_BUS || (r == READ_ONLY && !write) || (r == SUPERVISOR && !user(w));
}

/* The fault of an access, if it has one. */
static int faults(const struct world *w, struct machine *m, u64 va, unsigned size, int write)
{
    for (unsigned i = 0; i < size; i++) {
        int region = find(w, va + i);

        if (allowed(w, region, write))
            continue;
        m->outcome = (struct outcome){
            PG, (region >= 0 && w->regions[region].rights != ABSENT) | (word)write << 1 | (word)user(w) << 2, va + i
        };
        return 1;
    }
    return 0;
}

static u64 effective(const struct world *w, const struct machine *m, const struct step *s)
{
    u64 ea = m->regs[s->base] + (u64)(long long)(int)s->disp;

    if (s->index != 4)
        ea += m->regs[s->index] << s->scale;
    if (w->narrow)
        ea = (u32)ea;
    if (s->segment)
        ea += w->segment_base;
    return compat(w) ? (u32)ea : ea;
}

static u64 address(const struct world *w, const struct machine *m, const struct step *s)
{
    if (s->kind == PUSH || s->kind == POP)
        return m->regs[4] - (s->kind == PUSH ? 8 : 0);
    return effective(w, m, s);
}

static u64 read_shadow(const struct world *w, u64 va, unsigned size)
{
    u64 value = 0;

    for (unsigned i = 0; i < size; i++) {
        int region = find(w, va + i);
        u64 byte = w->regions[region].rights == OPEN_BUS ? 0xff : shadow[region][(va + i) % PAGE];

        value |= byte << 8 * i;
    }
    return value;
}

static void write_shadow(const struct world *w, u64 va, unsigned size, u64 value)
{
    for (unsigned i = 0; i < size; i++)
        shadow[find(w, va + i)][(va + i) % PAGE] = (u8)(value >> 8 * i);
}

static u64 mask_of(unsigned size)
{
    return size == 8 ? ~0ull : BIT(8 * size) - 1;
}

/* a + b + carry of that size; the carry goes out. */
static u64 add(struct machine *m, u64 a, u64 b, int carry, unsigned size)
{
    u64 mask = mask_of(size), sum;

    a &= mask;
    b &= mask;
    sum = (a + b + (u64)carry) & mask;
    m->carry = carry ? sum <= a : sum < a;
    m->flags = (sum ? 0 : ZF) | (sum >> (8 * size - 1) ? SF : 0);
    return sum;
}

static u64 subtract(struct machine *m, u64 a, u64 b, int borrow, unsigned size)
{
    u64 difference = add(m, a, ~b, !borrow, size);

    m->carry = !m->carry;
    return difference;
}

static void write_reg(struct machine *m, const struct step *s, u64 value)
{
    u64 mask = mask_of(s->size);

    m->regs[s->reg] = s->size == 4 ? (u32)value : (m->regs[s->reg] & ~mask) | (value & mask);
}

/* Two registers; the second is `index`. */
static void model_registers(struct machine *m, const struct step *s)
{
    u64 a = m->regs[s->reg], b = m->regs[s->index];
    int carry = m->carry;

    switch (s->kind) {
    case COMPARE:
        subtract(m, a, b, 0, s->size);
        break;
    case ADD:
        write_reg(m, s, add(m, a, b, 0, s->size));
        break;
    case SUB:
        write_reg(m, s, subtract(m, a, b, 0, s->size));
        break;
    case SBB:
        write_reg(m, s, subtract(m, a, b, carry, s->size));
        break;
    case AND:
        write_reg(m, s, add(m, a & b, 0, 0, s->size));
        break;
    default: /* INC keeps CF */
        write_reg(m, s, add(m, a, 1, 0, s->size));
        m->carry = carry;
    }
}

static int model_step(const struct world *w, struct machine *m, const struct step *s)
{
    u64 va = address(w, m, s);
    int write = s->kind == STORE || s->kind == ADD_TO_MEMORY || s->kind == PUSH;
    int first = find(w, va), last = find(w, va + s->size - 1);
    unsigned regions = (first >= 0 ? 1u << first : 0) | (last >= 0 ? 1u << last : 0);

    if (s->kind >= COMPARE) {
        model_registers(m, s);
        return 0;
    }
    if (s->kind == MOVE) {
        m->regs[s->base] += (u64)(long long)(int)s->disp;
        return 0;
    }
    if (faults(w, m, va, s->size, write)) {
        m->partly |= regions;
        return 1;
    }
    m->touched |= regions;
    if (write)
        m->written |= regions;
    switch (s->kind) {
    case LOAD:
        write_reg(m, s, read_shadow(w, va, s->size));
        break;
    case STORE:
        write_shadow(w, va, s->size, m->regs[s->reg]);
        break;
    case PUSH:
        write_shadow(w, va, 8, m->regs[s->reg]);
        m->regs[4] -= 8;
        break;
    case POP:
        m->regs[4] += 8;
        m->regs[s->reg] = read_shadow(w, va, 8);
        break;
    case ADD_TO_MEMORY:
        write_shadow(w, va, s->size, add(m, read_shadow(w, va, s->size), m->regs[s->reg], 0, s->size));
        break;
    default:
        write_reg(m, s, add(m, m->regs[s->reg], read_shadow(w, va, s->size), m->carry, s->size));
    }
    return 0;
}

static void model(const struct world *w, struct machine *m, const struct step *steps, unsigned count)
{
    m->outcome = (struct outcome){ VECTOR_DONE, 0, 0 };
    m->touched = m->written = m->partly = 0;
    for (m->fault_step = 0; m->fault_step < count; m->fault_step++)
        if (model_step(w, m, &steps[m->fault_step]))
            return;
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

static void emit_step(const struct world *w, struct emitter *e, struct step *s)
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
    if (s->segment && !compat(w))
        emit8(e, 0x64);
    if (s->size == 2)
        emit8(e, 0x66);
    if (w->narrow && !compat(w))
        emit8(e, 0x67);
    if (rex)
        emit8(e, 0x40 | rex);
    emit8(e, opcodes[s->kind] + (s->size > 1));
    emit_memory(e, s->reg, s->base, s->index, s->scale, s->disp);
}

/* With DS as the segment in compatibility mode, RBP and RSP as bases would mean SS. */
static unsigned make_steps(const struct world *w, struct step *steps, unsigned count, u64 base, u64 index, u64 *seed)
{
    static const u8 bases64[] = { 3, 5, 6, 8, 9, 12, 13, 15, 4 }, bases32[] = { 3, 6 };
    static const u8 regs64[] = { 0, 1, 2, 10, 11 }, regs32[] = { 0, 1, 2 };
    unsigned base_reg =
        compat(w) ? bases32[random64(seed) % sizeof(bases32)] : bases64[random64(seed) % sizeof(bases64)];

    for (unsigned i = 0; i < count; i++) {
        struct step *s = &steps[i];
        u64 r = random64(seed), target = w->edge + (r >> 32) % (2 * w->spread) - w->spread;

        *s = (struct step){ .kind = LOAD + r % 4, .base = base_reg, .index = 4, .segment = w->segment_base != 0 };
        s->size = 1u << (r >> 8) % (compat(w) ? 3 : 4);
        s->reg = compat(w) ? regs32[(r >> 16) % sizeof(regs32)] : regs64[(r >> 16) % sizeof(regs64)];
        if ((r >> 48) % 4 == 0) {
            s->kind = COMPARE + (r >> 56) % 6;
            s->index = compat(w) ? regs32[(r >> 52) % sizeof(regs32)] : regs64[(r >> 52) % sizeof(regs64)];
            continue;
        }
        if (base_reg == 4 && !w->narrow && (r >> 40) % 2) {
            *s = (struct step){ .kind = PUSH + (r >> 41) % 2, .size = 8, .reg = s->reg };
            continue;
        }
        if (!w->narrow && (r >> 42) % 8 == 0) {
            *s = (struct step){ .kind = MOVE, .base = base_reg, .disp = (u32)((r >> 45) % 32 - 16) };
            continue;
        }
        if ((r >> 24) % 4 == 0) {
            s->index = 7;
            s->scale = (r >> 28) % 4;
        }
        s->disp = (u32)(target - w->segment_base - base - (s->index == 7 ? index << s->scale : 0));
    }
    return base_reg;
}

static void set_regions(const struct world *w)
{
    static const u64 flags[] = { 0, P | U, P | W | U, P | W, P | W | U };

    for (unsigned i = 0; i < w->region_count; i++) {
        const struct region *r = &w->regions[i];

        *r->entry = r->rights == ABSENT ? 0 : (r->rights == OPEN_BUS ? NOWHERE : r->pa) | flags[r->rights];
    }
    flush_tlb();
}

static void fill_memory(const struct world *w, u64 *seed)
{
    for (unsigned i = 0; i < w->region_count; i++)
        for (unsigned at = 0; at < PAGE; at += 8) {
            u64 value = random64(seed);

            FRAME64(w->regions[i].pa)[at / 8] = value;
            __builtin_memcpy(&shadow[i][at], &value, 8);
        }
}

static int same_memory(const struct world *w)
{
    for (unsigned i = 0; i < w->region_count; i++) {
        const u64 *want = (const u64 *)(const void *)shadow[i];

        if (w->regions[i].rights == OPEN_BUS)
            continue;
        for (unsigned at = 0; at < PAGE / 8; at++)
            if (FRAME64(w->regions[i].pa)[at] != want[at])
                return 0;
    }
    return 1;
}

/* Accessed and dirty bits: set for what was done, and for nothing that was not reached. */
static int same_bits(const struct world *w, const struct machine *m)
{
    for (unsigned i = 0; i < w->region_count; i++) {
        word want = (m->touched >> i & 1 ? A : 0) | (m->written >> i & 1 ? D : 0),
             bits = *w->regions[i].entry & (A | D);
        word either = m->partly >> i & 1 ? A | D : 0;

        if ((bits & ~either) != (want & ~either))
            return 0;
    }
    return 1;
}

static void clear_bits(const struct world *w)
{
    for (unsigned i = 0; i < w->region_count; i++) {
        *w->regions[i].entry &= ~(u64)(A | D);
        invalidate(w->regions[i].va);
    }
}

static const char *difference(const struct world *w, const struct machine *m, const struct regs *out, word rip,
                              int bits)
{
    if (!same_outcome(&m->outcome, out))
        return "event";
    if (m->outcome.vector == PG && out->rip != rip)
        return "position";
    for (unsigned i = 0; i < 16; i++)
        if ((&out->rax)[i] != m->regs[i])
            return "register";
    if ((out->rflags & (CF | ZF | SF)) != (m->flags | (word)m->carry))
        return "flags";
    if (!same_memory(w))
        return "memory";
    return bits && !same_bits(w, m) ? "bits" : 0;
}

/* The same code with the base at several places: groups that lie in one page, in the other, and across. */
static void run_group(const struct world *w, struct tally *tally, u64 seed)
{
    static const int moves[RUNS] = { 0, -1500, 1500, 0 };
    struct step steps[MAX_STEPS];
    struct emitter e = { CODE_FRAME, 0 };
    u64 state = seed, base = w->edge + random64(&state) % 128 - 64 - w->segment_base, index = random64(&state) % 4096;
    unsigned count = 2 + random64(&state) % (MAX_STEPS - 1), base_reg;

    base_reg = make_steps(w, steps, count, base, index, &state);
    for (unsigned i = 0; i < count; i++)
        emit_step(w, &e, &steps[i]);
    emit_end(&e);
    for (unsigned i = 0; i < RUNS; i++) {
        u64 garbage = w->narrow && !compat(w) && (seed >> i) % 2 ? random64(&state) << 32 : 0;
        struct regs in = { .mode = w->mode, .rflags = 2 | (i & 1) }, out;
        struct machine m = { .carry = i & 1 };
        const char *what;

        for (unsigned reg = 0; reg < 16; reg++)
            (&in.rax)[reg] = compat(w) ? (u32)random64(&state) : random64(&state);
        in.rsp = 0;
        in.rdi = compat(w) ? (u32)index : index;
        (&in.rax)[base_reg] = (w->narrow ? (u32)(base + (u64)moves[i]) : base + (u64)moves[i]) | garbage;
        if (compat(w) && w->segment_base)
            in.ds = SCRATCH | 3;
        if (i == 0 || i == 3)
            clear_bits(w);
        in.rip = 0;
        if (!in.rsp)
            in.rsp = user(w) ? USTACK_TOP : STACK_TOP;
        __builtin_memcpy(m.regs, &in, sizeof(m.regs));
        model(w, &m, steps, count);
        enter(&in, &out);
        what = difference(w, &m, &out, in.rip + (m.fault_step < count ? steps[m.fault_step].at : 0), i == 0 || i == 3);
        if (wrong(tally, !what)) {
            say(" [seed=%X run=%d %s", seed, (word)i, what);
            say_event(&out);
            say("]");
        }
        if (what) /* do not report it again */
            fill_memory(w, &state);
    }
}

static void run_world(const struct world *w, unsigned rounds)
{
    struct tally tally = { 0 };
    u64 seed = 1;

    begin(w->name);
    set_regions(w);
    if (w->segment_base)
        wrmsr(MSR_FS_BASE, w->segment_base);
    fill_memory(w, &seed);
    for (unsigned i = 0; i < rounds; i++)
        run_group(w, &tally, 1000 + i);
    end_tally(&tally);
}

/* ---- Line 4: a page end in the middle of the group ---- */

static void page_ends(void)
{
    static const struct {
        const char *name;
        enum rights first, second;
    } pairs[] = {
        { "both", READ_WRITE, READ_WRITE },
        { "second-absent", READ_WRITE, ABSENT },
        { "second-read-only", READ_WRITE, READ_ONLY },
        { "second-supervisor", READ_WRITE, SUPERVISOR },
        { "second-no-memory", READ_WRITE, OPEN_BUS },
        { "first-absent", ABSENT, READ_WRITE },
        { "first-read-only", READ_ONLY, READ_WRITE },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(pairs) * 2; i++) {
        struct world w = {
            .region_count = 2,
            .mode = i & 1 ? USER : KERNEL,
            .edge = PAGE_B,
            .spread = 40,
            .regions = { { PAGE_A, FRAME_A, pairs[i / 2].first, pte(PAGE_A) },
                         { PAGE_B, FRAME_B, pairs[i / 2].second, pte(PAGE_B) } },
        };

        w.name = name_of("soundness-04-random-groups-%s-%s", i & 1 ? "user" : "kernel", pairs[i / 2].name);
        run_world(&w, 250);
    }
}

/* ---- Line 2: effective addresses that wrap ---- */

static u64 tables[5][512] __attribute__((aligned(PAGE)));

/* The last two pages below 4 GiB, and the first two of all; and those that nobody may reach: above 4 GiB, and the last
 * of all, where the sums would be that do not wrap. */
static void set_wrap_regions(struct world *w)
{
    static const u64 addresses[MAX_REGIONS] = { 0xffffe000, 0xfffff000, 0, 0x1000, 0x100000000, 0x100001000, HIGH_END };

    for (unsigned i = 0; i < 512; i++) {
        tables[0][i] = (i * PAGE) | P | W;
        tables[1][i] = (0xffe00000 + i * PAGE) | P | W;
        tables[2][i] = tables[3][i] = tables[4][i] = 0;
    }
    *pde(0) = (u64)(word)tables[0] | P | W | U;
    *pde(0xffe00000) = (u64)(word)tables[1] | P | W | U;
    *pdpte(0x100000000) = (u64)(word)tables[2] | P | W | U;
    tables[2][0] = (u64)(word)tables[3] | P | W | U;
    w->region_count = MAX_REGIONS;
    for (unsigned i = 0; i < MAX_REGIONS; i++) {
        u64 va = addresses[i];

        w->regions[i] = (struct region){ va, FREE_FRAME + i * PAGE, READ_WRITE,
                                         va == HIGH_END ? pte(HIGH_END)
                                                        : &tables[va >> 32   ? 3
                                                                  : va >> 20 ? 1
                                                                             : 0][va >> 12 & 511] };
    }
}

/* All regions present, numbered eight bytes by eight. */
static void set_user_views(const struct world *w)
{
    set_regions(w);
    for (unsigned i = 0; i < w->region_count; i++)
        for (unsigned at = 0; at < PAGE / 8; at++)
            FRAME64(w->regions[i].pa)[at] = 0x1000 * (i + 1) + at;
    for (unsigned at = 0; at < 32; at++)
        FRAME64(UDATA_FRAME)[at] = 0x9900 + at;
}

static void wrapping(void)
{
    struct world w = { .narrow = 1, .edge = BIT(32), .spread = 40 };

    set_wrap_regions(&w);
    w.mode = KERNEL;
    w.name = "soundness-02-random-groups-address-size-prefix";
    run_world(&w, 250);
    set_wrap_regions(&w);
    w.mode = USER;
    w.name = "soundness-02-random-groups-address-size-prefix-user";
    run_world(&w, 250);
    set_wrap_regions(&w);
    w.name = "soundness-02-random-groups-address-size-prefix-fs";
    w.segment_base = 0x40;
    run_world(&w, 250);
}

/* What else has 32-bit addresses: string instructions, counters, RIP, absolute addresses, and the stack of
 * compatibility mode. */
static void other_forms(void)
{
    struct world w = { 0 };

#define NARROW(name, how, text, ...)                                                                                   \
    HOT("soundness-02-" name, how, (set_wrap_regions(&w), set_user_views(&w)), text, ##__VA_ARGS__)
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
    set_wrap_regions(&w);
    set_user_views(&w);
    TRY32("soundness-02-stack-wraps-compatibility", USER32,
          "mov ebx, esp; mov esp, 8; push eax; push ecx; push edx; mov esi, esp; pop eax; pop ecx; pop edx; mov edi, "
          "esp; "
          "mov esp, ebx");
}

static void compatibility(void)
{
    /* accesses that lie across the end of 4 GiB are the implementation's affair (SDM Vol. 3A 5.3): the last byte stays
     * in one piece with the first by keeping a distance */
    struct world w = { .narrow = 1,
                       .edge = PAGE_B,
                       .spread = 40,
                       .mode = USER32,
                       .region_count = 2,
                       .regions = { { PAGE_A, FRAME_A, READ_WRITE, pte(PAGE_A) },
                                    { PAGE_B, FRAME_B, ABSENT, pte(PAGE_B) } } };

    w.name = "soundness-02-random-groups-compatibility";
    run_world(&w, 250);
    w.name = "soundness-02-random-groups-compatibility-segment-wraps";
    w.regions[1].rights = READ_ONLY;
    w.segment_base = 0xc0000000; /* offsets near 0x80100000: the sum wraps */
    gdt[SCRATCH / 8] = descriptor((u32)w.segment_base, 0xfffff, 0x60 | TYPE_DATA, FLAG_G | FLAG_D);
    run_world(&w, 250);
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
